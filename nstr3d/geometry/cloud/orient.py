"""Normals for points that have none, and outward directions for normals that do not agree about
them.

Directions are those of least variance among the neighbours (Hoppe et al., Surface reconstruction
from unorganized points, 1992), of as many as it takes to see beyond the noise. Their signs come
from the whole cloud at once: vectors are sought whose winding number is 1/2 on all points, and
which point where it falls (Lin et al., Fast and globally consistent normal orientation based on the
winding number normal consistency, 2024). Components given inside out are told by the winding number
as well: it is about 1/2 on a surface that faces outward. A sheet that encloses nothing has no
outside: there signs only agree (`spread_signs`). Functions take points or the tree over them.
"""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.noise import noise_of, tangent_frames
from nstr3d.geometry.cloud.winding import CloudWinding
from nstr3d.geometry.graph import label_components

SCALES = (10, 16, 26, 42, 68, 110, 180, 290)  # neighbours to take directions from, in turn
SLAB_RADII = 6.0  # how far the neighbourhood must reach, in standard deviations of the noise
LINKS = 10  # neighbours by which components hang together
REPRESENTATIVES = 30_000  # points whose signs are sought; the others follow the nearest of them
ROUNDS = 15  # of the search for vectors
WIDEST = 0.06  # smoothing of the winding number to begin with, in units of the points' longest side
# Smoothing at the end: root of the sum of squares of ``FINEST`` spacings and ``BLURRED``
# deviations of the noise.
FINEST, BLURRED = 0.5, 2.2
# noise in spacings, from which on the vectors themselves are better directions than those of least
# variance
FUZZY = 0.15
AGREED = 0.7  # cosine of both directions below which, at creases, the vectors are better too
OPEN = (
    0.35  # mean winding number on the points below which they may be a sheet that encloses nothing
)
# share of neighbours that disagree, from which on it is one whose signs change along seams
SEAMS = 0.005
DISCORD = (
    0.1  # share of neighbours that disagree, from which on given normals' signs are sought anew
)
OPPOSED = -0.5  # cosine of normals that disagree about their sign: at a crease it is about 0
INVERTED = -0.1  # mean winding number on a component given inside out, which is -1/2 if closed
SMALLEST = 50  # points of a component whose side can be told
PROBES = 2000  # points that a component's side is told from
CHUNK = 1 << 14


def estimate_normals(points: np.ndarray | Neighbours) -> np.ndarray:
    """Unit normals ``(n, 3)`` of ``points (n, 3)``, of either sign."""
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
    """Unit normals ``(n, 3)`` of ``points (n, 3)`` that look outward."""
    tree = Neighbours.of(points)
    normals = estimate_normals(tree)
    chosen, leaders = _representatives(tree)
    noise, spacing = _scales(leaders, normals[chosen])
    some = winding_normals(leaders.points, _width(noise, spacing))
    if _discord(leaders, some) > SEAMS and CloudWinding(leaders, some).side(_probes(chosen)) < OPEN:
        sheet = spread_signs(leaders, normals[chosen])
        some = min(some, sheet, key=lambda those: _discord(leaders, those))
    result = _follow(tree.points, normals, leaders, some)
    doubtful = np.einsum("nd,nd->n", result[chosen], some) < AGREED
    better = chosen if noise > FUZZY * spacing else chosen[doubtful]
    result[better] = some[np.searchsorted(chosen, better)]
    return result


def orient(points: np.ndarray | Neighbours, normals: np.ndarray) -> tuple[np.ndarray, int]:
    """``normals (n, 3)`` of ``points (n, 3)`` turned outward whatever their signs, and how many
    were turned over."""
    tree = Neighbours.of(points)
    chosen, leaders = _representatives(tree)
    some = winding_normals(leaders.points, _width(*_scales(leaders, normals[chosen])))
    result = _follow(tree.points, normals, leaders, some)
    return result, int((np.einsum("nd,nd->n", normals, result) < 0).sum())


def winding_normals(points: np.ndarray, width: float) -> np.ndarray:
    """Unit outward normals ``(n, 3)`` of ``points (n, 3)``, from their places alone, by a winding
    number smoothed over ``width``.

    Each round takes the steepest step towards a winding number of 1/2 on all points, then turns
    every vector to where that number falls; the smoothing shrinks from round to round.
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
    """``normals (n, 3)`` of one sign wherever ``points (n, 3)`` hang together: the first's, carried
    along the neighbours that are most nearly parallel (Hoppe et al., 1992). For sheets that enclose
    nothing: where parts are thin it jumps across."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    tree = Neighbours.of(points)
    start, end = _links(tree)
    bend = 1 - np.abs(np.einsum("md,md->m", normals[start], normals[end]))
    count = tree.count
    graph = coo_array(
        (bend + 1e-6, (start, end)), shape=(count, count)
    ).tocsr()  # a link of 0 would be none
    spanning = minimum_spanning_tree(graph.maximum(graph.T))
    label, sign = label_components(count, *spanning.nonzero()), np.ones(count)
    for first in np.unique(label, return_index=True)[1]:
        order, parent = breadth_first_order(spanning, first, directed=False)
        agree = np.einsum("md,md->m", normals[order[1:]], normals[parent[order[1:]]]) >= 0
        for each, same in zip(order[1:], agree):
            sign[each] = sign[parent[each]] if same else -sign[parent[each]]
    return normals * sign[:, None]


def turn_outward(points: np.ndarray | Neighbours, normals: np.ndarray) -> tuple[np.ndarray, int]:
    """``normals (n, 3)`` with every component that is inside out turned over, and how many normals
    that were.

    Where neighbours disagree more often than noise and creases explain, all signs are sought anew,
    and kept if they enclose more: around thin parts neighbours disagree too.
    """
    tree = Neighbours.of(points)
    outward = _outward(tree, normals)
    if _discord(tree, normals) > DISCORD:
        anew, probes = orient(tree, normals)[0], _probes(tree.points)
        outward = max(outward, anew, key=lambda those: CloudWinding(tree, those).side(probes))
    return outward, int((np.einsum("nd,nd->n", outward, normals) < 0).sum())


def _spread(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances ``(m, 3)``, ascending, and their directions ``(m, 3, 3)`` in columns, of the groups
    ``near (m, k, 3)``."""
    offset = near - near.mean(axis=1, keepdims=True)
    return np.linalg.eigh(np.einsum("mki,mkj->mij", offset, offset) / near.shape[1])


def _representatives(tree: Neighbours) -> tuple[np.ndarray, Neighbours]:
    """Indices of the points whose signs are sought, and the tree over these."""
    if tree.count <= REPRESENTATIVES:
        return np.arange(tree.count), tree
    chosen = np.sort(np.random.default_rng(0).permutation(tree.count)[:REPRESENTATIVES])
    return chosen, Neighbours(tree.points[chosen])


def _links(tree: Neighbours) -> tuple[np.ndarray, np.ndarray]:
    """Both ends ``(m,)`` of the edges to each point's nearest neighbours."""
    _, near = tree(tree.points, LINKS + 1, skip=1)
    return np.repeat(np.arange(tree.count), near.shape[1]), near.ravel()


def _discord(tree: Neighbours, normals: np.ndarray) -> float:
    """Share of neighbours that disagree about their sign."""
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
    """``normals (n, 3)`` with the signs of the ``outward`` normals of the nearest of
    ``leaders``."""
    _, nearest = leaders.nearest(points)
    turned = np.einsum("nd,nd->n", normals, outward[nearest]) < 0
    return np.where(turned[:, None], -normals, normals)


def _outward(tree: Neighbours, normals: np.ndarray) -> np.ndarray:
    """``normals`` with every connected component that faces the wrong way turned over."""
    result, label = normals.copy(), _components(tree, normals)
    size = np.bincount(label)
    for member in (
        np.flatnonzero(label == part) for part in np.argsort(-size) if size[part] >= SMALLEST
    ):
        if CloudWinding(tree, result).side(member[_probes(member)]) < INVERTED:
            result[member] *= -1
    return _without_strays(tree, result)


def _without_strays(tree: Neighbours, normals: np.ndarray) -> np.ndarray:
    """``normals (n, 3)`` with those turned over that the surface around opposes, where they hang
    together with too few others to be another sheet."""
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
    """Indices of about 2000 of ``rows``, evenly."""
    return np.arange(0, len(rows), len(rows) // PROBES + 1)


def _components(tree: Neighbours, normals: np.ndarray) -> np.ndarray:
    """A label ``(n,)`` for each point: neighbours whose normals agree share it."""
    start, end = _links(tree)
    agree = np.einsum("md,md->m", normals[start], normals[end]) > OPPOSED
    return label_components(tree.count, start[agree], end[agree])
