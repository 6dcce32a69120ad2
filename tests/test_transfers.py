"""What copies between a GPU and its host, and what makes the host wait, on a device that stands in
for a GPU."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from device import DEVICE, Device, Remote

from nstr3d.bench.transfers import Transfers
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.fields.waves import PhaseWaves
from nstr3d.geometry.shapes.primitives import torus
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.render.camera import Camera
from nstr3d.sdf import from_field, signed
from nstr3d.surface.emptyspace import EmptySpace
from nstr3d.surface.trace import sphere_trace
from nstr3d.training import fit as training
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import SdfObjective
from nstr3d.types import Box, Frame, Rays, Samples

LEVELS = (
    LevelConfig(3, plain=3, sparse=False, order=2),
    LevelConfig(4, plain=2, waves=PhaseWaves(3), order=2),
)
CONFIG = FitConfig(steps=60, batch=64, pool=640)


@pytest.fixture
def device() -> Iterator[Device]:
    signed._centre_on.cache_clear()
    with Device() as device:
        yield device
    signed._centre_on.cache_clear()


def small_field() -> Nstr:
    return NstrConfig(levels=LEVELS, hidden=8).build(3, 1)


def small_pool() -> Samples:
    points = torch.rand(640, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    length = points.norm(dim=1, keepdim=True)
    gradients = points / length
    gradients[::2] = 0
    return Samples(points, length - 0.6, gradients)


# The stand-in and the counter


def test_the_stand_in_computes_and_says_where_it_is(device) -> None:
    there = torch.arange(4.0).to(DEVICE)
    assert isinstance(there, Remote)
    assert there.device == DEVICE
    assert (there * 2 + torch.ones(4, device=DEVICE)).cpu().tolist() == [1, 3, 5, 7]
    assert float(there.sum()) == 6
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


def test_a_stand_in_without_float64_refuses_it() -> None:
    with Device(double=False):
        there = torch.ones(3).to(DEVICE)
        assert there.half().dtype == torch.float16
        with pytest.raises(TypeError, match="float64"):
            there.double()


@pytest.mark.parametrize(
    ("work", "copies", "waits"),
    [
        (lambda here, there: there + 1, 0, 0),
        (lambda here, there: here.to(DEVICE), 1, 0),
        (lambda here, there: there.cpu(), 1, 0),
        (lambda here, there: there.copy_(here), 1, 0),
        (lambda here, there: there.clone().to(torch.float16), 0, 0),
        (lambda here, there: there.sum().item(), 0, 1),
        (lambda here, there: bool((there > 0).any()), 0, 1),
        (lambda here, there: there.nonzero(), 0, 1),
        (lambda here, there: there[there > 1], 0, 1),
        (lambda here, there: there.masked_select(there > 1), 0, 1),
        (lambda here, there: there[torch.zeros(2, dtype=torch.int64, device=DEVICE)], 0, 0),
        (lambda here, there: torch.equal(there, there), 0, 1),
        (lambda here, there: here[here > 1].sum().item(), 0, 0),
        (lambda here, there: here.nonzero(), 0, 0),
    ],
)
def test_copies_and_waits_are_counted(device, work, copies, waits) -> None:
    here = torch.arange(4.0)
    there = here.to(DEVICE)
    with Transfers() as count:
        work(here, there)
    assert (count.copies.total(), count.waits.total()) == (copies, waits)
    assert count.total == copies + waits


# Training


def count_of_steps(steps: int, first: int = 5, objective: SdfObjective | None = None) -> Transfers:
    """What ``steps`` steps count, after the ``first``."""
    progress = fit_steps(
        small_field().to(DEVICE), small_pool(), objective or SdfObjective(), CONFIG
    )
    for _ in range(first):
        next(progress)
    with Transfers() as count:
        for _ in range(steps):
            next(progress)
    return count


@pytest.mark.parametrize("weight", [0.0, 0.04])
def test_training_neither_copies_nor_waits_within_an_epoch(device, weight) -> None:
    # An epoch has 10 steps, whose order is copied at its start.
    count = count_of_steps(5, objective=SdfObjective(gradient_weight=weight))
    assert count.total == 0, (count.copies, count.waits)


def test_training_copies_the_order_of_an_epoch_and_waits_once_for_fifty_losses(device) -> None:
    count = count_of_steps(50)
    assert count.copies.total() == 5
    assert count.waits.total() == 1


def test_a_training_loop_that_reads_every_loss_is_noticed(device, monkeypatch) -> None:
    monkeypatch.setattr(training, "REPORT_EVERY", 1)
    assert count_of_steps(5).waits.total() == 5


def test_a_field_trains_on_the_device_as_on_the_cpu(device) -> None:
    here, there = small_field(), small_field().to(DEVICE)
    with plain_torch():
        losses = [
            progress.loss for progress in fit_steps(here, small_pool(), SdfObjective(), CONFIG)
        ]
        others = [
            progress.loss for progress in fit_steps(there, small_pool(), SdfObjective(), CONFIG)
        ]
    assert losses[-1] == pytest.approx(others[-1], rel=1e-3)
    for one, other in zip(here.parameters(), there.parameters()):
        torch.testing.assert_close(one.detach(), other.detach().cpu(), atol=1e-3, rtol=1e-2)


def test_training_needs_no_float64() -> None:
    with Device(double=False):
        field = small_field().to(DEVICE)
        *_, last = fit_steps(field, small_pool(), SdfObjective(), CONFIG)
        assert last.loss < 1e3


# Queries and tracing


def fitted(there: bool):
    """The signed distance of a field on the CPU or on the device."""
    field = small_field()
    for _ in fit_steps(field, small_pool(), SdfObjective(), replace(CONFIG, steps=200)):
        pass
    frame = Frame((0.25, -0.5, 0.125), 2.0)
    bounds = Box((-1.2, -2.0, -1.4), (1.7, 1.0, 1.6))
    return from_field(field.to(DEVICE) if there else field, frame, bounds, 1.5)


def test_points_of_the_host_are_copied_once_and_their_distances_once(device) -> None:
    sdf, points = fitted(True), torch.rand(100, 3) - 0.5
    sdf(points)
    with Transfers() as count, torch.no_grad():
        sdf(points)
    assert count.copies.total() == 2


def test_distances_of_points_on_the_device_are_not_copied(device) -> None:
    sdf, points = fitted(True), (torch.rand(100, 3) - 0.5).to(DEVICE)
    sdf(points)
    sdf.bound(points)
    with Transfers() as count, torch.no_grad():
        sdf(points)
        sdf.bound(points)
    assert count.copies.total() == 0


def test_distances_on_the_device_are_those_of_the_cpu(device) -> None:
    here, there = fitted(False), fitted(True)
    for dtype in (torch.float32, torch.float64):
        points = torch.rand(200, 3, dtype=dtype) * 6 - 3
        with torch.no_grad():
            expected = here.bound(points)
            actual = there.bound(points.to(DEVICE)).cpu()
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def traced(sdf, empty: EmptySpace | None, steps: int) -> tuple[Transfers, torch.Tensor]:
    camera = Camera.around(sdf.bounds, width=12, height=12)
    rays = camera.rays(DEVICE)
    with Transfers() as count:
        hits = sphere_trace(sdf, rays, max_steps=steps, empty=empty)
    return count, hits.mask


def test_tracing_copies_nothing_per_step(device) -> None:
    sdf = fitted(True)
    sdf.bound(torch.zeros(1, 3, dtype=torch.float64).to(DEVICE))
    few, many = (traced(sdf, None, steps)[0] for steps in (2, 40))
    assert few.copies == many.copies
    assert many.copies.total() <= 4  # the bounds of the surface, and no point of a ray


def test_empty_space_copies_nothing_per_step(device) -> None:
    sdf = fitted(True)
    empty = EmptySpace.of(sdf, DEVICE, cells=12)
    rays = Camera.around(sdf.bounds, width=12, height=12).rays(DEVICE)
    near, far = torch.zeros(144, dtype=torch.float64), torch.full((144,), 9.0, dtype=torch.float64)
    near, far = near.to(DEVICE), far.to(DEVICE)
    with Transfers() as count:
        empty.leave(rays, near, far)
    assert count.copies.total() == 0


def test_a_picture_on_the_device_has_the_hits_of_the_cpu(device) -> None:
    sdf = torus()
    there = traced(sdf, EmptySpace.of(sdf, DEVICE), 200)[1].cpu()
    camera = Camera.around(sdf.bounds, width=12, height=12)
    here = sphere_trace(sdf, camera.rays(), empty=EmptySpace.of(sdf), max_steps=200).mask
    np.testing.assert_array_equal(here.numpy(), there.numpy())


def test_rays_of_single_precision_are_traced_without_float64() -> None:
    signed._centre_on.cache_clear()
    with Device(double=False):
        sdf = fitted(True)
        rays = Camera.around(sdf.bounds, width=8, height=8).rays()
        rays = Rays(rays.origins.float().to(DEVICE), rays.directions.float().to(DEVICE))
        empty = EmptySpace.of(sdf, DEVICE, torch.float32, cells=12)
        assert sphere_trace(sdf, rays, empty=empty).mask.cpu().any()
    signed._centre_on.cache_clear()
