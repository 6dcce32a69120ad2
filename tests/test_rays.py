"""Rays against closed forms and against a twin that samples densely and bisects, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from nstr3d.geometry.shapes import primitives as P
from nstr3d.sdf import Sdf
from nstr3d.training.fit import Fit

TOLERANCE = 1e-5  # of the diagonal of the bounds
HALF = np.array([0.5, 0.8, 0.3])
PLATE = np.array([0.7, 0.0005, 0.7])
RADIUS = 0.8
Rows = tuple[np.ndarray, np.ndarray]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def aimed(count: int, reach: float = 0.9, seed: int = 0) -> Rows:
    """Rays from a sphere of radius 3 to random points."""
    random = np.random.default_rng(seed)
    starts = 3 * unit(random.standard_normal((count, 3)))
    return starts, unit(random.uniform(-reach, reach, (count, 3)) - starts)


def grazing(shape: Sdf, count: int, seed: int = 1) -> Rows:
    """Rays along the surface of ``shape``, from 1e-7 to 1e-2 above or below it."""
    random = np.random.default_rng(seed)
    met = shape.raycast(*aimed(4 * count, 0.6, seed))
    points, normals = (each[met.hit][:count] for each in (met.points, met.normals))
    across = unit(np.cross(normals, random.standard_normal(points.shape)))
    side = random.choice([-1, 1], (len(points), 1))
    height = side * 10 ** random.uniform(-7, -2, (len(points), 1))
    return points + height * normals - 3 * across, across


def both(first: Rows, second: Rows) -> Rows:
    return tuple(map(np.concatenate, zip(first, second)))  # type: ignore[return-value]


def slabs(starts: np.ndarray, along: np.ndarray, half: np.ndarray) -> Rows:
    """Where rays enter and leave the box of these half edges; they miss it if they leave first."""
    with np.errstate(divide="ignore"):
        ends = np.stack([(side * half - starts) / along for side in (-1, 1)])
    return ends.min(axis=0).max(axis=1), ends.max(axis=0).min(axis=1)


def check(shape: Sdf, rays: Rows, enter: np.ndarray, leave: np.ndarray, deep: np.ndarray) -> None:
    """Rays that go at least an accuracy ``deep`` cross where the closed form says; those that stay
    outside by as much do not cross."""
    accuracy = TOLERANCE * shape.bounds.diagonal
    hits, found = shape.raycast(*rays), shape.crossings(*rays)
    counts = np.diff(found.starts)
    assert (counts[deep > accuracy] == 2).all()
    assert not counts[deep < -accuracy].any()
    np.testing.assert_array_equal(counts > 0, hits.hit)
    first = found.starts[:-1][counts > 0]
    np.testing.assert_array_equal(found.distances[first], hits.distances[hits.hit])
    met = deep > accuracy
    last = found.starts[1:][met] - 1
    for rows, depth in ((found.starts[:-1][met], enter[met]), (last, leave[met])):
        fall = abs(np.einsum("nd,nd->n", shape.normals(found.points[rows]), rays[1][met]))
        error = abs(found.distances[rows] - depth)
        assert (error <= accuracy / np.maximum(fall, 1e-3)).all()


def test_random_and_grazing_rays_cross_a_ball_where_the_closed_form_says() -> None:
    ball = P.sphere(RADIUS)
    starts, along = rays = both(aimed(5000), grazing(ball, 2000))
    middle = -(starts * along).sum(axis=1)
    apart = np.linalg.norm(starts + middle[:, None] * along, axis=1)
    chord = np.sqrt(np.maximum(RADIUS**2 - apart**2, 0))
    check(ball, rays, middle - chord, middle + chord, RADIUS - apart)


@pytest.mark.parametrize("half", [HALF, PLATE], ids=["box", "plate"])
def test_random_and_grazing_rays_cross_a_box_where_the_closed_form_says(half: np.ndarray) -> None:
    box = P.box(tuple(half))
    rays = both(aimed(4000), grazing(box, 1500))
    enter, leave = slabs(*rays, half)
    # The deepest sample of a chord, and for a miss at least the closest point of the ray.
    met = enter < leave
    low, high = np.where(met, enter, 1.5), np.where(met, leave, 4.5)
    least = np.full(len(met), np.inf)
    for share in np.linspace(0, 1, 201):
        depth = low + share * (high - low)
        least = np.minimum(least, box(rays[0] + depth[:, None] * rays[1]))
    deep = np.where(met, -least, np.minimum((high - low) / 400 - least, 0))
    check(box, rays, enter, leave, deep)


def twin(shape: Sdf, rays: Rows, reach: float, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The rays and the depths of all changes of sign between dense samples, bisected."""
    starts, along = rays
    grid = np.linspace(0, reach, samples)
    inside = np.stack([shape(starts + depth * along) <= 0 for depth in grid], axis=1)
    ray, place = np.nonzero(inside[:, 1:] != inside[:, :-1])
    low, high = grid[place], grid[place + 1]
    for _ in range(40):
        middle = (low + high) / 2
        same = (shape(starts[ray] + middle[:, None] * along[ray]) <= 0) == inside[ray, place]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return ray, (low + high) / 2


def agree(shape: Sdf, rays: Rows, reach: float, samples: int) -> None:
    """Every change of sign that the twin sees is found, where the ray goes deeper than the accuracy
    on both sides of it. The twin sees all but chords that are shorter than its steps."""
    accuracy = TOLERANCE * shape.bounds.diagonal
    found, hits = shape.crossings(*rays), shape.raycast(*rays)
    counts = np.diff(found.starts)
    np.testing.assert_array_equal(hits.hit, counts > 0)
    np.testing.assert_array_equal(
        hits.distances[hits.hit], found.distances[found.starts[:-1][counts > 0]]
    )
    seen, depth = twin(shape, rays, reach, samples)
    missed = 0
    for ray, (first, last) in enumerate(zip(found.starts[:-1], found.starts[1:])):
        ours, theirs = found.distances[first:last], depth[seen == ray]
        assert len(ours) % 2 == len(theirs) % 2
        assert len(ours) - len(theirs) <= 2 * (np.diff(ours) < reach / samples).sum()
        if not len(theirs):
            continue
        start, along = rays[0][ray], rays[1][ray]
        ends = np.concatenate([[0.0], theirs, [reach]])
        middles = (ends[1:] + ends[:-1]) / 2
        deep = abs(shape(start + middles[:, None] * along)) > accuracy
        clear = deep[1:] & deep[:-1]
        normals = shape.normals(start + theirs[:, None] * along)
        slack = accuracy / np.maximum(abs(normals @ along), 1e-3)
        gap = abs(theirs[:, None] - np.append(ours, np.inf)).min(axis=1)
        missed += (clear & (gap > slack)).sum()
    assert missed == 0


TWINS = {
    "ring": P.torus(0.6, 0.25),
    "gyroid": P.gyroid_slab(),
    "shell": P.sphere(0.9).shell(0.01) | P.box((0.3, 0.3, 0.3)),
    "plates": P.box((0.6, 0.002, 0.6)).repeat((1.0, 0.05, 1.0), (1, 8, 1)),
}


@pytest.mark.parametrize("name", TWINS)
def test_rays_find_every_crossing_that_dense_samples_see(name: str) -> None:
    shape = TWINS[name]
    rays = both(aimed(200), grazing(shape, 100))
    agree(shape, rays, 6.0, 2000)


def test_rays_of_a_fit_find_every_crossing_that_dense_samples_see(torus_fit: Fit) -> None:
    sdf = torus_fit.sdf()
    agree(sdf, both(aimed(100), grazing(sdf, 50)), 6.0, 1500)
