"""The apps, run on small inputs as a user would."""

import importlib.util
import json
from pathlib import Path

from nstr3d.io import load_mesh

ROOT = Path(__file__).parents[1]


def app(name: str):
    """The module of ``apps/name.py``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "apps" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fit_mesh_fits_an_asset(tmp_path, capsys):
    shape = ROOT / "assets" / "torus.obj"
    options = ["--preset", "fast", "--steps", "150", "--params", "10000", "--resolution", "40", "--out", str(tmp_path / "out")]
    assert app("fit_mesh").main([str(shape), *options]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["input"]["path"] == str(shape)
    assert report["mesh"]["watertight"]
    assert len(load_mesh(tmp_path / "out" / "mesh.ply").faces) == report["mesh"]["faces"]
    assert "F-score" in capsys.readouterr().out


def test_fit_mesh_refuses_a_missing_file(tmp_path, capsys):
    assert app("fit_mesh").main([str(tmp_path / "none.obj"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.obj'} does not exist\n"
    assert list(tmp_path.iterdir()) == []


def test_fit_image_and_fit_audio_fit_the_assets(tmp_path, capsys):
    for name, asset, result in (("fit_image", "texture.png", "image.png"), ("fit_audio", "chirp.wav", "sound.wav")):
        assert app(name).main([str(ROOT / "assets" / asset), "--out", str(tmp_path / name)]) == 0
        assert json.loads((tmp_path / name / "report.json").read_text())["accuracy"]["psnr"] > 50
        assert (tmp_path / name / result).exists()
        assert "PSNR" in capsys.readouterr().out
        assert app(name).main([str(ROOT / "assets" / "torus.obj"), "--out", str(tmp_path / "none")]) == 1
        assert "neither a picture nor a sound" in capsys.readouterr().err


RACE = ["--budgets", "6000", "--seeds", "0", "--steps", "4", "--fields", "siren", "ngp"]


def test_benchmark_races_writes_and_goes_on(tmp_path, capsys):
    options = [str(ROOT / "assets" / "torus.obj"), *RACE, "--out", str(tmp_path)]
    benchmark = app("benchmark")
    assert benchmark.main(options[:-3] + options[-2:]) == 0  # siren alone
    first = (tmp_path / "benchmark.csv").read_text().splitlines()
    assert benchmark.main(options) == 0
    rows = (tmp_path / "benchmark.csv").read_text().splitlines()
    assert rows[: len(first)] == first  # finished races are not run again
    assert len(rows) == 2 * len(first) - 1
    assert "| siren |" in capsys.readouterr().out
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".md", ".png", ".svg"}


def test_benchmark_refuses_what_it_cannot_race(tmp_path, capsys):
    benchmark = app("benchmark")
    assert benchmark.main([str(tmp_path), *RACE, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: There is no mesh in")
    assert benchmark.main(["--fields", "nerf", "--out", str(tmp_path / "out")]) == 1
    assert "Unknown fields: nerf" in capsys.readouterr().err
    assert benchmark.main(["--tune", "grid", "--out", str(tmp_path / "out")]) == 1
    assert "nothing to tune" in capsys.readouterr().err


def test_figures_put_the_comparison_between_its_marks(tmp_path, monkeypatch):
    figures = app("figures")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    marks = ["<!-- comparison: made by apps/figures.py -->", "<!-- end of comparison -->"]
    (tmp_path / "README.md").write_text("before\n" + "\nold\n".join(marks) + "\nafter\n")
    figures.rewrite("comparison", "| new |")
    assert (tmp_path / "README.md").read_text() == "before\n" + "\n| new |\n".join(marks) + "\nafter\n"
