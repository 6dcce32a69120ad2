"""The options of the races, of ``nstr3d bench speed`` and of ``nstr3d bench device``, apart from
what acts on them, so that help needs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

HELP = """Race our fields against their controls and baselines.

The files are meshes, images and sounds; the default is two of our meshes, which are in the source
of nstr3d. Each finished race is written at once. A second run continues: it keeps finished rows.
Results go to --out: benchmark.csv (meshes), images.csv and sounds.csv, with tables (markdown) and
plots. Plots need matplotlib: pip install nstr3d[bench].

The word speed in place of files measures speed instead, and has its own options.
"""
ROOT = Path(__file__).resolve().parents[2]  # the source of nstr3d, if the module is not installed
BUNNY = ROOT / "assets" / "bunny.obj"
OURS = tuple(ROOT / "assets" / f"{name}.obj" for name in ("bunny", "ripple"))

# Fractions of a contender's training after which it is measured; it is also measured at the end.
MARKS = (0.05, 0.1, 0.2, 0.4, 0.7)
POOL = 1_000_000  # training samples, those of FitConfig
TESTS = 20_000  # test points of each kind for a distance field
RESOLUTION = 256  # cells per axis of the mesh that is extracted at the end
TURNS, TURN = 5, 0.25  # of each field whose rates are compared: turns, and seconds of one


def add_race_options(
    parser: argparse.ArgumentParser, seconds: float | None = None, steps: int | None = None
) -> None:
    """Adds the options that all races have: seeds, length, training data and tests.

    A race lasts for ``seconds`` by default, or without them for ``steps``.
    """
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    if seconds is not None:
        parser.add_argument(
            "--seconds",
            type=float,
            default=seconds,
            help="training time of each field in each race",
        )
    instead = ", not for seconds" if seconds is not None else ""
    parser.add_argument(
        "--steps", type=int, default=steps, help=f"race for this number of steps{instead}"
    )
    parser.add_argument("--pool", type=int, default=POOL, help="training samples of a mesh")
    parser.add_argument(
        "--tests",
        type=int,
        default=TESTS,
        help="points of each kind at which a mesh's errors are measured",
    )


def parse(args: Sequence[str], prog: str) -> argparse.Namespace:
    """The options in the words ``args`` of the program ``prog``. Raises SystemExit for unknown
    words."""
    options = _parser(prog).parse_args(args)
    if options.quick:
        options.signals, options.budgets, options.marks = list(OURS), [100_000], ()
        options.seeds, options.seconds, options.mesh = [0, 1], 8.0, False
    return options


def _parser(prog: str) -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "signals",
        nargs="*",
        type=Path,
        default=list(OURS),
        help="meshes, images, sounds, and folders of them",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out") / "benchmark", help="folder for the results"
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=int,
        help="learned parameters; 25k, 100k and 400k for meshes by default",
    )
    add_race_options(parser, seconds=15.0)
    _add_measures(parser)
    return parser


def _add_measures(parser: argparse.ArgumentParser) -> None:
    """Adds the options on what is raced, for how long, and how it is measured."""
    parser.add_argument(
        "--marks",
        nargs="*",
        type=float,
        default=MARKS,
        help="fractions of the training after which to measure",
    )
    parser.add_argument(
        "--no-mesh",
        dest="mesh",
        action="store_false",
        help="leave out the measures of the extracted mesh",
    )
    parser.add_argument(
        "--resolution",
        type=int,
        default=RESOLUTION,
        help="grid cells per axis of the extracted mesh",
    )
    parser.add_argument("--fields", nargs="+", help="only the contenders of these names")
    parser.add_argument(
        "--tune",
        metavar="BASELINE",
        help="race a baseline's variants on meshes: siren, fourier or ngp",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two of our meshes, 100k parameters, two seeds, 8 s: about 8 minutes",
    )


def parse_speed(args: Sequence[str], prog: str) -> argparse.Namespace:
    """The options in the words ``args`` of the program ``prog``. Raises SystemExit for unknown
    words."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Measure speed; write speed.json, roofline.md and speed.md to --out."
    )
    parser.add_argument("mesh", nargs="?", type=Path, default=BUNNY)
    parser.add_argument(
        "--out", type=Path, default=Path("out") / "speed", help="folder for the results"
    )
    parser.add_argument(
        "--device", default="cpu", help="torch device; cuda measures the GPU's kernels"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--params", type=int, default=100_000)
    parser.add_argument("--pool", type=int, default=300_000, help="training samples")
    parser.add_argument(
        "--turns", type=int, default=TURNS, help="turns of each field whose rates are compared"
    )
    parser.add_argument("--turn", type=float, default=TURN, help="seconds of each turn")
    parser.add_argument(
        "--steps",
        type=int,
        default=1500,
        help="training steps of the field that is extracted and traced",
    )
    parser.add_argument("--resolutions", nargs="+", type=int, default=[256, 512, 1024])
    parser.add_argument(
        "--memory",
        nargs="*",
        type=int,
        default=[256, 512, 1024, 2048],
        help="resolutions at which memory is measured",
    )
    parser.add_argument(
        "--dense", type=int, default=512, help="resolution of the dense evaluation; 0 leaves it out"
    )
    parser.add_argument(
        "--size", type=int, default=512, help="pixels per side of the picture that is traced"
    )
    parser.add_argument(
        "--no-compile",
        dest="compile",
        action="store_false",
        help="do not measure the time to compile the kernels",
    )
    parser.add_argument(
        "--race",
        action="store_true",
        help="measure the time to reach the errors of Instant-NGP and SIREN; takes minutes",
    )
    return parser.parse_args(args)


def parse_device(args: Sequence[str], prog: str) -> argparse.Namespace:
    """The options in the words ``args`` of the program ``prog``. Raises SystemExit for unknown
    words."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Show the paths of computation of this machine, the error and the speed of "
        "each, and which path fits take.",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument(
        "--path", default="auto", help="auto, or triton, torch or cpu to ask for one path"
    )
    parser.add_argument(
        "--again", action="store_true", help="measure again, instead of reading what was kept"
    )
    parser.add_argument("--out", type=Path, help="file for the same figures as JSON")
    return parser.parse_args(args)
