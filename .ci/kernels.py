"""Compile the kernels that most tests need, once and in two processes, so that the tests' own
processes load them. A later call finds them compiled and does nothing.

    python .ci/kernels.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "nstr3d" / "kernels"


def main() -> None:
    """Compiles the kernels of a step and those of all else beside each other. A failure is left to
    the tests, which compile what is missing."""
    if compiled():
        return
    print("compiling kernels", flush=True)
    words = [[sys.executable, __file__, part] for part in PARTS]
    for process in [subprocess.Popen(each, cwd=ROOT) for each in words]:
        process.wait()


def compiled() -> bool:
    """Whether the step's kernel was compiled after the last change of a kernel's source."""
    kernels = [path.stat().st_mtime for path in KERNELS.rglob("descentcpu.evaluate-*.nbi")]
    return bool(kernels) and max(kernels) > max(
        path.stat().st_mtime for path in KERNELS.rglob("*.py")
    )


def step() -> None:
    """A training step of the default field."""
    from nstr3d.fields.nstr import NstrConfig
    from nstr3d.kernels.step.adam import AdamW
    from nstr3d.training.fit import FitConfig

    field = NstrConfig().build(3, 1)
    field.compiled_steps(1e-3, 0.04, AdamW(field.rates(), FitConfig.betas))


def surface() -> None:
    """What else a fit of a mesh needs: distances, the first weights, extraction and normals."""
    import math

    import numpy as np

    from nstr3d import load_mesh, normalise
    from nstr3d.fields.nstr import NstrConfig
    from nstr3d.geometry.mesh.distance import MeshDistance
    from nstr3d.surface.extract import extract_mesh
    from nstr3d.training.fit import Fit, FitConfig, draw_pool
    from nstr3d.training.sampling import SurfaceBand

    torus = load_mesh(ROOT / "assets" / "torus.obj")
    mesh, frame = normalise(torus)
    pool = draw_pool(SurfaceBand(mesh, MeshDistance(mesh)), FitConfig(pool=40_000))
    field = NstrConfig().build(3, 1, near=mesh)
    field.prepare(pool, np.random.default_rng(0))
    sdf = Fit(field, frame, torus.bounds, math.sqrt(3)).sdf()
    surface = extract_mesh(sdf, resolution=64)
    sdf.normals(surface.vertices)


PARTS = {"step": step, "surface": surface}

if __name__ == "__main__":
    PARTS[sys.argv[1]]() if sys.argv[1:] else main()
