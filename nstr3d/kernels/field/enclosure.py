"""Proven bounds of a field of one output over boxes.

`enclose` calls the kernel of `kernels.field.enclosurecpu`, or the form in plain torch in double
precision, which is its twin. The method: the corners of a box are evaluated, and what lies between
them is bounded. A feature differs from the multilinear interpolant of its corner values by at most
``h^2 / 8`` times its second derivative, summed over the axes; coefficients of splines bound the
derivatives. Softplus is convex, so that of an interpolant lies below the interpolant of its corner
values and above its tangent. The bounds are linear in the position, so they are largest at corners,
and their gap falls with the square of the box.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.kernels.available import numba_found
from nstr3d.kernels.field.fused import evaluate, features_of, packed
from nstr3d.kernels.field.layout import COMPLEX, PHASE, ROW_MULTIPLE, Layout, Part, Weights, up
from nstr3d.kernels.field.ranges import Ranges, ranges
from nstr3d.kernels.threads import split_work
from nstr3d.types import UnprovenError

HALVES = list(itertools.product((0, 1), repeat=3))
CHUNK, PLAIN_CHUNK = 1 << 14, 1 << 11  # boxes evaluated at once, which bounds memory
LARGEST, FASTEST = 1e9, 1e5  # weight, and angle of a wave in radians, of which bounds are proven
SINGLE, DOUBLE = 2.0**-24, 2.0**-53  # relative rounding of float32 and float64


def enclose(
    ticks: np.ndarray, parts: Sequence[Part], weights: Weights, layout: Layout
) -> np.ndarray:
    """Lower and upper bounds ``(n, 8, 2)`` of a field of one output over boxes in the unit box.

    ``ticks (n, 3, 3)`` float32 are three rising coordinates of each box along each axis, which cut
    it in eight; the last axis is the fastest. The bounds hold for the field in exact arithmetic and
    for its evaluation in its own precision, float32 or float64. Raises UnprovenError for another
    precision, and for weights or waves beyond `LARGEST` and `FASTEST`, which may overflow.
    """
    _check(parts, weights)
    single = all(part.table.dtype == torch.float32 and not part.table.is_cuda for part in parts)
    compiled = single and numba_found()
    chunk = CHUNK if compiled else PLAIN_CHUNK
    bounds = [np.zeros((0, 8, 2))]
    for start in range(0, len(ticks), chunk):
        piece = np.ascontiguousarray(ticks[start : start + chunk], np.float32)
        if compiled:
            bounds.append(_compiled(piece, parts, weights, layout))
        else:
            bounds.append(plain(piece, parts, weights))
    return np.concatenate(bounds)


def _check(parts: Sequence[Part], weights: Weights) -> None:
    tensors = [*weights[:4], *(part.table for part in parts)]
    if any(each.dtype not in (torch.float32, torch.float64) for each in tensors):
        raise UnprovenError("Bounds are proven of fields in float32 and float64 only.")
    largest = float(np.max([each.detach().abs().max().item() for each in tensors if each.numel()]))
    if not largest <= LARGEST:  # written so that NaN fails too
        raise UnprovenError(f"Nothing is proven of a field with weights of {largest:.3g}.")
    if not 1 / LARGEST <= weights.sharpness <= LARGEST:
        raise UnprovenError(f"Nothing is proven of a field of sharpness {weights.sharpness:g}.")
    for part in parts:
        if part.omega is None or part.phase is None:
            continue
        angle = float((part.omega.detach().abs().sum(dim=1) + part.phase.detach().abs()).max())
        if part.kind == PHASE:
            angle += abs(part.radians) * float(part.table.detach().abs().max())
        if not angle <= FASTEST or not part.radians >= 0:
            raise UnprovenError(
                f"Nothing is proven of waves with an angle of {angle:.3g} radians and phases in "
                f"units of {part.radians:g}."
            )


def nodes_of(ticks: np.ndarray) -> np.ndarray:
    """The nodes ``(n, 27, 3)`` of boxes, last axis fastest."""
    grid = np.array(list(itertools.product(range(3), repeat=3)))
    return np.stack([ticks[:, axis, grid[:, axis]] for axis in range(3)], axis=2)


def _compiled(
    ticks: np.ndarray, parts: Sequence[Part], weights: Weights, layout: Layout
) -> np.ndarray:
    from nstr3d.kernels.field import enclosurecpu as cpu

    tables, waves = [part.table for part in parts], [(part.omega, part.phase) for part in parts]
    levels, decoder = packed(layout, tables, waves, weights)
    points = np.ascontiguousarray(nodes_of(ticks).reshape(-1, 3))
    sides = np.nextafter(np.diff(ticks, axis=2).max(axis=2), np.float32(np.inf))
    out = np.empty((8 * len(ticks), 2))
    arguments = points, sides, levels, decoder, _compiled_rounding(weights), out
    split_work(lambda part, low, high: cpu.enclose(low, high, *arguments), len(ticks), least=16)
    return out.reshape(-1, 8, 2)


def _compiled_rounding(weights: Weights):
    from nstr3d.kernels.field.enclosurecpu import Rounding

    reach, constant = _rounding(weights, SINGLE)
    padded = np.zeros(up(len(reach), ROW_MULTIPLE), np.float32)
    padded[: len(reach)] = reach * (1 + 1e-6)
    return Rounding(padded, constant)


def _rounding(weights: Weights, unit: float) -> tuple[np.ndarray, float]:
    """The sum of |w2 w1| over hidden units, by which each feature moves the value at most, and the
    rounding of the value that no feature causes, where numbers are rounded by ``unit``."""
    w1, b1, w2, b2 = (np.abs(each.detach().double().cpu().numpy()) for each in weights[:4])
    terms = _terms(weights) * unit
    # the kernel's error, that of torch, which leaves out exp(-20), and the value at 0
    softplus = (7 * unit + 2.1e-9 + 0.7 * terms) / weights.sharpness
    return w2[0] @ w1, float(w2[0] @ (terms * b1 + softplus) + terms * b2[0])


def _terms(weights: Weights) -> int:
    """The terms of the sums that a feature enters, and the operations beside them."""
    return sum(weights.w1.shape) + 16


def plain(ticks: np.ndarray, parts: Sequence[Part], weights: Weights) -> np.ndarray:
    """`enclose` in plain torch and double precision."""
    nodes = torch.from_numpy(nodes_of(ticks)).double()
    sides = torch.from_numpy(np.diff(ticks.astype(np.float64), axis=2).max(axis=2))
    parts = [_double(part) for part in parts]
    unit = SINGLE if weights.w1.dtype == torch.float32 else DOUBLE
    reach, constant = _rounding(weights, unit)
    ends = nodes[:, 0], nodes[:, -1]
    found = [ranges(*ends, part.grid, part.table) for part in parts]
    remainder = torch.cat(
        [_remainder(sides, part, each) for part, each in zip(parts, found)], dim=1
    )
    noise = torch.cat(
        [_noise(part, each, _terms(weights), unit) for part, each in zip(parts, found)], dim=1
    )
    exact = 4 * (noise @ torch.from_numpy(reach) + constant)
    w1, b1, w2, b2 = (each.detach().double().cpu() for each in weights[:4])
    decoder = Weights(w1, b1, w2, b2, weights.sharpness)
    flat = nodes.reshape(-1, 3)
    inner = (features_of(flat, parts) @ w1.T + b1).reshape(len(nodes), 27, -1)
    values = evaluate(flat, parts, decoder).reshape(-1, 27)
    bounds = []
    for half in HALVES:
        corners = [9 * (half[0] + a) + 3 * (half[1] + b) + half[2] + c for a, b, c in HALVES]
        below, above = _half(values[:, corners], inner[:, corners], remainder, decoder)
        bounds.append(torch.stack([below - exact, above + exact], dim=1))
    return torch.stack(bounds, dim=1).numpy()


def _half(
    values: Tensor, inner: Tensor, remainder: Tensor, decoder: Weights
) -> tuple[Tensor, Tensor]:
    """Bounds ``(n,)`` on halves from the values ``(n, 8)`` and the hidden units' inputs
    ``(n, 8, hidden)`` at their corners, and the remainders of the features ``(n, inputs)``."""
    w1, w2, sharpness = decoder.w1, decoder.w2[0], decoder.sharpness
    mean = inner.mean(dim=1)
    steep = torch.sigmoid(sharpness * mean)
    touch = nn.functional.softplus(mean, beta=sharpness)
    line = touch[:, None] + steep[:, None] * (inner - mean[:, None])
    gap = (nn.functional.softplus(inner, beta=sharpness) - line).clamp_min(0)
    above = (values + gap @ (-w2).clamp_min(0)).amax(dim=1)
    below = (values - gap @ w2.clamp_min(0)).amin(dim=1)
    # A remainder moves the value by the value's derivative in the feature, as the mean of the
    # inputs has it; the change of a hidden unit's derivative is bounded by its range.
    spread = remainder @ w1.abs().T
    most = torch.sigmoid(sharpness * (inner.amax(dim=1) + spread))
    least = torch.sigmoid(sharpness * (inner.amin(dim=1) - spread))
    change = torch.maximum(most - steep, steep - least)
    slope = (steep * w2) @ w1
    slack = (slope.abs() * remainder).sum(dim=1) + (change * w2.abs() * spread).sum(dim=1)
    return below - slack, above + slack


def _double(part: Part) -> Part:
    def cast(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().double().cpu()

    grid = part.grid._replace(rows=part.grid.rows.cpu())
    return Part(
        grid,
        part.table.detach().double().cpu(),
        part.plain,
        part.kind,
        cast(part.omega),
        cast(part.phase),
        part.radians,
    )


def _remainder(sides: Tensor, part: Part, found: Ranges) -> Tensor:
    """How far each feature ``(n, features)`` of a level may be from the multilinear interpolant of
    its values at the corners of a half with ``sides (n, 3)``."""
    square, quarter, plain = sides[:, :, None] ** 2 / 8, sides[:, :, None] / 4, part.plain
    plainly = (square * found.bend + quarter * found.jump)[:, :, :plain].sum(dim=1)
    if part.omega is None:
        return plainly
    here, other = slice(plain, plain + part.waves), slice(plain + part.waves, None)
    omega, size, slope = part.omega.T[None], found.size[:, None, here], found.slope()
    speed, twist, jump = omega.abs(), 0.0, found.jump[:, :, here]
    if part.kind == PHASE:
        rise = omega + part.radians * found.rise[:, :, other]
        fall = omega - part.radians * found.fall[:, :, other]
        speed = torch.maximum(rise.abs(), fall.abs())
        twist = part.radians * found.bend[:, :, other]
        jump = jump + size * part.radians * found.jump[:, :, other]
    sine = found.bend[:, :, here] + size * speed**2
    cosine = 2 * slope[:, :, here] * speed + size * twist
    if part.kind == COMPLEX:
        second = found.size[:, None, other]
        sine = sine + 2 * slope[:, :, other] * speed
        cosine = cosine + found.bend[:, :, other] + second * speed**2
        size, jump = size + second, jump + found.jump[:, :, other]
    bend = (square * (sine**2 + cosine**2).sqrt() + quarter * jump).sum(dim=1)
    return torch.cat([plainly, torch.minimum(bend, 2 * size[:, 0])], dim=1)


def _noise(part: Part, found: Ranges, terms: int, unit: float) -> Tensor:
    """The rounding of each feature ``(n, features)`` of a level, and of its part in sums of
    ``terms``: of weights, and of points, by which sums over the axes are moved."""
    wrong = 4.1 * unit * found.slope().sum(dim=1) + 28 * unit * found.hull
    size, plain, waves = found.size, part.plain, part.waves
    plainly = wrong[:, :plain] + terms * unit * size[:, :plain]
    if part.omega is None or part.phase is None:
        return plainly
    here, other = slice(plain, plain + waves), slice(plain + waves, None)
    angle, turned = part.omega.abs().sum(dim=1) + part.phase.abs(), 0.0
    rounded, large = wrong[:, here], size[:, here]
    if part.kind == PHASE:
        angle = angle + part.radians * size[:, other]
        turned = part.radians * wrong[:, other]
    if part.kind == COMPLEX:
        rounded, large = rounded + wrong[:, other], large + size[:, other]
    rounded = rounded + large * ((6 * angle + 9 + terms) * unit + turned)
    return torch.cat([plainly, rounded], dim=1)
