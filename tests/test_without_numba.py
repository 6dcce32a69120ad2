"""Without numba the main jobs run and give the same results, and the others are refused at once.

One process without numba runs all commands and computes `answers`. The tests compare its results
with this process, which has numba.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import sphere, torus
from quick import WORDS

from nstr3d.cli import command as cli
from nstr3d.fields.baselines.ngp import NgpConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.io import load_image, load_mesh, save_image, save_mesh
from nstr3d.jobs.results import MODEL, PICTURE
from nstr3d.jobs.walk import REPORT
from nstr3d.kernels.available import need_numba, numba_fault, numba_found
from nstr3d.model.checkpoint import load
from nstr3d.model.codec import compress, load_compressed, save_compressed
from nstr3d.render.camera import Camera
from nstr3d.render.traced import measure
from nstr3d.sdf import Sdf
from nstr3d.spectrum.gridfield import GridField
from nstr3d.surface.extract import extract
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import SdfObjective
from nstr3d.training.presets import FIELDS
from nstr3d.types import Box, Mesh, Samples

BLOCKED = """
import sys
sys.modules["numba"] = None
sys.path.insert(0, "tests")
import test_without_numba as one
one.work(one.Path(sys.argv[1]))
"""
ROOT = Path(__file__).resolve().parents[1]
WARNING = "warning: numba could not be imported"
SMALL = [*WORDS, "--steps", "30", "--params", "6000", "--resolution", "32"]
REFUSED = {
    "points": ["points", "cloud.xyz", "--out", "cloud"],
    "bytes": ["fit", "picture.png", "--bytes", "500", "--out", "picture"],
}
COMMANDS = {
    "fit": ["fit", "in.ply", "--out", "shape", *SMALL],
    "grid": ["fit", "in.ply", "--out", "grid", "--field", "grid", *SMALL, "--steps", "40"],
    "render": ["render", f"shape/{MODEL}", "--out", "view.png", "--size", "40", "30"],
    **{to: ["export", f"shape/{MODEL}", "--to", to, "--resolution", "32"] for to in ("ply", "npz")},
    "html": ["export", f"shape/{MODEL}", "--to", "html"],
    **REFUSED,
}


def work(folder: Path) -> None:
    """Runs `COMMANDS` in ``folder`` and saves their exit codes and messages, then the `answers`."""
    outcomes = {}
    os.chdir(folder)
    for name, words in COMMANDS.items():
        with (
            contextlib.redirect_stderr(io.StringIO()) as errors,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            outcomes[name] = [cli.main(words), errors.getvalue()]
    try:
        load_compressed("model.nstq")
    except ModuleNotFoundError as error:
        outcomes["load"] = [1, str(error)]
    np.savez("answers.npz", **answers(Path("shape") / MODEL))
    Path("said.json").write_text(json.dumps(outcomes | {"numba": numba_found()}))


def answers(model: Path) -> dict[str, np.ndarray]:
    """Results of the library for fixed shapes, for fields that a seed determines and for the
    ``model``."""
    sdf, generator = load(model).sdf(), np.random.default_rng(1)
    points = generator.uniform(-1.2, 1.2, (3000, 3))
    wavy = extract(Sdf(_waves, Box((-0.8,) * 3, (0.8,) * 3), 2.0), 40)
    fitted = extract(sdf, 32)
    hit = measure(sdf, Camera.around(sdf.bounds, width=24, height=24))
    whole, opened = MeshDistance(torus()), MeshDistance(Mesh(torus().vertices, torus().faces[50:]))
    computed = {
        "distance": np.concatenate([whole(points), opened(points)]),
        "distance gradient": np.concatenate(
            [each.value_and_gradient(points)[1] for each in (whole, opened)]
        ),
        "extracted vertices": wavy.mesh.vertices,
        "extracted faces": wavy.mesh.faces,
        "model distance": sdf(points),
        "model normals": sdf.normals(points),
        "model faces": fitted.mesh.faces,
        "model vertices": fitted.mesh.vertices,
        "model depth": hit.depth,
        "line field": _grid_field()(torch.from_numpy(points / 1.3).float()).numpy(),
    }
    for name in FIELDS:
        computed |= {
            f"{name} {what}": value for what, value in _trained(name, points / 1.3).items()
        }
    return computed


def _waves(points: torch.Tensor) -> torch.Tensor:
    return (
        points.norm(dim=1)
        - 0.6
        + 0.03 * torch.sin(20 * points[:, 0]) * torch.sin(20 * points[:, 1])
    )


def _grid_field() -> GridField:
    nodes = torch.randn(6, 6, 6, 3, generator=torch.Generator().manual_seed(2))
    return GridField(nodes, Box((-1.0,) * 3, (1.0,) * 3), signed=False)


def _trained(name: str, at: np.ndarray) -> dict[str, np.ndarray]:
    """The values of a new field, its gradients with respect to all trainable parameters, and its
    loss after a short training."""
    near = sphere(3)
    config = (
        NgpConfig(table=2048, levels=4, finest=32) if name == "ngp" else FIELDS[name](6000, near)
    )
    if isinstance(config, NstrConfig):  # the start of training magnifies rounding
        config = replace(config, start=None, placement=None)
    field = config.build(3, 1, near=near, generator=torch.Generator().manual_seed(3))
    points = torch.from_numpy(at).float()
    field(points).square().sum().backward()
    slopes = [
        parameter.grad.flatten() for parameter in field.parameters() if parameter.grad is not None
    ]
    computed = {"values": field(points).detach().numpy(), "slopes": torch.cat(slopes).numpy()}
    pool = Samples(points, points.norm(dim=1, keepdim=True) - 0.8)
    config = FitConfig(steps=10, batch=1000, pool=3000, warmup=5)
    for _ in fit_steps(field, pool, SdfObjective(), config):
        pass
    return computed | {"loss": np.array([SdfObjective()(field, pool, 1.0).item()])}


@dataclass(frozen=True)
class Finished:
    """The folder of the process without numba, and the exit code and message of each of its
    commands."""

    folder: Path
    outcomes: dict


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("numbaless")
    save_mesh(folder / "in.ply", sphere(3, radius=2.0, centre=(1.0, 2.0, 3.0)))
    np.savetxt(folder / "cloud.xyz", sphere(3).vertices)
    picture = np.random.default_rng(0).random((24, 24, 3)).astype(np.float32)
    save_image(folder / "picture.png", picture)
    save_compressed(folder / "model.nstq", compress(picture, 500))
    # The fits are small: more threads would mostly wait for each other.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", BLOCKED, str(folder)], check=True, cwd=ROOT, env=environment
    )
    return Finished(folder, json.loads((folder / "said.json").read_text()))


@pytest.fixture(scope="module")
def pairs(finished: Finished) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every answer by its name, without numba and with numba."""
    assert numba_found()
    plain, compiled = (
        np.load(finished.folder / "answers.npz"),
        answers(finished.folder / "shape" / MODEL),
    )
    assert set(plain) == set(compiled)
    return {name: (plain[name], compiled[name]) for name in compiled}


@pytest.mark.parametrize(("name", "folder"), [("fit", "shape"), ("grid", "grid")])
def test_a_mesh_is_fitted_and_the_user_is_told_once_that_it_takes_longer(
    finished: Finished, name: str, folder: str
) -> None:
    assert finished.outcomes["numba"] is False
    code, errors = finished.outcomes[name]
    assert code == 0
    assert errors.count("warning") == errors.count(WARNING) == 1
    assert errors.endswith("pip install numba.\n")
    report = json.loads((finished.folder / folder / REPORT).read_text())
    assert [f"warning: {warning}\n" for warning in report["input"]["warnings"]] == [errors]
    assert report["mesh"]["watertight"]
    assert report["accuracy"]["iou_volume"] > 0.95
    assert load_image(finished.folder / folder / PICTURE).shape == (32 + 21, 72, 3)


def test_a_model_is_rendered_and_exported(finished: Finished) -> None:
    assert [finished.outcomes[name] for name in ("render", "html", "ply", "npz")] == [[0, ""]] * 4
    assert load_image(finished.folder / "view.png").std() > 0.05
    mesh, shape = load_mesh(finished.folder / "shape" / "model.ply"), finished.folder / "shape"
    np.testing.assert_allclose(mesh.bounds.centre, (1, 2, 3), atol=0.1)
    assert "<html" in (shape / "model.html").read_text()
    assert np.isfinite(np.load(shape / "model.npz")["distance"]).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_before_any_work(finished: Finished, name: str) -> None:
    code, errors = finished.outcomes[name]
    assert code == 1
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert "need numba" in errors
    assert errors.endswith(": pip install numba.\n")
    assert not (finished.folder / REFUSED[name][-1]).exists()


def test_a_compressed_model_is_refused(finished: Finished) -> None:
    code, words = finished.outcomes["load"]
    assert code == 1
    assert words.startswith("Compressed models (.nstq) need numba, ")
    assert load_compressed(finished.folder / "model.nstq").out_dim == 3


def test_distances_are_the_same(pairs) -> None:
    np.testing.assert_allclose(*pairs["distance"], atol=1e-14)
    np.testing.assert_allclose(*pairs["distance gradient"], atol=1e-9)


def test_surfaces_are_the_same(pairs) -> None:
    np.testing.assert_array_equal(*pairs["extracted faces"])
    np.testing.assert_allclose(*pairs["extracted vertices"], atol=1e-12)


def test_a_model_answers_alike(pairs) -> None:
    np.testing.assert_allclose(*pairs["model distance"], atol=1e-5)
    turned = np.linalg.norm(np.subtract(*pairs["model normals"]), axis=1)
    assert np.mean(turned < 1e-3) > 0.99  # normals may jump at faces of cells
    plain, compiled = (Mesh(*each) for each in zip(pairs["model vertices"], pairs["model faces"]))
    assert MeshDistance(compiled).unsigned(plain.vertices).max() < 1e-4
    assert MeshDistance(plain).unsigned(compiled.vertices).max() < 1e-4
    depths = np.stack(pairs["model depth"])
    hit = np.isfinite(depths).all(axis=0)
    assert hit.mean() > 0.2
    assert np.mean(hit == np.isfinite(depths).any(axis=0)) > 0.99
    np.testing.assert_allclose(*depths[:, hit], atol=1e-3)


def test_line_fields_on_grids_are_alike(pairs) -> None:
    np.testing.assert_allclose(*pairs["line field"], atol=1e-5)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_and_their_training_are_alike(pairs, name: str) -> None:
    np.testing.assert_allclose(*pairs[f"{name} values"], atol=1e-5)
    plain, compiled = pairs[f"{name} slopes"]
    np.testing.assert_allclose(plain, compiled, atol=1e-4 * np.abs(compiled).max())
    # Adam moves a parameter whose gradient is only rounding as far as any other parameter.
    np.testing.assert_allclose(*pairs[f"{name} loss"], rtol=2e-2)


@pytest.mark.parametrize(
    "error", ["ImportError('Numba needs NumPy 2.4 or less')", "OSError('no such library')"]
)
def test_an_installation_that_does_not_import_counts_as_none(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numba.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numba")
    fault = numba_fault.__wrapped__()
    assert fault is not None
    assert fault in error
    monkeypatch.setattr("nstr3d.kernels.available.numba_fault", lambda: fault)
    assert not numba_found()
    with pytest.raises(
        ModuleNotFoundError, match=rf"^Clouds need numba, .*\({fault}\): pip install numba\.$"
    ):
        need_numba("Clouds")


def test_with_numba_nothing_is_refused() -> None:
    assert numba_fault() is None
    need_numba("Clouds")
