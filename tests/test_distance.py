"""Signed distance to meshes, against closed forms and brute force."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nstr3d.geometry.mesh import distance as distance_module
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.types import Mesh


def scattered(mesh: Mesh, count: int = 400, seed: int = 0) -> np.ndarray:
    """Points around the mesh; half of them are close to its surface."""
    generator = np.random.default_rng(seed)
    centre, extent = mesh.bounds.centre, mesh.bounds.extent.max()
    corners = mesh.vertices[mesh.faces[generator.integers(len(mesh.faces), size=count // 2)]]
    on_faces = np.einsum("nk,nki->ni", generator.dirichlet(np.ones(3), count // 2), corners)
    near = on_faces + generator.normal(size=(count // 2, 3)) * 0.02 * extent
    return np.concatenate([near, centre + generator.uniform(-0.8, 0.8, (count // 2, 3)) * extent])


def open_sphere() -> Mesh:
    mesh = oracles.sphere(2)
    return Mesh(mesh.vertices, mesh.faces[mesh.vertices[mesh.faces].mean(axis=1)[:, 2] < 0.8])


MESHES = {
    "tetrahedron": oracles.tetrahedron(),
    "cube": oracles.cube(),
    "torus": oracles.torus(),
    "open": open_sphere(),
    "inverted": oracles.inverted(oracles.torus()),
    "face to face": oracles.joined(oracles.cube(), oracles.cube(centre=(2.0, 0.0, 0.0))),
    "touching at a corner": oracles.joined(oracles.cube(), oracles.cube(centre=(2.0, 2.0, 2.0))),
    "overlapping": oracles.joined(oracles.sphere(2), oracles.sphere(2, centre=(0.7, 0.2, 0.1))),
    "with a cavity": oracles.joined(
        oracles.sphere(2), oracles.inverted(oracles.sphere(2, radius=0.5))
    ),
    "unshared vertices": oracles.soup(oracles.sphere(1)),
}


@pytest.mark.parametrize("name", MESHES)
def test_distance_equals_brute_force(name: str) -> None:
    mesh = MESHES[name]
    points = scattered(mesh)
    exact = oracles.brute_force_winding(mesh, points)
    # the fast winding number is an approximation, so the sign may differ where the exact one is 1/2
    clear = np.abs(exact - 0.5) > 0.02
    assert clear.mean() > 0.95
    computed = MeshDistance(mesh)(points)
    np.testing.assert_allclose(
        computed[clear], oracles.brute_force_distance(mesh, points)[clear], atol=1e-12
    )
    np.testing.assert_allclose(
        np.abs(computed), oracles.brute_force_unsigned(mesh, points), atol=1e-12
    )


@pytest.mark.parametrize("name", MESHES)
def test_winding_number_is_close_to_the_solid_angles(name: str) -> None:
    mesh = MESHES[name]
    points = scattered(mesh)
    np.testing.assert_allclose(
        MeshDistance(mesh).winding(points), oracles.brute_force_winding(mesh, points), atol=0.02
    )


def test_cube_distance_is_the_closed_form() -> None:
    points = np.random.default_rng(1).uniform(-2, 2, (500, 3))
    q = np.abs(points) - 1
    expected = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)
    np.testing.assert_allclose(MeshDistance(oracles.cube())(points), expected, atol=1e-14)


def test_an_inside_out_mesh_has_no_inside() -> None:
    mesh = oracles.inverted(oracles.cube())
    assert (MeshDistance(mesh)(scattered(mesh)) > 0).all()


def test_nearest_point_lies_on_its_face_at_the_stated_distance() -> None:
    mesh = oracles.torus()
    points = scattered(mesh)
    distance, face, closest = MeshDistance(mesh).nearest(points)
    np.testing.assert_allclose(np.linalg.norm(points - closest, axis=1), distance, atol=1e-14)
    for index in range(0, len(points), 17):
        own_face = Mesh(mesh.vertices, mesh.faces[face[index : index + 1]])
        assert oracles.brute_force_unsigned(own_face, closest[index : index + 1])[0] < 1e-12


def test_vertices_are_at_distance_zero() -> None:
    mesh = oracles.torus()
    np.testing.assert_array_equal(MeshDistance(mesh)(mesh.vertices), 0)
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    np.testing.assert_allclose(MeshDistance(mesh)(middles), 0, atol=1e-15)


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 3.0, 1e12])
def test_distance_scales_with_the_mesh(factor: float) -> None:
    mesh = oracles.torus()
    points = scattered(mesh)
    scaled = MeshDistance(Mesh(mesh.vertices * factor, mesh.faces))(points * factor)
    np.testing.assert_allclose(scaled / factor, MeshDistance(mesh)(points), atol=1e-12)


def test_distance_survives_a_far_offset() -> None:
    mesh, far = oracles.sphere(2, radius=1e-2), np.array([1e6, -2e6, 3e6])
    points = scattered(mesh)
    moved = MeshDistance(Mesh(mesh.vertices + far, mesh.faces))(points + far)
    # the tolerance is the rounding error of coordinates near 3e6
    np.testing.assert_allclose(moved, MeshDistance(mesh)(points), atol=2e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_distance_is_invariant_under_rigid_motion(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    rotation[:, 0] *= np.linalg.det(rotation)
    shift = generator.uniform(-5, 5, 3)
    mesh = oracles.torus(12, 6)
    points = scattered(mesh, 100, seed)
    moved = MeshDistance(Mesh(mesh.vertices @ rotation.T + shift, mesh.faces))(
        points @ rotation.T + shift
    )
    np.testing.assert_allclose(moved, MeshDistance(mesh)(points), atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_distance_is_lipschitz_between_points_on_one_side(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.uniform(-2, 2, (2, 64, 3))
    distance = MeshDistance(oracles.cube())
    assert (np.abs(distance(a) - distance(b)) <= np.linalg.norm(a - b, axis=1) + 1e-12).all()


def test_sign_survives_missing_faces_away_from_the_holes() -> None:
    mesh = oracles.sphere(4)
    generator = np.random.default_rng(2)
    gone = np.zeros(len(mesh.faces), bool)
    gone[generator.choice(len(gone), len(gone) // 20, replace=False)] = True
    points = generator.uniform(-1.3, 1.3, (4000, 3))
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    to_hole = np.linalg.norm(points[:, None] - middles[gone], axis=2).min(axis=1)
    radius = np.linalg.norm(points, axis=1)
    sure = (to_hole > 0.1) & (np.abs(radius - 1) > 0.01)
    computed = MeshDistance(Mesh(mesh.vertices, mesh.faces[~gone]))(points)
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(computed[sure] < 0, radius[sure] < 1)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    distance = MeshDistance(oracles.torus())
    points = scattered(distance.mesh)
    whole = distance(points), *distance.nearest(points)
    monkeypatch.setattr(distance_module, "CHUNK", 7)
    for one, other in zip(whole, (distance(points), *distance.nearest(points)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_codes_interleave_the_bits_of_the_coordinates() -> None:
    corners = np.array([(x, y, z) for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)], float)
    eighth = ((1 << 30) - 1) // 7  # all bits of one coordinate
    codes = distance_module._interleaved(np.concatenate([corners, 2 * corners, corners / 1024]))
    assert codes[:8].tolist() == [eighth * corner for corner in range(8)]
    assert codes[8:16].tolist() == codes[:8].tolist()  # points outside are clamped
    # Beside the centre, the codes of the eight octants are the last and the first of theirs.
    assert (codes[16:] >> 27).tolist() == list(range(8))


def test_float32_and_empty_input() -> None:
    distance = MeshDistance(oracles.cube())
    points = scattered(distance.mesh).astype(np.float32)
    np.testing.assert_array_equal(distance(points), distance(points.astype(np.float64)))
    none = np.zeros((0, 3))
    assert distance(none).shape == distance.winding(none).shape == (0,)
    assert [part.shape for part in distance.nearest(none)] == [(0,), (0,), (0, 3)]
    assert distance.sdf()(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sdf_agrees_with_numpy_and_keeps_the_dtype(dtype: torch.dtype) -> None:
    distance = MeshDistance(oracles.torus())
    points = torch.from_numpy(scattered(distance.mesh)).to(dtype)
    sdf = distance.sdf()
    assert sdf(points).dtype == dtype
    assert sdf.lipschitz == 1
    assert sdf.bounds == distance.mesh.bounds
    np.testing.assert_allclose(sdf(points).numpy(), distance(points.numpy()), atol=1e-6)


def test_sdf_gradient_equals_finite_differences() -> None:
    mesh = oracles.torus()
    sdf = MeshDistance(mesh).sdf()
    points, step = scattered(mesh), 1e-6
    moved = [
        (sdf(points + step * axis) - sdf(points - step * axis)) / (2 * step) for axis in np.eye(3)
    ]
    computed, expected = sdf.gradient(points), np.column_stack(moved)
    # elsewhere, a finite-difference step crosses the medial axis or a crease
    smooth = np.abs(np.linalg.norm(expected, axis=1) - 1) < 1e-4
    assert smooth.mean() > 0.95
    np.testing.assert_allclose(computed[smooth], expected[smooth], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(computed, axis=1), 1, atol=1e-12)


def test_gradient_on_the_surface_is_the_face_normal() -> None:
    sdf = MeshDistance(oracles.cube(half=3.0)).sdf()
    points = torch.tensor([[3.0, 1.0, -0.5], [0.5, -3.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        sdf.gradient(points), torch.tensor([[1.0, 0, 0], [0, -1, 0]], dtype=torch.float64)
    )


def test_backward_weighs_each_point_by_the_gradient_that_arrives() -> None:
    points = torch.tensor(
        [[2.0, 0.0, 0.0], [0.0, 0.5, 0.0]], dtype=torch.float64, requires_grad=True
    )
    (MeshDistance(oracles.cube()).sdf()(points) * torch.tensor([3.0, -2.0])).sum().backward()
    torch.testing.assert_close(
        points.grad, torch.tensor([[3.0, 0, 0], [0, -2, 0]], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("vertices", "faces", "sentence"),
    [
        (np.zeros((3, 3)), np.zeros((0, 3), int), "no faces"),
        (np.eye(3), np.array([[0, 1, 3]]), r"outside 0\.\.2"),
        (np.eye(3), np.array([[0, 1, -1]]), r"outside 0\.\.2"),
        (np.diag([1, 1, np.nan]), np.array([[0, 1, 2]]), "not finite"),
    ],
)
def test_bad_meshes_are_refused(vertices: np.ndarray, faces: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MeshDistance(Mesh(vertices, faces))


def test_bad_points_are_refused() -> None:
    distance = MeshDistance(oracles.cube())
    with pytest.raises(ValueError, match=r"shape \(n, 3\), not \(4, 2\)"):
        distance(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="point 1 is not finite"):
        distance.winding(np.array([[0, 0, 0], [0, np.inf, 0]]))


def test_the_oracle_knows_a_triangle() -> None:
    triangle = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    points = np.array([[0.2, 0.2, 3.0], [-3.0, -4.0, 0.0], [0.5, -2.0, 0.0], [1.0, 1.0, 0.0]])
    np.testing.assert_allclose(
        oracles.brute_force_unsigned(triangle, points), [3, 5, 2, np.sqrt(0.5)]
    )
    np.testing.assert_allclose(
        oracles.brute_force_winding(oracles.tetrahedron(), np.array([[0.1, 0.1, 0.1], [2, 2, 2]])),
        [1, 0],
        atol=1e-12,
    )
    np.testing.assert_allclose(
        oracles.brute_force_winding(triangle, np.array([[0.2, 0.2, -1e-9]])), [0.5], atol=1e-6
    )
