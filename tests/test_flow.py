"""Streamlines of vector fields and line fields whose streamlines are known in closed form."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.spectrum.flow import End, StreamConfig, Streamlines, streamlines
from nstr3d.spectrum.gridfield import GridField
from nstr3d.spectrum.spacing import evenly_spaced
from nstr3d.types import Box, Polylines

SQUARE = Box((-1.0, -1.0), (1.0, 1.0))
CUBE = Box((-1.0,) * 3, (1.0,) * 3)


def rotation(points: Tensor) -> Tensor:
    return torch.stack([-points[:, 1], points[:, 0]], dim=1)


def line(flow: Streamlines, index: int = 0) -> np.ndarray:
    return flow.lines.points[flow.lines.starts[index] : flow.lines.starts[index + 1]]


def seeds(*points: tuple[float, ...]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64)


def test_a_rotation_keeps_the_radius_and_the_arc_length():
    generator = torch.Generator().manual_seed(0)
    around = torch.rand(20, 2, generator=generator, dtype=torch.float64) - 0.5
    flow = streamlines(
        rotation, around, SQUARE, StreamConfig(length=1.0, tolerance=1e-8, steps=2000)
    )
    radius = np.linalg.norm(flow.lines.points, axis=1)
    own = np.repeat(np.linalg.norm(around.numpy(), axis=1), np.diff(flow.lines.starts))
    np.testing.assert_allclose(radius, own, atol=1e-5)
    assert (flow.ends == End.LENGTH).all()
    # Chords are a little shorter than arcs.
    for index in range(20):
        assert flow.lines.along()[flow.lines.starts[index + 1] - 1] == pytest.approx(2.0, rel=1e-3)
    np.testing.assert_array_equal(flow.lines.points[flow.seeds], around.numpy())


def test_the_error_of_equal_steps_falls_with_their_fourth_power():
    errors = []
    for step in (0.1, 0.05, 0.025):
        flow = streamlines(
            rotation, seeds((0.5, 0.0)), SQUARE, StreamConfig(1.0, step, None, both=False)
        )
        errors.append(np.linalg.norm(line(flow)[-1] - 0.5 * np.array([math.cos(2), math.sin(2)])))
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert orders == pytest.approx([4, 4], abs=0.3)


def test_adaptive_steps_meet_their_tolerance_and_are_long_where_they_may_be():
    def bend(points: Tensor) -> Tensor:  # streamline: y = sin(40 x) / 40 for x > 0, y = x before
        slope = torch.where(points[:, 0] > 0, torch.cos(40 * points[:, 0]), 1.0)
        return torch.stack([torch.ones_like(slope), slope], dim=1)

    flow = streamlines(
        bend, seeds((-0.5, -0.5)), SQUARE, StreamConfig(3.0, 0.1, 1e-6, 5000, both=False)
    )
    x, y = line(flow).T
    np.testing.assert_allclose(y, np.where(x > 0, np.sin(40 * x.clip(0)) / 40, x), atol=2e-4)
    steps = np.linalg.norm(np.diff(line(flow), axis=0), axis=1)
    assert steps[:3] == pytest.approx(0.1)
    assert steps[-20:-2].max() < 0.03
    assert flow.ends[0, 1] == End.BOUNDS
    assert x[-1] == 1.0


def test_a_line_field_of_random_signs_is_followed_without_turning_back():
    generator = torch.Generator().manual_seed(3)

    def scrambled(points: Tensor) -> Tensor:
        return rotation(points) * (
            torch.randint(0, 2, (len(points), 1), generator=generator) * 2 - 1
        )

    start = seeds((0.5, 0.0), (0.0, 0.3), (-0.7, 0.0))
    config = StreamConfig(length=1.0, step=0.02, tolerance=1e-7, steps=1000)
    flow_lines = streamlines(scrambled, start, SQUARE, config, signed=False)
    for index in range(3):
        points = line(flow_lines, index)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), start[index].norm(), atol=1e-5)
        steps = np.diff(points, axis=0)
        assert ((steps[1:] * steps[:-1]).sum(axis=1) > 0).all()
        assert flow_lines.lines.along()[flow_lines.lines.starts[index + 1] - 1] == pytest.approx(
            2.0, rel=1e-3
        )


def test_lines_stop_at_bounds_at_stagnation_and_after_their_steps():
    def outwards(points: Tensor) -> Tensor:
        return points

    flow = streamlines(outwards, seeds((0.5, 0.25)), SQUARE, StreamConfig(5.0, 0.1, steps=500))
    np.testing.assert_allclose(line(flow)[-1], [1.0, 0.5], atol=1e-4)
    assert flow.ends.tolist() == [[End.STAGNATION, End.BOUNDS]]
    np.testing.assert_allclose(line(flow)[0], 0, atol=0.01)
    fixed = streamlines(
        outwards, seeds((0.5, 0.25)), SQUARE, StreamConfig(5.0, 0.1, None, steps=500)
    )
    assert fixed.ends.tolist() == [[End.STAGNATION, End.BOUNDS]]
    short = streamlines(
        rotation, seeds((0.5, 0.0)), SQUARE, StreamConfig(5.0, 0.1, None, steps=7, both=False)
    )
    assert short.ends[0, 1] == End.STEPS
    assert len(line(short)) == 8
    for nothing in (torch.zeros_like, lambda points: torch.full_like(points, math.nan)):
        flow = streamlines(nothing, seeds((0.5, 0.0)), SQUARE)
        assert len(line(flow)) == 1
        assert (flow.ends == End.STAGNATION).all()


def test_a_constraint_keeps_lines_on_a_surface():
    def along_x(points: Tensor) -> Tensor:
        normal = points / points.norm(dim=1, keepdim=True)
        axis = torch.tensor([1.0, 0.0, 0.0], dtype=points.dtype).expand_as(points)
        return axis - (axis * normal).sum(dim=1, keepdim=True) * normal

    def on_sphere(points: Tensor) -> Tensor:
        return 0.8 * points / points.norm(dim=1, keepdim=True)

    start = on_sphere(seeds((0.0, 1.0, 0.2), (0.1, -0.3, 1.0)))
    flow = streamlines(along_x, start, CUBE, StreamConfig(length=0.8), project=on_sphere)
    np.testing.assert_allclose(np.linalg.norm(flow.lines.points, axis=1), 0.8, atol=1e-12)
    for index in range(2):  # meridians: the angle about x is constant
        angle = np.arctan2(line(flow, index)[:, 2], line(flow, index)[:, 1])
        assert np.ptp(angle) < 1e-3


@settings(max_examples=15, deadline=None)
@given(angle=st.floats(0, 6.3), size=st.floats(1e-3, 1e3))
def test_straight_lines_of_any_speed_and_direction(angle: float, size: float):
    direction = np.array([math.cos(angle), math.sin(angle)])
    flow = streamlines(
        lambda p: p.new_tensor(size * direction).expand_as(p),
        seeds((0.0, 0.0)),
        SQUARE,
        StreamConfig(0.5, 0.1),
    )
    np.testing.assert_allclose(line(flow)[0], -0.5 * direction, atol=1e-9)
    np.testing.assert_allclose(line(flow)[-1], 0.5 * direction, atol=1e-9)


def test_evenly_spaced_lines_keep_their_distance_and_fill_the_square():
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(400, 2, generator=generator, dtype=torch.float64) * 2 - 1
    flow = streamlines(
        lambda p: torch.ones_like(p) * p.new_tensor([1.0, 0.0]),
        start,
        SQUARE,
        StreamConfig(3.0, 0.02),
    )
    even = evenly_spaced(flow, 0.1)
    heights = np.sort(even.lines.points[even.seeds][:, 1])
    assert np.diff(heights).min() >= 0.1 - 1e-9
    assert np.diff(heights).max() < 0.25
    np.testing.assert_array_equal(
        even.lines.points[even.seeds],
        start.numpy()[np.isin(start.numpy(), even.lines.points[even.seeds]).all(1)],
    )
    spiral = streamlines(
        rotation, seeds((0.5, 0.0)), SQUARE, StreamConfig(12.0, 0.02, steps=2000, both=False)
    )
    once = evenly_spaced(spiral, 0.1)
    assert once.lines.along()[-1] == pytest.approx(math.pi, abs=0.1)
    assert len(evenly_spaced(flow, 0.1, least=5.0).lines) == 0


def test_a_sampled_field_agrees_with_its_source():
    grid = GridField.sampled(rotation, SQUARE, 16)
    points = torch.rand(100, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    # Interpolation of a linear field is exact.
    torch.testing.assert_close(grid(points), rotation(points), atol=1e-5, rtol=0)
    signs = torch.randint(0, 2, (17, 17, 1), generator=torch.Generator().manual_seed(2)) * 2.0 - 1
    axes = torch.linspace(-1, 1, 17)
    nodes = torch.stack(torch.meshgrid(axes, axes, indexing="ij"), dim=-1)
    scrambled = GridField(
        rotation(nodes.reshape(-1, 2)).reshape(17, 17, 2) * signs, SQUARE, signed=False
    )
    far = points[points.norm(dim=1) > 0.3]
    cosine = torch.cosine_similarity(scrambled(far), rotation(far)).abs()
    torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-5, rtol=0)


@pytest.mark.parametrize("signed", [True, False])
def test_the_fused_lookup_is_its_plain_twin(signed: bool):
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randn(5, 8, 6, 3, generator=generator)
    nodes[1, 2, 3] = 0
    box = Box((-1.0, 0.0, -2.0), (0.5, 1.0, 0.7))
    lower, extent = torch.tensor(box.lower), torch.tensor(box.extent).float()
    points = lower + extent * torch.rand(5000, 3, generator=generator)
    points[:8] = lower + extent * torch.tensor(list(np.ndindex(2, 2, 2)))  # the box's corners
    grid = GridField(nodes, box, signed)
    flow_lines = grid(points)
    with plain_torch():
        torch.testing.assert_close(flow_lines, grid(points), atol=1e-5, rtol=0)
    exact = GridField(nodes.double(), box, signed)(points.double())
    torch.testing.assert_close(flow_lines.double(), exact, atol=1e-5, rtol=0)
    nodes[:] = math.nan
    assert not torch.isfinite(GridField(nodes, box, signed)(points)).any()


def test_lengths_along_lines_and_their_segments():
    lines = Polylines(
        np.array([[0.0, 0], [3, 4], [9, 9], [9, 8]]), np.array([0, 2, 2, 4]), np.arange(4.0)
    )
    assert len(lines) == 3
    assert lines.segments.tolist() == [[0, 1], [2, 3]]
    assert lines.along().tolist() == [0, 5, 0, 1]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no seeds"):
        streamlines(rotation, torch.zeros(0, 2), SQUARE)
    with pytest.raises(ValueError, match="1 of 2 seeds are outside"):
        streamlines(rotation, seeds((0, 0), (2, 0)), SQUARE)
    with pytest.raises(ValueError, match="not finite, first seed 0"):
        streamlines(rotation, seeds((math.nan, 0)), SQUARE)
    with pytest.raises(ValueError, match=r"points \(m, 2\)"):
        streamlines(rotation, seeds((0, 0, 0)), SQUARE)
    for wrong in ({"length": 0}, {"step": -1}, {"steps": 0}, {"stagnation": -1}, {"tolerance": 0}):
        with pytest.raises(ValueError, match=r"need a positive|must be positive"):
            replace(StreamConfig(), **wrong)
    with pytest.raises(ValueError, match="positive separation"):
        evenly_spaced(streamlines(rotation, seeds((0.5, 0)), SQUARE), 0)
    with pytest.raises(ValueError, match="A grid in 2 dimensions"):
        GridField(torch.zeros(4, 2), SQUARE)
    for starts, values in (([0, 1], None), ([0, 3, 2], None), ([0, 2], np.zeros(3))):
        with pytest.raises(ValueError, match=r"[Ll]ines"):
            Polylines(np.zeros((2, 2)), np.array(starts), values)
