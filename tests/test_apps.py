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
