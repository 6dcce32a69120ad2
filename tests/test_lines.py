"""Lines survive a round trip through each file format."""

import base64
import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
import trimesh

from nstr3d.io import load_lines, save_lines, save_mesh
from nstr3d.io.lines import holds_lines, joined
from nstr3d.types import Mesh, Polylines

POINTS = np.random.default_rng(0).normal(size=(7, 3))
LINES = Polylines(POINTS, np.array([0, 3, 3, 7]), np.arange(7.0))
COLOURS = np.linspace(0, 1, 21).reshape(7, 3)


def test_ply_holds_points_colours_values_and_edges(tmp_path):
    save_lines(tmp_path / "a.ply", LINES, COLOURS)
    head, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    vertices = np.frombuffer(body, [("p", "<f8", 3), ("c", "u1", 3), ("v", "<f8")], 7)
    np.testing.assert_array_equal(vertices["p"], POINTS)
    np.testing.assert_array_equal(vertices["c"], np.round(COLOURS * 255))
    np.testing.assert_array_equal(vertices["v"], LINES.values)
    edges = np.frombuffer(body[vertices.nbytes :], "<i4").reshape(-1, 2)
    np.testing.assert_array_equal(edges, [[0, 1], [1, 2], [3, 4], [4, 5], [5, 6]])
    assert b"element edge 5" in head
    # Readers of point clouds can read the file too.
    cloud: Any = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_allclose(cloud.vertices, POINTS)


def test_glb_holds_points_colours_and_the_rows_of_the_ends(tmp_path):
    save_lines(tmp_path / "a.glb", LINES, COLOURS)
    data = (tmp_path / "a.glb").read_bytes()
    assert int.from_bytes(data[8:12], "little") == len(data)
    size = int.from_bytes(data[12:16], "little")
    tree, buffer = json.loads(data[20 : 20 + size]), data[28 + size :]
    assert tree["buffers"][0]["byteLength"] == len(buffer)
    primitive = tree["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 1

    def accessor(index: int, kind: str, width: int) -> np.ndarray:
        entry = tree["accessors"][index]
        view = tree["bufferViews"][entry["bufferView"]]
        values = np.frombuffer(buffer, kind, entry["count"] * width, view["byteOffset"])
        assert values.nbytes == view["byteLength"]
        return values.reshape(-1, width)

    points = accessor(primitive["attributes"]["POSITION"], "<f4", 3)
    np.testing.assert_array_equal(points, POINTS.astype(np.float32))
    np.testing.assert_array_equal(tree["accessors"][0]["max"], points.max(axis=0))
    np.testing.assert_array_equal(
        accessor(primitive["attributes"]["COLOR_0"], "u1", 4)[:, :3], np.round(COLOURS * 255)
    )
    np.testing.assert_array_equal(
        accessor(primitive["indices"], "<u4", 1).reshape(-1, 2), LINES.segments
    )
    # trimesh checks the file's structure and the points, but ignores the segments.
    scene: Any = trimesh.load(tmp_path / "a.glb")
    (path,) = scene.geometry.values()
    np.testing.assert_array_equal(path.vertices, points)


def test_vtp_holds_points_lines_and_values(tmp_path):
    save_lines(tmp_path / "a.vtp", LINES, COLOURS)
    root = ElementTree.parse(tmp_path / "a.vtp").getroot()
    kinds = {"Float64": "<f8", "Int64": "<i8", "UInt8": "u1"}
    arrays = {}
    for entry in root.iter("DataArray"):
        data = base64.b64decode(entry.text or "")
        assert int.from_bytes(data[:4], "little") == len(data) - 4
        arrays[entry.get("Name")] = np.frombuffer(data[4:], kinds[str(entry.get("type"))])
    np.testing.assert_array_equal(arrays["Points"].reshape(-1, 3), POINTS)
    np.testing.assert_array_equal(arrays["offsets"], [3, 7])
    np.testing.assert_array_equal(arrays["connectivity"], np.arange(7))
    np.testing.assert_array_equal(arrays["value"], LINES.values)
    assert next(root.iter("Piece")).get("NumberOfLines") == "2"


def test_json_holds_lines_of_any_dimension(tmp_path):
    flat = Polylines(POINTS[:, :2], LINES.starts, LINES.values)
    save_lines(tmp_path / "a.json", flat)
    records = json.loads((tmp_path / "a.json").read_text())["lines"]
    assert [len(line["points"]) for line in records] == [3, 0, 4]
    assert records[2]["points"] == POINTS[3:, :2].tolist()
    assert records[0]["values"] == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".ply", ".json"])
def test_what_was_saved_is_read_again(tmp_path, suffix):
    save_lines(tmp_path / f"a{suffix}", LINES, COLOURS)
    lines, colours = load_lines(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(lines.points, LINES.points)
    np.testing.assert_array_equal(lines.segments, LINES.segments)
    np.testing.assert_array_equal(lines.values, LINES.values)
    np.testing.assert_allclose(colours, COLOURS, atol=0.5 / 255)
    assert holds_lines(tmp_path / f"a{suffix}")


def test_segments_are_joined_where_they_continue_each_other():
    order, starts = joined(np.array([[0, 1], [1, 2], [4, 5], [2, 3], [3, 0]]))
    assert order.tolist() == [0, 1, 2, 4, 5, 2, 3, 0]
    assert starts.tolist() == [0, 3, 5, 8]
    assert joined(np.zeros((0, 2), np.int64))[1].tolist() == [0]


def test_files_that_hold_no_lines_are_refused(tmp_path):
    save_mesh(tmp_path / "mesh.ply", Mesh(POINTS, np.array([[0, 1, 2]])))
    assert not holds_lines(tmp_path / "mesh.ply")
    assert not holds_lines(tmp_path / "absent.ply")
    save_lines(tmp_path / "cut.ply", LINES)
    (tmp_path / "cut.ply").write_bytes((tmp_path / "cut.ply").read_bytes()[:-9])
    (tmp_path / "odd.json").write_text('{"lines": [{"points": [[1, "a"]]}]}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "none.json").write_text('{"lines": []}')
    (tmp_path / "a.obj").write_text("v 0 0 0")
    for name in ("mesh.ply", "cut.ply", "odd.json", "list.json", "none.json", "a.obj"):
        with pytest.raises(ValueError, match=name):
            load_lines(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_lines(tmp_path / "absent.ply")


def test_bad_lines_are_refused(tmp_path):
    flat = Polylines(POINTS[:, :2], LINES.starts)
    broken = Polylines(np.where(POINTS > 0, POINTS, np.nan), LINES.starts)
    for name, lines, colours, words in (
        ("a.obj", LINES, None, "cannot write lines with the extension"),
        ("a.ply", flat, None, "lines in 2 dimensions go into .json"),
        ("a.ply", broken, None, "not finite"),
        ("a.ply", LINES, COLOURS * 2, r"colours \(n, 3\) in \[0, 1\]"),
        ("a.ply", LINES, COLOURS[:3], r"need colours \(n, 3\)"),
        ("a.ply", Polylines(POINTS[:2], np.array([0, 1, 2])), None, "no lines to save"),
    ):
        with pytest.raises(ValueError, match=words):
            save_lines(tmp_path / name, lines, colours)
    assert list(tmp_path.iterdir()) == []


def test_glb_keeps_lines_at_map_coordinates_in_place(tmp_path):
    points = POINTS + (512434.25, 5405590.5, 348.75)
    save_lines(tmp_path / "a.glb", Polylines(points, LINES.starts), COLOURS)
    scene = trimesh.load_scene(tmp_path / "a.glb", process=False)
    (node,) = scene.graph.nodes_geometry
    matrix, name = scene.graph[node]
    vertices = np.asarray(scene.geometry[name].vertices, np.float64)
    np.testing.assert_allclose(vertices @ matrix[:3, :3].T + matrix[:3, 3], points, atol=1e-6)
