"""Pictures of signals: spectrograms, and views in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nstr3d.render.colours import coloured
from nstr3d.signals.spectrogram import magnitudes

GAP = 8  # white pixels between views
SIDE = 1024  # pixels along the longest side of a view, at most
FRAME = 1024  # samples of a spectrogram's window
COLUMNS = 1400  # columns of a spectrogram
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
    """Target, fit, error and local frequency in a two by two square ``(h, w, 3)``.

    The error is 10 times the absolute difference. ``frequency (rows, columns)`` is dark where it is
    low.
    """
    rows, columns = (
        np.minimum(np.arange(n) * m // n, m - 1) for n, m in zip(target.shape[:2], frequency.shape)
    )
    low, high = np.quantile(frequency, [0.01, 0.99])
    seen, parts = coloured(frequency, float(low), float(high)), []
    # A multiple of 16 rows, after which the chequered ground of transparent pictures repeats.
    strip = 16 * _block(target.shape)
    for start in range(0, len(target), strip):
        cut = slice(start, start + strip)
        exact, estimate = opaque(target[cut]), opaque(fitted[cut])
        views = exact, estimate, 10 * np.abs(estimate - exact), seen[rows[cut]][:, columns]
        parts.append([shrunk(view, target.shape) for view in views])
    views = [np.concatenate(strips).clip(0, 1) for strips in zip(*parts)]
    return stacked([beside(views[:2]), beside(views[2:])])


def _block(shape: tuple[int, ...]) -> int:
    return -(-max(shape[:2]) // SIDE)


def spectrograms(sounds: Sequence[np.ndarray]) -> np.ndarray:
    """Spectrograms ``(h, w, 3)`` of sounds ``(n, c)`` above each other.

    Time runs to the right and frequency upwards to half the sample rate. Channels are averaged.
    Levels are in dB relative to the loudest level of the first sound, down to -RANGE.
    """
    decibels = [20 * np.log10(np.maximum(_spectrogram(sound), 1e-12)) for sound in sounds]
    top = float(decibels[0].max())
    top = top if top > -200 else 0.0
    return stacked([coloured(levels[::-1], top - RANGE, top) for levels in decibels])


def beside(views: Sequence[np.ndarray]) -> np.ndarray:
    """Views ``(h, w_i, 3)`` of one height in a row, with white gaps."""
    gap = np.ones((views[0].shape[0], GAP, 3), np.float32)
    return np.concatenate([part for view in views for part in (gap, view)][1:], axis=1)


def stacked(views: Sequence[np.ndarray]) -> np.ndarray:
    """Views ``(h_i, w, 3)`` of one width above each other, with white gaps."""
    return beside([view.transpose(1, 0, 2) for view in views]).transpose(1, 0, 2)


def _spectrogram(sound: np.ndarray) -> np.ndarray:
    """Magnitudes ``(frequencies, columns)`` of windows spread over the whole sound.

    A column has the loudest of the windows that share it, and a row the louder of two frequencies.
    """
    count = min(4 * COLUMNS, max(COLUMNS // 4, len(sound) // (FRAME // 4)))
    starts = np.linspace(-(FRAME // 2), len(sound) - FRAME // 2, count).astype(np.int64)
    levels = magnitudes(sound.mean(axis=1, dtype=np.float32), FRAME, starts)
    levels = levels[:-1].reshape(FRAME // 4, 2, count).max(axis=1)
    columns = np.minimum(np.arange(COLUMNS) * count // COLUMNS, count - 1)
    return np.maximum.reduceat(levels, columns, axis=1) if count > COLUMNS else levels[:, columns]
