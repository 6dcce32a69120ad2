"""Rays that step through empty space and from sample to sample of a distance (numba).

Twins in plain torch: `surface.emptyspace.EmptySpace`, `surface.trace` and `render.shadow`, which
describe the methods. Between two samples of a distance, a ray's state is a few numbers: here they
are read and written once a step, and rays that arrived are left out of the next step.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nstr3d.kernels.compiled import njit

# An empty space, see `surface.emptyspace.EmptySpace`: ``origin (3,)``, the length ``cell``, and
# ``clearance (x, y, z)``.
Space = namedtuple("Space", "origin cell clearance")
# The state of rays, see `surface.trace._Trace`: float64 arrays ``(n,)``, but for ``hit`` and
# ``longer`` (bool), ``steps`` (int64), and ``origins`` and ``directions (n, 3)``.
State = namedtuple(
    "State", "origins directions far depth before value value_before hit longer steps"
)
# What a step of sphere tracing depends on; lengths are in world units.
Stepping = namedtuple("Stepping", "accuracy footprint relaxation flatness")
# Rays to a light, see `render.shadow`: ``starts (n, 3)``, and float64 ``steepness``, ``travel`` and
# ``lit (n,)``.
Shadow = namedtuple("Shadow", "starts towards steepness travel lit")
# Lengths in world units, and the tangent of the light's half angle.
Penumbra = namedtuple("Penumbra", "softness least near longest end")


@njit(cache=True, nogil=True)
def free(low, high, points, space, out):
    """Writes elements ``low`` to ``high`` of ``out (n,)``: the clearance that ``space`` guarantees
    at ``points (n, 3)``."""
    for n in range(low, high):
        out[n] = _free(points[n, 0], points[n, 1], points[n, 2], space)


@njit(cache=True, nogil=True)
def leave(low, high, origins, directions, far, space, steps, depth):
    """Moves ``depth (n,)`` of rays ``low`` to ``high`` forward through ``space``, at most to
    ``far (n,)``, in at most ``steps`` steps."""
    least = space.cell / 4
    for n in range(low, high):
        for _ in range(steps):
            if not depth[n] < far[n]:
                break
            clear = _free(
                origins[n, 0] + depth[n] * directions[n, 0],
                origins[n, 1] + depth[n] * directions[n, 1],
                origins[n, 2] + depth[n] * directions[n, 2],
                space,
            )
            if not clear > least:
                break
            depth[n] += clear


@njit(cache=True, nogil=True)
def advance(active, values, state, stepping, points):
    """Takes the step of each ray of ``active (m,)`` from its sample ``values (m,)``.

    Writes the rays that go on to the front of ``active``, and their next points to ``points
    (m, 3)``. Returns the number of these rays.
    """
    count, most = 0, max(1.0, stepping.relaxation)
    for m in range(len(active)):
        n, value = active[m], values[m]
        state.steps[n] += 1
        depth, before, reach = state.depth[n], state.before[n], state.value_before[n]
        step, thin = depth - before, stepping.footprint * depth
        state.value[n] = value
        following = before + reach
        if state.longer[n] and abs(value) + reach + thin < step:
            state.longer[n] = False
        elif value <= stepping.accuracy:
            state.longer[n] = False
            state.hit[n] = True
            continue
        else:
            fall = min(max((reach - value) / step, 0.0), 1.0) if step > 0 else 1.0
            ahead = 1.0
            if stepping.relaxation > 1:
                ahead = min(max(2 * stepping.flatness / (1 + fall), 1.0), most)
            stride = ahead * value + thin / 2
            state.longer[n] = stride > value
            state.before[n], state.value_before[n] = depth, value
            if not depth + value < state.far[n]:
                state.depth[n] = np.inf
                continue
            following = min(depth + stride, state.far[n])
        state.depth[n] = following
        active[count] = n
        for axis in range(3):
            points[count, axis] = state.origins[n, axis] + following * state.directions[n, axis]
        count += 1
    return count


@njit(cache=True, nogil=True)
def look(active, shadow, space, penumbra, points, clear, needed, tight):
    """Looks from each point of ``active (m,)`` on its way to the light.

    Writes to ``clear (m,)`` the clearance that ``space`` guarantees. Where that is too little, the
    row of ``active`` is written to the front of ``tight``, the point to ``points``, and the
    distance that is enough there to ``needed``. Returns the number of these rows.
    """
    count, towards = 0, shadow.towards
    for m in range(len(active)):
        n = active[m]
        along, start = shadow.travel[n], shadow.starts[n]
        x, y, z = (
            start[0] + along * towards[0],
            start[1] + along * towards[1],
            start[2] + along * towards[2],
        )
        clear[m] = _free(x, y, z, space)
        wide = penumbra.softness * along
        if clear[m] < max(wide, penumbra.near):
            tight[count] = m
            points[count, 0], points[count, 1], points[count, 2] = x, y, z
            needed[count] = max(wide, penumbra.longest) * shadow.steepness[n]
            count += 1
    return count


@njit(cache=True, nogil=True)
def darken(active, shadow, penumbra, clear, distances, tight):
    """Darkens the points of ``active (m,)`` by the clearance ``clear (m,)`` on their ways.

    ``distances`` are those of the rows ``tight`` of ``active``. The points that may become darker
    are written to the front of ``active``. Returns their number.
    """
    for k in range(len(tight)):
        clear[tight[k]] = distances[k] / shadow.steepness[active[tight[k]]]
    count = 0
    for m in range(len(active)):
        n, along = active[m], shadow.travel[active[m]]
        ratio = min(max(0.5 + 0.5 * clear[m] / (penumbra.softness * along), 0.0), 1.0)
        shadow.lit[n] = min(shadow.lit[n], ratio)
        shadow.travel[n] = along + min(max(clear[m], penumbra.least), penumbra.longest)
        if shadow.lit[n] > 0 and shadow.travel[n] < penumbra.end:
            active[count] = n
            count += 1
    return count


@njit(cache=True, nogil=True, inline="always")
def _free(x, y, z, space):
    """The clearance that ``space`` guarantees at a point."""
    shape, cell = space.clearance.shape, space.cell
    a, b, c = (
        (x - space.origin[0]) / cell,
        (y - space.origin[1]) / cell,
        (z - space.origin[2]) / cell,
    )
    i = min(max(int(np.floor(a)), 0), shape[0] - 1)
    j = min(max(int(np.floor(b)), 0), shape[1] - 1)
    k = min(max(int(np.floor(c)), 0), shape[2] - 1)
    a, b, c = a - i - 0.5, b - j - 0.5, c - k - 0.5
    return space.clearance[i, j, k] - np.sqrt(a * a + b * b + c * c) * cell
