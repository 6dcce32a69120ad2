"""The local spectrum: wave forms against their formulas, sparse grids against dense ones."""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nstr3d.fields.level import Level, LevelConfig, stored_nodes
from nstr3d.fields.vicinity import surface_lattice
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves, draw_frequencies
from nstr3d.types import Mesh

FORMS = [AmplitudeWaves(3), ComplexWaves(3), PhaseWaves(3)]
RESOLUTION = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(count: int = 60, dim: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, dim, generator=seeded(seed), dtype=torch.float64) * 2 - 1


def dense_level(config: LevelConfig, dim: int = 3, seed: int = 0) -> Level:
    """A level that stores every node, in double precision, with phases that are not zero."""
    stored = np.ones((config.resolution + 1) ** dim, bool)
    level = Level(config, dim, np.packbits(stored), seeded(seed)).double()
    with torch.no_grad():
        level.table.copy_(torch.randn(level.table.shape, generator=seeded(seed + 1)) * 0.3)
    return level


def naive_spectrum(level: Level, point: np.ndarray) -> np.ndarray:
    """S at one point ``(channels,)``: a loop over the corners of its cell."""
    resolution, table = level.config.resolution, level.table.detach().numpy()
    scaled = (point + 1) * resolution / 2
    cell = np.minimum(np.floor(scaled).astype(int), resolution - 1)
    total = np.zeros(table.shape[1])
    for corner in np.ndindex(*(2,) * len(point)):
        weight = np.prod([u if bit else 1 - u for u, bit in zip(scaled - cell, corner)])
        total += weight * table[np.ravel_multi_index(cell + corner, (resolution + 1,) * len(point))]
    return total


@pytest.mark.parametrize("waves", FORMS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_features_are_the_closed_formula(
    waves: AmplitudeWaves | ComplexWaves | PhaseWaves, dim: int
) -> None:
    level = dense_level(LevelConfig(RESOLUTION, plain=2, waves=waves), dim)
    omega, phase = level.omega.numpy(), level.phase.numpy()  # type: ignore[union-attr]
    points = draw(20, dim)
    actual = level(points).detach().numpy()
    assert actual.shape == (20, 5)
    for point, features in zip(points.numpy(), actual):
        spectrum = naive_spectrum(level, point)
        np.testing.assert_allclose(features[:2], spectrum[:2], atol=1e-13)
        for k in range(3):
            carrier = omega[k] @ point + phase[k]
            first = spectrum[2 + k]
            if isinstance(waves, AmplitudeWaves):
                expected = first * math.sin(carrier)
            elif isinstance(waves, ComplexWaves):
                expected = first * math.sin(carrier) + spectrum[5 + k] * math.cos(carrier)
            else:
                expected = first * math.sin(carrier + waves.radians * spectrum[5 + k])
            np.testing.assert_allclose(features[2 + k], expected, atol=1e-11)


def test_complex_waves_without_imaginary_part_are_amplitude_waves() -> None:
    amplitude, phase = draw(dim=5), draw(dim=5, seed=1) * 10
    real = ComplexWaves(5).features(
        torch.cat([amplitude, torch.zeros_like(amplitude)], dim=1), phase
    )
    assert torch.equal(real, AmplitudeWaves(5).features(amplitude, phase))
    imaginary = ComplexWaves(5).features(
        torch.cat([torch.zeros_like(amplitude), amplitude], dim=1), phase
    )
    np.testing.assert_allclose(
        imaginary, AmplitudeWaves(5).features(amplitude, phase + math.pi / 2), atol=1e-14
    )


def test_phase_waves_with_a_constant_phase_are_shifted_amplitude_waves() -> None:
    waves, amplitude, phase = PhaseWaves(5), draw(dim=5), draw(dim=5, seed=1) * 10
    shift = torch.full_like(amplitude, 0.13)
    expected = AmplitudeWaves(5).features(amplitude, phase + waves.radians * 0.13)
    np.testing.assert_allclose(
        waves.features(torch.cat([amplitude, shift], dim=1), phase), expected, atol=1e-13
    )


@pytest.mark.parametrize("waves", FORMS)
def test_starting_spectra_fit_their_form_and_start_without_phase(
    waves: AmplitudeWaves | ComplexWaves | PhaseWaves,
) -> None:
    start = waves.initial(1000, seeded())
    assert start.shape == (1000, 3 * waves.channels_per_wave)
    assert torch.equal(start, waves.initial(1000, seeded()))
    assert not torch.equal(start, waves.initial(1000, seeded(1)))
    spread = start.std(dim=0) > 0
    assert spread.tolist() == [True] * 3 + [not isinstance(waves, PhaseWaves)] * (len(spread) - 3)
    assert isinstance(waves, PhaseWaves) <= (not start[:, 3:].any())


@given(
    low=st.floats(0, 2, width=16),
    width=st.floats(0, 2, width=16),
    resolution=st.integers(1, 64),
    dim=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_frequencies_stay_in_their_band(
    low: float, width: float, resolution: int, dim: int
) -> None:
    omega, phase = draw_frequencies(32, dim, (low, low + width), resolution, seeded())
    nyquist = math.pi * resolution / 2
    length = omega.double().norm(dim=1)
    assert omega.shape == (32, dim)
    assert float(length.min()) >= low * nyquist * (1 - 1e-5)
    assert float(length.max()) <= (low + width) * nyquist * (1 + 1e-5)
    assert bool(((phase >= 0) & (phase <= 2 * math.pi + 1e-6)).all())


def test_frequencies_fill_their_band_and_every_direction() -> None:
    omega, _ = draw_frequencies(4000, 3, (0.5, 1.0), 8, seeded())
    length = omega.norm(dim=1) / (4 * math.pi)
    np.testing.assert_allclose(np.quantile(length, [0.1, 0.5, 0.9]), [0.55, 0.75, 0.95], atol=0.02)
    np.testing.assert_allclose((omega / omega.norm(dim=1, keepdim=True)).mean(dim=0), 0, atol=0.05)


@pytest.mark.parametrize("learned", [True, False])
def test_frequencies_are_learned_only_when_asked(learned: bool) -> None:
    config = LevelConfig(2, waves=AmplitudeWaves(3, learned=learned))
    level = Level(config, 3, np.packbits(np.ones(27, bool)), seeded())
    names = {name for name, _ in level.named_parameters()}
    assert names == ({"table", "omega", "phase"} if learned else {"table"})
    assert {"table", "omega", "phase", "nodes"} == set(level.state_dict())


def cells_of(points: np.ndarray, resolution: int) -> np.ndarray:
    return np.clip(np.floor((points + 1) * resolution / 2).astype(int), 0, resolution - 1)


def holds_all_corners(stored: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Whether each cell ``(n, dim)`` has all of its nodes in ``stored``, an array with one axis per
    dimension."""
    actual = np.ones(len(cells), bool)
    for corner in np.ndindex(*(2,) * cells.shape[1]):
        actual &= stored[tuple((cells + corner).T)]
    return actual


@given(seed=st.integers(0, 10_000), resolution=st.sampled_from([3, 8, 16]))
@settings(max_examples=25, deadline=None)
def test_stored_nodes_cover_every_cell_that_a_triangle_enters(seed: int, resolution: int) -> None:
    generator = np.random.default_rng(seed)
    mesh = Mesh(generator.uniform(-0.95, 0.95, (3, 3)), np.array([[0, 1, 2]]))
    stored = stored_nodes(LevelConfig(resolution, plain=1), 3, mesh).reshape((resolution + 1,) * 3)
    dense = generator.dirichlet(np.ones(3), 20_000) @ mesh.vertices
    cells = cells_of(dense, resolution)
    # Lattice triangles have sides of at most half a cell, so every surface point is within 0.5 /
    # sqrt(3) cells of a corner.
    offset = (dense + 1) * resolution / 2 - cells
    deep = np.minimum(offset, 1 - offset).min(axis=1) > 0.5 / math.sqrt(3) + 1e-9
    assert holds_all_corners(stored, cells[deep]).all()
    assert holds_all_corners(stored, cells_of(mesh.vertices, resolution)).all()
    # No node is superfluous: each belongs to a cell that contains a part of the triangle.
    touched = np.zeros((resolution,) * 3, bool)
    touched[tuple(cells_of(surface_lattice(mesh, 0.2 / resolution), resolution).T)] = True
    assert all(
        touched[tuple(slice(max(i - 1, 0), i + 1) for i in node)].any()
        for node in np.argwhere(stored)
    )


def test_stored_nodes_of_points_are_the_corners_of_their_cells() -> None:
    points = draw(12, 2).numpy()
    stored = stored_nodes(LevelConfig(6, plain=1), 2, points).reshape(7, 7)
    expected = np.zeros((7, 7), bool)
    for x, y in cells_of(points, 6):
        expected[x : x + 2, y : y + 2] = True
    assert (stored == expected).all()
    assert 4 < stored.sum() < 49


def test_points_on_the_far_side_of_the_box_belong_to_the_last_cell() -> None:
    stored = stored_nodes(LevelConfig(4, plain=1), 1, np.array([[1.0], [-1.0]]))
    assert stored.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_quadratic_levels_store_the_nodes_that_weigh_enough_at_a_point(dim: int) -> None:
    """Against the definition, a node and a point at a time: B(t) of Cox and de Boor."""
    cells, steps = 5, 40
    config = LevelConfig(cells, plain=1, order=2, least_weight=0.1)
    points = draw(3**dim, dim).numpy()
    points[0], points[1] = 1.0, -1.0
    stored = stored_nodes(config, dim, points).reshape((cells + 2,) * dim)
    middles = (np.clip(np.floor((points + 1) * (steps / 2)), 0, steps - 1) + 0.5) * (cells / steps)
    for node in np.ndindex(*stored.shape):
        away = np.abs(middles + 0.5 - node)  # in cells; node i is at (i - 1/2) cells
        bell = np.where(away < 0.5, 0.75 - away**2, np.maximum(1.5 - away, 0) ** 2 / 2)
        assert stored[node] == (bell.prod(axis=1).max() >= 0.1)
    assert 0 < stored.sum() < stored.size


def test_the_lattice_of_a_large_triangle_has_no_gaps_and_no_repeats() -> None:
    mesh = Mesh(np.array([[0.0, 0, 0], [0.8, 0, 0], [0, 0.6, 0]]), np.array([[0, 1, 2]]))
    lattice = surface_lattice(mesh, 0.26)  # the longest edge, 1, is halved twice
    expected = [[0.8 * i / 4, 0.6 * j / 4, 0] for i in range(5) for j in range(5 - i)]
    np.testing.assert_allclose(lattice[np.lexsort(lattice.T[::-1])], expected, atol=1e-12)
    assert len(surface_lattice(mesh, 1.0)) == 3


@pytest.mark.parametrize("config", [LevelConfig(3, plain=1, sparse=False), LevelConfig(3, plain=1)])
def test_dense_levels_and_levels_near_nothing_store_everything(config: LevelConfig) -> None:
    near = None if config.sparse else np.zeros((1, 3))
    stored = stored_nodes(config, 3, near)
    assert stored.shape == (64,)
    assert stored.all()


def test_the_lattice_lies_on_the_surface_and_is_as_dense_as_asked() -> None:
    mesh = oracles.cube(0.7)
    lattice = surface_lattice(mesh, 0.3)
    np.testing.assert_allclose(np.abs(lattice).max(axis=1), 0.7, atol=1e-12)
    generator = np.random.default_rng(0)
    faces = mesh.corners[generator.integers(len(mesh.faces), size=300)]
    surface = np.einsum("nk,nki->ni", generator.dirichlet(np.ones(3), 300), faces)
    gap = np.linalg.norm(surface[:, None] - lattice[None], axis=2).min(axis=1)
    assert gap.max() <= 0.3 / math.sqrt(3)
    assert {tuple(v) for v in mesh.vertices.round(9)} <= {tuple(v) for v in lattice.round(9)}


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_node_bitmaps_survive_packing(resolution: int, dim: int, seed: int) -> None:
    stored = np.random.default_rng(seed).random((resolution + 1) ** dim) < 0.4
    config = LevelConfig(resolution, plain=1)
    level = Level(config, dim, np.packbits(stored), seeded())
    bits = np.unpackbits(level.nodes.numpy(), count=len(stored))
    assert (bits == stored).all()
    assert len(level.table) == stored.sum()
    assert level.rows[torch.from_numpy(stored)].tolist() == list(range(stored.sum()))
    assert bool((level.rows[torch.from_numpy(~stored)] == -1).all())


@pytest.mark.parametrize(
    ("bitmap", "reason"),
    [
        (np.zeros(7, np.uint8), "holds 7 bytes, but .* needs 8"),
        (np.zeros(9, np.uint8), "holds 9 bytes, but .* needs 8"),
        (np.zeros(8, np.int32), r"is int32 of shape \(8,\), not uint8"),
        (np.zeros((8, 1), np.uint8), r"is uint8 of shape \(8, 1\), not uint8"),
    ],
)
def test_a_bitmap_of_another_form_or_resolution_raises(bitmap: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Level(LevelConfig(3, plain=1), 3, bitmap)


@pytest.mark.parametrize("waves", [None, *FORMS])
def test_sparse_levels_equal_dense_ones_where_stored(
    waves: AmplitudeWaves | ComplexWaves | PhaseWaves | None,
) -> None:
    config = LevelConfig(8, plain=2, waves=waves)
    points = draw(40) * 0.4
    stored = stored_nodes(config, 3, points.numpy())
    assert 8 < stored.sum() < len(stored) / 2
    sparse = Level(config, 3, np.packbits(stored), seeded()).double()
    dense = dense_level(config)
    dense.load_state_dict(
        {"omega": sparse.omega, "phase": sparse.phase} if waves else {}, strict=False
    )  # type: ignore[dict-item]
    with torch.no_grad():
        sparse.table.copy_(dense.table[torch.from_numpy(stored)])
    np.testing.assert_allclose(sparse(points).detach(), dense(points).detach(), atol=1e-14)
    for one, other in zip(sparse.spectrum_and_slope(points), dense.spectrum_and_slope(points)):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=1e-12)
    # The level is zero one whole cell away from all stored nodes, and continuous on the path there.
    far = torch.tensor([[0.9, 0.9, 0.9]], dtype=torch.float64)
    assert not sparse(far).any()
    path = points[:1] + torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None] * (
        far - points[:1]
    )
    actual = sparse(path).detach()
    assert float(actual.diff(dim=0).abs().max()) < 0.02
    assert float(actual.abs().max()) > 0.02


def test_empty_levels_are_zero_everywhere() -> None:
    config = LevelConfig(4, plain=1, waves=PhaseWaves(2))
    level = Level(config, 3, np.zeros(16, np.uint8), seeded())
    assert level.table.shape == (0, 5)
    assert not level(draw().float()).any()


@pytest.mark.parametrize("resolution", [0, -3])
def test_a_level_without_cells_raises(resolution: int) -> None:
    with pytest.raises(ValueError, match="at least 1 cell"):
        LevelConfig(resolution, plain=1)


def test_a_level_without_channels_raises() -> None:
    with pytest.raises(ValueError, match="at least one channel"):
        LevelConfig(4, plain=0)
    with pytest.raises(ValueError, match="plain channels are 0 or more, not -1"):
        LevelConfig(4, plain=-1, waves=PhaseWaves(3))


@pytest.mark.parametrize("form", [AmplitudeWaves, ComplexWaves, PhaseWaves])
@pytest.mark.parametrize("arguments", [(0,), (-2,)])
def test_no_waves_raise(form: type, arguments: tuple) -> None:
    with pytest.raises(ValueError, match="count of at least 1"):
        form(*arguments)


@pytest.mark.parametrize("form", [AmplitudeWaves, ComplexWaves, PhaseWaves])
@pytest.mark.parametrize("band", [(1.0, 0.3), (-0.1, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_a_band_that_is_none_raises(form: type, band: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="A band is"):
        form(3, band)
