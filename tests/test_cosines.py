"""The closed-form field: its basis is orthonormal, its fast and slow paths agree, and the kept
amplitudes are the best within the budget."""

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from nstr3d.fields.closed.cosinefit import fit_cosines
from nstr3d.fields.closed.cosines import CosineConfig, Cosines
from nstr3d.fields.closed.lapped import MATRIX_HOP, analyse, basis, blocks, resample, synthesise
from nstr3d.fields.closed.positions import pack, packed_size, unpack, unpacked_parts
from nstr3d.model.checkpoint import load, save
from nstr3d.training.fit import Fit
from nstr3d.types import Lattice

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)

SHAPES = [(1,), (2,), (7,), (300,), (1, 40), (40, 1), (1, 1), (3, 3), (5, 9), (33, 64)]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def everywhere(lattice: Lattice) -> torch.Tensor:
    return torch.from_numpy(lattice.points(np.arange(lattice.size)))


def values_of(field: Cosines, lattice: Lattice) -> np.ndarray:
    """`forward` at the points of ``lattice``, which spans the field's bounds."""
    return field(everywhere(lattice)).detach().numpy().reshape(*lattice.shape, field.out_dim)


@pytest.mark.parametrize("hop", [2, 4, 8, 64, 2 * MATRIX_HOP])
@pytest.mark.parametrize("length", [1, 2, 3, 255, 256, 257])
def test_synthesis_inverts_analysis(hop: int, length: int) -> None:
    values = np.random.default_rng(length).normal(size=(3, length))
    if length > 1:
        for smooth in (False, True):
            np.testing.assert_allclose(
                synthesise(analyse(values, hop, smooth), length, smooth), values, atol=1e-12
            )
    np.testing.assert_array_equal(synthesise(analyse(values[:, :1], 1), 1), values[:, :1])


@pytest.mark.parametrize("hop", [2, 8, 2 * MATRIX_HOP])
@pytest.mark.parametrize("smooth", [False, True])
def test_the_transform_is_orthonormal_and_made_of_the_basis(hop: int, smooth: bool) -> None:
    length, block = 4 * hop, 2  # block 2 covers [hop, 3 hop]
    impulses = analyse(np.eye(length), hop, smooth)[:, block]
    places = torch.arange(2 * hop, dtype=torch.float64) + 0.5
    functions = basis(places, hop, smooth).numpy()
    np.testing.assert_allclose(impulses[hop : 3 * hop], functions, atol=1e-12)
    np.testing.assert_allclose(impulses[:hop], 0, atol=1e-12)
    np.testing.assert_allclose(functions.T @ functions, np.eye(hop), atol=1e-12)
    # consecutive blocks are orthogonal
    np.testing.assert_allclose(functions[hop:].T @ functions[:hop], 0, atol=1e-12)


def test_analysis_keeps_the_energy_of_what_is_far_from_the_ends() -> None:
    values = np.zeros(200)
    values[20:180] = np.random.default_rng(0).normal(size=160)
    assert np.square(analyse(values, 8)).sum() == pytest.approx(np.square(values).sum(), rel=1e-12)


@pytest.mark.parametrize("factor", [1, 3])
def test_resampling_is_synthesis_in_between(factor: int) -> None:
    spectrum = analyse(np.random.default_rng(0).normal(size=(2, 50)), 8)
    fine = resample(spectrum, 50, factor)
    assert fine.shape == (2, 50 * factor)
    np.testing.assert_allclose(fine[:, factor // 2 :: factor], synthesise(spectrum, 50), atol=1e-12)


@pytest.mark.parametrize(("length", "hop"), [(0, 8), (5, 3), (5, 1), (5, 0), (5, -2)])
def test_impossible_hops_are_refused(length: int, hop: int) -> None:
    with pytest.raises(ValueError, match="even hop"):
        blocks(length, hop)


@given(st.integers(1, 9), st.integers(1, 400), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_positions_come_back_and_take_less_than_a_bitmap(
    rows: int, columns: int, density: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    kept = generator.random((rows, columns)) < density * generator.random((rows, 1))
    packed = pack(kept)
    assert len(packed) == packed_size(kept)
    np.testing.assert_array_equal(unpack(packed, rows, columns), np.flatnonzero(kept))
    assert len(packed) <= rows * (columns / 8 + (1 if columns < 256 else 2)) + 2


def test_looking_at_part_of_the_table_at_a_time_changes_nothing() -> None:
    kept = np.random.default_rng(0).random((7, 50)) < 0.3
    kept[2] = False
    whole = pack(kept)
    np.testing.assert_array_equal(pack(kept, part=100), whole)


def test_positions_are_counted_in_parts_in_less_memory_than_their_amplitudes() -> None:
    kept = np.random.default_rng(0).random((600, 4096)) < 0.25
    packed = pack(kept)
    for part in (3, 5000, 1 << 20):
        parts = list(unpacked_parts(packed, *kept.shape, part=part))
        np.testing.assert_array_equal(np.concatenate(parts), np.flatnonzero(kept))
    tracemalloc.start()
    total = sum(map(len, unpacked_parts(packed, *kept.shape, part=5000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == np.count_nonzero(kept)
    assert peak < 4 * total + (1 << 22)


def test_sparse_positions_take_few_bits() -> None:
    kept = np.random.default_rng(0).random((10, 10_000)) < 0.01
    entropy = -(0.01 * math.log2(0.01) + 0.99 * math.log2(0.99)) / 0.01
    assert packed_size(kept) * 8 / kept.sum() == pytest.approx(entropy, rel=0.08)


@pytest.mark.parametrize("cut", [0, 3, 12, -1])
def test_damaged_positions_are_refused(cut: int) -> None:
    packed = pack(np.random.default_rng(0).random((4, 300)) < 0.3)
    with pytest.raises(ValueError, match="positions"):
        unpack(packed[:cut], 4, 300)
    with pytest.raises(ValueError, match="positions"):
        unpack(np.full_like(packed, 255), 4, 300)
    with pytest.raises(ValueError, match="positions are int64 of shape"):
        unpack(packed.astype(np.int64), 4, 300)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_with_room_for_everything_the_samples_come_back(
    shape: tuple[int, ...], channels: int
) -> None:
    values = noise(*shape, channels)
    field = fit_cosines(values, 10**6)
    np.testing.assert_allclose(field.raster(), values, atol=5e-6)
    np.testing.assert_allclose(values_of(field, Lattice(shape)), values, atol=5e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_fast_path_says_what_forward_says(shape: tuple[int, ...]) -> None:
    field = fit_cosines(noise(*shape, 2), 30 + math.prod(shape) // 2)
    for factor in (1, 4):
        fine = Lattice(tuple(n * factor for n in shape))
        np.testing.assert_allclose(field.raster(factor), values_of(field, fine), atol=5e-6)


def test_what_is_kept_is_the_largest_within_the_budget() -> None:
    values = noise(64, 48, 3)
    for budget in (100, 1000, 5000):
        field = fit_cosines(values, budget, hops=[8])
        assert 0.99 * budget - 4 <= field.stored_parameters <= budget
        whole = fit_cosines(values, 10**6, hops=[8]).table()
        kept = field.table()
        chosen = kept != 0
        np.testing.assert_array_equal(kept[chosen], whole[chosen])
        assert np.abs(kept[chosen]).min() >= np.abs(whole[~chosen]).max()


def test_more_parameters_are_never_worse_and_the_error_is_the_lost_energy() -> None:
    inner = np.zeros((96, 96, 1), np.float32)
    inner[20:-20, 20:-20] = noise(56, 56, 1)
    inner -= inner.mean()
    errors = []
    for budget in (300, 1000, 2000, 3000):
        field = fit_cosines(inner, budget, hops=[8])
        errors.append(float(np.square(field.raster() - inner).sum()))
        lost_energy = (
            np.square(fit_cosines(inner, 10**6, hops=[8]).table()).sum()
            - np.square(field.table()).sum()
        )
        assert errors[-1] == pytest.approx(lost_energy, rel=1e-2)
    assert errors == sorted(errors, reverse=True)


def test_a_constant_takes_next_to_nothing() -> None:
    field = fit_cosines(np.full((20, 30, 3), 0.25, np.float32), 600)
    assert field.parameter_count == 0
    np.testing.assert_allclose(field.raster(), 0.25)
    np.testing.assert_allclose(values_of(field, Lattice((20, 30))), 0.25)


def test_the_hop_that_does_best_is_taken() -> None:
    clicks = np.zeros((2400, 1), np.float32)
    clicks[100::211] = 1
    tone = np.sin(2 * math.pi * 0.1237 * np.arange(2400, dtype=np.float32))[:, None]
    assert fit_cosines(clicks, 400, hops=[8, 256]).config.hops == (8,)
    assert fit_cosines(tone, 400, hops=[8, 256]).config.hops == (256,)


def test_a_tone_is_fitted_to_more_than_80_db() -> None:
    time = np.arange(22_050) / 22_050
    tone = (0.5 * np.sin(2 * math.pi * 440 * time))[:, None].astype(np.float32)
    field = fit_cosines(tone, 3000)
    error = field.raster() - tone
    assert 10 * math.log10(np.square(tone).mean() / np.square(error, dtype=np.float64).mean()) > 80


def test_derivatives_in_points_and_amplitudes() -> None:
    field = fit_cosines(noise(9, 12, 2), 150, hops=[4]).double()
    points = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    points.requires_grad_(True)
    assert gradcheck(field, (points,), check_forward_ad=True)
    amplitudes = field.amplitudes.detach().clone().requires_grad_(True)
    assert gradcheck(
        lambda a: torch.func.functional_call(field, {"amplitudes": a}, (points.detach(),)),
        (amplitudes,),
    )


def test_the_field_is_continuous_and_has_no_waves_outside() -> None:
    field = fit_cosines(noise(32, 16, 1), 10**6, hops=[8]).double()
    # points where blocks begin
    edges = torch.tensor([[0.0, 0.13], [-0.5, 0.25], [0.5, -0.25]], dtype=torch.float64)
    step = torch.tensor([[1e-9, 1e-9]], dtype=torch.float64)
    torch.testing.assert_close(field(edges - step), field(edges + step), atol=1e-6, rtol=0)
    outside = torch.tensor([[0.0, 0.6], [0.0, -0.51], [1.2, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(field(outside), field.offset.double().expand(3, 1))


def test_it_can_be_trained_further() -> None:
    values = noise(16, 16, 1)
    field = fit_cosines(values, 160)
    assert [p is field.amplitudes for group in field.rates() for p in group["params"]] == [True]
    optimizer = torch.optim.SGD(field.parameters(), lr=0.5)
    target = torch.from_numpy(values.reshape(-1, 1))
    for _ in range(2):
        loss = (field(everywhere(Lattice((16, 16))).float()) - target).square().sum() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert bool(field.amplitudes.grad.isfinite().all())
    after = (field(everywhere(Lattice((16, 16))).float()) - target).square().sum() / 2
    assert float(after.detach()) <= float(loss.detach())


def test_a_saved_field_comes_back_and_a_damaged_one_is_refused(tmp_path) -> None:
    field = fit_cosines(noise(20, 31, 3), 500)
    lattice = field.config.lattice
    save(tmp_path / "a.safetensors", Fit(field, lattice.frame, lattice.bounds, math.inf))
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.field.config == field.config
    np.testing.assert_array_equal(loaded.field.raster(), field.raster())
    assert (loaded.frame, loaded.bounds) == (lattice.frame, lattice.bounds)
    state = field.state_dict()
    with pytest.raises(ValueError, match="positions is missing"):
        field.config.restore(2, 3, {})
    with pytest.raises(ValueError, match="positions"):
        field.config.restore(2, 3, state | {"positions": state["positions"][:-3]})


def test_a_field_can_start_from_zero_with_every_amplitude() -> None:
    field = CosineConfig((6, 10), (4, 8)).build(2, 3)
    assert field.parameter_count == 3 * (3 * 4) * (3 * 8)
    np.testing.assert_array_equal(field.raster(), 0)


@pytest.mark.parametrize(
    "bad",
    [{"shape": (4, 4), "hops": (2,)}, {"shape": (4,), "hops": (3,)}, {"shape": (0,), "hops": (2,)}],
)
def test_impossible_configs_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="hop"):
        CosineConfig(**bad)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be built over 2 dimensions"):
        CosineConfig((4,), (2,)).build(2, 1)
    with pytest.raises(ValueError, match="not finite"):
        fit_cosines(np.full((4, 4, 1), np.nan, np.float32), 100)
    with pytest.raises(ValueError, match="too small"):
        fit_cosines(noise(64, 64, 3), 13)
