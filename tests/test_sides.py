"""Distances to quadratic patches against closed forms: planes that meet in edges and corners, and
blends of patches that face one way."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.spatial import KDTree

from nstr3d.kernels.geometry.sides import Quadratics, distances

SPACING = 0.1
CENTRES = np.stack(np.meshgrid(*[np.arange(0.05, 1, SPACING)] * 2), axis=-1).reshape(-1, 2)
Solid = Callable[[np.ndarray], np.ndarray]


def plane(
    axis: int, sign: float, keep: Sequence[float] = (1, 1, 1), offset: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``(n, 3)`` and the normal of patches on a quadrant of the plane across ``axis``. The
    normal has the direction ``sign``; ``keep`` holds the signs of the quadrant's coordinates."""
    others = [other for other in range(3) if other != axis]
    centres = np.full((len(CENTRES), 3), offset)
    centres[:, others] = CENTRES * np.asarray(keep, float)[others]
    return centres, np.eye(3)[axis] * sign


def patches(*planes: tuple[np.ndarray, np.ndarray]) -> Quadratics:
    centres, normals = (
        np.concatenate([centres for centres, _ in planes]),
        np.concatenate([len(c) * [n] for c, n in planes]),
    )
    tangents = np.roll(normals, 1, axis=1)
    frames = np.stack([tangents, np.cross(normals, tangents), normals], axis=1)
    return Quadratics(
        centres,
        frames,
        normals,
        np.zeros((len(centres), 6)),
        np.full(len(centres), 0.3),
        np.ones(len(centres)),
    )


def measured(
    quadratics: Quadratics, points: np.ndarray, width: float = 0.06, crisp: bool = True
) -> np.ndarray:
    reach, near = KDTree(quadratics.centres).query(points, k=12)
    out = np.empty(len(points))
    distances(
        0,
        len(points),
        points,
        near,
        reach,
        np.full(len(points), width),
        np.full(len(points), crisp),
        0.5,
        quadratics,
        out,
    )
    return out


def blend(
    points: np.ndarray, quadratics: Quadratics, width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weighted mean ``(m,)`` of the distances to the 12 nearest patches, computed in numpy,
    with these distances and the patches' indices ``(m, 12)``."""
    reach, near = KDTree(quadratics.centres).query(points, k=12)
    offset = np.einsum(
        "mkd,mkcd->mkc", points[:, None] - quadratics.centres[near], quadratics.frames[near]
    )
    shrink = np.minimum(1, quadratics.radius[near] / np.hypot(offset[..., 0], offset[..., 1]))
    u, v = offset[..., 0] * shrink, offset[..., 1] * shrink
    c = np.moveaxis(quadratics.coefficients[near], -1, 0)
    height = c[0] + c[1] * u + c[2] * v + c[3] * u * u / 2 + c[4] * u * v + c[5] * v * v / 2
    slopes = c[1] + c[3] * u + c[4] * v, c[2] + c[4] * u + c[5] * v
    apart = (offset[..., 2] - height) / np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
    weight = quadratics.scale[near] * np.exp(-(reach**2 - reach[:, :1] ** 2) / width**2)
    return (weight * apart).sum(axis=1) / weight.sum(axis=1), apart, near


def scattered(count: int, spread: float, seed: int) -> Quadratics:
    """``count`` patches at random centres whose normals deviate from z by about ``spread``."""
    generator = np.random.default_rng(seed)
    normals = np.array([0, 0, 1]) + spread * generator.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    tangents = np.cross(normals, [0, 1, 0])
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    frames = np.stack([tangents, np.cross(normals, tangents), normals], axis=1)
    shape, reach = 0.3 * generator.normal(size=(count, 6)), generator.uniform(0.05, 0.4, count)
    centres, scale = (
        generator.uniform(-1, 1, (count, 3)) * [1, 1, 0.05],
        generator.choice([7.0, 10.0, 26.0], count),
    )
    return Quadratics(centres, frames, normals, shape, reach, scale)


def x(p: np.ndarray) -> np.ndarray:
    return p[:, 0]


def y(p: np.ndarray) -> np.ndarray:
    return p[:, 1]


def z(p: np.ndarray) -> np.ndarray:
    return p[:, 2]


CASES: list[tuple[str, list[tuple[np.ndarray, np.ndarray]], Solid]] = [
    ("ridge", [plane(0, 1, (1, -1, 1)), plane(1, 1, (-1, 1, 1))], lambda p: np.maximum(x(p), y(p))),
    ("valley", [plane(0, 1), plane(1, 1)], lambda p: np.minimum(x(p), y(p))),
    (
        "corner",
        [plane(0, 1, (1, -1, -1)), plane(1, 1, (-1, 1, -1)), plane(2, 1, (-1, -1, 1))],
        lambda p: np.maximum.reduce([x(p), y(p), z(p)]),
    ),
    (
        "niche",
        [plane(0, 1), plane(1, 1), plane(2, 1)],
        lambda p: np.minimum.reduce([x(p), y(p), z(p)]),
    ),
    (  # a plane cuts off the valley, whichever of the three is nearest
        "end of a valley",
        [plane(0, 1, (1, 1, -1)), plane(1, 1, (1, 1, -1)), plane(2, 1, (-1, -1, 1))],
        lambda p: np.maximum(np.minimum(x(p), y(p)), z(p)),
    ),
]


@pytest.mark.parametrize(
    ("planes", "solid"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_planes_that_meet_are_cut_where_they_do(planes: list, solid: Solid) -> None:
    quadratics = patches(*planes)
    generator = np.random.default_rng(0)
    # Points around the corner of three planes or, for two planes, along their edge.
    points = generator.uniform(-0.06, 0.06, (4000, 3))
    if len(planes) == 2:
        points[:, 2] = generator.uniform(0.3, 0.7, len(points))
    _, near = KDTree(quadratics.centres).query(points, k=12)
    visible = ((near[:, :, None] // len(CENTRES) == np.arange(len(planes))).sum(axis=1) >= 3).all(
        axis=1
    )  # at least 3 patches of every plane
    assert visible.sum() > 500
    np.testing.assert_allclose(
        measured(quadratics, points[visible]), solid(points[visible]), atol=1e-12
    )


@pytest.mark.parametrize("gap", [False, True])
def test_thin_walls_and_thin_gaps_have_two_sides(gap: bool) -> None:
    quadratics = patches(
        plane(2, -1 if gap else 1, offset=0.02), plane(2, 1 if gap else -1, offset=-0.02)
    )
    points = np.random.default_rng(1).uniform([0.3, 0.3, -0.06], [0.7, 0.7, 0.06], (1000, 3))
    wall = np.abs(z(points)) - 0.02
    np.testing.assert_allclose(measured(quadratics, points), -wall if gap else wall, atol=1e-12)


def test_what_faces_one_way_is_blended() -> None:
    quadratics, points = (
        scattered(300, 0.1, 2),
        np.random.default_rng(2).uniform(-0.8, 0.8, (200, 3)) * [1, 1, 0.2],
    )
    mean, _, near = blend(points, quadratics, 0.1)
    first = near[np.arange(len(near)), quadratics.scale[near].argmax(axis=1)]
    alike = (
        np.einsum("mkd,md->mk", quadratics.normals[near], quadratics.normals[first]) >= 0.5
    ).all(axis=1)
    assert alike.sum() > 150
    np.testing.assert_allclose(
        measured(quadratics, points, 0.1)[alike], mean[alike], rtol=1e-9, atol=1e-12
    )


def test_where_noise_hides_creases_all_are_blended() -> None:
    quadratics, points = (
        scattered(300, 1.0, 5),
        np.random.default_rng(5).uniform(-0.8, 0.8, (200, 3)) * [1, 1, 0.2],
    )
    mean, *_ = blend(points, quadratics, 0.1)
    np.testing.assert_allclose(
        measured(quadratics, points, 0.1, crisp=False), mean, rtol=1e-9, atol=1e-12
    )
    assert not np.allclose(measured(quadratics, points, 0.1), mean, rtol=1e-3)


def test_one_or_two_patches_that_face_elsewhere_are_left_out() -> None:
    flat = plane(2, 1)
    astray = np.array([[0.48, 0.5, 0.02], [0.52, 0.5, -0.02]]), np.array([1.0, 0.0, 0.0])
    points = np.random.default_rng(6).uniform([0.4, 0.4, -0.06], [0.6, 0.6, 0.06], (500, 3))
    np.testing.assert_allclose(measured(patches(flat, astray), points), z(points), atol=1e-12)


def test_patches_on_a_crease_do_not_make_a_side() -> None:
    right, top = plane(0, 1, (1, -1, 1)), plane(1, 1, (-1, 1, 1))
    slanted = np.zeros((10, 3))
    slanted[:, 2] = np.arange(0.05, 1, SPACING)  # on the edge of the two planes
    quadratics = patches(right, top, (slanted, np.array([1.0, 1.0, 0.0])))
    quadratics.normals[-10:] /= np.sqrt(2)
    quadratics.frames[-10:] = [
        [1 / np.sqrt(2), -1 / np.sqrt(2), 0],
        [0, 0, 1],
        [1 / np.sqrt(2), 1 / np.sqrt(2), 0],
    ]
    quadratics = quadratics._replace(
        scale=np.where(np.arange(len(quadratics.centres)) < len(quadratics.centres) - 10, 1e6, 1.0)
    )
    points = np.random.default_rng(4).uniform([-0.06, -0.06, 0.3], [0.06, 0.06, 0.7], (2000, 3))
    _, near = KDTree(quadratics.centres).query(points, k=12)
    visible = ((near < 100).sum(axis=1) >= 3) & (((near >= 100) & (near < 200)).sum(axis=1) >= 3)
    assert visible.sum() > 500
    np.testing.assert_allclose(
        measured(quadratics, points[visible]), np.maximum(x(points), y(points))[visible], atol=1e-5
    )


def test_where_more_sides_seem_to_meet_than_can_all_are_blended() -> None:
    # The only patches: three of each normal.
    normals = np.repeat([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], 3, axis=0)
    tangents = np.roll(normals, 1, axis=1)
    frames = np.stack([tangents, np.cross(normals, tangents), normals], axis=1)
    centres = np.random.default_rng(3).uniform(-0.1, 0.1, (12, 3))
    quadratics = Quadratics(
        centres, frames, normals, np.zeros((12, 6)), np.full(12, 1.0), np.ones(12)
    )
    points = np.random.default_rng(4).uniform(-0.1, 0.1, (100, 3))
    mean, *_ = blend(points, quadratics, 0.2)
    np.testing.assert_allclose(measured(quadratics, points, 0.2), mean, rtol=1e-9, atol=1e-12)
