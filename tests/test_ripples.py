"""Ripples: the frequency is the gradient of the phase, and the surface is displaced by the sine of
the phase."""

import pytest
import torch

from nstr3d.geometry.shapes.ripples import Chirp, drifting_ripple


def random_points() -> torch.Tensor:
    return (
        torch.rand(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(15)) * 4 - 2
    )


def test_local_frequency_is_the_gradient_of_the_phase_and_drifts_by_four():
    ripple, points, h = drifting_ripple(), random_points(), 1e-6
    steps = h * torch.eye(3, dtype=points.dtype)
    central = torch.stack(
        [ripple.phase(points + s) - ripple.phase(points - s) for s in steps], dim=-1
    ) / (2 * h)
    assert torch.allclose(ripple.frequency(points), central, atol=1e-4)
    ends = ripple.frequency(torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    assert ends[:, 0].tolist() == pytest.approx([7.0, 28.0])


def test_ripple_surface_lies_where_its_phase_says():
    ripple, points = drifting_ripple(radius=1.0, amplitude=0.05), random_points()
    expected = points.norm(dim=-1) - 1.0 - 0.05 * torch.sin(ripple.phase(points))
    assert torch.allclose(ripple.sdf(points), expected)


def test_chirp_phase_is_the_integral_of_its_frequency():
    chirp = Chirp(-0.5, 1.5, 3.0, 20.0)
    along = torch.linspace(-1.0, 2.0, 30001, dtype=torch.float64)
    integral = torch.cumulative_trapezoid(chirp.frequency(along), along)
    assert torch.allclose(chirp.phase(along)[1:] - chirp.phase(along)[0], integral, atol=1e-6)
    assert chirp.phase(torch.tensor([-0.5])).item() == 0.0


def test_sizes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="slow must be positive"):
        drifting_ripple(slow=-1.0)
    with pytest.raises(ValueError, match="must end after it starts"):
        Chirp(1.0, 1.0, 2.0, 3.0)
