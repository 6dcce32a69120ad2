"""The package on systems that lack features of Linux: it imports, fits, and names what it cannot
do."""

import ast
import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import llvmlite.binding as llvm
import pytest

import nstr3d
from nstr3d import system
from nstr3d.kernels import simd

ROOT = Path(nstr3d.__file__).parent
ABSENT = """
import builtins, os, pkgutil, signal, sys
from importlib import import_module
from importlib.util import find_spec

import torch  # other packages may use what their systems have
import igl, llvmlite, numba, numpy, safetensors, scipy.spatial, trimesh, tyro

for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("fork", "forkpty", "register_at_fork", "sched_getaffinity", "sched_setaffinity",
             "getuid", "geteuid", "killpg", "setsid", "uname", "mkfifo", "getloadavg", "sysconf"):
    delattr(os, name)
for name in ("SIGKILL", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGSTOP", "setitimer", "alarm"):
    delattr(signal, name)
opened = builtins.open


def open_elsewhere(file, *args, **kwargs):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(file)
    return opened(file, *args, **kwargs)


builtins.open = open_elsewhere
"""
IMPORTS = """
import nstr3d

optional = {"ray": "nstr3d.batch.engines", "triton": "nstr3d.kernels.field.gpu"}
absent = {module for package, module in optional.items() if find_spec(package) is None}
names = {module.name for module in pkgutil.walk_packages(nstr3d.__path__, "nstr3d.")}
for name in sorted(names - absent - {"nstr3d.__main__"}):
    import_module(name)
print(len(names))
"""
FIT = """
from nstr3d.cli.command import main

torch.set_num_threads(2)
source, out = sys.argv[1:]
sys.argv = ["nstr3d", "fit", source, "--out", out, "--steps", "40", "--pool", "8192",
            "--samples", "2000", "--resolution", "24", "--picture", "0", "--params", "8000"]
code = main()
assert not code, code
"""


def run(program: str, *words: str) -> str:
    """The output of ``program`` on a system without the names that ``ABSENT`` removes."""
    command = [sys.executable, "-c", ABSENT + program, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports_without_what_only_linux_has() -> None:
    assert int(run(IMPORTS)) > 60


def test_a_mesh_is_fitted_without_what_only_linux_has(tmp_path: Path) -> None:
    run(FIT, str(ROOT.parent / "assets" / "sphere.obj"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "report.json").exists()


def test_imports_run_without_the_collector_which_then_goes_on() -> None:
    assert gc.isenabled()
    with system.without_collection():
        with system.without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize(("name", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_peak_memory_is_in_bytes_whatever_the_system_counts(
    monkeypatch: pytest.MonkeyPatch, name: str, unit: int
) -> None:
    usage = SimpleNamespace(ru_maxrss=3 << 20)
    counter = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage)
    monkeypatch.setattr(system, "open", missing, raising=False)
    monkeypatch.setitem(sys.modules, "resource", counter)
    monkeypatch.setattr(sys, "platform", name)
    assert system.peak_memory() == (3 << 20) * unit


def missing(path: str, *args: object, **kwargs: object) -> None:
    raise FileNotFoundError(path)


def test_windows_says_no_peak_no_start_and_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "open", missing, raising=False)
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", missing)  # os.kill would end the process on Windows
    assert system.peak_memory() is None
    assert system.process_start(os.getpid()) is None
    system.limit_memory(None)
    with pytest.raises(OSError, match="set no limit"):
        system.limit_memory(1 << 30)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert system.count_processors() == os.cpu_count()


def test_a_process_is_told_from_one_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert system.process_start(ended.pid) == ""
    assert system.process_start(os.getpid())
    monkeypatch.setattr(system, "open", missing, raising=False)
    assert system.process_start(os.getpid()) == "alive"
    assert system.process_start(ended.pid) == ""


def test_a_processor_whose_features_are_unknown_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> dict[str, bool]:
        raise RuntimeError("no features of this processor")

    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"avx512f": True})
    assert simd.has_feature("avx512f")
    monkeypatch.setattr(llvm, "get_host_cpu_features", unknown)
    assert not simd.has_feature("avx512f")


BINARY = (
    "Image",
    "archive",
    "laspy",
    "os",
    "tarfile",
    "zipfile",
    "wave",
)  # their open takes no encoding


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_text_files_are_opened_with_their_encoding(path: Path) -> None:
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and opens_text(call):
            named = any(keyword.arg == "encoding" for keyword in call.keywords)
            assert named, f"{path.name}:{call.lineno} opens text in the system's encoding"


def opens_text(call: ast.Call) -> bool:
    """Whether a call opens a file, or reads or writes one, as text."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in ("read_text", "write_text"):
        return True
    owner = getattr(getattr(call.func, "value", None), "id", "")
    if name not in ("open", "fdopen") or owner in BINARY:
        return False
    words = [*call.args, *(keyword.value for keyword in call.keywords)]
    modes = [word.value for word in words if isinstance(word, ast.Constant)]
    return not any(isinstance(mode, str) and "b" in mode for mode in modes if mode)
