"""Find the Pythons of this machine that nstr3d supports, one for each minor version.

python .ci/pythons.py    # prints their paths, the oldest first
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

MINORS = range(10, 16)
FOLDERS = ("~/.pyenv/versions/3.{}.*/bin", "~/.local/share/uv/python/*-3.{}.*/bin")


def pythons() -> list[Path]:
    """The paths of the interpreters, the oldest first."""
    interpreters = (next(filter(runs, candidates(minor)), None) for minor in MINORS)
    return [python for python in interpreters if python]


def candidates(minor: int) -> list[Path]:
    """Paths where Python 3.``minor`` may be: on PATH, and in the folders of version managers."""
    on_path = shutil.which(f"python3.{minor}")
    managed = [
        path / "python3"
        for folder in FOLDERS
        for path in sorted(Path.home().glob(folder.format(minor).removeprefix("~/")), reverse=True)
    ]
    return [*([Path(on_path)] if on_path else []), *managed]


def runs(python: Path) -> bool:
    """Whether ``python`` starts and can make environments; a version manager's stand-in may not."""
    program = [python, "-c", "import venv, ensurepip"]
    return python.exists() and not subprocess.run(program, capture_output=True).returncode


if __name__ == "__main__":
    print(*pythons(), sep="\n")
