"""Proven bounds over boxes: no sample lies outside them, and they tighten with the square of the
box."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fused import BOTH, DEFAULT, MIXED, QUADRATIC, learned, model

from apps.bench import bounds as bounds_race
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.waves import PhaseWaves
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.shapes import primitives as P
from nstr3d.jobs.surface import extract_surface
from nstr3d.kernels.field import enclosure
from nstr3d.kernels.field.fused import evaluate, fused
from nstr3d.kernels.field.layout import Layout, Part, Weights
from nstr3d.model.checkpoint import save
from nstr3d.sdf import Sdf
from nstr3d.surface.bounds import EXACT, RULES, enclose
from nstr3d.surface.certified import Certificate, describe
from nstr3d.surface.extract import EmptySurface, extract
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame, UnprovenError

SIZES = (1.0, 0.2, 0.03, 1e-3, 1e-5)  # half widths of boxes


def boxes(count: int, seed: int, reach: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Corners of boxes of all sizes and shapes within ``reach`` of the origin."""
    random = np.random.default_rng(seed)
    half = np.resize(SIZES, count)[:, None] * random.random((count, 3)) * reach
    middle = random.uniform(-reach, reach, (count, 3))
    return (middle - half).clip(-reach, reach), (middle + half).clip(-reach, reach)


def within(lower: np.ndarray, upper: np.ndarray, seed: int, count: int = 200) -> np.ndarray:
    """Points ``(n, count, 3)`` of boxes, some of them on faces, edges and corners."""
    random = np.random.default_rng(seed)
    share = random.random((len(lower), count, 3))
    share = np.where(random.random(share.shape) < 0.2, share.round(), share)
    return lower[:, None] + share * (upper - lower)[:, None]


def ticks_of(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return np.stack([lower, (lower + upper) / 2, upper], axis=2).astype(np.float32)


def single(levels, seed: int, strength: float) -> tuple[list[Part], Weights]:
    """A field in float32 whose channels have sizes of all orders up to ``strength``."""
    parts, weights = model(levels, 24, 1)
    generator = torch.Generator().manual_seed(seed)
    for part in parts:
        part.table.mul_(strength * torch.rand(part.table.shape[1], generator=generator))
    with torch.no_grad():
        parts, weights = learned(parts, weights, torch.float32)
    assert weights is not None
    return parts, weights


def doubled(parts: list[Part], weights: Weights) -> tuple[list[Part], Weights]:
    """A field of float32 weights in double precision."""
    double = [
        replace(
            part,
            table=part.table.double(),
            omega=None if part.omega is None else part.omega.double(),
            phase=None if part.phase is None else part.phase.double(),
        )
        for part in parts
    ]
    return double, Weights(*(each.double() for each in weights[:4]), weights[4])


def exact_values(points: np.ndarray, parts: list[Part], weights: Weights) -> np.ndarray:
    """The values of a field of float32 weights in double precision."""
    at = torch.from_numpy(points.reshape(-1, 3)).double()
    values = evaluate(at, *doubled(parts, weights))
    return values.detach().numpy().reshape(points.shape[:-1])


FIELDS = [DEFAULT, MIXED, QUADRATIC, BOTH]


@pytest.mark.parametrize("levels", FIELDS)
@pytest.mark.parametrize(("seed", "strength"), [(0, 0.1), (1, 1.0), (2, 8.0)])
def test_no_value_lies_outside_the_bounds(levels, seed: int, strength: float) -> None:
    parts, weights = single(levels, seed, strength)
    ticks = ticks_of(*boxes(80, seed))
    points = within(ticks[:, :, 0], ticks[:, :, 2], seed).astype(np.float32)
    exact = exact_values(points, parts, weights)
    layout = Layout(parts)
    rounded = fused(torch.from_numpy(points.reshape(-1, 3)), parts, weights, layout)
    rounded = rounded.detach().numpy().reshape(exact.shape)
    plain = enclosure.plain(ticks, parts, weights)
    compiled = enclosure.enclose(ticks, parts, weights, layout)
    for bounds, values in itertools.product((plain, compiled), (exact, rounded)):
        assert (values >= bounds[..., 0].min(axis=1, keepdims=True)).all()
        assert (values <= bounds[..., 1].max(axis=1, keepdims=True)).all()


@pytest.mark.parametrize("levels", FIELDS)
def test_the_kernel_equals_its_twin(levels) -> None:
    parts, weights = single(levels, 3, 1.0)
    ticks = ticks_of(*boxes(80, 3))
    plain = enclosure.plain(ticks, parts, weights)
    compiled = enclosure.enclose(ticks, parts, weights, Layout(parts))
    size = np.abs(plain).max(axis=(1, 2))[:, None]
    assert (np.abs(compiled - plain).max(axis=2) < 2e-4 * (1 + size)).all()


@pytest.mark.parametrize("levels", [DEFAULT, QUADRATIC])
def test_the_gap_falls_with_the_square_of_the_box(levels) -> None:
    """The gap: of the bounds beyond the range of the values."""
    parts, weights = doubled(*single(levels, 4, 1.0))
    gaps = []
    for half in (4e-3, 2e-3, 1e-3):
        middle = np.random.default_rng(5).uniform(-0.9, 0.9, (60, 3))
        bounds = enclosure.plain(ticks_of(middle - half, middle + half), parts, weights)
        grid = np.stack(np.meshgrid(*[np.linspace(-half, half, 9)] * 3, indexing="ij"), axis=-1)
        values = exact_values(middle[:, None] + grid.reshape(-1, 3), parts, weights)
        span = bounds[..., 1].max(axis=1) - bounds[..., 0].min(axis=1)
        gaps.append(np.median(span - np.ptp(values, axis=1)))
    assert gaps[1] < gaps[0] / 3
    assert gaps[2] < gaps[1] / 3


def fit_of(seed: int = 0, order: int = 2) -> Fit:
    """A random field in a frame of its own."""
    levels = (
        LevelConfig(4, plain=4, sparse=False, order=order),
        LevelConfig(8, plain=2, waves=PhaseWaves(3), sparse=False, order=order),
    )
    field = NstrConfig(levels, hidden=16).build(3, 1, None, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for level in field.spectra:
            level.table.mul_(3)
    return Fit(field, Frame((0.3, -2.0, 10.0), 2.5), Box((-1.9, -4.0, 8.0), (2.5, 0.0, 12.0)), 9.0)


FITTED = fit_of().sdf()
NEAR_FIT = FITTED.translate((-0.3, 2.0, -10.0))
SHAPES: dict[str, Sdf] = {
    "sphere": P.sphere(0.7, (0.1, 0.2, 0.0)),
    "torus": P.torus(),
    "box": P.box((0.5, 0.6, 0.7)),
    "rounded_box": P.rounded_box((0.5, 0.6, 0.7), 0.2),
    "thin_plate": P.thin_plate(),
    "capsule": P.capsule((0, 0, 0), (1, 1, 0), 0.3),
    "cylinder": P.cylinder(0.5, 0.8),
    "ellipsoid": P.ellipsoid((0.3, 0.9, 1.2)),
    "shells": P.shells(),
    "gyroid": P.gyroid(),
    "gyroid_slab": P.gyroid_slab(),
    "bracket": P.bracket(),
    "fit": FITTED,
    "translate": NEAR_FIT,
    "union": NEAR_FIT | P.sphere(0.5, (1.0, 0, 0)),
    "smooth_union": NEAR_FIT.union(P.sphere(0.5, (1.0, 0, 0)), P.torus(), radius=0.4),
    "intersection": NEAR_FIT & P.sphere(0.5, (1.0, 0, 0)) & P.box(),
    "smooth_intersection": NEAR_FIT.intersection(P.box(), radius=0.4),
    "difference": P.box() - NEAR_FIT - P.sphere(),
    "smooth_difference": NEAR_FIT.difference(P.torus(), P.sphere(), radius=0.4),
    "offset": NEAR_FIT.offset(0.2),
    "shell": NEAR_FIT.shell(0.2),
    "blend": NEAR_FIT.blend(P.sphere(), 0.3),
    "scale": NEAR_FIT.scale(1.7),
    "rotate": NEAR_FIT.rotate((1, 2, 3), 40),
}


def test_every_shape_with_bounds_is_tried() -> None:
    assert SHAPES.keys() == {"fit", *EXACT, *RULES}


@pytest.mark.parametrize("name", SHAPES)
def test_the_bounds_hold_for_shapes_and_their_combinations(name: str) -> None:
    sdf = SHAPES[name]
    assert sdf.recipe is not None
    assert sdf.recipe.name == name
    lower, upper = boxes(100, 6, reach=4.0)  # some of them reach out of the unit box of the fit
    lower, upper = lower + sdf.bounds.centre, upper + sdf.bounds.centre
    low, high = enclose(sdf, lower, upper)
    values = sdf(within(lower, upper, 7, 100).reshape(-1, 3)).reshape(len(lower), -1)
    assert (values >= low[:, None]).all()
    assert (values <= high[:, None]).all()
    small = upper - lower < 0.02
    assert (high - low)[small.all(axis=1)].max() < 0.6  # it does say something


def test_nothing_is_claimed_of_other_functions() -> None:
    siren = SirenConfig(width=8, depth=1).build(3, 1)
    unit = Box((-1.0,) * 3, (1.0,) * 3)
    corner = np.zeros((1, 3))
    for sdf, reason in (
        (Fit(siren, Frame.identity(3), unit, 1.0).sdf(), "Siren has no proven bounds"),
        (Sdf(lambda points: points[:, 0], unit), "it was not made by functions of nstr3d"),
        (P.displace(FITTED, lambda points: points[:, 0].sin(), 0.1, 1.0), "it was not made by"),
        (P.sphere().repeat((3, 3, 3), (2, 1, 1)), "this signed distance: of repeat"),
        (P.sphere().scale((1, 2, 3)), "scaled by three different factors"),
        (P.sphere() | P.sphere().scale((1, 2, 3)), "scaled by three different factors"),
        (P.ellipsoid((1, 1, 1e-3)), "of an ellipsoid with the radii"),
    ):
        with pytest.raises(ValueError, match=reason):
            enclose(sdf, corner, corner)


def test_nothing_is_claimed_of_fields_that_may_overflow() -> None:
    fit, corner = fit_of(), np.array([[0.0, -2.0, 10.0]])
    low, high = enclose(fit.sdf(), corner, corner)
    assert low <= fit.sdf()(corner) <= high
    level = fit.field.spectra[1]  # type: ignore[operator]
    for tensor, value, reason in (
        (level.table, np.nan, "a field with weights of nan"),
        (level.table, 1e10, r"a field with weights of 1e\+10"),
        (level.omega, 1e6, "waves with an angle of 1"),
    ):
        before = tensor[0, 0].item()
        with torch.no_grad():
            tensor[0, 0] = value
        with pytest.raises(ValueError, match=reason):
            enclose(fit.sdf(), corner, corner)
        with torch.no_grad():
            tensor[0, 0] = before


@pytest.mark.parametrize(
    ("lower", "upper", "error", "reason"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2)), ValueError, "lower must be numbers of the shape"),
        (np.zeros((2, 3)), np.zeros((1, 3)), ValueError, "corners of finite boxes"),
        (np.ones((1, 3)), np.zeros((1, 3)), ValueError, "corners of finite boxes"),
        (np.zeros((1, 3)), np.full((1, 3), np.nan), ValueError, "corners of finite boxes"),
        (np.zeros((1, 3)), np.full((1, 3), 1e101), ValueError, "at most 1e\\+100 from the origin"),
        ([[0, 0, 0]], np.zeros((1, 3)), TypeError, "lower"),
    ],
)
def test_bad_boxes_are_refused(lower, upper, error: type, reason: str) -> None:
    with pytest.raises(error, match=reason):
        enclose(P.sphere(), lower, upper)


def test_fields_of_which_nothing_is_proven_are_refused() -> None:
    corner = np.array([[0.0, -2.0, 10.0]])

    def field(**changes) -> Fit:
        fit = fit_of()
        config = replace(fit.field.config, **changes)
        return replace(fit, field=config.build(3, 1))

    waves = LevelConfig(4, waves=PhaseWaves(1, radians=-8.0), sparse=False)
    for fit, reason in (
        (field(sharpness=-50.0), "a field of sharpness -50"),
        (field(sharpness=float("nan")), "a field of sharpness nan"),
        (field(levels=(waves,)), "phases in units of -8"),
        (replace(fit_of(), field=fit_of().field.half()), "float32 and float64 only"),
    ):
        with pytest.raises(ValueError, match=reason):
            fit.sdf().enclose(corner, corner)


def test_bounds_hold_far_out_and_for_shapes_whose_arguments_changed() -> None:
    lower = 5e6 + np.random.default_rng(0).uniform(-1, 1, (400, 3))
    upper = np.nextafter(lower, 1e9)
    ball = P.sphere(0.7, (5e6,) * 3)
    for sdf in (ball, ball.rotate((1, 2, 3), 40).rotate((1, 2, 3), -40)):
        low, high = sdf.enclose(lower, upper)
        for values in (sdf(lower), sdf(upper)):
            assert ((low <= values) & (values <= high)).all()
    offset = np.array([0.5, 0.0, 0.0])
    pair = P.sphere(0.3).translate(offset) | P.sphere(0.2, (-0.6, 0, 0))
    offset[0] = 50.0  # the shape stays where it was
    assert extract(pair, 24, certified=True).mesh.vertices[:, 0].max() > 0.7


def test_no_boxes_have_no_bounds() -> None:
    for sdf in (FITTED, P.sphere()):
        low, high = enclose(sdf, np.zeros((0, 3)), np.zeros((0, 3)))
        assert low.shape == high.shape == (0,)


# ------------------------------------------------------------------------------
# certified extraction
def test_a_certified_surface_is_the_one_found_without_proof() -> None:
    for sdf in (P.torus(), P.sphere(0.8) | P.box((0.3, 0.3, 1.0))):
        certified, plain = extract(sdf, 48, certified=True), extract(sdf, 48)
        assert certified.certificate is not None
        assert certified.certificate.complete
        assert plain.certificate is None
        np.testing.assert_array_equal(
            np.sort(certified.mesh.vertices, axis=0), np.sort(plain.mesh.vertices, axis=0)
        )


def test_what_is_smaller_than_a_cell_is_counted() -> None:
    """At 32 cells along 2.12 units, no node is within 0.02 of the middle of a cell."""
    ball = P.sphere(1.0)
    grid = extract(ball, 32, certified=True)
    assert grid.certificate is not None
    edge = grid.cell
    middle = tuple((np.array([0.5, 0.5, 0.5]) * edge).tolist())
    for centre in (middle, tuple(np.add(middle, 3 * edge).tolist())):
        hollow = ball - P.sphere(0.02, centre)
        certificate = extract(hollow, 32, certified=True).certificate
        assert certificate is not None
        assert certificate.hidden == 1
        assert not certificate.complete


def test_a_fit_is_certified_and_none_of_its_surface_is_missed(torus_fit: Fit) -> None:
    found = extract(torus_fit.sdf(), 64, certified=True)
    assert found.certificate is not None
    dense = extract(torus_fit.sdf(), 200).mesh
    random = np.random.default_rng(0)
    corners = dense.vertices[dense.faces[random.integers(0, len(dense.faces), 4000)]]
    points = corners.mean(axis=1)
    distances = np.abs(MeshDistance(found.mesh).sdf()(points))
    assert found.certificate.complete
    assert distances.max() < found.certificate.within
    assert found.certificate.crossed <= found.certificate.cells


def test_the_box_and_the_volume_are_enclosed() -> None:
    shape = P.sphere(0.5, (0.2, 0.0, -1.0)) | P.box((0.1, 0.2, 0.3))
    box, (low, high) = shape.proven_bounds(64), shape.proven_volume(64)
    cell = 1.6 * 1.06 / 64
    for end, exact, side in (
        (box.lower, (-0.3, -0.5, -1.5), -1),
        (box.upper, (0.7, 0.5, 0.3), 1),
    ):
        beyond = side * (np.array(end) - exact)
        assert (beyond >= 0).all()
        assert (beyond < 2.1 * cell).all()
    exact = 4 / 3 * np.pi * 0.5**3 + 8 * 0.1 * 0.2 * 0.3
    assert low < exact < high
    finer = shape.proven_volume(128)
    assert low < finer[0] < exact < finer[1] < high
    assert finer[1] - finer[0] < 0.6 * (high - low)
    empty = P.sphere(0.5, (-1.0, 0, 0)) & P.sphere(0.5, (1.0, 0, 0))
    assert empty.proven_volume(32) == (0.0, 0.0)
    with pytest.raises(ValueError, match="the surface is empty"):
        empty.proven_bounds(32)
    with pytest.raises(ValueError, match="resolution is 1"):
        shape.proven_volume(1)


def test_solids_are_apart_only_if_that_is_proven(torus_fit: Fit) -> None:
    ball, torus = P.sphere(), P.torus()
    assert ball.proven_apart(P.sphere(1.0, (3, 0, 0)))  # their bounds do not meet
    assert ball.proven_apart(P.sphere(1.0, (1.5, 1.5, 0)))  # their bounds meet
    assert not ball.proven_apart(P.sphere(1.0, (1.3, 1.3, 0)))
    assert not ball.proven_apart(P.sphere(1.0, (2.0, 0, 0)))  # they touch
    assert not ball.proven_apart(P.sphere(0.2))  # one in the other
    assert torus.proven_apart(P.sphere(0.5))
    assert not torus.proven_apart(P.sphere(0.61))
    fitted = torus_fit.sdf()
    size = fitted.bounds.extent.max() / 2.8  # of the unit torus
    assert fitted.proven_apart(P.sphere(0.4 * size, fitted.bounds.centre), 48)
    assert not fitted.proven_apart(P.sphere(0.8 * size, fitted.bounds.centre), 48)
    with pytest.raises(TypeError, match="other"):
        ball.proven_apart(torus_fit)  # type: ignore[arg-type]


def test_an_empty_surface_is_proven_so() -> None:
    apart = P.sphere(0.5, (-1.0, 0, 0)) & P.sphere(0.5, (1.0, 0, 0))
    with pytest.raises(EmptySurface):
        extract(apart, 32, certified=True, bounds=Box((-2.0,) * 3, (2.0,) * 3))
    dust = P.sphere(0.005, (0.02, 0.02, 0.02))
    with pytest.raises(
        ValueError, match=r"not proven to be empty: .*thinner than a cell in 1 cell"
    ):
        extract(dust, 32, certified=True, bounds=Box((-1.0,) * 3, (1.0,) * 3))
    with pytest.raises(ValueError, match="Nothing is proven"):
        extract(P.sphere().repeat((3, 3, 3), (2, 1, 1)), 32, certified=True)


def test_a_job_does_not_ask_for_more_training_where_nothing_is_proven() -> None:
    apart = P.sphere().repeat((3, 3, 3), (2, 1, 1))
    with pytest.raises(UnprovenError, match="Nothing is proven of this signed distance"):
        extract_surface(apart, 32, certified=True)
    with pytest.raises(ValueError, match="no closed surface yet"):
        extract_surface(P.sphere().offset(-2.0), 32, certified=True)


def test_a_certificate_is_complete_if_nothing_is_hidden_or_unknown() -> None:
    complete = Certificate(9, 5, 4, 0, 0, 0.1)
    assert complete.complete
    assert describe(complete) == "all of the surface is within 0.1 of the mesh"
    for hidden, unknown in ((1, 0), (0, 1), (1, 1)):
        certificate = replace(complete, hidden=hidden, unknown=unknown)
        assert not certificate.complete
        assert "of the mesh, except" in describe(certificate)


def test_the_benchmark_measures_violations_and_cells(
    torus_fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save(tmp_path / "a.safetensors", torus_fit)
    words = ["--model", tmp_path / "a.safetensors", "--out", tmp_path, "--fields", 3, "--boxes", 20]
    before = torch.get_num_threads()
    try:
        assert bounds_race.main([*map(str, words), "--resolutions", "24", "--turns", "1"]) == 0
    finally:
        torch.set_num_threads(before)
    text = (tmp_path / "bounds.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "0 of 60,000 samples, in float32 and in float64, lie outside" in text
    cells, undecided, crossed, ratio, *_ = text.splitlines()[-1].strip("| ").split(" | ")
    found, truth = (int(each.replace(",", "")) for each in (undecided, crossed))
    assert (int(cells), float(ratio)) == (24, round(found / truth, 2))
    assert found >= truth > 0
