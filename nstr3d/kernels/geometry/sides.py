"""Signed distance to local quadratics: blended where they face one way, cut off by each other where
they do not (numba).

Patches that face alike are a side of the surface and are blended (moving least squares). Where
there are several sides, the surface has a crease, and they are joined as solids are: where they
meet convexly the larger distance counts, where concavely the smaller (as in Ohtake et al.,
Multi-level partition of unity implicits, 2003).
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

SIDES = 3  # that meet at most; where more seem to, all are blended
LEAST = 3  # patches that make a side; fewer belong to none, as astray
NONE, ASTRAY = -1, -2  # where a patch belongs before it is looked at, and where it is in no side

# Of all patches, see `geometry.cloud.patches.Patches`: arrays of n, float64. One is worth as much
# as its scale, the neighbours it took.
Quadratics = namedtuple("Quadratics", "centres frames normals coefficients radius scale")


@njit(cache=True, nogil=True)
def distances(low, high, points, near, reach, width, crisp, facing, patches, out):
    """One thread's share of signed distances ``out (m,)`` at ``points (m, 3)`` from the patches
    ``near (m, k)``, the nearest first, whose centres are at distances ``reach (m, k)``; how much
    one counts falls over ``width (m,)``. All are one side but where it is ``crisp (m,)``: there
    those are whose normals are within an angle, of cosine ``facing``, of the normal of the one with
    the largest scale."""
    side = np.empty(near.shape[1], np.int64)
    means, places, normals = np.empty(SIDES), np.empty((SIDES, 3)), np.empty((SIDES, 3))
    for p in range(low, high):
        sides = (
            _sides(near[p], patches.normals, patches.scale, facing, side)
            if crisp[p]
            else _one(side)
        )
        for which in range(sides):
            means[which] = _mean(
                points[p],
                near[p],
                reach[p],
                width[p],
                patches,
                side,
                which,
                places[which],
                normals[which],
            )
        out[p] = _joined(sides, means, places, normals)


@njit(cache=True)
def _sides(near, normals, scale, facing, side):
    """How many sides there are, and into ``side (k,)`` to which each patch belongs: those on a
    crease, whose neighbours soon do not fit, to whichever of them that they face, and too few for a
    side to none."""
    count, left = 0, len(near)
    side[:] = NONE
    while left and count < SIDES:
        first = -1
        for k in range(len(near)):
            if side[k] == NONE and (first < 0 or scale[near[k]] > scale[near[first]]):
                first = k
        members = 0
        for k in range(len(near)):
            if side[k] == NONE and (
                k == first or np.dot(normals[near[k]], normals[near[first]]) >= facing
            ):
                side[k] = count
                members += 1
                left -= 1
        if members >= LEAST:
            count += 1
        else:
            for k in range(len(near)):
                side[k] = ASTRAY if side[k] == count else side[k]
    return count if count and not left else _one(side)


@njit(cache=True)
def _one(side):
    side[:] = 0
    return 1


@njit(cache=True)
def _mean(point, near, reach, width, patches, side, which, place, normal):
    """The distance to a side's patches, by scale and the nearer the more; into ``place`` and
    ``normal`` their mean centre and normal."""
    total, value, members, nearest = 0.0, 0.0, 0, 0.0
    place[:], normal[:] = 0.0, 0.0
    for k in range(len(near)):
        if side[k] == which:
            nearest = reach[k] if members == 0 else nearest
            weight = patches.scale[near[k]] * np.exp(
                (nearest * nearest - reach[k] * reach[k]) / (width * width)
            )
            total += weight
            value += weight * _distance(point, patches, near[k])
            members += 1
            for axis in range(3):
                place[axis] += patches.centres[near[k], axis]
                normal[axis] += patches.normals[near[k], axis]
    place /= members
    normal /= np.sqrt((normal * normal).sum())
    return value / total


@njit(cache=True)
def _distance(point, patches, index):
    """Signed distance to a quadratic, to first order; beyond its radius, where it means little, it
    is as at its rim."""
    frame, c = patches.frames[index], patches.coefficients[index]
    u = v = z = 0.0
    for axis in range(3):
        offset = point[axis] - patches.centres[index, axis]
        u, v, z = (
            u + offset * frame[0, axis],
            v + offset * frame[1, axis],
            z + offset * frame[2, axis],
        )
    shrink = min(1.0, patches.radius[index] / max(np.sqrt(u * u + v * v), 1e-12))
    u, v = u * shrink, v * shrink
    height = c[0] + c[1] * u + c[2] * v + c[3] * u * u / 2 + c[4] * u * v + c[5] * v * v / 2
    slope_u, slope_v = c[1] + c[3] * u + c[4] * v, c[2] + c[4] * u + c[5] * v
    return (z - height) / np.sqrt(1 + slope_u * slope_u + slope_v * slope_v)


@njit(cache=True)
def _joined(sides, means, places, normals):
    """The distance to up to three sides. Of three that do not all meet alike, the two that meet as
    no others do come first."""
    if sides == 1:
        return means[0]
    first = _convex(places, normals, 0, 1)
    if sides == 2:
        return _cut(means[0], means[1], first)
    second, third = _convex(places, normals, 0, 2), _convex(places, normals, 1, 2)
    most = int(first) + int(second) + int(third) >= 2
    if second != most:
        return _cut(_cut(means[0], means[2], second), means[1], most)
    if third != most:
        return _cut(_cut(means[1], means[2], third), means[0], most)
    return _cut(_cut(means[0], means[1], first), means[2], most)


@njit(cache=True)
def _cut(one, other, convex):
    return max(one, other) if convex else min(one, other)


@njit(cache=True)
def _convex(places, normals, a, b):
    """Whether two sides meet at a ridge, each being behind the other, rather than in a valley."""
    ahead = 0.0
    for axis in range(3):
        ahead += (places[b, axis] - places[a, axis]) * (normals[a, axis] - normals[b, axis])
    return ahead < 0
