"""The kernel that fits quadratics to growing neighbourhoods, against its definition in numpy."""

import numpy as np
import pytest

from nstr3d.geometry.cloud.noise import quadratic_rows, tangent_frames
from nstr3d.kernels.geometry.boxes import LEAF, boxes_of
from nstr3d.kernels.geometry.growing import Data, Rules, grow

SIZES = np.array([7, 10, 16, 26, 42, 68, 110])
RIDGE = np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])


def wavy(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noisy points of a wavy sheet, a quarter of them in one dense spot, and tilted normals, some
    of them turned over."""
    x, y = generator.uniform(-1, 1, (2, count))
    x[: count // 4], y[: count // 4] = 0.3 + 0.002 * x[: count // 4], 0.002 * y[: count // 4]
    z = 0.1 * np.sin(4 * x) * np.cos(3 * y) + 0.003 * generator.standard_normal(count)
    slopes = -0.4 * np.cos(4 * x) * np.cos(3 * y), 0.3 * np.sin(4 * x) * np.sin(3 * y)
    normals = np.stack([*slopes, np.ones(count)], axis=1)
    normals += 0.1 * generator.standard_normal(normals.shape)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals[generator.random(count) < 0.1] *= -1
    return np.stack([x, y, z], axis=1), normals


def defined(
    row: int, points: np.ndarray, settled: np.ndarray, frames: np.ndarray, rules: Rules
) -> tuple[np.ndarray, float, int, float]:
    """The fit at the point ``row``: the least squares solution of each neighbourhood by itself,
    the largest one before the first whose intervals miss the earlier ones."""
    near = np.argsort(np.linalg.norm(settled - settled[row], axis=1), kind="stable")
    low, high, best = np.full(3, -np.inf), np.full(3, np.inf), None
    unit = np.linalg.norm(settled[near[SIZES[0] - 1]] - settled[row])
    for size in SIZES:
        own = near[:size]
        u, v, z = frames[row] @ (points[own] - settled[row]).T / unit
        normal = frames[own, 2] @ frames[row].T
        facing = normal[:, 2] > rules.facing
        rows, right = [quadratic_rows(u, v)[facing]], [z[facing]]
        if rules.tilt:
            trust, none, one = rules.sigma / (rules.tilt * unit), 0 * u, 1 + 0 * u
            first = np.stack([none, one, none, u, v, none], axis=1)
            second = np.stack([none, none, one, none, u, v], axis=1)
            slopes = -normal[:, :2] / normal[:, 2:]
            rows += [trust * first[facing], trust * second[facing]]
            right += [trust * slopes[facing, 0], trust * slopes[facing, 1]]
        matrix = np.concatenate(rows).T @ np.concatenate(rows)
        matrix += (1e-6 * np.trace(matrix) + 1e-12) * np.eye(6)
        inverse = np.linalg.inv(matrix + (rules.sigma / unit) ** 2 * np.diag(rules.ridge))
        found = inverse @ np.concatenate(rows).T @ np.concatenate(right)
        reach = np.linalg.norm(settled[own[-1]] - settled[row])
        deviation = rules.sigma / unit * np.sqrt(np.diagonal(inverse)[:3])
        half = rules.confidence * deviation if reach > rules.wide else np.full(3, np.inf)
        low, high = np.maximum(low, found[:3] - half), np.minimum(high, found[:3] + half)
        if (low > high).any():
            break
        best = found * unit ** np.array([1, 0, 0, -1, -1, -1]), reach, size, deviation[0] * unit
    assert best is not None
    return best


@pytest.mark.parametrize("tilt", [0.0, 0.1])
def test_fits_are_those_of_the_definition(tilt: float) -> None:
    generator = np.random.default_rng(0)
    points, normals = wavy(3000, generator)
    settled = points + 0.001 * generator.standard_normal(points.shape)
    frames = tangent_frames(normals)
    rules = Rules(SIZES, np.array([1.25, 2.0, 2.0]), 0.008, 0.003, tilt, 0.5, RIDGE)
    tree = boxes_of(settled)
    order = tree.order
    data = Data(points[order], settled[order], frames[order], normals[order], tree)
    rows = np.sort(generator.choice(3000, 200, replace=False))
    fits = np.zeros((200, 6)), np.zeros(200), np.zeros(200, np.int64), np.zeros(200)
    grow(0, 200, rows, 0.05, data, rules, *fits)
    wanted = [defined(order[row], points, settled, frames, rules) for row in rows]
    assert len({size for _, _, size, _ in wanted}) > 4
    for mine, theirs in zip(fits, zip(*wanted)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-8)


def test_boxes_hold_their_points_and_follow_each_other() -> None:
    points = np.random.default_rng(0).standard_normal((1000, 3))
    tree = boxes_of(points)
    np.testing.assert_array_equal(np.sort(tree.order), np.arange(1000))
    for box, (begin, end) in enumerate(zip(tree.begin, tree.end)):
        own = points[tree.order[begin:end]]
        np.testing.assert_array_equal(own.min(axis=0), tree.low[box])
        np.testing.assert_array_equal(own.max(axis=0), tree.high[box])
        inside = range(box + 1, tree.skip[box])
        assert all(begin <= tree.begin[child] and tree.end[child] <= end for child in inside)
        assert (len(inside) == 0) == (end - begin <= LEAF)
