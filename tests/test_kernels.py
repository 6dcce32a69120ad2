"""Interpolation by B-splines of order 1 and 2: the fused kernel against plain torch, and both
against polynomials and autograd."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from nstr3d.kernels.field import interpolate as module
from nstr3d.kernels.field.interpolate import (
    NodeGrid,
    corners,
    gather,
    interpolate,
    interpolate_with_slope,
    spectrum_with_slope,
    tap_weights,
)

# torch's forward mode calls a function that torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)

DIMS, ORDERS = [1, 2, 3, 4], [1, 2]


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores torch's thread count after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def node_positions(dim: int, grid: NodeGrid) -> Tensor:
    """The positions ``(edge^dim, dim)`` of the nodes over [-1, 1]^dim, last axis fastest. The nodes
    are corners of cells for order 1; for order 2 they are centres of cells and of one layer of
    cells outside the box."""
    outside = (grid.order - 1) / grid.resolution
    axis = torch.linspace(-1 - outside, 1 + outside, grid.edge, dtype=torch.float64)
    return torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij"), dim=-1).reshape(-1, dim)


def dense_grid(dim: int, resolution: int, order: int = 1) -> NodeGrid:
    rows = torch.arange((resolution + order) ** dim, dtype=torch.int32)
    return NodeGrid(rows, resolution, order)


def sparse_level(
    dim: int, resolution: int, channels: int, order: int = 1, seed: int = 1
) -> tuple[NodeGrid, Tensor]:
    """A grid that stores about 70% of its nodes, and a float64 table for the stored nodes."""
    stored = torch.rand((resolution + order) ** dim, generator=seeded(seed)) > 0.3
    rows = torch.where(stored, stored.cumsum(0) - 1, -1).int()
    return NodeGrid(rows, resolution, order), torch.randn(
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


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("channels", [1, 2, 7, 22])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("threads")
def test_fused_values_and_table_gradients_equal_double_precision(
    order: int, channels: int, count: int
) -> None:
    torch.set_num_threads(count)
    points = awkward_points(5)
    grid, exact_table = sparse_level(3, 5, channels, order)
    seed = torch.randn(len(points), channels, generator=seeded(5))
    exact_table.requires_grad_(True)
    exact = interpolate(points.double(), grid, exact_table)
    exact.backward(seed.double())
    table = exact_table.detach().float().requires_grad_(True)
    fused = gather(points, grid, table)
    assert type(fused.grad_fn).__name__ == "_FusedGatherBackward"
    fused.backward(seed)
    assert exact_table.grad is not None
    np.testing.assert_allclose(fused.detach(), exact.detach(), atol=2e-5)
    np.testing.assert_allclose(table.grad, exact_table.grad, atol=2e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("channels", [1, 9])
def test_fused_values_and_slopes_equal_double_precision(order: int, channels: int) -> None:
    points = awkward_points(5)
    grid, table = sparse_level(3, 5, channels, order)
    exact = interpolate_with_slope(points.double(), grid, table)
    single = table.float().requires_grad_(True)
    with torch.no_grad():
        actual = spectrum_with_slope(points, grid, single)
    for one, other, size in zip(actual, exact, (1, 5), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=2e-5 * size)
    # A derivative in the table or in the points takes the plain form.
    assert spectrum_with_slope(points, grid, single)[1].requires_grad
    moving = points.clone().requires_grad_(True)
    assert spectrum_with_slope(moving, grid, table.float())[1].requires_grad


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.usefixtures("threads")
def test_more_threads_than_the_machine_has_give_the_same_values(order: int) -> None:
    grid, table = sparse_level(3, 4, 3, order)
    points, table = awkward_points(4), table.float()
    torch.set_num_threads(1)
    one = gather(points, grid, table)
    torch.set_num_threads(64)
    np.testing.assert_array_equal(gather(points, grid, table), one)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.usefixtures("threads")
def test_fused_table_gradient_repeats_bit_for_bit(order: int) -> None:
    torch.set_num_threads(2)
    points, grid = torch.rand(5000, 3, generator=seeded()) * 2 - 1, dense_grid(3, 2, order)
    table = torch.randn(grid.edge**3, 4, generator=seeded(1)).requires_grad_(True)
    actual = [
        torch.autograd.grad(gather(points, grid, table).square().sum(), table)[0] for _ in range(3)
    ]
    assert torch.equal(actual[0], actual[1])
    assert torch.equal(actual[0], actual[2])


@pytest.mark.parametrize("order", ORDERS)
def test_an_empty_batch_gives_no_values_and_a_zero_gradient(order: int) -> None:
    grid, table = sparse_level(3, 3, 4, order)
    weights = table.float().requires_grad_(True)
    values = gather(torch.zeros(0, 3), grid, weights)
    assert values.shape == (0, 4)
    values.sum().backward()
    assert weights.grad is not None
    assert not weights.grad.any()


def test_points_and_table_need_not_be_contiguous() -> None:
    grid, table = sparse_level(3, 4, 6)
    points = awkward_points(4)
    spread = torch.cat([points, points], dim=1)[:, :3]
    columns = table.float().T.contiguous().T
    assert not spread.is_contiguous()
    assert not columns.is_contiguous()
    np.testing.assert_array_equal(
        gather(spread, grid, columns), gather(points, grid, table.float())
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grad_enabled", [True, False])
def test_gather_has_no_derivative_path_left_out(grad_enabled: bool, order: int) -> None:
    grid, table = sparse_level(3, 4, 2, order)
    points, table = awkward_points(4), table.float()
    expected = interpolate_with_slope(points, grid, table)[1]
    with torch.set_grad_enabled(grad_enabled), dual_level():
        for axis in range(3):
            tangent = torch.zeros_like(points)
            tangent[:, axis] = 1
            actual = unpack_dual(gather(make_dual(points, tangent), grid, table)).tangent
            assert actual is not None
            np.testing.assert_allclose(actual, expected[:, :, axis], atol=1e-4)
    at = points.clone().requires_grad_(True)
    actual = torch.autograd.grad(gather(at, grid, table)[:, 1].sum(), at)[0]
    np.testing.assert_allclose(actual, expected[:, 1], atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_gather_under_no_grad_answers_for_points_that_require_it(order: int) -> None:
    grid, table = sparse_level(3, 4, 2, order)
    points = awkward_points(4).requires_grad_(True)
    with torch.no_grad():
        actual = gather(points, grid, table.float())
    np.testing.assert_allclose(
        actual, interpolate(points.detach().double(), grid, table), atol=2e-5
    )


@pytest.mark.parametrize("order", ORDERS)
def test_gather_without_numba_is_the_plain_form(
    order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, table = sparse_level(3, 4, 2, order)
    monkeypatch.setattr(module, "numba_found", lambda: False)
    points = awkward_points(4)
    assert torch.equal(
        gather(points, grid, table.float()), interpolate(points, grid, table.float())
    )


@pytest.mark.parametrize("order", ORDERS)
def test_the_weights_along_an_axis_are_the_convolved_boxes(order: int) -> None:
    """The weights follow the B-spline recursion (de Boor, 1978) with knots at the integers."""

    def spline(x: Tensor, degree: int) -> Tensor:
        if degree == 0:
            return ((x >= 0) & (x < 1)).to(x)
        previous = degree - 1
        return (x * spline(x, previous) + (degree + 1 - x) * spline(x - 1, previous)) / degree

    offset = torch.rand(100, generator=seeded(4), dtype=torch.float64)
    for place, weight in enumerate(tap_weights(offset, order)):
        np.testing.assert_allclose(weight, spline(offset + order - place, order), atol=1e-14)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dim", DIMS)
def test_polynomials_of_the_order_are_reproduced_inside_and_outside(dim: int, order: int) -> None:
    """The polynomials have degree ``order`` in every coordinate. The coefficients of order 2 are a
    polynomial's values at the nodes minus an eighth of its second differences (de Boor, 1978). For
    x^2 and nodes h apart they are x^2 - h^2 / 4."""
    coefficients = torch.randn((order + 1,) * dim, generator=seeded(dim), dtype=torch.float64)

    def polynomial(x: Tensor, less: float) -> Tensor:
        """A weighted sum of all products that have one factor 1, x or x^2 - ``less`` for each
        coordinate."""
        total = torch.zeros(len(x), dtype=torch.float64)
        for powers in itertools.product(range(order + 1), repeat=dim):
            factors = [x[:, axis] ** p - (less if p == 2 else 0) for axis, p in enumerate(powers)]
            total = total + coefficients[powers] * torch.stack(factors).prod(dim=0)
        return total

    grid, half = dense_grid(dim, 3, order), 1 / 3
    table = polynomial(node_positions(dim, grid), half**2)[:, None]
    points = torch.rand(200, dim, generator=seeded(9), dtype=torch.float64) * 2.2 - 1.1
    actual = interpolate(points, grid, table)[:, 0]
    np.testing.assert_allclose(actual, polynomial(points, 0.0), atol=1e-12)


@pytest.mark.parametrize("dim", DIMS)
def test_node_values_are_met_by_order_one(dim: int) -> None:
    table = torch.randn(4**dim, 2, generator=seeded(), dtype=torch.float64)
    grid = dense_grid(dim, 3)
    np.testing.assert_allclose(
        interpolate(node_positions(dim, grid), grid, table), table, atol=1e-14
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dim", DIMS)
def test_the_weights_sum_to_one(dim: int, order: int) -> None:
    points = torch.rand(100, dim, generator=seeded(1), dtype=torch.float64) * 2 - 1
    grid = dense_grid(dim, 3, order)
    ones = torch.ones(grid.edge**dim, 1, dtype=torch.float64)
    value, slope = interpolate_with_slope(points, grid, ones)
    np.testing.assert_allclose(value, 1, atol=1e-14)
    np.testing.assert_allclose(slope, 0, atol=1e-13)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dim", DIMS)
def test_corners_name_the_cell_and_the_place_in_it(dim: int, order: int) -> None:
    points = torch.rand(100, dim, generator=seeded(2), dtype=torch.float64) * 2 - 1
    grid = dense_grid(dim, 3, order)
    index, offset = corners(points, grid)
    assert bool(((offset >= 0) & (offset <= 1)).all())
    low = node_positions(dim, grid)[index] + (order - 1) / 3
    np.testing.assert_allclose(low + offset * (2 / 3), points, atol=1e-14)
    assert corners(torch.ones(1, dim), grid)[1].tolist() == [[1.0] * dim]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dim", DIMS)
def test_slope_is_reverse_forward_and_finite_difference(dim: int, order: int) -> None:
    grid, table = sparse_level(dim, 3, 2, order)
    points = torch.rand(40, dim, generator=seeded(3), dtype=torch.float64) * 1.9 - 0.95
    # A step must not leave the cell.
    points = points[((points + 1) * 1.5).frac().sub(0.5).abs().amax(dim=1) < 0.49]
    value, slope = interpolate_with_slope(points, grid, table)
    assert torch.equal(value, interpolate(points, grid, table))
    at = points.clone().requires_grad_(True)
    for channel in range(2):
        reverse = torch.autograd.grad(interpolate(at, grid, table)[:, channel].sum(), at)[0]
        np.testing.assert_allclose(slope[:, channel], reverse, atol=1e-12)
    for axis in range(dim):
        step = torch.zeros(dim, dtype=torch.float64)
        step[axis] = 1e-4
        difference = interpolate(points + step, grid, table) - interpolate(
            points - step, grid, table
        )
        np.testing.assert_allclose(slope[:, :, axis], difference / 2e-4, atol=1e-8)
        with dual_level():
            tangent = (step * 1e4).expand_as(points).contiguous()
            forward = unpack_dual(interpolate(make_dual(points, tangent), grid, table)).tangent
        assert forward is not None
        np.testing.assert_allclose(slope[:, :, axis], forward, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dim", DIMS)
def test_the_slope_is_continuous_across_faces_for_order_two_only(dim: int, order: int) -> None:
    grid, table = sparse_level(dim, 4, 2, order)
    for axis in range(dim):
        points = torch.rand(100, dim, generator=seeded(7), dtype=torch.float64) * 2 - 1
        face = torch.randint(1, 4, (100,), generator=seeded(8))
        step = torch.zeros(dim, dtype=torch.float64)
        step[axis] = 1e-13
        points[:, axis] = face / 2 - 1
        sides = [interpolate_with_slope(points + sign * step, grid, table) for sign in (-1, 1)]
        np.testing.assert_allclose(sides[0][0], sides[1][0], atol=1e-11)
        jump = (sides[0][1] - sides[1][1]).abs().amax(dim=(1, 2))
        if order == 2:
            assert float(jump.max()) < 1e-11
        else:
            assert float(jump.median()) > 0.1
        # Along the face there is no jump for either order.
        others = [other for other in range(dim) if other != axis]
        np.testing.assert_allclose(sides[0][1][..., others], sides[1][1][..., others], atol=1e-11)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_gradients_of_first_and_second_order(dim: int, order: int) -> None:
    grid, table = sparse_level(dim, 2, 2, order)
    points = (
        torch.rand(4, dim, generator=seeded(6), dtype=torch.float64) * 0.8 + 0.1
    ).requires_grad_(True)
    table.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda p, t: interpolate(p, grid, t), (points, table), check_forward_ad=True
    )
    assert torch.autograd.gradgradcheck(lambda p, t: interpolate(p, grid, t), (points, table))
    assert torch.autograd.gradcheck(
        lambda p, t: interpolate_with_slope(p, grid, t), (points, table)
    )


def test_a_missing_node_counts_as_zero() -> None:
    grid = NodeGrid(torch.tensor([0, -1, 1], dtype=torch.int32), 2)
    table = torch.tensor([[2.0], [4.0]])
    points = torch.tensor([[-1.0], [-0.75], [-0.5], [0.0], [0.5], [1.0]])
    assert interpolate(points, grid, table)[:, 0].tolist() == [2.0, 1.5, 1.0, 0.0, 2.0, 4.0]
    slopes = interpolate_with_slope(points, grid, table)[1].flatten().tolist()
    assert slopes == [-2.0, -2.0, -2.0, 4.0, 4.0, 4.0]


def test_a_missing_node_of_order_two_counts_as_zero() -> None:
    grid = NodeGrid(torch.tensor([-1, 0, -1, 1], dtype=torch.int32), 2, order=2)
    table = torch.tensor([[2.0], [4.0]])
    points = torch.tensor([[-1.0], [-0.5], [0.0], [0.5], [1.0]])
    assert interpolate(points, grid, table)[:, 0].tolist() == [1.0, 1.5, 1.0, 0.75, 2.0]
    slopes = interpolate_with_slope(points, grid, table)[1].flatten().tolist()
    assert slopes == [2.0, 0.0, -2.0, 1.0, 4.0]
