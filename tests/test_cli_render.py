"""``nstr3d render``: pictures, turntables and buffers of a fitted sphere. Every refusal is one
sentence and writes no file."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import needs_parts

from nstr3d.cli import command as cli
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.closed.cosinefit import fit_cosines
from nstr3d.model.checkpoint import save
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame

ASSETS = Path(__file__).parent.parent / "assets"
SIZE = ["--size", "48", "40"]


@pytest.fixture(scope="module")
def model(fitted: Callable[..., Path]) -> Path:
    return fitted(
        "sphere.obj", "--field", "grid", "--params", "6000", "--steps", "300", "--resolution", "24"
    )


def test_depth_and_normals_are_those_of_the_sphere(model: Path, tmp_path: Path) -> None:
    assert cli.main(["render", str(model), "--out", str(tmp_path / "seen.npz"), *SIZE]) == 0
    with np.load(tmp_path / "seen.npz") as seen:
        depth, normals, eye, target = (seen[name] for name in ("depth", "normals", "eye", "target"))
    hit = np.isfinite(depth)
    away = float(np.linalg.norm(eye - target))
    radius = away - float(depth.min())
    cone = math.asin(radius / away)  # the angle between the silhouette and the axis
    assert hit.shape == (40, 48)
    assert hit.sum() == pytest.approx(
        math.pi * (math.tan(cone) / math.tan(math.radians(35 / 2)) * 20) ** 2, rel=0.05
    )
    np.testing.assert_allclose(np.linalg.norm(normals[hit], axis=1), 1, atol=1e-5)
    assert not normals[~hit].any()
    middle = normals[20, 24] @ (eye - target) / away
    assert middle > 0.99


@needs_parts("render")
def test_exr_holds_what_npz_holds(model: Path, tmp_path: Path) -> None:
    import OpenEXR

    for name in ("seen.npz", "seen.exr"):
        assert cli.main(["render", str(model), "--out", str(tmp_path / name), *SIZE]) == 0
    with (
        np.load(tmp_path / "seen.npz") as seen,
        OpenEXR.File(str(tmp_path / "seen.exr"), separate_channels=True) as file,
    ):
        channels = file.channels()
        np.testing.assert_array_equal(channels["Z"].pixels, seen["depth"])
        np.testing.assert_array_equal(channels["N.Y"].pixels, seen["normals"][..., 1])


@pytest.mark.parametrize("shading", ["studio", "normals", "depth", "curvature"])
def test_a_picture_of_each_shading_shows_the_shape_before_its_background(
    model: Path, tmp_path: Path, shading: str
) -> None:
    out = tmp_path / "seen.png"
    assert (
        cli.main(
            [
                "render",
                str(model),
                "--out",
                str(out),
                *SIZE,
                "--shading",
                shading,
                "--background",
                "none",
            ]
        )
        == 0
    )
    picture = np.asarray(Image.open(out))
    assert picture.shape == (40, 48, 4)
    assert picture[20, 24, 3] == 255
    assert picture[0, 0, 3] == 0
    assert (
        cli.main(
            [
                "render",
                str(model),
                "--out",
                str(out),
                *SIZE,
                "--background",
                "#204060",
                "--overwrite",
            ]
        )
        == 0
    )
    np.testing.assert_allclose(np.asarray(Image.open(out))[0, 0, :3], (0x20, 0x40, 0x60), atol=2)


@needs_parts("render")
def test_a_turntable_has_its_frames_in_both_formats(model: Path, tmp_path: Path) -> None:
    from imageio_ffmpeg import count_frames_and_secs

    for name in ("turn.gif", "turn.mp4"):
        assert (
            cli.main(["render", str(model), "--out", str(tmp_path / name), *SIZE, "--frames", "5"])
            == 0
        )
    with Image.open(tmp_path / "turn.gif") as image:
        assert getattr(image, "n_frames", 1) == 5
        assert image.size == (48, 40)
    assert count_frames_and_secs(str(tmp_path / "turn.mp4"))[0] == 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "seen.bmp"], "must end in one of"),
        (["--out", "nowhere/seen.png"], "does not exist; create it"),
        (["--out", "there.png"], "already there; pass --overwrite"),
        (["--out", "seen.png", "--size", "0", "5"], "--size is 1 to"),
        (["--out", "seen.png", "--background", "blurple"], "studio, none or a colour"),
        (["--out", "seen.gif", "--background", "none"], "needs a PNG"),
        (["--out", "seen.png", "--iso", "-1000"], "has no surface where the distance is -1000"),
        (["--out", "seen.png", "--iso", "nan"], "--iso must be finite"),
        (["--out", "seen.png", "--samples", "0"], "samples"),
        (["--out", "seen.gif", "--frames", "0"], "frame"),
        (["--out", "seen.png", "--shading", "frequency"], "frequenc"),
        (["--out", "seen.png", "--eye", "0", "0", "0", "--target", "0", "0", "0"], "eye"),
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
    Path("there.png").write_bytes(b"mine")
    assert cli.main(["render", str(model), *options]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]


def test_what_is_no_shape_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    waves = fit_cosines(np.random.default_rng(0).random((16, 16, 3)).astype(np.float32), 300)
    save(
        tmp_path / "image.safetensors",
        Fit(waves, Frame((0.0, 0.0), 1.0), Box((-1.0, -1.0), (1.0, 1.0)), lipschitz=math.inf),
    )
    assert (
        cli.main(
            ["render", str(tmp_path / "image.safetensors"), "--out", str(tmp_path / "seen.png")]
        )
        == 1
    )
    assert "model of an image" in capsys.readouterr().err
    colours = SirenConfig(width=8, depth=1).build(3, 4)
    box = Box((-1.0,) * 3, (1.0,) * 3)
    save(tmp_path / "colours.safetensors", Fit(colours, Frame.identity(), box, 1.0))
    words = ["render", str(tmp_path / "colours.safetensors"), "--out", str(tmp_path / "seen.png")]
    assert cli.main(words) == 1
    assert "is a model with 3 coordinates and 4 values; this needs" in capsys.readouterr().err
    assert (
        cli.main(
            ["render", str(tmp_path / "none.safetensors"), "--out", str(tmp_path / "seen.png")]
        )
        == 1
    )
    assert "none.safetensors" in capsys.readouterr().err
