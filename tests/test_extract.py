"""Isosurface extraction: the mesh is closed, oriented, complete, second-order accurate and equal to
that of dense marching cubes."""

import itertools
import math
from collections.abc import Callable

import igl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nstr3d.geometry.mesh.repair import structure
from nstr3d.geometry.mesh.surface import area, volume
from nstr3d.geometry.shapes.primitives import bracket, gyroid_slab, scale, sphere, torus, translate
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import Extraction, extract, extract_mesh
from nstr3d.types import Box, Mesh

CUBE = Box((-1.0,) * 3, (1.0,) * 3)


def assert_closed(mesh: Mesh) -> None:
    """Asserts that every edge has exactly two faces, which traverse it in opposite directions, and
    that every vertex is used."""
    a, b = mesh.faces, np.roll(mesh.faces, -1, axis=1)
    keys = (a * len(mesh.vertices) + b).ravel()
    assert len(np.unique(keys)) == len(keys), "an edge is run along twice in one direction"
    assert np.array_equal(np.sort(keys), np.sort((b * len(mesh.vertices) + a).ravel())), (
        "an edge has one face only"
    )
    assert np.array_equal(np.unique(mesh.faces), np.arange(len(mesh.vertices))), (
        "a vertex is in no face"
    )
    assert mesh.faces.dtype == np.int64
    assert mesh.vertices.dtype == np.float64


def euler(mesh: Mesh) -> int:
    """The Euler characteristic (vertices - edges + faces) of a closed mesh."""
    return len(mesh.vertices) - len(mesh.faces) * 3 // 2 + len(mesh.faces)


def dense(extraction: Extraction, sdf: Sdf, level: float = 0.0) -> Mesh:
    """Marching cubes over every cell of the grid of ``extraction``, with all nodes evaluated."""
    shape = np.array(extraction.shape) + 1
    origin = sdf.bounds.centre - np.array(extraction.shape) * extraction.cell / 2
    nodes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    values = sdf(origin + nodes * extraction.cell) - level
    lower = nodes[(nodes < shape - 1).all(axis=1)]
    ring = np.array(
        [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]
    )
    cells = np.ravel_multi_index(np.moveaxis(lower[:, None] + ring, -1, 0), tuple(shape))
    vertices, faces, _ = igl.marching_cubes(values, nodes.astype(np.float64), cells, 0.0)
    return Mesh(origin + np.asarray(vertices) * extraction.cell, np.asarray(faces))


def assert_same_triangles(a: Mesh, b: Mesh) -> None:
    """Asserts that both meshes have the same triangles, in any order of faces and vertices."""

    def centres(mesh: Mesh) -> np.ndarray:
        rows = np.round(mesh.corners.mean(axis=1), 9)
        return rows[np.lexsort(rows.T)]

    assert len(a.faces) == len(b.faces)
    assert len(a.vertices) == len(b.vertices)
    np.testing.assert_allclose(centres(a), centres(b), atol=1e-8)


def distorted(sdf: Sdf, change: Callable[[Tensor], Tensor], lipschitz: float) -> Sdf:
    """``sdf`` with ``change`` applied to its values, which states the bound ``lipschitz``."""
    return Sdf(lambda points: change(sdf.distance(points)), sdf.bounds, lipschitz)


def test_assert_closed_sees_a_hole_a_flip_and_a_stray_vertex() -> None:
    mesh = extract_mesh(sphere(), 8)
    flipped = mesh.faces.copy()
    flipped[0] = flipped[0, ::-1]
    stray = np.vstack([mesh.vertices, np.zeros(3)])
    assert_closed(mesh)
    for broken in (
        Mesh(mesh.vertices, mesh.faces[1:]),
        Mesh(mesh.vertices, flipped),
        Mesh(stray, mesh.faces),
    ):
        with pytest.raises(AssertionError):
            assert_closed(broken)


def test_assert_same_triangles_sees_a_shift() -> None:
    mesh = extract_mesh(sphere(), 8)
    with pytest.raises(AssertionError):
        assert_same_triangles(mesh, Mesh(mesh.vertices + 1e-4, mesh.faces))


@pytest.mark.parametrize(("shape", "characteristic"), [(sphere(), 2), (torus(), 0)])
@pytest.mark.parametrize("resolution", [31, 64, 130])
def test_closed_outward_and_of_the_right_genus(
    shape: Sdf, characteristic: int, resolution: int
) -> None:
    mesh = extract_mesh(shape, resolution)
    assert_closed(mesh)
    assert euler(mesh) == characteristic
    assert volume(mesh) > 0


def test_sphere_area_and_volume_are_low_by_less_than_one_percent_and_never_high() -> None:
    for resolution in (32, 64, 128):
        mesh = extract_mesh(sphere(), resolution)
        assert 0.99 < area(mesh) / (4 * math.pi) < 1
        assert 0.99 < volume(mesh) / (4 / 3 * math.pi) < 1


def test_vertices_lie_on_the_sphere_to_second_order() -> None:
    errors = [
        np.abs(np.linalg.norm(extract_mesh(sphere(), n).vertices, axis=1) - 1).max()
        for n in (32, 64, 128)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert 3 < coarse / fine < 5.5


@pytest.mark.parametrize("shape", [bracket(), gyroid_slab(), torus()])
@pytest.mark.parametrize("resolution", [24, 70])
def test_sparse_equals_dense(shape: Sdf, resolution: int) -> None:
    sparse = extract(shape, resolution)
    assert_same_triangles(sparse.mesh, dense(sparse, shape))


def test_sparse_equals_dense_where_blocks_are_larger_than_bricks() -> None:
    sparse = extract(torus(), 136)
    assert_same_triangles(sparse.mesh, dense(sparse, torus()))


def test_only_a_thin_layer_is_evaluated() -> None:
    sparse = extract(sphere(), 256)
    assert sparse.evaluations < 0.1 * 257**3
    assert sparse.rounds == 1


def test_the_chunk_changes_nothing() -> None:
    a, b = extract_mesh(sphere(), 40), extract(sphere(), 40, chunk=997).mesh
    np.testing.assert_array_equal(a.vertices, b.vertices)
    np.testing.assert_array_equal(a.faces, b.faces)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.floats(-1e4, 1e4)] * 3), st.floats(1e-3, 1e3))
def test_world_units_and_far_offsets(offset: tuple[float, float, float], size: float) -> None:
    moved = extract_mesh(translate(scale(torus(), size), offset), 32)
    assert_closed(moved)
    assert euler(moved) == 0
    still = extract_mesh(torus(), 32)
    assert math.isclose(area(moved), area(still) * size**2, rel_tol=1e-4)
    np.testing.assert_allclose(moved.bounds.centre, offset, atol=1e-6 * size + 1e-9)


def test_a_level_is_an_offset_surface_that_the_grown_bounds_hold() -> None:
    for level in (-0.3, 0.5):
        mesh = extract_mesh(sphere(), 64, level=level)
        np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 1 + level, atol=2e-3)


@pytest.mark.parametrize("understated", [1.5, 4.0, 40.0])
def test_an_understated_lipschitz_bound_still_gives_the_whole_surface(understated: float) -> None:
    lie = distorted(torus(), lambda d: understated * d, lipschitz=1.0)
    sparse = extract(lie, 140)
    assert_same_triangles(sparse.mesh, extract_mesh(torus(), 140))
    assert sparse.rounds > 1


def test_small_components_between_samples_are_found_under_a_bound_four_times_too_small() -> None:
    generator = torch.Generator().manual_seed(1)
    count = 24
    middles = (torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5) * 0.1
    middles[:, 0] = torch.linspace(-1.9, 1.9, count, dtype=torch.float64) + middles[:, 0] / 10
    row = Box((-2.0, -0.1, -0.1), (2.0, 0.1, 0.1))
    beads = Sdf(
        lambda points: 4 * (torch.cdist(points, middles).amin(dim=1) - 0.015), row, lipschitz=1.0
    )
    mesh = extract_mesh(beads, 512)
    assert_closed(mesh)
    assert euler(mesh) == 2 * count


def test_a_component_that_the_bound_hides_is_found_by_its_sign() -> None:
    # The small sphere's distance near its surface is a hundred times too steep, in too small a part
    # of the box to raise the bound. The large sphere's distance is exact.
    small, large = (
        translate(sphere(0.06), (1.0, 0.0, 0.0)),
        translate(sphere(1.0), (-1.2, 0.0, 0.0)),
    )

    def distance(points: Tensor) -> Tensor:
        near = small.distance(points)
        steep = torch.where(near < 0.02, 100 * near, near + 1.98)
        return torch.minimum(large.distance(points), steep)

    mesh = extract_mesh(Sdf(distance, Box((-2.2, -1.0, -1.0), (1.06, 1.0, 1.0))), 128)
    assert_closed(mesh)
    assert euler(mesh) == 4
    assert math.isclose(mesh.bounds.upper[0], 1.06, abs_tol=0.01)


def test_zeros_on_the_nodes_leave_the_mesh_closed() -> None:
    stepped = distorted(sphere(), lambda d: torch.round(d * 8) / 8, lipschitz=4.0)
    sparse = extract(stepped, 32)
    assert_closed(sparse.mesh)


def test_noise_is_extracted_closed() -> None:
    generator = torch.Generator().manual_seed(3)
    waves = torch.randn(40, 3, generator=generator, dtype=torch.float64) * 12

    def distance(points: Tensor) -> Tensor:
        return torch.maximum(torch.sin(points @ waves.T).mean(dim=1), points.norm(dim=1) - 0.9)

    assert_closed(extract_mesh(Sdf(distance, CUBE, lipschitz=20.0), 40))


def test_a_cavity_faces_into_itself() -> None:
    shell = Sdf(lambda points: (points.norm(dim=1) - 0.7).abs() - 0.1, CUBE)
    mesh = extract_mesh(shell, 64)
    assert_closed(mesh)
    assert euler(mesh) == 4
    assert math.isclose(volume(mesh), 4 / 3 * math.pi * (0.8**3 - 0.6**3), rel_tol=0.02)


def test_an_empty_level_set_raises() -> None:
    with pytest.raises(ValueError, match="empty"):
        extract_mesh(distorted(sphere(), lambda d: d + 10, 1.0), 32)


def test_a_surface_cut_by_the_bounds_raises() -> None:
    with pytest.raises(ValueError, match="larger bounds"):
        extract_mesh(sphere(), 32, bounds=Box((-1.0, -1.0, -1.0), (1.0, 0.5, 1.0)))


def test_values_that_are_not_finite_raise() -> None:
    with pytest.raises(ValueError, match="not finite"):
        extract_mesh(distorted(sphere(), lambda d: torch.where(d < 0, torch.nan, d), 1.0), 16)


@pytest.mark.parametrize("resolution", [1, 0, -5])
def test_too_small_a_resolution_raises(resolution: int) -> None:
    with pytest.raises(ValueError, match="resolution"):
        extract_mesh(sphere(), resolution)


def test_bounds_without_size_and_a_bound_of_zero_raise() -> None:
    for upper, reason in (
        ((0.0, 0.0, 0.0), "have no size"),
        ((1.0, 1.0, -1.0), "upper corner below"),
        ((1.0, 1.0, np.inf), "are not finite"),
        ((1.0, np.nan, 1.0), "are not finite"),
    ):
        with pytest.raises(ValueError, match=f"bounds .*{reason}"):
            extract_mesh(sphere(), 16, bounds=Box((0.0,) * 3, upper))
    for bound in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="Lipschitz"):
            extract_mesh(distorted(sphere(), lambda d: d, bound), 16)


def test_a_piece_smaller_than_a_cell_is_left_out() -> None:
    ball, grain = (0.5, (0.0, 0.0, 0.0)), (0.02, (0.76, 0.0, 0.0))

    def union(*balls: tuple[float, tuple[float, float, float]]) -> Sdf:
        def distance(points: torch.Tensor) -> torch.Tensor:
            return torch.stack(
                [(points - points.new_tensor(c)).norm(dim=1) - r for r, c in balls]
            ).amin(dim=0)

        return Sdf(distance, CUBE, 1.0)

    # 53 cells over 2.12 are rounded up to 54 cells of width 0.04, with a node at 0.76 = 19 x 0.04.
    with_grain, without = extract_mesh(union(ball, grain), 53), extract_mesh(union(ball), 53)
    assert structure(extract_mesh(union(ball, (0.06, grain[1])), 53)) == (2, True)
    np.testing.assert_array_equal(with_grain.vertices, without.vertices)
    np.testing.assert_array_equal(with_grain.faces, without.faces)
    alone = extract_mesh(union(grain), 53)
    assert len(alone.faces) == 8
