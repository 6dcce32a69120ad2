"""Measurements that need a process of their own: the seconds of compiling, and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nstr3d.model.checkpoint import save
from nstr3d.training.fit import Fit

COMPILE = """
import sys, time, torch
torch.set_num_threads(1)
from nstr3d import FitConfig, NstrConfig, fit_steps, load_mesh, SdfObjective
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.types import Samples
field, points = NstrConfig().build(3, 1), torch.rand(64, 3)
mesh = load_mesh(sys.argv[1])
started = time.process_time()
field(points).sum().backward()
field.value_and_gradient(points)
samples, config = Samples(points, points[:, :1]), FitConfig(batch=64, pool=64)
next(fit_steps(field, samples, SdfObjective(), config))
MeshDistance(mesh)(points.numpy())
print(time.process_time() - started)
"""
MEMORY = """
import json, sys, nstr3d
from nstr3d.bench.speed import memory
print(json.dumps(memory(nstr3d.load(sys.argv[1]).sdf(), int(sys.argv[2]))))
"""


def compile_seconds(mesh: Path) -> tuple[float, float]:
    """Processor seconds of the kernels' first call in a new process: with an empty disk cache,
    where they compile, and with the disk cache of that run. One kernel works on ``mesh``."""
    with tempfile.TemporaryDirectory() as folder:
        where = os.environ | {"NUMBA_CACHE_DIR": folder}
        first, second = (
            subprocess.run(
                [sys.executable, "-c", COMPILE, str(mesh)],
                env=where,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for _ in range(2)
        )
    return float(first), float(second)


def memory_rows(model: Fit, resolutions: Sequence[int]) -> list[dict[str, float]]:
    """The memory of an extraction at each of ``resolutions``, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(path, model)
        commands = [
            [sys.executable, "-c", MEMORY, str(path), str(resolution)] for resolution in resolutions
        ]
        return [
            json.loads(subprocess.run(each, capture_output=True, text=True, check=True).stdout)
            for each in commands
        ]
