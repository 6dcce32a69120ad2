"""The orthonormal lapped cosine transform along one axis: fast analysis, fast synthesis, and the
basis functions.

Positions are in units of samples, with sample n at ``n + 1/2``. Block b of an axis with hop M
covers ``[(b - 1) M, (b + 1) M]`` and has the M functions ``sqrt(2 / M) w(v) cos(pi (v + M / 2)
(k + 1/2) / M)``, k = 0 ... M - 1, with v counted from the block's start (Princen and Bradley, 1986;
Malvar, 1992; Coifman and Meyer, 1991). The window w is ``sin(pi v / 2M)`` or the smooth
``sin(pi / 2 sin^2(pi v / 2M))``. The smooth window has a continuous slope and a spectrum that falls
off faster, which suits tones. The functions of all blocks are orthonormal. The first and the last
block extend half their length beyond the samples, where the signal is mirrored. An axis of one
sample has hop 1 and the single function 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

MATRIX_HOP = 128  # largest hop for which a matrix product is faster than a fast transform


def blocks(length: int, hop: int) -> int:
    """Number of blocks of an axis of ``length`` samples. Raises ValueError if there is no sample or
    ``hop`` is not even; hop 1 is allowed on an axis of one sample only."""
    if length < 1 or hop < 1 or (hop == 1 and length > 1) or (hop > 1 and hop % 2):
        raise ValueError(
            f"An axis needs at least one sample and an even hop (1 for one sample), not {length} "
            f"and {hop}."
        )
    return 1 if hop == 1 else -(-length // hop) + 1


def analyse(values: np.ndarray, hop: int, smooth: bool = False) -> np.ndarray:
    """Coefficients ``(..., blocks, hop)`` of ``values (..., length)``; ``smooth`` selects the
    smooth window. Raises ValueError like `blocks`."""
    length, count = values.shape[-1], blocks(values.shape[-1], hop)
    if hop == 1:
        return values[..., None]
    edges = [(0, 0)] * (values.ndim - 1) + [(hop, count * hop - length)]
    halves = np.pad(values, edges, mode="symmetric").reshape(*values.shape[:-1], count + 1, hop)
    rise, fall = _window(hop, values.dtype, smooth)
    first, second, middle = halves[..., :-1, :], halves[..., 1:, :], hop // 2
    folded = np.empty(first.shape, halves.dtype)
    low, high = folded[..., :middle], folded[..., middle:]
    np.multiply(second[..., middle - 1 :: -1], -fall[middle - 1 :: -1], out=low)
    low -= second[..., middle:] * fall[middle:]
    np.multiply(first[..., :middle], rise[:middle], out=high)
    high -= first[..., : middle - 1 : -1] * rise[: middle - 1 : -1]
    return _cosines(folded)


def synthesise(coefficients: np.ndarray, length: int, smooth: bool = False) -> np.ndarray:
    """Values ``(..., length)`` at the samples from ``coefficients (..., blocks, hop)``: the inverse
    of `analyse` with the same ``smooth``."""
    hop = coefficients.shape[-1]
    if hop == 1:
        return coefficients[..., 0]
    folded, middle = _cosines(coefficients), hop // 2
    low, high = folded[..., :middle], folded[..., middle:]
    rise, fall = _window(hop, coefficients.dtype, smooth)
    halves = np.empty((*folded.shape[:-2], folded.shape[-2] - 1, hop), folded.dtype)
    np.multiply(low[..., :-1, ::-1], -fall[:middle], out=halves[..., :middle])
    np.multiply(low[..., :-1, :], -fall[middle:], out=halves[..., middle:])
    halves[..., :middle] += high[..., 1:, :] * rise[:middle]
    halves[..., middle:] -= high[..., 1:, ::-1] * rise[middle:]
    return halves.reshape(*halves.shape[:-2], -1)[..., :length]


def resample(
    coefficients: np.ndarray, length: int, factor: int, smooth: bool = False
) -> np.ndarray:
    """`synthesise` at ``factor`` times as many points: values ``(..., length * factor)`` at the
    positions ``(i + 1/2) / factor``, i = 0, 1, ..., in samples."""
    hop = coefficients.shape[-1]
    if hop == 1:
        return np.repeat(coefficients[..., 0], factor, axis=-1)
    places = (torch.arange(2 * hop * factor, dtype=torch.float64) + 0.5) / factor
    matrix = basis(places, hop, smooth).numpy().T.astype(coefficients.dtype)
    step = hop * factor
    halves = (
        coefficients[..., :-1, :] @ matrix[:, step:] + coefficients[..., 1:, :] @ matrix[:, :step]
    )
    return halves.reshape(*halves.shape[:-2], -1)[..., : length * factor]


def basis(places: Tensor, hop: int, smooth: bool = False) -> Tensor:
    """The values ``(n, hop)`` of one block's functions at ``places (n,)``, in samples from the
    block's start; differentiable to any order. The window is not cut off outside the block."""
    if hop == 1:
        return torch.ones_like(places)[:, None]
    order = torch.arange(hop, dtype=places.dtype, device=places.device) + 0.5
    window = torch.sin(math.pi / (2 * hop) * places)
    if smooth:
        window = torch.sin(math.pi / 2 * window.square())
    return (
        math.sqrt(2 / hop)
        * window[:, None]
        * torch.cos((math.pi / hop) * (places[:, None] + hop / 2) * order)
    )


def _window(hop: int, dtype: np.dtype, smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """The rising and the falling half ``(hop,)`` of the window at the samples."""
    rise = np.sin(np.pi / (2 * hop) * (np.arange(hop) + 0.5))
    rise = (np.sin(np.pi / 2 * rise**2) if smooth else rise).astype(dtype)
    return rise, rise[::-1]


def _cosines(folded: np.ndarray) -> np.ndarray:
    """The orthonormal cosine transform of type IV along the last axis, which is its own inverse."""
    hop = folded.shape[-1]
    if hop <= MATRIX_HOP:
        order = np.arange(hop) + 0.5
        matrix = np.sqrt(2 / hop) * np.cos(np.pi / hop * order[:, None] * order)
        return folded @ matrix.astype(folded.dtype)
    from scipy.fft import dct

    return np.asarray(dct(folded, type=4, norm="ortho", overwrite_x=True))
