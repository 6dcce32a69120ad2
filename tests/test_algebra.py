"""Combinations of signed distances: operators, motions, repetition, and mesh booleans."""

from __future__ import annotations

import itertools
import math

import manifold3d
import numpy as np
import pytest
import torch

from nstr3d.autodiff import gradient
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import volume
from nstr3d.geometry.mesh.topology import directed_edges
from nstr3d.geometry.shapes import primitives as P
from nstr3d.geometry.shapes.combinators import displace
from nstr3d.sdf import Sdf, from_field
from nstr3d.surface.extract import EmptySurface, extract_mesh
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame, Mesh

BALL, BLOCK = P.sphere(0.7, (0.1, 0.2, -0.1)), P.box((0.5, 0.8, 0.3))


def draw(count: int = 500, reach: float = 1.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-reach, reach, (count, 3))


def test_operators_are_set_operations() -> None:
    points = draw()
    ball, block = BALL.contains(points), BLOCK.contains(points)
    np.testing.assert_array_equal((BALL | BLOCK).contains(points), ball | block)
    np.testing.assert_array_equal((BALL & BLOCK).contains(points), ball & block)
    np.testing.assert_array_equal((BALL - BLOCK).contains(points), ball & ~block)
    for operation in ("union", "intersection", "difference"):
        sharp = getattr(BALL, operation)(BLOCK)
        smooth = getattr(BALL, operation)(BLOCK, radius=0.2)
        apart = abs(sharp(points) - smooth(points))
        assert 0.04 < apart.max() <= 0.05  # a quarter of the radius
        assert (sharp(points)[apart > 0] > smooth(points)[apart > 0]).all() == (
            operation == "union"
        )
    with pytest.raises(TypeError):
        _ = BALL | 1
    assert BALL.union()(points) == pytest.approx(BALL(points))


def test_motions_move_the_solid() -> None:
    points = draw()
    moved = BLOCK.scale(1.5).rotate((0, 0, 1), 90).translate((0.3, 0, 0))
    back = (points - [0.3, 0, 0]) @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]) / 1.5
    np.testing.assert_allclose(moved(points), 1.5 * BLOCK(back), atol=1e-12)
    np.testing.assert_allclose(BALL.offset(0.1)(points), BALL(points) - 0.1)
    np.testing.assert_allclose(
        BALL.blend(BLOCK, 0.25)(points), 0.75 * BALL(points) + 0.25 * BLOCK(points)
    )
    wall = BALL.shell(0.2)
    expected = BALL.contains(points) & ~(BALL(points) < -0.2)
    np.testing.assert_array_equal(wall.contains(points), expected)


def test_three_factors_give_an_ellipsoid_and_a_lower_bound() -> None:
    points, exact = draw(reach=3.0), P.ellipsoid((0.7, 1.4, 0.35))
    stretched = P.sphere(0.7).scale((1, 2, 0.5))
    np.testing.assert_array_equal(stretched.contains(points), exact.contains(points))
    assert (abs(stretched(points)) <= abs(exact(points)) + 1e-12).all()


@pytest.mark.parametrize("period", [(1.0, 1.2, 1.5), (0.3, 0.9, 2.0)])
def test_repetition_is_the_union_of_all_copies(period: tuple[float, ...]) -> None:
    shape, counts = P.capsule((-0.3, 0, 0.1), (0.2, 0.3, -0.1), 0.15), (3, 2, 4)
    copies = [
        shape.translate(np.multiply(period, at)) for at in itertools.product(*map(range, counts))
    ]
    points = draw(reach=6.0)
    np.testing.assert_allclose(
        shape.repeat(period, counts)(points), P.union(*copies)(points), atol=1e-12
    )
    assert shape.repeat(period, counts).bounds == P.union(*copies).bounds


def compositions(sdf: Sdf) -> dict[str, Sdf]:
    lattice = P.gyroid(0.8, 0.2, (1.5, 1.0, 1.5))
    return {
        "booleans": (sdf & lattice) | sdf.shell(0.1),
        "smooth": sdf.union(BALL, radius=0.2).difference(BLOCK, radius=0.1),
        "motions": sdf.scale((1.0, 1.5, 0.8)).rotate((1, 2, 3), 40).translate((0.1, 0, 0.2)),
        "repeat": sdf.scale(0.4).repeat((1.1, 1.3, 1.5), (2, 1, 2)).offset(0.02),
        "blend": sdf.blend(BALL, 0.4),
        "intersection": sdf.intersection(BLOCK, radius=0.1),
    }


NAMES = list(compositions(BALL))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_in_closed_form_are_those_of_autograd(name: str, torus_fit: Fit) -> None:
    sdf = compositions(torus_fit.sdf())[name]
    assert sdf.both is not None
    points = torch.from_numpy(draw(400, 2.0))
    value, slope = sdf.value_and_gradient(points)
    torch.testing.assert_close(value, sdf(points).detach(), atol=1e-6, rtol=1e-5)
    apart = (slope - gradient(sdf.distance, points)).abs().amax(dim=1)
    assert float((apart < 1e-3).double().mean()) > 0.99  # others are at kinks


@pytest.mark.parametrize("name", NAMES)
def test_combinations_of_fits_are_extracted_closed_within_their_bounds(
    name: str, torus_fit: Fit
) -> None:
    sdf = compositions(torus_fit.sdf())[name]
    mesh = extract_mesh(sdf, 48)
    assert closed(mesh)
    lower, upper = (
        np.subtract(mesh.bounds.lower, sdf.bounds.lower),
        np.subtract(sdf.bounds.upper, mesh.bounds.upper),
    )
    assert min(lower.min(), upper.min()) > -0.05
    first, second = draw(300, 2.0), draw(300, 2.0, 1)
    steep = abs(sdf(first) - sdf(second)) / np.linalg.norm(first - second, axis=1)
    assert steep.max() <= 1.2 * sdf.lipschitz


def closed(mesh: Mesh) -> bool:
    start, end, _ = directed_edges(mesh.faces)
    size = len(mesh.vertices)
    return bool(np.array_equal(np.sort(start * size + end), np.sort(end * size + start)))


def manifold(mesh: Mesh) -> manifold3d.Manifold:
    return manifold3d.Manifold(
        manifold3d.Mesh64(
            np.ascontiguousarray(mesh.vertices), np.ascontiguousarray(mesh.faces, np.uint64)
        )
    )


@pytest.mark.parametrize("seed", range(3))
def test_booleans_have_the_volume_of_mesh_booleans(seed: int) -> None:
    a, b = pair(seed)
    meshes = [manifold(extract_mesh(each, 96)) for each in (a, b)]
    expected = {"union": meshes[0] + meshes[1], "difference": meshes[0] - meshes[1]}
    expected["intersection"] = meshes[0] ^ meshes[1]
    whole = expected["union"].volume()
    for name, solid in expected.items():
        mesh = extract_mesh(getattr(a, name)(b), 96)
        assert closed(mesh)
        assert abs(volume(mesh) - solid.volume()) < 1e-3 * whole


def pair(seed: int) -> tuple[Sdf, Sdf]:
    """Two random shapes that overlap."""
    generator = np.random.default_rng(seed)
    shapes = []
    for _ in range(2):
        sizes = generator.uniform(0.4, 0.9, 3)
        kind = generator.integers(5)
        shape = (
            P.box(sizes),
            P.torus(sizes[0], 0.4 * sizes[0]),
            P.cylinder(sizes[0], sizes[1]),
            P.ellipsoid(sizes),
            P.rounded_box(sizes, 0.3 * sizes.min()),
        )[kind]
        turned = shape.rotate(generator.normal(size=3), generator.uniform(0, 360))
        shapes.append(turned.translate(generator.uniform(-0.3, 0.3, 3)))
    return shapes[0], shapes[1]


def test_parts_that_do_not_overlap_have_an_empty_intersection() -> None:
    empty = BALL & BALL.translate((5, 0, 0))
    assert (empty(draw(reach=9.0)) > 0).all()
    with pytest.raises(EmptySurface, match="empty"):
        extract_mesh(empty, 16)
    assert (empty | BALL).volume(32) == pytest.approx(BALL.volume(32), rel=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BALL.union(BLOCK, radius=-0.1), "radius must be at least 0"),
        (lambda: BALL.intersection(BLOCK, radius=math.nan), "radius must be at least 0"),
        (lambda: BALL.difference(BLOCK, radius="1"), "radius must be of the type"),
        (lambda: BALL.union(1), "a part of union must be of the type Sdf"),
        (lambda: P.union(), "at least one shape"),
        (lambda: BALL.difference(), "at least one shape"),
        (lambda: BALL.scale(0), "factor must be positive"),
        (lambda: BALL.scale((1, 0, 1)), "factor must be positive"),
        (lambda: BALL.scale((1, 1)), "three finite numbers"),
        (lambda: BALL.rotate((0, 0, 0), 30), "axis must not be the zero vector"),
        (lambda: BALL.rotate((0, 0, 1), math.inf), "degrees must be finite"),
        (lambda: BALL.translate((0, 0, math.nan)), "three finite numbers"),
        (lambda: BALL.translate(None), "offset must be three finite numbers, not None"),
        (lambda: BALL.translate("abc"), "offset must be three finite numbers"),
        (lambda: BALL.scale("2"), "factor must be three finite numbers"),
        (lambda: BALL.repeat((1, 1, 1), None), "counts must be three whole numbers"),
        (lambda: BALL.offset(None), "must be of the type"),
        (lambda: BALL.offset(math.inf), "must be finite"),
        (lambda: BALL.shell(0), "thickness must be positive"),
        (lambda: BALL.blend(BLOCK, 1.5), "share must be from 0 to 1"),
        (lambda: BALL.repeat((1, 0, 1), (2, 2, 2)), "period must be positive"),
        (lambda: BALL.repeat((1, 1, 1), (2, 0, 2)), "counts must be three whole numbers"),
        (lambda: BALL.repeat((0.1, 0.1, 0.1), (20, 20, 20)), "the copies overlap so far"),
    ],
)
def test_impossible_combinations_are_refused(make, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


BOUNDED = {
    "union": lambda a, b: a | b.translate((1.5, 0.3, 0)),
    "difference": lambda a, b: a - b.translate((0.6, 0, 0)),
    "intersection": lambda a, b: a & b.rotate((0, 0, 1), 60),
    "fillet": lambda a, b: a.union(b.translate((0.7, 0, 0)), radius=0.2),
    "grown": lambda a, _: a.offset(0.4),
    "shrunk": lambda a, _: a.offset(-0.05),
    "wall": lambda a, _: a.shell(0.1),
    "uneven": lambda a, _: a.scale((1.0, 1.5, 0.8)),
    "rows": lambda a, _: a.repeat((2.5, 1, 1), (2, 1, 1)),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_of_combined_fits_exceed_the_distance_nowhere(name: str, torus_fit: Fit) -> None:
    """Inside and outside the unit boxes of the parts, and with the sign of the distance."""
    fit = torus_fit.sdf()
    shape = BOUNDED[name](fit, fit)
    mesh = extract_mesh(shape, 64)
    points = torch.from_numpy(draw(1500, 3.0))
    with torch.no_grad():
        bound, value = shape.bound(points) / shape.lipschitz, shape.distance(points)
    exact = torch.from_numpy(MeshDistance(mesh).unsigned(points.numpy()))
    slack = 0.01 * mesh.bounds.diagonal / 2  # of the mesh and of the fit
    assert (bound.abs() <= exact + slack).all()
    assert ((bound <= 0) == (value <= 0)).all()
    if name in ("grown", "rows"):  # keep the distance itself
        assert (value >= exact - 2 * slack)[value > 0].all()  # far from the box, where it adds up


class BallField(torch.nn.Module):
    """The exact distance to a ball of radius 0.6, as a field of double precision."""

    in_dim, out_dim = 3, 1

    def __init__(self) -> None:
        super().__init__()
        self.radius = torch.nn.Parameter(torch.tensor(0.6, dtype=torch.float64))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return points.norm(dim=1, keepdim=True) - self.radius


MOVED = {  # surfaces that lie where the distances of the parts are not zero
    "fillet": lambda a, b: a.union(b, radius=3.0),
    "blend": lambda a, b: a.offset(1.0).blend(b.offset(1.0), 0.5),
    "relief": lambda a, _: displace(a, lambda p: torch.sin(2 * p[:, 0]), 0.9, 2.0),
}


@pytest.mark.parametrize("name", MOVED)
def test_what_moves_the_surface_beyond_the_unit_box_puts_it_where_it_is(name: str) -> None:
    """The unit boxes of the two fields end at x = 1 and at x = 1.4."""
    fields = [
        from_field(
            BallField().requires_grad_(False),
            Frame((x, 0.0, 0.0), 1.0),
            Box((x - 0.6, -0.6, -0.6), (x + 0.6, 0.6, 0.6)),
            1.0,
        )
        for x in (0.0, 2.4)
    ]
    exact = MOVED[name](*(P.sphere(0.6, (x, 0.0, 0.0)) for x in (0.0, 2.4)))
    shape = MOVED[name](*fields)
    points = np.concatenate([draw(1000, 3.5), draw(1000, 0.5) + [1.2, 0, 0]])
    value = shape(points)
    np.testing.assert_allclose(value, exact(points), atol=2e-3)
    between = (points[:, 0] > 1) & (points[:, 0] < 1.4)
    assert (value[between] < 0).sum() > 50  # the solid is there
    np.testing.assert_array_equal(
        shape.bound(torch.from_numpy(points)).detach() <= 0, shape(points) <= 0
    )
