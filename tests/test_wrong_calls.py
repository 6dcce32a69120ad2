"""Objects of wrong types and shapes get one sentence from public functions: a TypeError or a
ValueError, never an error from the inside."""

import math

import numpy as np
import pytest
import torch
from oracles import sphere

import nstr3d
from nstr3d import (
    Box,
    Camera,
    Frame,
    Mesh,
    MeshDistance,
    NstrConfig,
    PointCloud,
    Raster,
    Rays,
    Sdf,
    SdfObjective,
    SurfaceBand,
)

BALL = sphere(2)
SDF = Sdf(lambda points: points.norm(dim=1) - 1, Box((-1.0,) * 3, (1.0,) * 3))
RAYS = Rays(torch.zeros(2, 3), torch.ones(2, 3))
POINTS = [
    [[0, 0, 0]],
    "points",
    None,
    1.0,
    np.zeros(3),
    np.zeros((2, 2)),
    np.zeros((2, 4)),
    np.zeros((1, 2, 3)),
    np.zeros((2, 3), complex),
    np.zeros((2, 3), bool),
    np.array([["a", "b", "c"]]),
    np.array([[None, 1, 2]]),
    torch.zeros(3),
    torch.zeros(2, 4),
    torch.zeros(2, 3, dtype=torch.complex64),
    torch.zeros(2, 3, dtype=torch.bool),
]
WRONG = [None, 1, "mesh", [1, 2], np.zeros((2, 3)), {}, 1j]


def refuses(call, *args, **options) -> None:
    """Asserts that a call raises TypeError or ValueError with one line."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value).strip()
    assert len(str(caught.value)) > 10
    assert "object has no attribute" not in str(caught.value)


@pytest.mark.parametrize("points", POINTS, ids=lambda value: type(value).__name__)
def test_queries_refuse_what_are_no_points(points):
    for query in (SDF, SDF.gradient, SDF.normals, SDF.offset(0.1)):
        refuses(query, points)
    fitted = nstr3d.Fit(NstrConfig().build(3, 1), Frame.identity(), SDF.bounds, 1.0).sdf()
    for query in (fitted, fitted.gradient, fitted.normals):
        refuses(query, points)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float16, np.float32, np.longdouble])
def test_queries_take_points_of_every_number(dtype):
    points = np.array([[2, 0, 0], [0, 3, 0]], dtype)[:, ::-1]  # not contiguous
    np.testing.assert_allclose(SDF(points), [1, 2], atol=1e-3)
    np.testing.assert_allclose(SDF.gradient(points), [[0, 0, 1], [0, 1, 0]], atol=1e-3)
    assert SDF(np.zeros((0, 3))).shape == (0,)
    assert SDF.gradient(torch.tensor([[2, 0, 0]])).tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
def test_functions_refuse_other_objects(wrong, tmp_path):
    rng, distance, frame = np.random.default_rng(0), MeshDistance(BALL), Frame.identity()
    refuses(nstr3d.extract_mesh, wrong)
    refuses(nstr3d.sphere_trace, wrong, RAYS)
    refuses(nstr3d.sphere_trace, SDF, wrong)
    refuses(nstr3d.render, wrong, Camera.around(SDF.bounds))
    refuses(nstr3d.render, SDF, wrong)
    refuses(nstr3d.measure, SDF, wrong)
    refuses(nstr3d.score, wrong, BALL, BALL, distance, frame, rng)
    refuses(nstr3d.score, SDF, wrong, BALL, distance, frame, rng)
    refuses(nstr3d.score, SDF, BALL, wrong, distance, frame, rng)
    refuses(nstr3d.score, SDF, BALL, BALL, distance, wrong, rng)
    refuses(nstr3d.score, SDF, BALL, BALL, distance, frame, wrong)
    refuses(nstr3d.repair, wrong)
    refuses(nstr3d.normalise, wrong)
    refuses(MeshDistance, wrong)
    refuses(SurfaceBand, wrong, distance)
    refuses(nstr3d.fit, wrong, Raster(np.zeros((3, 1))), SdfObjective(), nstr3d.FitConfig())
    refuses(nstr3d.fit, NstrConfig().build(3, 1), wrong, SdfObjective(), nstr3d.FitConfig())
    refuses(nstr3d.save_mesh, tmp_path / "a.ply", wrong)
    refuses(nstr3d.save_sound, tmp_path / "a.wav", wrong)
    refuses(nstr3d.save, tmp_path / "a.safetensors", wrong)
    if not isinstance(wrong, np.ndarray):
        refuses(nstr3d.save_image, tmp_path / "a.png", wrong)
        refuses(nstr3d.fit_cosines, wrong, 100)
        refuses(Raster, wrong)
    if not isinstance(wrong, str):
        for load in (nstr3d.load, nstr3d.load_mesh, nstr3d.load_image, nstr3d.load_sound):
            refuses(load, wrong)
        refuses(nstr3d.fit_mesh, wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (BALL.vertices.tolist(), BALL.faces),
        (BALL.vertices, BALL.faces.tolist()),
        (BALL.vertices[:, :2], BALL.faces),
        (BALL.vertices, BALL.faces[:, :2]),
        (BALL.vertices, BALL.faces.astype(float)),
        (BALL.vertices.astype(str), BALL.faces),
        (BALL.vertices.ravel(), BALL.faces),
    ],
)
def test_a_mesh_is_made_of_arrays_of_its_shapes(vertices, faces):
    refuses(Mesh, vertices, faces)


def test_clouds_and_rays_have_one_row_for_each():
    refuses(PointCloud, np.zeros((4, 2)))
    refuses(PointCloud, np.zeros((4, 3)), np.zeros((3, 3)))
    refuses(PointCloud, [[0, 0, 0]])
    refuses(Rays, torch.zeros(2, 3), torch.zeros(3, 3))
    refuses(Rays, torch.zeros(2, 3), np.zeros((2, 3)))
    refuses(Rays, torch.zeros(3), torch.zeros(3))
    refuses(Rays, torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64))


def test_numbers_are_numbers():
    refuses(nstr3d.extract_mesh, SDF, "64")
    refuses(nstr3d.extract_mesh, SDF, 64.5)
    refuses(nstr3d.extract_mesh, SDF, 64, level="0")
    refuses(nstr3d.extract_mesh, SDF, 64, bounds=(0, 1))
    refuses(SDF.offset, "0.1")
    refuses(SDF.offset, math.nan)
    refuses(nstr3d.sphere_trace, SDF, RAYS, tolerance="small")
    refuses(nstr3d.fit_cosines, np.zeros((8, 8, 1), np.float32), "many")
    refuses(nstr3d.fit_cosines, np.zeros((2, 8, 8, 1), np.float32), 100)
    refuses(Raster, np.zeros(4))
    refuses(MeshDistance(BALL), np.zeros((4, 2)))
    refuses(MeshDistance(BALL), "points")


def test_a_picture_has_no_sdf():
    field = nstr3d.fit_cosines(np.random.default_rng(0).random((8, 8, 1), np.float32), 60)
    refuses(nstr3d.Fit(field, Frame.identity(2), Box((0.0, 0.0), (8.0, 8.0)), math.inf).sdf)
