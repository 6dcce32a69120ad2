"""Far parts, thin solids and rounded coordinates, against closed forms, and their warnings."""

import math

import numpy as np
import pytest
from oracles import cube, sphere

from nstr3d.geometry.mesh.clean import merge_vertices
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.doubts import (
    coordinate_step,
    far_parts,
    mean_thickness,
    without_parts,
)
from nstr3d.geometry.mesh.surface import area, normalise, volume
from nstr3d.jobs.doubts import far_warnings, step_warnings, thin_warnings
from nstr3d.jobs.prepared import describe_far, prepare_mesh
from nstr3d.surface.metrics import score
from nstr3d.types import Mesh

FLAKE = Mesh(np.array([(0, 0, 0), (0.01, 0, 0), (0, 0.01, 0)], float), np.array([(0, 1, 2)]))


def moved(mesh: Mesh, x: float = 0.0, y: float = 0.0, size: float = 1.0) -> Mesh:
    return Mesh(mesh.vertices * size + (x, y, 0.0), mesh.faces)


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)]),
    )


def box(*sides: float) -> Mesh:
    unit = cube()
    return Mesh((unit.vertices - unit.bounds.lower) / unit.bounds.extent * sides, unit.faces)


def test_a_far_part_has_its_place_gap_and_share_of_the_box() -> None:
    # A ball of diameter 2 and a box of side 1 from 101 to 102: the whole is 103 long.
    far = far_parts(joined(sphere(4), moved(box(1, 1, 1), 101.0)))
    (part,) = far.parts
    assert part.bounds.lower == (101.0, 0.0, 0.0)
    assert (part.faces, part.closed, part.stray) == (12, True, False)
    assert math.isclose(part.gap, 100.0, rel_tol=1e-3)
    assert math.isclose(part.area, 6 / (6 + 4 * math.pi), rel_tol=0.03)
    assert math.isclose(far.share, 1 - 2 / 103, rel_tol=1e-3)
    kept = without_parts(joined(sphere(4), moved(box(1, 1, 1), 101.0)), far, [True])
    np.testing.assert_array_equal(kept.vertices, sphere(4).vertices)
    np.testing.assert_array_equal(kept.faces, sphere(4).faces)


def test_parts_of_a_chain_are_not_far() -> None:
    chain = joined(*(moved(sphere(1), 5.0 * step) for step in range(20)))
    assert far_parts(chain).parts == ()
    assert far_parts(sphere(1)).parts == ()
    # The next gap is wider than twice the chain.
    assert len(far_parts(joined(chain, moved(sphere(1), 97.0 * 3.5))).parts) == 1


def test_several_far_parts_keep_their_own_faces() -> None:
    whole = joined(moved(FLAKE, 50.0), sphere(2), moved(box(1, 1, 1), 0.0, 70.0))
    far = far_parts(whole)
    assert [part.faces for part in far.parts] == [12, 1]
    assert [part.stray for part in far.parts] == [False, True]
    assert len(without_parts(whole, far, [False, True]).faces) == len(sphere(2).faces) + 12
    assert len(without_parts(whole, far, [True, False]).faces) == len(sphere(2).faces) + 1
    assert without_parts(whole, far, [False, False]) is whole


@pytest.mark.parametrize(
    ("solid", "thickness"),
    [(box(1000, 1, 1), 1000 / 2001), (box(100, 100, 0.1), 0.1 / 1.002), (sphere(4), 2 / 3)],
)
def test_mean_thickness_is_that_of_the_closed_form(solid, thickness) -> None:
    assert math.isclose(mean_thickness(solid), thickness, rel_tol=0.01)


def test_steps_of_single_precision_are_recognised_where_they_show() -> None:
    ball = moved(sphere(3), 512434.25, 5405590.5)
    rounded = ball.vertices.astype(np.float32).astype(np.float64)
    assert coordinate_step(rounded) == 0.5
    assert coordinate_step(ball.vertices) is None  # double precision
    assert coordinate_step(sphere(3).vertices.astype(np.float32).astype(float)) is None
    assert coordinate_step(np.full((8, 3), 5405590.5)) is None  # too few to tell
    (warning,) = step_warnings(Mesh(rounded, ball.faces))
    assert "steps of up to 0.5" in warning
    assert step_warnings(ball) == []


def test_strays_are_left_out_and_far_solids_named() -> None:
    scan = joined(sphere(2), moved(FLAKE, 2000.0))
    prepared = prepare_mesh(scan)
    assert len(prepared.mesh.faces) == len(sphere(2).faces)
    assert prepared.repairs.watertight
    assert prepared.repairs.components == 1
    account = prepared.account
    assert (account.parts, account.closed, account.far, account.left_out) == (2, 1, 1, 1)
    assert prepared.far.share == 0  # nothing of the box serves what was left out
    assert math.isclose(account.left_out_share, 5e-5 / area(scan), rel_tol=1e-9)
    assert describe_far(prepared)["dropped"] == 1
    (warning,) = prepared.warnings
    assert "1 face(s) about (2000" in warning
    assert "left out" in warning

    pair = joined(sphere(2), moved(sphere(2), 500.0, size=0.5))
    kept, dropped = prepare_mesh(pair), prepare_mesh(pair, drop_far=True)
    assert len(kept.mesh.faces) == 2 * len(sphere(2).faces)
    assert len(dropped.mesh.faces) == len(sphere(2).faces)
    (warning,) = kept.warnings
    assert "99.6% of the box's length" in warning
    assert "--drop-far leaves them out" in warning.with_flags
    assert describe_far(kept)["dropped"] == 0
    assert prepare_mesh(sphere(2)).warnings == ()


def test_many_far_parts_are_counted_and_the_first_named() -> None:
    far = far_parts(joined(sphere(3), *(moved(FLAKE, 100.0 + at) for at in range(5))))
    (warning,) = far_warnings(far, ())
    assert warning.startswith("5 part(s)")
    assert "2 more" in warning


def test_thin_solids_are_named_with_the_cells_that_are_too_coarse() -> None:
    rod = box(1000, 1, 1)
    (warning,) = thin_warnings(rod, 13.0, 4096)
    assert "finest cells of the field are 13 wide" in warning
    (warning,) = thin_warnings(rod, None, 128)
    assert "<resolution>" not in warning
    assert "extracted mesh are 8.28 wide" in warning
    assert thin_warnings(rod, 0.4, 4096) == []
    assert thin_warnings(sphere(3), 0.8, 8) == []  # coarse, but no part of it is thinner


def test_the_overlap_of_thin_solids_is_sampled_in_their_box() -> None:
    # A rod of the unit box has 2e-7 of its volume: uniform points of the unit box never meet it.
    rod, wide = box(1000, 1, 1), box(1000, 1.25, 1)
    distance, _ = MeshDistance(rod), None
    _, frame = normalise(rod)
    generator = np.random.default_rng(0)
    figures = score(MeshDistance(wide).sdf(), wide, rod, distance, frame, generator, samples=4_000)
    assert figures.iou_volume is not None
    assert math.isclose(figures.iou_volume, 0.8, abs_tol=0.03)
    assert figures.iou_volume_failed is None
    assert "iou_volume_failed" not in figures.figures


def test_an_overlap_that_cannot_be_sampled_is_none_with_a_reason() -> None:
    apart = joined(box(1, 1, 1), moved(box(1, 1, 1), 9000.0, 9000.0))
    distance = MeshDistance(apart)
    _, frame = normalise(apart)
    figures = score(
        distance.sdf(), apart, apart, distance, frame, np.random.default_rng(0), samples=500
    )
    assert figures.iou_volume is None
    assert "0 of 500 points are inside" in str(figures.figures["iou_volume_failed"])
    assert figures.chamfer < 1e-9


def test_tolerances_do_not_depend_on_strays_that_are_left_out() -> None:
    # Beside the stray, an edge of the ball is below the gap that is welded and below rounding.
    ball = Mesh(sphere(2).vertices, sphere(2).faces[1:])  # with a hole
    alone, beside = (prepare_mesh(mesh) for mesh in (ball, joined(ball, moved(FLAKE, 1e7))))
    np.testing.assert_array_equal(beside.mesh.vertices, alone.mesh.vertices)
    np.testing.assert_array_equal(beside.mesh.faces, alone.mesh.faces)
    assert beside.repairs == alone.repairs


@pytest.mark.parametrize("step", [0.0, 1.0])
@pytest.mark.parametrize("thickness", [None, lambda bounds: 0.1 * float(bounds.extent.max())])
def test_a_far_part_without_area_is_degenerate_and_not_far(step, thickness) -> None:
    line = Mesh(np.array([(0, 0, 0), (step, 0, 0), (2 * step, 0, 0)]), np.array([(0, 1, 2)]))
    alone, beside = (
        prepare_mesh(mesh, thickness=thickness)
        for mesh in (sphere(2), joined(sphere(2), moved(line, 1e3)))
    )
    np.testing.assert_array_equal(beside.mesh.faces, alone.mesh.faces)
    assert beside.thickness == alone.thickness
    assert (beside.far.parts, beside.dropped) == ((), ())
    (warning,) = beside.warnings
    assert "their faces have no area" in str(warning)
    assert beside.repairs.degenerate_faces == 1
    account = beside.account
    assert (account.parts, account.closed, account.degenerate, account.far) == (2, 1, 1, 0)
    assert account.left_out_share == 0


def test_the_default_thickness_is_that_of_what_is_left() -> None:
    sheet = Mesh(np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], float),
                 np.array([(0, 1, 2), (0, 2, 3)]))  # fmt: skip
    scene = joined(sheet, moved(FLAKE, 1000.0))
    prepared = prepare_mesh(scene, True, lambda bounds: 0.01 * float(bounds.extent.max()))
    assert prepared.thickness == pytest.approx(0.01)
    assert volume(prepared.mesh) == pytest.approx(0.01, rel=0.05)


def test_far_solids_that_share_an_edge_are_closed() -> None:
    pair = joined(box(1, 1, 1), Mesh(box(1, 1, 1).vertices + (1, 1, 0), box(1, 1, 1).faces))
    merged, _ = merge_vertices(joined(moved(sphere(4), size=20.0), moved(pair, 200.0)))
    (part,) = far_parts(merged).parts
    assert (part.faces, part.closed, part.stray) == (24, True, False)


def test_the_share_of_the_box_is_that_of_the_parts_that_are_left() -> None:
    scene = joined(sphere(3), moved(FLAKE, 5000.0), moved(box(1, 1, 1), 101.0))
    prepared = prepare_mesh(scene)
    assert len(prepared.dropped) == len(prepared.far.parts) == 1
    assert prepared.far.share == pytest.approx(1 - 2 / 103, rel=1e-2)
    assert describe_far(prepared)["parts"] == 2
