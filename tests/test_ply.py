"""Tables survive a round trip through PLY, and damaged files are refused with a reason."""

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from nstr3d.io import load_lines, save_lines
from nstr3d.io.errors import ContentError
from nstr3d.io.ply import element_names, encode_ply, read_ply, table_of
from nstr3d.types import Polylines

RNG = np.random.default_rng(0)
POINTS = table_of(
    {
        "x": RNG.random(9).astype("<f4"),
        "y": RNG.random(9),
        "z": RNG.random(9),
        "red": np.arange(9, dtype=np.uint8),
    }
)
EDGES = table_of({"vertex1": np.arange(4, dtype="<i4"), "vertex2": np.arange(1, 5, dtype="<i4")})
HEADER = "ply\nformat {}\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
TEXT = HEADER.format("ascii 1.0") + "end_header\n0 0 0\n1 2 3\n"

LISTED = HEADER.format("ascii 1.0") + "property list uchar float w\nend_header\n"
LISTED += "0 0 0 2 9 9\n1 2 3 0\n"


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode("ascii") if isinstance(content, str) else content)
    return path


def test_tables_come_back_whatever_is_asked_first(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ply", encode_ply(vertex=POINTS, edge=EDGES))
    assert element_names(path) == ["vertex", "edge"]
    for loaded, expected in zip(read_ply(path, "edge", "vertex"), (EDGES, POINTS)):
        assert loaded.dtype == expected.dtype
        np.testing.assert_array_equal(loaded, expected)


def test_lists_are_written_for_other_programs(tmp_path: Path) -> None:
    faces = np.zeros(2, [("vertex_indices", "<i4", 3)])
    faces["vertex_indices"] = [[0, 1, 2], [2, 1, 3]]
    path = written(tmp_path / "a.ply", encode_ply(vertex=POINTS, face=faces))
    loaded = trimesh.load(path, process=False)
    assert isinstance(loaded, trimesh.Trimesh)
    np.testing.assert_array_equal(loaded.faces, faces["vertex_indices"])
    np.testing.assert_array_equal(loaded.vertices[:, 1], POINTS["y"])
    np.testing.assert_array_equal(read_ply(path, "vertex")[0], POINTS)


def test_empty_elements_are_empty_tables(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ply", encode_ply(vertex=POINTS[:0], edge=EDGES[:0]))
    assert [len(table) for table in read_ply(path, "vertex", "edge")] == [0, 0]


@pytest.mark.parametrize("kind", ["ascii", "binary_big_endian"])
def test_lines_of_other_programs_are_read_in_text_and_big_endian(tmp_path: Path, kind: str) -> None:
    lines = Polylines(RNG.random((5, 3)), np.array([0, 2, 5]))
    save_lines(tmp_path / "a.ply", lines)
    points, edges = read_ply(tmp_path / "a.ply", "vertex", "edge")
    head = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")[0]
    if kind == "ascii":
        rows = [" ".join(map(repr, row)) for table in (points, edges) for row in table.tolist()]
        body = "\n".join(rows).encode()
    else:
        swapped = (table.astype(table.dtype.newbyteorder(">")) for table in (points, edges))
        body = b"".join(table.tobytes() for table in swapped)
    head = head.replace(b"binary_little_endian", kind.encode()) + b"end_header\n"
    loaded, _ = load_lines(written(tmp_path / "b.ply", head + body))
    np.testing.assert_array_equal(loaded.points, lines.points)
    np.testing.assert_array_equal(loaded.segments, lines.segments)


REFUSALS = {
    "other": ("solid cube\n", "has no PLY header"),
    "cut head": (TEXT[:60], "has no PLY header"),
    "format": (HEADER.format("base64 1.0") + "end_header\n", "its header is damaged"),
    "count": (TEXT.replace("vertex 2", "vertex many"), "its header is damaged"),
    "orphan": ("ply\nformat ascii 1.0\nproperty int x\nend_header\n", "its header is damaged"),
    "type": (TEXT.replace("float y", "quad y"), "properties of an unknown type"),
    "cut body": (TEXT.replace("vertex 2", "vertex 3"), "promises 3 points but holds 2"),
    "bare": ("ply\nformat ascii 1.0\nelement vertex 2\nend_header\n\n\n", "has no points"),
    "words": (TEXT.replace("1 2 3", "1 2 z"), "row 2 holds something that is not a number"),
    "wide": (TEXT.replace("1 2 3", "1 2 3 4"), "row 2 has 4 columns instead of 3"),
    "lists": (TEXT.replace("float y", "list uchar float y"), "'1 2 3' does not hold the vertex"),
    "long": (LISTED.replace("2 9 9", "3 9 9"), "'0 0 0 3 9 9' does not hold the vertex"),
    "half": (LISTED.replace("2 9 9", "1.5 9 9"), "does not hold the vertex"),
    "float count": (LISTED.replace("uchar", "float"), "properties of an unknown type"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_damaged_files_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    content, sentence = REFUSALS[name]
    with pytest.raises(ValueError, match=sentence):
        read_ply(written(tmp_path / "a.ply", content), "vertex")


def test_an_element_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ply", TEXT)
    with pytest.raises(ContentError, match="has no edges"):
        read_ply(path, "vertex", "edge")
    assert element_names(written(tmp_path / "b.ply", "solid")) == []


def listed(order: str, lengths: list[int], cut: int = 0) -> bytes:
    """A PLY of faces with lists of the ``lengths``, before and after which are numbers, and then of
    points 0 0 0 and 1 2 3 with a list between. ``order`` is < or > for binary, "" for text; the
    last ``cut`` bytes are missing."""
    kind = {"<": "binary_little_endian", ">": "binary_big_endian", "": "ascii"}[order]
    head = f"ply\nformat {kind} 1.0\nelement face {len(lengths)}\nproperty uchar material\n"
    head += "property list ushort int vertex_indices\nproperty float area\nelement vertex 2\n"
    head += "property float x\nproperty list uchar short marks\nproperty float y\n"
    head += "property double z\nend_header\n"
    faces = [(7, length, *range(length), 0.5) for length in lengths]
    points = [(0.0, 1, -3, 0.0, 0.0), (1.0, 2, -4, 5, 2.0, 3.0)]
    if not order:
        rows = "".join(" ".join(map(str, row)) + "\n" for row in (*faces, *points))
        return (head + rows).encode()
    body = b"".join(struct.pack(f"{order}BH{len(row) - 3}if", *row) for row in faces) + b"".join(
        struct.pack(f"{order}fB{len(row) - 4}hfd", *row) for row in points
    )
    return head.encode() + body[: len(body) - cut]


@pytest.mark.parametrize("order", ["<", ">", ""])
@pytest.mark.parametrize("lengths", [[3, 3, 3], [3, 4, 0, 3], []])
def test_points_with_lists_and_after_lists_are_read(
    tmp_path: Path, order: str, lengths: list[int]
) -> None:
    path = written(tmp_path / "a.ply", listed(order, lengths))
    points, faces = read_ply(path, "vertex", "face")
    assert points.dtype.names == ("x", "y", "z")
    np.testing.assert_array_equal([list(row) for row in points.tolist()], [[0, 0, 0], [1, 2, 3]])
    assert faces.tolist() == [(7, 0.5)] * len(lengths)


@pytest.mark.parametrize("cut", [1, 14, 20])
@pytest.mark.parametrize("lengths", [[3, 3], [3, 4]])
def test_a_binary_file_with_lists_that_is_cut_short_is_refused(
    tmp_path: Path, lengths: list[int], cut: int
) -> None:
    path = written(tmp_path / "a.ply", listed("<", lengths, cut))
    with pytest.raises(ContentError, match=r"promises 2 points but holds [01]"):
        read_ply(path, "vertex")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path: Path, end: str) -> None:
    path = written(tmp_path / "a.ply", TEXT.replace("\n", end))
    np.testing.assert_array_equal(read_ply(path, "vertex")[0]["z"], [0, 3])
    # the first byte of the binary data is a line feed, which is no part of the header's end
    head = TEXT.partition("end_header")[0].replace("ascii", "binary_little_endian") + "end_header\n"
    data = np.full(6, np.frombuffer(b"\n\n\n\n", "<f4")[0])
    path = written(tmp_path / "b.ply", head.replace("\n", end).encode() + data.tobytes())
    np.testing.assert_array_equal(read_ply(path, "vertex")[0]["x"], data[:2])


def test_blank_lines_and_missing_values_of_c_libraries_are_read(tmp_path: Path) -> None:
    text = TEXT.replace("0 0 0\n", "\n0 -nan(ind) 1.#QNAN\n\n")
    points = read_ply(written(tmp_path / "a.ply", text), "vertex")[0]
    np.testing.assert_array_equal(points["x"], [0, 1])
    np.testing.assert_array_equal(np.isnan(points["z"]), [True, False])
