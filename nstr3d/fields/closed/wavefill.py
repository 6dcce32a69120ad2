"""Fills the hidden pixels of a picture: waves carried in from the known pixels by a law of
transport, over the smoothest surface.

The picture is treated in parts. In each, the waves of the known pixels are read
(`nstr3d.fields.closed.wavephase`), and their amplitudes are carried across the hidden pixels
(`nstr3d.fields.closed.wavelaw`). The smooth fill then continues what the waves leave. A rehearsal
decides whether a part has waves: the mask is shifted onto known pixels, and waves are kept only if
they fill these pixels far better than the smooth fill does. Without waves the result is exactly the
smooth fill.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nstr3d.fields.closed.smoothfill import depths, smooth_fill
from nstr3d.fields.closed.wavephase import carried_waves, read_waves

HOPS = (6, 32)  # least and largest distance of nodes in pixels; between them, half a hole's depth
DEEPEST = 64.0  # depth in pixels of a hole, above which no waves are carried into it
REACH = 3.0  # known pixels around a part that are used, in depths of its hole
LEAST_REACH = 24  # pixels, at least
TILE = 64  # least side of a part in pixels
APART = 8  # pixels; closer hidden pixels belong to one hole
TAPER = 8  # pixels over which the waves of neighbouring parts are blended
GAIN = 0.7  # least share of the smooth fill's squared error that waves remove in the rehearsal
HOPELESS = 0.2  # share so far at which a rehearsal ends early
REHEARSED = 0.3  # least share of the hidden pixels that a shifted mask must hide anew
REHEARSALS = 2  # shifted masks, at least
SHALLOW = 2.5  # depth in pixels below which this number of masks is enough


@dataclass(frozen=True)
class Part:
    """A part of a picture with hidden pixels: rows and columns of its ``core`` (half-open ranges),
    and the ``depth`` of its hole in pixels."""

    core: tuple[tuple[int, int], tuple[int, int]]
    depth: float

    @property
    def hop(self) -> int:
        """The distance of nodes in pixels."""
        return int(np.clip(self.depth / 2, *HOPS))

    def window(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """The pixels from which the part's waves are read."""
        reach = int(max(LEAST_REACH, REACH * self.depth))
        first, second = (
            slice(max(0, start - reach), min(length, end + reach))
            for (start, end), length in zip(self.core, shape)
        )
        return first, second

    def shifts(self) -> list[tuple[int, int]]:
        """The offsets of the rehearsed masks: about a hole's width to each side, or to two sides in
        a part whose holes are shallow and therefore many or long."""
        down, along = (int(min(end - start, 2 * self.depth + 20)) + 3 for start, end in self.core)
        offsets = [(down, 0), (0, along), (-down, 0), (0, -along)]
        return offsets[:REHEARSALS] if self.depth < SHALLOW else offsets


def fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``values (h, w, c)`` float32 with the pixels where the bool array ``known (h, w)`` is false
    replaced by carried waves over the smooth fill.

    Filled pixels lie within the range of the known pixels, channel by channel. Raises ValueError if
    no pixel is known or a known pixel is not finite.
    """
    if not known.any():
        raise ValueError("The mask hides every pixel, so there is nothing to continue.")
    seen = values[known]
    if not np.isfinite(seen).all():
        raise ValueError(
            "The pixels hold values that are not finite; replace them, or mask them out."
        )
    waves = waves_across(values, known)
    filled = waves + smooth_fill(values - waves, known)
    filled = filled.clip(seen.min(axis=0), seen.max(axis=0))
    return np.where(known[..., None], values, filled).astype(np.float32)


def waves_across(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The waves ``(h, w, c)`` of ``values (h, w, c)`` that are carried across the hidden pixels of
    ``known (h, w)``. They are 0 where there are none, and away from hidden pixels."""
    shape = known.shape[0], known.shape[1]
    total, weight = np.zeros(values.shape), np.zeros((*shape, 1))
    seen = np.where(known[..., None], values, 0.0)
    for part in parts(known):
        window = part.window(shape)
        blend = _blend(part, window)
        weight[window] += blend
        waves = _kept_waves(seen[window], known[window], part)
        if waves is not None:
            total[window] += blend * waves
    return total / np.maximum(weight, 1e-9)


def parts(known: np.ndarray) -> Iterator[Part]:
    """The parts of a picture with hidden pixels. A hole that is wide for its depth, such as a
    scratch, is cut into several parts."""
    from scipy.ndimage import binary_dilation, find_objects, label, maximum

    deep = depths(known)
    labelled: Any = label(binary_dilation(~known, iterations=APART))
    labels, count = labelled
    each = np.atleast_1d(maximum(deep, labels, np.arange(1, count + 1)))
    for index, box in enumerate(find_objects(labels)):
        own = (labels[box] == index + 1) & ~known[box]
        depth = float(each[index])
        tile = max(TILE, 4 * depth)
        edges = []
        for axis in (0, 1):
            along = np.flatnonzero(own.any(axis=1 - axis)) + box[axis].start
            start, end = int(along[0]), int(along[-1]) + 1
            edges.append(
                np.linspace(start, end, max(1, round((end - start) / tile)) + 1).astype(int)
            )
        for rows in zip(edges[0][:-1], edges[0][1:]):
            for columns in zip(edges[1][:-1], edges[1][1:]):
                if not known[slice(*rows), slice(*columns)].all():
                    yield Part((rows, columns), depth)


def _kept_waves(values: np.ndarray, known: np.ndarray, part: Part) -> np.ndarray | None:
    """The waves ``(h, w, c)`` of a part's window, scaled as the rehearsal found best, or None if
    the rehearsal rejects them."""
    if part.depth > DEEPEST or not known.any():
        return None
    masks = _rehearsed_masks(known, part)
    phases = read_waves(values, known, part.hop) if len(masks) >= REHEARSALS else []
    if not phases:
        return None
    agreement = power = error = scale = share = 0.0
    for mask in masks:
        waves = carried_waves(values, mask, phases, part.hop)
        tested = known & ~mask
        smooth = smooth_fill(values, mask)
        change = (waves + smooth_fill(values - waves, mask) - smooth)[tested]
        lacking = (values - smooth)[tested]
        agreement += float((change * lacking).sum())
        power += float(np.square(change).sum())
        error += float(np.square(lacking).sum())
        scale = min(max(agreement / max(power, 1e-30), 0.0), 1.0)
        share = (2 * scale * agreement - scale**2 * power) / max(error, 1e-30)
        if share <= HOPELESS:
            return None
    if share <= GAIN:
        return None
    return scale * carried_waves(values, known, phases, part.hop)


def _rehearsed_masks(known: np.ndarray, part: Part) -> list[np.ndarray]:
    """Masks that hide, beside the hidden pixels of ``known (h, w)``, the same pixels shifted."""
    hidden, masks = ~known, []
    for offset in part.shifts():
        shifted = np.zeros_like(hidden)
        target = tuple(slice(max(s, 0), max(0, n + min(s, 0))) for s, n in zip(offset, known.shape))
        source = tuple(
            slice(max(-s, 0), max(0, n - max(s, 0))) for s, n in zip(offset, known.shape)
        )
        shifted[target] = hidden[source]
        if (shifted & known).sum() >= REHEARSED * hidden.sum():
            masks.append(known & ~shifted)
    return masks


def _blend(part: Part, window: tuple[slice, slice]) -> np.ndarray:
    """The weights ``(h, w, 1)`` of a part in its window: 1 in its core, falling to 0 around it."""
    down, along = (
        np.clip(
            1
            - np.maximum(start - np.arange(cut.start, cut.stop), 0) / TAPER
            - np.maximum(np.arange(cut.start, cut.stop) - end + 1, 0) / TAPER,
            0,
            1,
        )
        for (start, end), cut in zip(part.core, window)
    )
    return np.outer(down, along)[..., None]
