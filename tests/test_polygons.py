"""Polygons as triangles: areas, orientation and edges, for convex, concave and straight corners."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.surface import volume
from nstr3d.io import load_mesh
from nstr3d.io.polygons import fan_triangles, strip_triangles, triangulate

# A turned plane: the columns are two unit vectors in it and its normal.
PLANE = np.linalg.qr(np.array([[1.0, 2, 3], [-2, 1, 0.5], [0.3, 1, -1]]))[0]
PLANE[:, 2] *= np.linalg.det(PLANE)
L_SHAPE = [(2, 0), (2, 1), (1, 1), (1, 3), (0, 3), (0, 0)]
ARROW = [(0, 0), (2, -1), (0.5, 0), (2, 1)]  # the corner (0.5, 0) is concave
STRAIGHT = [(0, 0), (1, 0), (2, 0), (2, 2), (1, 2), (0, 2), (0, 1)]
POLYGONS = {"L": (L_SHAPE, 4.0), "arrow": (ARROW, 0.5), "straight": (STRAIGHT, 4.0)}


def placed(flat) -> np.ndarray:
    return np.asarray(flat, float) @ PLANE[:, :2].T + [5, -3, 2]


def check(flat, area: float) -> None:
    """Checks that the triangles cover a simple polygon once and keep each of its edges."""
    vertices, size = placed(flat), len(flat)
    faces = triangulate(vertices, np.arange(size), np.array([size]))
    assert faces.shape == (size - 2, 3)
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    areas = np.cross(b - a, c - a) @ PLANE[:, 2] / 2
    assert areas.min() >= -1e-9 * area
    assert areas.sum() == pytest.approx(area)
    edges = Counter((int(face[k]), int(face[(k + 1) % 3])) for face in faces for k in range(3))
    assert max(edges.values()) == 1
    outer = {edge for edge in edges if edge[::-1] not in edges}
    assert outer == {(k, (k + 1) % size) for k in range(size)}


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons_are_covered_once_from_every_first_corner(name: str) -> None:
    flat, area = POLYGONS[name]
    for start in range(len(flat)):
        check(flat[start:] + flat[:start], area)


@pytest.mark.parametrize("name", ["L", "straight"])
def test_triangles_of_straight_corners_have_area(name: str) -> None:
    flat, _ = POLYGONS[name]
    for start in range(len(flat)):
        vertices = placed(flat[start:] + flat[:start])
        a, b, c = np.moveaxis(
            vertices[triangulate(vertices, np.arange(len(flat)), np.array([len(flat)]))], 1, 0
        )
        assert np.linalg.norm(np.cross(b - a, c - a), axis=1).min() > 0.1


@given(st.lists(st.floats(0.2, 1), min_size=5, max_size=14))
@settings(max_examples=60, deadline=None)
def test_random_concave_polygons_are_covered_once(radii: list[float]) -> None:
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    flat = np.array(radii)[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    x, y = flat.T
    shoelace = float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2)
    check(flat, shoelace)


def test_polygons_keep_their_order_and_lines_give_no_triangle() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [-1, 0.5, 0]])
    corners = np.array([0, 1, 0, 1, 2, 0, 1, 2, 3, 2, 3, 4, 0, 1, 2, 3, 4])
    faces = triangulate(vertices, corners, np.array([2, 3, 4, 3, 5]))
    assert faces.tolist() == [
        [0, 1, 2], [0, 1, 2], [0, 2, 3], [2, 3, 4], [0, 1, 2], [0, 2, 3], [0, 3, 4],
    ]  # fmt: skip


def test_strips_turn_every_second_triangle_and_fans_share_a_corner() -> None:
    assert strip_triangles(np.arange(5)).tolist() == [[0, 1, 2], [3, 2, 1], [2, 3, 4]]
    # A repeated index joins two strips and keeps the parity.
    joined = strip_triangles(np.array([0, 1, 2, 2, 3, 3, 4, 5]))
    assert joined.tolist() == [[0, 1, 2], [5, 4, 3]]
    assert fan_triangles(np.array([7, 1, 2, 3])).tolist() == [[7, 1, 2], [7, 2, 3]]
    assert strip_triangles(np.arange(2)).shape == fan_triangles(np.arange(2)).shape == (0, 3)


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply"])
def test_concave_ends_of_a_prism_are_cut_into_triangles(tmp_path: Path, suffix: str) -> None:
    """A prism of height 2 over an L with a corner in the middle of a straight edge."""
    base = [*L_SHAPE[:4], (0.5, 3), *L_SHAPE[4:]]
    size = len(base)
    points = np.array([(x, y, z) for z in (0, 2) for x, y in base]) @ PLANE.T
    sides = [[k, (k + 1) % size, (k + 1) % size + size, k + size] for k in range(size)]
    faces = [list(range(size))[::-1], list(range(size, 2 * size)), *sides]
    rows = [" ".join(f"{x:.17g}" for x in point) for point in points]
    counted = [" ".join(map(str, [len(face), *face])) for face in faces]
    head = f"ply\nformat ascii 1.0\nelement vertex {len(points)}"
    head += "".join(f"\nproperty double {axis}" for axis in "xyz")
    head += f"\nelement face {len(faces)}\nproperty list uchar int vertex_index\nend_header"
    text = {
        ".obj": ["v " + row for row in rows]
        + ["f " + " ".join(str(index + 1) for index in face) for face in faces],
        ".off": [f"OFF\n{len(points)} {len(faces)} 0", *rows, *counted],
        ".ply": [head, *rows, *counted],
    }[suffix]
    path = tmp_path / f"prism{suffix}"
    path.write_text("\n".join(text) + "\n")
    mesh, report = repair(load_mesh(path))
    assert report.watertight
    assert len(mesh.faces) == 2 * len(points) - 4  # Euler's formula for a sphere
    assert volume(mesh) == pytest.approx(8)
    a, b, c = np.moveaxis(mesh.corners, 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(2 * 4 + 2 * 10)
