"""Caps: triangles that close the loops of a border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.mesh.loops import Loops
from nstr3d.geometry.mesh.membrane import membrane
from nstr3d.geometry.mesh.surface import area
from nstr3d.types import Mesh

# Loops count as flat, and as in one plane, up to this in widths of the loop.
FLAT = 1e-2
# Loops of two components share a cap if the distance of their planes is at most this in widths of
# the larger loop and the cosine of the angle between the planes at least PARALLEL. This holds for
# the rims of a thick shell, whose rims are uneven and one wall apart.
APART, PARALLEL = 0.25, 0.9
# A triangulation in the plane is sound if its area exceeds the polygon's by at most this factor.
FOLDED = 1.01


@dataclass(frozen=True)
class Caps:
    """Caps of the loops of a mesh.

    ``vertices (k, 3)`` are new. ``faces (m, 3)`` count the vertices of the mesh first, and ``cap
    (m,)`` is the cap of each face. ``of_loop (n,)`` is the cap that closes each loop, and ``width
    (n,)`` the width of each loop: twice the largest distance of a vertex from the centroid.
    """

    vertices: np.ndarray
    faces: np.ndarray
    cap: np.ndarray
    of_loop: np.ndarray
    width: np.ndarray


def cap_loops(vertices: np.ndarray, loops: Loops) -> Caps:
    """A cap for each loop, or for a loop and the loops that are holes in its cap.

    A flat loop is filled in its plane by ear clipping. Loops of opposite directions that lie within
    one another in one plane, such as the ends of a pipe's walls, get one cap between them. Other
    loops get the smaller one of a filling in the plane and a membrane.
    """
    shape = _Shapes.of(vertices, loops)
    of_loop = _nested(vertices, loops, shape)
    count = np.bincount(of_loop)
    small = np.flatnonzero((count[of_loop] == 1) & (loops.sizes == 3))
    new, first = [np.zeros((0, 3))], len(vertices)
    # Caps run along a border in the opposite direction.
    corners = loops.starts[small][:, None] + np.array([2, 1, 0])
    faces, cap = [loops.vertices[corners]], [of_loop[small]]
    done = np.zeros(len(count), bool)
    done[of_loop[small]] = True
    order = np.argsort(of_loop, kind="stable")
    starts = np.cumsum(count) - count
    for number in np.flatnonzero(~done):
        members = order[starts[number] : starts[number] + count[number]]
        outer = members[np.argmax(np.linalg.norm(shape.normal[members], axis=1))]
        rings = [loops[each][::-1] for each in (outer, *members[members != outer])]
        ring = np.concatenate(rings)
        added, triangles = _fill(
            vertices[ring], [len(each) for each in rings], bool(shape.flat[outer])
        )
        names = np.concatenate([ring, first + np.arange(len(added))])
        new.append(added)
        faces.append(names[triangles])
        cap.append(np.full(len(triangles), number))
        first += len(added)
    joined = np.concatenate(new), np.concatenate(faces), np.concatenate(cap)
    return Caps(*joined, of_loop, shape.width)


@dataclass(frozen=True)
class _Shapes:
    """The ``centre (n, 3)``, area vector ``normal (n, 3)`` and ``width (n,)`` of loops, and whether
    each is ``flat (n,)``."""

    centre: np.ndarray
    normal: np.ndarray
    width: np.ndarray
    flat: np.ndarray

    @staticmethod
    def of(vertices: np.ndarray, loops: Loops) -> _Shapes:
        if len(loops) == 0:
            none = np.zeros((0, 3))
            return _Shapes(none, none, np.zeros(0), np.zeros(0, bool))
        first, sizes = loops.starts[:-1], loops.sizes
        owner = np.repeat(np.arange(len(sizes)), sizes)
        points = vertices[loops.vertices]
        centre = np.add.reduceat(points, first) / sizes[:, None]
        spoke = points - centre[owner]
        following = np.arange(len(owner)) + 1
        following[loops.starts[1:] - 1] = first
        normal = np.add.reduceat(np.cross(spoke, spoke[following]), first) / 2
        width = 2 * np.sqrt(np.maximum.reduceat((spoke**2).sum(axis=1), first))
        size = np.linalg.norm(normal, axis=1)
        unit = normal / np.maximum(size, 1e-300)[:, None]
        off = np.maximum.reduceat(np.abs((spoke * unit[owner]).sum(axis=1)), first)
        return _Shapes(centre, normal, width, (off <= FLAT * width) & (size > FLAT**2 * width**2))


def _nested(vertices: np.ndarray, loops: Loops, shape: _Shapes) -> np.ndarray:
    """The cap ``(n,)`` that closes each loop; loops within one another share a cap.

    A loop is a hole in the cap of the smallest loop around it in its plane, if the two run in
    opposite directions and that loop is no hole itself.
    """

    around, size = _surrounding(vertices, loops, shape), np.linalg.norm(shape.normal, axis=1)
    cap, hole = np.full(len(loops), -1), np.zeros(len(loops), bool)
    for loop in np.argsort(-size, kind="stable"):
        outer = around[loop]
        if outer >= 0 and not hole[outer]:
            hole[loop] = shape.normal[loop] @ shape.normal[outer] < 0
        cap[loop] = outer if hole[loop] else loop
    return np.unique(cap, return_inverse=True)[1]


def _surrounding(vertices: np.ndarray, loops: Loops, shape: _Shapes) -> np.ndarray:
    """The smallest loop ``(n,)`` around each loop in its plane, or -1."""
    from scipy.spatial import KDTree

    around = np.full(len(loops), -1)
    size = np.linalg.norm(shape.normal, axis=1)
    even = np.flatnonzero(size > FLAT * shape.width**2)
    if len(even) < 2:
        return around
    near = KDTree(shape.centre[even]).query_ball_point(shape.centre[even], shape.width[even] / 2)
    # From small to large: the first loop that holds another is the smallest.
    for rank in np.argsort(size[even], kind="stable"):
        outer, within = even[rank], even[np.array(near[rank], np.int64)]
        within = within[(around[within] < 0) & (size[within] < size[outer])]
        if len(within) == 0:
            continue
        normal = shape.normal[outer] / size[outer]
        off = np.abs((shape.centre[within] - shape.centre[outer]) @ normal)
        alike = loops.part[within] == loops.part[outer]
        limit = np.where(alike, FLAT, APART) * shape.width[outer]
        cosine = np.abs(shape.normal[within] @ normal) / size[within]
        for inner in within[(off <= limit) & (cosine >= PARALLEL)].tolist():
            if _holds(vertices[loops[int(outer)]], vertices[loops[inner]], normal):
                around[inner] = outer
    return around


def _holds(outer: np.ndarray, inner: np.ndarray, normal: np.ndarray) -> bool:
    """Whether most vertices of one polygon are within another, seen along ``normal``."""
    axes = _plane(normal)
    ring, points = outer @ axes.T, inner[:: max(1, len(inner) // 8)] @ axes.T
    following = np.roll(ring, -1, axis=0)
    (x, y), (u, v) = points.T[:, :, None], ring.T[:, None]
    p, q = following.T[:, None]
    crosses = (v > y) != (q > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = x < u + (y - v) / (q - v) * (p - u)
    return bool(((crosses & beyond).sum(axis=1) % 2).mean() > 0.5)


def _plane(normal: np.ndarray) -> np.ndarray:
    """Two unit vectors ``(2, 3)`` that form a right-handed frame with ``normal``."""
    unit = normal / np.linalg.norm(normal)
    first = np.cross(unit, np.eye(3)[np.argmin(np.abs(unit))])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(unit, first)])


def _fill(points: np.ndarray, sizes: list[int], flat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Triangles that span polygons: the first of ``sizes`` vertices, and holes in it.

    Returns new vertices, and triangles whose indices count ``points (n, 3)`` first.
    """
    none = np.zeros((0, 3))
    outer = points[: sizes[0]] - points[0]
    normal = np.cross(outer, np.roll(outer, -1, axis=0)).sum(axis=0) / 2
    size = float(np.linalg.norm(normal))
    triangles, clipped = np.zeros((0, 3), np.int64), np.inf
    if size > 0:
        triangles = _clip_ears(points @ _plane(normal).T, sizes)
        if len(triangles) == len(points) + 2 * len(sizes) - 4:
            clipped = area(Mesh(points, triangles))
    if len(sizes) > 1 or (flat and clipped <= FOLDED * size):
        return none, triangles
    added, spanned = membrane(points)
    if area(Mesh(np.concatenate([points, added]), spanned)) < clipped:
        return added, spanned
    return none, triangles


def _clip_ears(points: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Triangles ``(m, 3)`` of a polygon in the plane with holes, by ear clipping."""
    import manifold3d

    rings = np.split(points, np.cumsum(sizes)[:-1])
    return np.asarray(manifold3d.triangulate(rings), np.int64).reshape(-1, 3)
