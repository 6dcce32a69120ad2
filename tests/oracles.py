"""Ground truth for the tests: slow, direct and independent of the library's geometry."""

import numpy as np

from nstr3d.types import Mesh

CUBE_FACES = [
    (0, 3, 2),
    (0, 2, 1),
    (4, 5, 6),
    (4, 6, 7),
    (0, 1, 5),
    (0, 5, 4),
    (1, 2, 6),
    (1, 6, 5),
    (2, 3, 7),
    (2, 7, 6),
]
CUBE_FACES += [(3, 0, 4), (3, 4, 7)]


def tetrahedron() -> Mesh:
    """The corner of the unit cube at the origin, of volume 1/6."""
    return Mesh(
        np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
    )


def cube(half: float = 1.0, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    """An axis-aligned cube of 12 outward triangles."""
    square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    corners = np.array([(x, y, z) for z in (-1, 1) for x, y in square], np.float64)
    return Mesh(corners * half + centre, np.array(CUBE_FACES))


def sphere(
    levels: int = 2, radius: float = 1.0, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Mesh:
    """An octahedron split ``levels`` times, 8 * 4**levels faces, with its vertices on the
    sphere."""
    vertices = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = np.array(
        [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    )
    for _ in range(levels):
        edges = np.sort(
            np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1
        )
        unique, which = np.unique(edges, axis=0, return_inverse=True)
        ab, bc, ca = which.reshape(3, -1) + len(vertices)
        middle = vertices[unique].sum(axis=1)
        vertices = np.concatenate(
            [vertices, middle / np.linalg.norm(middle, axis=1, keepdims=True)]
        )
        a, b, c = faces.T
        faces = np.concatenate(
            [np.column_stack(t) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        )
    return Mesh(vertices * radius + centre, faces)


def torus(around: int = 24, across: int = 12, major: float = 1.0, minor: float = 0.4) -> Mesh:
    """A closed torus about the z axis, 2 * around * across outward faces."""
    i, j = np.divmod(np.arange(around * across), across)
    u, v = 2 * np.pi * i / around, 2 * np.pi * j / across
    ring = major + minor * np.cos(v)
    vertices = np.column_stack([ring * np.cos(u), ring * np.sin(u), minor * np.sin(v)])
    here, right = i * across + j, (i + 1) % around * across + j
    up, both = i * across + (j + 1) % across, (i + 1) % around * across + (j + 1) % across
    return Mesh(
        vertices,
        np.concatenate([np.column_stack([here, right, both]), np.column_stack([here, both, up])]),
    )


def inverted(mesh: Mesh) -> Mesh:
    """The same surface, inside out."""
    return Mesh(mesh.vertices, mesh.faces[:, ::-1])


def joined(*meshes: Mesh) -> Mesh:
    """All meshes in one, without shared vertices."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)]),
    )


def soup(mesh: Mesh) -> Mesh:
    """The same triangles with no vertex shared."""
    return Mesh(
        mesh.vertices[mesh.faces].reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3)
    )


def brute_force_distance(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Signed distance ``(n,)`` over all triangles, negative where the exact winding number exceeds
    1/2."""
    distance = brute_force_unsigned(mesh, points)
    return np.where(brute_force_winding(mesh, points) > 0.5, -distance, distance)


def brute_force_unsigned(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Distance ``(n,)`` to the nearest triangle: to its plane if the foot of the perpendicular lies
    in the triangle, otherwise to the nearest of its three sides."""
    corners = mesh.vertices[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    relative = points[:, None, None, :] - corners  # (n, f, 3 corners, 3)
    within = np.ones(relative.shape[:2], bool)
    sides = []
    for k in range(3):
        side = corners[:, (k + 1) % 3] - corners[:, k]
        within &= np.einsum("fi,nfi->nf", np.cross(normal, side), relative[:, :, k]) >= 0
        along = np.einsum("fi,nfi->nf", side, relative[:, :, k]) / (side**2).sum(axis=1)
        sides.append(
            np.linalg.norm(relative[:, :, k] - np.clip(along, 0, 1)[..., None] * side, axis=-1)
        )
    height = np.abs(np.einsum("fi,nfi->nf", normal, relative[:, :, 0]))
    return np.where(within, height, np.min(sides, axis=0)).min(axis=1)


def brute_force_winding(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Generalised winding number ``(n,)``: the sum of the exact solid angles (Van Oosterom and
    Strackee, 1983) over 4 pi."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces] - points[:, None, None, :], 2, 0)
    la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
    triple = (a * np.cross(b, c)).sum(axis=-1)
    flat = (
        la * lb * lc
        + (a * b).sum(axis=-1) * lc
        + (b * c).sum(axis=-1) * la
        + (c * a).sum(axis=-1) * lb
    )
    return np.arctan2(triple, flat).sum(axis=1) / (2 * np.pi)
