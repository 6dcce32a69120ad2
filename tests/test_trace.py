"""Sphere tracing against closed forms of where rays meet spheres, boxes, planes and tori."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nstr3d.geometry.shapes.primitives import box, gyroid_slab, scale, sphere, torus, translate
from nstr3d.render.camera import Camera
from nstr3d.sdf import Sdf
from nstr3d.surface.emptyspace import EmptySpace
from nstr3d.surface.trace import sphere_trace
from nstr3d.types import Box, Rays

TORUS = torus()


def pencil(
    count: int = 4000, seed: int = 0, spread: float = 1.3, dtype: torch.dtype = torch.float64
) -> Rays:
    """Rays from distance 4 towards random points about the origin. At the unit sphere most hit,
    some graze and some miss."""
    generator = torch.Generator().manual_seed(seed)
    origins = (
        torch.nn.functional.normalize(
            torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=1
        )
        * 4
    )
    targets = (torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1) * spread
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    return Rays(origins.to(dtype), directions.to(dtype))


def sphere_depth(rays: Rays, radius: float = 1.0) -> Tensor:
    """Depth of the first intersection with a sphere about the origin, from outside; infinite on a
    miss."""
    b = (rays.origins * rays.directions).sum(dim=1)
    discriminant = b * b - (rays.origins.square().sum(dim=1) - radius**2)
    return torch.where(discriminant >= 0, -b - discriminant.clamp_min(0).sqrt(), torch.inf)


def clearance(rays: Rays) -> Tensor:
    """The distance from the origin to each ray's line."""
    along = (rays.origins * rays.directions).sum(dim=1, keepdim=True)
    return (rays.origins - along * rays.directions).norm(dim=1)


def test_sphere_hits_are_analytic() -> None:
    rays, shape = pencil(), sphere()
    hits, exact = sphere_trace(shape, rays), sphere_depth(rays)
    # For rays that are tangent within the tolerance, a hit and a miss are both correct.
    clear = (clearance(rays) - 1).abs() > 1e-4
    assert 1000 < int(hits.mask.sum()) < 3500
    assert torch.equal(hits.mask[clear], exact.isfinite()[clear])
    common = clear & hits.mask
    assert float((hits.depth - exact)[common].abs().max()) < 1e-5 * shape.bounds.diagonal
    assert bool(hits.depth[~hits.mask].isinf().all())
    np.testing.assert_allclose(hits.points[common].norm(dim=1), 1.0, atol=1e-5)


def test_grazing_rays_hit_just_inside_and_miss_just_outside() -> None:
    heights = torch.tensor([0.9, 0.99, 0.999, 0.9999, 1.0001, 1.001, 1.01], dtype=torch.float64)
    origins = torch.stack(
        [torch.full_like(heights, -3.0), heights, torch.zeros_like(heights)], dim=1
    )
    rays = Rays(origins, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).expand_as(origins))
    hits = sphere_trace(sphere(), rays)
    assert hits.mask.tolist() == [True] * 4 + [False] * 3
    np.testing.assert_allclose(hits.depth[:4], 3 - (1 - heights[:4] ** 2).sqrt(), atol=3.4e-5)


def test_single_precision_is_good_to_its_own_digits() -> None:
    rays = pencil(dtype=torch.float32)
    hits, exact = (
        sphere_trace(sphere(), rays, tolerance=1e-4),
        sphere_depth(Rays(rays.origins.double(), rays.directions.double())),
    )
    clear = hits.mask & ((clearance(rays) - 1).abs() > 1e-3)
    assert hits.depth.dtype == torch.float32
    assert float((hits.depth - exact)[clear].abs().max()) < 1e-4 * sphere().bounds.diagonal


def test_box_depth_along_the_axes_and_through_a_corner() -> None:
    origins = torch.tensor(
        [[0.1, 0.2, 5.0], [-5.0, 0.3, 0.1], [0.4, 4.0, -0.2], [4.0, 4.0, 4.0]], dtype=torch.float64
    )
    diagonal = -1 / math.sqrt(3)
    directions = torch.tensor(
        [[0, 0, -1], [1, 0, 0], [0, -1, 0], [diagonal] * 3], dtype=torch.float64
    )
    hits = sphere_trace(box((1.0, 2.0, 3.0)), Rays(origins, directions))
    # The diagonal ray enters the slabs |x| < 1, |y| < 2, |z| < 3 at the depths 3, 2 and 1 times
    # sqrt(3). It enters the box with the last slab, x.
    np.testing.assert_allclose(hits.depth, [2.0, 4.0, 2.0, 3 * math.sqrt(3)], atol=7.5e-5)


def test_a_start_inside_has_depth_zero_and_stays_there() -> None:
    inside = Rays(
        torch.tensor([[0.2, 0.1, 0.0]], dtype=torch.float64),
        torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64),
    )
    hits = sphere_trace(sphere(), inside)
    assert hits.mask.tolist() == [True]
    assert hits.depth.tolist() == [0.0]
    assert torch.equal(hits.points, inside.origins)
    assert hits.steps.tolist() == [1]


def test_what_lies_behind_or_beside_the_bounds_costs_nothing() -> None:
    origins = torch.tensor([[0.0, 0.0, 3.0], [0.0, 5.0, 3.0], [0.0, 5.0, 0.0]], dtype=torch.float64)
    directions = torch.tensor(
        [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]], dtype=torch.float64
    )
    hits = sphere_trace(sphere(), Rays(origins, directions))
    assert not hits.mask.any()
    assert hits.steps.tolist() == [0, 0, 0]


def test_a_scaled_distance_with_its_bound_gives_the_same_hits() -> None:
    rays, shape = pencil(), torus()
    doubled = Sdf(lambda points: 2 * shape.distance(points), shape.bounds, lipschitz=2.0)
    a, b = sphere_trace(shape, rays), sphere_trace(doubled, rays)
    for one, other in (
        (a.mask, b.mask),
        (a.depth, b.depth),
        (a.points, b.points),
        (a.steps, b.steps),
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("factor", [0.3, 1.6])
def test_depths_do_not_depend_on_a_good_lipschitz_bound(factor: float) -> None:
    rays, shape = pencil(spread=0.6), sphere()
    estimated = Sdf(lambda points: factor * shape.distance(points), shape.bounds, lipschitz=1.0)
    hits, exact = sphere_trace(estimated, rays), sphere_depth(rays)
    steep = hits.mask & (clearance(rays) < 0.95)
    assert int(steep.sum()) > 3000
    assert float((hits.depth - exact)[steep].abs().max()) < 1e-5 * shape.bounds.diagonal


@pytest.mark.parametrize(("bend", "lipschitz"), [(4.0, 2.0), (-8.0, 0.1)])
def test_root_finding_copes_with_a_distance_that_bends(bend: float, lipschitz: float) -> None:
    rays, shape = pencil(spread=0.6), sphere()
    bent = Sdf(
        lambda points: torch.expm1(bend * shape.distance(points)) / bend, shape.bounds, lipschitz
    )
    hits, exact = sphere_trace(bent, rays), sphere_depth(rays)
    steep = hits.mask & (clearance(rays) < 0.9)
    assert int(steep.sum()) > 3000
    assert float((hits.depth - exact)[steep].abs().max()) < 1e-5 * shape.bounds.diagonal


@pytest.mark.parametrize("shape", [torus(), gyroid_slab(), box((1.0, 0.01, 1.0))])
def test_relaxed_steps_find_what_plain_ones_find_and_are_fewer(shape: Sdf) -> None:
    rays = pencil(seed=4)
    plain, relaxed = (
        sphere_trace(shape, rays, relaxation=1.0),
        sphere_trace(shape, rays, relaxation=1.5),
    )
    # Rays that pass an edge within the tolerance may hit or miss.
    assert int((plain.mask != relaxed.mask).sum()) <= 2
    both = plain.mask & relaxed.mask
    late = (plain.depth - relaxed.depth)[both].abs() > 2e-5 * shape.bounds.diagonal
    assert int(late.sum()) <= 2
    default = sphere_trace(shape, rays)
    assert int(default.steps.sum()) < 1.02 * int(plain.steps.sum())


def test_a_footprint_saves_steps_and_keeps_depths() -> None:
    rays, shape = pencil(spread=0.6), torus()
    sharp, blunt = sphere_trace(shape, rays), sphere_trace(shape, rays, footprint=1e-3)
    assert int(blunt.steps.sum()) < int(sharp.steps.sum())
    both = sharp.mask & blunt.mask
    agree = (sharp.depth - blunt.depth)[both].abs() < 1e-5 * shape.bounds.diagonal
    assert float(agree.double().mean()) > 0.98


def test_only_what_is_thinner_than_the_footprint_may_be_passed_by() -> None:
    rays = Camera((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), width=60, height=60).rays()
    sheet = box((1.0, 1.0, 0.01))
    fine, exact = sphere_trace(sheet, rays, footprint=0.02 / 4.2), sphere_trace(sheet, rays)
    torch.testing.assert_close(fine.mask, exact.mask)
    torch.testing.assert_close(fine.depth[exact.mask], exact.depth[exact.mask], atol=1e-4, rtol=0)


def test_depth_scales_and_moves_with_the_world() -> None:
    rays, offset = pencil(), (300.0, -200.0, 100.0)
    moved = Rays(rays.origins * 50 + torch.tensor(offset, dtype=torch.float64), rays.directions)
    a, b = sphere_trace(torus(), rays), sphere_trace(translate(scale(torus(), 50.0), offset), moved)
    assert int((a.mask != b.mask).sum()) <= 2
    both = a.mask & b.mask
    assert float((a.depth * 50 - b.depth)[both].abs().median()) < 1e-5


def test_steps_count_the_evaluations_and_are_bounded() -> None:
    counted = 0
    shape = gyroid_slab()

    def distance(points: Tensor) -> Tensor:
        nonlocal counted
        counted += len(points)
        return shape.distance(points)

    rays = Camera.around(shape.bounds, width=24, height=16).rays()
    hits = sphere_trace(Sdf(distance, shape.bounds), rays)
    assert int(hits.steps.sum()) == counted
    assert not sphere_trace(shape, rays, max_steps=1).mask.any()


def test_the_bounds_are_clipped_with_a_margin() -> None:
    flat = Sdf(lambda points: points[:, 1], Box((-1.0, 0.0, -1.0), (1.0, 0.0, 1.0)))
    down = Rays(
        torch.tensor([[0.0, 2.0, 0.0]], dtype=torch.float64),
        torch.tensor([[0.0, -1.0, 0.0]], dtype=torch.float64),
    )
    np.testing.assert_allclose(sphere_trace(flat, down).depth, [2.0], atol=3e-5)


@pytest.mark.parametrize(
    "wrong", [{"tolerance": 0.0}, {"footprint": -1.0}, {"relaxation": 2.1}, {"relaxation": 0.9}]
)
def test_arguments_out_of_range_raise(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sphere tracing needs"):
        sphere_trace(sphere(), pencil(4), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("lipschitz", [1.0, 2.0])
def test_empty_space_changes_the_cost_and_not_the_hits(lipschitz):
    ring = Sdf(lambda p: lipschitz * TORUS.distance(p), TORUS.bounds, lipschitz)
    rays = Camera.around(ring.bounds, width=40, height=40).rays()
    empty = EmptySpace.of(ring)
    plain, skipping = sphere_trace(ring, rays), sphere_trace(ring, rays, empty=empty)
    torch.testing.assert_close(skipping.mask, plain.mask)
    torch.testing.assert_close(
        skipping.depth[plain.mask],
        plain.depth[plain.mask],
        atol=3e-5 * ring.bounds.diagonal,
        rtol=0,
    )
    assert int(skipping.steps.sum()) < int(plain.steps.sum())


@pytest.mark.parametrize("relaxation", [1.0, 2.0])
def test_compiled_and_plain_rays_take_the_same_steps(relaxation, monkeypatch):
    # An estimate that is too steep in places makes steps that must be taken back.
    bumpy = Sdf(lambda p: TORUS.distance(p) + 0.02 * (9 * p).sin().sum(dim=1), TORUS.bounds, 1.2)
    rays, empty = pencil(), EmptySpace.of(bumpy)
    options: dict[str, Any] = {"footprint": 1e-3, "relaxation": relaxation}
    compiled = [sphere_trace(bumpy, rays, **options, empty=each) for each in (None, empty)]
    monkeypatch.setattr("nstr3d.surface.emptyspace.numba_found", lambda: False)
    plain = [sphere_trace(bumpy, rays, **options, empty=each) for each in (None, empty)]
    for one, other in zip(compiled, plain):
        assert 1000 < int(one.mask.sum()) < 3500
        # A last digit of a point may decide over a step of a ray that grazes.
        assert int((one.steps != other.steps).sum()) < 8
        both = one.mask & other.mask
        assert int((one.mask != other.mask).sum()) < 4
        torch.testing.assert_close(one.depth[both], other.depth[both], atol=2e-4, rtol=0)
        assert float((one.depth - other.depth)[both].abs().median()) < 1e-12


def test_compiled_and_plain_empty_space_are_one(monkeypatch):
    empty, rays = EmptySpace.of(TORUS), pencil()
    points = (
        rays.origins + torch.linspace(2, 6, len(rays.origins)).double()[:, None] * rays.directions
    )
    near, far = torch.full_like(points[:, 0], 3.0), torch.full_like(points[:, 0], 4.5)
    compiled = empty.at(points), empty.leave(rays, near, far)
    monkeypatch.setattr("nstr3d.surface.emptyspace.numba_found", lambda: False)
    for one, other in zip(compiled, (empty.at(points), empty.leave(rays, near, far))):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_empty_space_never_claims_more_than_the_distance():
    generator = torch.Generator().manual_seed(0)
    empty = EmptySpace.of(TORUS)
    lower, upper = torch.tensor(TORUS.bounds.lower), torch.tensor(TORUS.bounds.upper)
    points = lower + (upper - lower) * torch.rand(5000, 3, generator=generator, dtype=torch.float64)
    claimed = empty.at(points)
    assert bool((claimed <= TORUS(points) + 1e-12).all())
    assert float((TORUS(points) - claimed).mean()) < empty.cell


def test_empty_space_knows_whether_there_is_a_surface():
    assert EmptySpace.of(TORUS).surface
    assert not EmptySpace.of(Sdf(lambda p: TORUS.distance(p) + 1.0, TORUS.bounds)).surface


def torus_depth(rays: Rays, major: float, minor: float) -> np.ndarray:
    """Depth of the first intersection with a torus about the y axis, the least positive root of a
    quartic; infinite on a miss."""
    o, d = rays.origins.numpy(), rays.directions.numpy()
    # (|p|^2 + R^2 - r^2)^2 = 4 R^2 (x^2 + z^2) along p = o + t d
    square = np.stack(
        [np.ones(len(o)), 2 * (o * d).sum(axis=1), (o * o).sum(axis=1) + major**2 - minor**2]
    )
    flat = np.stack(
        [
            (d[:, [0, 2]] ** 2).sum(axis=1),
            2 * (o * d)[:, [0, 2]].sum(axis=1),
            (o[:, [0, 2]] ** 2).sum(axis=1),
        ]
    )
    depths = np.full(len(o), np.inf)
    for index, (a, b) in enumerate(zip(square.T, flat.T)):
        roots = np.roots(np.polysub(np.polymul(a, a), 4 * major**2 * b))
        real = roots.real[(np.abs(roots.imag) < 1e-7) & (roots.real > 0)]
        depths[index] = real.min(initial=np.inf)
    return depths


def test_torus_depths_are_the_roots_of_its_quartic_and_normals_point_from_its_ring() -> None:
    major, minor = 1.0, 0.3
    shape, rays = torus(major, minor), pencil(2000, seed=3)
    hits, exact = sphere_trace(shape, rays), torus_depth(rays, major, minor)
    common = hits.mask.numpy() & np.isfinite(exact)
    assert common.sum() > 500
    # Tangent rays may hit or miss.
    assert (hits.mask.numpy() == np.isfinite(exact)).mean() > 0.998
    error = np.abs(hits.depth.numpy()[common] - exact[common])
    # The root of a nearly tangent ray is ill-conditioned.
    assert np.quantile(error, 0.99) < 1e-4
    points = hits.points[hits.mask]
    ring = points * torch.tensor([1.0, 0.0, 1.0], dtype=points.dtype)
    ring = ring / ring.norm(dim=1, keepdim=True) * major
    outward = torch.nn.functional.normalize(points - ring, dim=1)
    assert float((shape.normals(points) * outward).sum(dim=1).min()) > 1 - 1e-4


def test_normals_of_a_box_are_those_of_the_faces_that_rays_meet() -> None:
    shape, rays = box((1.0, 0.6, 0.8)), pencil(2000, seed=4)
    hits = sphere_trace(shape, rays)
    points = hits.points[hits.mask]
    half = torch.tensor([1.0, 0.6, 0.8], dtype=points.dtype)
    fraction = (points / half).abs()
    clear = fraction.topk(2, dim=1).values.diff(dim=1).abs()[:, 0] > 1e-3  # not on an edge
    face = torch.nn.functional.one_hot(fraction.argmax(dim=1), 3) * points.sign()
    torch.testing.assert_close(
        shape.normals(points)[clear], face[clear].to(points.dtype), atol=1e-6, rtol=0
    )
    assert int(clear.sum()) > 500


def test_a_camera_at_the_surface_sees_it_at_depth_zero_or_looks_away_from_it() -> None:
    origins = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    rays = Rays(origins, torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64))
    hits = sphere_trace(sphere(), rays)
    assert bool(hits.mask[0])
    assert float(hits.depth[0]) < 1e-4
