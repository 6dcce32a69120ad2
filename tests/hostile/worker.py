"""Reads the files that stdin names, one a line, and answers each with a line of JSON.

``outcome`` is "refused" for one sentence of an expected error, "accepted" for a file that was read,
"memory" if the limit was met, and "fault" for everything else, with the reason in ``error``.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from nstr3d.io import NoFacesError, load_picture, load_sound, read_cloud, read_mesh
from nstr3d.io.cloud import CLOUD_SUFFIXES
from nstr3d.jobs.prepared import prepare_mesh
from nstr3d.model.checkpoint import load
from nstr3d.model.codec import load_compressed

MEMORY = 1 << 30  # bytes beyond those of the program and its imports


def limit_memory() -> None:
    """Limits the address space, where the system has such a limit."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc").exists() else 0
    size = pages * resource.getpagesize() + MEMORY
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def read(path: Path, original: Path) -> None:
    """Reads a file as the program would. Raises AssertionError if it was read into nonsense."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        _same(load(path).field.state_dict(), load(original).field.state_dict())
    elif suffix == ".nstq":
        load_compressed(path)
    elif suffix in (".png", ".ppm"):
        assert np.isfinite(load_picture(path).values).all()
    elif suffix == ".wav":
        assert np.isfinite(load_sound(path).values).all()
    elif suffix in CLOUD_SUFFIXES - {".ply"}:
        _read_cloud(path)
    else:
        _read_shape(path)


def _read_cloud(path: Path) -> None:
    """Points that are not finite stay; jobs leave them out and count them."""
    cloud, _ = read_cloud(path)
    assert cloud.points.shape == (len(cloud.points), 3)


def _read_shape(path: Path) -> None:
    try:
        mesh, _ = read_mesh(path)
    except NoFacesError:
        if path.suffix.lower() == ".ply":
            _read_cloud(path)
        return
    prepared = prepare_mesh(mesh)
    account = prepared.account
    fates = account.closed + account.capped + account.open + account.sheets + account.thickened
    assert fates + account.degenerate + account.far == account.parts, account
    assert np.isfinite(prepared.mesh.vertices).all()


def _same(tensors: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), f"the tensor {name} was changed"


def answer(path: Path, original: Path) -> dict[str, object]:
    """The outcome of reading ``path``, a mutation of ``original``."""
    started, outcome, error = time.perf_counter(), "accepted", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", UserWarning)  # notes for the user
            read(path, original)
    except (ValueError, OSError, ModuleNotFoundError) as fault:
        outcome, error = "refused", str(fault)
        if "\n" in error.strip() or not error.strip():
            outcome = "fault"
    except MemoryError:
        outcome = "memory"
    except BaseException as fault:
        outcome, error = "fault", f"{type(fault).__name__}: {fault}"[:300]
    seconds = time.perf_counter() - started
    return {"outcome": outcome, "error": error, "seconds": seconds if math.isfinite(seconds) else 0}


def main() -> None:
    torch.set_num_threads(1)
    limit_memory()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        path, original = json.loads(line)
        print(json.dumps(answer(Path(path), Path(original))), flush=True)


if __name__ == "__main__":
    main()
