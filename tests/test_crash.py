"""A few kills and races of ``apps/bench/crash.py``; its page has hundreds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")
def test_kills_and_races_leave_whole_sets(tmp_path: Path) -> None:
    words = ["--kills", "4", "--races", "2", "--only", "image", "--out", str(tmp_path)]
    command = [sys.executable, str(ROOT / "apps/bench/crash.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    rows = [line.split(" | ") for line in ended.stdout.splitlines() if "image" in line]
    assert sum(int(row[1]) for row in rows[-4:]) == 6
    assert all(row[-1] == "0 |" for row in rows[-4:])
    assert (tmp_path / "crash.md").read_text() in ended.stdout
