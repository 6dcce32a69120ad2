"""The cache of compiled kernels helps and is not needed: a read-only installation without a home, a
full disk and a damaged cache compile and compute the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nstr3d

numba = pytest.importorskip("numba")
from nstr3d.jobs.stages import slowness  # noqa: E402
from nstr3d.kernels import compiled  # noqa: E402
from nstr3d.kernels.compiled import njit, own_cache, temporary_cache  # noqa: E402

PACKAGE = Path(nstr3d.__file__).parent
# Calls one kernel and prints where its cache is, and the warnings of a job.
PROGRAM = """
import os, sys, tempfile
if "--no-temporary" in sys.argv:
    def refuse(): raise FileNotFoundError("no usable temporary folder")
    tempfile.gettempdir = refuse
from nstr3d.kernels.geometry import cells
import numpy as np
from nstr3d.jobs.stages import slowness
print(cells.locate._cache.cache_path)
print(*slowness())
print(os.listdir("."))
"""


@pytest.fixture(scope="module")
def readonly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package, in which no cache can be written, not even by root."""
    folder = tmp_path_factory.mktemp("readonly")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "nstr3d", ignore=ignored)
    for inner in [folder / "nstr3d", *(folder / "nstr3d").rglob("*/")]:
        if inner.is_dir():
            (inner / "__pycache__").write_text("not a folder")
    return folder


def call(readonly: Path, folder: Path, *words: str, **environment: str) -> list[str]:
    """The lines of PROGRAM, run in an empty working folder, without a home."""
    (folder / "work").mkdir(exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    clean = {"PYTHONPATH": str(readonly), "PATH": os.environ["PATH"], "HOME": "/dev/null"}
    clean |= {"TMPDIR": str(folder / "tmp")}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=clean | environment,
        cwd=folder / "work",
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def test_without_a_place_of_its_own_the_cache_is_a_temporary_folder(
    readonly: Path, tmp_path: Path
) -> None:
    place, warning, files = call(readonly, tmp_path)
    mine = tmp_path / "tmp" / f"nstr3d-kernels-{os.getuid()}"
    assert place.startswith(str(mine))
    assert mine.stat().st_mode & 0o777 == 0o700
    assert warning.startswith(f"Compiled kernels are kept in {mine}, which may not last; set NUMBA")
    assert files == "[]"


def test_without_any_folder_kernels_are_compiled_and_the_advice_works(
    readonly: Path, tmp_path: Path
) -> None:
    place, warning, files = call(readonly, tmp_path, "--no-temporary")
    assert place == "None"
    assert "cannot be kept in any folder" in warning
    assert warning.endswith("set NUMBA_CACHE_DIR to a folder that can be written to.")
    assert files == "[]"
    named = str(tmp_path / "named")
    place, warning, _ = call(readonly, tmp_path, "--no-temporary", NUMBA_CACHE_DIR=named)
    assert place.startswith(named)
    assert warning == ""


def test_an_installation_that_can_be_written_to_is_not_warned_of() -> None:
    assert own_cache(compiled.KERNELS)
    assert slowness() == []


def test_a_home_that_is_not_there_is_no_folder_named_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiled, "AppDirs", lambda **options: Tilde())
    monkeypatch.setattr(compiled.config, "CACHE_DIR", "")
    (tmp_path / "__pycache__").write_text("not a folder")
    assert own_cache.__wrapped__(tmp_path) is False
    assert os.listdir(tmp_path) == ["__pycache__"]


class Tilde:
    user_cache_dir = "~/.cache/numba"


def test_the_temporary_folder_of_another_user_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(tmp_path))
    fresh = temporary_cache.__wrapped__
    path = tmp_path / f"nstr3d-kernels-{os.getuid()}"
    assert fresh() == str(path)
    assert fresh() == str(path)
    path.chmod(0o777)  # others can write code there, which numba would run
    assert fresh() is None
    path.rmdir()
    path.symlink_to(tmp_path)
    assert fresh() is None


def source(folder: Path) -> Path:
    path = folder / "doubling.py"
    path.write_text(
        "from nstr3d.kernels.compiled import njit\n\n\n"
        "@njit(cache=True)\ndef double(x):\n    return x + x\n"
    )
    return path


def double(folder: Path, value: float) -> float:
    """The result of a kernel in a new module of ``folder``, as a new process would compute it."""
    namespace = {"__name__": "doubling", "__file__": str(source(folder))}
    exec(compile(source(folder).read_text(), str(source(folder)), "exec"), namespace)
    return namespace["double"](value)


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    assert double(tmp_path, 3.0) == 6.0
    files = [path for path in (tmp_path / "__pycache__").iterdir() if path.suffix[:3] == ".nb"]
    assert len(files) == 2
    for damaged in (b"", b"\x80\x05junk"):
        for file in files:
            file.write_bytes(damaged)
        assert double(tmp_path, 3.0) == 6.0
        assert double(tmp_path, 4.0) == 8.0


def test_a_full_disk_costs_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, *args: object) -> None:
        raise OSError(28, "No space left on device")

    from numba.core.caching import IndexDataCacheFile

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert double(tmp_path, 3.0) == 6.0


def test_options_of_numba_are_kept() -> None:
    @njit(fastmath=True, error_model="numpy")
    def invert(x: float) -> float:
        return 1.0 / x

    assert invert(0.0) == np.inf
    assert invert.targetoptions["fastmath"] is True
    assert invert._cache.cache_path is None


def test_the_first_compilation_is_told_and_the_next_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    ours = njit()(add)
    ours.py_func.__module__ = "nstr3d.kernels.example"
    compiled.ANNOUNCEMENT.told = False
    with caplog.at_level("INFO", "nstr3d"):
        ours(1, 2)
        ours(1.0, 2.0)
    assert [record.message.split(",")[0] for record in caplog.records] == ["Compiling kernels"]


def test_what_others_compile_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    compiled.ANNOUNCEMENT.told = False
    with caplog.at_level("INFO", "nstr3d"):
        njit()(lambda a: a)(1)
    assert not caplog.records
