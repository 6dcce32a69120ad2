"""How much memory a process takes to load a model of each kind of field."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nstr3d.fields.baselines.finer import FinerConfig
from nstr3d.fields.baselines.fourier import FourierConfig
from nstr3d.fields.baselines.ngp import NgpConfig
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.closed.cosines import CosineConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.waves import PhaseWaves
from nstr3d.model.checkpoint import save
from nstr3d.model.codec import compress
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame

LEVELS = LevelConfig(3, plain=2, sparse=False), LevelConfig(4, plain=1, waves=PhaseWaves(2))
SMALL = NstrConfig(LEVELS, hidden=5)
SPARSE = NstrConfig((LevelConfig(300, plain=1),))  # its file is a bitmap of many nodes
# Models of some 60 to 75 MB, in which a third copy of the tensors would be seen.
LARGE: dict[str, Any] = {
    "nstr, dense": NstrConfig((LevelConfig(75, plain=40, sparse=False),)),
    "siren": SirenConfig(width=1500, depth=8),
    "finer": FinerConfig(width=1500, depth=8),
    "fourier": FourierConfig(width=1500, depth=8, frequencies=500),
    "ngp": NgpConfig(table=1 << 20, levels=16, finest=512),
    "cosines": CosineConfig((2200, 2200), (8, 8)),
}
# Loads files in a fresh process and prints by how many bytes the peak of the process rose, and the
# error. Two small models are loaded first, so that imports do not count.
CHILD = """
import sys
from pathlib import Path
from nstr3d.model.checkpoint import load
from nstr3d.model.codec import load_compressed
from nstr3d.system import forget_peak_memory, peak_memory

load(sys.argv[1])
load_compressed(sys.argv[2])
for path in sys.argv[3:]:
    read = load_compressed if path.endswith(".nstq") else load
    forget_peak_memory()
    before = peak_memory()
    try:
        read(path)
        reason = ""
    except ValueError as error:
        reason = str(error)
    print(peak_memory() - before, reason)
"""


def fit_of(config: Any, dim: int = 3, outputs: int = 1, sparse: bool = False) -> Fit:
    """A field with random weights; one that is ``sparse`` stores the nodes near one point."""
    near = np.zeros((1, dim)) if sparse else None
    generator = torch.Generator().manual_seed(0)
    field = config.build(dim, outputs, near, generator=generator)
    return Fit(field, Frame((0.0,) * dim, 1.0), Box((-1.0,) * dim, (1.0,) * dim), 1.0)


def write_large(folder: Path) -> list[Path]:
    """Writes a large model of each kind. Returns the paths."""
    paths = []
    for name, config in (LARGE | {"nstr, sparse": SPARSE}).items():
        paths.append(folder / f"{name}.safetensors")
        dim, outputs = (2, 3) if name == "cosines" else (3, 1)
        save(paths[-1], fit_of(config, dim, outputs, config is SPARSE))
    return paths


def peaks(folder: Path, paths: list[Path]) -> list[tuple[int, str]]:
    """By how many bytes the memory of a process rises when it loads each file, and the error."""
    small = folder / "small.safetensors", folder / "small.nstq"
    save(small[0], fit_of(SMALL))
    small[1].write_bytes(compress(np.zeros((20, 24, 1), np.float32), 600))
    command = [sys.executable, "-c", CHILD, *map(str, (*small, *paths))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.partition(" ") for line in printed.splitlines()]
    return [(int(rise), reason) for rise, _, reason in lines]


def memory_table(folder: Path) -> str:
    """The memory that loading takes, for each kind of field, as a table in Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_large(folder)
    lines = ["| field | file, MB | memory, MB | of file |", "|---" * 4 + "|"]
    for path, (rise, _) in zip(paths, peaks(folder, paths)):
        size = path.stat().st_size
        lines.append(f"| {path.stem} | {size / 1e6:.1f} | {rise / 1e6:.1f} | {rise / size:.2f} |")
        path.unlink()
    return "\n".join(lines) + "\n"
