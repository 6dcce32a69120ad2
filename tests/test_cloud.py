"""From points to a first surface: cleaning, orientation and denoising, against shapes with closed
forms of the distance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nstr3d.geometry.cloud import prepare as module
from nstr3d.geometry.cloud.distance import LIPSCHITZ, CloudDistance
from nstr3d.geometry.cloud.orient import estimate_normals, orient, outward_normals, turn_outward
from nstr3d.geometry.cloud.patches import fit_patches
from nstr3d.geometry.cloud.prepare import LEAST_POINTS, _averaged, _distinct, outliers, prepare
from nstr3d.geometry.cloud.spanning import Spanning
from nstr3d.geometry.cloud.winding import CloudWinding
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.trim import supported, trim
from nstr3d.jobs.cloud import FirstSurface, first_surface
from nstr3d.surface.extract import extract
from nstr3d.types import Mesh, PointCloud

SEED = np.random.default_rng
COARSE = (40, 640)  # fewest and most grid cells: 40 are enough for these tests


def surface(cloud: PointCloud) -> FirstSurface:
    return first_surface(cloud, cells=COARSE)


def ball(
    count: int, noise: float = 0.0, centre=(0.0, 0.0, 0.0), radius: float = 1.0, seed: int = 0
) -> PointCloud:
    """Points on a sphere with Gaussian noise of deviation ``noise`` along the normal, and their
    exact normals."""
    generator = SEED(seed)
    normals = generator.standard_normal((count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return PointCloud(
        centre + normals * (radius + noise * generator.standard_normal((count, 1))), normals
    )


def ring(count: int, seed: int = 0) -> PointCloud:
    """Points on a torus of radii 1 and 0.35, uniform in its angles, and their exact normals."""
    around, across = SEED(seed).uniform(0, 2 * np.pi, (2, count))
    outward = np.stack([np.cos(around), np.sin(around), np.zeros(count)], axis=1)
    normals = np.cos(across)[:, None] * outward + np.sin(across)[:, None] * np.array([0, 0, 1.0])
    return PointCloud(outward + 0.35 * normals, normals)


def torus_error(points: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(np.hypot(points[:, 0], points[:, 1]) - 1, points[:, 2]) - 0.35)


def both(*clouds: PointCloud) -> PointCloud:
    return PointCloud(
        np.concatenate([c.points for c in clouds]), np.concatenate([c.normals for c in clouds])
    )


def sphere_error(mesh: Mesh) -> np.ndarray:
    return np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1)


def volume(mesh: Mesh) -> float:
    a, b, c = np.moveaxis(mesh.corners, 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def pancake(
    count: int, noise: float, thickness: float, radius: float = 0.6, seed: int = 0
) -> PointCloud:
    """Points at distance ``thickness`` from the flat disc of ``radius`` about z, with Gaussian
    noise of deviation ``noise`` in each coordinate, and exact normals."""
    generator = SEED(seed)
    flat, rim = radius**2, thickness * (np.pi * radius + 2 * thickness)
    # the points are uniform in area on the flat sides, and uniform in the angles on the rim
    lower = round(count * flat / (flat + rim))
    slope = generator.uniform(-np.pi / 2, np.pi / 2, count)
    slope[:lower] = generator.choice([-np.pi / 2, np.pi / 2], lower)
    reach = np.full(count, radius)
    reach[:lower] *= np.sqrt(generator.uniform(0, 1, lower))
    around = generator.uniform(0, 2 * np.pi, count)
    outward = np.stack([np.cos(around), np.sin(around), np.zeros(count)], axis=1)
    normals = np.cos(slope)[:, None] * outward + np.sin(slope)[:, None] * [0, 0, 1]
    points = reach[:, None] * outward + thickness * normals
    return PointCloud(points + noise * generator.standard_normal((count, 3)), normals)


def pancake_error(points: np.ndarray, thickness: float, radius: float = 0.6) -> np.ndarray:
    beyond = np.maximum(np.hypot(points[:, 0], points[:, 1]) - radius, 0)
    return np.abs(np.hypot(beyond, points[:, 2]) - thickness)


def turned(seed: int) -> np.ndarray:
    """A random rotation."""
    q, r = np.linalg.qr(SEED(seed).standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_the_surface_is_several_times_better_than_the_noise(normals, noise):
    cloud = ball(2000, noise)
    first = surface(cloud if normals else PointCloud(cloud.points))
    assert sphere_error(first.mesh).mean() < noise / 4
    assert first.noise == pytest.approx(noise, rel=0.2)
    assert volume(first.mesh) == pytest.approx(4 / 3 * np.pi, rel=0.02)


def test_clean_points_are_met_far_closer_than_they_are_spaced():
    first = surface(ring(2500))
    assert torus_error(first.mesh.vertices).mean() < first.spacing / 50
    assert first.noise < first.spacing / 50


def test_a_hole_is_filled_smoothly():
    cloud = ball(2000, 0.005)
    kept = cloud.points[:, 2] < 0.8  # a cap with 10% of the area is missing
    first = surface(PointCloud(cloud.points[kept], cloud.normals[kept]))
    assert volume(first.mesh) == pytest.approx(4 / 3 * np.pi, rel=0.02)
    inside = first.mesh.vertices[first.mesh.vertices[:, 2] > 0.8]
    assert np.abs(np.linalg.norm(inside, axis=1) - 1).max() < 0.1


def test_a_large_hole_is_spanned_as_its_rim_goes_on():
    cloud = ball(2000)
    # 30% of the area is missing; a flat lid would lose 22% of the volume
    kept = cloud.points[:, 2] < 0.4
    first = surface(PointCloud(cloud.points[kept], cloud.normals[kept]))
    assert volume(first.mesh) == pytest.approx(4 / 3 * np.pi, rel=0.02)
    rim = first.mesh.vertices[np.abs(first.mesh.vertices[:, 2] - 0.45) < 0.05]
    assert np.abs(np.linalg.norm(rim, axis=1) - 1).mean() < 0.002


def test_the_spline_counts_only_where_the_winding_number_leaves_doubt():
    generator, cloud = np.random.default_rng(4), ball(3000)
    at = generator.uniform(-1.5, 1.5, (2000, 3))
    at = at[np.abs(np.linalg.norm(at, axis=1) - 1) > 0.1]
    for kept in (cloud.points[:, 2] < 2, cloud.points[:, 2] > -0.5):
        winding = CloudWinding(cloud.points[kept], cloud.normals[kept])
        number, (reach, near) = winding(at), winding.near(at, 10)
        signed = Spanning(winding)(at, reach, near)
        # near the points, the winding number's level is used too
        sure = (np.minimum(np.abs(number), np.abs(1 - number)) < 0.05) & (reach[:, 0] > 0.25)
        assert sure.sum() > 100
        np.testing.assert_array_equal(
            signed[sure], (np.clip(1 - 2 * number, -1, 1) * reach[:, 0])[sure]
        )
        np.testing.assert_array_equal(signed < 0, np.linalg.norm(at, axis=1) < 1)


def sheet(count: int, seed: int = 0) -> PointCloud:
    """Points on an open, wavy sheet over the unit square, and normals."""
    x, y = SEED(seed).uniform(-1, 1, (2, count))
    slope = np.stack(
        [-0.4 * np.cos(4 * x) * np.cos(3 * y), 0.3 * np.sin(4 * x) * np.sin(3 * y), np.ones(count)],
        axis=1,
    )
    points = np.stack([x, y, 0.1 * np.sin(4 * x) * np.cos(3 * y)], axis=1)
    return PointCloud(points, slope / np.linalg.norm(slope, axis=1, keepdims=True))


def pipe(count: int, seed: int = 0) -> PointCloud:
    """Points on a cylinder without ends, and normals."""
    around, z = SEED(seed).uniform(-1, 1, (2, count))
    normals = np.stack([np.cos(np.pi * around), np.sin(np.pi * around), np.zeros(count)], axis=1)
    return PointCloud(0.4 * normals + z[:, None] * [0, 0, 1], normals)


def bowl(count: int, seed: int = 0) -> PointCloud:
    """Points on the lower half of a sphere, and normals."""
    cloud = ball(2 * count, seed=seed)
    kept = cloud.points[:, 2] < 0
    return PointCloud(cloud.points[kept], cloud.normals[kept])


@pytest.mark.parametrize("shape", [sheet, pipe, bowl])
@pytest.mark.parametrize("given", [True, False])
def test_open_scans_get_a_closed_surface_that_goes_through_them(shape, given):
    cloud = shape(2000)
    mesh = surface(cloud if given else PointCloud(cloud.points)).mesh
    assert volume(mesh) > 0
    closing = close_holes(mesh)[1]
    assert (closing.holes, closing.widest, closing.left) == (0, 0.0, 0)
    assert np.abs(MeshDistance(mesh)(cloud.points)).mean() < 2e-3


def test_an_open_scan_has_no_dents_between_its_points():
    vertices = surface(sheet(4000)).mesh.vertices
    vertices = vertices[(np.abs(vertices[:, :2]) < 0.8).all(axis=1) & (vertices[:, 2] > -0.12)]
    off = vertices[:, 2] - 0.1 * np.sin(4 * vertices[:, 0]) * np.cos(3 * vertices[:, 1])
    assert len(off) > 5000
    assert np.abs(off).max() < 5e-3


@pytest.mark.parametrize("seed", range(3))
def test_normals_of_a_sheet_that_encloses_nothing_agree(seed):
    cloud = sheet(4000, seed)
    up = np.einsum("nd,nd->n", outward_normals(cloud.points), cloud.normals) > 0
    assert max(up.mean(), 1 - up.mean()) > 0.999


@pytest.mark.parametrize("seed", range(3))
def test_noise_raises_no_bulges_on_a_rim_as_sharp_as_itself(seed):
    noise, thickness = 0.03, 0.05
    cloud = pancake(1500, noise, thickness, seed=seed)
    error = pancake_error(surface(cloud).mesh.vertices, thickness)
    assert error.mean() < 0.35 * noise
    assert error.max() < 3 * noise


@pytest.mark.parametrize("flip", ["first", "all"])
def test_components_given_inside_out_are_turned_over(flip):
    left, right = ball(2000, centre=(-1.5, 0, 0)), ball(1500, centre=(1.5, 0, 0), seed=1)
    flipped = PointCloud(left.points, -left.normals)
    cloud = both(flipped, right if flip == "first" else PointCloud(right.points, -right.normals))
    outward, count = turn_outward(cloud.points, cloud.normals)
    assert np.einsum("nd,nd->n", outward, both(left, right).normals).min() > 0
    assert count == (2000 if flip == "first" else 3500)
    assert volume(surface(cloud).mesh) == pytest.approx(8 / 3 * np.pi, rel=0.02)


@pytest.mark.parametrize("share", [0.005, 0.03])
def test_single_normals_that_point_the_wrong_way_are_turned_over(share):
    cloud = both(ball(1500), ball(600, centre=(3.0, 0.0, 0.0), radius=0.5))
    assert cloud.normals is not None
    wrong = np.random.default_rng(0).permutation(len(cloud.points))[
        : round(share * len(cloud.points))
    ]
    given = cloud.normals.copy()
    given[wrong] *= -1
    oriented, turned = turn_outward(cloud.points, given)
    np.testing.assert_array_equal(oriented, cloud.normals)
    assert turned == len(wrong)


def test_right_normals_stay_as_they_are_at_creases_too():
    generator = SEED(0)
    axis, sign = generator.integers(0, 3, 1000), generator.choice([-1.0, 1.0], 1000)
    points = generator.uniform(-1, 1, (1000, 3))
    points[np.arange(1000), axis] = sign
    normals = np.zeros((1000, 3))
    normals[np.arange(1000), axis] = sign
    outward, count = turn_outward(points, normals)
    assert count == 0
    np.testing.assert_array_equal(outward, normals)
    assert volume(surface(PointCloud(points, normals)).mesh) == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("flip", [False, True])
def test_the_given_sides_of_a_plate_thinner_than_the_spacing_stay_apart(flip):
    plate = box(2000, 0.0, half=0.01)  # the spacing is 0.06
    outward, count = turn_outward(plate.points, -plate.normals if flip else plate.normals)
    assert np.mean(np.einsum("nd,nd->n", outward, plate.normals) > 0) > 0.999
    assert count == pytest.approx(2000 if flip else 0, abs=2)


def test_a_cavity_given_as_one_stays_one():
    shell, hollow = ball(2000), ball(1000, radius=0.5, seed=1)
    cloud = both(shell, PointCloud(hollow.points, -hollow.normals))
    outward, count = turn_outward(cloud.points, cloud.normals)
    assert count == 0
    np.testing.assert_array_equal(outward, cloud.normals)
    assert volume(surface(PointCloud(cloud.points)).mesh) == pytest.approx(
        4 / 3 * np.pi * (1 - 0.125), rel=0.03
    )


def test_normals_of_random_sign_are_sought_anew():
    cloud = ring(3000)
    mixed = cloud.normals * SEED(3).choice([-1.0, 1.0], (3000, 1))
    outward, _ = turn_outward(cloud.points, mixed)
    assert np.einsum("nd,nd->n", outward, cloud.normals).min() > 0.99


@pytest.mark.parametrize("shape", [ball, ring])
def test_estimated_normals_are_right_and_look_outward(shape):
    cloud = shape(3000)
    normals, _ = orient(cloud.points, estimate_normals(cloud.points))
    cosine = np.einsum("nd,nd->n", normals, cloud.normals)
    assert cosine.min() > 0.7
    assert np.degrees(np.arccos(np.minimum(cosine, 1))).mean() < 8


def box(count: int, noise: float, seed: int = 0, half: float = 0.2) -> PointCloud:
    """Points on the faces of a box with the sides 2, 2 and 2 ``half``, with Gaussian noise of
    deviation ``noise`` in each coordinate, and the faces' normals."""
    generator = SEED(seed)
    size = np.array([1.0, 1.0, half])
    axis = generator.choice(3, count, p=np.array([half, half, 1]) / (1 + 2 * half))
    points = generator.uniform(-size, size, (count, 3))
    normals = np.zeros((count, 3))
    normals[np.arange(count), axis] = generator.choice([-1.0, 1.0], count)
    points[np.arange(count), axis] = (normals * size)[np.arange(count), axis]
    return PointCloud(points + noise * generator.standard_normal((count, 3)), normals)


def test_noise_leaves_orientation_alone():
    shell, hollow = ball(3000, 0.03), ball(1500, 0.03, radius=0.5, seed=1)
    nested = both(shell, PointCloud(hollow.points, -hollow.normals))
    # twice the noise of the first box is a fifth of its thickness and 1.3 spacings
    for cloud in (box(3000, 0.04), box(3000, 0.0), nested):
        normals = outward_normals(cloud.points)
        assert np.linalg.norm(normals, axis=1) == pytest.approx(1)
        assert np.mean(np.einsum("nd,nd->n", normals, cloud.normals) > 0) > 0.997


class Elsewhere(torch.Tensor):
    """Points as on another device: they have no numpy array before they are moved to the CPU."""

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)

    def numpy(self) -> np.ndarray:
        raise TypeError("move the tensor to the CPU first")


def distance_to(cloud: PointCloud) -> tuple[CloudDistance, float]:
    """The distance to ``cloud`` in the unit box, and the points' median spacing."""
    clean, _, preparation = prepare(cloud)
    distance = CloudDistance(fit_patches(clean.tree, clean.normals, preparation.measured))
    return distance, float(np.median(distance.spacing))


def test_the_distance_takes_points_of_another_device():
    sdf = distance_to(ball(300))[0].sdf()
    points = torch.from_numpy(SEED(1).uniform(-1, 1, (50, 3)))
    assert torch.equal(sdf(points.as_subclass(Elsewhere)), sdf(points))


@pytest.mark.parametrize("shape", [ball, ring])
def test_distances_near_smooth_closed_surfaces_keep_to_the_stated_bound(shape):
    distance, spacing = distance_to(shape(1000))
    box, cells = distance.sdf().bounds, 80
    surface = MeshDistance(extract(distance.sdf(), cells).mesh)
    generator, centres = SEED(0), distance.patches.centres
    near = generator.choice(centres, 5000) + spacing * generator.standard_normal((5000, 3))
    points = np.concatenate([near, generator.uniform(box.lower, box.upper, (5000, 3))])
    away = np.abs(surface(points))
    clear = away > box.extent.max() / cells  # nearer, the mesh is not exact enough
    assert (np.abs(distance(points[clear])) / away[clear]).max() < LIPSCHITZ


@pytest.mark.parametrize(
    "cloud", [sheet(800), pipe(800), box(1500, 0.04)], ids=["sheet", "pipe", "box"]
)
def test_extraction_notices_distances_that_are_steeper_than_stated(cloud):
    """The whole surface is found as with a bound that is never exceeded."""
    sdf = distance_to(cloud)[0].sdf()
    safe = extract(replace(sdf, lipschitz=8.0), 60).mesh
    stated = extract(sdf, 60).mesh
    assert len(stated.faces) == len(safe.faces)
    np.testing.assert_array_equal(canonical(stated), canonical(safe))


def canonical(mesh: Mesh) -> np.ndarray:
    """The vertices in an order that does not depend on the order of the cells."""
    return mesh.vertices[np.lexsort(mesh.vertices.T)]


def test_the_winding_number_is_one_inside_and_zero_outside():
    cloud = ball(3000)
    winding = CloudWinding(cloud.points, cloud.normals)
    at = SEED(1).standard_normal((200, 3))
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    np.testing.assert_allclose(winding(0.7 * at), 1, atol=0.1)
    np.testing.assert_allclose(winding(1.5 * at), 0, atol=0.1)


def test_scattered_outliers_are_found_and_no_others():
    cloud = ball(3000, 0.005)
    far = SEED(1).uniform(-2, 2, (150, 3))
    far = far[np.abs(np.linalg.norm(far, axis=1) - 1) > 0.3]
    mask = outliers(np.concatenate([cloud.points, far]))
    assert mask[:3000].sum() <= 3
    assert mask[3000:].mean() > 0.95
    first = surface(PointCloud(np.concatenate([cloud.points, far])))
    assert sphere_error(first.mesh).mean() < 0.003


@pytest.mark.parametrize("alike", [False, True])
def test_the_first_of_equal_points_stays(alike: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    points = random.integers(-3, 4, (4000, 3)) * np.array([0.1, 1e-30, 1e20])
    points[random.random(points.shape) < 0.1] *= -1  # some zeros become -0.0
    if alike:  # different points have one key
        monkeypatch.setattr(module, "_row_keys", lambda points: np.zeros(len(points), np.uint64))
    _, first = np.unique(points, axis=0, return_index=True)
    np.testing.assert_array_equal(_distinct(points), np.sort(first))
    with pytest.raises(ValueError, match="only 1 of the 5000 points are distinct"):
        _distinct(np.full((5000, 3), 0.3))


def test_the_surface_moves_with_the_points():
    cloud, rotation, shift = ball(1000, 0.01), turned(1), np.array([300.0, -20.0, 5.0])
    moved = PointCloud(7 * cloud.points @ rotation.T + shift, cloud.normals @ rotation.T)
    first = surface(moved)
    back = ((first.mesh.vertices - shift) / 7) @ rotation
    assert np.abs(np.linalg.norm(back, axis=1) - 1).mean() < 0.003
    assert first.noise / 7 == pytest.approx(surface(cloud).noise, rel=1e-6)


def test_the_same_points_give_the_same_bits():
    cloud = PointCloud(ring(800).points)
    first, again = surface(cloud), surface(cloud)
    np.testing.assert_array_equal(first.mesh.vertices, again.mesh.vertices)


def test_too_many_points_are_averaged():
    cloud = ball(20_000, 0.01)
    clean, frame, done = prepare(cloud, most=2000)
    assert 500 < done.averaged <= 2000
    error = np.abs(np.linalg.norm(frame.to_world(clean.points), axis=1) - 1)
    # most cells hold ten points; those that barely touch the sphere hold fewer
    assert error.mean() < 0.75 * 0.01 * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(np.linalg.norm(clean.normals, axis=1), 1)


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 3e-5])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
@pytest.mark.parametrize("most", [1000, 2000])
def test_averaging_keeps_to_the_most_points_beside_a_dense_cluster(spread, share, most):
    """The number of occupied cells falls steeply where the edge passes the cluster's size."""
    generator, count = SEED(0), 4000
    dense = [0.1, 0.2, 0.3] + spread * generator.standard_normal((round(share * count), 3))
    points = np.concatenate([0.9 * ball(count - len(dense)).points, dense])
    means, normals = _averaged(points, None, most)
    assert normals is None
    assert most / 2 < len(means) <= most


def test_averaging_points_that_no_edge_can_part_leaves_few():
    """1,000 places with ten points each, closer than the finest cell, and most = 5,000."""
    places = SEED(0).uniform(-0.9, 0.9, (1000, 3)) // 1e-5 * 1e-5 + 5e-6
    points = np.repeat(places, 10, axis=0) + SEED(1).uniform(-1e-9, 1e-9, (10_000, 3))
    means, _ = _averaged(points, None, 5000)
    np.testing.assert_allclose(np.sort(means[:, 0]), np.sort(places[:, 0]), atol=1e-8)


def test_averaging_to_fewer_points_than_octants_is_refused():
    with pytest.raises(ValueError, match="cannot be averaged in at most 5 cells"):
        _averaged(ball(200).points, None, 5)


def test_trimming_keeps_what_points_support():
    first = surface(ball(2000))
    above = ball(2000).points
    above = above[above[:, 2] > 0]
    cut = trim(first.mesh, above, 0.1)
    assert cut.vertices[:, 2].min() > -0.2
    assert cut.vertices[:, 2].max() > 0.95
    assert cut.faces.max() == len(cut.vertices) - 1
    with pytest.raises(ValueError, match="so trim would remove all") as refused:
        trim(first.mesh, above + 10, 0.1)
    assert "so --trim would remove all" in refused.value.args[0].with_flags


def test_bubbles_without_points_are_dropped():
    mesh, bubble = surface(ball(1000)).mesh, surface(ball(400, radius=0.2)).mesh
    count = len(mesh.vertices)
    joined = Mesh(
        np.concatenate([mesh.vertices, bubble.vertices]),
        np.concatenate([mesh.faces, bubble.faces + count]),
    )
    kept = supported(joined, ball(1000).points, 20)
    np.testing.assert_array_equal(kept.vertices, mesh.vertices)
    np.testing.assert_array_equal(kept.faces, mesh.faces)
    assert len(supported(mesh, ball(5).points, 20).faces) == len(mesh.faces)


GOOD = ball(200)
REFUSED = {
    "at least 100": PointCloud(GOOD.points[:99]),
    "only 50 of the 200 points are distinct": PointCloud(np.tile(GOOD.points[:50], (4, 1))),
    "only 1 of the 200 points are distinct": PointCloud(np.ones((200, 3))),
    "in a plane": PointCloud(GOOD.points * [1, 1, 0]),
    "on a line": PointCloud(GOOD.points * [1, 0, 0]),
    r"reaches out to 1\.0e\+300; .* scale it down": PointCloud(
        np.where(np.arange(200)[:, None] < 1, 1e300, GOOD.points)
    ),
    r"only 2\.\de-310 long; .* scale it up": PointCloud(GOOD.points * 1e-310),
    "101 of 200 points are not finite": PointCloud(
        np.where(np.arange(200)[:, None] < 101, np.nan, GOOD.points)
    ),
    "all of 200 normals have length zero or are not finite": PointCloud(
        GOOD.points, 0 * GOOD.normals
    ),
    "21 of 200 normals have length zero or are not finite": PointCloud(
        GOOD.points, np.where(np.arange(200)[:, None] < 21, np.nan, GOOD.normals)
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_bad_clouds_are_refused(reason):
    with pytest.raises(ValueError, match=reason):
        prepare(REFUSED[reason])


def test_the_refusal_of_normals_without_length_names_the_option():
    with pytest.raises(ValueError, match="the normals: normals estimate"):
        prepare(PointCloud(GOOD.points, 0 * GOOD.normals))


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_left_out_and_counted(given, value):
    cloud = ball(2000, centre=(0, 0, 3))
    points = cloud.points.copy()
    points[::4, 1] = value
    clean, frame, done = prepare(PointCloud(points, cloud.normals if given else None))
    assert (done.points, done.not_finite, done.averaged) == (2000, 500, 1500)
    assert (done.duplicates, done.outliers, done.origins, done.without_normal) == (0, 0, 0, 0)
    kept = np.isfinite(points).all(axis=1)
    np.testing.assert_allclose(frame.to_world(clean.points), points[kept], atol=1e-12)
    assert np.einsum("nd,nd->n", clean.normals, cloud.normals[kept]).min() > 0.7


@pytest.mark.parametrize("keep_outliers", [True, False])
def test_pixels_without_depth_are_left_out_although_the_origin_is_near(keep_outliers):
    cloud = ball(2000, centre=(0, 0, 1.02))  # the origin is 0.02 from the surface
    points = cloud.points.copy()
    points[::4] = 0
    clean, frame, done = prepare(PointCloud(points), keep_outliers=keep_outliers)
    assert (done.origins, done.duplicates, done.averaged) == (500, 0, 1500)
    assert (
        np.abs(np.linalg.norm(frame.to_world(clean.points) - [0, 0, 1.02], axis=1) - 1).max() < 1e-9
    )
    points = cloud.points.copy()
    points[3] = 0  # one row is a measured point
    done = prepare(PointCloud(points), keep_outliers=True)[2]
    assert (done.origins, done.averaged) == (0, 2000)


def test_few_points_without_a_normal_are_left_out_and_counted():
    cloud = ball(1000)
    normals = cloud.normals.copy()
    normals[:60], normals[60:90], normals[90:100] = 0, np.nan, np.inf
    clean, frame, done = prepare(PointCloud(cloud.points, normals * 7))
    assert (done.without_normal, done.averaged, done.measured) == (100, 900, True)
    np.testing.assert_allclose(frame.to_world(clean.points), cloud.points[100:], atol=1e-12)
    np.testing.assert_allclose(clean.normals, cloud.normals[100:], atol=1e-12)


def test_normals_that_have_nothing_to_do_with_the_points_are_noticed():
    cloud, random = ball(3000), SEED(5).standard_normal((3000, 3))
    assert prepare(cloud)[2].deviation < 2
    assert prepare(ball(3000, 0.03))[2].deviation < 30
    assert prepare(box(3000, 0.0))[2].deviation < 1
    # the median angle between random directions, without sign, is 60 degrees
    assert prepare(PointCloud(cloud.points, random))[2].deviation == pytest.approx(60, abs=3)
    constant = PointCloud(cloud.points, np.tile([1.0, 0, 0], (3000, 1)))
    assert prepare(constant)[2].deviation == pytest.approx(60, abs=3)
    assert prepare(PointCloud(cloud.points))[2].deviation is None


def test_bad_normals_do_not_matter_where_they_are_not_used():
    cloud = PointCloud(GOOD.points, np.zeros_like(GOOD.points))
    assert not prepare(cloud, estimate=True)[2].measured


def test_as_few_points_as_may_be_are_taken():
    few = ball(LEAST_POINTS)
    assert len(prepare(few, keep_outliers=True)[0].points) == LEAST_POINTS == 100
