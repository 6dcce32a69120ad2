"""Make the virtual environment of `make demo` and `make test`; a second call changes nothing.

    python .ci/environment.py VENV                 # the core: packages to fit, render and export
    python .ci/environment.py VENV --tests         # also the packages of tests and linters
    python .ci/environment.py VENV --tests --core  # the tests' own packages without optional parts

The script needs only the standard library. TORCH chooses the build of PyTorch: ``cpu``, ``cuda``
or ``default``, the registry's build. If TORCH is unset, Linux without an NVIDIA driver gets the CPU
build, provided that PyTorch's own index answers; all other systems get ``default``. TORCH_INDEX
names a mirror of PyTorch's index. NSTR3D_UV names the program uv, which then installs in pip's
place. VENV/left-out.json lists the optional parts that are not installed, and the reasons.
"""

from __future__ import annotations

import argparse
import configparser
import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 10)
INDEX = "https://download.pytorch.org/whl"
ANSWER_SECONDS = 5.0
BUILDS = ("cpu", "cuda", "default")
CUDA = "cu130"  # the CUDA builds that PyTorch's index has of the torch in constraints.txt
DRIVERS = (
    "/proc/driver/nvidia/version",
    "/dev/nvidiactl",
    "/dev/nvhost-gpu",
    "/usr/lib/wsl/lib/libcuda.so.1",
)
STATE, LEFT_OUT = "nstr3d.json", "left-out.json"
DEVELOPMENT = "dev"  # the extra with the packages of tests and linters
# Extras whose tests would need an account (gs) or a compiler (meshopt has no wheels).
UNTESTED = ("gs", "meshopt")
# Its authors publish no wheel. It is pure Python, so pip builds it without a compiler.
SOURCES = "PyOpenGL"
NO_WHEEL = ("No matching distribution found", "ResolutionImpossible")  # in pip's messages


def main(words: list[str] | None = None) -> None:
    """Makes or completes the environment; ``words`` is the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("venv", type=Path)
    parser.add_argument(
        "--tests", action="store_true", help="also the packages of tests and linters"
    )
    parser.add_argument("--core", action="store_true", help="with --tests: no optional parts")
    parser.add_argument(
        "--package", type=Path, help="a wheel or an sdist to install, not the checkout"
    )
    options = parser.parse_args(words)
    build = os.environ.get("TORCH", "")
    check(build)
    venv, package = options.venv.absolute(), options.package
    wanted = {"python": sys.version.split()[0], "files": digest(package), "torch": build}
    done = read_state(venv)
    if done.get("core") != wanted:
        make_venv(venv, fresh=done.get("core", wanted)["python"] != wanted["python"])
        write_state(venv, {})
        install_torch(venv, build)
        install(venv, *source(package))
        check_torch(venv, build)
        done = {"core": wanted}
        write_state(venv, done)
    parts = "core" if options.core else "all"
    if options.tests and done.get("tests") != parts:
        left_out = install_core_tests(venv, package) if options.core else install_tests(venv)
        (venv / LEFT_OUT).write_text(json.dumps(left_out, indent=2) + "\n", encoding="utf-8")
        write_state(venv, done | {"tests": parts})


def check(build: str) -> None:
    """Raises SystemExit if this Python is too old or TORCH names no build."""
    if sys.version_info < OLDEST:
        actual = sys.version.split()[0]
        raise SystemExit(
            f"nstr3d needs Python 3.10 or newer, not {actual}: make PYTHON=python3.12 demo"
        )
    if build not in ("", *BUILDS):
        raise SystemExit(f"TORCH must be one of {', '.join(BUILDS)}, not {build}.")


def digest(package: Path | None) -> str:
    """A hash of the files that determine the installed packages."""
    files = [ROOT / "setup.cfg", ROOT / "constraints.txt", Path(__file__)]
    files += [package] if package else []
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def source(package: Path | None, *parts: str) -> list[str]:
    """The arguments with which pip installs the checkout, or a ``package`` made from it, with the
    optional ``parts``."""
    extras = f"[{','.join(parts)}]" if parts else ""
    return [f"{package.absolute()}{extras}"] if package else ["--editable", f"{ROOT}{extras}"]


def read_state(venv: Path) -> dict:
    """The finished steps in ``venv``; none if ``venv`` is a copy of another environment."""
    try:
        state = json.loads((venv / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if state.get("place") == str(venv) and python_of(venv).exists() else {}


def write_state(venv: Path, state: dict) -> None:
    """Writes the finished steps and the place of ``venv``."""
    (venv / STATE).write_text(
        json.dumps(state | {"place": str(venv)}, indent=2) + "\n", encoding="utf-8"
    )


def python_of(venv: Path) -> Path:
    """The interpreter of ``venv``."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_venv(venv: Path, fresh: bool) -> None:
    """Makes an environment of the running Python. ``fresh`` empties an existing one, which another
    Python made. Raises SystemExit if that fails."""
    clear = ["--clear"] if fresh or not python_of(venv).exists() else []
    if subprocess.run([sys.executable, "-m", "venv", *clear, str(venv)], check=False).returncode:
        raise SystemExit(
            f"{venv} could not be made. On Debian and Ubuntu, install the package python3-venv."
        )


def install_torch(venv: Path, build: str) -> None:
    """Installs the ``build`` of PyTorch before the other packages, so that none of them brings
    another build. Raises SystemExit if TORCH asked for a build that the index lacks."""
    index = torch_index(build)
    if index is None:
        return
    pinned = next(
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("torch==")
    )
    print(f"PyTorch comes from {index}.", flush=True)
    # Its dependencies come from the registry later, in the versions of constraints.txt.
    if pip(venv, "--no-deps", "--index-url", index, pinned).returncode:
        if build:
            raise SystemExit(
                f"TORCH={build}: {index} has no {pinned} for this Python. Try TORCH=default."
            )
        print(
            f"{index} has no {pinned} for this Python. The registry's build is installed.",
            flush=True,
        )


def check_torch(venv: Path, build: str) -> None:
    """Raises SystemExit if the installed PyTorch is not the ``build`` that TORCH asked for."""
    program = "import torch; print('cuda' if torch.version.cuda else 'cpu')"
    done = subprocess.run(
        [python_of(venv), "-c", program], check=True, capture_output=True, text=True
    )
    actual = done.stdout.strip()
    if build in ("cpu", "cuda") and actual != build:
        raise SystemExit(
            f"TORCH={build}: this registry's PyTorch is the {actual} build. Use "
            "TORCH=default to accept it."
        )


def torch_index(build: str) -> str | None:
    """The address of the index for PyTorch's ``build``; None for the registry. Raises SystemExit if
    TORCH=cpu and the index does not answer."""
    linux, windows = sys.platform.startswith("linux"), sys.platform == "win32"
    index = os.environ.get("TORCH_INDEX", INDEX).rstrip("/")
    if build == "cuda":
        # The registry's build for Linux includes CUDA.
        return f"{index}/{CUDA}" if windows else None
    if build == "default" or not linux or (not build and has_nvidia_driver()):
        return None
    if answers(f"{index}/cpu/torch/"):
        return f"{index}/cpu"
    if build == "cpu":
        raise SystemExit(
            f"TORCH=cpu: {index} does not answer. Use TORCH=default, or name a mirror: TORCH_INDEX."
        )
    print(
        f"{index} does not answer. The registry's build is installed, which may be larger.",
        flush=True,
    )
    return None


def has_nvidia_driver() -> bool:
    """Whether this machine has an NVIDIA driver."""
    return shutil.which("nvidia-smi") is not None or any(os.path.exists(path) for path in DRIVERS)


def answers(address: str) -> bool:
    """Whether ``address`` answers within `ANSWER_SECONDS`."""
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def install_tests(venv: Path) -> dict[str, str]:
    """Installs the packages of tests and all optional parts. Returns the parts that have no wheel
    here, with the reasons."""
    parts = optional_parts()
    if install_wheels(venv, [DEVELOPMENT, *parts]):
        return {}
    install(venv, *source(None, DEVELOPMENT))
    missing = {}
    for part, requirements in parts.items():
        if not install_wheels(venv, [part]):
            here = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {sys.platform}"
            missing[part] = f"{' '.join(requirements)}: no wheel for {here}"
            print(f"left out: [{part}], {missing[part]}", flush=True)
    return missing


def install_core_tests(venv: Path, package: Path | None) -> dict[str, str]:
    """Installs the packages of tests. Returns all optional parts, with the reason to leave them
    out."""
    install(venv, *source(package, DEVELOPMENT))
    return dict.fromkeys(optional_parts(), "only the core is tested here")


def optional_parts() -> dict[str, list[str]]:
    """The extras of setup.cfg that tests use, and their requirements."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = {name: text.split("\n") for name, text in parser["options.extras_require"].items()}
    return {
        name: [line for line in lines if line]
        for name, lines in extras.items()
        if name not in (DEVELOPMENT, *UNTESTED)
    }


def install_wheels(venv: Path, parts: list[str]) -> bool:
    """Installs optional parts from wheels. Returns False if one has no wheel for this Python.
    Raises SystemExit if pip fails for another reason."""
    wheels = ["--only-binary", ":all:", "--no-binary", SOURCES]
    done = pip(venv, *wheels, *source(None, *parts), stderr=subprocess.PIPE)
    if done.returncode and not any(words in done.stderr for words in NO_WHEEL):
        raise SystemExit(f"{done.stderr.strip()}\npip could not install {', '.join(parts)}.")
    return not done.returncode


def install(venv: Path, *what: str) -> None:
    """Installs ``what`` into ``venv``. Raises SystemExit if pip fails."""
    if pip(venv, *what).returncode:
        raise SystemExit("pip could not install nstr3d; see its messages above.")


def pip(venv: Path, *what: str, **streams: int) -> subprocess.CompletedProcess:
    """Runs ``pip install``, pip's or uv's, in ``venv`` with ``what``, within constraints.txt."""
    python, uv = python_of(venv), os.environ.get("NSTR3D_UV")
    # Python compiles what a program imports, which is a small part of the files.
    pip_of_venv = [python, "-m", "pip", "--disable-pip-version-check", "install", "--no-compile"]
    command = [uv, "pip", "install", "--python", python] if uv else pip_of_venv
    held = [] if "--no-deps" in what else ["--constraint", ROOT / "constraints.txt"]
    return subprocess.run([*command, "--quiet", *what, *held], check=False, text=True, **streams)


if __name__ == "__main__":
    main()
