"""Reads the files that stdin names, one a line, and answers each with a line of JSON.

``outcome`` is "refused" for one sentence of an expected error, "accepted" for a file that was read,
"memory" if it took more than twice what the original takes and 200 MB, and "fault" for everything
else, with the reason in ``error``. ``rise`` is by how many bytes the memory rose.
"""

from __future__ import annotations

import json
import sys
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from nstr3d.batch.catalogue import read_report, row_of, select
from nstr3d.batch.shapes import find_shapes
from nstr3d.io import NoFacesError, load_picture, load_sound, read_cloud, read_mesh
from nstr3d.io.cloud import CLOUD_SUFFIXES
from nstr3d.io.folder import Folder
from nstr3d.io.lockschema import read_lock
from nstr3d.jobs.prepared import prepare_mesh
from nstr3d.model.checkpoint import load, load_training
from nstr3d.model.tree import fits_of, load_sdf
from nstr3d.system import forget_peak_memory, peak_memory
from nstr3d.training.state import check_state

MEMORY = 1 << 30  # bytes beyond those of the program and its imports
SPARE = 200_000_000  # bytes that a file may take beside twice those of the original


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
    if suffix in (".json", ".sqlite", ".lst"):
        _read_records(path, original.stem)
    elif original.stem == "combined":
        _read_tree(path, original)
    elif suffix == ".safetensors":
        _read_model(path, original)
    elif suffix == ".nstq":
        _same(*(load(each).field.state_dict() for each in (path, original)))
    elif suffix in (".png", ".ppm"):
        assert np.isfinite(load_picture(path).values).all()
    elif suffix == ".wav":
        assert np.isfinite(load_sound(path).values).all()
    elif suffix in CLOUD_SUFFIXES - {".ply"}:
        _read_cloud(path)
    else:
        _read_shape(path)


def _read_records(path: Path, kind: str) -> None:
    """Files of a data set and of runs: a report, a lock, a list, a catalogue."""
    if kind == "report":
        row_of("shape", read_report(Folder(path.parent), path.name), "")
    elif kind == "lock":
        read_lock(path.read_bytes())
    elif kind == "list":
        find_shapes(str(path))
    else:
        select(path, ("id", "status"), "status <> 'done'")


def _read_model(path: Path, original: Path) -> None:
    """What is accepted has the weights of the original, whatever its header says, and gives finite
    values."""
    fit, state = load_training(path)
    if state:
        parameters = [each for group in fit.field.rates() for each in group["params"]]
        check_state(parameters, state)
    other, expected = load_training(original)
    _same(fit.field.state_dict(), other.field.state_dict())
    _same(state, expected)
    with torch.no_grad():
        assert torch.isfinite(fit.field(torch.zeros(3, fit.field.in_dim))).all(), "values"


def _read_tree(path: Path, original: Path) -> None:
    """What is accepted has the weights of the original and gives finite values."""
    sdf = load_sdf(path)
    (expected,) = fits_of(load_sdf(original))
    for fit in fits_of(sdf):
        _same(fit.field.state_dict(), expected.field.state_dict())
    values = sdf(np.array([[0.0, 0.0, 0.0], [0.3, -0.2, 0.9], [5.0, 5.0, -5.0]]))
    assert np.isfinite(values).all(), "values"


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
    honest = _rise_of(original)
    outcome, error = "accepted", ""
    forget_peak_memory()
    before = peak_memory() or 0
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
    rise = (peak_memory() or 0) - before
    if rise > 2 * honest + SPARE and outcome in ("accepted", "refused"):
        outcome, error = "memory", f"{rise:,} bytes"
    return {"outcome": outcome, "error": error, "rise": rise}


@lru_cache
def _rise_of(original: Path) -> int:
    """By how many bytes the memory rises when the valid file is read a second time, without what is
    imported or compiled."""
    read(original, original)
    forget_peak_memory()
    before = peak_memory() or 0
    read(original, original)
    return (peak_memory() or 0) - before


def main() -> None:
    torch.set_num_threads(1)
    limit_memory()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        path, original = json.loads(line)
        print(json.dumps(answer(Path(path), Path(original))), flush=True)


if __name__ == "__main__":
    main()
