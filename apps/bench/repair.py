"""Measure how well hidden pixels are filled: ``python apps/bench/repair.py PICTURES``.

The pictures are crops of photographs, given as files, and textures of waves that this script
makes. Masks hide square holes, scratches, and half of all pixels. The fill of
``nstr3d fit --mask`` competes with its smooth part alone, with scikit-image's inpaint_biharmonic,
and with the median and the mean of the known pixels. Writes repair.md, and a picture of the
textures before and after as repair.jpg, to --out. Needs scikit-image: pip install nstr3d[bench].
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from nstr3d.bench.commits import find_commit
from nstr3d.cli.command import guarded
from nstr3d.fields.closed.smoothfill import smooth_fill
from nstr3d.fields.closed.wavefill import fill
from nstr3d.io import load_image
from nstr3d.io.atomic import atomic_path
from nstr3d.signals.ratios import psnr

ROOT = Path(__file__).resolve().parents[2]
HOLES = {60: 1, 24: 4, 12: 6, 6: 9}  # number of square holes by their side in pixels
MARGIN = 12  # pixels between a hole and the border or another hole, at least
SCRATCHES, BREADTH = 8, 1.5  # number of lines, and half their width in pixels
QUALITY = 80  # of the JPEG file
ZOOM = 4  # magnification of the details pictured


@dataclass(frozen=True)
class Options:
    """Measure how well hidden pixels are filled."""

    pictures: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Photographs; of each, the central square is used."""
    out: Path = Path("out/repair")
    """Folder of repair.md and repair.jpg."""
    size: int = 256
    """Side of the square in pixels."""
    seed: int = 0
    """Seed of the masks and of the noise of the textures."""


@dataclass(frozen=True)
class Result:
    """PSNR over the hidden pixels in dB, and seconds, by method."""

    picture: str
    mask: str
    texture: bool
    decibels: dict[str, float]
    seconds: dict[str, float]


def textures(size: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Pictures ``(size, size, c)`` in [0, 1] that consist of waves: a zone plate, ridges of a
    finger, blinds, a plain weave and a coloured twill. The last two have noise."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    turn = 2 * np.pi
    ring = (x - 0.45 * size) ** 2 + (y - 0.55 * size) ** 2
    slat = (0.12 * x + 0.99 * y) / 14 + 0.15 * np.sin(x / 60)
    tent = np.sqrt(np.clip(1 - np.abs(slat % 1 - 0.5) * 2.4, 0, 1))
    warp, weft = turn * (x + 6 * np.sin(y / 45)) / 9, turn * (y + 5 * np.sin(x / 50)) / 7
    rib = turn * (0.8 * x + 0.6 * y) / 11 + 0.4 * np.sin(y / 40)
    bend = 2 * np.sin(y / 50) + 1.5 * np.sin(x / 70 + 1)
    cloth = 0.5 + 0.22 * np.cos(warp) * np.cos(weft) + 0.12 * np.cos(warp) + 0.1 * np.cos(2 * weft)
    dyes = 0.3 * np.tanh(2 * np.cos(rib)), 0.25 * np.cos(rib), 0.1 * np.cos(turn * (x - y) / 17)
    pictures = {
        "zone plate": 0.5 + 0.45 * np.cos(0.35 * np.pi * ring / size),
        "finger": 0.5 + 0.4 * np.cos(turn * np.hypot(x - 300, y + 80) / 10 + bend),
        "blinds": (0.25 + 0.6 * tent) * (0.8 + 0.2 * x / size),
        "weave": cloth + 0.02 * generator.standard_normal((size, size)),
        "twill": 0.45 + np.stack(dyes, -1) + 0.01 * generator.standard_normal((size, size, 3)),
    }
    return {
        name: (np.clip(values, 0, 1) * 255).round().reshape(size, size, -1) / 255
        for name, values in pictures.items()
    }


def masks(size: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """The hidden pixels ``(size, size)`` of each mask, the widest hole first. Holes too wide for
    the picture are left out."""
    hidden = {}
    for side, count in HOLES.items():
        if side + 2 * MARGIN >= size:
            continue
        corners, mask = [], np.zeros((size, size), bool)
        for corner in generator.integers(MARGIN, size - side - MARGIN, (1000, 2)):
            apart = all(np.abs(corner - other).max() >= side + MARGIN for other in corners)
            if apart and len(corners) < count:
                corners.append(corner)
                mask[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = True
        hidden[f"holes of {side}"] = mask
    y, x = np.mgrid[:size, :size]
    scratches = np.zeros((size, size), bool)
    for angle, *middle in generator.random((SCRATCHES, 3)):
        across = np.cos(np.pi * angle), np.sin(np.pi * angle)
        offset = (x - middle[0] * size) * across[0] + (y - middle[1] * size) * across[1]
        scratches |= np.abs(offset) < BREADTH
    hidden["lines"] = scratches
    hidden["half"] = generator.random((size, size)) < 0.5
    return hidden


def biharmonic(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The fill of scikit-image."""
    from skimage.restoration import inpaint_biharmonic

    return inpaint_biharmonic(values, ~known, channel_axis=-1)


def smooth(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The smooth part of our fill, within the range of the known pixels."""
    seen = values[known]
    return smooth_fill(values, known).clip(seen.min(axis=0), seen.max(axis=0))


def median(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The median colour of the known pixels."""
    return np.where(known[..., None], values, np.median(values[known], axis=0))


def mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The mean colour of the known pixels."""
    return np.where(known[..., None], values, values[known].mean(axis=0))


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ours": fill,
    "without waves": smooth,
    "biharmonic": biharmonic,
    "median": median,
    "mean": mean,
}


def measure(name: str, values: np.ndarray, label: str, hidden: np.ndarray, texture: bool) -> Result:
    """The result of every method on one picture with one mask."""
    decibels, seconds, seen = {}, {}, np.where(hidden[..., None], 0.0, values)
    for method, function in METHODS.items():
        start = time.perf_counter()
        filled = function(seen, ~hidden)
        seconds[method] = time.perf_counter() - start
        decibels[method] = psnr(filled[hidden], values[hidden], 1.0)
    return Result(name, label, texture, decibels, seconds)


def square(path: Path, size: int) -> np.ndarray:
    """The central square ``(size, size, c)`` of the picture in ``path``. Raises ValueError if the
    picture is smaller."""
    values = load_image(path)[..., :3].astype(np.float64)
    top, left = ((n - size) // 2 for n in values.shape[:2])
    if min(top, left) < 0:
        raise ValueError(f"{path} is smaller than {size} x {size} pixels; choose a smaller size.")
    return values[top : top + size, left : left + size]


def strip(values: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A row of pictures: what is known, biharmonic, ours, truth; below, their hole magnified."""
    known = ~hidden
    seen = np.where(hidden[..., None], 0.0, values)
    views = [seen, biharmonic(seen, known), fill(seen, known), values]
    rows, columns = (np.flatnonzero(hidden.any(axis=axis)) for axis in (1, 0))
    side = values.shape[0] // ZOOM
    top, left = (
        int(np.clip((n[0] + n[-1]) // 2 - side // 2, 0, values.shape[0] - side))
        for n in (rows, columns)
    )
    detail = [view[top : top + side, left : left + side] for view in views]
    detail = [view.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1) for view in detail]
    joined = np.concatenate([np.concatenate(row, axis=1) for row in (views, detail)], axis=0)
    return np.broadcast_to(joined, (*joined.shape[:2], 3))


def run(options: Options) -> None:
    """Measures every picture with every mask and writes the page and the picture."""
    options.out.mkdir(parents=True, exist_ok=True)
    photographs = {path.stem: square(path, options.size) for path in options.pictures}
    generator = np.random.default_rng(options.seed)
    waves, hidden = textures(options.size, generator), masks(options.size, generator)
    results, commit = [], find_commit(ROOT)
    for pictures in (waves, photographs):
        for name, values in pictures.items():
            for label, mask in hidden.items():
                results.append(measure(name, values, label, mask, pictures is waves))
            print(f"{name} measured", file=sys.stderr, flush=True)
    largest = next(iter(hidden.values()))
    seen = np.concatenate([strip(values, largest) for values in waves.values()])
    with atomic_path(options.out / "repair.jpg") as temporary:
        pixels = (np.clip(seen, 0, 1) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(temporary, "JPEG", quality=QUALITY)
    text = page(results, options, commit)
    with atomic_path(options.out / "repair.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def page(results: Sequence[Result], options: Options, commit: str) -> str:
    """The tables in markdown."""
    parts = [
        "# Hidden pixels filled",
        "`python apps/bench/repair.py PICTURES`: PSNR in dB over the hidden pixels of squares of "
        f"{options.size} x {options.size} pixels, seed {options.seed}, commit {commit}. "
        "*ours* is the fill of `nstr3d fit --mask`, *without waves* its smooth part alone, "
        "*biharmonic* scikit-image's inpaint_biharmonic, *median* and *mean* those of the known "
        "pixels.",
    ]
    for title, texture in (("Textures of waves", True), ("Photographs", False)):
        chosen = [result for result in results if result.texture is texture]
        if chosen:
            parts += [f"## {title}", summary(chosen), "### Ours - biharmonic", gains(chosen)]
    picture = "![Known, biharmonic, ours and truth, and the hole magnified](repair.jpg)"
    return "\n\n".join([*parts, "## Pictures", picture]) + "\n"


def summary(results: Sequence[Result]) -> str:
    """A line per mask: means over the pictures, and seconds of ours and of biharmonic."""
    lines = [
        "| mask | " + " | ".join(METHODS) + " | least gain | ours s | biharmonic s |",
        "|---" * (len(METHODS) + 4) + "|",
    ]
    for mask in dict.fromkeys(result.mask for result in results):
        rows = [result for result in results if result.mask == mask]
        cells = [f"{np.mean([row.decibels[method] for row in rows]):.1f}" for method in METHODS]
        least = min(gain(row) for row in rows)
        timed = [
            f"{np.mean([row.seconds[method] for row in rows]):.2f}"
            for method in ("ours", "biharmonic")
        ]
        lines.append("| " + " | ".join([mask, *cells, f"{least:+.2f}", *timed]) + " |")
    return "\n".join(lines)


def gains(results: Sequence[Result]) -> str:
    """A line per picture: dB gained on biharmonic with each mask."""
    labels = list(dict.fromkeys(result.mask for result in results))
    lines = ["| picture | " + " | ".join(labels) + " |", "|---" * (len(labels) + 1) + "|"]
    for name in dict.fromkeys(result.picture for result in results):
        rows = {result.mask: result for result in results if result.picture == name}
        cells = [f"{gain(rows[label]):+.2f}" for label in labels]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def gain(result: Result) -> float:
    """What ours gains on biharmonic in dB."""
    return result.decibels["ours"] - result.decibels["biharmonic"]


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: run(tyro.cli(Options, prog="repair.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
