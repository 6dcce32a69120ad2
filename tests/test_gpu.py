"""The Triton kernels against plain torch in double precision, on a GPU if there is one and
otherwise under Triton's interpreter."""

import os

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads this when the kernels are defined

from test_fused import BOTH, DEFAULT, MIXED, QUADRATIC, learned, leaves, model, points_of

from nstr3d.kernels.field.fused import evaluate
from nstr3d.kernels.field.gpu import fused_on_gpu

WITH_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def moved(parts, weights):
    """Copies of ``parts`` and ``weights`` on the device that the kernels run on."""
    from dataclasses import replace

    def there(tensor):
        return None if tensor is None else tensor.detach().to(DEVICE).requires_grad_()

    parts = [
        replace(
            p,
            grid=p.grid._replace(rows=p.grid.rows.to(DEVICE)),
            table=there(p.table),
            omega=there(p.omega),
            phase=there(p.phase),
        )
        for p in parts
    ]
    return parts, weights and type(weights)(*map(there, weights[:4]), weights.sharpness)


@pytest.mark.parametrize(
    ("levels", "hidden", "outputs"),
    [(DEFAULT, 64, 1), (MIXED, 20, 3), (MIXED, None, 14), (QUADRATIC, 24, 2), (BOTH, 16, 1)],
)
@pytest.mark.parametrize("count", [0, 70])
def test_triton_values_and_gradients_equal_double_precision(levels, hidden, outputs, count) -> None:
    parts, weights = model(levels, hidden, outputs)
    exact, exact_weights = learned(parts, weights, torch.float64)
    mine, my_weights = moved(*learned(parts, weights, torch.float32))
    points = points_of(count)
    truth = evaluate(points.double(), exact, exact_weights)
    seed = torch.randn(truth.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    truth.backward(seed)
    values = fused_on_gpu(points.to(DEVICE), mine, my_weights, precision="ieee")
    values.backward(seed.float().to(DEVICE))
    np.testing.assert_allclose(values.detach().cpu(), truth.detach(), atol=2e-4)
    for actual, expected in zip(
        leaves(mine, my_weights), leaves(exact, exact_weights), strict=True
    ):
        assert actual.grad is not None
        assert expected.grad is not None
        np.testing.assert_allclose(
            actual.grad.cpu(), expected.grad, atol=5e-5 * max(1.0, float(expected.grad.abs().max()))
        )


@pytest.mark.parametrize("levels", [MIXED, BOTH])
@pytest.mark.parametrize("count", [1, 129])
def test_counts_about_a_block_and_points_on_faces_equal_double_precision(levels, count) -> None:
    # Corners, edges and faces of cells and of the box, with a block's last point among them.
    parts, weights = model(levels, 7, 2)
    exact, exact_weights = learned(parts, weights, torch.float64)
    mine, my_weights = moved(*learned(parts, weights, torch.float32))
    places = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    points = torch.cartesian_prod(places, places, places).repeat(2, 1)[-count:].contiguous()
    truth = evaluate(points.double(), exact, exact_weights)
    truth.sum().backward()
    values = fused_on_gpu(points.to(DEVICE), mine, my_weights)
    values.sum().backward()
    np.testing.assert_allclose(values.detach().cpu(), truth.detach(), atol=2e-4)
    for actual, expected in zip(
        leaves(mine, my_weights), leaves(exact, exact_weights), strict=True
    ):
        scale = max(1.0, float(expected.grad.abs().max()))
        np.testing.assert_allclose(actual.grad.cpu(), expected.grad, atol=5e-5 * scale)


# Triton's interpreter cannot multiply in bf16.
BF16 = pytest.param("bf16", 3e-2, marks=[pytest.mark.gpu, WITH_GPU])


@pytest.mark.parametrize(("precision", "error"), [BF16, ("tf32", 3e-3)])
def test_narrow_products_lose_only_their_digits(precision: str, error: float) -> None:
    parts, weights = model(DEFAULT, 64, 1)
    mine, my_weights = moved(*learned(parts, weights, torch.float32))
    points = points_of(70)
    with torch.no_grad():
        truth = evaluate(points.double(), parts, weights)
        values = fused_on_gpu(points.to(DEVICE), mine, my_weights, precision).cpu()
    assert float((values - truth).abs().max()) < error * float(truth.abs().max())


@pytest.mark.gpu
@WITH_GPU
@pytest.mark.parametrize("count", [1, 3])
def test_captured_steps_train_as_eager_ones(count: int) -> None:
    from nstr3d.fields.nstr import NstrConfig
    from nstr3d.kernels.step.adam import AdamW
    from nstr3d.training.graphs import CapturedSteps
    from nstr3d.training.losses import SdfObjective
    from nstr3d.types import Samples

    points = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    radii = [0.4 + 0.1 * index for index in range(count)]
    batches = [
        Samples(points.cuda(), (points.norm(dim=1, keepdim=True) - radius).cuda())
        for radius in radii
    ]
    fields, twins = ([NstrConfig().build(3, 1).cuda() for _ in range(count)] for _ in range(2))
    optimizer = AdamW([group for field in fields for group in field.rates()], (0.9, 0.99))
    captured = CapturedSteps(fields, SdfObjective(), batches, optimizer)
    optimizers = [
        torch.optim.AdamW(t.rates(), betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0, fused=True)
        for t in twins
    ]
    for _ in range(20):
        losses = captured.step(batches)
        for index, (twin, batch, optimizer) in enumerate(zip(twins, batches, optimizers)):
            optimizer.zero_grad()
            loss = SdfObjective()(twin, batch, 0.0)
            loss.backward()
            optimizer.step()
            torch.testing.assert_close(losses[index], loss.detach(), atol=1e-3, rtol=1e-2)
    for field, twin in zip(fields, twins):
        for one, other in zip(field.parameters(), twin.parameters()):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-2)


@pytest.mark.gpu
@WITH_GPU
def test_a_captured_training_goes_on_as_if_never_stopped() -> None:
    from nstr3d.fields.nstr import NstrConfig
    from nstr3d.kernels.field.fused import triton_kernels
    from nstr3d.training.fit import FitConfig, fit_steps, training_state
    from nstr3d.training.losses import SdfObjective
    from nstr3d.types import Samples

    points = torch.rand(8192, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pool, config = (
        Samples(points, points.norm(dim=1, keepdim=True) - 0.6),
        FitConfig(steps=60, batch=1024, pool=8192),
    )
    whole, half, resumed = (
        NstrConfig().build(3, 1, generator=torch.Generator().manual_seed(1)).cuda()
        for _ in range(3)
    )
    with triton_kernels():
        losses = [progress.loss for progress in fit_steps(whole, pool, SdfObjective(), config)]
        assert losses[-1] < 0.1
        for progress in fit_steps(half, pool, SdfObjective(), config):
            if progress.step == 30:
                state = training_state(progress)
                break
        resumed.load_state_dict(half.state_dict())
        assert len(list(fit_steps(resumed, pool, SdfObjective(), config, state))) == 30
    for one, other in zip(resumed.parameters(), whole.parameters()):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-2)


@WITH_GPU
@pytest.mark.gpu
def test_the_picture_is_that_of_the_cpu():
    from nstr3d.geometry.shapes.primitives import torus
    from nstr3d.render.camera import Camera
    from nstr3d.render.traced import render

    shape = torus()
    camera = Camera.around(shape.bounds, width=96, height=96)
    difference = np.abs(render(shape, camera, device="cuda") - render(shape, camera))
    # A ray at the silhouette may hit the surface on one device and miss it on the other.
    assert np.quantile(difference, 0.99) < 0.02
