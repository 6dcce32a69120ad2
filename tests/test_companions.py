"""The files that a mesh names, and data sets that notice when these change."""

import json
from dataclasses import asdict
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

import nstr3d
from nstr3d.batch import beside
from nstr3d.batch.catalogue import select
from nstr3d.batch.options import ShapeOptions
from nstr3d.batch.worker import fit_shape
from nstr3d.cli import command as cli
from nstr3d.io.companions import companions
from nstr3d.io.folder import local_stamp
from nstr3d.jobs.options import Extraction, Training

QUICK = "--cells 4 --steps 60 --pool 8192 --samples 1000 --resolution 16 --picture 0"
CUBE = """mtllib cube.mtl
v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
usemtl skin
f 1/1 4/4 3/3 2/2\nf 5/1 6/2 7/3 8/4\nf 1/1 2/2 6/3 5/4
f 2/1 3/2 7/3 6/4\nf 3/1 4/2 8/3 7/4\nf 4/1 1/2 5/3 8/4
"""


def paint(folder: Path, colour: tuple[int, int, int]) -> None:
    """A cube whose texture has one pixel row of ``colour`` and one of grey."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cube.obj").write_text(CUBE)
    (folder / "cube.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    rows = np.array([[colour] * 4, [(90, 90, 90)] * 4], np.uint8)
    Image.fromarray(rows).save(folder / "skin.png")


def names(path: Path, colours: bool = True) -> list[str]:
    return [beside.name_of(each, path) for each in companions(path, colours)]


def test_an_obj_names_its_materials_and_their_textures(tmp_path: Path) -> None:
    paint(tmp_path, (255, 0, 0))
    path = tmp_path / "cube.obj"
    assert names(path) == ["cube.mtl", "skin.png"]
    assert names(path, colours=False) == []
    path.write_text("  mtllib a.mtl my b.mtl\r\nmtllib gone.mtl")
    (tmp_path / "a.mtl").write_text("newmtl x\nmap_Kd -o 1 - ../up.png\nnewmtl y\nKd 1 0 0\n")
    assert names(path) == ["a.mtl", "my", "b.mtl", "gone.mtl", "- ../up.png"]
    path.write_bytes("mtllib \\\n a.mtl # of old\n".encode("utf-16"))
    assert names(path)[0] == "a.mtl"
    path.write_text("mtllib my own.mtl\n")
    (tmp_path / "my own.mtl").write_text("newmtl x\nmap_Kd t.png\nnewmtl y\nmap_Kd t.png")
    assert names(path) == ["my own.mtl", "t.png"]


def test_a_ply_names_its_textures(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(
        b"ply\nformat ascii 1.0\ncomment TextureFile a b.png\ncomment texturefile c.png\r\n"
        b"element vertex 0\nend_header\ncomment TextureFile not.png\n"
    )
    assert names(path) == ["a b.png", "c.png"]
    assert names(path, colours=False) == []


@pytest.mark.parametrize("binary", [False, True])
def test_a_gltf_names_its_buffers_and_pictures(tmp_path: Path, binary: bool) -> None:
    tree = {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": "a%20b.bin"}, {"uri": "data:;base64,AA=="}, {}],
        "images": [{"uri": "sub\\t.png"}, {"bufferView": 0}],
    }
    text = json.dumps(tree).encode()
    path = tmp_path / ("a.glb" if binary else "a.gltf")
    head = b"glTF" + bytes(8) + len(text).to_bytes(4, "little") + b"JSON"
    path.write_bytes(head + text + b"rest" if binary else text)
    assert names(path) == ["a b.bin", "sub/t.png"]
    assert names(path, colours=False) == ["a b.bin"]
    for damaged in (b"", b"{", b"[]", b'{"buffers": 3}', b'{"buffers": [3]}', b"glTF"):
        path.write_bytes(damaged)
        assert names(path) == []


def test_a_stamp_tells_what_has_changed(tmp_path: Path) -> None:
    paint(tmp_path, (255, 0, 0))
    path = tmp_path / "cube.obj"
    place = str(path)
    own = local_stamp(path)
    known = own + beside.stamps(place, [*names(path), "gone.png"])
    assert beside.is_current(known, own, place)
    assert not beside.is_current(known, own + "0", place)
    (tmp_path / "gone.png").write_bytes(b"it is there now")
    assert not beside.is_current(known, own, place)
    (tmp_path / "gone.png").unlink()
    assert beside.is_current(known, own, place)
    (tmp_path / "skin.png").unlink()
    assert not beside.is_current(known, own, place)
    assert beside.is_current(own, own, place)  # of an earlier version, or without such files


def test_behind_a_url_only_files_below_are_looked_at() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/set/a/x.obj", b"1")
    fs.pipe("/set/a/x.mtl", b"2")
    fs.pipe("/set/y.png", b"3")
    place = "memory://set/a/x.obj"
    lines = beside.stamps(place, ["x.mtl", "../y.png", "z.png"])
    assert lines.startswith("\n1-")
    assert lines.endswith("\n- ../y.png\n- z.png")
    assert beside.is_current("own" + lines, "own", place)
    fs.pipe("/set/a/x.mtl", b"22")
    assert not beside.is_current("own" + lines, "own", place)
    fs.store.clear()


def test_a_data_set_notices_another_texture(tmp_path: Path, capsys) -> None:
    paint(tmp_path / "in", (255, 0, 0))
    words = ["batch", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *QUICK.split()]

    def red() -> float:
        fit = nstr3d.load(tmp_path / "out" / "cube.obj" / "model.safetensors")
        return float(fit.colour(np.array([[0.0, 0.8, 1.0]]))[0, 0])

    assert cli.main(words) == 0
    assert red() > 0.8
    (row,) = select(tmp_path / "out" / "catalog.sqlite", ("colour_psnr",))
    assert row["colour_psnr"] > 20
    capsys.readouterr()
    assert cli.main(words) == 0
    assert "1 up to date" in capsys.readouterr().out
    paint(tmp_path / "in", (0, 0, 255))
    assert cli.main(words) == 0
    assert "1 fitted" in capsys.readouterr().out
    assert red() < 0.3
    # A file that was written again with the same content is not fitted again.
    model = tmp_path / "out" / "cube.obj" / "model.safetensors"
    before = model.stat().st_mtime_ns
    paint(tmp_path / "in", (0, 0, 255))
    assert cli.main(words) == 0
    assert model.stat().st_mtime_ns == before
    capsys.readouterr()
    assert cli.main(words) == 0
    assert "1 up to date" in capsys.readouterr().out


def test_a_shape_behind_a_url_comes_with_its_texture(tmp_path: Path) -> None:
    paint(tmp_path / "in", (255, 0, 0))
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "in"), "/set", recursive=True)
    options = ShapeOptions(
        training=Training(cells=4, steps=60, pool=8192),
        extraction=Extraction(resolution=16, picture=0),
    )
    request = {
        "place": "memory://set/cube.obj",
        "scratch": str(tmp_path),
        "known_key": "",
        "memory": None,
        "options": asdict(options),
    }
    answer = fit_shape(request)
    fs.store.clear()
    assert answer["status"] == "done", answer["error"]
    assert answer["report"]["colour"]["source"] == "texture"
    assert [line.split()[-1] for line in answer["beside"].splitlines()[1:]] == [
        "cube.mtl",
        "skin.png",
    ]


def test_info_hints_at_a_picture_for_coordinates_without_one(tmp_path: Path, capsys) -> None:
    paint(tmp_path, (255, 0, 0))
    assert cli.main(["info", str(tmp_path / "cube.obj")]) == 0
    assert "--texture" not in capsys.readouterr().out
    (tmp_path / "cube.mtl").write_text("newmtl skin\n")
    assert cli.main(["info", str(tmp_path / "cube.obj")]) == 0
    assert "nstr3d fit --texture PICTURE" in capsys.readouterr().out
