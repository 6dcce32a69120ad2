"""Fills the hidden pixels of a picture by the biharmonic equation: the smoothest surface through
the known pixels.

The fill minimises the sum of the squared Laplacian over all pixels (Chui and Mhaskar, "MRA
contextual-recovery extension of smooth functions on manifolds", 2010). The Laplacian is that of the
grid graph, so the picture has no slope across its border. Few pixels and wide holes are solved
directly; many narrow holes, whose equations are well conditioned, by conjugate gradients.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from nstr3d.fields.conjugate import conjugate_gradients

NARROW = 4.0  # largest distance in pixels from a hidden to a known pixel in a narrow hole
SMALL = 20_000  # hidden pixels of a picture that one factorisation solves
LARGEST_DIRECT = 100_000  # hidden pixels of a hole that a factorisation solves
ITERATIONS = 1000  # at most, of conjugate gradients
CONVERGED = 1e-12  # squared residual, relative to the right side's square, that ends iterations


def smooth_fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``values (h, w, c)`` as float64 with the pixels where the bool array ``known (h, w)`` is
    false replaced by the smoothest continuation.

    A wide hole of more than `LARGEST_DIRECT` pixels is solved approximately: `ITERATIONS` improve
    the fill of the picture at half the resolution. Raises ValueError if no pixel is known.
    """
    from scipy.ndimage import binary_dilation, find_objects, label, maximum

    if not known.any():
        raise ValueError("The mask hides every pixel, so there is nothing to continue.")
    filled = np.where(known[..., None], values, 0.0).astype(np.float64)
    if known.all():
        return filled
    if known.size - np.count_nonzero(known) <= SMALL:
        _solve_directly(filled, ~known)
        return filled
    labelled: Any = label(binary_dilation(~known))  # parts whose equations are independent
    labels, count = labelled
    labels = np.where(known, 0, labels)
    index = np.arange(1, count + 1)
    widths = np.asarray(maximum(depths(known), labels, index))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    direct = (widths > NARROW) & (sizes <= LARGEST_DIRECT)
    boxes = find_objects(labels)
    for part in index[direct]:
        box = tuple(slice(max(0, cut.start - 3), cut.stop + 3) for cut in boxes[part - 1])
        _solve_directly(filled[box], labels[box] == part)
    narrow, wide = widths <= NARROW, (widths > NARROW) & ~direct
    for chosen in (narrow, wide):
        hidden = np.concatenate([[False], chosen])[labels]
        if hidden.any():
            start = _from_half(values, known) if chosen is wide else filled
            _solve_by_steps(filled, hidden, start)
    return filled


def depths(known: np.ndarray) -> np.ndarray:
    """The distance ``(h, w)`` in pixels from each hidden pixel to the nearest known pixel, where
    pixels beyond the border count as known; 0 at known pixels."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(np.pad(~known, 1)))[1:-1, 1:-1]


def _laplacian(values: np.ndarray) -> np.ndarray:
    """The graph Laplacian of ``values (h, w)``: the sum of a pixel's differences from its
    neighbours."""
    result = np.zeros_like(values)
    along, across = np.diff(values, axis=0), np.diff(values, axis=1)
    result[:-1] -= along
    result[1:] += along
    result[:, :-1] -= across
    result[:, 1:] += across
    return result


def _solve_directly(values: np.ndarray, hidden: np.ndarray) -> None:
    """Fills ``values (h, w, c)`` in place where ``hidden (h, w)`` is true."""
    from scipy.sparse import diags_array, eye_array, kron
    from scipy.sparse.linalg import splu

    def chain(length: int) -> Any:
        ends = np.full(length, 2.0)
        ends[0] -= 1
        ends[-1] -= 1
        beside = eye_array(length, k=1)
        return diags_array(ends) - beside - beside.T

    height, width = hidden.shape
    laplacian = (
        kron(chain(height), eye_array(width)) + kron(eye_array(height), chain(width))
    ).tocsc()
    unknown = np.flatnonzero(hidden)
    flat = values.reshape(-1, values.shape[-1])
    flat[unknown] = 0
    columns = laplacian[:, unknown]
    right = -(columns.T @ (laplacian @ flat))
    factors = splu(
        (columns.T @ columns).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    values[hidden] = factors.solve(right)


def _solve_by_steps(values: np.ndarray, hidden: np.ndarray, start: np.ndarray) -> None:
    """Fills ``values (h, w, c)`` in place where ``hidden (h, w)`` is true, from ``start (h, w,
    c)``, one channel at a time."""

    def normal(inner: np.ndarray) -> np.ndarray:
        image = np.zeros(hidden.shape)
        image[hidden] = inner
        return _laplacian(_laplacian(image))[hidden]

    for channel in range(values.shape[-1]):
        known = np.where(hidden, 0.0, values[..., channel])
        right = -_laplacian(_laplacian(known))[hidden]
        first = start[..., channel][hidden]
        solutions = conjugate_gradients(normal, right, first, tolerance=CONVERGED)
        values[..., channel][hidden] = next(islice(solutions, ITERATIONS - 1, None))[0]


def _from_half(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The fill of the picture at half its resolution, interpolated to ``values (h, w, c)``."""
    from scipy.ndimage import zoom

    height, width, channels = values.shape
    room = [(0, height % 2), (0, width % 2)]
    weight = np.pad(known, room).astype(np.float64)
    total = np.pad(np.where(known[..., None], values, 0.0), [*room, (0, 0)])
    shape = weight.shape[0] // 2, 2, weight.shape[1] // 2, 2
    mass = weight.reshape(shape).sum(axis=(1, 3))
    coarse = total.reshape(*shape, channels).sum(axis=(1, 3)) / np.maximum(mass, 1)[..., None]
    filled = smooth_fill(coarse, mass > 0)
    fine = zoom(filled, (2, 2, 1), order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine)[:height, :width]
