"""Small files of every kind that nstr3d reads again: models, a stopped run and a data set. Tests
read the files of every format version.

``python tests/saved_files.py`` writes the files of the present format to
``tests/fixtures/<format>`` in half a minute. Run it once, before the format is changed. The files
there stand for the files of users and must not change.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import platform
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from oracles import sphere

from nstr3d.batch.job import BatchJob
from nstr3d.batch.options import ShapeOptions
from nstr3d.batch.run import run_batch
from nstr3d.fields.base import Field
from nstr3d.fields.baselines.finer import FinerConfig
from nstr3d.fields.baselines.fourier import FourierConfig
from nstr3d.fields.baselines.ngp import NgpConfig
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.closed.cosines import CosineConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig, TransportConfig
from nstr3d.fields.start.linear import LinearStartConfig
from nstr3d.fields.start.placement import PlacementConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.io import Picture, Sound, save_mesh, save_picture, save_sound
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Extraction, Output, Training
from nstr3d.jobs.results import COMPRESSED, MODEL
from nstr3d.jobs.signal import SignalJob, run_signal
from nstr3d.jobs.stages import Interrupted, Listener
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.model.checkpoint import FORMAT, load, save
from nstr3d.model.codec import load_compressed
from nstr3d.training.fit import Fit, FitConfig, fit
from nstr3d.training.losses import SdfObjective
from nstr3d.training.presets import Preset
from nstr3d.training.sampling import SurfaceBand
from nstr3d.types import Box, Frame, Mesh

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED = "expected.json"  # fingerprint and values of each model, by its file's name
PLAIN = LevelConfig(2, plain=2, sparse=False)
BALL = "ball.safetensors"
STOPPED_AT, STEPS = 60, 80  # steps of the stopped run
# The preset as it was when the files were written: a tuned preset gives other runs and other keys
# of the same options.
FAST = Preset(
    100_000,
    FitConfig(
        steps=1300,
        batch=4096,
        pool=500_000,
        warmup=50,
        final_rate=0.01,
        settle=1400,
        betas=(0.9, 0.99),
        seconds=None,
        seed=0,
    ),
)


def nstr(*levels: Any, **options: Any) -> NstrConfig:
    """A config with the placement that was the default when the files were written."""
    then = PlacementConfig(
        samples=30_000, candidates=400, band=(0.3, 2.5), amplitude=0.03, least=0.5
    )
    return NstrConfig(*levels, **({"placement": then} | options))


# Config, input and output dimensions of the models that are built here. Options differ from the
# defaults, so that a test notices if one is lost.
BUILT: dict[str, tuple[Any, int, int]] = {
    "plain": (nstr((LevelConfig(3, plain=2),), hidden=3, placement=None, start=None), 3, 1),
    "amplitude": (
        nstr((PLAIN, LevelConfig(3, waves=AmplitudeWaves(2, band=(0.25, 0.75)))), hidden=3),
        3,
        1,
    ),
    "complex": (
        nstr((LevelConfig(3, waves=ComplexWaves(2, band=(0.125, 1.5))),), hidden=3, sharpness=9.5),
        3,
        1,
    ),
    "phase": (
        nstr((PLAIN, LevelConfig(3, plain=1, waves=PhaseWaves(2, radians=4.0))), hidden=3),
        3,
        1,
    ),
    "learned": (
        nstr((LevelConfig(3, waves=PhaseWaves(2, (0.5, 2.0), learned=True)),), hidden=3),
        3,
        1,
    ),
    "identity": (nstr((PLAIN, LevelConfig(3, plain=1)), hidden=0), 3, 1),
    "transport": (nstr((PLAIN,), hidden=3, transport=TransportConfig(hidden=4)), 3, 1),
    "transport-of-s": (
        nstr((PLAIN,), hidden=3, transport=TransportConfig(hidden=4, position=False)),
        3,
        1,
    ),
    "no-transport": (nstr((PLAIN,), hidden=3, transport=TransportConfig(hidden=0)), 3, 1),
    "starts": (
        nstr(
            (PLAIN,),
            hidden=3,
            placement=PlacementConfig(
                samples=200, candidates=30, band=(0.5, 2.0), amplitude=0.02, least=0.25
            ),
            start=LinearStartConfig(iterations=3, samples=400, ridge=0.001),
            table_rate=0.015,
            table_decay=0.02,
            decoder_rate=0.005,
        ),
        3,
        1,
    ),
    "colours": (nstr((LevelConfig(3, plain=2, waves=AmplitudeWaves(2)),), hidden=3), 2, 3),
    "siren": (SirenConfig(width=5, depth=2, first_omega=3.0, hidden_omega=2.0, rate=3e-4), 3, 1),
    "finer": (FinerConfig(width=5, depth=2, omega=3.0, bias=1.5, rate=1e-3), 2, 3),
    "fourier": (FourierConfig(width=5, depth=2, frequencies=4, deviation=1.5, rate=2e-3), 3, 1),
    "ngp": (
        NgpConfig(
            table=40,
            levels=3,
            features=2,
            coarsest=2,
            finest=8,
            width=5,
            depth=1,
            table_rate=2e-2,
            mlp_rate=3e-3,
        ),
        3,
        1,
    ),
    "cosines": (CosineConfig((9, 7), (2, 4), smooth=True, rate=2e-3), 2, 1),
}
# Input and options of the models that jobs fit.
FITTED: dict[str, tuple[str, dict[str, Any]]] = {
    "image.safetensors": ("in.png", {"params": 120}),
    "image.nstq": ("in.png", {"bytes": 200}),
    "image-trained.safetensors": ("in.png", {"field": "nstr", "params": 3600, "steps": 20}),
    "sound.safetensors": ("in.wav", {"params": 100}),
    "sound.nstq": ("in.wav", {"bytes": 200}),
    "sound-trained.safetensors": ("in.wav", {"field": "siren", "params": 150, "steps": 20}),
}
# The config of every model.
CONFIGS: dict[str, Any] = {
    f"{name}.safetensors": config for name, (config, _, _) in BUILT.items()
} | {
    BALL: nstr(
        (LevelConfig(2, plain=4, sparse=False), LevelConfig(4, plain=1, waves=PhaseWaves(2))),
        hidden=8,
    ),
    "image.safetensors": CosineConfig((12, 16), (8, 8)),
    "image.nstq": CosineConfig((12, 16), (8, 8)),
    "image-trained.safetensors": nstr(
        (
            LevelConfig(
                1, plain=4, waves=AmplitudeWaves(42, (0.0, 8.0), learned=True), sparse=False
            ),
        ),
        start=None,
        table_rate=1e-1,
        table_decay=0.0,
        decoder_rate=1e-2,
    ),
    "sound.safetensors": CosineConfig((600,), (256,), smooth=True),
    "sound.nstq": CosineConfig((600,), (256,), smooth=True),
    "sound-trained.safetensors": SirenConfig(width=7, first_omega=3000.0),
}


def stopped_job(folder: Path) -> MeshJob:
    """The stopped run whose checkpoint is in the ``folder`` of files."""
    return MeshJob(
        folder / "ball.ply",
        Training("fast", steps=STEPS, pool=8192, device="cpu"),
        Extraction(resolution=16, samples=1000, picture=0),
        Output(folder / "stopped"),
        start=folder / "models" / BALL,
    )


def batch_job(folder: Path) -> BatchJob:
    """The run whose data set is in the ``folder`` of files: one shape was fitted and one failed."""
    options = ShapeOptions(
        Training("fast", cells=4, steps=120, pool=8192, device="cpu", seed=1),
        Extraction(resolution=16, samples=1000, picture=0),
    )
    return BatchJob(str(folder / "shapes"), str(folder / "dataset"), options, workers=1)


def open_model(path: Path) -> Field:
    """The field in a model file or a compressed file."""
    return load_compressed(path) if path.suffix == ".nstq" else load(path).field


def fingerprint(field: Field) -> str:
    """A hash of all saved tensors: their bits, names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(field.state_dict().items()):
        digest.update(
            f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes()
        )
    return digest.hexdigest()


def values(field: Field) -> list[list[float]]:
    """The field's values at 8 points, in double precision and plain torch, so that they hardly
    depend on the processor."""
    steps = np.outer(np.arange(1, 9), np.sqrt([2.0, 3.0, 5.0][: field.in_dim]))
    points = torch.from_numpy(1.9 * (steps % 1) - 0.95)
    with plain_torch(), torch.no_grad():
        return copy.deepcopy(field).double()(points).tolist()


def _write(folder: Path) -> None:
    (folder / "models").mkdir()
    for name in BUILT:
        save(folder / "models" / f"{name}.safetensors", _built(name))
    ball = sphere(1, 0.3, (1.0, 2.0, -1.0))
    save_mesh(folder / "ball.ply", ball)
    save(folder / "models" / BALL, _fitted_ball(ball))
    _write_signals(folder)
    _write_stopped(folder)
    (folder / "shapes").mkdir()
    shutil.copy(folder / "ball.ply", folder / "shapes")
    save_mesh(folder / "shapes" / "flat.ply", Mesh(ball.vertices * [1, 1, 0], ball.faces))
    run_batch(batch_job(folder))
    models = sorted((folder / "models").iterdir())
    fields = {path.name: open_model(path) for path in models}
    for name, config in CONFIGS.items():
        assert fields[name].config == config, (
            f"{name}: {fields[name].config} where {config} was expected"
        )
    expected = {
        name: {"tensors": fingerprint(field), "values": values(field)}
        for name, field in fields.items()
    }
    (folder / EXPECTED).write_text(json.dumps(expected, indent=1) + "\n")


def _built(name: str) -> Fit:
    """A fit with random weights, whose numbers have no short decimal form."""
    config, in_dim, out_dim = BUILT[name]
    generator = torch.Generator().manual_seed(0)
    near = np.random.default_rng(0).uniform(-0.6, 0.6, (4, in_dim))
    field = config.build(in_dim, out_dim, near=near, generator=generator)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    frame = Frame((1 / 3, 1e9 / 7, -math.pi)[:in_dim], 0.1)
    bounds = Box((-1 / 3, -2.0, -math.e)[:in_dim], (0.7, 1 / 7, 3.0)[:in_dim])
    provenance = {
        "source": "mesh.obj",
        "unicode": "näher",
        "numbers": [1, 2.5],
        "nested": {"a": None, "b": True},
    }
    return Fit(
        field,
        frame,
        bounds,
        math.sqrt(2) if out_dim == 1 else math.inf,
        123,
        4.5 / 7,
        False,
        provenance,
    )


def _fitted_ball(ball: Mesh) -> Fit:
    unit, frame = normalise(ball)
    field = CONFIGS[BALL].build(3, 1, near=unit)
    training = FitConfig(steps=400, batch=1024, pool=8192)
    return fit(
        field, SurfaceBand(unit, MeshDistance(unit)), SdfObjective(), training, frame, ball.bounds
    )


def _write_signals(folder: Path) -> None:
    y, x = np.mgrid[:12, :16]
    planes = [0.5 + 0.4 * np.sin(0.5 * x + 0.4 * y * (1 + c / 3) + c) for c in range(3)]
    save_picture(folder / "in.png", Picture(np.stack(planes, axis=-1).astype(np.float32)))
    tone = 0.5 * np.sin(np.arange(600) ** 1.2 / 20)
    save_sound(folder / "in.wav", Sound(tone.astype(np.float32)[:, None], 8000))
    for name, (source, options) in FITTED.items():
        job = SignalJob(folder / source, folder / "signal", overwrite=True, device="cpu", **options)
        run_signal(job)
        shutil.copy(job.folder / (COMPRESSED if job.bytes else MODEL), folder / "models" / name)
    shutil.rmtree(folder / "signal")
    for source in ("in.png", "in.wav"):
        (folder / source).unlink()


def _write_stopped(folder: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.step == STOPPED_AT:
            raise KeyboardInterrupt

    with suppress(Interrupted):
        run(stopped_job(folder), Listener(step=stop))


def main() -> None:
    """Write the files of the present format. Raises SystemExit if its folder exists."""
    target = FIXTURES / FORMAT
    if target.exists():
        raise SystemExit(f"{target} exists: the files of a format version must not change.")
    platform.node = lambda: "host"  # keeps the name of this machine out of the files
    with tempfile.TemporaryDirectory(prefix="nstr3d-") as folder:
        _write(Path(folder))
        FIXTURES.mkdir(exist_ok=True)
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns(".*", "index.html"))


if __name__ == "__main__":
    main()
