"""Checks that constraints.txt can be met where the README says that nstr3d runs.

    python .ci/resolve.py              # every Python at hand
    python .ci/resolve.py --systems    # other systems too, which takes minutes

Every Python at hand resolves the package, the tests and all optional parts, as pip would for the
running system. For other systems pip reads the markers of the running one, so there the check is
that each pinned package has a wheel for the system or is pure Python.
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
SYSTEMS = {  # pip's platforms, and what the markers of requirements say there
    "Linux on arm": (ARM, "linux"),
    "macOS on arm": (["macosx_14_0_arm64"], "darwin"),
    "Windows": (["win_amd64"], "win32"),
}
WHEELS = ["--only-binary", ":all:"]
PURE = (SOURCES, "pyrender", "imageio-ffmpeg")  # without a wheel, or with one that needs PyOpenGL's


def main() -> None:
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
    """What stops this Python's pip from installing everything on this system."""
    everything = f"{ROOT}[{','.join([DEVELOPMENT, *optional_parts()])}]"
    held = ["--constraint", str(ROOT / "constraints.txt"), "--no-binary", SOURCES]
    return dry_run(str(python), ["--python", str(python)], *WHEELS, *held, everything)


def find_wheels(version: str, system: str) -> str | None:
    """What stops pip from finding a wheel of every pinned package for this Python and system."""
    platforms, name = SYSTEMS[system]
    flags = [flag for platform in platforms for flag in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as folder:
        place = ["--python-version", version, *flags, "--target", folder, "--no-deps"]
        pins = list(pinned(version, name))
        return dry_run(f"Python {version}, {system}", [], *WHEELS, *place, *pins)


def pinned(version: str, system: str) -> Iterator[str]:
    """The pins of constraints.txt that count for this Python and system."""
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        place = {"python_version": version, "sys_platform": system}
        if pin.name not in PURE and (pin.marker is None or pin.marker.evaluate(place)):
            yield f"{pin.name}{pin.specifier}"


def dry_run(where: str, flags: list[str], *what: str) -> str | None:
    """What stops pip, with its own ``flags``, from installing ``what``."""
    command = [sys.executable, "-m", "pip", *flags, "--disable-pip-version-check"]
    command += ["install", "--quiet", "--dry-run", "--ignore-installed", *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"{where}: {'no' if done.returncode else 'yes'}", flush=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    short = " ".join(line.partition(" (from versions")[0] for line in errors)
    return f"{where}: {short}" if done.returncode else None


if __name__ == "__main__":
    main()
