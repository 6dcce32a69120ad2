"""Components, edges and genera of meshes and graphs, against brute force."""

from pathlib import Path

import networkx
import numpy as np
import pytest

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.topology import (
    directed_edges,
    drop_unused_vertices,
    genera,
    label_vertices,
)
from nstr3d.io import load_mesh
from nstr3d.types import Mesh

ASSETS = Path(__file__).parents[1] / "assets"


def joined(*meshes: Mesh) -> Mesh:
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([m.faces + n for m, n in zip(meshes, first[:-1])]),
    )


@pytest.mark.parametrize(("name", "genus"), [("sphere", 0), ("torus", 1)])
def test_a_sphere_has_no_handle_and_a_torus_one(name, genus):
    assert genera(load_mesh(ASSETS / f"{name}.obj")) == [genus]


def test_each_component_is_counted_and_an_open_one_has_none():
    sphere, torus = load_mesh(ASSETS / "sphere.obj"), load_mesh(ASSETS / "torus.obj")
    assert genera(joined(sphere, torus)) == [1, 0]  # the torus has more faces
    assert genera(joined(Mesh(sphere.vertices, sphere.faces[1:]), torus)) == [1, None]


@pytest.mark.parametrize("edges", [0, 5, 30, 200])
def test_components_are_those_of_networkx(edges):
    start, end = np.random.default_rng(edges).integers(0, 40, (2, edges))
    graph = networkx.Graph(list(zip(start.tolist(), end.tolist())))
    graph.add_nodes_from(range(40))
    label = label_components(40, start, end)
    components = {frozenset(np.flatnonzero(label == one).tolist()) for one in np.unique(label)}
    assert components == {frozenset(part) for part in networkx.connected_components(graph)}
    assert set(label.tolist()) == set(range(len(components)))
    first = np.unique(label, return_index=True)[1]
    assert (np.diff(first) > 0).all()


@pytest.mark.parametrize("highest_first", [False, True])
def test_a_hub_a_path_and_nodes_alone_are_components(highest_first):
    path = np.random.default_rng(0).permutation(500)
    start, end = np.append(np.full(400, 900), path[:-1]), np.append(np.arange(500, 900), path[1:])
    if highest_first:
        start, end = end, start
    label = label_components(903, start, end)
    assert label.tolist() == [0] * 500 + [1] * 401 + [2, 3]
    assert label_components(0, start[:0], end[:0]).tolist() == []


def test_faces_connect_their_vertices():
    mesh = Mesh(np.zeros((8, 3)), np.array([[0, 1, 2], [5, 4, 6], [2, 1, 7]]))
    label = label_vertices(mesh)
    assert [label[v] == label[0] for v in (1, 2, 7)] == [True] * 3
    assert label[4] == label[5] == label[6] != label[0]
    assert len({label[0], label[3], label[4]}) == 3


def test_edges_run_around_their_faces_and_share_keys_as_they_share_ends():
    faces = np.random.default_rng(0).integers(0, 9, (30, 3)).astype(np.int32)
    start, end, key = directed_edges(faces)
    expected = [(face[i], face[(i + 1) % 3]) for face in faces.tolist() for i in range(3)]
    assert list(zip(start.tolist(), end.tolist())) == expected
    ends = [tuple(sorted(pair)) for pair in expected]
    for one, first in zip(ends, key.tolist()):
        for two, second in zip(ends, key.tolist()):
            assert (first == second) == (one == two)
            assert (first < second) == (one < two)
    large = np.array([[0, 2**31 - 2, 2**31 - 1]], np.int32)
    assert len(np.unique(directed_edges(large)[2])) == 3
    assert all(len(part) == 0 for part in directed_edges(faces[:0]))


def test_dropping_unused_vertices_keeps_corners_and_order():
    generator = np.random.default_rng(1)
    mesh = Mesh(generator.random((50, 3)), generator.integers(0, 50, (20, 3)))
    compact = drop_unused_vertices(mesh)
    np.testing.assert_array_equal(compact.corners, mesh.corners)
    np.testing.assert_array_equal(compact.vertices, mesh.vertices[np.unique(mesh.faces)])
    again = drop_unused_vertices(compact)
    np.testing.assert_array_equal(again.vertices, compact.vertices)
    np.testing.assert_array_equal(again.faces, compact.faces)
    assert len(drop_unused_vertices(Mesh(mesh.vertices, mesh.faces[:0])).vertices) == 0
