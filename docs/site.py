"""What the site has besides docs/: the README as its first page, the changes, the pictures, and a
page with every public name. mkdocs calls these functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": ROOT / "README.md", "changes.md": ROOT / "CHANGELOG.md"}
LINK = re.compile(r"(\]\()((?:\.\./)?(?:docs|assets)/|\.\./README\.md)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and pictures that are not in docs/."""
    for name, path in PAGES.items():
        files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference.md", content=reference()))
    for folder in ("figures", "gallery"):
        for path in sorted((ROOT / "assets" / folder).glob("*.png")):
            name = f"assets/{folder}/{path.name}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Changes links between docs/, assets/ and the README into links within the site."""

    def within(found: re.Match[str]) -> str:
        start, target = found.groups()
        if target.endswith("README.md"):
            return f"{start}index.md"
        return start + ("" if target.endswith("docs/") else "assets/")

    return LINK.sub(within, markdown)


def reference() -> str:
    """The page of the public names: those of ``nstr3d.__all__``, by their modules."""
    tree = ast.parse((ROOT / "nstr3d" / "__init__.py").read_text(encoding="utf-8"))
    homes: dict[str, str] = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES"
    )
    lines = ["# Reference", "", "Every name is imported from `nstr3d`.", ""]
    lines += [f"::: nstr3d.{homes[name]}.{name}\n" for name in sorted(homes, key=str.lower)]
    return "\n".join(lines)
