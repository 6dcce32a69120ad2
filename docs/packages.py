"""Draw the packages of nstr3d and their imports into docs/architecture.md.

python docs/packages.py            # rewrites the diagram and the table
python docs/packages.py --check    # exit code 1 if the page does not match the imports
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
    """Writes the page, or checks it with ``--check``. Returns the exit code: 1 if the checked page
    does not match the imports, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = PAGE.read_text(encoding="utf-8")
    drawn = redrawn(text)
    if parser.parse_args(words).check:
        return int(drawn != text)
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


def redrawn(text: str) -> str:
    """The page ``text`` with a new diagram and table between the marks."""
    before, _, after = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{diagram()}\n\n{table()}\n\n{END}{after.partition(END)[2]}"


def diagram() -> str:
    """The packages as a Mermaid graph, without the imports that another path implies."""
    needs = imports()
    reach = {name: reachable(name, needs) for name in needs}
    lines = ["```mermaid", "graph BT"]
    for name, below in needs.items():
        implied = set().union(*(reach[other] for other in below))
        lines += [f"    {name} --> {other}" for other in sorted(below - implied)]
    return "\n".join([*lines, "```"])


def table() -> str:
    """A Markdown table with the first docstring sentence of each package and root module."""
    rows = ["| package | subject |", "|---|---|"]
    for name in imports():
        doc = ast.get_docstring(ast.parse(files_of(name)[0].read_text(encoding="utf-8"))) or ""
        first = re.split(r"(?<=\.)\s|\n\n", doc)[0].replace("\n", " ")
        rows.append(f"| `{name}` | {first} |")
    return "\n".join(rows)


def imports() -> dict[str, set[str]]:
    """For each package and root module of nstr3d, the lowest first, the others that it imports."""
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
    """The packages and root modules of nstr3d that the files of ``name`` import from."""
    targets = set()
    for path in files_of(name):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nstr3d."):
                targets.add(str(node.module).split(".")[1])
    return targets


def reachable(name: str, needs: dict[str, set[str]]) -> set[str]:
    """All packages that ``name`` imports, directly or indirectly."""
    return needs[name].union(*(reachable(other, needs) for other in needs[name]))


def files_of(name: str) -> list[Path]:
    """The Python files of the package or root module ``name``, ``__init__.py`` first."""
    folder = ROOT / "nstr3d" / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def has_code(path: Path) -> bool:
    return (path / "__init__.py").exists()


if __name__ == "__main__":
    sys.exit(main())
