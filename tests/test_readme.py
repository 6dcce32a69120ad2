"""The Python blocks of README.md and docs/ run in order and give what the text states; the
commands, files and links that the pages name exist."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from nstr3d import load_mesh

ROOT = Path(__file__).resolve().parents[1]
# A page may use what the blocks of an earlier page define or write.
ORDER = (
    "python",
    "queries",
    "signals",
    "look",
    "export",
    "flow",
    "points",
    "datasets",
    "method",
    "extend",
)
README = ROOT / "README.md"
PAGES = {path: path.read_text() for path in (README, *sorted((ROOT / "docs").glob("*.md")))}
TEXT = "\n".join(PAGES.values())


def run(path: Path, names: dict) -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGES[path], re.DOTALL):
        exec(compile(block, path.name, "exec"), names)


@pytest.fixture
def namespace(tmp_path, monkeypatch):
    """The names that the blocks define when they run in order in an empty folder with a link to
    the assets."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for name in ORDER:
        run(ROOT / "docs" / f"{name}.md", names)
    demo = Path("out/bunny/model.safetensors")  # what the README's first command writes
    demo.parent.mkdir(parents=True)
    shutil.copy("bunny.safetensors", demo)
    run(README, names)
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


def test_every_page_with_python_is_run():
    with_blocks = {path.stem for path, text in PAGES.items() if "```python" in text}
    assert with_blocks == {"README", *ORDER}


def test_commands_and_files_named_exist():
    names = set(re.findall(r"\b(?:apps|assets)/[\w/]+\.(?:py|obj|png|wav|md|csv)", TEXT))
    assert {"apps/fit_mesh.py", "assets/bunny.obj"} <= names
    assert {name for name in names if not (ROOT / name).exists()} == set()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+)", TEXT, re.MULTILINE))
    assert {"demo", "test"} <= targets <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))


def test_links_lead_somewhere_and_to_every_page():
    reached = {README}
    for path, text in PAGES.items():
        for link in re.findall(r"\]\(([^)#\s]+)\)", text):
            if not link.startswith("http"):
                target = (path.parent / link).resolve()
                assert target.exists(), f"{path.name} links to {link}"
                reached.add(target)
    assert set(PAGES) <= reached


def test_the_readme_is_one_screen():
    text = PAGES[README]
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 900
