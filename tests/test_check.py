"""`nstr3d check`: what a file holds, and that nothing is fitted or written."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import sphere

import nstr3d
from nstr3d.cli import command as cli
from nstr3d.io import save_image, save_mesh, save_sound
from nstr3d.io.audio import Sound
from nstr3d.jobs.check import check_file
from nstr3d.types import Mesh

UTM = np.array([512434.25, 5405590.5, 348.75])


def checked(path, capsys) -> dict:
    assert cli.main(["check", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_closed_mesh_has_nothing_suspicious(tmp_path, capsys):
    save_mesh(tmp_path / "ball.stl", sphere(4))
    about = checked(tmp_path / "ball.stl", capsys)
    assert (about["format"], about["kind"]) == ("STL", "mesh")
    assert (about["components"], about["watertight"]) == (1, True)
    assert about["repairs"]["merged_vertices"] == 3 * about["faces"] - len(sphere(4).vertices)
    assert about["sign"] == "closed surface"
    assert math.isclose(about["volume"], 4 / 3 * math.pi, rel_tol=0.02)
    assert about["suspicious"] == []
    assert about["command"] == f"nstr3d fit {tmp_path / 'ball.stl'}"
    assert [path.name for path in tmp_path.iterdir()] == ["ball.stl"]


def test_an_open_turned_mesh_says_what_would_be_done(tmp_path, capsys):
    ball = sphere(2)
    save_mesh(tmp_path / "a.obj", Mesh(ball.vertices, ball.faces[1:, ::-1]))
    assert cli.main(["check", str(tmp_path / "a.obj")]) == 0
    text = capsys.readouterr().out
    assert f"would be turned    {len(ball.faces) - 1:,} faces" in text
    assert "no: edges: 3 boundary" in text
    assert "winding number of the surface with 1 hole(s) closed" in text
    assert "The surface is not watertight" in text


def test_map_coordinates_and_far_parts_are_named(tmp_path):
    ball = sphere(2)
    count = len(ball.vertices)
    flake = UTM + (np.array([(0, 0, 0), (0.01, 0, 0), (0, 0.01, 0)]) + (2000.0, 0, 0))
    vertices = np.concatenate([ball.vertices + UTM, flake])
    faces = np.concatenate([ball.faces, [(count, count + 1, count + 2)]])
    save_mesh(tmp_path / "a.ply", Mesh(vertices, faces))
    about = check_file(tmp_path / "a.ply")
    np.testing.assert_allclose(about["bounds"]["lower"], UTM - 1, atol=1e-6)
    assert about["far"] == {
        "parts": 1,
        "faces": 1,
        "share_of_box": 0.0,  # the flake is left out
        "dropped": 1,
    }
    assert "UTM" in about["units"]
    assert any("from the origin" in each for each in about["suspicious"])
    assert about["watertight"]


def test_degrees_and_thin_solids_are_suspicious(tmp_path):
    ball = sphere(2)
    save_mesh(
        tmp_path / "a.ply", Mesh(ball.vertices * (1e-4, 1e-4, 5) + (8.5, 47.3, 400), ball.faces)
    )
    suspicious = " ".join(check_file(tmp_path / "a.ply")["suspicious"])
    assert "degrees" in suspicious
    assert "thin" in suspicious
    save_mesh(tmp_path / "b.ply", Mesh(ball.vertices * (1, 1, 1e-9), ball.faces))
    assert any(
        "encloses no volume" in each for each in check_file(tmp_path / "b.ply")["suspicious"]
    )


@pytest.mark.parametrize(
    "name",
    [
        *("a.stl", "-a.stl", "a b.stl", "it's;touch b.stl", "a\n\x1b[31m$(b)'\\.stl", "ä.stl"),
        *("a\U000e00412.stl", os.fsdecode(b"a\xff2.stl")),  # neither can be printed
    ],
)
def test_the_command_is_one_that_a_shell_takes(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    save_mesh(tmp_path / "ball.stl", sphere(1))
    (tmp_path / "ball.stl").rename(tmp_path / name)
    command = check_file(Path(name))["command"]
    echoed = ["bash", "-c", f"nstr3d() {{ printf '%s|' \"$@\"; }}; {command}"]
    words = subprocess.run(echoed, capture_output=True, check=True).stdout
    words = os.fsdecode(words).split("|")
    assert words[0] == "fit"
    assert words[1] == (f"./{name}" if name.startswith("-") else name)
    assert cli.main(["check", f"./{name}"]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_a_check_loads_nothing_that_it_does_not_use(tmp_path):
    ball = sphere(3)
    double = Mesh(np.concatenate([ball.vertices, ball.vertices + (1, 0, 0)]),
                  np.concatenate([ball.faces, ball.faces + len(ball.vertices)]))  # fmt: skip
    save_mesh(tmp_path / "double.ply", double)
    save_mesh(tmp_path / "open.stl", Mesh(ball.vertices, ball.faces[5:]))
    np.savetxt(tmp_path / "points.xyz", ball.vertices)
    paths = [str(tmp_path / name) for name in ("double.ply", "open.stl", "points.xyz")]
    heavy = ("torch", "numba", "trimesh", "PIL", "soundfile", "scipy.stats")
    program = (
        "import sys; from nstr3d.cli import main; "
        f"codes = [main(['check', path]) for path in {paths}]; "
        f"print(codes, [name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(nstr3d.__file__).parents[1],
    )
    assert result.stdout.splitlines()[-1] == "[0, 0, 0] []"


@pytest.mark.parametrize("normals", [False, True])
def test_points_name_their_normals_outliers_and_copies(tmp_path, capsys, normals):
    ball = sphere(3).vertices
    ball = ball / np.linalg.norm(ball, axis=1, keepdims=True)
    points = np.concatenate([ball, ball[:2], [(40.0, 0, 0)]])
    rows = np.hstack([points, points / np.linalg.norm(points, axis=1, keepdims=True)])
    np.savetxt(tmp_path / "a.xyz", rows if normals else points)
    about = checked(tmp_path / "a.xyz", capsys)
    assert (about["kind"], about["points"], about["normals"]) == ("points", len(points), normals)
    assert (about["duplicates"], about["outliers"]) == (2, 1)
    assert about["far"]["share_of_box"] == pytest.approx(1 - 2 / 41, abs=0.01)
    assert about["sign"] == f"normals {'of the file' if normals else 'that are estimated'}"
    assert about["turned"] == (0 if normals else None)
    assert about["command"].startswith("nstr3d points")
    assert cli.main(["check", str(tmp_path / "a.xyz")]) == 0
    assert "1 outliers" in capsys.readouterr().out


def test_a_ply_without_faces_holds_points(tmp_path):
    ball = sphere(3).vertices
    head = f"ply\nformat ascii 1.0\nelement vertex {len(ball)}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    (tmp_path / "a.ply").write_text(head + "".join(f"{x:g} {y:g} {z:g}\n" for x, y, z in ball))
    assert check_file(tmp_path / "a.ply")["kind"] == "points"


def test_pictures_and_sounds_are_described(tmp_path, capsys):
    save_image(tmp_path / "a.png", np.full((3, 5, 3), 0.5))
    assert checked(tmp_path / "a.png", capsys)["shape"] == [3, 5, 3]
    save_sound(tmp_path / "a.wav", Sound(np.zeros((16, 2), np.float32), 8000))
    about = checked(tmp_path / "a.wav", capsys)
    assert (about["shape"], about["rate"]) == ([16, 2], 8000)
    assert "nothing to hear" in about["suspicious"][0]
    assert cli.main(["check", str(tmp_path / "a.wav")]) == 0
    assert "8,000 samples per second" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("none.obj", None, "does not exist"),
        ("flat.obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "has an area"),
        ("few.xyz", "0 0 0\n1 0 0\n", "at least 100"),
        ("what.unknown", "x", "unknown mesh extension"),
        ("model.safetensors", "x", "nstr3d info says what it holds"),
        ("many.zip", "x", "unpack it"),
        ("far.xyz", "1e300 0 0\n0 1e300 0\n" * 100, "scale it down"),
    ],
)
def test_files_that_no_job_can_use_are_refused_with_one_sentence(
    tmp_path, capsys, name, text, part
):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert cli.main(["check", str(tmp_path / name), "--json"]) == 1
    out, err = capsys.readouterr()
    assert part in json.loads(out)["error"]
    assert err.startswith("error: ")
    assert part in err
    assert len(err.splitlines()) == 1


def test_the_union_and_parts_that_overlap_themselves_are_named(tmp_path, capsys):
    ball = sphere(3)
    pair = Mesh(np.concatenate([ball.vertices, ball.vertices + (1, 0, 0)]),
                np.concatenate([ball.faces, ball.faces + len(ball.vertices)]))  # fmt: skip
    save_mesh(tmp_path / "a.ply", pair)
    about = check_file(tmp_path / "a.ply")
    union = 2 * 4 / 3 * np.pi - np.pi / 12 * (4 + 1) * (2 - 1) ** 2
    assert about["volume"] == pytest.approx(union, rel=0.03)
    assert about["repairs"]["union"]["united"] == 2
    assert "lay inside the solid" in " ".join(about["suspicious"])
    assert cli.main(["check", str(tmp_path / "a.ply")]) == 0
    text = capsys.readouterr().out
    assert "2 parts united" in text
    assert "hole(s) closed" not in text
