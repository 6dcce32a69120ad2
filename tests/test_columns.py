"""Columns of points in any file: names decide, else values. Text that can be read in two
ways is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest

from nstr3d.io import ContentError, load_cloud, read_cloud
from nstr3d.io.numbers import number
from nstr3d.io.pcd import expand_lzf
from nstr3d.io.ply import encode_ply, table_of

RANDOM = np.random.default_rng(3)
COUNT = 60
POINTS = np.round(RANDOM.standard_normal((COUNT, 3)) * 20 + [40, -3, 7], 4)
NORMALS = RANDOM.standard_normal((COUNT, 3))
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)
COLOURS = RANDOM.integers(0, 256, (COUNT, 3))
BRIGHTNESS = RANDOM.integers(-2047, 2048, (COUNT, 1))
INDEX = np.arange(COUNT)[:, None]
ROWS = "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in POINTS)


def text(*tables: np.ndarray, separator: str = " ") -> str:
    """One line per point of the columns of ``tables``; whole numbers without a decimal point."""
    rows = zip(*(table.tolist() for table in tables))
    return "".join(
        separator.join(f"{value:.6g}" for part in row for value in part) + "\n" for row in rows
    )


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def assert_read(path: Path, normals: bool = False) -> str:
    """Checks points and normals of the file; returns what was said about the columns."""
    cloud, reading = read_cloud(path)
    np.testing.assert_allclose(cloud.points, POINTS, atol=1e-9)
    if normals:
        assert cloud.normals is not None
        np.testing.assert_allclose(cloud.normals, NORMALS, atol=1e-5)
    else:
        assert cloud.normals is None
    return reading.columns


NAMED = {
    "comment of CloudCompare": ("//X Y Z R G B\n", (POINTS, COLOURS), False),
    "normals last": ("//X Y Z R G B Nx Ny Nz\n", (POINTS, COLOURS, NORMALS), True),
    "normals first": ("nx ny nz x y z\n", (NORMALS, POINTS), True),
    "unit colours": ("x y z r g b\n", (POINTS, NORMALS), False),
    "index": ("id x y z\n", (INDEX, POINTS), False),
    "intensity first": ("intensity X Y Z\n", (BRIGHTNESS, POINTS), False),
    "units": ("X [m] Y [m] Z [m]\n", (POINTS,), False),
    "quoted with units": ('"X (m)" "Y (m)" "Z (m)"\n', (POINTS,), False),
    "hash": ("# normal_x normal_y normal_z x y z\n", (NORMALS, POINTS), True),
    "comment before": ("# made by hand\n#x y z NormalX NormalY NormalZ\n", (POINTS, NORMALS), True),
    "grid": ("Easting Northing Elevation Class\n", (POINTS, COLOURS[:, :1]), False),
    "ParaView": (
        '"Normals:0" "Normals:1" "Normals:2" "Points:0" "Points:1" "Points:2"\n',
        (NORMALS, POINTS),
        True,
    ),
    "swapped": ("Y X H\n", (POINTS[:, [1, 0, 2]],), False),
    "count": (f"x y z r g b\n{COUNT}\n", (POINTS, COLOURS), False),
    "count first": (f"{COUNT}\nx y z r g b\n", (POINTS, COLOURS), False),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_names_decide(tmp_path: Path, name: str, separator: str) -> None:
    head, tables, normals = NAMED[name]
    path = written(tmp_path / "a.txt", head + text(*tables, separator=separator))
    said = assert_read(path, normals)
    assert said.startswith("by name: position ")
    assert ("no normal" not in said) == normals


@pytest.mark.parametrize("separator", [",", ";", ", ", " ; "])
def test_names_are_separated_as_the_rows(tmp_path: Path, separator: str) -> None:
    head = separator.join(["Point ID", "x", "y", "z"]) + "\n"
    said = assert_read(written(tmp_path / "a.csv", head + text(INDEX, POINTS, separator=separator)))
    assert said == "by name: position x y z, no normal; not used: Point ID"


UNNAMED = {
    "position": ((POINTS,), False, "none is a normal"),
    "normals": ((POINTS, NORMALS), True, "columns 1 to 3 are the position, 4 to 6 the normal"),
    "colours": ((POINTS, COLOURS), False, "none is a normal, 4 to 6 the colours"),
    "bright colours": ((POINTS, COLOURS / 255), False, "not used: 4 to 6 (colours or counts)"),
    "intensity": ((POINTS, BRIGHTNESS), False, "not used: 4"),
    "Leica": ((POINTS, BRIGHTNESS, COLOURS), False, "5 to 7 the colours; not used: 4"),
    "nine": ((POINTS, NORMALS, COLOURS), True, "4 to 6 the normal, because their lengths are"),
    "colours first": ((POINTS, COLOURS, NORMALS), True, "7 to 9 the normal"),
    "intensity first": ((POINTS, BRIGHTNESS, NORMALS), True, "5 to 7 the normal"),
    "index": ((INDEX, POINTS, COLOURS), False, "columns 2 to 4 are the position"),
    "index and normals": ((INDEX + 1, POINTS, NORMALS), True, "column 1 counts the rows"),
}


@pytest.mark.parametrize("name", UNNAMED)
@pytest.mark.parametrize("head", ["", f"{COUNT}\n", "a scan of my garden in June\n", "# a b\n\n"])
def test_values_decide_without_names(tmp_path: Path, name: str, head: str) -> None:
    tables, normals, expected = UNNAMED[name]
    said = assert_read(written(tmp_path / "a.pts", head + text(*tables)), normals)
    assert expected in said
    np.save(tmp_path / "a.npy", np.hstack(tables))
    assert assert_read(tmp_path / "a.npy", normals) == said


def test_columns_that_are_neither_normals_nor_colours_are_named(tmp_path: Path) -> None:
    cloud, reading = read_cloud(written(tmp_path / "a.xyz", text(POINTS, NORMALS * 7)))
    assert cloud.normals is None
    assert len(reading.warnings) == 1
    assert "Columns 4 to 6" in reading.warnings[0]
    assert "their lengths are 7 to 7" in reading.warnings[0]
    for tables in ((POINTS, NORMALS), (POINTS, COLOURS), (POINTS,)):
        assert read_cloud(written(tmp_path / "a.xyz", text(*tables)))[1].warnings == ()


def test_columns_of_zeros_are_normals_of_length_zero(tmp_path: Path) -> None:
    cloud, reading = read_cloud(written(tmp_path / "a.xyz", text(POINTS, 0 * POINTS)))
    assert cloud.normals is not None
    assert not cloud.normals.any()
    assert "all of length zero" in reading.columns


def test_records_with_names_are_read_by_name(tmp_path: Path) -> None:
    record = np.zeros(
        COUNT, [("nx", "f4"), ("ny", "f4"), ("nz", "f4"), *((a, "f8") for a in "xyz")]
    )
    for axis, name in enumerate("xyz"):
        record[name], record["n" + name] = POINTS[:, axis], NORMALS[:, axis]
    np.save(tmp_path / "a.npy", record)
    assert_read(tmp_path / "a.npy", normals=True)


@pytest.mark.parametrize("separator", [";", " ", "\t", "; "])
@pytest.mark.parametrize("head", ["", "X{0}Y{0}Z\n"])
def test_decimal_commas_are_read_where_nothing_else_makes_sense(
    tmp_path: Path, separator: str, head: str
) -> None:
    content = head.format(separator) + ROWS.replace(".", ",").replace(" ", separator)
    path = written(tmp_path / "a.csv", content)
    assert_read(path)
    assert "read as decimal points" in read_cloud(path)[1].warnings[0]


def test_commas_between_numbers_are_no_decimal_commas(tmp_path: Path) -> None:
    whole = np.round(POINTS)
    for table in (whole, np.hstack([whole, COLOURS]), POINTS):
        cloud = load_cloud(written(tmp_path / "a.csv", text(table, separator=",")))
        np.testing.assert_allclose(cloud.points, table[:, :3])


COMMAS = ROWS.replace(".", ",")
FIXED = "".join(f"51200{i % 7},5,400000{i % 9},{i % 10},90{i % 10},1\n" for i in range(COUNT))
AMBIGUOUS = {
    "comma": COMMAS.replace(" ", ","),
    "comma and blank": COMMAS.replace(" ", ", "),
    "thousands": "1.234,5 2.345,6 3.456,7\n" * 5,
    "thousands by semicolons": "1.234,5;2.345,6;3.456,7\n" * 5,
    "millions": "1,234,567;2,345,678;3,456,789\n" * 5,
    "pairs": "1,2,3 4,5,6\n" * 5,
    "one digit": FIXED,
    "no fraction": "1, 2,5 3,5\n" * 5,
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_commas_that_can_be_read_in_two_ways_are_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "a.csv", AMBIGUOUS[name])
    with pytest.raises(ContentError, match=r"can be read in more than one way: .*comma") as refused:
        load_cloud(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_names_of_columns_show_that_commas_separate(tmp_path: Path) -> None:
    cloud = load_cloud(written(tmp_path / "a.csv", "x,y,z,r,g,b\n" + FIXED))
    np.testing.assert_array_equal(cloud.points[1], [512001, 5, 4000001])


SAME = {
    "comments": ROWS.replace("\n", " # so\n// said\n\n", 3),
    "blank lines": "\n \n" + ROWS.replace("\n", "\n\n\t\n"),
    "carriage returns": ROWS.replace("\n", "\r"),
    "Windows": ROWS.replace("\n", "\r\n"),
    "mark": "\ufeff" + ROWS,
    "UTF-16": ("\ufeffX Y Z\n" + ROWS).encode("utf-16-le"),
    "quotes": "x,y,z\n" + "".join(f'"{x}","{y}","{z}"\n' for x, y, z in POINTS),
    "trailing commas": ROWS.replace(" ", ",").replace("\n", ",\n"),
    "words in other columns": "x,y,z,class\n" + ROWS.replace(" ", ",").replace("\n", ",a tree\n"),
    "quoted commas": "class,x,y,z\n"
    + '"a, b",'
    + ROWS.replace(" ", ",").replace("\n", '\n"c",')[:-4],
    "missing elsewhere": ROWS.replace(" ", ",").replace("\n", ",,NA\n"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_way_of_writing_does_not_matter(tmp_path: Path, name: str) -> None:
    assert_read(written(tmp_path / "a.asc", SAME[name]))


def test_scans_in_succession_have_their_own_counts(tmp_path: Path) -> None:
    lines = ROWS.splitlines(keepends=True)
    scans = ["20\n", *lines[:20], "39\n", *lines[20:59], "1\n", *lines[59:]]
    assert_read(written(tmp_path / "a.pts", "".join(scans)))
    with pytest.raises(ContentError, match="promises 60 points but holds 59"):
        load_cloud(written(tmp_path / "a.pts", "".join(scans[:-1])))
    with pytest.raises(ContentError, match=r"row 21 is '9.5'"):
        load_cloud(written(tmp_path / "a.pts", "".join(scans).replace("39\n", "9.5\n")))


def test_counts_are_compared_with_the_rows(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="promises 61 points but holds 60"):
        load_cloud(written(tmp_path / "a.pts", "61\n" + ROWS))
    path = written(tmp_path / "a.pts", "59\n" + ROWS)
    assert_read(path)
    assert "promises 59 points but holds 60" in read_cloud(path)[1].warnings[0]


def test_missing_coordinates_are_not_a_number(tmp_path: Path) -> None:
    rows = "1 2 3\nnan 2 3\n-nan(ind) 2 3\n-1.#IND 2 3\n1.#QNAN00 2 3\n"
    points = load_cloud(written(tmp_path / "a.xyz", rows)).points
    np.testing.assert_array_equal(np.isnan(points).any(axis=1), [False] + [True] * 4)
    np.testing.assert_array_equal(points[:, 1:], [[2, 3]] * 5)
    points = load_cloud(written(tmp_path / "a.csv", "x,y,z\n1,2,3\n4,,6\n7,NULL,9\n")).points
    np.testing.assert_array_equal(points[:, [0, 2]], [[1, 3], [4, 6], [7, 9]])
    np.testing.assert_array_equal(np.isnan(points[:, 1]), [False, True, True])
    for first in ("nan nan nan", "-nan(ind) -nan(ind) -nan(ind)", "-1.#IND 1.#QNAN NaN"):
        points = load_cloud(written(tmp_path / "a.pts", f"3\n{first}\n{first}\n1 2 3\n")).points
        np.testing.assert_array_equal(points, [[np.nan] * 3, [np.nan] * 3, [1, 2, 3]])
    assert number("1_0") is None
    assert number("1e3") == 1000


REFUSED = {
    "too few names": (
        "x y z\n1 2 3 4\n" * 1 + "1 2 3 4\n",
        "names 3 columns (x, y, z) but the rows",
    ),
    "no z": ("x y r g\n1 2 3 4\n", "columns x, y, r, g; points need x, y and z"),
    "twice": ("x y z X\n1 2 3 4\n", "2 columns that are named x"),
    "angles": ("lat lon h\n52 13 30\n", "latitudes and longitudes are angles"),
    "two lines of words": ("a scan\nof me\n1 2 3\n", "row 1 holds something that is not a number"),
    "grid": ("ncols 3\nnrows 2\n1 2 3\n1 2 3\n", "ESRI grid"),
    "OFF": ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n", "content of another format, OFF"),
    "PLY": ("ply\nformat ascii 1.0\n", "content of another format, PLY"),
    "PCD": ("# .PCD v0.7\nVERSION 0.7\n1 2 3\n", "content of another format, PCD"),
    "molecule": ("2\nwater\nH 0 0 0\nO 0 0 1\n", "row 1 holds something that is not a number"),
    "matrix": ("1 " * 40 + "\n", "1 rows of 40 columns without names"),
    "hidden": ("x,y,z,class\n1,2,3,a\n1,2,4,a,b\n", "row 2 has 5 columns instead of 4"),
    "word": ("x,y,z,class\n1,2,3,a\n1,two,4,b\n", "row 2 holds something that is not a number"),
    "only a header": ("x y z\n", "holds no points"),
    "only a count": ("12\n", "holds no points"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_text_that_is_not_rows_of_points_is_refused(tmp_path: Path, name: str) -> None:
    content, sentence = REFUSED[name]
    path = written(tmp_path / "a.txt", content)
    with pytest.raises(ContentError) as refused:
        load_cloud(path)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(str(path))


def pcd(kind: str, body: bytes, count: int = COUNT, end: str = "\n") -> bytes:
    """A PCD of padding, x, y, z, a histogram of 2 numbers, and nx, ny, nz."""
    head = "# .PCD v0.7\nVERSION 0.7\nFIELDS _ x y z histogram _ nx ny nz\n"
    head += "SIZE 1 8 8 8 4 1 8 8 8\nTYPE U F F F F U F F F\nCOUNT 3 1 1 1 2 1 1 1 1\n"
    head += f"WIDTH {count // 2}\nHEIGHT 2\nVIEWPOINT 0 0 0 1 0 0 0\nDATA {kind}\n"
    return head.replace("\n", end).encode() + body


PADDED = [("_", "u1", 3), ("p", "<f8", 3), ("h", "<f4", 2), ("__", "u1"), ("n", "<f8", 3)]


def padded() -> np.ndarray:
    record = np.zeros(COUNT, PADDED)
    record["p"], record["n"], record["_"], record["h"] = POINTS, NORMALS, 9, 0.5
    return record


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_pcd_of_padding_and_histograms_is_read(tmp_path: Path, end: str) -> None:
    path = written(tmp_path / "a.pcd", pcd("binary", padded().tobytes(), end=end))
    said = assert_read(path, normals=True)
    assert said == "by name: position x y z, normal nx ny nz; not used: _"
    rows = "".join(
        " ".join(map(repr, [9, 9, 9, *p, 0.5, 0.5, 0, *n])) + end
        for p, n in zip(POINTS.tolist(), NORMALS.tolist())
    )
    assert_read(written(tmp_path / "a.pcd", pcd("ascii", rows.encode(), end=end)), normals=True)


def literal(plain: bytes) -> bytes:
    """LZF without repetitions: pieces of up to 32 bytes after their lengths minus one."""
    pieces = [plain[start : start + 32] for start in range(0, len(plain), 32)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def test_compressed_pcd_is_read_and_damage_is_noticed(tmp_path: Path) -> None:
    record = padded()
    fields = [np.full((COUNT, 3), 9, "u1"), *POINTS.T, record["h"], record["__"], *NORMALS.T]
    plain = b"".join(np.ascontiguousarray(field).tobytes() for field in fields)
    packed = literal(plain)
    sizes = struct.pack("<II", len(packed), len(plain))
    path = written(tmp_path / "a.pcd", pcd("binary_compressed", sizes + packed))
    assert_read(path, normals=True)
    for body, sentence in (
        (sizes + packed[:-1], f"promises {len(packed)} compressed bytes but holds"),
        (sizes + b"\xff" * len(packed), "damaged compressed PCD"),
        (sizes + b"\x20" * len(packed), "damaged compressed PCD"),
        (struct.pack("<II", len(packed), 5) + packed, "damaged compressed PCD"),
        (b"\x01", "damaged compressed PCD"),
    ):
        with pytest.raises(ContentError, match=sentence):
            load_cloud(written(path, pcd("binary_compressed", body)))


def test_repetitions_are_expanded() -> None:
    # "ab", then 5 bytes from 2 back (length 3 + 2), then 10 + 2 + 7 bytes from 7 back
    packed = b"\x01ab" + bytes([3 << 5, 1]) + bytes([7 << 5, 10, 6])
    assert expand_lzf(packed, 26) == b"abababa" + b"abababa" * 2 + b"ababa"
    far = literal(bytes(range(256)) * 2) + bytes([1 << 5 | 1, 0xFF])  # 3 bytes from 512 back
    assert expand_lzf(far, 515)[-3:] == bytes([0, 1, 2])
    for packed in (b"\x20", b"\x01ab\x20\x05", b"\x01ab", b"\xe0"):
        with pytest.raises(ValueError, match=r"cut short|before the first byte|came out"):
            expand_lzf(packed, 3)


@pytest.mark.parametrize(
    ("head", "tables"),
    [
        ("", (POINTS, COLOURS)),
        ("", (POINTS, NORMALS, COLOURS)),
        ("", (POINTS, BRIGHTNESS, COLOURS)),
        ("x y z red green blue\n", (POINTS, COLOURS)),
        ("x y z r g b\n", (POINTS, COLOURS / 255)),
        ("X Y Z R G B\n", (POINTS, COLOURS * 257)),
    ],
)
def test_colours_are_read_in_any_range(tmp_path: Path, head: str, tables: tuple) -> None:
    cloud = load_cloud(written(tmp_path / "a.txt", head + text(*tables)))
    assert cloud.colours is not None
    np.testing.assert_allclose(cloud.colours, COLOURS / 255, atol=1e-5)


def test_counts_and_intensities_are_no_colours(tmp_path: Path) -> None:
    for tables in ((POINTS,), (POINTS, NORMALS), (POINTS, BRIGHTNESS), (POINTS, COLOURS / 255)):
        assert load_cloud(written(tmp_path / "a.txt", text(*tables))).colours is None


@pytest.mark.parametrize("kind", ["f4", "u4"])
def test_packed_colours_of_pcd_are_unpacked(tmp_path: Path, kind: str) -> None:
    red, green, blue = COLOURS.astype(np.uint32).T
    packed = (red << 16 | green << 8 | blue).astype("<u4")
    rows = np.zeros(len(POINTS), [(axis, "<f4") for axis in "xyz"] + [("rgb", f"<{kind}")])
    for axis, values in zip("xyz", POINTS.T):
        rows[axis] = values
    rows["rgb"] = packed.view(f"<{kind}")
    head = "VERSION .7\nFIELDS x y z rgb\nSIZE 4 4 4 4\n"
    head += f"TYPE F F F {kind[0].upper()}\nCOUNT 1 1 1 1\nWIDTH {len(rows)}\nHEIGHT 1\n"
    head += f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA binary\n"
    (tmp_path / "a.pcd").write_bytes(head.encode() + rows.tobytes())
    cloud = load_cloud(tmp_path / "a.pcd")
    assert cloud.colours is not None
    np.testing.assert_allclose(cloud.colours, COLOURS / 255, atol=1e-6)


def test_colours_of_ply_and_npz_are_read(tmp_path: Path) -> None:
    columns = dict(zip("xyz", POINTS.T))
    columns |= dict(zip(("red", "green", "blue"), COLOURS.astype(np.uint8).T))
    (tmp_path / "a.ply").write_bytes(encode_ply(vertex=table_of(columns)))
    np.savez(tmp_path / "a.npz", points=POINTS, colors=COLOURS / 255)
    for name in ("a.ply", "a.npz"):
        colours = load_cloud(tmp_path / name).colours
        assert colours is not None
        np.testing.assert_allclose(colours, COLOURS / 255, atol=1e-6)
    np.savez(tmp_path / "b.npz", points=POINTS, colors=COLOURS[:-1])
    with pytest.raises(ValueError, match="colors, of shape"):
        load_cloud(tmp_path / "b.npz")
