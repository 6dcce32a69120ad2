"""``nstr3d export``: each format of a fitted ball is read back. Every refusal is one sentence and
writes no file."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nstr3d.cli import command as cli
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.closed.cosinefit import fit_cosines
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.io import load_mesh, save_lines
from nstr3d.model.checkpoint import load, save
from nstr3d.training.fit import Fit, FitConfig, fit
from nstr3d.training.losses import SdfObjective
from nstr3d.types import Box, Frame, Polylines, Samples


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball of radius 1.5 with centre (1, 2, 3), in a folder named ball."""
    folder = tmp_path_factory.mktemp("fit") / "ball"
    folder.mkdir()
    points = torch.rand(40_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    samples = Samples(points, points.norm(dim=1, keepdim=True) - 0.5)
    field = NstrConfig((LevelConfig(8, plain=4, sparse=False),), hidden=16).build(3, 1)
    bounds = Box((-0.5, 0.5, 1.5), (2.5, 3.5, 4.5))
    ball = fit(
        field,
        samples,
        SdfObjective(),
        FitConfig(steps=200, batch=4096),
        Frame((1.0, 2.0, 3.0), 3.0),
        bounds,
    )
    save(folder / "model.safetensors", ball)
    return folder / "model.safetensors"


def test_levels_of_detail_are_files_named_by_their_faces(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["export", str(model), "--to", "ply", "--resolution", "24"]
    out = tmp_path / "ball.ply"
    assert cli.main([*words, "--out", str(out), "--lod", "200", "60"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"ball-200.ply", "ball-60.ply"}
    assert len(load_mesh(tmp_path / "ball-60.ply").faces) <= 60
    assert capsys.readouterr().out.count("its distance to the field is") == 2
    assert cli.main([*words, "--out", str(out), "--faces", "100"]) == 0
    assert 60 < len(load_mesh(out).faces) <= 100


def test_a_certified_mesh_says_what_is_proven(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["export", str(model), "--certified", "--resolution", "24", "--to"]
    out = tmp_path / "ball.ply"
    assert cli.main([*words, "ply", "--out", str(out)]) == 0
    assert "proven of the extracted mesh: all of the surface is within" in capsys.readouterr().out
    assert cli.main([*words, "npz", "--out", str(tmp_path / "ball.npz")]) == 1
    assert "--certified is for glb, ply, obj, stl, mujoco, not for npz" in capsys.readouterr().err
    siren = SirenConfig(width=8, depth=1).build(3, 1)
    save(tmp_path / "a.safetensors", Fit(siren, Frame.identity(3), Box((-1.0,) * 3, (1.0,) * 3), 1))
    words[1] = str(tmp_path / "a.safetensors")
    assert cli.main([*words, "ply", "--out", str(tmp_path / "siren.ply")]) == 1
    assert "Siren has no proven bounds" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"ball.ply", "a.safetensors"}


@pytest.mark.parametrize("form", ["glb", "ply", "obj", "stl"])
def test_a_mesh_is_the_level_set(model: Path, tmp_path: Path, form: str) -> None:
    for iso in (0.0, 0.4):
        out = tmp_path / f"ball{iso:.2f}.{form}"
        assert (
            cli.main(
                [
                    "export",
                    str(model),
                    "--to",
                    form,
                    "--out",
                    str(out),
                    "--resolution",
                    "32",
                    "--iso",
                    str(iso),
                ]
            )
            == 0
        )
        mesh = load_mesh(out)
        np.testing.assert_allclose(
            np.linalg.norm(mesh.vertices - (1, 2, 3), axis=1), 1.5 + iso, atol=0.1
        )


def test_the_grid_is_that_of_the_model(model: Path, tmp_path: Path) -> None:
    assert (
        cli.main(
            [
                "export",
                str(model),
                "--to",
                "npz",
                "--out",
                str(tmp_path / "ball.npz"),
                "--resolution",
                "12",
            ]
        )
        == 0
    )
    with np.load(tmp_path / "ball.npz") as file:
        middle = np.array(file["distance"].shape) // 2
        place = file["origin"] + file["spacing"] * middle
        np.testing.assert_allclose(
            file["distance"][tuple(middle)], load(model).sdf()(place[None])[0], rtol=1e-6
        )


def test_a_page_lies_beside_the_model_and_is_named_after_its_folder(
    model: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    assert cli.main(["export", "model.safetensors", "--to", "html"]) == 0
    page = Path("model.html").read_text(encoding="utf-8")
    assert "<title>ball</title>" in page
    assert f"wrote model.html ({len(page.encode()):,} bytes)" in capsys.readouterr().out
    assert cli.main(["export", "model.safetensors", "--to", "html"]) == 1
    assert "already there; pass --overwrite" in capsys.readouterr().err
    assert (
        cli.main(
            [
                "export",
                "model.safetensors",
                "--to",
                "html",
                "--overwrite",
                "--title",
                "A ball",
                "--iso",
                "0.01",
            ]
        )
        == 0
    )
    page = Path("model.html").read_text(encoding="utf-8")
    assert "<title>A ball</title>" in page
    assert '"level": 0.01' in page


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "ply", "--out", "ball.obj"], "must end in one of .ply"),
        (["--to", "ply", "--out", "nowhere/ball.ply"], "does not exist; create it"),
        (["--to", "ply", "--out", "there.ply"], "already there; pass --overwrite"),
        (
            ["--to", "ply", "--out", "ball.ply", "--iso", "-1000"],
            "has no surface where the distance is -1000",
        ),
        (["--to", "ply", "--out", "ball.ply", "--resolution", "0"], "--resolution is 2 to 4,096"),
        (["--to", "npz", "--out", "ball.npz", "--resolution", "0"], "--resolution is 2 to 1,024"),
        (
            ["--to", "npz", "--out", "ball.npz", "--iso", "0.1"],
            "--iso is for html, glb, ply, obj, stl, mujoco, not for npz",
        ),
        (["--to", "html", "--out", "ball.html", "--resolution", "9"], "--resolution is for"),
        (["--to", "html", "--out", "ball.html", "--iso", "nan"], "nan"),
        (["--to", "onnx", "--out", "ball.onnx", "--title", "ball"], "--title is for html"),
        (["--to", "html", "--faces", "100"], "--faces is for glb, ply, obj, stl, mujoco"),
        (["--to", "ply", "--faces", "2"], "--faces is 4 to"),
        (["--to", "ply", "--faces", "9", "--lod", "9"], "name one of them"),
        (["--to", "ply", "--lod", "9", "9"], "each once"),
    ],
)
def test_bad_options_are_one_sentence_and_no_file(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    options: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.ply").write_bytes(b"mine")
    assert cli.main(["export", str(model), *options]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.ply"]


def test_what_is_no_shape_or_has_no_page_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    waves = fit_cosines(np.random.default_rng(0).random((16, 16, 3)).astype(np.float32), 300)
    save(
        tmp_path / "image.safetensors",
        Fit(waves, Frame((0.0, 0.0), 1.0), Box((-1.0, -1.0), (1.0, 1.0)), lipschitz=math.inf),
    )
    siren = SirenConfig(8, 1).build(3, 1)
    bias = siren.layers[-1].bias
    bias.data -= float(
        siren(bias.new_zeros(1, 3)).detach()
    )  # now the surface passes through the centre
    save(
        tmp_path / "siren.safetensors",
        Fit(siren, Frame.identity(), Box((-1.0,) * 3, (1.0,) * 3), lipschitz=9.0),
    )
    for name, sentence in (
        ("image", "model of an image"),
        ("none", "none.safetensors"),
        ("siren", "page traces NSTR and grid fields, not a Siren"),
    ):
        assert cli.main(["export", str(tmp_path / f"{name}.safetensors"), "--to", "html"]) == 1
        assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html"))


def test_streamlines_come_along_with_a_page_only(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    around = np.linspace(0, 6, 40)
    circle = np.stack(
        [1 + 1.5 * np.cos(around), 2 + 1.5 * np.sin(around), np.full(40, 3.0)], axis=1
    )
    for name in ("lines.ply", "lines.json"):
        save_lines(tmp_path / name, Polylines(circle, np.array([0, 40]), around))
        page = tmp_path / f"{name}.html"
        assert (
            cli.main(
                [
                    "export",
                    str(model),
                    "--to",
                    "html",
                    "--out",
                    str(page),
                    "--streamlines",
                    str(tmp_path / name),
                ]
            )
            == 0
        )
        about = json.loads(re.findall(r'"lines": (\{.*?\})', page.read_text(encoding="utf-8"))[0])
        assert about["count"] == 40
        # / 3: the page's unit is the side of the box
        np.testing.assert_allclose(about["extent"], np.ptp(circle, axis=0) / 3, atol=1e-6)
    capsys.readouterr()
    for form, file, sentence in (
        ("glb", "lines.ply", "--streamlines is for html, not for glb"),
        ("html", "none.ply", "none.ply"),
        ("html", "lines.obj", "lines are read from"),
    ):
        (tmp_path / "lines.obj").write_text("v 0 0 0\n")
        options = [
            "--to",
            form,
            "--out",
            str(tmp_path / f"ball.{form}"),
            "--streamlines",
            str(tmp_path / file),
        ]
        assert cli.main(["export", str(model), *options]) == 1
        said = capsys.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1
        assert not (tmp_path / f"ball.{form}").exists()
