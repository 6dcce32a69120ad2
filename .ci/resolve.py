"""Check that constraints.txt can be met on all systems that docs/install.md names.

    python .ci/resolve.py              # every Python of this machine
    python .ci/resolve.py --systems    # also other systems; takes minutes

With every Python of this machine, pip resolves the package, the tests and all optional parts for
the running system. For other systems pip would use the markers of the running one. Therefore the
check there is that each pinned package has a wheel for the system or is pure Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from environment import DEVELOPMENT, ROOT, SOURCES, optional_parts
from pip._vendor.packaging.requirements import Requirement
from pythons import pythons

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
ARM = [f"manylinux_2_{glibc}_aarch64" for glibc in range(17, 36)] + ["manylinux2014_aarch64"]
MACHINES = {"linux": "aarch64", "darwin": "arm64", "win32": "AMD64"}  # of SYSTEMS
SYSTEMS = {  # pip's platforms, and the value of the marker sys_platform
    "Linux on arm": (ARM, "linux"),
    "macOS on arm": (["macosx_14_0_arm64"], "darwin"),
    "Windows": (["win_amd64"], "win32"),
}
WHEELS = ["--only-binary", ":all:"]
# Pure Python packages without a wheel, or that depend on PyOpenGL, which has none.
PURE = (SOURCES, "pyrender", "imageio-ffmpeg")


def main() -> None:
    """Prints what cannot be met; the exit code is 1 if there is anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", action="store_true")
    others = SYSTEMS if parser.parse_args().systems else {}
    systems = [(version, system) for version in VERSIONS for system in others]
    with ThreadPoolExecutor(4) as pool:
        here = pool.map(resolve_here, pythons())
        elsewhere = pool.map(lambda pair: find_wheels(*pair), systems)
        failures = [failure for failure in [*here, *elsewhere] if failure]
    print("\n".join(failures) or "constraints.txt can be met everywhere.")
    sys.exit(bool(failures))


def resolve_here(python: Path) -> str | None:
    """The error that stops pip from installing all parts for ``python`` on this system, or None."""
    everything = f"{ROOT}[{','.join([DEVELOPMENT, *optional_parts()])}]"
    held = ["--constraint", str(ROOT / "constraints.txt"), "--no-binary", SOURCES]
    return dry_run(str(python), ["--python", str(python)], *WHEELS, *held, everything)


def find_wheels(version: str, system: str) -> str | None:
    """The error that stops pip from finding a wheel of every pinned package for Python ``version``
    on ``system``, or None."""
    platforms, name = SYSTEMS[system]
    flags = [flag for platform in platforms for flag in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as folder:
        place = ["--python-version", version, *flags, "--target", folder, "--no-deps"]
        pins = list(pinned(version, name))
        return dry_run(f"Python {version}, {system}", [], *WHEELS, *place, *pins)


def pinned(version: str, system: str) -> Iterator[str]:
    """The pins of constraints.txt that apply to Python ``version`` on ``system``, a value of
    sys_platform, without the packages in `PURE`."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        place = {"python_version": version, "sys_platform": system}
        place["platform_machine"] = MACHINES[system]
        if pin.name not in PURE and (pin.marker is None or pin.marker.evaluate(place)):
            yield f"{pin.name}{pin.specifier}"


def dry_run(where: str, flags: list[str], *what: str) -> str | None:
    """The error that stops pip, run with ``flags``, from installing ``what``, or None. Prints
    ``where`` and whether pip succeeds."""
    command = [sys.executable, "-m", "pip", *flags, "--disable-pip-version-check"]
    command += ["install", "--quiet", "--dry-run", "--ignore-installed", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"{where}: {'no' if done.returncode else 'yes'}", flush=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    short = " ".join(line.partition(" (from versions")[0] for line in errors)
    return f"{where}: {short}" if done.returncode else None


if __name__ == "__main__":
    main()
