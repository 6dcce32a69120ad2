"""``nstr3d fit`` takes the options of the fitted file's kind, wherever the file name stands."""

from itertools import pairwise
from pathlib import Path

import pytest

from nstr3d.cli import command as cli
from nstr3d.cli import fit
from nstr3d.cli.fit import FitMesh, FitSignal
from nstr3d.cli.looks import Render
from nstr3d.cli.words import _whole, names_signal, parse


@pytest.mark.parametrize(
    ("words", "signal"),
    [
        ("photo.png", True),
        ("--overwrite photo.png", True),
        ("photo.png --overwrite", True),
        ("--mask m.png photo.png", True),
        ("photo.png --mask m.png --scale 2", True),
        ("--out a.obj tone.WAV", True),
        ("--out=a.obj --overwrite tone.flac", True),
        ("mesh.obj", False),
        ("photo.png.obj", False),
        ("--start x.safetensors mesh.obj", False),
        ("--mask m.png mesh.obj", False),
        ("--out photo.png mesh.obj", False),
        ("--out=photo.png --overwrite mesh.obj", False),
        ("--view mesh.obj --resume", False),
        ("--bogus photo.png", True),
        ("--seed x photo.png", True),
        ("photo.png --out", True),
        ("--help", False),
        ("", False),
        ("--help photo.png", True),
    ],
)
def test_the_kind_is_that_of_the_file_and_not_of_an_options_value(words, signal):
    assert names_signal(words.split(), FitMesh, FitSignal) is signal


@pytest.mark.parametrize(
    ("words", "shown", "other"),
    [
        ("--help", "nstr3d fit photo.png --help", "--bpp"),
        ("--help photo.png", "--bpp", "--resolution"),
        ("photo.png -h", "--bpp", "--resolution"),
        ("mesh.obj --help", "--resolution", "--bpp"),
    ],
)
def test_help_is_that_of_the_kind(capsys, words, shown, other):
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", *words.split()])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert shown in said
    assert other not in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("photo.png --resolution 64", "--resolution"),
        ("photo.png --view", "--view"),
        ("mesh.obj --mask m.png", "--mask"),
        ("mesh.obj --bpp 3", "--bpp"),
        ("photo.png --bogus", "--bogus"),
    ],
)
def test_an_option_of_another_kind_is_unknown(capsys, words, named):
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", *words.split()])
    assert stop.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--overwrite {}", "{} --overwrite", "--seed 1 {} --overwrite"])
def test_a_missing_picture_is_missed_as_a_picture(tmp_path, capsys, words):
    picture = tmp_path / "photo.png"
    assert cli.main(["fit", *words.format(picture).split(), "--out", str(tmp_path / "out")]) == 1
    assert "photo.png does not exist" in capsys.readouterr().err


def test_one_runs_as_a_signal_and_the_other_as_a_mesh(monkeypatch):
    asked = []
    monkeypatch.setattr(fit, "fit_signal", lambda options: asked.append(("signal", options)))
    monkeypatch.setattr(fit, "fit_mesh", lambda options: asked.append(("mesh", options)))
    assert cli.main(["fit", "--overwrite", "photo.png"]) == 0
    assert cli.main(["fit", "--overwrite", "photo.png.obj"]) == 0
    assert [kind for kind, _ in asked] == ["signal", "mesh"]


@pytest.mark.parametrize(
    ("word", "number"), [("1e5", 100_000), ("12", 12), ("2.0", 2), ("1e12", None), ("-1", None)]
)
def test_whole_numbers_may_be_written_with_an_exponent(word, number, capsys):
    """What is out of range gets the sentence of the option."""
    if number is not None:
        assert _whole(word) == number
        return
    assert cli.main(["fit", "none.obj", "--params", word]) == 1
    assert capsys.readouterr().err.startswith("error: --params ")


@pytest.mark.parametrize("word", ["1.5", "nan", "inf", "many"])
def test_other_words_are_no_whole_numbers(word):
    with pytest.raises(ValueError, match=r"whole number|could not convert"):
        _whole(word)


@pytest.mark.parametrize("name", [name for name, each in cli.COMMANDS.items() if each.options])
def test_help_lists_an_option_once_and_without_the_word_for_nothing(capsys, name):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    told = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--" in told
    assert "{None}" not in told
    assert "--no-" not in told


@pytest.mark.parametrize("name", [name for name, each in cli.COMMANDS.items() if each.options])
def test_help_breaks_lines_at_the_width_only_and_names_no_field(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "2000")
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    _, _, told = capsys.readouterr().out.partition("-h, --help")
    for box in told.split("╰")[:-1]:
        assert "job" not in box.partition("╮")[0]
        rows = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
        assert not [b for a, b in pairwise(rows) if not a.startswith("-") and not b.startswith("-")]


def test_the_place_of_results_has_a_short_form(capsys):
    assert parse(Render, "render", ["m.nstq", "-o", "a.png"]).out == Path("a.png")
    assert names_signal(["mesh.obj", "-o", "a.png"], FitMesh, FitSignal) is False
    assert cli.main(["fit", "none.obj", "-o", ""]) == 1
    assert "The value after -o is empty" in capsys.readouterr().err


def test_an_option_that_is_left_out_is_none_and_refuses_the_word(capsys):
    options = parse(Render, "render", ["m.nstq", "--out", "a.png", "--eye", "1", "2", "3"])
    assert options.azimuth is None
    assert options.eye == (1.0, 2.0, 3.0)
    with pytest.raises(SystemExit):
        parse(Render, "render", ["m.nstq", "--out", "a.png", "--azimuth", "None"])
    assert "azimuth" in capsys.readouterr().err
