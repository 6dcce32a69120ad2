"""Makes the virtual environment of `make demo` and `make test`; a second call changes nothing.

    python .ci/environment.py VENV                 # the core: what fits, renders and exports
    python .ci/environment.py VENV --tests         # what tests and linters need too
    python .ci/environment.py VENV --tests --core  # the tests' own packages, no optional part

The script needs the standard library alone. TORCH chooses the build of PyTorch: ``cpu``, ``cuda``,
or ``default``, which is what the registry gives. If TORCH is unset, Linux without an NVIDIA driver
gets the CPU build, if PyTorch's own index answers; all others get ``default``. TORCH_INDEX names a
mirror of PyTorch's index. VENV/left-out.json lists the optional parts that have no wheel here.
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
CUDA = "cu130"  # the builds of CUDA that PyTorch's index has for the torch of constraints.txt
DRIVERS = (
    "/proc/driver/nvidia/version",
    "/dev/nvidiactl",
    "/dev/nvhost-gpu",
    "/usr/lib/wsl/lib/libcuda.so.1",
)
STATE, LEFT_OUT = "nstr3d.json", "left-out.json"
DEVELOPMENT = "dev"  # the tests' and linters' own packages
UNTESTED = ("s3", "gs")  # they need an account
# Without a wheel by its authors' choice; pure Python, so that building it takes no compiler.
SOURCES = "PyOpenGL"
NO_WHEEL = ("No matching distribution found", "ResolutionImpossible")  # as pip says it


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("venv", type=Path)
    parser.add_argument("--tests", action="store_true", help="what tests and linters need too")
    parser.add_argument("--core", action="store_true", help="with --tests: no optional part")
    parser.add_argument("--package", type=Path, help="a wheel or an sdist, not the checkout")
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
    """Stops where this Python is too old, or TORCH names no build."""
    if sys.version_info < OLDEST:
        found = sys.version.split()[0]
        raise SystemExit(
            f"nstr3d needs Python 3.10 or newer, not {found}: make PYTHON=python3.12 demo"
        )
    if build not in ("", *BUILDS):
        raise SystemExit(f"TORCH is one of {', '.join(BUILDS)}, not {build}.")


def digest(package: Path | None) -> str:
    """A hash of the files that decide what is installed."""
    files = [ROOT / "setup.cfg", ROOT / "constraints.txt", Path(__file__)]
    files += [package] if package else []
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def source(package: Path | None, *parts: str) -> list[str]:
    """What pip is to install: the checkout, or a ``package`` made from it, with optional parts."""
    extras = f"[{','.join(parts)}]" if parts else ""
    return [f"{package.absolute()}{extras}"] if package else ["--editable", f"{ROOT}{extras}"]


def read_state(venv: Path) -> dict:
    """What was finished in ``venv``: nothing if ``venv`` is a copy of another one."""
    try:
        state = json.loads((venv / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if state.get("place") == str(venv) and python_of(venv).exists() else {}


def write_state(venv: Path, state: dict) -> None:
    (venv / STATE).write_text(
        json.dumps(state | {"place": str(venv)}, indent=2) + "\n", encoding="utf-8"
    )


def python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_venv(venv: Path, fresh: bool) -> None:
    """An environment of the running Python; ``fresh`` empties one that another Python made."""
    clear = ["--clear"] if fresh or not python_of(venv).exists() else []
    if subprocess.run([sys.executable, "-m", "venv", *clear, str(venv)], check=False).returncode:
        raise SystemExit(
            f"{venv} could not be made; on Debian and Ubuntu, install the package python3-venv."
        )


def install_torch(venv: Path, build: str) -> None:
    """Installs the ``build`` of PyTorch first, so that no other package brings another one."""
    index = torch_index(build)
    if index is None:
        return
    pinned = next(
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("torch==")
    )
    print(f"PyTorch comes from {index}.", flush=True)
    # Without what it depends on: that comes from the registry, in the versions of constraints.txt.
    if pip(venv, "--no-deps", "--index-url", index, pinned).returncode:
        if build:
            raise SystemExit(
                f"TORCH={build}: {index} has no {pinned} for this Python; try TORCH=default."
            )
        print("It has none for this Python; the registry's build is taken.", flush=True)


def check_torch(venv: Path, build: str) -> None:
    """Stops where the registry gave another build of PyTorch than the one asked for."""
    program = "import torch; print('cuda' if torch.version.cuda else 'cpu')"
    done = subprocess.run(
        [python_of(venv), "-c", program], check=True, capture_output=True, text=True
    )
    found = done.stdout.strip()
    if build in ("cpu", "cuda") and found != build:
        raise SystemExit(f"TORCH={build}: this registry's PyTorch is the {found} build instead.")


def torch_index(build: str) -> str | None:
    """The address that PyTorch's ``build`` is installed from; None for the registry."""
    linux, windows = sys.platform.startswith("linux"), sys.platform == "win32"
    index = os.environ.get("TORCH_INDEX", INDEX).rstrip("/")
    if build == "cuda":
        # The registry's build for Linux has CUDA already.
        return f"{index}/{CUDA}" if windows else None
    if build == "default" or not linux or (not build and has_nvidia_driver()):
        return None
    if answers(f"{index}/cpu/torch/"):
        return f"{index}/cpu"
    if build == "cpu":
        raise SystemExit(
            f"TORCH=cpu: {index} does not answer; use TORCH=default, or name a mirror: TORCH_INDEX"
        )
    print(
        "PyTorch's index does not answer; the registry's build is taken, which may be larger.",
        flush=True,
    )
    return None


def has_nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or any(os.path.exists(path) for path in DRIVERS)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer:
            return answer.status == 200
    except (OSError, ValueError):
        return False


def install_tests(venv: Path) -> dict[str, str]:
    """Installs all optional parts; those that have no wheel here, and why."""
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
    """Installs the tests' own packages; all optional parts are left out."""
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
    """Installs optional parts from wheels; False where one has no wheel for this Python."""
    wheels = ["--only-binary", ":all:", "--no-binary", SOURCES]
    done = pip(venv, *wheels, *source(None, *parts), stderr=subprocess.PIPE)
    if done.returncode and not any(words in done.stderr for words in NO_WHEEL):
        raise SystemExit(f"{done.stderr.strip()}\npip could not install {', '.join(parts)}.")
    return not done.returncode


def install(venv: Path, *what: str) -> None:
    if pip(venv, *what).returncode:
        raise SystemExit("pip could not install nstr3d; what it said is above.")


def pip(venv: Path, *what: str, **streams: int) -> subprocess.CompletedProcess:
    """``pip install`` within the constraints."""
    command = [python_of(venv), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    held = [] if "--no-deps" in what else ["--constraint", ROOT / "constraints.txt"]
    return subprocess.run([*command, *what, *held], check=False, text=True, **streams)


if __name__ == "__main__":
    main()
