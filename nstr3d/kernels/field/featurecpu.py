"""The decoder's inputs from a level's channels, and the gradient back, on the CPU (numba).

Plain channels are copied; waves are evaluated from their amplitudes and phases. The gradient goes
to the channels and to the waves' frequencies and phases. `kernels.field.fused.evaluate` is the twin
in plain torch.
"""

from __future__ import annotations

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.layout import AMPLITUDE, COMPLEX, LANES, PHASE, PLAIN
from nstr3d.kernels.field.levelcpu import BLOCK
from nstr3d.kernels.simd import fma, load, sine_and_cosine, splat, store


@njit(cache=True, inline="always")
def carried(points, n, carrier, at, width):
    """omega . x + b of the waves whose frequencies and phases start at ``at`` in ``carrier``."""
    phase = fma(splat(points[n, 0]), load(carrier, at), load(carrier, at + 3 * width))
    return fma(
        splat(points[n, 1]),
        load(carrier, at + width),
        fma(splat(points[n, 2]), load(carrier, at + 2 * width), phase),
    )


@njit(cache=True, inline="always")
def padded(count):
    return (count + LANES - 1) // LANES * LANES


@njit(cache=True)
def featurise(points, start, count, levels, level, spectrum, kept, first):
    """The features of a block, into rows of ``kept.features`` from ``first``, and the derivatives
    of the waves' features in their channels and in their phase.

    Whole vectors are written: the values past a row's end are overwritten by the next row.
    """
    _, _, _, stride, plain, kind, waves, feature, carrier, place, _, _ = levels.meta[level]
    features, local, width, radians = (
        kept.features,
        kept.local,
        padded(waves),
        splat(levels.radians[level]),
    )
    for p in range(count):
        row, to, beside = (
            p * stride,
            (first + p) * levels.line + feature,
            (first + p) * levels.local_line + place,
        )
        for s in range(0, plain, LANES):
            store(features, to + s, load(spectrum, row + s))
        if kind == PLAIN:
            continue
        row, to = row + plain, to + plain
        for s in range(0, waves, LANES):
            phase = carried(points, start + p, levels.carrier, carrier + s, width)
            size = load(spectrum, row + s)
            if kind == PHASE:
                phase = fma(radians, load(spectrum, row + waves + s), phase)
            sine, cosine = sine_and_cosine(phase)
            if kind == COMPLEX:
                other = load(spectrum, row + waves + s)
                store(local, beside + s, sine)
                store(local, beside + width + s, cosine)
                store(local, beside + 2 * width + s, size * cosine - other * sine)
                store(features, to + s, fma(size, sine, other * cosine))
            else:
                store(local, beside + s, sine)
                store(local, beside + width + s, size * cosine)
                store(features, to + s, size * sine)


@njit(cache=True)
def feature_slopes(count, levels, level, slopes, local, features):
    """The derivatives of a block's features along x, y and z: three blocks ``(BLOCK, line)``, one
    after another."""
    _, _, _, stride, plain, kind, waves, feature, carrier, place, _, _ = levels.meta[level]
    width, radians, size = padded(waves), splat(levels.radians[level]), len(slopes) // 3
    for axis in range(3):
        for p in range(count):
            row, to = axis * size + p * stride, (axis * BLOCK + p) * levels.line + feature
            beside = p * levels.local_line + place
            for s in range(0, plain, LANES):
                store(features, to + s, load(slopes, row + s))
            if kind == PLAIN:
                continue
            row, to = row + plain, to + plain
            for s in range(0, waves, LANES):
                omega = load(levels.carrier, carrier + axis * width + s)
                value = load(local, beside + s) * load(slopes, row + s)
                turn = load(local, beside + width + s)
                if kind == COMPLEX:
                    value = fma(turn, load(slopes, row + waves + s), value)
                    turn = load(local, beside + 2 * width + s)
                elif kind == PHASE:
                    omega = fma(radians, load(slopes, row + waves + s), omega)
                store(features, to + s, fma(turn, omega, value))


@njit(cache=True)
def featurise_backward(
    points, start, count, levels, level, back, columns, kept, first, spectrum, g_carrier
):
    """From a block's gradient ``back`` in the features, rows of ``columns``, the gradient in the
    channels, into ``spectrum``, and in the waves' carriers, added to ``g_carrier``. The block
    starts at row ``first`` of ``kept``."""
    _, _, _, stride, plain, kind, waves, feature, carrier, place, _, _ = levels.meta[level]
    local, width, radians = kept.local, padded(waves), splat(levels.radians[level])
    for p in range(count):
        row, at, beside = p * stride, p * columns + feature, (first + p) * levels.local_line + place
        for s in range(0, plain, LANES):
            store(spectrum, row + s, load(back, at + s))
        if kind != PLAIN:
            row, at = row + plain, at + plain
            for s in range(0, waves, LANES):
                store(spectrum, row + s, load(back, at + s) * load(local, beside + s))
            if kind != AMPLITUDE:
                scale = radians if kind == PHASE else splat(1.0)
                for s in range(0, waves, LANES):
                    store(
                        spectrum,
                        row + waves + s,
                        load(back, at + s) * load(local, beside + width + s) * scale,
                    )
            if len(g_carrier):
                turn = beside + (2 * width if kind == COMPLEX else width)
                for s in range(0, waves, LANES):
                    phase, to = load(back, at + s) * load(local, turn + s), carrier + s
                    for axis in range(3):
                        where = to + axis * width
                        store(
                            g_carrier,
                            where,
                            fma(splat(points[start + p, axis]), phase, load(g_carrier, where)),
                        )
                    store(g_carrier, to + 3 * width, load(g_carrier, to + 3 * width) + phase)
