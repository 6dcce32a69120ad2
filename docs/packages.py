"""Draws the packages of nstr3d and their imports into docs/architecture.md.

python docs/packages.py            # rewrites the diagram and the table
python docs/packages.py --check    # fails where they are not what the imports say
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- packages: made by docs/packages.py -->", "<!-- end of packages -->"


def main(words: list[str] | None = None) -> int:
    """Writes the page, or checks it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = PAGE.read_text(encoding="utf-8")
    drawn = redrawn(text)
    if parser.parse_args(words).check:
        return int(drawn != text)
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


def redrawn(text: str) -> str:
    """The page ``text`` with the diagram and the table that the imports give."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{diagram()}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def diagram() -> str:
    """The packages as a Mermaid graph; an import that another path implies is not drawn."""
    needs = imports()
    reach = {name: reachable(name, needs) for name in needs}
    lines = ["```mermaid", "graph BT"]
    for name, below in needs.items():
        implied = set().union(*(reach[other] for other in below))
        lines += [f"    {name} --> {other}" for other in sorted(below - implied)]
    return "\n".join([*lines, "```"])


def table() -> str:
    """The first sentence of each package and root module."""
    rows = ["| package | subject |", "|---|---|"]
    for name in imports():
        doc = ast.get_docstring(ast.parse(files_of(name)[0].read_text(encoding="utf-8"))) or ""
        first = re.split(r"(?<=\.)\s|\n\n", doc)[0].replace("\n", " ")
        rows.append(f"| `{name}` | {first} |")
    return "\n".join(rows)


def imports() -> dict[str, set[str]]:
    """The packages and root modules of nstr3d, the lowest first, and which others each imports."""
    folder = ROOT / "nstr3d"
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or has_code(path)}
    names -= {"__init__", "__main__"}
    needs = {name: {other for other in imported(name) if other in names} for name in names}
    order: dict[str, set[str]] = {}
    while len(order) < len(needs):
        ready = sorted(n for n in needs if n not in order and needs[n] - {n} <= order.keys())
        order |= {name: needs[name] - {name} for name in ready}
    return order


def imported(name: str) -> set[str]:
    """The first names after ``nstr3d.`` that the files of a package import."""
    found = set()
    for path in files_of(name):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nstr3d."):
                found.add(str(node.module).split(".")[1])
    return found


def reachable(name: str, needs: dict[str, set[str]]) -> set[str]:
    """Every package that ``name`` imports, and what those import in turn."""
    return needs[name].union(*(reachable(other, needs) for other in needs[name]))


def files_of(name: str) -> list[Path]:
    """The files of a package, its ``__init__`` first, or of a root module."""
    folder = ROOT / "nstr3d" / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def has_code(path: Path) -> bool:
    return (path / "__init__.py").exists()


if __name__ == "__main__":
    sys.exit(main())
