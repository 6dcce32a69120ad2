"""The apps, run on small inputs as a user runs them."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import sphere
from quick import WORDS

from apps.bench import core_cases
from nstr3d.autodiff import gradient
from nstr3d.batch.options import ShapeOptions
from nstr3d.bench.compare import Row, read_rows
from nstr3d.fields.level import LevelConfig
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.surface import area
from nstr3d.io import Sound, load_image, load_mesh, save_image, save_sound
from nstr3d.jobs.options import Extraction, Training
from nstr3d.render.camera import Camera
from nstr3d.render.projection import project

ROOT = Path(__file__).parents[1]


def test_fit_mesh_fits_an_asset(app, tmp_path, capsys):
    shape = ROOT / "assets" / "torus.obj"
    options = [
        *WORDS,
        "--steps",
        "60",
        "--params",
        "10000",
        "--resolution",
        "40",
        "--out",
        str(tmp_path / "out"),
    ]
    assert app("fit_mesh").main([str(shape), *options]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["input"]["path"] == str(shape)
    assert report["mesh"]["watertight"]
    assert len(load_mesh(tmp_path / "out" / "mesh.ply").faces) == report["mesh"]["faces"]
    assert "F-score" in capsys.readouterr().out


def test_fit_mesh_refuses_a_missing_file(app, tmp_path, capsys):
    assert app("fit_mesh").main([str(tmp_path / "none.obj"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.obj'} does not exist\n"
    assert list(tmp_path.iterdir()) == []


def test_fit_image_and_fit_audio_fit_the_assets(app, tmp_path, capsys):
    for name, asset, result in (
        ("fit_image", "texture.png", "image.png"),
        ("fit_audio", "chirp.wav", "sound.wav"),
    ):
        assert app(name).main([str(ROOT / "assets" / asset), "--out", str(tmp_path / name)]) == 0
        assert json.loads((tmp_path / name / "report.json").read_text())["accuracy"]["psnr"] > 50
        assert (tmp_path / name / result).exists()
        assert "PSNR" in capsys.readouterr().out
        assert (
            app(name).main([str(ROOT / "assets" / "torus.obj"), "--out", str(tmp_path / "none")])
            == 1
        )
        assert "neither a picture nor a sound" in capsys.readouterr().err


SMALL = ["--pool", "20000", "--tests", "2000"]
RACE = [
    "--budgets",
    "6000",
    "--seeds",
    "0",
    "--steps",
    "4",
    *SMALL,
    "--resolution",
    "32",
    "--fields",
    "siren",
    "ngp",
]


def test_benchmark_races_writes_and_goes_on(app, tmp_path, capsys):
    options = [str(ROOT / "assets" / "torus.obj"), *RACE, "--out", str(tmp_path)]
    benchmark = app("benchmark")
    assert benchmark.main(options[:-3] + options[-2:]) == 0  # only siren
    first = (tmp_path / "benchmark.csv").read_text().splitlines()
    assert benchmark.main(options) == 0
    rows = (tmp_path / "benchmark.csv").read_text().splitlines()
    assert rows[: len(first)] == first  # finished races are not run again
    assert len(rows) == 2 * len(first) - 1
    assert "| siren |" in capsys.readouterr().out
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".md", ".png", ".svg"}


def test_benchmark_races_images_and_sounds_with_the_closed_form(app, tmp_path, capsys):
    generator = np.random.default_rng(0)
    save_image(tmp_path / "a.png", generator.random((48, 60, 3)))
    save_sound(
        tmp_path / "b.wav",
        Sound(generator.uniform(-0.5, 0.5, (16_000, 1)).astype(np.float32), 8000),
    )
    benchmark = app("benchmark")
    options = ["--budgets", "8000", "--seeds", "0", "--steps", "2", "--out", str(tmp_path / "out")]
    assert benchmark.main([str(tmp_path / "a.png"), *options, "--fields", "nerf"]) == 1
    assert "Unknown fields: nerf" in capsys.readouterr().err
    for path, name in ((tmp_path / "a.png", "images"), (tmp_path / "b.wav", "sounds")):
        assert benchmark.main([str(path), *options]) == 0
        rows = read_rows(tmp_path / "out" / f"{name}.csv")
        best = max((row for row in rows if row.done == 1), key=lambda row: row.measures["snr"])
        assert best.field == "nstr, closed form"
        assert best.parameters <= 8000
    assert "| finer," in capsys.readouterr().out


def test_benchmark_refuses_what_it_cannot_race(app, tmp_path, capsys):
    benchmark = app("benchmark")
    assert benchmark.main([str(tmp_path), *RACE, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: There is no mesh, image or sound in")
    assert benchmark.main(["--fields", "nerf", "--out", str(tmp_path / "out")]) == 1
    assert "Unknown fields: nerf" in capsys.readouterr().err
    assert benchmark.main(["--tune", "grid", "--out", str(tmp_path / "out")]) == 1
    assert "nothing to tune" in capsys.readouterr().err


def test_benchmark_measures_speed(app, tmp_path, capsys):
    options = [
        "--params",
        "8000",
        "--pool",
        "9000",
        "--steps",
        "300",
        "--threads",
        "1",
        "--resolutions",
        "24",
        "--size",
        "16",
    ]
    speed = [
        "speed",
        str(ROOT / "assets" / "torus.obj"),
        *options,
        "--dense",
        "24",
        "--memory",
        "48",
    ]
    speed += ["--turns", "1", "--turn", "0", "--no-compile", "--out", str(tmp_path)]
    assert app("benchmark").main(speed) == 0
    out = capsys.readouterr().out
    for word in ("| nstr |", "| ngp, plain torch |", "24^3 in", "| 48^3 |", "Tracing 16 x 16"):
        assert word in out
    assert {path.name for path in tmp_path.iterdir()} == {"speed.json", "speed.md", "roofline.md"}
    speeds = json.loads((tmp_path / "speed.json").read_text())
    assert {rate["name"] for rate in speeds["rates"]} >= {"siren", "fourier", "grid"}
    assert "of the roofline" in (tmp_path / "roofline.md").read_text()


def test_figures_put_the_comparison_between_its_marks(app, tmp_path, monkeypatch):
    figures = app("figures")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    marks = ["<!-- comparison: made by apps/figures.py -->", "<!-- end of comparison -->"]
    page = tmp_path / figures.PAGES["comparison"]
    page.parent.mkdir()
    page.write_text("before\n" + "\nold\n".join(marks) + "\nafter\n")
    figures.rewrite("comparison", "| new |")
    assert page.read_text() == "before\n" + "\n| new |\n".join(marks) + "\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="marks of comparison 0 times"):
        figures.rewrite("comparison", "| new |")
    assert page.read_text() == "no marks\n"


def test_the_numbers_of_the_readme_are_those_of_the_results(app):
    figures = app("figures")
    assert figures.numbers() in (ROOT / "README.md").read_text()


def test_ablation_runs_every_prior(app, tmp_path, capsys):
    options = [
        "--data",
        "noisy",
        "--seeds",
        "0",
        "--steps",
        "2",
        "--budget",
        "6000",
        "--weights",
        "1",
        *SMALL,
    ]
    options += ["--out", str(tmp_path)]
    shape = str(ROOT / "assets" / "torus.obj")
    ablation = app("bench.ablation")
    assert ablation.main([shape, *options]) == 0
    out = capsys.readouterr().out
    for word in (
        "Noisy",
        "| off |",
        "| F(x, S), weight 1 |",
        "| F = 0, weight 1 |",
        "| transport interpolation |",
    ):
        assert word in out
    rows = (tmp_path / "ablation.csv").read_text()
    assert ablation.main([shape, *options]) == 0
    assert (tmp_path / "ablation.csv").read_text() == rows


def test_ablation_judges_the_pixels_left_out(app, tmp_path, capsys):
    options = [
        "--seeds",
        "0",
        "--steps",
        "2",
        "--budget",
        "6000",
        "--weights",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert app("bench.ablation").main([str(ROOT / "assets" / "texture.png"), *options]) == 0
    out = capsys.readouterr().out
    assert "Masked data." in out
    assert "| F(S), weight 0.001 |" in out


def test_transport_interpolation_is_once_differentiable(app):
    """The gradient of C1 interpolation is continuous across a cell's face. At a node, the gradient
    is that of the node's law, or zero without ``slopes``."""
    ablation = app("bench.ablation")
    levels = (LevelConfig(4, plain=1, sparse=False),)
    points = torch.tensor([[0.5, 0.1, 0.2]], dtype=torch.float32).repeat(2, 1)
    points[0, 0] -= 1e-3
    points[1, 0] += 1e-3
    for slopes in (False, True):
        field = ablation.HermiteConfig(levels, slopes=slopes).build(
            3, 1, generator=torch.Generator().manual_seed(0)
        )
        left, right = gradient(field, points)
        assert torch.allclose(left, right, atol=0.05 * float(left.norm()))
    node = torch.tensor([[0.5, 0.0, 0.5]])
    flat = ablation.HermiteConfig(levels, slopes=False).build(
        3, 1, generator=torch.Generator().manual_seed(0)
    )
    assert float(gradient(flat, node).norm()) < 1e-5
    assert float(gradient(field, node).norm()) > 1e-3


def test_stress_signals_are_what_they_say(app):
    stress = app("bench.stress")
    chirp, jump = stress.chirp().values[:, 0], stress.jump().values[:, 0]
    rising = np.flatnonzero((chirp[:-1] < 0) & (chirp[1:] >= 0))
    assert len(rising) == pytest.approx(220, abs=1)  # the mean of 40 and 400 cycles
    half = len(jump) // 2
    crossings = [
        int(((part[:-1] < 0) & (part[1:] >= 0)).sum()) for part in (jump[:half], jump[half:])
    ]
    assert crossings == pytest.approx([20, 200], abs=1)
    plate = stress.zone_plate().values[..., 0]
    assert np.allclose(plate, plate.T)
    spiral = stress.spiral()
    assert spiral.near.faces.shape == (2 * 1200 * 160, 3)
    assert spiral.volume_points[1].min() < 0 < spiral.volume_points[1].max()


def test_stress_fields_have_equal_parameters(app):
    stress = app("bench.stress")
    for track in (stress.chirp(), stress.checker()):
        budget = stress.BUDGETS[track.in_dim]
        for contender in stress.fields(track.in_dim):
            field = contender.config(budget, track.near).build(
                track.in_dim, 1, track.near, torch.Generator().manual_seed(0)
            )
            assert 0.8 * budget <= field.parameter_count <= budget, contender.name


def test_waves_needed_are_read_off_the_rows(app):
    stress = app("bench.stress")
    row = Row(
        "", "cpu", 2, "chirp", "real, K = 2", 1600, "5 s", 0, 1.0, 1, 1, 1, 5.0, {"snr": 30.0}
    )
    rows = [
        row,
        replace(row, field="real, K = 16", measures={"snr": 55.0}),
        replace(row, field="real, K = 8", measures={"snr": 41.0}),
    ]
    assert stress._needed(rows, "real") == "a real spectrum reaches 40 dB with 8 waves"
    assert "with none of 2, 8, 16 waves" in stress._needed(rows, "real", 60.0)


def test_core_races_the_waves_and_goes_on(app, tmp_path, capsys, monkeypatch):
    core = app("bench.core")
    monkeypatch.setattr(core, "RELIEFS", {"ball": lambda: sphere(3)})
    options = [
        "--seeds",
        "0",
        "--steps",
        "2",
        "--budget",
        "15000",
        "--relief-budget",
        "15000",
        "--reliefs",
        "ball",
        "--holes",
    ]
    options = [
        str(ROOT / "assets" / "torus.obj"),
        *options,
        "--starts",
        *SMALL,
        "--out",
        str(tmp_path),
    ]
    assert core.main(options) == 0
    text = capsys.readouterr().out
    for word in (
        "drifting relief",
        "## Meshes",
        "| nstr |",
        "| nstr, random waves |",
        "| nstr without waves |",
        "| ngp, batches of 1,024 |",
    ):
        assert word in text
    rows = (tmp_path / "core.csv").read_text()
    assert core.main(options) == 0
    assert (tmp_path / "core.csv").read_text() == rows


def test_core_hides_parts_and_bends_shapes(app, tmp_path, capsys, monkeypatch):
    core = app("bench.core")
    monkeypatch.setattr(core, "RELIEFS", {"ball": lambda: sphere(3)})
    small = {
        name: replace(config, waves=2, cells=6, rounds=1, iterations=2)
        for name, config in core_cases.WAVES.items()
    }
    monkeypatch.setattr(core_cases, "WAVES", small)
    arguments = [
        "--seeds",
        "0",
        "--budget",
        "9000",
        "--steps",
        "2",
        "--hole-steps",
        "2",
        "--warm-steps",
        "1",
        "--cold-steps",
        "2",
    ]
    arguments += ["--pool", "20000", "--reliefs", "--holes", "ball", "--out"]
    options = [
        *arguments,
        str(tmp_path),
        "--starts",
        str(ROOT / "assets" / "torus.obj"),
        "--fields",
        "nobody",
    ]
    assert core.main(options) == 0
    text = capsys.readouterr().out
    for word in (
        "## Relief with holes",
        "| surface waves, law |",
        "## Nearby shapes",
        "| from nothing, 2 steps |",
    ):
        assert word in text
    rows = (tmp_path / "core.csv").read_text()
    assert core.main(options) == 0
    assert (tmp_path / "core.csv").read_text() == rows


def test_fit_dataset_fits_a_list_and_goes_on(app, tmp_path, capsys):
    shapes, out = tmp_path / "shapes.txt", tmp_path / "out"
    shapes.write_text(f"{ROOT / 'assets' / 'sphere.obj'}\n{tmp_path / 'none.obj'}\n")
    options = shlex.split(
        "--cells 4 --steps 120 --pool 9000 --samples 1000 --resolution 16 --picture 0 --device cpu"
    )
    fit_dataset = app("fit_dataset")
    assert fit_dataset.main([str(shapes), *options, "--out", str(out)]) == 1
    assert "2 shapes: 0 up to date, 1 fitted, 1 failed" in capsys.readouterr().out
    (model,) = out.rglob("model.safetensors")
    written = model.stat().st_mtime_ns
    assert fit_dataset.main([str(shapes), *options, "--out", str(out)]) == 1
    assert "1 up to date, 0 fitted, 0 failed, 1 failed in an earlier run" in capsys.readouterr().out
    assert model.stat().st_mtime_ns == written


def test_fit_dataset_refuses_shapes_that_are_not_there(app, tmp_path, capsys):
    assert app("fit_dataset").main([str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "none" in capsys.readouterr().err


def test_the_costs_of_data_sets_make_a_page(app):
    costs = app("bench.batch")
    workers = {
        "workers 1": {"shapes": 80.0, "wall": 90.0, "processor": 100.0},
        "workers 2": {"wall": 50.0},
    }
    scaling = {
        "shapes": 8,
        "bare": 76.0,
        "bare_processor": 95.0,
        "peak_memory": 1.2e9,
        "bytes": 4e5,
        "objects": 4.0,
        **workers,
    }
    catalogue = {"rows": 1000, "found": 10, "seconds": 0.3, "bytes": 600_000}
    page = costs.page({"machine": "2 processors", "scaling": scaling, "catalogue": catalogue})
    assert "50.0 s: 1.80 times as fast" in page
    assert "+5.3%" in page
    assert "| 10.0 s | 2,778 hours |" in page  # 80 s for 8 shapes
    assert "| 600 bytes | 0.60 GB |" in page


def test_bare_fits_take_the_options_of_a_data_set(app, tmp_path):
    runs = app("bench.batch_runs")
    options = ShapeOptions(
        Training("fast", params=8_000, steps=5, pool=8192, device="cpu"),
        Extraction(resolution=16, samples=500, picture=0),
    )
    shapes = tmp_path / "shapes"
    runs.write_shapes(shapes, 1)
    program = runs.bare_program(shapes, tmp_path / "bare", options)
    seconds = subprocess.check_output(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    (one,) = json.loads(seconds)
    assert one > 0


def test_smoothness_is_measured_against_analytic_truth(app, tmp_path, capsys):
    smooth = app("bench.smooth")
    words = ["--shapes", "ellipsoid", "--fields", "nstr", "--steps", "30", "--seeds", "0"]
    small = ["--params", "20000", "--pool", "20000", "--tests", "2000", "--out", str(tmp_path)]
    assert smooth.main([*words, *small]) == 0
    (row,) = read_rows(tmp_path / "smoothness.csv")
    assert row.measures["true_normals_mean"] < 5
    assert row.measures["kink_p99"] < 1
    assert 0 < row.measures["curvature_mean"] < row.measures["curvature_p99"]
    assert "| ellipsoid | nstr | " in (tmp_path / "smoothness.md").read_text()
    before = (tmp_path / "smoothness.csv").read_bytes()
    assert smooth.main([*words, *small]) == 0  # nothing is run twice
    assert (tmp_path / "smoothness.csv").read_bytes() == before


def test_files_of_equal_bytes_are_compared_with_draco(app, tmp_path):
    torus, small = str(ROOT / "assets" / "torus.obj"), ["--samples", "500", "--resolution", "32"]
    out = ["--out", str(tmp_path)]
    assert app("bench.bytes").main([torus, "--sizes", "3000", *small, *out]) == 0
    own, other = (tmp_path / "bytes.md").read_text().splitlines()[-2:]
    assert own.startswith("| torus | ")
    assert "| nstr3d | " in own
    assert "| Draco, " in other
    sizes = [int(row.split("|")[4].replace(",", "")) for row in (own, other)]
    means = [float(row.split("|")[5]) for row in (own, other)]
    assert sizes[1] <= sizes[0] <= 3000
    assert float(other.split("|")[6]) == pytest.approx(means[0] / means[1], abs=0.006)


def test_the_look_of_a_fit_is_pictured_beside_its_input(app, tmp_path, monkeypatch):
    look = app("bench.look")
    shapes = {"torus": look.smooth_shapes()["torus"]}
    monkeypatch.setattr(look, "smooth_shapes", lambda: shapes)
    words = ["--training.steps", "60", "--training.pool", "20000", "--training.params", "10000"]
    torus, out = str(ROOT / "assets" / "torus.obj"), tmp_path / "look"
    assert look.main([torus, *words, "--size", "64", "--out", str(out)]) == 0
    assert load_image(out / "look-torus.jpg").shape == (3 * 64 + 16, 2 * 64 + 8, 3)
    page = (out / "look.md").read_text()
    assert "![torus: input and fit](look-torus.jpg)" in page
    assert "![analytic-torus: input and fit](look-analytic-torus.jpg)" in page
    for name in ("torus", "bunny", "analytic-torus"):
        twice = [str(tmp_path / folder / f"{name}.obj") for folder in "ab"]
        assert look.main([*twice[: 2 if name == "torus" else 1], "--out", str(tmp_path / "x")]) == 1
    assert not (tmp_path / "x").exists()


def test_the_look_frames_the_mesh_whatever_the_bounds_of_its_distance(app):
    look = app("bench.look")
    torus = load_mesh(ROOT / "assets" / "torus.obj")
    tight = look.MeshDistance(torus).sdf()
    loose = look.replace(tight, bounds=tight.bounds.scaled(2.0))
    tight, loose = (look.picture((each, each), torus, 64) for each in (tight, loose))
    assert abs(tight - loose)[:64].mean() < 0.01  # of the whole view


def test_fits_are_measured_by_the_protocols_of_papers(app, tmp_path):
    papers = app("bench.papers")
    files = [str(ROOT / "assets" / name) for name in ("torus.obj", "texture.png")]
    words = ["--steps", "5", "--pool", "8192", "--points", "5000", "--samples", "2000", "2000"]
    words += ["--resolutions", "24", "24", "--voxel", "0.1", "--out", str(tmp_path)]
    assert papers.main([*files, *words]) == 0
    rows = json.loads((tmp_path / "papers.json").read_text())
    assert [row["protocol"] for row in rows] == ["neurbf"] * 3 + ["mplicits"] * 2 + ["kodak"] * 4
    assert all(row["parameters"] <= row["budget"] for row in rows)
    page = (tmp_path / "papers.md").read_text()
    assert "| torus | 124,000 |" in page
    assert "| texture | 205,000 |" in page
    assert papers.main([*files, *words]) == 0  # nothing is measured twice
    assert json.loads((tmp_path / "papers.json").read_text()) == rows


def test_a_magnified_view_shows_what_the_whole_view_shows_there(app):
    look = app("bench.look")
    whole = Camera((0.0, 0.3, 3.0), (0.1, 0.0, 0.0), fov=40.0, width=64, height=64)
    part = look._zoom(whole, (0.25, 0.75))
    seen, _ = project(whole, np.asarray(part.target)[None])
    np.testing.assert_allclose(seen[0], (48.0, 16.0), atol=1e-9)  # column and row
    assert np.tan(np.radians(part.fov) / 2) * 4 == pytest.approx(np.tan(np.radians(20.0)))


def test_distances_are_raced_against_libigl(app, tmp_path, capsys):
    race = app("bench.distance")
    torus = str(ROOT / "assets" / "torus.obj")
    small = shlex.split("--faces 5001 --clouds 400 --points 300 --threads 1 --turns 1")
    assert race.main(["--mesh", torus, *small, "--out", str(tmp_path)]) == 0
    page = (tmp_path / "distance.md").read_text()
    assert page in capsys.readouterr().out
    table = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    triangles = [cells for cells in table if cells[0].endswith((" faces, near", " faces, far"))]
    windings = [cells for cells in table if cells[0].startswith("400 points")]
    assert len(triangles) == len(windings) == 4
    assert all(float(cells[-1]) < 1e-12 for cells in triangles)
    assert all(float(cells[-2].split(", ")[0]) < 0.05 for cells in windings)


def test_a_subdivided_mesh_is_the_same_closed_surface(app):
    mesh = load_mesh(ROOT / "assets" / "torus.obj")
    fine = app("bench.distance").subdivide(mesh, len(mesh.faces) + 101)
    assert len(fine.faces) == len(mesh.faces) + 102
    assert repair(fine)[1].watertight
    assert area(fine) == pytest.approx(area(mesh))
