"""Roots of a signed distance: on segments with a change of sign, and near points, by Newton."""

from __future__ import annotations

import torch
from torch import Tensor

from nstr3d.sdf import Sdf

HALVINGS = 60  # steps on a segment, at most: bisection alone reaches rounding
NEWTON_STEPS = 16
SMALLEST = 0.1  # share of a step at which a point gives up: it halves where a step does not help
STEEPEST = 0.25  # least slope that is believed: a step is at most four times the distance


@torch.no_grad()
def between(
    sdf: Sdf,
    inside: Tensor,
    outside: Tensor,
    accuracy: float,
    ends: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Points of the surface on segments, by the Illinois secant method, and the distances there.

    ``inside (n, 3)`` has distances that are not positive, ``outside (n, 3)`` has others. A segment
    ends at a distance of at most ``accuracy``, in world units, or where its ends meet. ``ends``
    holds the distances of ``inside`` and ``outside``, if they are known.
    """
    low, high = inside.clone(), outside.clone()
    f_low, f_high = ends or (sdf(low), sdf(high))
    nearer = f_low.abs() <= f_high.abs()
    best = torch.where(nearer[:, None], low, high)
    value = torch.where(nearer, f_low, f_high)
    kept = torch.zeros_like(f_low)
    active = torch.nonzero(value.abs() > accuracy).squeeze(1)
    for step in range(HALVINGS):
        if not len(active):
            break
        a, b, fa, fb = low[active], high[active], f_low[active], f_high[active]
        share = (fa / (fa - fb)).clamp(1e-3, 1 - 1e-3)
        share = torch.where(torch.isfinite(share) & (step % 4 != 3), share, 0.5)
        at = a + share[:, None] * (b - a)
        here = sdf(at)
        better = here.abs() < value[active].abs()
        best[active] = torch.where(better[:, None], at, best[active])
        value[active] = torch.where(better, here, value[active])
        inner = here <= 0
        # Illinois: halve the value of an end that stays twice, so that the secant leaves it.
        again = torch.where(inner, kept[active] == 1, kept[active] == -1)
        kept[active] = torch.where(inner, 1.0, -1.0).to(kept.dtype)
        low[active] = torch.where(inner[:, None], at, a)
        high[active] = torch.where(inner[:, None], b, at)
        f_low[active] = torch.where(inner, here, torch.where(again, fa / 2, fa))
        f_high[active] = torch.where(inner, torch.where(again, fb / 2, fb), here)
        active = active[value[active].abs() > accuracy]
    return best, value


def newton(
    sdf: Sdf, points: Tensor, accuracy: float, first: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Moves ``points (n, 3)`` along the gradient on to the surface: the points, and distance
    ``(n,)`` and gradient ``(n, 3)`` there.

    A step that does not bring a point nearer is halved. A point stops where its distance is at most
    ``accuracy``, in world units, or where no step helps; its distance tells. ``first`` holds
    distance and gradient at ``points``, if they are known.
    """
    value, slope = first or sdf.value_and_gradient(points)
    at, moved = points, points - _steps(value, slope)
    f_moved, g_moved = sdf.value_and_gradient(moved)
    better = (f_moved.abs() < value.abs()) & (value.abs() > accuracy)
    # Nearly all points take their first step: choosing among whole arrays is faster than rows.
    at = torch.where(better[:, None], moved, at)
    slope = torch.where(better[:, None], g_moved, slope)
    value = torch.where(better, f_moved, value)
    active = torch.nonzero(value.abs() > accuracy).squeeze(1)
    share = torch.where(better[active], 1.0, 0.5).to(value)
    for _ in range(NEWTON_STEPS):
        if not len(active):
            break
        moved = at[active] - share[:, None] * _steps(value[active], slope[active])
        f_moved, g_moved = sdf.value_and_gradient(moved)
        better = f_moved.abs() < value[active].abs()
        chosen = active[better]
        at[chosen], value[chosen], slope[chosen] = moved[better], f_moved[better], g_moved[better]
        share = torch.where(better, 1.0, share / 2)
        going = (value[active].abs() > accuracy) & (share > SMALLEST)
        active, share = active[going], share[going]
    return at, value, slope


def stepped(sdf: Sdf, points: Tensor, first: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """``points (n, 3)`` after one step of Newton's method, and the magnitude of the distance there.
    ``first`` holds distance and gradient at ``points``."""
    moved = points - _steps(*first)
    with torch.no_grad():
        return moved, sdf.distance(moved).abs().to(moved)


def _steps(value: Tensor, slope: Tensor) -> Tensor:
    """The steps ``(n, 3)`` of Newton's method up the gradient."""
    steep = torch.linalg.vecdot(slope, slope).clamp_min(STEEPEST**2)
    return (value / steep)[:, None] * slope
