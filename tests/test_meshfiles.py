"""OBJ, PLY, STL and OFF as programs write them: the volume of a block and of a concave prism."""

import re
import struct
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.surface import volume
from nstr3d.io import NoFacesError, load_mesh, read_mesh

# A block of 1 x 2 x 3, with quads that point outward.
POINTS = np.array([[x, y, z] for x in (0, 1) for y in (0, 2) for z in (0, 3)], float)
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
TRIANGLES = [face for a, b, c, d in QUADS for face in ([a, b, c], [a, c, d])]
MIXED = QUADS[:2] + [face for a, b, c, d in QUADS[2:] for face in ([a, b, c], [a, c, d])]
V = [f"v {x:g} {y:g} {z:g}" for x, y, z in POINTS]
F = ["f " + " ".join(str(index + 1) for index in quad) for quad in QUADS]
RELATIVE = ["f " + " ".join(str(index - 8) for index in quad) for quad in QUADS]
TEXTURED = [
    " ".join(["f", *(word + "/1" + "/1" * (row % 2) for word in line.split()[1:])])
    for row, line in enumerate(F)
]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def check_block(path: Path, expected: float = 6.0) -> None:
    mesh, report = repair(load_mesh(path))
    assert report.watertight
    assert volume(mesh) == pytest.approx(expected, abs=1e-6)


def lines(*rows: list[str]) -> str:
    return "\n".join(chain(*rows)) + "\n"


OBJ = {
    "carriage returns": lines(["# a"], V, F).replace("\n", "\r"),
    "both line ends": lines(V, F).replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + lines(V, F),
    "no last line end": lines(V, F)[:-1],
    "tabs and blanks": lines([line.replace(" ", "\t  ") + "\t" for line in V + F]),
    "leading blanks": lines(["", " \t"], [" \t" + line for line in V + F]),
    "fourth number": lines([line + " 1" for line in V], F),
    "colours of some": lines([line + " 1 0 0" * (k % 2) for k, line in enumerate(V)], F),
    "two and four numbers more": lines(
        [line + (" 1" if k else " 1 1 1 1") for k, line in enumerate(V)], F),
    "comments": lines([line + " # v 9 9 9 \\" for line in V], ["#f 1 2 3"], [f + "#f" for f in F]),
    "continued": lines(V, [line.replace(" ", " \\\n", 2) for line in F]),
    "continued after a digit": lines(V, [line[:5] + "\\\n" + line[5:] for line in F]),
    "statements between": lines(
        ["mtllib C:\\folder\\", "o a b"], V, ["l 1 2", "p 3", "vp 1 2", "vn 0 0 1", "vt 1 1"],
        F[:2], ["g x", "usemtl", "s off", "l 1 2 3"], F[2:], ["cstype bezier", "curv 0 1 1 2"]),
    "words of several forms": lines(V, ["vt 0 0", "vn 0 0 1"], TEXTURED),
    "words that hide their form": lines(
        V, ["vt 0 0", "vn 0 0 1"], [F[0], "f 1/1 2/1/1 3"], ["f 3 2/1/1 1/1"], F[1:]),
    "normals alone": lines(V, ["vn 0 0 1"], [re.sub(r"(\d)", r"\1//1", line) for line in F]),
    "faces first": lines(F, V),
    "old name of faces": lines(V, ["fo" + line[1:] for line in F]),
    "not finite, not used": lines(
        ["v nan inf 0"], V, [re.sub(r"\d", lambda word: str(int(word[0]) + 1), f) for f in F]),
    "numbers missing after one slash": lines(V, [re.sub(r"(\d)", r"\1/", line) for line in F]),
    "numbers missing after two slashes": lines(V, [re.sub(r"(\d)", r"\1//", line) for line in F]),
    "normals missing": lines(V, ["vt 0 0"], [re.sub(r"(\d)", r"\1/1/", line) for line in F]),
    "names that end in a reverse solidus": lines(
        ["mtllib C:\\maps1\\", *V[:1], "usemtl a \\", *V[1:5], "g 1\\"], V[5:], F),
    "old name of the first face": lines(["fo" + F[0][1:]], V, F[1:]),
    "continued, chained and last": lines(
        ["v 0 \\", "0 \\", "0"], V[1:], F[:5], [F[5].replace(" ", " \\\n")])[:-1] + " \\",
    "exponents": lines([line.replace("1", "1.0E+00").replace("2", "+2e0") for line in V], F),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJ)
def test_obj_is_read_as_it_is_written(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "ünï cøde.obj", OBJ[name])
    if name == "words that hide their form":  # the two faces of equal corners cancel each other
        assert volume(load_mesh(path)) == pytest.approx(6)
    else:
        check_block(path)


def test_obj_in_utf_16_is_read(tmp_path: Path) -> None:
    check_block(written(tmp_path, "wide.obj", lines(V, F).encode("utf-16")))


def test_negative_indices_count_from_their_own_line(tmp_path: Path) -> None:
    blocks = [
        lines([f"o {k}"], [f"v {x + 9 * k:g} {y:g} {z:g}" for x, y, z in POINTS], RELATIVE)
        for k in range(3)
    ]
    mesh = load_mesh(written(tmp_path, "three.obj", "".join(blocks)))
    assert volume(mesh) == pytest.approx(18)
    assert mesh.bounds.upper[0] == 19


def test_a_free_form_surface_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "a.obj", lines(V, F, ["surf 0 1 0 1 1 2 3 4"]))
    assert read_mesh(path)[1] == [f"{path}: 1 free-form surfaces (surf) were left out."]
    with pytest.warns(UserWarning, match="free-form"):
        load_mesh(path)


def test_statements_that_add_surfaces_are_told(tmp_path: Path) -> None:
    more = ["bzp" + " 1 2 3 4" * 4, "surf 0 1 0 1 1 2 3 4", "call other.obj", "csh ls"]
    path = written(tmp_path, "a.obj", lines(V, F, more))
    assert read_mesh(path)[1] == [
        f"{path}: 2 free-form surfaces (surf) were left out.",
        f"{path}: 1 other files (call) were left out.",
    ]
    with pytest.raises(
        NoFacesError, match=r"no faces \(1 free-form surfaces \(surf\) were left out"
    ):
        load_mesh(written(tmp_path, "b.obj", lines(V, more[1:2])))


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply", "binary.ply"])
def test_faces_of_fewer_than_3_corners_are_told(tmp_path: Path, suffix: str) -> None:
    """In binary PLY the last face is also shorter than all before it."""
    faces = [*QUADS, [0, 1]]
    content = {
        ".obj": lines(V, F, ["f 1 2"]),
        ".off": f"OFF\n8 7 0\n{ROWS}"
        + "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in faces),
        ".ply": ply("ascii", faces),
        "binary.ply": ply("binary_big_endian", faces),
    }[suffix]
    path = written(tmp_path, f"a{suffix}", content)
    mesh, notes = read_mesh(path)
    assert volume(mesh) == pytest.approx(6)
    assert notes == [f"{path}: 1 faces of fewer than 3 corners were left out."]


def ply(form: str, faces: list[list[int]], extras: bool = False, first: bool = False) -> bytes:
    """A PLY in the format ``form``, with a second list in each face if ``extras`` and with the
    faces before the points if ``first``."""
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(form)
    head = [
        "element vertex 8\nproperty float x\nproperty float y\nproperty float z\n",
        f"element face {len(faces)}\nproperty list uchar uint vertex_indices\n"
        + "property short flag\nproperty list ushort float texcoord\n" * extras,
    ]
    rows = [
        [("3f", tuple(point)) for point in POINTS],
        [
            (f"B{len(face)}I" + f"hH{k % 2}f" * extras,
             (len(face), *face, *((7, k % 2, *[0.5] * (k % 2)) if extras else ())))
            for k, face in enumerate(faces)
        ],
    ]  # fmt: skip
    body = [
        b"".join(
            struct.pack(order + code, *row) if order else (" ".join(map(str, row)) + "\n").encode()
            for code, row in part
        )
        for part in rows
    ]
    step = -1 if first else 1
    text = f"ply\nformat {form} 1.0\ncomment end_header\n{''.join(head[::step])}end_header\n"
    return text.encode() + b"".join(body[::step])


FORMS = ["ascii", "binary_little_endian", "binary_big_endian"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_ply_may_mix_polygons_and_lists(tmp_path: Path, form: str, extras, first) -> None:
    for faces in (TRIANGLES, QUADS, MIXED):
        check_block(written(tmp_path, "a.ply", ply(form, faces, extras, first)))


@pytest.mark.parametrize("end", [b"\r", b"\r\n"])
@pytest.mark.parametrize("form", FORMS)
def test_ply_headers_end_their_lines_in_three_ways(tmp_path: Path, form: str, end: bytes) -> None:
    head, body = ply(form, MIXED).split(b"end_header\n", 2)[1:]  # the comment has the word too
    text = b"ply\nformat " + form.encode() + b" 1.0\n" + head + b"end_header\n"
    body = body.replace(b"\n", end) if form == "ascii" else body
    check_block(written(tmp_path, "a.ply", text.replace(b"\n", end) + body))


@pytest.mark.parametrize("form", FORMS)
def test_a_last_polygon_may_be_smaller_than_all_others(tmp_path: Path, form: str) -> None:
    mesh = load_mesh(written(tmp_path, "a.ply", ply(form, [*QUADS[:5], [1, 5, 7]])))
    assert mesh.faces[-2:].tolist() == [[0, 6, 4], [1, 5, 7]]
    assert len(mesh.faces) == 11


@pytest.mark.parametrize("form", FORMS)
def test_empty_elements_of_a_ply_take_no_rows(tmp_path: Path, form: str) -> None:
    more = (
        b"element face 6",
        b"element none 3\nelement list 0\nproperty list uchar int a\nelement face 6",
    )
    check_block(written(tmp_path, "a.ply", b"\xef\xbb\xbf" + ply(form, QUADS).replace(*more)))


def test_ply_strips_become_triangles(tmp_path: Path) -> None:
    text = (
        "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
        "property float z\nelement tristrips 1\nproperty list int int vertex_indices\nend_header\n"
        "0 0 0\n1 0 0\n0 1 0\n0 0 1\n9 0 2 1 3 0 2 -1 -1 -1\n"
    )
    mesh, report = repair(load_mesh(written(tmp_path, "a.ply", text)))
    assert (report.watertight, volume(mesh)) == (True, pytest.approx(1 / 6))


@pytest.mark.parametrize("form", FORMS)
def test_ply_cut_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    whole = ply(form, MIXED, True)
    start = whole.rindex(b"end_header") + 11
    cuts = [
        place for place in range(start, len(whole) - 1) if form != "ascii" or whole[place - 1] == 10
    ]
    assert len(cuts) > 10
    for place in cuts:
        with pytest.raises(ValueError, match=r"promises \d+ (point|face)s but holds"):
            load_mesh(written(tmp_path, "a.ply", whole[:place]))


BAD_PLY: dict[str, tuple[bytes, str]] = {
    "more numbers": (ply("ascii", QUADS) + b"1 2 3\n", "holds 3 numbers more"),
    "word": (ply("ascii", QUADS).replace(b"3.0", b"3,0"), "'3,0' is not a number"),
    "no indices": (ply("ascii", QUADS).replace(b"vertex_indices", b"edges"), "without the list"),
    "no x": (ply("ascii", QUADS).replace(b"float x", b"float u"), "points need x, y and z"),
    "no type": (ply("ascii", QUADS).replace(b"float x", b"x"), "an unknown type"),
    "two faces": (
        ply("ascii", QUADS).replace(b"element face 6", b"element vertex 6"),
        "two elements",
    ),
    "count below 0": (
        ply("binary_little_endian", QUADS).replace(b"face 6", b"face -1"),
        "header is damaged",
    ),
    "count with a bar": (ply("ascii", QUADS).replace(b"face 6", b"face 0_6"), "header is damaged"),
    "half a corner": (
        ply("ascii", QUADS).replace(b"4 0 1 3 2", b"4.5 0 1 3 2"),
        "promises 6 faces but holds 0",
    ),
    "half corners": (
        ply("ascii", QUADS).replace(b"\n4 ", b"\n4.5 "),
        "promises 6 faces but holds 0",
    ),
    "half an index": (
        ply("ascii", QUADS).replace(b"4 0 1 3 2", b"4 0 1 2.5 2"),
        "index that is no whole number",
    ),
    "no index": (
        ply("ascii", QUADS).replace(b"4 0 1 3 2", b"4 0 1 nan 2"),
        "index that is no whole number",
    ),
    "type": (ply("binary_little_endian", QUADS).replace(b"float x", b"half x"), "an unknown type"),
}


@pytest.mark.parametrize("name", BAD_PLY)
def test_bad_ply_is_refused(tmp_path: Path, name: str) -> None:
    content, sentence = BAD_PLY[name]
    with pytest.raises(ValueError, match=sentence):
        load_mesh(written(tmp_path, "a.ply", content))


def test_bytes_after_a_binary_ply_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, "a.ply", ply("binary_little_endian", MIXED) + bytes(40))
    mesh, notes = read_mesh(path)
    assert volume(mesh) == pytest.approx(6)
    assert notes == [f"{path}: 40 bytes after the end of its elements were left out."]


def facets(faces: list[list[int]], shift: float = 0.0) -> bytes:
    return b"".join(
        struct.pack("<12fH", 0, 0, 0, *(POINTS[face] + shift).ravel(), 0) for face in faces
    )


def binary_stl(head: bytes = b"", count: int = 12, shift: float = 0.0) -> bytes:
    return head.ljust(80, b"\0") + struct.pack("<I", count) + facets(TRIANGLES, shift)


def text_stl(name: str, faces: list[list[int]]) -> str:
    rows = [f"solid {name}"]
    for face in faces:
        corners = ["vertex {:.3e} {:g} {:g}".format(*POINTS[index]) for index in face]
        rows += [" facet normal 0 0 0", "outer loop", *corners, "\tendloop", " endfacet"]
    return "\n".join([*rows, f"endsolid {name}", ""])


STL = {
    "solid in the header": binary_stl(b"solid facet vertex"),
    "count 0": binary_stl(count=0),
    "count unset": binary_stl(count=0xFFFFFFFF),
    "bytes after": binary_stl() + b"\0" * 7,
    "padding after": binary_stl() + b"\0" * 300,
    "text": text_stl("a", TRIANGLES),
    "text of quads": text_stl("a", QUADS),
    "capitals": text_stl("a", TRIANGLES).upper(),
    "carriage returns": text_stl("a", TRIANGLES).replace("\n", "\r"),
    "keywords as names": text_stl("vertex 1 2 3 endloop endfacet", TRIANGLES),
    "two solids": text_stl("a", TRIANGLES[:5]) + text_stl("b c", TRIANGLES[5:]),
    "one line": text_stl("a", TRIANGLES).replace("\n", " ").replace("\t", ""),
    "one line of two solids": (text_stl("a", TRIANGLES[:5]) + text_stl("b", TRIANGLES[5:])).replace(
        "\n", " "),
    "end solid": text_stl("a", TRIANGLES).replace("endsolid", "end solid"),
    "vertices on a line": text_stl("a", TRIANGLES).replace("\nvertex", " vertex"),
    "numbers on three lines": re.sub(
        r"(vertex \S+) (\S+) ", "\\1\n\\2\n", text_stl("a", TRIANGLES)),
    "loops on a line": text_stl("a b", TRIANGLES).replace("\n\tendloop\n", " endloop"),
}  # fmt: skip


@pytest.mark.parametrize("name", STL)
def test_stl_is_read_as_it_is_written(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "a.stl", STL[name])
    mesh, notes = read_mesh(path)
    assert len(notes) == name.startswith("count")
    fixed, report = repair(mesh)
    assert (report.watertight, volume(fixed)) == (True, pytest.approx(6))


def test_one_stl_after_another_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.stl", binary_stl() + binary_stl(shift=9))
    assert volume(load_mesh(path)) == pytest.approx(12)


BAD_STL = {
    "cut": (binary_stl()[:-1], "promises 12 facets but holds 11"),
    "count too small": (binary_stl(count=7), "promises 7 facets, but 250 bytes follow"),
    "text cut in a facet": (text_stl("a", TRIANGLES)[:-60], "begins 12 facets, but 11 are"),
    "text cut in the last word": (
        text_stl("a", TRIANGLES).replace("endfacet\nendsolid a\n", "endface"),
        "0 lines say endsolid",
    ),
    "word": (text_stl("a", TRIANGLES).replace(" 3\n", " 3,0\n", 1), "'3,0'"),
    "short": (b"\x01" * 40, "could not be read as STL"),
}


@pytest.mark.parametrize("name", BAD_STL)
def test_bad_stl_is_refused(tmp_path: Path, name: str) -> None:
    content, sentence = BAD_STL[name]
    with pytest.raises(ValueError, match=sentence):
        load_mesh(written(tmp_path, "a.stl", content))


def test_text_stl_without_its_last_line_is_read_and_noted(tmp_path: Path) -> None:
    path = written(tmp_path, "a.stl", text_stl("a", TRIANGLES).replace("endsolid a\n", ""))
    mesh, (note,) = read_mesh(path)
    assert len(mesh.faces) == 12
    assert "does not end in endsolid; its 12 facets, all complete" in note


ROWS = "".join(f"{x:g} {y:g} {z:g}\n" for x, y, z in POINTS)
SIDES = "".join(f"{len(face)} {' '.join(map(str, face))}\n" for face in MIXED)
OFF = {
    "plain": f"OFF\n8 10 0\n{ROWS}{SIDES}",
    "joined": f"OFF8 10 0\n{ROWS}{SIDES}",
    "one line": f"off 8 10 0\n{ROWS}{SIDES}",
    "no keyword": f"8 10\n{ROWS}{SIDES}",
    "comments": f"# a\nOFF # b\n\n8 10 0 # c\n\n{ROWS}\n# d\n{SIDES}",
    "colours": f"COFF\n8 10 0\n{ROWS}{SIDES}".replace("\n", " 1 0 0 1\n").replace(
        "OFF 1 0 0 1\n8 10 0 1 0 0 1", "OFF\n8 10 0"
    ),
    "all columns": "STCNOFF\n8 10 0\n" + ROWS.replace("\n", " 0 0 1 9 9 9 1 .5 .5\n") + SIDES,
    "colours of some faces": f"OFF\n8 10 0\n{ROWS}{SIDES[:-1]} 200 10 10",
    "carriage returns": f"OFF\n8 10 0\n{ROWS}{SIDES}".replace("\n", "\r"),
    "counts on three lines": f"OFF\n8\n10\n0\n{ROWS}{SIDES}",
    "vertices on a line": "OFF\n8 10 0\n" + ROWS.replace("\n", " ") + "\n" + SIDES,
    "faces on two lines": f"OFF\n8 10 0\n{ROWS}" + re.sub(r"(?m)^(\d) ", r"\1\n", SIDES),
}


@pytest.mark.parametrize("name", OFF)
def test_off_is_read_as_it_is_written(tmp_path: Path, name: str) -> None:
    check_block(written(tmp_path, "a.off", OFF[name]))


BAD_OFF = {
    "cut": (OFF["plain"][: OFF["plain"].rindex("\n", 0, -1) + 1], "holds 17 lines"),
    "cut in a line": (OFF["plain"][:-3], "face 9 promises 3 vertices but names 2"),
    "more": (OFF["plain"] + "3 0 1 2\n", "8 vertices and 10 faces but holds 19 lines"),
    "four dimensions": (OFF["plain"].replace("OFF", "4OFF"), "in 4 or n dimensions"),
    "binary": (b"OFF BINARY\n" + bytes(12), "is binary OFF"),
    "n dimensions": (OFF["plain"].replace("OFF", "nOFF\n3"), "in 4 or n dimensions"),
    "half an index": (OFF["plain"].replace("4 0 1 3", "4 0 1 2.5"), "index that is no whole"),
    "no index": (OFF["plain"].replace("4 0 1 3", "4 0 1 nan"), "index that is no whole"),
    "half a corner": (OFF["plain"].replace("4 0 1 3", "4.5 0 1 3"), "count of vertices that is no"),
    "endless": (OFF["plain"].replace("4 0 1 3", "inf 0 1 3"), "count of vertices that is no"),
    "one line and cut": ("OFF\n8 10 0\n" + OFF["plain"][11:-2].replace("\n", " "), "holds 1 lines"),
    "word": (OFF["plain"].replace("2 3\n", "2 x\n", 1), "'x' is not a number"),
    "two numbers": (OFF["plain"].replace("1 2 3\n", "1 2\n"), "vertex 7 has 2 numbers"),
    "no counts": ("OFF\nvertices\n", "does not begin with its counts"),
}


@pytest.mark.parametrize("name", BAD_OFF)
def test_bad_off_is_refused(tmp_path: Path, name: str) -> None:
    content, sentence = BAD_OFF[name]
    with pytest.raises(ValueError, match=sentence):
        load_mesh(written(tmp_path, "a.off", content))


BAD_OBJ = {
    "cut in a continuation": (lines(V, F[:5], ["f 9 \\"]), "line 14 names vertex 9"),
    "two numbers": (lines(V[:3], ["v 1 2"], F), "vertex on line 4 has 2 numbers"),
    "comma": (lines(["v 0,5 1 2"], V, F), "vertex on line 1 holds '0,5'"),
    "underscore": (lines(V[:7], ["v 1_0 2 3"], F), "'1_0'"),
    "index": (lines(V, ["f 1 2 x"]), "face on line 9 holds 'x'"),
    "no numbers": (lines(["v"], V, F), "vertex on line 1 has 0 numbers"),
    "no vertex": (lines(V, ["f 1/1 /1 3/1 4/1"]), "face on line 9 has a corner without"),
    "continued in a corner": (lines(V, ["f 1//\\", "1 2//1 3//1"]), "line 9 ends within a corner"),
    "long index": (
        lines(V, [f"f 1 2 {2**64 + 3}"]),
        "names (vertex|a number beyond)|not the number",
    ),
    "half index": (lines(V, ["f 1 2 3.5"]), "face on line 9 holds '3.5'"),
    "textured": (lines(V, ["f 1/1 2/1 x/1"]), "face on line 9 holds 'x'"),
    "two corners at its end": (lines(V, F[:3], ["f 7 8"])[:-1], "ends within a face, 'f 7 8'"),
    "half a corner at its end": (
        lines(V, ["f 1/1/1 2/1/1 3/1/1", "f 1/1/1 2/1/1 3/1"])[:-1],
        "ends within a face",
    ),
    "fewer faces than promised": (
        lines(["# number of triangles: 14"], V, F)[:-1],
        r"promises 14 faces in its comments but holds 1\d, and its last face has no line end",
    ),
    "cut index": (lines(V[:7], F), "names vertex 8, but the file has 7 vertices"),
}


@pytest.mark.parametrize("name", BAD_OBJ)
def test_bad_obj_is_refused(tmp_path: Path, name: str) -> None:
    content, sentence = BAD_OBJ[name]
    with pytest.raises(ValueError, match=sentence):
        load_mesh(written(tmp_path, "a.obj", content))


def test_signs_of_a_cut_obj_are_noted(tmp_path: Path) -> None:
    promised = lines(["# Vertices: 8", "# Faces: 40"], V, F)
    (note,) = read_mesh(written(tmp_path, "a.obj", promised))[1]
    assert re.search(r"promises 40 faces in its comments but holds 1\d; it may be cut", note)
    unused = lines(V, ["v 9 9 9"], F)[:-1]
    (note,) = read_mesh(written(tmp_path, "b.obj", unused))[1]
    assert "1 of 9 vertices belong to no face; it may be cut short" in note
    whole = lines(["# Faces: 10", "", "# Vertices: 8"], V, F)
    assert read_mesh(written(tmp_path, "c.obj", whole[:-1]))[1] == []


def test_a_file_of_lines_has_no_faces(tmp_path: Path) -> None:
    with pytest.raises(NoFacesError):
        load_mesh(written(tmp_path, "a.obj", lines(V, ["f 1 2", "l 1 2 3"])))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.fbx", "the format FBX"), ("a.IGES", "the format IGES"), ("a.3dm", "Rhino"),
        ("photo.heic", "pictures with the extension '.heic'"), ("memo.m4a", "convert it to WAV"),
        ("film.mp4", "films"), ("scan.e57", "export them as PLY"), ("a.qqq", "unknown mesh"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        load_mesh(written(tmp_path, name, "x"))
    assert "mesh extension" not in str(caught.value) or name == "a.qqq"
