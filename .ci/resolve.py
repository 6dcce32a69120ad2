"""Check that constraints.txt can be met on all systems that docs/install.md names.

    python .ci/resolve.py              # Linux, with every Python
    python .ci/resolve.py --systems    # also other systems

uv resolves the package, the tests and all optional parts from the packages' metadata, as pip would
on that system. It downloads no package.
"""

from __future__ import annotations

import argparse
import configparser
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from environment import DEVELOPMENT, ROOT, SOURCES, optional_parts

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
LINUX = {"Linux": "x86_64-manylinux_2_35"}  # uv's name of the system
OTHERS = {
    "Linux on arm": "aarch64-manylinux_2_35",
    "macOS on arm": "aarch64-apple-darwin",
    "Windows": "x86_64-pc-windows-msvc",
}
OLDEST_MACOS = {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # that of PyTorch's wheels


def main() -> None:
    """Prints what cannot be met; the exit code is 1 if there is anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", action="store_true")
    systems = LINUX | (OTHERS if parser.parse_args().systems else {})
    places = [(version, system) for system in systems.items() for version in VERSIONS]
    with ThreadPoolExecutor(4) as pool:
        failures = [error for error in pool.map(lambda place: resolve(*place), places) if error]
    print("\n".join(failures) or "constraints.txt can be met everywhere.")
    sys.exit(bool(failures))


def requirements() -> str:
    """The requirements of the package, the tests and all optional parts, one a line."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    core = parser["options"]["install_requires"]
    tests = parser["options.extras_require"][DEVELOPMENT]
    return "\n".join([core, tests, *(line for part in optional_parts().values() for line in part)])


def resolve(version: str, system: tuple[str, str]) -> str | None:
    """The error that stops an installation of all parts for Python ``version`` on ``system``, its
    name and uv's, or None. Prints whether there is one."""
    name, platform = system
    where = f"Python {version}, {name}"
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "-"]
    command += ["--python-version", version, "--python-platform", platform]
    command += ["--constraint", str(ROOT / "constraints.txt")]
    command += ["--only-binary", ":all:", "--no-binary", SOURCES]
    done = subprocess.run(
        command,
        input=requirements(),
        capture_output=True,
        text=True,
        env=os.environ | OLDEST_MACOS,
        check=False,
    )
    print(f"{where}: {'no' if done.returncode else 'yes'}", flush=True)
    return f"{where}: {' '.join(done.stderr.split())}" if done.returncode else None


if __name__ == "__main__":
    main()
