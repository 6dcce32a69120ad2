"""Which commit a result was measured at."""

from __future__ import annotations

import subprocess
from pathlib import Path


def find_commit(folder: Path) -> str:
    """Short hash of the commit checked out in ``folder``, empty where ``folder`` is in no git
    repository. Raises FileNotFoundError without git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return found.stdout.strip()
