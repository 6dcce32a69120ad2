"""Pictures of signals: spectrograms, and views in rows and columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nstr3d.render.colours import coloured
from nstr3d.render.labels import INK, PAPER, scale_bar, titled, type_size, write
from nstr3d.signals.spectrogram import magnitudes

GAP = 8  # white pixels between views
SIDE = 1024  # pixels along the longest side of a view, at most
FRAME = 1024  # samples of a spectrogram's window
COLUMNS, ROWS = 1200, 288  # pixels of a spectrogram
OCTAVES = 9  # octaves of its frequencies, below half the sample rate
RANGE = 100.0  # dB from the darkest to the brightest colour


def opaque(values: np.ndarray) -> np.ndarray:
    """Colours ``(h, w, 3)`` in [0, 1] of ``values (h, w, c)`` with 1, 3 or 4 channels.

    Transparent pixels show a chequered ground.
    """
    values = values.clip(0, 1)
    if values.shape[2] != 4:
        return np.broadcast_to(values, (*values.shape[:2], 3))
    rows, columns = np.indices(values.shape[:2]) // 8
    ground = 0.75 + 0.15 * ((rows + columns) % 2)[..., None]
    return (values[..., :3] * values[..., 3:] + ground * (1 - values[..., 3:])).astype(np.float32)


def shrunk(values: np.ndarray, whole: tuple[int, ...] | None = None) -> np.ndarray:
    """``values (h, w, c)`` with blocks averaged so that no side exceeds SIDE.

    The pixels of tiny pictures are enlarged. If ``values`` is a strip of rows of a picture of the
    shape ``whole``, it shrinks as within that picture, provided that it has a multiple of the
    block's rows.
    """
    height, width = values.shape[:2]
    block = _block(whole or values.shape)
    if block > 1:
        rows, columns = np.arange(0, height, block), np.arange(0, width, block)
        sums = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
        counts = np.diff(rows, append=height)[:, None] * np.diff(columns, append=width)
        return (sums / counts[..., None]).astype(np.float32)
    larger = max(1, 192 // max((whole or values.shape)[:2]))
    return values.repeat(larger, axis=0).repeat(larger, axis=1)


def comparison(target: np.ndarray, fitted: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Target, fit, error and local frequency in a two by two square ``(h, w, 3)`` with titles.

    The error is 10 times the absolute difference. ``frequency (rows, columns)`` in radians per
    pixel is dark where it is low; it is interpolated between its values.
    """
    (above, below, down), (left, right, along) = (
        _between(m, n) for n, m in zip(target.shape[:2], frequency.shape)
    )
    low, high = (float(value) for value in np.quantile(frequency, [0.01, 0.99]))
    wide = frequency[:, left] * (1 - along) + frequency[:, right] * along
    parts = []
    # A multiple of 16 rows, after which the chequered ground of transparent pictures repeats.
    strip = 16 * _block(target.shape)
    for start in range(0, len(target), strip):
        cut = slice(start, start + strip)
        exact, estimate = opaque(target[cut]), opaque(fitted[cut])
        share = down[cut, None]
        between = wide[above[cut]] * (1 - share) + wide[below[cut]] * share
        views = exact, estimate, 10 * np.abs(estimate - exact), coloured(between, low, high)
        parts.append([shrunk(view, target.shape) for view in views])
    names = (
        "input",
        "fit",
        "difference x 10",
        f"local frequency, {low:.2g} to {high:.2g} radians / pixel",
    )
    views = [
        titled(np.concatenate(strips).clip(0, 1), name) for name, strips in zip(names, zip(*parts))
    ]
    return stacked([beside(views[:2]), beside(views[2:])])


def _block(shape: tuple[int, ...]) -> int:
    return -(-max(shape[:2]) // SIDE)


@dataclass(frozen=True)
class SoundAxes:
    """The axes of a spectrogram of ``length`` samples: time to the right, and frequency upwards to
    half the ``rate`` in samples per second, by octaves. Without a rate they are in samples."""

    length: int
    rate: float | None = None

    def row(self, cycles: np.ndarray) -> np.ndarray:
        """The rows ``(n,)`` of frequencies ``(n,)`` in cycles per sample; lower ones than the axis
        has are below the picture."""
        octaves = np.log2(np.maximum(cycles, 1e-12) / 0.5) + OCTAVES
        return (1 - octaves / OCTAVES) * ROWS

    def framed(self, picture: np.ndarray, title: str) -> np.ndarray:
        """``picture (ROWS, COLUMNS, 3)`` with ticks, a scale of levels and its ``title``."""
        size, rate = type_size(ROWS) + 1, self.rate or 1.0
        left = np.full((ROWS, 5 * size, 3), PAPER, np.float32)
        for value in _steps(0.5 * rate / 2**OCTAVES, 0.5 * rate):
            row = float(self.row(np.array([value / rate]))[0])
            if size / 2 < row < ROWS - size / 2:
                left[int(row), -size // 3 :] = INK
                write(left, (left.shape[1] - size / 2, row), _short(value), size, "rm")
        unit = "Hz" if self.rate else "cycles / sample"
        ticks = [(1 + level / RANGE, f"{level:.0f}") for level in np.arange(-RANGE, 1, 20)]
        row = np.concatenate([left, picture, scale_bar(ROWS, ticks, "dB")], axis=1)
        below = np.full((2 * size, row.shape[1], 3), PAPER, np.float32)
        whole = self.length / rate
        for value in _steps(whole / 20, whole, (1, 2, 5), whole / 6):
            column = left.shape[1] + value / whole * COLUMNS
            below[: size // 3, int(column) - 1 : int(column)] = INK
            write(below, (column, size), f"{value:g}", size, "mm")
        write(below, (left.shape[1], size), "0 s" if self.rate else "0 samples", size, "mm")
        return titled(np.concatenate([row, below]), title, f"frequency in {unit}, by octaves")


def spectrogram(sound: np.ndarray, top: float | None = None) -> np.ndarray:
    """The spectrogram ``(ROWS, COLUMNS, 3)`` of ``sound (n, c)``, whose channels are averaged.

    Levels are in dB below ``top``, by default the loudest level of the sound, down to -RANGE.
    """
    levels = _levels(sound)
    top = loudest(sound) if top is None else top
    return coloured(levels, top - RANGE, top)


def loudest(sound: np.ndarray) -> float:
    """The highest level of the spectrogram of ``sound (n, c)`` in dB; 0 for silence."""
    top = float(_levels(sound).max())
    return top if top > -200 else 0.0


def spectrograms(sounds: Mapping[str, np.ndarray], rate: float | None = None) -> np.ndarray:
    """Spectrograms ``(h, w, 3)`` of named sounds ``(n, c)`` above each other, with axes.

    Levels are in dB relative to the loudest level of the first sound. ``rate`` is in samples per
    second.
    """
    top = loudest(next(iter(sounds.values())))
    return stacked(
        [
            SoundAxes(len(sound), rate).framed(spectrogram(sound, top), name)
            for name, sound in sounds.items()
        ]
    )


def beside(views: Sequence[np.ndarray]) -> np.ndarray:
    """Views ``(h, w_i, 3)`` of one height in a row, with white gaps."""
    gap = np.ones((views[0].shape[0], GAP, 3), np.float32)
    return np.concatenate([part for view in views for part in (gap, view)][1:], axis=1)


def stacked(views: Sequence[np.ndarray]) -> np.ndarray:
    """Views ``(h_i, w, 3)`` of one width above each other, with white gaps."""
    return beside([view.transpose(1, 0, 2) for view in views]).transpose(1, 0, 2)


def _levels(sound: np.ndarray) -> np.ndarray:
    """Levels ``(ROWS, COLUMNS)`` in dB of windows over the whole sound, low frequencies last.

    A column has the loudest of the windows that share it, and a row the loudest of its frequencies,
    or what lies between two of them.
    """
    count = min(4 * COLUMNS, max(COLUMNS // 4, len(sound) // (FRAME // 4)))
    starts = np.linspace(-(FRAME // 2), len(sound) - FRAME // 2, count).astype(np.int64)
    levels = magnitudes(sound.mean(axis=1, dtype=np.float32), FRAME, starts)
    levels = 20 * np.log10(np.maximum(levels, 1e-12))
    columns = np.minimum(np.arange(COLUMNS) * count // COLUMNS, count - 1)
    many = count > COLUMNS
    levels = np.maximum.reduceat(levels, columns, axis=1) if many else levels[:, columns]
    edges = FRAME / 2 * 2.0 ** (-OCTAVES * np.arange(ROWS + 1) / ROWS)  # the highest first
    rows = []
    for high, low in pairwise(edges):
        first, last = math.ceil(low), math.floor(high)
        if last > first:
            rows.append(levels[first : last + 1].max(axis=0))
            continue
        middle = min((low + high) / 2, FRAME / 2 - 1e-6)
        at, share = int(middle), middle - int(middle)
        rows.append(levels[at] * (1 - share) + levels[at + 1] * share)
    return np.stack(rows)


def _steps(
    low: float, high: float, digits: Sequence[int] = (1, 2, 5), least: float = 0.0
) -> list[float]:
    """The numbers from ``low`` to ``high`` of the given leading digits, or the multiples of the
    first such number of at least ``least`` if that is positive."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    numbers = [digit * 10.0**power for power in powers for digit in digits]
    if least > 0:
        step = next((number for number in numbers if number >= least), high)
        return [step * n for n in range(1, int(high / step * (1 - 1e-9)) + 1)]
    return [number for number in numbers if low <= number <= high]


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:.3g}"


def _between(count: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For ``length`` pixels over ``count`` values: the values before and after each middle, and the
    share of the latter."""
    at = ((np.arange(length) + 0.5) * count / length - 0.5).clip(0, count - 1)
    low = at.astype(np.int64)
    return low, np.minimum(low + 1, count - 1), at - low
