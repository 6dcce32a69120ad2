"""The narrow-band sampler: the positions, distances and gradients of its samples."""

import numpy as np
import oracles
import pytest
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.training.sampling import Raster, SurfaceBand
from nstr3d.types import Lattice, Mesh, Samples


def cube_band(
    surface: float = 0.2,
    near: float = 0.6,
    band: float = 0.01,
    around: float = 0.0,
    ridges: float = 0.0,
) -> SurfaceBand:
    mesh = oracles.cube(0.7)
    distance = MeshDistance(mesh)
    return SurfaceBand(mesh, distance, surface, near, around, band, halo=0.2, ridges=ridges)


def cube_distance(points: np.ndarray) -> np.ndarray:
    q = np.abs(points) - 0.7
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)


def draw(sampler: SurfaceBand, count: int = 2000, seed: int = 0) -> Samples:
    return sampler.draw(count, np.random.default_rng(seed))


def test_samples_are_single_precision_in_the_box_with_the_meshs_distance() -> None:
    samples = draw(cube_band(band=0.4))
    assert samples.points.shape == (2000, 3)
    assert samples.values.shape == (2000, 1)
    assert samples.points.dtype == samples.values.dtype == torch.float32
    assert float(samples.points.abs().max()) <= 1
    np.testing.assert_allclose(
        samples.values[:, 0], cube_distance(samples.points.double().numpy()), atol=2e-7
    )


def test_the_shares_are_met() -> None:
    samples = draw(cube_band(surface=0.25, near=0.5, band=0.001))
    distance = samples.values[:, 0].abs()
    assert int((distance == 0).sum()) == 500
    assert int((distance < 0.006).sum()) == pytest.approx(1500, abs=25)


def test_the_band_is_gaussian_about_the_surface_and_the_rest_is_uniform() -> None:
    near = draw(cube_band(surface=0, near=1, band=0.02)).values[:, 0]
    # The offset along a face's normal is Gaussian; only the few points at edges differ.
    assert float(near.std()) == pytest.approx(0.02, rel=0.06)
    assert float(near.mean()) == pytest.approx(0, abs=0.002)
    background = draw(cube_band(surface=0, near=0)).points.numpy()
    np.testing.assert_allclose(
        np.quantile(background, [0.1, 0.5, 0.9], axis=0).T, [[-0.8, 0, 0.8]] * 3, atol=0.07
    )


def test_the_halo_is_a_wider_gaussian_about_the_surface() -> None:
    halo = draw(cube_band(surface=0, near=0, around=1)).values[:, 0]
    # 68% lie within one deviation, and edges and corners add some.
    assert int((halo.abs() < 0.2).sum()) / 2000 == pytest.approx(0.72, abs=0.05)
    assert float(halo.abs().max()) > 0.3


def test_samples_at_ridges_are_moved_away_from_the_surface_and_have_the_distance_there() -> None:
    uniform, moved = (
        draw(cube_band(surface=0, near=0, ridges=ridges), 20_000) for ridges in (0.0, 1.0)
    )
    points = moved.points.double().numpy()
    np.testing.assert_allclose(moved.values[:, 0], cube_distance(points), atol=2e-7)
    assert np.abs(points).max() <= 1
    # The ridges inside a cube are where two of the largest coordinates have one magnitude.
    share = []
    for samples in (uniform, moved):
        sizes = np.sort(samples.points.abs().numpy(), axis=1)
        inside = sizes[:, 2] < 0.7
        share.append(np.mean(sizes[inside, 2] - sizes[inside, 1] < 0.02))
    assert share[1] > 1.4 * share[0]
    assert float(moved.values.abs().mean()) > 1.1 * float(uniform.values.abs().mean())


def test_a_share_of_the_near_samples_has_the_gradient_of_the_distance() -> None:
    samples = draw(cube_band(surface=0.2, near=0.6, band=0.05))
    assert samples.gradients is not None
    assert samples.gradients.dtype == torch.float32
    sloped = samples.gradients.any(dim=1)
    assert int(sloped.sum()) == 500  # a quarter of 2000
    points = samples.points[sloped].double().numpy()
    step = 1e-6 * np.eye(3)
    expected = [(cube_distance(points + e) - cube_distance(points - e)) / 2e-6 for e in step]
    wrong = np.abs(samples.gradients[sloped].numpy() - np.stack(expected, axis=1)).max(axis=1)
    assert np.quantile(wrong, 0.99) < 1e-4  # a point may be equally near to two faces
    assert float(samples.values[sloped].abs().max()) < 0.05 * 5


def test_no_more_samples_have_gradients_than_are_near() -> None:
    few = draw(cube_band(surface=0.2, near=0.1)).gradients
    assert few is not None
    assert int(few.any(dim=1).sum()) == 200
    mesh = oracles.cube(0.7)
    assert draw(SurfaceBand(mesh, MeshDistance(mesh), sloped=0.0)).gradients is None
    with pytest.raises(ValueError, match="share of samples with a gradient"):
        SurfaceBand(mesh, MeshDistance(mesh), sloped=1.5)


def test_samples_come_in_random_order() -> None:
    on_surface = (draw(cube_band()).values[:, 0] == 0).numpy()
    assert on_surface[:1000].sum() == pytest.approx(200, abs=45)


def test_the_generator_decides_everything() -> None:
    one, same, other = draw(cube_band()), draw(cube_band()), draw(cube_band(), seed=1)
    assert torch.equal(one.points, same.points)
    assert torch.equal(one.values, same.values)
    assert not torch.equal(one.points, other.points)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_count_is_given(count: int) -> None:
    assert len(draw(cube_band(), count)) == count


@pytest.mark.parametrize(
    "shares", [(-0.1, 0.5), (0.5, -0.1), (0.6, 0.5), (0.4, 0.5, 0.1, 0.0, 0.2), (0, 0, 0, 0, -0.1)]
)
def test_shares_that_do_not_add_up_raise(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must not be negative, and their sum must not exceed 1"):
        cube_band(*shares)


def test_a_mesh_without_area_raises() -> None:
    flat = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="no area"):
        draw(SurfaceBand(flat, MeshDistance(oracles.cube())))


def test_a_raster_gives_known_samples_at_their_places() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6, 2))
    known = np.random.default_rng(1).random((4, 6)) < 0.5
    samples = Raster(values, known).draw(3000, np.random.default_rng(0))
    cells = np.floor(Lattice((4, 6)).frame.to_world(samples.points.double().numpy())).astype(int)
    assert {tuple(cell) for cell in cells.tolist()} == {
        tuple(cell) for cell in np.argwhere(known).tolist()
    }
    np.testing.assert_allclose(samples.values, values[tuple(cells.T)], rtol=1e-6)
    assert len(np.unique(Raster(values).draw(3000, np.random.default_rng(0)).points, axis=0)) == 24


def test_rasters_without_anything_to_fit_are_refused() -> None:
    values = np.ones((3, 3, 1))
    with pytest.raises(ValueError, match="hides every sample"):
        Raster(values, np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="mask must be bool"):
        Raster(values, np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="not finite"):
        Raster(values * np.nan)
    hidden = values.copy()
    hidden[0, 0] = np.nan
    known = np.ones((3, 3), bool)
    known[0, 0] = False
    assert bool(Raster(hidden, known).draw(50, np.random.default_rng(0)).values.isfinite().all())
