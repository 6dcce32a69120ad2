"""The README's Python blocks run unchanged and in order, and give what the text states."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nstr3d import load_mesh

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def namespace(tmp_path, monkeypatch):
    """The names that the blocks define when they run in order in an empty folder with a link to
    the assets."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_blocks_run_and_leave_what_they_promise(namespace):
    original, fitted = load_mesh("assets/bunny.obj"), load_mesh("bunny_nstr.ply")
    np.testing.assert_allclose(
        fitted.bounds.centre, original.bounds.centre, atol=0.02 * original.bounds.diagonal
    )
    assert Path("bunny.png").read_bytes().startswith(b"\x89PNG")
    assert namespace["distance"].shape == (1000,)
    assert namespace["normals"].shape == (1000, 3)
    np.testing.assert_allclose(
        np.linalg.norm(namespace["ball"].mesh.vertices, axis=1).mean(), 1, atol=0.01
    )
    np.testing.assert_allclose(namespace["ball"].noise, 0.02, rtol=0.2)
    assert namespace["image_field"].in_dim == 2
    assert namespace["fine"].shape == (768, 1024, 3)
    assert namespace["values"].shape == (2, 1000, 1)
    assert next(iter(namespace["loader"]))["points"].shape == (2, 4096, 3)
    assert namespace["picture"].shape == (128, 128, 3)


def test_commands_and_files_named_exist():
    names = set(re.findall(r"\b(?:apps|assets)/[\w/]+\.(?:py|obj|png|wav)", README))
    assert {"apps/fit_mesh.py", "assets/bunny.obj"} <= names
    assert {name for name in names if not (ROOT / name).exists()} == set()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    assert {"demo", "test"} <= targets <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
