"""The commit that a result was measured at."""

from __future__ import annotations

import subprocess
from pathlib import Path


def find_commit(folder: Path) -> str:
    """The short hash of the commit checked out in ``folder``, empty if that is not the top of a git
    repository, as for an installed package, and where git is not installed."""
    if not (folder / ".git").exists():
        return ""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
