"""Trials of paths in a process of their own, and their keeping for later runs.

A kernel that crashes or never ends would take the run with it, and an error of a GPU can leave the
GPU unusable for the process. So the process that fits never tries a path.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from nstr3d.io.usercache import keep, load_kept
from nstr3d.system import package_version
from nstr3d.training.calibration import Trial, measure
from nstr3d.training.paths import PATHS, ComputePath, describe_device

FORMAT = 1  # of the files of trials; raise it when they mean something else
PATIENCE = 120.0  # seconds for a path, of which compilers may take most
PACKAGE = Path(__file__).parents[1]
PACKAGES = ("nstr3d", "torch", "numpy", "numba", "triton")
CODE = ("kernels", "fields", "training")  # packages of whose code a trial is
PROGRAM = "from nstr3d.training.trials import serve; serve()"
MARK = "trial: "  # begins a line of the process's output that holds a trial
LOG = logging.getLogger(__name__)


def trials_of(paths: Sequence[ComputePath], again: bool = False) -> list[Trial]:
    """The trial of each of ``paths``, from an earlier run on the same device, driver, versions and
    code if there was one, and not ``again``."""
    found = {path: _impossible(path) or (None if again else _kept(path)) for path in paths}
    missing = [path for path, trial in found.items() if trial is None]
    if missing:
        names = ", ".join(f"{path.name} on {path.device}" for path in missing)
        LOG.info("Calibrating, once for this device and version: %s ...", names)
    for path, trial in zip(missing, in_process(missing)):
        found[path] = trial
        if not trial.passing:
            keep(_file_of(path), {"format": FORMAT, "key": key_of(path), "trial": asdict(trial)})
    return [trial for trial in found.values() if trial is not None]


def in_process(
    paths: Sequence[ComputePath], program: str = PROGRAM, patience: float = PATIENCE
) -> list[Trial]:
    """The trials of ``paths``, measured one after the other in a process that runs ``program``.

    A path whose process dies, or takes longer than ``patience`` seconds, has a fault. The next
    paths are then measured in a new process.
    """
    done: list[Trial] = []
    while len(done) < len(paths):
        remaining = paths[len(done) :]
        output, how, passing = _run(program, remaining, patience * len(remaining))
        done += _read(output, remaining)
        if len(done) < len(paths):
            path = paths[len(done)]
            done.append(Trial(path.name, str(path.device), fault=how, passing=passing))
    return done


def _impossible(path: ComputePath) -> Trial | None:
    """The trial of a path that cannot be tried here; None of a path that can."""
    fault = path.fault()
    return None if fault is None else Trial(path.name, str(path.device), fault=fault)


def serve(kinds: dict[str, Callable[[torch.device], ComputePath]] | None = None) -> None:
    """Measures the paths that the command line names, as words ``name@device`` after the number of
    threads, and writes a line for each. ``kinds`` makes a path of a name, by default `PATHS`."""
    kinds = kinds or dict(PATHS)
    torch.set_num_threads(int(sys.argv[1]))
    for word in sys.argv[2:]:
        name, _, device = word.partition("@")
        trial = measure(kinds[name](torch.device(device)))
        print(MARK + json.dumps(asdict(trial)), flush=True)


def key_of(path: ComputePath) -> dict[str, Any]:
    """What must be the same for the trial of ``path`` to hold for another run."""
    return {
        "path": path.name,
        "device": describe_device(path.device),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "code": _code(),
    }


@lru_cache(maxsize=1)
def _code() -> str:
    """A hash of the code that trials measure."""
    digest = hashlib.sha256()
    for folder in CODE:
        for file in sorted((PACKAGE / folder).rglob("*.py")):
            digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0")
            digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _file_of(path: ComputePath) -> str:
    text = json.dumps(key_of(path), sort_keys=True)
    return f"path-{path.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _kept(path: ComputePath) -> Trial | None:
    """The trial of an earlier run; None if there is none, or if its file makes no sense."""
    data = load_kept(_file_of(path))
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return None
    trial = _trial(data.get("trial"), path) if data.get("key") == key_of(path) else None
    return trial if trial is None else replace(trial, device=str(path.device))


def _trial(data: Any, path: ComputePath) -> Trial | None:
    """The trial of ``path`` that ``data`` of JSON holds; None if it holds none."""
    if not isinstance(data, dict) or data.keys() != {each.name for each in fields(Trial)}:
        return None
    trial = Trial(**data)
    numbers = [trial.error, trial.training, trial.inference]
    sound = all(
        each is None or (type(each) is float and math.isfinite(each) and each >= 0)
        for each in numbers
    )
    if not sound or trial.path != path.name or not isinstance(trial.fault, str | None):
        return None
    measured = all(each is not None for each in numbers) and all(numbers[1:])
    return trial if measured == trial.right else None


def _run(program: str, paths: Sequence[ComputePath], seconds: float) -> tuple[str, str, bool]:
    """The output of a process that measures ``paths``, how it ended, as a clause, and whether the
    next run may find another end."""
    if not sys.executable:
        return "", "this Python cannot start another one, in which it could be tried", True
    words = [str(torch.get_num_threads()), *(f"{path.name}@{path.device}" for path in paths)]
    python_path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    try:
        result = subprocess.run(
            [sys.executable, "-c", program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": python_path},
            cwd="/",  # no file of the user can shadow a module there
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return output, f"it took more than {seconds:.0f} s", False
    except OSError as error:
        return "", f"no process could be started in which it could be tried ({error})", True
    output, code = result.stdout.decode(errors="replace"), result.returncode
    if code < 0:  # signal 9 ends processes when memory runs out
        return output, f"the process that tried it died of signal {-code}", code == -9
    return output, f"the process that tried it ended with code {code}", False


def _read(output: str, paths: Sequence[ComputePath]) -> list[Trial]:
    """The trials in the ``output`` of a process that measured ``paths``, up to the first that makes
    no sense."""
    lines = [line[len(MARK) :] for line in output.splitlines() if line.startswith(MARK)]
    found: list[Trial] = []
    for line, path in zip(lines, paths):
        try:
            trial = _trial(json.loads(line), path)
        except (ValueError, RecursionError):
            trial = None
        if trial is None:
            break
        found.append(trial)
    return found
