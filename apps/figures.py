"""Remake the README's picture and table from measurements: ``python apps/figures.py``, some minutes on two cores."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nstr3d.jobs import REPORT, MeshJob, run
from nstr3d.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ("bunny",)
HEAD = """| shape | preset | parameters | bytes | near x 1e-4 | normals | IoU | Chamfer | Hausdorff | fit s | total s |
|---|---|---|---|---|---|---|---|---|---|---|"""


def row(shape: str, preset: str, report: dict[str, Any]) -> str:
    """One line of the README's table from a report."""
    accuracy, field, seconds = report["accuracy"], report["field"], report["seconds"]
    cells = [
        shape,
        preset,
        f"{field['parameters']:,}",
        f"{field['bytes']:,}",
        f"{accuracy['distance_error_near'] * 1e4:.2f}",
        f"{accuracy['normal_error_field']:.2f} deg",
        f"{accuracy['iou_volume']:.4f}",
        f"{accuracy['chamfer']:.1e}",
        f"{accuracy['hausdorff']:.1e}",
        f"{seconds['fit']:.1f}",
        f"{seconds['total']:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(args: Sequence[str] | None = None) -> int:
    """Fits every shape with every preset, keeps the reports in assets/results/, and writes table and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "figures")
    options = parser.parse_args(args)
    results, figures = ROOT / "assets" / "results", ROOT / "assets" / "figures"
    results.mkdir(exist_ok=True)
    figures.mkdir(exist_ok=True)
    rows, machine = [], {}
    for shape in SHAPES:
        for preset in PRESETS:
            out = options.out / f"{shape}-{preset}"
            job = MeshJob(ROOT / "assets" / f"{shape}.obj", out, preset=preset, overwrite=True)
            report = run(job).report
            report["input"]["path"] = f"assets/{shape}.obj"
            machine = report["machine"]
            (results / f"{shape}-{preset}.json").write_text(json.dumps(report, indent=1) + "\n")
            rows.append(row(shape, preset, report))
            print(rows[-1], flush=True)
    shutil.copy(options.out / "bunny-standard" / "render.png", figures / "bunny.png")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    where = f"Seed 0, {machine['threads']} threads on {machine['device']}, commit {commit.strip()}; reports in assets/results/."
    table = "\n".join(["<!-- presets: made by apps/figures.py -->", HEAD, *rows, "", where, "<!-- end of presets -->"])
    readme = ROOT / "README.md"
    pattern = r"<!-- presets: made by apps/figures.py -->.*?<!-- end of presets -->"
    readme.write_text(re.sub(pattern, lambda found: table, readme.read_text(), flags=re.DOTALL))
    print(f"wrote {readme}, {figures / 'bunny.png'} and {len(rows)} x {REPORT} in {results}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
