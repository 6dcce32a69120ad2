"""The script that measures a GPU: its refusal without one, and a dry run of all its parts."""

import json

import pytest
import torch

PARTS = ("trials", "rates", "fits", "extraction", "tracing", "together", "picture")


@pytest.fixture
def script(app, monkeypatch):
    """apps/bench/gpu.py on a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return app("bench.gpu")


def test_without_a_gpu_it_says_so_and_writes_nothing(script, tmp_path, capsys) -> None:
    assert script.main(["--out", str(tmp_path / "out")]) == 1
    assert "torch finds no GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_measures_every_part(script, tmp_path, capsys) -> None:
    mesh = script.ROOT / "assets" / "torus.obj"
    assert script.main(["--dry", "--mesh", str(mesh), "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "gpu.json").read_text())
    for name in PARTS:
        assert not isinstance(figures[name], str), figures[name]
    assert figures["trials"][0]["fault"] is None
    assert figures["picture"]["p99"] == 0
    assert all(row["training"] > 0 and row["roofline"] > 0 for row in figures["rates"])
    text = (tmp_path / "gpu.md").read_text()
    assert "**Not measured**: a dry run" in text
    assert "Not measured: this device has no captured steps." in text
    assert text.strip() in capsys.readouterr().out


def test_a_part_that_fails_or_is_late_is_named_and_the_others_are_kept(
    script, tmp_path, monkeypatch
) -> None:
    def broken(self):
        raise RuntimeError("no kernel\nimage")

    for name in PARTS:
        monkeypatch.setattr(script.Measurement, name, lambda self: [{"a": 1.0}])
    monkeypatch.setattr(script.Measurement, "rates", broken)
    options = script.Options(script.ROOT / "assets" / "torus.obj", tmp_path, dry=True)
    figures = script.measure(options)
    assert figures["rates"] == "failed: RuntimeError: no kernel image"
    assert figures["picture"] == [{"a": 1.0}]
    assert "Not measured: failed: RuntimeError: no kernel image." in script.page(figures)
    monkeypatch.setattr(script, "ALLOWED", -1.0)
    assert script.measure(options)["picture"] == "left out: the time was over"
