"""Signed distance to local quadratic patches, with sharp creases (numba).

Patches with similar normals form a side of the surface; their distances are blended (moving least
squares). Where there are several sides, the surface has a crease, and the sides are combined like
solids: where they meet convexly, the larger distance counts (intersection), where they meet
concavely, the smaller (union), as in Ohtake et al., Multi-level partition of unity implicits, 2003.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nstr3d.kernels.compiled import njit

SIDES = 3  # sides that meet, at most; if there are more, all patches are blended
LEAST = 3  # patches of a side, at least; smaller groups are outliers and are ignored
NONE, ASTRAY = -1, -2  # in place of a side's number: not yet assigned, and outlier

# The float64 arrays of all n patches, see `geometry.cloud.patches.Patches`. A patch's weight is its
# scale, the number of neighbours that it was fitted to.
Quadratics = namedtuple("Quadratics", "centres frames normals coefficients radius scale")


@njit(cache=True, nogil=True)
def distances(low, high, points, near, reach, width, crisp, facing, patches, out):
    """Writes elements ``low`` to ``high`` of ``out (m,)``: signed distances at ``points (m, 3)``.

    ``near (m, k)`` holds the indices of the nearest patches, the nearest first, and
    ``reach (m, k)`` the distances to their centres. The weight of a patch is a Gaussian of this
    distance whose width is ``width (m,)``. All patches of a point form one side, except where
    ``crisp (m,)`` is true. There, a side consists of the patches whose normals differ from that of
    the patch with the largest scale by at most the angle with cosine ``facing``.
    """
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
        out[p] = _combine(sides, means, places, normals)


@njit(cache=True)
def _sides(near, normals, scale, facing, side):
    """The number of sides; writes the number of each patch's side to ``side (k,)``.

    The unassigned patch with the largest scale starts a side. Patches on a crease have small
    scales, because few neighbours fit them, so they join a side with similar normals. Groups of
    fewer than `LEAST` patches belong to no side. If there is no side, or if patches are unassigned
    after `SIDES` sides, all patches form one side.
    """
    count, unassigned = 0, len(near)
    side[:] = NONE
    while unassigned and count < SIDES:
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
                unassigned -= 1
        if members >= LEAST:
            count += 1
        else:
            for k in range(len(near)):
                side[k] = ASTRAY if side[k] == count else side[k]
    return count if count and not unassigned else _one(side)


@njit(cache=True)
def _one(side):
    """Assigns all patches to one side; returns 1, the number of sides."""
    side[:] = 0
    return 1


@njit(cache=True)
def _mean(point, near, reach, width, patches, side, which, place, normal):
    """The mean distance to a side's patches, weighted by their scale and a Gaussian of the distance
    to their centres. Writes their mean centre and normal to ``place`` and ``normal``."""
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
    """Signed distance to a quadratic patch, to first order. Beyond the patch's radius, where the
    quadratic is unreliable, height and slope are those at the nearest point of its rim."""
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
def _combine(sides, means, places, normals):
    """The distance to up to three sides. With three sides, if one pair meets convexly and the
    others concavely (or the reverse), that pair is combined first."""
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
    """The distance to the intersection of two sides if they meet convexly, else to their union."""
    return max(one, other) if convex else min(one, other)


@njit(cache=True)
def _convex(places, normals, a, b):
    """Whether two sides meet convexly, at a ridge: each side's centre is behind the other side."""
    ahead = 0.0
    for axis in range(3):
        ahead += (places[b, axis] - places[a, axis]) * (normals[a, axis] - normals[b, axis])
    return ahead < 0
