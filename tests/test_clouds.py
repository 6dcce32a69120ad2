"""Reading point clouds: every format returns what was written, and bad files are refused with one
sentence."""

import numpy as np
import pytest
from programs import needs_parts

from nstr3d.io import ContentError, load_cloud

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.standard_normal((120, 3))
NORMALS = RANDOM.standard_normal((120, 3))
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)


def ply(path, kind: str, normals: bool = True, count: int | None = None, before: str = ""):
    table = np.hstack([POINTS, NORMALS]) if normals else POINTS
    names = ("x", "y", "z", "nx", "ny", "nz")[: table.shape[1]]
    properties = "".join(f"property double {name}\n" for name in names)
    head = f"ply\nformat {kind} 1.0\ncomment made by a test\n{before}"
    head += f"element vertex {count or len(table)}\n{properties}end_header\n"
    if kind == "ascii":
        body = (
            "\n".join(" ".join(repr(float(value)) for value in row) for row in table).encode()
            + b"\n"
        )
    else:
        body = table.astype("<f8" if "little" in kind else ">f8").tobytes()
    path.write_bytes(head.encode() + body)


def pcd(path, kind: str, fields: str = "x y z normal_x normal_y normal_z", count: int = 120):
    table = np.hstack([POINTS, NORMALS])[:, : len(fields.split())]
    width = len(fields.split())
    head = (
        f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE {'8 ' * width}\nTYPE "
        f"{'F ' * width}\nCOUNT {'1 ' * width}\n"
        f"WIDTH {count}\nHEIGHT 1\nPOINTS {count}\nDATA {kind}\n"
    )
    text = "\n".join(" ".join(repr(float(value)) for value in row) for row in table).encode()
    path.write_bytes(head.encode() + (text if kind == "ascii" else table.astype("<f8").tobytes()))


def written(path):
    name = path.name
    if name.endswith(".ply"):
        ply(
            path,
            {"a.ply": "ascii", "l.ply": "binary_little_endian", "b.ply": "binary_big_endian"}[name],
        )
    elif name.endswith(".pcd"):
        pcd(path, "ascii" if name == "a.pcd" else "binary")
    elif name.endswith(".npy"):
        np.save(path, np.hstack([POINTS, NORMALS]))
    elif name.endswith(".npz"):
        np.savez(path, points=POINTS, normals=NORMALS)
    elif name.endswith(".csv"):
        np.savetxt(
            path, np.hstack([POINTS, NORMALS]), "%.17g", ",", header="x,y,z,nx,ny,nz", comments=""
        )
    elif name.endswith(".pts"):
        np.savetxt(
            path, np.hstack([POINTS, NORMALS]), "%.17g", header=str(len(POINTS)), comments=""
        )
    else:
        np.savetxt(path, np.hstack([POINTS, NORMALS]), "%.17g", header="a comment")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.ply",
        "l.ply",
        "b.ply",
        "a.pcd",
        "b.pcd",
        "c.npy",
        "c.npz",
        "c.csv",
        "c.pts",
        "c.xyz",
        "c.txt",
    ],
)
def test_what_was_written_comes_back(tmp_path, name):
    cloud = load_cloud(written(tmp_path / name))
    np.testing.assert_allclose(cloud.points, POINTS, rtol=1e-15)
    np.testing.assert_allclose(cloud.normals, NORMALS, rtol=1e-15)


def test_points_without_normals_have_none(tmp_path):
    ply(tmp_path / "p.ply", "binary_little_endian", normals=False)
    pcd(tmp_path / "p.pcd", "binary", "x y z")
    np.savetxt(tmp_path / "p.xyz", POINTS, "%.17g")
    np.savez(tmp_path / "p.npz", points=POINTS)
    for name in ("p.ply", "p.pcd", "p.xyz", "p.npz"):
        cloud = load_cloud(tmp_path / name)
        np.testing.assert_allclose(cloud.points, POINTS, rtol=1e-15)
        assert cloud.normals is None


def test_other_columns_and_elements_are_passed_over(tmp_path):
    path = tmp_path / "p.ply"
    record = np.zeros(120, [("x", "<f4"), ("red", "u1"), ("y", "<f4"), ("z", "<f4")])
    for axis, name in enumerate("xyz"):
        record[name] = POINTS[:, axis]
    head = (
        "ply\nformat binary_little_endian 1.0\nelement camera 2\nproperty float view\nelement "
        "vertex 120\nproperty float x\n"
        "property uchar red\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    path.write_bytes(head.encode() + b"\0" * 8 + record.tobytes() + b"\3" + b"\0" * 12)
    np.testing.assert_allclose(load_cloud(path).points, POINTS, rtol=1e-6)


@needs_parts("las")
@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_las_comes_back_to_its_resolution(tmp_path, suffix):
    import laspy

    las = laspy.create()
    las.change_scaling(scales=np.full(3, 1e-5))
    las.xyz = POINTS
    las.write(tmp_path / f"p.{suffix}")
    np.testing.assert_allclose(load_cloud(tmp_path / f"p.{suffix}").points, POINTS, atol=1e-4)


@needs_parts("las")
@pytest.mark.parametrize("cut", [1, 34, 35, 34 * 120])
def test_las_that_is_cut_short_is_refused_with_both_numbers(tmp_path, cut):
    import laspy

    las = laspy.create()
    las.xyz = POINTS
    las.write(tmp_path / "p.las")
    data, size = (tmp_path / "p.las").read_bytes(), las.header.point_format.size
    assert size == 34
    (tmp_path / "p.las").write_bytes(data[:-cut])
    held = 120 - -(-cut // size)
    with pytest.raises(ValueError, match=f"promises 120 points but holds {held};"):
        load_cloud(tmp_path / "p.las")


@needs_parts("las")
@pytest.mark.parametrize("points", [1, 50, 119.5])
def test_las_cut_short_is_refused_with_both_numbers(tmp_path, points):
    import laspy

    las = laspy.create()
    las.xyz = POINTS
    las.write(tmp_path / "p.las")
    data = (tmp_path / "p.las").read_bytes()
    with laspy.open(tmp_path / "p.las") as reader:
        size = reader.header.point_format.size
    (tmp_path / "part.las").write_bytes(data[: len(data) - round(size * points)])
    with pytest.raises(ContentError, match=rf"promises 120 points but holds {int(120 - points)};"):
        load_cloud(tmp_path / "part.las")


def test_las_without_laspy_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "laspy", None)
    (tmp_path / "p.las").write_bytes(b"LASF")
    with pytest.raises(ModuleNotFoundError, match=r"nstr3d\[las\]"):
        load_cloud(tmp_path / "p.las")


def bad(path):
    """Writes the bad file that ``path`` names."""
    name = path.name
    content = {
        "two.xyz": b"1 2\n" * 200,
        "ragged.xyz": b"1 2 3\n" * 5 + b"1 2\n",
        "words.xyz": b"1 2 3\n" * 5 + b"1 two 3\n",
        "comments.xyz": b"# nothing\n\n",
        "empty.ply": b"",
        "junk.ply": b"\x07" * 300,
        "junk.npy": b"\x07" * 300,
        "junk.npz": b"\x07" * 300,
        "junk.pcd": b"\x07" * 300,
        "junk.las": b"\x07" * 300,
        "unknown.gif": b"GIF89a",
    }
    if name in content:
        path.write_bytes(content[name])
    elif name == "short.ply":
        ply(path, "binary_little_endian", count=200)
    elif name == "shortext.ply":
        ply(path, "ascii", count=200)
    elif name == "faces.ply":
        ply(path, "ascii", before="element face 1\nproperty list uchar int vertex_indices\n")
    elif name == "noz.pcd":
        pcd(path, "ascii", "x y")
    elif name == "short.pcd":
        pcd(path, "binary", count=200)
    elif name == "packed.pcd":
        pcd(path, "binary_compressed")
    elif name == "strange.pcd":
        pcd(path, "zipped")
    elif name == "wide.npy":
        np.save(path, np.zeros((120, 17)))
    elif name == "flat.npy":
        np.save(path, POINTS[:, :2])
    elif name == "cube.npy":
        np.save(path, np.zeros((4, 4, 4)))
    elif name == "text.npy":
        np.save(path, np.full((120, 3), "a"))
    elif name == "nameless.npz":
        np.savez(path, xyz=POINTS)
    elif name == "fewer.npz":
        np.savez(path, points=POINTS, normals=NORMALS[:50])
    elif name == "object.npy":
        np.save(path, np.full((120, 3), None), allow_pickle=True)


REFUSALS = {
    "two.xyz": "2 columns",
    "ragged.xyz": "row 6 has 2 columns",
    "words.xyz": "row 6 holds something that is not a number",
    "comments.xyz": "holds no points",
    "empty.ply": "is empty",
    "junk.ply": "no PLY header",
    "junk.npy": "could not be read as NPY",
    "junk.npz": "could not be read as NPZ",
    "junk.pcd": "no PCD header",
    "junk.las": "could not be read as LAS",
    "unknown.gif": "unknown extension",
    "short.ply": "promises 200 points but holds 120",
    "shortext.ply": "promises 200 points but holds 120",
    "faces.ply": "promises 120 points but holds 119",
    "noz.pcd": "need x, y and z",
    "short.pcd": "promises 200 points but holds 120",
    "packed.pcd": r"promises \d+ compressed bytes but holds",
    "strange.pcd": "unknown kind zipped",
    "wide.npy": "120 rows of 17 columns without names",
    "flat.npy": "2 columns",
    "cube.npy": r"shape \(4, 4, 4\)",
    "text.npy": "not numbers",
    "nameless.npz": "no array named points",
    "fewer.npz": "120 points but 50 normals",
    "object.npy": "could not be read as NPY",
    "missing.ply": "does not exist",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs_parts("las")) if name.endswith(".las") else name
        for name in REFUSALS
    ],
)
def test_bad_files_are_refused_with_the_file_and_the_reason(tmp_path, name):
    path = tmp_path / name
    bad(path)
    with pytest.raises((ValueError, OSError), match=REFUSALS[name]) as caught:
        load_cloud(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
