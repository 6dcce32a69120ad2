"""Fits the closed-form field of staggered cosines to samples, and reads their local frequency from
its transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from nstr3d.fields.closed.cosines import TRIAL, CosineConfig, Cosines, analyse_all
from nstr3d.fields.closed.positions import pack, packed_size

CLEAR = 3.0  # standard deviations of noise that an amplitude has to exceed
HOPS = {1: (256, 512, 1024, 2048, 4096), 2: (8, 16, 32)}  # tried by default, per number of axes


def fit_cosines(
    values: np.ndarray, params: int, hops: Sequence[int] | None = None, noise: float = 0.0
) -> Cosines:
    """The field of at most ``params`` stored parameters, positions counted, that is nearest to
    ``values (*shape, c)`` float32.

    The hop of ``hops`` (by default `HOPS` for as many axes) that does best on a middle part of at
    most a million samples is used on all. Colours are turned to their principal axes. Samples with
    Gaussian ``noise`` of known standard deviation are denoised: amplitudes below 3 of it are left
    out (Donoho and Johnstone, 1994). Raises ValueError for a budget that leaves no amplitude, and
    for values that are not finite.
    """
    *shape, channels = values.shape
    values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            "The samples hold values that are not finite; replace them, or mask them out."
        )
    rest = params - channels * (channels + 1)
    trial = _middle(values)
    each = [tuple(fitting(n, hop) for n in shape) for hop in hops or HOPS[len(shape)]]
    configs = [
        CosineConfig(tuple(shape), along, smooth=len(shape) == 1) for along in dict.fromkeys(each)
    ]
    if len(configs) > 1:
        share = rest * trial.size / values.size
        configs.sort(key=lambda config: _lost(trial, config, share, noise))
    config = configs[0]
    offset, colours = principal_axes(values.reshape(-1, channels))
    spectrum = analyse_all(values, config, offset, colours)
    kept = _largest(spectrum, config.packing(channels), rest, noise)
    if not kept.any() and spectrum.any() and not noise:
        raise ValueError(
            f"A budget of {params} parameters is too small for these samples: positions alone "
            "would take it."
        )
    field = Cosines(
        config, len(shape), channels, pack(kept.reshape(config.packing(channels))), spectrum[kept]
    )
    field.colours.copy_(torch.from_numpy(colours.T.copy()))
    field.offset.copy_(torch.from_numpy(offset))
    return field


def fitting(length: int, hop: int) -> int:
    """``hop``, or a smaller power of two on an axis too short for it, 1 on an axis of one
    sample."""
    return 1 if length == 1 else min(hop, 1 << max(1, (length - 1).bit_length() - 1))


def _middle(values: np.ndarray) -> np.ndarray:
    """The central part of at most `TRIAL` samples."""
    shape = values.shape[:-1]
    edge = math.floor(TRIAL ** (1 / len(shape)))
    cuts = [slice((n - min(n, edge)) // 2, (n - min(n, edge)) // 2 + min(n, edge)) for n in shape]
    return values[tuple(cuts)] if math.prod(shape) > TRIAL else values


def _lost(values: np.ndarray, config: CosineConfig, budget: float, noise: float) -> float:
    """Expected squared error, over samples and blocks that stick out, of keeping what ``budget``
    parameters allow."""
    shape = values.shape[:-1]
    config = replace(
        config, shape=shape, hops=tuple(fitting(n, hop) for n, hop in zip(shape, config.hops))
    )
    spectrum = analyse_all(values, config, *principal_axes(values.reshape(-1, values.shape[-1])))
    kept = _largest(spectrum, config.packing(values.shape[-1]), int(budget), noise)
    lost = float(np.square(spectrum[~kept], dtype=np.float64).sum())
    return lost + noise**2 * (2 * np.count_nonzero(kept) - kept.size)


def principal_axes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``(c,)`` of ``values (n, c)`` and the orthogonal matrix whose columns are their
    principal axes, float32."""
    mean = values.mean(axis=0, dtype=np.float64)
    second = sum(
        (part := values[start : start + TRIAL] - mean).T @ part
        for start in range(0, len(values), TRIAL)
    )  # in parts, which bounds the memory
    _, axes = np.linalg.eigh(second)
    return mean.astype(np.float32), axes.astype(np.float32)


def _largest(
    spectrum: np.ndarray, packing: tuple[int, int], budget: int, noise: float
) -> np.ndarray:
    """Which amplitudes ``(rows, columns)`` to keep so that they and their positions take at most
    ``budget`` parameters."""
    magnitude = np.abs(spectrum)
    if noise:
        magnitude[magnitude < CLEAR * noise] = 0
    low, high, best = 0, min(max(budget, 0), magnitude.size), np.zeros(magnitude.shape, bool)
    guess = high
    for _ in range(12):
        kept = _top(magnitude, guess)
        spent = np.count_nonzero(kept) + packed_size(kept.reshape(packing)) / 4
        if spent <= budget:
            low, best = guess, kept
        else:
            high = guess - 1
        if low >= high or low > 0.999 * high:
            return best
        guess = min(max(int(guess * budget / max(spent, 1)), low + 1), high)
    return best


def _top(magnitude: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` largest, fewer where some are equal or zero."""
    if count >= magnitude.size:
        return magnitude > 0
    if count == 0:
        return np.zeros(magnitude.shape, bool)
    threshold = np.partition(magnitude.ravel(), magnitude.size - count - 1)[
        magnitude.size - count - 1
    ]
    return magnitude > threshold


def local_frequency(values: np.ndarray, hop: int) -> np.ndarray:
    """Energy-weighted mean ``|omega|`` in radians per sample, a value per block ``(*blocks)``, of
    ``values (*shape, c)``.

    Over a block and its neighbours: in one alone the energy of a real wave depends on its phase.
    """
    shape = values.shape[:-1]
    config = CosineConfig(shape, tuple(fitting(n, hop) for n in shape))
    energy = np.zeros((math.prod(config.hops), math.prod(config.blocks)), np.float32)
    for channel in np.moveaxis(values, -1, 0):  # one after the other, to hold few copies
        mean = channel.mean(dtype=np.float64, keepdims=True).astype(np.float32).ravel()
        table = analyse_all(channel[..., None], config, mean, np.ones((1, 1), np.float32))
        energy += np.square(table, out=table).reshape(energy.shape)
    along = [np.pi * (np.arange(hop) + 0.5) / hop for hop in config.hops]
    omega = np.sqrt(sum(np.square(grid) for grid in np.meshgrid(*along, indexing="ij")))
    moments = [
        energy.sum(axis=0).reshape(config.blocks),
        (omega.reshape(-1, 1) * energy).sum(axis=0).reshape(config.blocks),
    ]
    for axis in range(len(shape)):
        padded = [
            np.pad(m, [(1, 1) if a == axis else (0, 0) for a in range(len(shape))], mode="edge")
            for m in moments
        ]
        windows = [np.lib.stride_tricks.sliding_window_view(m, 3, axis=axis) for m in padded]
        moments = [window.sum(axis=-1) for window in windows]
    return moments[1] / np.maximum(moments[0], 1e-30)
