"""Make the pictures and tables of README.md and docs/: ``python apps/figures.py``, some minutes on
two cores.

With ``--tables`` no field is fitted: the comparison is made from the rows in assets/results/ that
apps/benchmark.py wrote, and the speed table is copied from speed.md there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from nstr3d.bench.commits import find_commit
from nstr3d.bench.compare import read_rows
from nstr3d.bench.tables import PICTURE, SOUND, SURFACE, mean_of, plot, summary
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.flow import FlowJob, run_flow
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Output, PresetName, Training
from nstr3d.jobs.walk import REPORT

ROOT = Path(__file__).resolve().parents[1]
RESULTS, FIGURES = ROOT / "assets" / "results", ROOT / "assets" / "figures"
# The page on which each section that this program writes stands.
PAGES = {
    "numbers": "README.md",
    "presets": "docs/benchmarks.md",
    "comparison": "docs/benchmarks.md",
    "speed": "docs/speed.md",
}
SHAPES = ("bunny",)
RACES = (
    ("benchmark", "ngp", SURFACE, "Shapes"),
    ("images", "siren, rate 0.001, omega 30", PICTURE, "Pictures"),
    ("sounds", "siren, rate 0.001, omega 3000", SOUND, "Sounds"),
)
OURS, NGPS = "nstr", ("ngp", "ngp, batches of 1,024")
CLOSED = "nstr, closed form"
HEAD = (
    "| shape | preset | parameters | bytes | near x 1e-4 | normals | IoU | Chamfer | Hausdorff "
    "| fit s | total s |\n" + "|---" * 11 + "|"
)


def row(shape: str, preset: str, report: dict[str, Any]) -> str:
    """One line of the table of presets, from a report."""
    accuracy, field, seconds = report["accuracy"], report["field"], report["seconds"]
    cells = [
        shape,
        preset,
        "none" if field["parameters"] is None else f"{field['parameters']:,}",
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


MAIN_RACE = 100_000, "8 s"  # parameters and length of the race of which the README speaks


def rewrite(section: str, text: str) -> None:
    """Replaces the text between the marks of ``section`` on its page by ``text``.

    Raises ValueError if the page lacks the marks.
    """
    page, start, end = (
        ROOT / PAGES[section],
        f"<!-- {section}: made by apps/figures.py -->",
        f"<!-- end of {section} -->",
    )
    whole, count = re.subn(
        f"{start}.*?{end}",
        lambda match: f"{start}\n{text}\n{end}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{page} has the marks of {section} {count} times, not once.")
    with atomic_path(page) as temporary:
        temporary.write_text(whole)


def numbers() -> str:
    """The README's figures, from the results of the other programs."""
    lines = []
    for preset in ("instant", "fast", "standard"):
        report = json.loads((RESULTS / f"bunny-{preset}.json").read_text())
        accuracy, seconds = report["accuracy"], report["seconds"]["fit"]
        how = "without training" if report["field"]["parameters"] is None else "of training"
        lines.append(
            f"- `{preset}`: a bunny of {report['input']['faces']:,} faces becomes a field of "
            f"{report['field']['bytes'] / 1000:.0f} kB in {seconds:.1f} s {how} on "
            f"{report['machine']['threads']} CPU threads. Near the surface the distance is off by "
            f"{accuracy['distance_error_near'] / 2:.1e} of the side of the box, the normals by "
            f"{accuracy['normal_error_field']:.1f} degrees."
        )
    rows = read_rows(RESULTS / "benchmark.csv")
    ends = [row for row in rows if row.done == 1 and (row.budget, row.limit) == MAIN_RACE]
    ours, *ngps = (
        mean_of([row for row in ends if row.field == name], "near") for name in (OURS, *NGPS)
    )
    lines.append(
        f"- At {ends[0].budget:,} parameters and {ends[0].limit} of training, its near error is "
        f"{ours / min(ngps):.2f} times that of tuned Instant-NGP (mean of "
        f"{len({row.track for row in ends})} shapes)."
    )
    pictures = [row for row in read_rows(RESULTS / "images.csv") if row.field == CLOSED]
    lines.append(
        f"- The closed form fits {len({row.track for row in pictures})} photographs at "
        f"{mean_of(pictures, 'psnr'):.1f} dB with {pictures[0].budget:,} parameters."
    )
    return "\n".join([*lines, "", "Commands and conditions: [Benchmarks](docs/benchmarks.md)."])


def presets(out: Path) -> None:
    """Fits every shape with every preset in ``out``, writes the reports to assets/results/, and
    makes the table and the picture of the bunny."""
    rows, machine = [], {}
    for shape in SHAPES:
        for preset in get_args(PresetName):
            job = MeshJob(
                ROOT / "assets" / f"{shape}.obj",
                Training(preset),
                output=Output(out / f"{shape}-{preset}", overwrite=True),
            )
            report = run(job).report
            report["input"]["path"] = f"assets/{shape}.obj"
            machine = report["machine"]
            (RESULTS / f"{shape}-{preset}.json").write_text(json.dumps(report, indent=1) + "\n")
            rows.append(row(shape, preset, report))
            print(rows[-1], flush=True)
    shutil.copy(out / "bunny-standard" / "render.png", FIGURES / "bunny.png")
    where = (
        f"Seed 0, {machine['threads']} threads on {machine['device']}, commit {find_commit(ROOT)}; "
        "reports in assets/results/."
    )
    rewrite("presets", "\n".join([HEAD, *rows, "", where]))
    print(f"wrote {FIGURES / 'bunny.png'} and {len(rows)} x {REPORT} in {RESULTS}")


def flow(out: Path) -> None:
    """Fits assets/ripple.obj in ``out`` and makes the picture of its local frequency."""
    job = MeshJob(ROOT / "assets" / "ripple.obj", output=Output(out / "ripple", overwrite=True))
    run(job)
    run_flow(FlowJob(out / "ripple" / "model.safetensors", out / "ripple" / "flow", overwrite=True))
    shutil.copy(out / "ripple" / "flow" / "flow.png", FIGURES / "flow.png")
    print(f"wrote {FIGURES / 'flow.png'}")


def comparison() -> None:
    """Makes the comparison and the plots from the races in assets/results/, one kind of
    signal after the other."""
    parts = []
    for name, base, measures, words in RACES:
        rows = read_rows(RESULTS / f"{name}.csv")
        if rows:
            tracks, commits = (
                list(dict.fromkeys(names))
                for names in ([r.track for r in rows], [r.commit for r in rows])
            )
            where = (
                f"{words}: {', '.join(tracks)}. {rows[0].threads} threads on {rows[0].device}, "
                f"commit {', '.join(commits)}."
            )
            parts.append(f"{summary(rows, base, measures)}\n{where}\n")
            print("wrote", *plot(rows, FIGURES, measures[0]))
    rewrite("comparison", "\n".join(parts))


def main(args: Sequence[str] | None = None) -> int:
    """Makes all pictures and tables, or with ``--tables`` only the comparison and the speed table.
    Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out" / "figures", help="folder for the fits"
    )
    parser.add_argument(
        "--tables", action="store_true", help="fit nothing; use the rows already measured"
    )
    options = parser.parse_args(args)
    RESULTS.mkdir(exist_ok=True)
    FIGURES.mkdir(exist_ok=True)
    if not options.tables:
        presets(options.out)
        flow(options.out)
    comparison()
    rewrite("numbers", numbers())
    # `apps/benchmark.py speed --out assets/results` writes speed.md.
    rewrite("speed", (RESULTS / "speed.md").read_text().rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
