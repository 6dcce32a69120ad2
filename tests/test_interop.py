"""Conversion to and from Open3D and trimesh, and the distance function that kaolin calls."""

import sys

import numpy as np
import pytest
import torch
from oracles import cube, torus
from programs import needs, needs_parts

from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.geometry.shapes import primitives
from nstr3d.io.interop import (
    cube_sdf,
    from_line_set,
    from_open3d,
    from_trimesh,
    line_set,
    to_open3d,
    to_trimesh,
)
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame, Polylines

POINTS = np.random.default_rng(0).normal(size=(7, 3))
LINES = Polylines(POINTS, np.array([0, 3, 3, 7]))
COLOURS = np.linspace(0, 1, 21).reshape(7, 3)


@needs_parts("open3d")
@needs("open3d")
def test_meshes_go_to_open3d_and_back() -> None:
    import open3d

    mesh = torus()
    colours = np.random.default_rng(0).random(mesh.vertices.shape)
    theirs = to_open3d(mesh, colours)
    np.testing.assert_array_equal(np.asarray(theirs.vertex_colors), colours)
    # Open3D also has counter-clockwise faces: the volume of a torus, 2 pi^2 R r^2, is positive.
    assert theirs.is_watertight()
    assert theirs.get_volume() == pytest.approx(2 * np.pi**2 * 0.4**2, rel=0.06)
    for other in (theirs, open3d.t.geometry.TriangleMesh.from_legacy(theirs)):
        ours = from_open3d(other)
        np.testing.assert_allclose(ours.vertices, mesh.vertices, atol=1e-6)
        np.testing.assert_array_equal(ours.faces, mesh.faces)


@needs_parts("open3d")
@needs("open3d")
def test_lines_go_to_open3d_and_back() -> None:
    theirs = line_set(LINES, COLOURS)
    np.testing.assert_array_equal(np.asarray(theirs.lines), LINES.segments)
    np.testing.assert_allclose(np.asarray(theirs.colors), COLOURS[LINES.segments].mean(axis=1))
    ours = from_line_set(theirs)
    np.testing.assert_array_equal(ours.points, POINTS)
    assert ours.starts.tolist() == [0, 3, 7]  # Open3D drops a line without points


def test_meshes_go_to_trimesh_and_back() -> None:
    mesh = cube(centre=(1e6, 0.0, 0.0))
    theirs = to_trimesh(mesh, np.full((8, 3), 0.2))
    assert theirs.is_watertight
    assert theirs.volume == pytest.approx(8)
    assert theirs.visual.vertex_colors[3].tolist() == [51, 51, 51, 255]
    ours = from_trimesh(theirs)
    np.testing.assert_array_equal(ours.vertices, mesh.vertices)
    np.testing.assert_array_equal(ours.faces, mesh.faces)


def voxels(
    sdf: list, bbox_center: float = 0.0, bbox_dim: float = 1.0, init_res: int = 8
) -> torch.Tensor:
    """A stand-in for kaolin's ``sdf_to_voxelgrids``, which cannot be installed here.

    It calls each function with float32 points ``(n, 3)``, expects values ``(n,)`` and uses their
    signs as a numpy array.
    """
    grid = torch.stack(
        torch.meshgrid(*[torch.arange(init_res + 1)] * 3, indexing="ij"), dim=-1
    ).reshape(-1, 3)
    grids = []
    for one in sdf:
        values = one(bbox_dim * (grid.float() / init_res - 0.5 + bbox_center)) <= 0
        assert values.shape == (len(grid),)
        grids.append(
            torch.from_numpy(values.data.cpu().numpy().astype(np.float32)).reshape(
                [init_res + 1] * 3
            )
        )
    return torch.stack(grids)


def test_a_distance_is_what_a_voxel_grid_asks_for() -> None:
    ball = primitives.sphere(0.5)
    grid = voxels([ball, primitives.translate(ball, (10.0, 0.0, 0.0))])
    assert grid.shape == (2, 9, 9, 9)
    assert grid[0, 4, 4].tolist() == [1] * 9
    assert not grid[1].any()
    field = NstrConfig(levels=(LevelConfig(4, plain=2, sparse=False),), hidden=8).build(3, 1)
    fitted = Fit(
        field, Frame((5.0, 0.0, 0.0), 2.0), Box((3.0, -2.0, -2.0), (7.0, 2.0, 2.0)), 2.0
    ).sdf()
    assert voxels([fitted, cube_sdf(fitted)[0]]).shape == (2, 9, 9, 9)


def test_the_cube_holds_the_shape_and_knows_the_way_back() -> None:
    far = primitives.translate(primitives.scale(primitives.torus(), 40.0), (500.0, 0.0, -80.0))
    inside, to_world = cube_sdf(far)
    points = torch.rand(2, 50, 3, dtype=torch.float64) - 0.5
    side = 1.05 * float(far.bounds.extent.max())
    torch.testing.assert_close(
        inside(points), far(to_world(points).reshape(-1, 3)).reshape(2, 50) / side
    )
    assert bool((inside(torch.eye(3, dtype=torch.float64) / 2) > 0).all())
    grid = voxels([inside], init_res=16)
    assert 0.02 < float(grid.mean()) < 0.3


def test_the_cube_keeps_single_precision_points_of_a_shape_far_off() -> None:
    far = primitives.translate(primitives.torus(), (512434.25, 5405590.5, 348.75))
    inside, to_world = cube_sdf(far)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    side = 1.05 * float(far.bounds.extent.max())
    near = primitives.torus()(points.double() * side) / side
    assert inside(points).dtype == torch.float32
    torch.testing.assert_close(inside(points), near.float(), atol=1e-6, rtol=0)
    middle = torch.tensor([512434.25, 5405590.5, 348.75], dtype=torch.float64)
    torch.testing.assert_close(to_world(points) - middle, points.double() * side, atol=1e-8, rtol=0)


def test_colours_and_lines_that_do_not_fit_raise() -> None:
    with pytest.raises(ValueError, match="take colours"):
        to_trimesh(cube(), np.full((8, 3), 2.0))
    with pytest.raises(ValueError, match="3 dimensions"):
        line_set(Polylines(POINTS[:, :2], LINES.starts))


def test_without_open3d_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    for call in (lambda: line_set(LINES), lambda: to_open3d(cube())):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'nstr3d\[open3d\]'"):
            call()
