"""Rays against triangles: hits, misses and the normals of shading."""

import numpy as np
import oracles
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.normals import CREASE
from nstr3d.geometry.mesh.raycast import MeshCaster
from nstr3d.render.camera import Camera
from nstr3d.render.traced import measure, render
from nstr3d.types import Frame, Mesh, Rays


def cast(mesh: Mesh, origins, directions) -> tuple[np.ndarray, np.ndarray]:
    sdf = MeshDistance(mesh).sdf()
    assert sdf.cast is not None
    rays = Rays(*(torch.tensor(each, dtype=torch.float64) for each in (origins, directions)))
    depth, normals = sdf.cast(rays)
    return depth.numpy(), normals.numpy()


def cube(side: float = 2.0) -> Mesh:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) - 0.5
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [tri for a, b, c, d in quads for tri in ((a, b, c), (a, c, d))]
    return Mesh(corners * side, np.array(faces))


def test_rays_meet_the_faces_of_a_cube_at_their_depth_and_keep_its_edges() -> None:
    away = [[5.0, 0.3, 0.2], [5.0, 0.999, 0.2], [5.0, 1.001, 0.2], [0.1, 0.2, -7.0]]
    along = [[-1.0, 0.0, 0.0]] * 3 + [[0.0, 0.0, 1.0]]
    depth, normals = cast(cube(), away, along)
    assert np.allclose(depth, [4.0, 4.0, np.inf, 6.0])
    assert np.allclose(normals, [[1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, -1]])


def test_a_smooth_mesh_has_the_normals_of_the_shape_that_it_samples() -> None:
    ball = oracles.sphere(4)
    heights = np.linspace(-0.8, 0.8, 41)
    origins = np.stack([heights, 0.3 * heights, np.full(41, 3.0)], axis=1)
    depth, normals = cast(ball, origins, np.tile([0.0, 0.0, -1.0], (41, 1)))
    points = origins - depth[:, None] * [0, 0, 1]
    assert np.allclose(np.linalg.norm(points, axis=1), 1, atol=5e-3)
    cosine = (normals * points).sum(axis=1) / np.linalg.norm(points, axis=1)
    angles = np.degrees(np.arccos(cosine.clip(-1, 1)))
    # the faces themselves are up to 5 degrees off
    assert angles.max() < 1.5
    assert CREASE > 2 * 5


def test_rays_at_edges_and_corners_do_not_slip_through() -> None:
    ball = oracles.sphere(5)
    eye = np.array([0.7, 0.9, 3.0])
    generator = np.random.default_rng(0)
    faces = ball.faces[generator.integers(len(ball.faces), size=20_000)]
    at = generator.uniform(size=(20_000, 1)).round(1)
    aims = ball.vertices[faces[:, 0]] * at + ball.vertices[faces[:, 1]] * (1 - at)
    reach = np.linalg.norm(aims - eye, axis=1)
    towards = (aims - eye) / reach[:, None]
    visible = (aims * towards).sum(axis=1) < -0.1
    depth, _ = cast(ball, np.tile(eye, (visible.sum(), 1)), towards[visible])
    assert np.abs(depth - reach[visible]).max() < 1e-5


def test_pictures_of_a_mesh_agree_with_sphere_tracing_and_with_the_moved_mesh() -> None:
    mesh = cube()
    distance = MeshDistance(mesh)
    camera = Camera.around(mesh.bounds, 30, 20, width=48, height=40)
    rays, buffers = camera.rays(), measure(distance.sdf(), camera)
    depth, normals = distance.sdf().cast(rays)
    found = depth.numpy().reshape(40, 48)
    both = np.isfinite(found) & buffers.mask
    assert both.sum() > 400
    assert (np.isfinite(found) != buffers.mask).sum() < 0.02 * both.sum()  # on the outline
    assert np.abs(found[both] - buffers.depth[both]).max() < 1e-3
    assert np.abs(normals.numpy().reshape(40, 48, 3) - buffers.normals)[both].mean() < 0.01
    frame = Frame((3.0, -2.0, 5.0), 10.0)
    moved = Mesh(frame.to_world(mesh.vertices), mesh.faces)
    there = Camera.around(moved.bounds, 30, 20, width=48, height=40)
    picture = render(distance.placed(moved, frame).sdf(), there)
    assert np.abs(picture - render(distance.sdf(), camera)).mean() < 1e-3


def test_what_a_missed_ray_leaves_in_memory_is_not_used(monkeypatch) -> None:
    mesh = cube()
    caster = MeshCaster(mesh.vertices, mesh.faces)
    first = caster._first

    def littered(*rays):
        face, depth, at = first(*rays)
        depth[face < 0], at[face < 0] = np.nan, np.finfo(at.dtype).max
        return face, depth, at

    monkeypatch.setattr(caster, "_first", littered)
    origins, directions = (
        np.array([[5.0, 0.3, 0.2], [5.0, 3.0, 0.2]]),
        np.tile([-1.0, 0, 0], (2, 1)),
    )
    depth, normals = caster(origins, directions)  # a warning of numpy would fail the test
    assert np.allclose(depth, [4.0, np.inf])
    assert np.allclose(normals, [[1, 0, 0], [0, 0, 0]])


def test_an_open_mesh_is_traced_because_its_surface_spans_the_holes() -> None:
    ball = oracles.sphere(3)
    assert MeshDistance(Mesh(ball.vertices, ball.faces[5:])).sdf().cast is None
