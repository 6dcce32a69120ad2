"""Multilinear interpolation: the fused kernel against its plain twin, both against polynomials and
autograd."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from nstr3d.kernels.field import interpolate as module
from nstr3d.kernels.field.interpolate import corners, gather, interpolate, interpolate_with_slope

# torch's own forward mode compiles its rules with a function that torch has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)

DIMS = [1, 2, 3, 4]


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts torch's thread count back after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def node_positions(dim: int, resolution: int) -> Tensor:
    """Every node ``((resolution + 1)^dim, dim)`` of the grid over [-1, 1]^dim, last axis
    fastest."""
    axis = torch.linspace(-1, 1, resolution + 1, dtype=torch.float64)
    return torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij"), dim=-1).reshape(-1, dim)


def dense_rows(dim: int, resolution: int) -> Tensor:
    return torch.arange((resolution + 1) ** dim, dtype=torch.int32)


def sparse_level(dim: int, resolution: int, channels: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Rows that leave out about a third of the nodes, and a float64 table for the rest."""
    stored = torch.rand((resolution + 1) ** dim, generator=seeded(seed)) > 0.3
    rows = torch.where(stored, stored.cumsum(0) - 1, -1).int()
    return rows, torch.randn(
        int(stored.sum()), channels, generator=seeded(seed + 1), dtype=torch.float64
    )


def awkward_points(resolution: int, count: int = 200) -> Tensor:
    """Random points, the eight corners of the box, points on cell faces, and points slightly
    outside the box: float32."""
    inside = torch.rand(count, 3, generator=seeded(3)) * 2 - 1
    corner = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
    faces = inside[:50].clone()
    faces[:, 1] = (
        torch.randint(0, resolution + 1, (50,), generator=seeded(4)) * (2 / resolution) - 1
    )
    return torch.cat([inside, corner, corner * 1.02, faces, faces * torch.tensor([1.0, 1.0, 1.2])])


@pytest.mark.parametrize("channels", [1, 2, 7, 22])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("threads")
def test_fused_values_and_table_gradients_equal_double_precision(channels: int, count: int) -> None:
    torch.set_num_threads(count)
    resolution, points = 5, awkward_points(5)
    rows, exact_table = sparse_level(3, resolution, channels)
    seed = torch.randn(len(points), channels, generator=seeded(5))
    exact_table.requires_grad_(True)
    exact = interpolate(points.double(), rows, resolution, exact_table)
    exact.backward(seed.double())
    table = exact_table.detach().float().requires_grad_(True)
    fused = gather(points, rows, resolution, table)
    assert type(fused.grad_fn).__name__ == "_FusedGatherBackward"
    fused.backward(seed)
    assert exact_table.grad is not None
    np.testing.assert_allclose(fused.detach(), exact.detach(), atol=2e-5)
    np.testing.assert_allclose(table.grad, exact_table.grad, atol=2e-5)  # type: ignore[arg-type]


@pytest.mark.usefixtures("threads")
def test_more_threads_than_the_machine_has_give_the_same_values() -> None:
    rows, table = sparse_level(3, 4, 3)
    points, table = awkward_points(4), table.float()
    torch.set_num_threads(1)
    one = gather(points, rows, 4, table)
    torch.set_num_threads(64)
    np.testing.assert_array_equal(gather(points, rows, 4, table), one)


@pytest.mark.usefixtures("threads")
def test_fused_table_gradient_repeats_bit_for_bit() -> None:
    torch.set_num_threads(2)
    points = torch.rand(5000, 3, generator=seeded()) * 2 - 1
    table = torch.randn(27, 4, generator=seeded(1)).requires_grad_(True)
    found = [
        torch.autograd.grad(gather(points, dense_rows(3, 2), 2, table).square().sum(), table)[0]
        for _ in range(3)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_an_empty_batch_gives_no_values_and_a_zero_gradient() -> None:
    rows, table = sparse_level(3, 3, 4)
    weights = table.float().requires_grad_(True)
    values = gather(torch.zeros(0, 3), rows, 3, weights)
    assert values.shape == (0, 4)
    values.sum().backward()
    assert weights.grad is not None
    assert not weights.grad.any()


def test_points_and_table_need_not_be_contiguous() -> None:
    rows, table = sparse_level(3, 4, 6)
    points = awkward_points(4)
    spread = torch.cat([points, points], dim=1)[:, :3]
    columns = table.float().T.contiguous().T
    assert not spread.is_contiguous()
    assert not columns.is_contiguous()
    np.testing.assert_array_equal(
        gather(spread, rows, 4, columns), gather(points, rows, 4, table.float())
    )


@pytest.mark.parametrize("grad_enabled", [True, False])
def test_gather_has_no_derivative_path_left_out(grad_enabled: bool) -> None:
    rows, table = sparse_level(3, 4, 2)
    points, table = awkward_points(4), table.float()
    expected = interpolate_with_slope(points, rows, 4, table)[1]
    with torch.set_grad_enabled(grad_enabled), dual_level():
        for axis in range(3):
            tangent = torch.zeros_like(points)
            tangent[:, axis] = 1
            found = unpack_dual(gather(make_dual(points, tangent), rows, 4, table)).tangent
            assert found is not None
            np.testing.assert_allclose(found, expected[:, :, axis], atol=1e-4)
    at = points.clone().requires_grad_(True)
    found = torch.autograd.grad(gather(at, rows, 4, table)[:, 1].sum(), at)[0]
    np.testing.assert_allclose(found, expected[:, 1], atol=1e-4)


def test_gather_under_no_grad_answers_for_points_that_require_it() -> None:
    rows, table = sparse_level(3, 4, 2)
    points = awkward_points(4).requires_grad_(True)
    with torch.no_grad():
        found = gather(points, rows, 4, table.float())
    np.testing.assert_allclose(
        found, interpolate(points.detach().double(), rows, 4, table), atol=2e-5
    )


def test_gather_without_numba_is_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, table = sparse_level(3, 4, 2)
    monkeypatch.setattr(module, "numba_found", lambda: False)
    points = awkward_points(4)
    assert torch.equal(
        gather(points, rows, 4, table.float()), interpolate(points, rows, 4, table.float())
    )


@pytest.mark.parametrize("dim", DIMS)
def test_multilinear_functions_are_reproduced_inside_and_outside(dim: int) -> None:
    coefficients = torch.randn((2,) * dim, generator=seeded(dim), dtype=torch.float64)

    def polynomial(x: Tensor) -> Tensor:
        total = torch.zeros(len(x), dtype=torch.float64)
        for powers in itertools.product((0, 1), repeat=dim):
            total = total + coefficients[powers] * (x ** torch.tensor(powers)).prod(dim=1)
        return total

    table = polynomial(node_positions(dim, 3))[:, None]
    points = torch.rand(200, dim, generator=seeded(9), dtype=torch.float64) * 2.2 - 1.1
    found = interpolate(points, dense_rows(dim, 3), 3, table)[:, 0]
    np.testing.assert_allclose(found, polynomial(points), atol=1e-12)


@pytest.mark.parametrize("dim", DIMS)
def test_node_values_are_met_and_the_weights_sum_to_one(dim: int) -> None:
    table = torch.randn(4**dim, 2, generator=seeded(), dtype=torch.float64)
    np.testing.assert_allclose(
        interpolate(node_positions(dim, 3), dense_rows(dim, 3), 3, table), table, atol=1e-14
    )
    points = torch.rand(100, dim, generator=seeded(1), dtype=torch.float64) * 2 - 1
    ones = torch.ones(4**dim, 1, dtype=torch.float64)
    value, slope = interpolate_with_slope(points, dense_rows(dim, 3), 3, ones)
    np.testing.assert_allclose(value, 1, atol=1e-14)
    np.testing.assert_allclose(slope, 0, atol=1e-13)


@pytest.mark.parametrize("dim", DIMS)
def test_corners_name_the_cell_and_the_place_in_it(dim: int) -> None:
    points = torch.rand(100, dim, generator=seeded(2), dtype=torch.float64) * 2 - 1
    index, offset = corners(points, 3)
    assert bool(((offset >= 0) & (offset <= 1)).all())
    np.testing.assert_allclose(node_positions(dim, 3)[index] + offset * (2 / 3), points, atol=1e-14)
    assert corners(torch.ones(1, dim), 3)[1].tolist() == [[1.0] * dim]


@pytest.mark.parametrize("dim", DIMS)
def test_slope_is_reverse_forward_and_finite_difference(dim: int) -> None:
    rows, table = sparse_level(dim, 3, 2)
    points = torch.rand(40, dim, generator=seeded(3), dtype=torch.float64) * 1.9 - 0.95
    points = points[
        ((points + 1) * 1.5).frac().sub(0.5).abs().amax(dim=1) < 0.49
    ]  # a step must not leave the cell
    value, slope = interpolate_with_slope(points, rows, 3, table)
    assert torch.equal(value, interpolate(points, rows, 3, table))
    at = points.clone().requires_grad_(True)
    for channel in range(2):
        reverse = torch.autograd.grad(interpolate(at, rows, 3, table)[:, channel].sum(), at)[0]
        np.testing.assert_allclose(slope[:, channel], reverse, atol=1e-12)
    for axis in range(dim):
        step = torch.zeros(dim, dtype=torch.float64)
        step[axis] = 1e-4
        difference = interpolate(points + step, rows, 3, table) - interpolate(
            points - step, rows, 3, table
        )
        np.testing.assert_allclose(slope[:, :, axis], difference / 2e-4, atol=1e-8)
        with dual_level():
            tangent = (step * 1e4).expand_as(points).contiguous()
            forward = unpack_dual(interpolate(make_dual(points, tangent), rows, 3, table)).tangent
        assert forward is not None
        np.testing.assert_allclose(slope[:, :, axis], forward, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_gradients_of_first_and_second_order(dim: int) -> None:
    rows, table = sparse_level(dim, 2, 2)
    points = (
        torch.rand(4, dim, generator=seeded(6), dtype=torch.float64) * 0.8 + 0.1
    ).requires_grad_(True)
    table.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda p, t: interpolate(p, rows, 2, t), (points, table), check_forward_ad=True
    )
    assert torch.autograd.gradgradcheck(lambda p, t: interpolate(p, rows, 2, t), (points, table))
    assert torch.autograd.gradcheck(
        lambda p, t: interpolate_with_slope(p, rows, 2, t), (points, table)
    )


def test_a_missing_node_counts_as_zero() -> None:
    rows = torch.tensor([0, -1, 1], dtype=torch.int32)
    table = torch.tensor([[2.0], [4.0]])
    points = torch.tensor([[-1.0], [-0.75], [-0.5], [0.0], [0.5], [1.0]])
    assert interpolate(points, rows, 2, table)[:, 0].tolist() == [2.0, 1.5, 1.0, 0.0, 2.0, 4.0]
    assert interpolate_with_slope(points, rows, 2, table)[1].flatten().tolist() == [
        -2.0,
        -2.0,
        -2.0,
        4.0,
        4.0,
        4.0,
    ]
