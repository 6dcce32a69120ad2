"""Estimates normals of points, and orients normals outward.

The direction of a normal is the direction of least variance among the nearest neighbours (Hoppe et
al., Surface reconstruction from unorganized points, 1992); the number of neighbours grows until
their spread exceeds the noise. The signs of all normals are found together: vectors are sought
whose winding number is 1/2 at all points and which point in the direction in which it falls (Lin et
al., Fast and globally consistent normal orientation based on the winding number normal consistency,
2024).

Components that are supplied inside out are also detected by the winding number, which is about 1/2
on a surface that faces outward. A sheet that encloses nothing has no outside; its signs are only
made consistent (`spread_signs`). Functions take points ``(n, 3)`` or the search tree over them.
"""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.noise import noise_of, tangent_frames
from nstr3d.geometry.cloud.winding import CloudWinding
from nstr3d.geometry.graph import label_components

SCALES = (10, 16, 26, 42, 68, 110, 180, 290)  # numbers of neighbours for a normal, tried in turn
SLAB_RADII = 6.0  # least radius of neighbourhoods, in standard deviations of the noise
LINKS = 10  # nearest neighbours that each point is connected to
REPRESENTATIVES = 30_000  # points whose signs are computed; others copy the nearest of these
ROUNDS = 15  # of `winding_normals`
WIDEST = 0.06  # first smoothing width of the winding number, in units of the points' longest side
# The last smoothing width is the root of the sum of squares of ``FINEST`` spacings and ``BLURRED``
# standard deviations of the noise.
FINEST, BLURRED = 0.5, 2.2
# With more noise than this, in spacings, the vectors of `winding_normals` have better directions
# than the directions of least variance.
FUZZY = 0.15
AGREED = 0.7  # where the cosine of the two directions is lower, at creases, the vectors are better
# The points may be a sheet that encloses nothing if the mean winding number on them is lower than
# ``OPEN`` and the fraction of neighbours that disagree is larger than ``SEAMS``: the computed signs
# of a sheet change along seams.
OPEN = 0.35
SEAMS = 0.005
DISCORD = 0.1  # if a larger fraction of neighbours disagrees, all signs are recomputed
# Normals with a cosine of at most ``OPPOSED`` disagree about the sign; at a crease it is about 0.
OPPOSED = -0.5
INVERTED = -0.1  # a component with a lower mean winding number is inside out: -1/2 if closed
SMALLEST = 50  # points of the smallest component that can be classified as inside out
PROBES = 2000  # points at which the winding number of a component is averaged
# Layers of a thin plate: the nearest ``AROUND`` points, up to ``NEAR`` spacings, are searched for
# points above each other by more than ``BEYOND`` standard deviations of the noise, or ``ABOVE``
# if these are less than half a spacing: then chance puts no two points above each other.
AROUND, NEAR, BEYOND, ABOVE = 256, 8.0, 6.0, 3.0
UPRIGHT, LAYERED = 0.8, 0.3  # least cosine to the normal; least share of points with a layer
# An isle is a patch of wrong signs: its points agree with each other, with links of at least
# ``LINKED``, and oppose those around them, which belong to a patch ``LARGER`` times as large. The
# links to the latter sum up to ``OPPOSING`` times those that agree, and to ``RIM`` for each point
# along a side of the isle.
LINKED, LARGER, OPPOSING, RIM = 0.25, 4, 4.0, 0.5
LARGEST_ISLE, SMALLEST_ISLE = 0.05, 2  # of the points; points
PASSES = 3
CHUNK = 1 << 14  # points at a time: bounds memory


def estimate_normals(points: np.ndarray | Neighbours) -> np.ndarray:
    """Unit normals ``(n, 3)`` of ``points (n, 3)``, of arbitrary sign."""
    neighbours = Neighbours.of(points)
    points = neighbours.points
    probes = np.linspace(0, len(points) - 1, min(len(points), 2000)).astype(int)
    size = SCALES[0]
    for size in [k for k in SCALES if k < len(points)] or [len(points)]:
        reach, near = neighbours(points[probes], size)
        thickness = float(np.sqrt(np.median(_spread(points[near])[0][:, 0])))
        if np.median(reach[:, -1]) > SLAB_RADII * thickness:
            break
    parts = np.array_split(np.arange(len(points)), len(points) // CHUNK + 1)
    return np.concatenate(
        [_spread(points[neighbours(points[rows], size)[1]])[1][:, :, 0] for rows in parts]
    )


def outward_normals(points: np.ndarray | Neighbours) -> np.ndarray:
    """Estimates unit normals ``(n, 3)`` of ``points (n, 3)`` that point outward.

    If the points are a sheet that encloses nothing, the signs are only consistent. At creases and
    in strong noise, directions come from `winding_normals` instead of the least variance.
    """
    tree = Neighbours.of(points)
    normals = estimate_normals(tree)
    chosen, leaders = _representatives(tree)
    noise, spacing = _scales(leaders, normals[chosen])
    some = winding_normals(leaders.points, _width(noise, spacing))
    probes = _probes(chosen)
    if _discord(leaders, some) > SEAMS and CloudWinding(leaders, some).side(probes) < OPEN:
        if has_layers(leaders, normals[chosen], noise, spacing):
            # The other layer counts as noise, so that the width may exceed the thickness.
            sharp = winding_normals(leaders.points, _width(0.0, spacing))
            some = max(some, sharp, key=lambda each: CloudWinding(leaders, each).side(probes))
        else:
            sheet = spread_signs(leaders, normals[chosen])
            some = min(some, sheet, key=lambda candidate: _discord(leaders, candidate))
    result = _follow(tree.points, normals, leaders, some)
    doubtful = np.einsum("nd,nd->n", result[chosen], some) < AGREED
    better = chosen if noise > FUZZY * spacing else chosen[doubtful]
    result[better] = some[np.searchsorted(chosen, better)]
    return without_isles(tree, result)


def has_layers(tree: Neighbours, normals: np.ndarray, noise: float, spacing: float) -> bool:
    """Whether many points face another layer of points, as on a thin plate: one that lies along
    their normals, of any sign, within `NEAR` spacings and beyond the noise, and is about parallel.
    """
    probes = _probes(normals)
    reach, near = tree(tree.points[probes], AROUND + 1, skip=1)
    step = tree.points[near] - tree.points[probes, None]
    height = np.abs(np.einsum("nkd,nd->nk", step, normals[probes]))
    parallel = np.abs(np.einsum("nkd,nd->nk", normals[near], normals[probes])) > UPRIGHT
    least = (ABOVE if noise < 0.5 * spacing else BEYOND) * noise
    above = (height > UPRIGHT * reach) & (height > least) & (reach < NEAR * spacing)
    return bool((above & parallel).any(axis=1).mean() > LAYERED)


def without_isles(points: np.ndarray | Neighbours, normals: np.ndarray) -> np.ndarray:
    """``normals (n, 3)`` of ``points (n, 3)`` with isles turned over: patches of wrong signs.

    The winding number takes the wall of a cavity that is seen in part for the other side of a thin
    sheet. There the signs change from one point to the next along the surface; on thin parts and at
    sharp edges they change across it, or between patches of like size.
    """
    tree, result = Neighbours.of(points), normals
    for _ in range(PASSES):
        start, end, weight = _links_along(tree, result)
        same = weight >= LINKED
        label = label_components(tree.count, start[same], end[same])
        size = np.bincount(label)
        apart = label[start] != label[end]
        own, other, weight = label[start[apart]], label[end[apart]], weight[apart]
        agree = np.bincount(own, np.maximum(weight, 0), len(size))
        much_larger = size[other] >= LARGER * size[own]
        oppose = np.bincount(own, np.maximum(-weight, 0) * much_larger, len(size))
        isle = (size >= SMALLEST_ISLE) & (size <= LARGEST_ISLE * tree.count)
        isle &= (oppose > OPPOSING * agree) & (oppose > RIM * np.sqrt(size))
        if not isle.any():
            break
        result = np.where(isle[label][:, None], -result, result)
    return result


def _links_along(tree: Neighbours, normals: np.ndarray) -> tuple[np.ndarray, ...]:
    """The ends ``(m,)`` of the edges between neighbours, in both directions, and their weights:
    the cube of the cosine between their normals, less where an edge does not lie along the
    surface."""
    start, end = _links(tree)
    step = tree.points[end] - tree.points[start]
    step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-300)
    across = [np.einsum("md,md->m", normals[side], step) for side in (start, end)]
    cosine = np.einsum("md,md->m", normals[start], normals[end])
    weight = cosine**3 * np.prod([np.maximum(1 - each**2, 0) ** 2 for each in across], axis=0) / 2
    return np.append(start, end), np.append(end, start), np.append(weight, weight)


def orient(points: np.ndarray | Neighbours, normals: np.ndarray) -> tuple[np.ndarray, int]:
    """Orients ``normals (n, 3)`` of ``points (n, 3)`` outward, whatever their signs.

    Returns the normals and the number of normals that were turned over.
    """
    tree = Neighbours.of(points)
    chosen, leaders = _representatives(tree)
    some = winding_normals(leaders.points, _width(*_scales(leaders, normals[chosen])))
    result = _follow(tree.points, normals, leaders, some)
    return result, int((np.einsum("nd,nd->n", normals, result) < 0).sum())


def winding_normals(points: np.ndarray, width: float) -> np.ndarray:
    """Unit outward normals ``(n, 3)`` of ``points (n, 3)``, computed from the points alone.

    They derive from a winding number smoothed over ``width``, in the units of the points. Each of
    `ROUNDS` rounds takes the steepest-descent step towards a winding number of 1/2 at all points,
    then turns every vector to the direction in which the winding number falls. The smoothing
    shrinks to ``width`` from round to round.
    """
    from nstr3d.kernels.geometry.dipoles import Dipoles

    dipoles, vectors = Dipoles(points), np.zeros_like(points)
    widest = max(width, WIDEST * float(np.ptp(points, axis=0).max()))
    for blur in np.geomspace(widest, width, ROUNDS):
        step = dipoles.adjoint(0.5 - dipoles.number(vectors, blur), blur)
        change = dipoles.number(step, blur)
        vectors += (step * step).sum() / max(change @ change, 1e-300) * step
        slope = dipoles.slope(vectors, blur)
        vectors = _unit(slope) * np.linalg.norm(vectors, axis=1, keepdims=True)
    return _unit(vectors)


def spread_signs(points: np.ndarray | Neighbours, normals: np.ndarray) -> np.ndarray:
    """``normals (n, 3)`` with consistent signs on each connected set of ``points (n, 3)``.

    The sign of one normal is propagated along a minimum spanning tree of neighbours with nearly
    parallel normals (Hoppe et al., 1992). This is for sheets that enclose nothing: across thin
    parts the propagation jumps to the opposite side.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    tree = Neighbours.of(points)
    start, end = _links(tree)
    bend = 1 - np.abs(np.einsum("md,md->m", normals[start], normals[end]))
    count = tree.count
    # A sparse graph treats a weight of 0 as no edge, hence the small constant.
    graph = coo_array((bend + 1e-6, (start, end)), shape=(count, count)).tocsr()
    spanning = minimum_spanning_tree(graph.maximum(graph.T))
    label, sign = label_components(count, *spanning.nonzero()), np.ones(count)
    for first in np.unique(label, return_index=True)[1]:
        order, parent = breadth_first_order(spanning, first, directed=False)
        agree = np.einsum("md,md->m", normals[order[1:]], normals[parent[order[1:]]]) >= 0
        for each, same in zip(order[1:], agree):
            sign[each] = sign[parent[each]] if same else -sign[parent[each]]
    return normals * sign[:, None]


def turn_outward(points: np.ndarray | Neighbours, normals: np.ndarray) -> tuple[np.ndarray, int]:
    """Turns over the components of ``normals (n, 3)`` that are inside out, and stray normals.

    Returns the normals and the number of normals that were turned over. If more neighbours disagree
    about the sign than noise and creases explain, all signs are recomputed by `orient`. The new
    signs are kept only if they give a larger mean winding number at the points, because neighbours
    also disagree around thin parts.
    """
    tree = Neighbours.of(points)
    outward = _outward(tree, normals)
    if _discord(tree, normals) > DISCORD:
        anew, probes = orient(tree, normals)[0], _probes(tree.points)
        outward = max(
            outward, anew, key=lambda candidate: CloudWinding(tree, candidate).side(probes)
        )
    return outward, int((np.einsum("nd,nd->n", outward, normals) < 0).sum())


def _spread(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal variances of groups of points ``near (m, k, 3)``.

    Returns the variances ``(m, 3)`` in ascending order, and their directions ``(m, 3, 3)`` in
    columns.
    """
    offset = near - near.mean(axis=1, keepdims=True)
    return np.linalg.eigh(np.einsum("mki,mkj->mij", offset, offset) / near.shape[1])


def _representatives(tree: Neighbours) -> tuple[np.ndarray, Neighbours]:
    """Indices of the points whose signs are computed, and the search tree over these points."""
    if tree.count <= REPRESENTATIVES:
        return np.arange(tree.count), tree
    chosen = np.sort(np.random.default_rng(0).permutation(tree.count)[:REPRESENTATIVES])
    return chosen, Neighbours(tree.points[chosen])


def _links(tree: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """The two end indices ``(m,)`` of the edges from each point to its nearest neighbours."""
    _, near = tree(tree.points, LINKS + 1, skip=1)
    return np.repeat(np.arange(tree.count), near.shape[1]), near.ravel()


def _discord(tree: Neighbours, normals: np.ndarray) -> float:
    """Fraction of neighbouring pairs whose normals disagree about the sign."""
    start, end = _links(tree)
    return float(np.mean(np.einsum("md,md->m", normals[start], normals[end]) <= OPPOSED))


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 0, vectors / np.maximum(length, 1e-300), (0.0, 0.0, 1.0))


def _scales(tree: Neighbours, normals: np.ndarray) -> tuple[float, float]:
    """Standard deviation of the points about the surface, and their spacing on it."""
    noise, _ = noise_of(tree.points, tangent_frames(normals), tree, measured=False)
    return noise, float(np.sqrt(np.median(CloudWinding(tree, normals).areas)))


def _width(noise: float, spacing: float) -> float:
    return float(np.hypot(BLURRED * noise, FINEST * spacing))


def _follow(
    points: np.ndarray, normals: np.ndarray, leaders: Neighbours, outward: np.ndarray
) -> np.ndarray:
    """``normals (n, 3)`` with signs copied from other normals.

    The sign of each normal is that of the ``outward`` normal of the nearest of ``leaders``.
    """
    _, nearest = leaders.nearest(points)
    turned = np.einsum("nd,nd->n", normals, outward[nearest]) < 0
    return np.where(turned[:, None], -normals, normals)


def _outward(tree: Neighbours, normals: np.ndarray) -> np.ndarray:
    """``normals`` with every component that faces inward, and every stray normal, turned over."""
    result, label = normals.copy(), _components(tree, normals)
    size = np.bincount(label)
    for member in (
        np.flatnonzero(label == part) for part in np.argsort(-size) if size[part] >= SMALLEST
    ):
        if CloudWinding(tree, result).side(member[_probes(member)]) < INVERTED:
            result[member] *= -1
    return _without_strays(tree, result)


def _without_strays(tree: Neighbours, normals: np.ndarray) -> np.ndarray:
    """``normals (n, 3)`` with stray normals turned over.

    A stray normal belongs to a component of fewer than `SMALLEST` points, too few for a separate
    sheet, and is opposed by the normals of larger components around it.
    """
    label = _components(tree, normals)
    few = np.bincount(label)[label] < SMALLEST
    stray = np.flatnonzero(few)
    if not 0 < len(stray) < tree.count:
        return normals
    _, near = tree(tree.points[stray], LINKS + 1, skip=1)
    agreement = np.einsum("nd,nkd,nk->n", normals[stray], normals[near], ~few[near])
    result = normals.copy()
    result[stray[agreement < 0]] *= -1
    return result


def _probes(rows: np.ndarray) -> np.ndarray:
    """Positions of at most `PROBES` evenly spaced elements of ``rows``."""
    return np.arange(0, len(rows), len(rows) // PROBES + 1)


def _components(tree: Neighbours, normals: np.ndarray) -> np.ndarray:
    """A label ``(n,)`` for each point.

    Neighbours whose normals do not disagree about their sign share a label.
    """
    start, end = _links(tree)
    agree = np.einsum("md,md->m", normals[start], normals[end]) > OPPOSED
    return label_components(tree.count, start[agree], end[agree])
