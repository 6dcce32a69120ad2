"""Jobs on images and sounds from input file to output files: results, scores and refusals."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import needs_parts

from nstr3d.cli import command as cli
from nstr3d.fields.closed.cosinefit import fit_cosines, local_frequency
from nstr3d.io import load_image, load_picture, load_sound
from nstr3d.jobs.signal import SignalJob, SignalStages, budget, run_signal, score_signal
from nstr3d.jobs.walk import walk
from nstr3d.model.checkpoint import load
from nstr3d.render.labels import type_size
from nstr3d.render.panels import GAP, comparison, opaque, shrunk
from nstr3d.signals.kinds import kind_of
from nstr3d.signals.signal import TRAINED, Signal
from nstr3d.types import Lattice

ASSETS = Path(__file__).parents[1] / "assets"
SOUND = needs_parts("audio")
KINDS = ["image", pytest.param("sound", marks=SOUND)]


def picture(*shape: int) -> np.ndarray:
    """A smooth picture in [0, 1]."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    planes = [0.5 + 0.4 * np.sin(0.13 * x + 0.2 * y * (1 + c / 3) + c) for c in range(shape[2])]
    return np.stack(planes, axis=-1)


def written(folder: Path, name: str, values: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    values = np.round(values * 255).astype(np.uint8)
    Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(folder / name)
    return folder / name


def tone(
    folder: Path, name: str = "tone.wav", seconds: float = 0.5, rate: int = 8000, **options
) -> Path:
    import soundfile

    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(folder / name, 0.5 * np.sin(2 * math.pi * 440 * time), rate, **options)
    return folder / name


@pytest.mark.parametrize("budgeted", [{"bytes": 900}, {"params": 700}, {"bpp": 12.0}])
def test_provenance_names_the_budget_that_the_fit_used(tmp_path: Path, budgeted: dict) -> None:
    path = written(tmp_path, "in.png", picture(24, 20, 1))
    stages = SignalStages(SignalJob(path, tmp_path / "out", **budgeted), None, None)
    walk(stages)
    used = {"params": 12 * 24 * 20 // 32} if "bpp" in budgeted else budgeted
    assert stages.result.provenance == {"input": "in.png", "field": "cosines", "seed": 0} | used


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_comes_back_with_model_comparison_and_report(
    tmp_path: Path, channels: int
) -> None:
    path = written(tmp_path, "in.png", picture(45, 31, channels))
    outcome = run_signal(SignalJob(path, tmp_path / "out", params=1200))
    assert {file.name for file in outcome.files} == set(os.listdir(tmp_path / "out"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["field"]["parameters"] <= 1200
    assert report["field"]["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    again, target = load_image(tmp_path / "out" / "image.png"), load_image(path)
    assert again.shape == target.shape
    assert report["accuracy"]["psnr"] > 35
    assert load_image(tmp_path / "out" / "comparison.png").shape[2] == 3
    model = load(tmp_path / "out" / "model.safetensors")
    np.testing.assert_allclose(again, model.field.raster().clip(0, 1), atol=0.5 / 255 + 1e-6)
    signal = Signal(model.field, Lattice((45, 31)))
    np.testing.assert_allclose(
        signal(np.array([[10.5, 20.5]]))[0], model.field.raster()[10, 20], atol=1e-5
    )


@SOUND
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_a_sound_keeps_length_rate_and_type(tmp_path: Path, subtype: str) -> None:
    path = tone(tmp_path, subtype=subtype)
    report = run_signal(SignalJob(path, tmp_path / "out", params=1500)).report
    again = load_sound(tmp_path / "out" / "sound.wav")
    assert (again.values.shape, again.rate, again.subtype) == ((4000, 1), 8000, subtype)
    assert report["accuracy"]["snr"] > (30 if subtype == "PCM_U8" else 60)
    assert report["accuracy"]["spectral_error"]["convergence"] < 0.02


@SOUND
def test_a_sound_of_many_channels_is_fitted_whole(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(
        tmp_path / "six.wav", np.random.default_rng(0).normal(size=(300, 6)) / 9, 48_000
    )
    run_signal(SignalJob(tmp_path / "six.wav", tmp_path / "out", params=10_000))
    np.testing.assert_allclose(
        load_sound(tmp_path / "out" / "sound.wav").values,
        load_sound(tmp_path / "six.wav").values,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (1, 50, 1), (50, 1, 3), (2, 2, 4), (13, 7, 3)], ids=str
)
def test_tiny_and_odd_pictures_come_back(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    path = written(tmp_path, "in.png", np.random.default_rng(0).random(shape))
    run_signal(SignalJob(path, tmp_path / "out", params=2000))
    np.testing.assert_array_equal(load_image(tmp_path / "out" / "image.png"), load_image(path))


@SOUND
def test_constant_pictures_and_silence_have_finite_reports(tmp_path: Path) -> None:
    import soundfile

    path = written(tmp_path, "flat.png", np.full((40, 40, 3), 0.2))
    report = run_signal(SignalJob(path, tmp_path / "out")).report
    psnr = report["accuracy"]["psnr"]  # None if every pixel is exact
    assert (math.inf if psnr is None else psnr) > 100
    soundfile.write(tmp_path / "silent.wav", np.zeros(2000), 8000)
    report = run_signal(SignalJob(tmp_path / "silent.wav", tmp_path / "quiet")).report
    assert report["accuracy"] == {"psnr": None, "peak": 1.0, "snr": None, "spectral_error": None}
    assert not load_sound(tmp_path / "quiet" / "sound.wav").values.any()


def test_sixteen_bits_stay_sixteen(tmp_path: Path) -> None:
    deep = np.round(picture(20, 30, 1)[..., 0] * 65535).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    run_signal(SignalJob(tmp_path / "deep.png", tmp_path / "out", params=3000))
    again = load_picture(tmp_path / "out" / "image.png")
    assert again.bits == 16
    assert np.abs(again.values[..., 0] * 65535 - deep).max() < 10


def test_scale_enlarges_pictures(tmp_path: Path) -> None:
    path = written(tmp_path, "in.png", picture(24, 30, 3))
    run_signal(SignalJob(path, tmp_path / "out", scale=3, params=1500))
    again = load_image(tmp_path / "out" / "image.png")
    assert again.shape == (72, 90, 3)
    np.testing.assert_allclose(again[1::3, 1::3], load_image(path), atol=0.03)


@SOUND
def test_scale_enlarges_sounds(tmp_path: Path) -> None:
    run_signal(SignalJob(tone(tmp_path), tmp_path / "out", scale=3, params=1500))
    sound = load_sound(tmp_path / "out" / "sound.wav")
    assert (len(sound.values), sound.rate) == (12_000, 24_000)


def test_hidden_samples_are_filled_and_scored_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "in.png", picture(64, 64, 1))
    hidden = np.random.default_rng(0).random((64, 64, 1)) < 0.6
    mask = written(tmp_path, "mask.png", np.where(hidden, 0.0, 1.0))
    report = run_signal(SignalJob(path, tmp_path / "out", mask=mask, params=4000)).report
    assert report["input"]["known"] == pytest.approx(1 - hidden.mean())
    assert report["accuracy"]["psnr_hidden"] > 30


def test_noise_is_removed(tmp_path: Path) -> None:
    path = written(tmp_path, "in.png", picture(96, 96, 3))
    report = run_signal(SignalJob(path, tmp_path / "out", noise=0.1, params=30_000)).report
    assert report["accuracy"]["psnr"] > 20 + 6  # the noise alone leaves 20 dB
    assert (
        run_signal(SignalJob(path, tmp_path / "again", noise=0.1, params=30_000)).report["accuracy"]
        == report["accuracy"]
    )


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("kind", KINDS)
def test_trained_fields_are_sized_and_learn(
    tmp_path: Path, name: str, kind: str, monkeypatch
) -> None:
    path = written(tmp_path, "in.png", picture(32, 40, 3)) if kind == "image" else tone(tmp_path)
    job = SignalJob(path, tmp_path / "out", field=name, params=9000, steps=8)
    report = run_signal(job).report
    assert 0.5 * 9000 < report["field"]["parameters"] <= 9000
    assert report["field"]["steps"] == 8
    assert (
        load(tmp_path / "out" / "model.safetensors").field.parameter_count
        == report["field"]["parameters"]
    )


def test_the_transport_loss_trains_a_network_and_needs_a_spectrum(tmp_path: Path) -> None:
    path = written(tmp_path, "in.png", picture(32, 40, 3))
    run_signal(SignalJob(path, tmp_path / "out", field="nstr", params=9000, steps=4, transport=0.1))
    field = load(tmp_path / "out" / "model.safetensors").field
    assert field.transport is not None
    for options in ({"field": "siren", "transport": 0.1}, {"field": "nstr", "transport": -1.0}):
        with pytest.raises(ValueError, match=r"^transport (needs|must)"):
            SignalJob(path, tmp_path / "out", **options)


def test_local_frequency_is_that_of_a_wave() -> None:
    time = np.arange(4000)
    for omega in (0.2, 1.0, 2.5):
        frequencies = local_frequency(np.sin(omega * time, dtype=np.float32)[:, None], 64)
        np.testing.assert_allclose(frequencies[2:-2], omega, atol=0.03)
    chirp = np.sin(0.2 * time + 0.0003 * time**2, dtype=np.float32)[:, None]
    frequencies = local_frequency(chirp, 64)[2:-2]
    np.testing.assert_allclose(
        frequencies, 0.2 + 0.0006 * 64 * (np.arange(len(frequencies)) + 2), atol=0.06
    )


@SOUND
def test_a_chirp_tracks() -> None:
    sound = load_sound(ASSETS / "chirp.wav").values
    field = fit_cosines(sound, 6000)
    assert score_signal(field.raster(), sound, None)["snr"] > 60
    frequencies, target = local_frequency(field.raster(), 256), local_frequency(sound, 256)
    np.testing.assert_allclose(frequencies, target, rtol=0.02, atol=0.01)


def test_points_outside_are_refused() -> None:
    field = fit_cosines(picture(8, 12, 1).astype(np.float32), 500)
    signal = Signal(field, Lattice((8, 12)))
    assert signal(np.array([[0.0, 0.0], [8.0, 12.0]])).shape == (2, 1)
    for point in ([-0.01, 1.0], [1.0, 12.01], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="1 of 1 points lie outside"):
            signal(np.array([point]))
    with pytest.raises(ValueError, match="shape"):
        signal(np.zeros((3, 1)))


def test_budgets_count_bits() -> None:
    job = SignalJob(Path("a.png"), Path("out"), bpp=4.0)
    assert budget(job, (80, 100, 3), "image") == 1000
    assert budget(SignalJob(Path("a.wav"), Path("out")), (80_000, 2), "sound") == 40_000
    assert budget(SignalJob(Path("a.wav"), Path("out"), params=7), (80_000, 2), "sound") == 7


def test_kinds_go_by_name() -> None:
    assert [
        kind_of(Path(name)) for name in ("a.PNG", "b.jpeg", "c.WAV", "d.flac", "e.obj", "f")
    ] == [
        "image",
        "image",
        "sound",
        "sound",
        "mesh",
        "mesh",
    ]


BAD = {
    "missing.png": (None, "does not exist"),
    "missing.wav": (None, "does not exist"),
    "empty.png": (b"", "is empty"),
    "junk.png": (np.random.default_rng(0).bytes(3000), "could not be read as a picture"),
    "junk.wav": (np.random.default_rng(0).bytes(3000), "could not be read as a sound"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=SOUND) if name.endswith(".wav") else name for name in BAD],
)
def test_a_bad_file_gives_one_sentence_and_leaves_nothing(
    tmp_path: Path, capsys, name: str
) -> None:
    data, part = BAD[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert cli.main(["fit", str(tmp_path / name), "--out", str(tmp_path / "a" / "b")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert part in message
    assert os.listdir(tmp_path) == ([name] if data is not None else [])


@pytest.mark.parametrize(
    "options",
    [
        ("--params", "0"),
        ("--bpp", "nan"),
        ("--scale", "0"),
        ("--scale", "64000"),
        ("--noise", "-1"),
        ("--seed", "-1"),
        ("--steps", "10"),
        ("--params", "12"),
        ("--mask", "none.png"),
    ],
)
def test_bad_options_give_one_sentence(tmp_path: Path, capsys, options: tuple[str, str]) -> None:
    path = written(tmp_path, "in.png", picture(300, 400, 3))
    assert cli.main(["fit", str(path), "--out", str(tmp_path / "out"), *options]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert os.listdir(tmp_path) == ["in.png"]


def test_masks_must_fit(tmp_path: Path) -> None:
    path, small = (
        written(tmp_path, "in.png", picture(20, 20, 3)),
        written(tmp_path, "mask.png", picture(10, 20, 1)),
    )
    with pytest.raises(ValueError, match="make them equal"):
        run_signal(SignalJob(path, tmp_path / "out", mask=small))
    dark = written(tmp_path, "dark.png", np.zeros((20, 20, 1)))
    with pytest.raises(ValueError, match="dark throughout"):
        run_signal(SignalJob(path, tmp_path / "out", mask=dark))


def test_a_budget_is_given_once_and_results_are_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of them"):
        SignalJob(Path("a.png"), Path("out"), params=1, bpp=1.0)
    path = written(tmp_path, "in.png", picture(20, 20, 3))
    run_signal(SignalJob(path, tmp_path / "out"))
    with pytest.raises(FileExistsError, match="already holds"):
        run_signal(SignalJob(path, tmp_path / "out"))
    run_signal(SignalJob(path, tmp_path / "out", overwrite=True))


@SOUND
def test_the_command_line_tells_kinds_apart_and_says_what_was_left_out(
    tmp_path: Path, capsys
) -> None:
    frames = [Image.fromarray(np.full((30, 20, 3), level, np.uint8)) for level in (10, 200)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert cli.main(["fit", "--out", str(tmp_path / "out"), str(tmp_path / "film.gif")]) == 0
    printed = capsys.readouterr()
    assert "first was taken" in printed.err
    assert "30 x 20 x 3" in printed.out
    assert cli.main(["fit", str(tone(tmp_path)), "--out", str(tmp_path / "sound")]) == 0
    assert "SNR" in capsys.readouterr().out


def test_a_large_picture_is_shrunk_in_strips_as_it_would_be_whole() -> None:
    # Shrunk in blocks of 3, so in strips of 48 rows.
    picture = np.random.default_rng(0).random((2100, 30, 4)).astype(np.float32)
    shown = comparison(picture, picture, np.ones((4, 2)))
    whole = shrunk(opaque(picture))
    title = round(1.9 * type_size(whole.shape[1]))
    view = shown[title : title + len(whole), : whole.shape[1]]
    np.testing.assert_allclose(view, whole, atol=1e-6)
    assert shown[2 * title + len(whole) + GAP :, : whole.shape[1]].max() == 0
