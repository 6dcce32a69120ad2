"""Compressed shapes: cubic interpolation, the pyramid of integers, its code, and the files."""

import hashlib
import struct
import zlib
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from nstr3d import load, load_mesh, save
from nstr3d.fields.closed.codedpyramid import CodedConfig
from nstr3d.fields.closed.pyramid import PyramidConfig, interpolate, made_of
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import normalise, sample_surface
from nstr3d.kernels import pyramid as kernels
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.model.pyramidcodec import decompress_shape, load_shape, pack_shape
from nstr3d.model.pyramidsearch import (
    Maker,
    Target,
    compress_instantly,
    compress_shape,
    compress_to_error,
)
from nstr3d.model.shapeheader import LENGTH, Plan, ShapeHeader, load_shape_header, unpack
from nstr3d.types import Box, Frame

ASSETS = Path(__file__).resolve().parents[1] / "assets"
BALL = 0.9


def ball(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=1) - BALL


def on_ball(count: int = 2000, seed: int = 0) -> np.ndarray:
    way = np.random.default_rng(seed).normal(size=(count, 3))
    return BALL * way / np.linalg.norm(way, axis=1, keepdims=True)


def target(**changes) -> Target:
    bounds = Box((-BALL,) * 3, (BALL,) * 3)
    return Target(**{"distance": ball, "surface": on_ball(), "bounds": bounds,
                     "frame": Frame((1.0, 2.0, 3.0), 4.0), **changes})  # fmt: skip


@pytest.fixture(scope="module")
def code() -> bytes:
    return pack_shape(compress_shape(target(up="-z"), 3000))


def random_grid(cells: int = 6) -> torch.Tensor:
    return torch.randn((cells + 1,) * 3, generator=torch.Generator().manual_seed(0))


def somewhere(count: int = 500, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_field_passes_through_its_nodes_up_to_the_faces():
    nodes = random_grid()
    axis = torch.linspace(-1, 1, 7)
    at = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    torch.testing.assert_close(
        made_of(nodes.numpy())(at)[:, 0], nodes.reshape(-1), atol=2e-6, rtol=0
    )


def test_the_field_reproduces_quadratics_within_and_lines_everywhere():
    axis = torch.linspace(-1, 1, 9)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    bowl, plane = x * x - 2 * x * y + z * z - z, 3 * x - y + 2 * z + 1
    at = somewhere()
    inner = at * 0.7
    x, y, z = inner.T
    expected = x * x - 2 * x * y + z * z - z
    torch.testing.assert_close(made_of(bowl.numpy())(inner)[:, 0], expected, atol=3e-6, rtol=0)
    expected = at @ torch.tensor([3.0, -1.0, 2.0]) + 1
    torch.testing.assert_close(made_of(plane.numpy())(at)[:, 0], expected, atol=5e-6, rtol=0)


def test_compiled_and_plain_values_and_gradients_are_one():
    field, at = made_of(random_grid().numpy()), somewhere()
    value, slope = field.value_and_gradient(at)
    with plain_torch():
        plain, steep = field.value_and_gradient(at)
    torch.testing.assert_close(value, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(slope, steep, atol=1e-4, rtol=0)
    assert torch.equal(value, field(at))


def test_the_plain_gradient_is_right_and_the_nodes_learn():
    grid, at = random_grid(4).double().requires_grad_(), somewhere(7).double().requires_grad_()
    assert torch.autograd.gradcheck(interpolate, (grid, at))


def test_the_gradient_is_continuous_across_cells():
    field = made_of(random_grid().numpy())
    at = somewhere()
    at[:, 0] = torch.tensor(1 / 3)  # a face between cells
    step = torch.tensor([2e-6, 0, 0])
    before, behind = (field.value_and_gradient(at + sign * step)[1] for sign in (-1, 1))
    assert float((before - behind).abs().max()) < 2e-3 < float(before.abs().max())


def test_nodes_that_change_are_seen():
    field, at = made_of(random_grid().numpy()), somewhere(5)
    before = field(at)
    with torch.no_grad():
        field.nodes += 1
    torch.testing.assert_close(field(at), before + 1)
    field.load_state_dict({"nodes": field.nodes + 1}, assign=True)
    torch.testing.assert_close(field(at), before + 2)


def test_points_that_are_no_numbers_have_no_value_in_either_form():
    field, at = made_of(random_grid().numpy()), torch.tensor([[np.nan, 0, 0], [0.1, 0.2, 0.3]])
    for value in (field(at), field(at.double().requires_grad_()).detach()):
        assert value[:, 0].isnan().tolist() == [True, False]


def test_a_field_that_is_made_for_inference_answers(code):
    at = somewhere(5)
    expected = decompress_shape(code).field(at)
    with torch.inference_mode():
        assert torch.equal(decompress_shape(code).field(at), expected)


@pytest.mark.parametrize("cells", [3, 513])
def test_a_grid_of_another_size_raises(cells):
    with pytest.raises(ValueError, match="4 to 512"):
        PyramidConfig(cells)
    with pytest.raises(ValueError, match="three dimensions"):
        PyramidConfig(8).build(2, 1)


def test_refinement_reproduces_cubics():
    x, y, z = np.meshgrid(*[np.arange(9)] * 3, indexing="ij")
    cubic = lambda x, y, z: 16 * (x**3 - 3 * x * x * z + 5 * y * z + 7 * z)  # noqa: E731
    fine, marks = kernels.refine(
        cubic(2 * x, 2 * y, 2 * z).astype(np.int32), np.full(x.shape, 3, np.uint8)
    )
    x, y, z = np.meshgrid(*[np.arange(17)] * 3, indexing="ij")
    # Away from the faces, where four nodes predict each.
    inner = np.s_[3:-3, 3:-3, 3:-3]
    np.testing.assert_array_equal(fine[inner], cubic(x, y, z)[inner])
    assert set(marks[::2, ::2, ::2].ravel()) == {3}
    assert marks.sum() == 3 * 9**3


@pytest.mark.parametrize("whole", [False, True])
def test_the_chosen_nodes_are_those_of_cells_near_zero(whole):
    values = np.random.default_rng(0).integers(-40, 41, (6, 6, 6)).astype(np.int32)
    chosen = kernels.choose(values, 5, whole)
    expected = np.full(values.shape, kernels.FAR if whole else 0)
    for i, j, k in product(range(5), repeat=3):
        cell = np.s_[i : i + 2, j : j + 2, k : k + 2]
        if values[cell].min() < 5 and values[cell].max() > -5:
            expected[cell] = kernels.NEAR
    np.testing.assert_array_equal(chosen, expected)
    for odd in range(4):
        wanted = [at for at in np.argwhere(expected) if (at & 1).sum() == odd]
        np.testing.assert_array_equal(kernels.nodes(chosen, odd), np.reshape(wanted, (-1, 3)))


def test_a_code_is_decoded_to_the_same_integers():
    rng, data = np.random.default_rng(0), np.zeros(1 << 16, np.uint8)
    coarse = rng.integers(-9000, 9000, (5, 5, 5)).astype(np.int32)
    marks = np.zeros(coarse.shape, np.uint8)
    one, other = kernels.refine(coarse, marks), kernels.refine(coarse, marks)
    chosen = kernels.choose(one[0], 2000, True)
    places = [kernels.nodes(chosen, odd) for odd in (1, 2, 3)]
    coder = kernels.begin()
    for at in places:
        index = tuple(at.T)
        wanted = one[0][index] + rng.normal(0, 3000, len(at))
        kernels.encode(coder, data, *one, chosen, at, 1, wanted, 0.5)
        step = np.where(chosen[index] == kernels.NEAR, kernels.UNIT, kernels.COARSE)
        assert (np.abs(one[0][index] - wanted) <= step / 2 + 1).all()
    data = data[: kernels.end(coder[0], data)]
    coder = kernels.begin(data)
    assert all(kernels.decode(coder, data, *other, chosen, at, 1) for at in places)
    assert coder[0][2] == len(data)
    for encoded, decoded in zip(one, other):
        np.testing.assert_array_equal(encoded, decoded)


def test_a_ball_in_few_bytes_is_a_ball(code):
    fit = decompress_shape(code)
    assert len(code) <= 3000
    points = torch.from_numpy(on_ball(seed=7)).float()
    value, slope = fit.field.value_and_gradient(points)
    assert float(value.abs().mean()) < 2e-4
    cosine = (slope * points / BALL).sum(dim=1) / slope.norm(dim=1)
    assert float(torch.rad2deg(cosine.clamp(-1, 1).acos()).mean()) < 0.5
    world = points.numpy() * 4 + (1, 2, 3)
    assert np.abs(fit.sdf()(world)).mean() < 4 * 2e-4
    assert fit.up == "-z"
    np.testing.assert_allclose(fit.bounds.lower, np.array([1, 2, 3]) - 4 * BALL, atol=0.02)
    anywhere = somewhere().numpy()
    far = fit.field(torch.from_numpy(anywhere))[:, 0].numpy() - ball(anywhere)
    assert np.abs(far).mean() < 5e-3


def test_more_bytes_are_nearer():
    errors = []
    for size in (1200, 3000):
        fit = compress_shape(target(), size)
        assert size / 2 < len(pack_shape(fit)) <= size
        values = fit.field(torch.from_numpy(on_ball(seed=3)).float())
        errors.append(float(values.abs().mean()))
    assert errors[0] > 1.5 * errors[1]


def test_too_few_bytes_raise_and_the_error_names_a_size_that_suffices():
    with pytest.raises(ValueError, match=r"100 bytes are too few for this shape; .*") as error:
        compress_shape(target(), 100)
    least = int(str(error.value).rsplit(" ", 1)[1].rstrip(".").replace(",", ""))
    assert len(pack_shape(compress_shape(target(), least))) <= least


def test_more_bytes_than_the_finest_step_needs_are_not_used():
    assert len(pack_shape(compress_shape(target(), 10**15))) < 10**6


def test_a_thin_plate_is_not_lost():
    mesh, frame = normalise(load_mesh(ASSETS / "plate.obj"))
    distance = MeshDistance(mesh)
    surface, _ = sample_surface(mesh, 5000, np.random.default_rng(0))
    fit = compress_shape(Target(distance, surface, mesh.bounds, frame), 6000)
    error = fit.field(torch.from_numpy(surface).float()).abs()
    assert float(error.max()) < 1.5 * 2 / fit.field.config.plan.cells


def test_a_header_is_read_as_it_was_written(tmp_path):
    plan = Plan(12, 3, 1, 16, 5)
    step = float(np.float32(1e-3))
    bounds = Box((-0.9, -0.5, -0.1), (0.9, 0.5, 0.1))
    header = ShapeHeader(plan, step, Frame((1e6, -2.0, 0.5), 3.0), bounds, 1.25, "z")
    data = header.pack()
    assert len(data) == LENGTH <= 64
    read = unpack(data)
    assert (read.plan, read.step, read.frame, read.up) == (plan, step, header.frame, "z")
    assert np.all(np.array(read.bounds.lower) <= header.bounds.lower)
    np.testing.assert_allclose(read.bounds.upper, header.bounds.upper, atol=4e-5)
    (tmp_path / "a.nstq").write_bytes(data)
    assert load_shape_header(tmp_path / "a.nstq").plan.cells == 96


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [(5, 3, "grid of 3 cells"), (6, 9, "refined 9 times"), (7, 9, "none of nstr3d's"),
     (10, 6, "upward axis")],
)  # fmt: skip
def test_a_wrong_header_raises(code, place, value, fault):
    data = bytearray(code[:-4])
    data[place] = value
    with pytest.raises(ValueError, match=f"it is damaged: .*{fault}"):
        decompress_shape(bytes(data) + struct.pack("<I", zlib.crc32(data)), "it")


@pytest.mark.parametrize(
    ("place", "form", "number"),
    [(11, "<f", 1e-30), (15, "<d", np.inf), (39, "<d", 0.0), (39, "<d", 1e-320), (39, "<d", 1e308),
     (47, "<f", 1e-40), (47, "<f", 3e38), (47, "<f", np.nan)],
)  # fmt: skip
def test_a_number_of_the_header_out_of_range_raises(code, place, form, number):
    data = bytearray(code[:-4])
    struct.pack_into(form, data, place, number)
    with pytest.raises(ValueError, match="a number of its header is out of range"):
        decompress_shape(bytes(data) + struct.pack("<I", zlib.crc32(data)))


def test_the_bounds_enclose_a_surface_that_is_thicker_than_its_input():
    half = np.array([0.9, 0.002, 0.002])

    def rod(points: np.ndarray) -> np.ndarray:
        away = np.abs(points) - half
        return np.linalg.norm(away.clip(0), axis=1) + away.max(axis=1).clip(max=0)

    surface = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * half
    surface[:, 1] = half[1] * np.sign(surface[:, 1])
    bounds = Box(tuple((-half).tolist()), tuple(half.tolist()))
    fit = compress_shape(target(distance=rod, surface=surface, bounds=bounds), 4000)
    at = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (200_000, 3)) * (1, 0.03, 0.03))
    inner = at[(fit.field(at.float()) < 0)[:, 0]].numpy()
    lower, upper = fit.frame.to_unit(np.array([fit.bounds.lower, fit.bounds.upper]))
    assert np.abs(inner[:, 1]).max() > 1.5 * half[1]
    assert (inner > lower).all()
    assert (inner < upper).all()


def test_damaged_and_other_files_are_refused(code, tmp_path):
    rng = np.random.default_rng(0)
    for place in rng.integers(5, len(code), 100):
        changed = bytearray(code)
        changed[place] ^= 1 << rng.integers(8)
        with pytest.raises(ValueError, match="damaged"):
            decompress_shape(bytes(changed))
    for length in (5, LENGTH, LENGTH + 3, len(code) - 1):
        with pytest.raises(ValueError, match="damaged"):
            decompress_shape(code[:length])
    for data in (b"", b"NSTQ1" + code[5:], b"solid"):
        (tmp_path / "other.nstq").write_bytes(data)
        with pytest.raises(ValueError, match="not a compressed"):
            load_shape(tmp_path / "other.nstq")
    with pytest.raises(IsADirectoryError):
        load_shape(tmp_path)


def test_hostile_codes_with_a_right_checksum_end(code):
    rng, read = np.random.default_rng(1), 0
    for _ in range(60):
        body = bytearray(code[:-4])
        for place in rng.integers(LENGTH, len(body), rng.integers(1, 40)):
            body[place] = rng.integers(256)
        body = body[: rng.integers(LENGTH, len(body) + 1)] if rng.random() < 0.5 else body
        try:
            fit = decompress_shape(bytes(body) + struct.pack("<I", zlib.crc32(body)))
        except ValueError:
            continue
        read += 1
        assert bool(fit.field.nodes.isfinite().all())
    assert read < 60


def test_a_saved_shape_is_decoded_to_the_bits_of_the_version_that_wrote_it():
    fit = load(Path(__file__).parent / "codes" / "torus.nstq")
    digest = hashlib.sha256(fit.field.nodes.detach().numpy().tobytes()).hexdigest()
    assert digest == "adea53097923732b26dfcfe76c92a90d1a7ce3af5031ba39ca424abdc6d0223d"


def test_a_fit_equals_that_of_its_file():
    fit = compress_shape(target(up="-z"), 2000)
    data = pack_shape(fit)
    again = decompress_shape(data)
    assert torch.equal(again.field.nodes, fit.field.nodes)
    assert (again.frame, again.bounds, again.lipschitz) == (fit.frame, fit.bounds, fit.lipschitz)
    assert again.up == fit.up
    assert pack_shape(again) == data


def test_all_grids_share_the_distances_at_their_nodes():
    asked = []

    def counted(points: np.ndarray) -> np.ndarray:
        asked.append(len(points))
        return ball(points)

    maker = Maker(target(distance=counted))
    coarse, fine = np.argwhere(np.ones((5, 5, 5))), np.argwhere(np.ones((9, 9, 9)))
    for cells, places in ((4, coarse), (8, fine), (4, coarse)):
        expected = ball(places * (2 / cells) - 1)
        np.testing.assert_allclose(maker.distances(cells, places), expected, atol=1e-7)
    assert asked == [125, 729 - 125]


@pytest.mark.parametrize("offset", [0.0, 0.02])
def test_the_error_of_a_code_is_the_distance_in_both_directions(offset):
    maker = Maker(target(distance=lambda at: ball(at) + offset))
    code = maker.coded(Plan(4, 4, 2, 16, 5), 1e-3, 10**6)
    assert Maker(target()).error(code) == pytest.approx(offset, abs=1e-3)


@pytest.mark.parametrize("error", [5e-4, 2e-4])
def test_a_file_of_an_error_is_hardly_larger_than_it_must_be(error):
    fit = compress_to_error(target(), error)
    at = torch.from_numpy(on_ball(seed=5)).float()
    value, slope = fit.field.value_and_gradient(at)
    there = at - value * slope / slope.square().sum(dim=1, keepdim=True)
    ways = float(value.abs().mean()), float((there.norm(dim=1) - BALL).abs().mean())
    assert 0.5 * error < sum(ways) / 2 < 1.05 * error
    smaller = compress_shape(target(), round(0.8 * len(pack_shape(fit))))
    assert float(smaller.field(at).abs().mean()) > error


def test_an_error_that_no_grid_reaches_raises():
    with pytest.raises(ValueError, match=r"An error of 1e-09 cannot be reached: .* allow more"):
        compress_to_error(target(), 1e-9)


def test_an_instant_fit_is_near_everywhere_around_the_surface():
    fit = compress_instantly(target())
    at = on_ball() + np.random.default_rng(2).normal(0, 0.01, (2000, 3))
    value = fit.field(torch.from_numpy(at).float())[:, 0].numpy()
    assert np.abs(value - ball(at)).mean() < 1e-4
    assert len(pack_shape(fit)) < 60_000


@pytest.mark.parametrize(
    ("tensors", "dims", "fault"),
    [({}, (3, 1), "holds no bytes"), ({"code": torch.zeros(9)}, (3, 1), "holds no bytes"),
     ({"code": torch.zeros(9, dtype=torch.uint8)}, (2, 1), "three dimensions"),
     ({"code": torch.zeros(9, dtype=torch.uint8)}, (3, 1), "code ends")],
)  # fmt: skip
def test_a_code_that_is_none_raises(tensors, dims, fault):
    with pytest.raises(ValueError, match=fault):
        CodedConfig(4, 2, 1, 16, 5, 1e-3).restore(*dims, tensors)


@pytest.mark.parametrize(
    "changes", [{"root": 3}, {"depth": 6}, {"root": 16, "depth": 5}, {"whole": 3}, {"reach": 256},
                {"step": 0.0}, {"step": float("nan")}],
)  # fmt: skip
def test_a_coded_grid_out_of_range_raises(changes):
    with pytest.raises(ValueError, match=r"grid of|step of"):
        CodedConfig(**{"root": 4, "depth": 2, "whole": 1, "reach": 16, "finest": 5, "step": 1e-3,
                       **changes})  # fmt: skip
    with pytest.raises(ValueError, match="decoded from its code"):
        CodedConfig(4, 2, 1, 16, 5, 1e-3).build(3, 1)


def test_a_compressed_shape_can_be_saved_as_any_fit(code, tmp_path):
    fit = decompress_shape(code)
    save(tmp_path / "model.safetensors", fit)
    assert (tmp_path / "model.safetensors").stat().st_size < len(code) + 2000
    again = load(tmp_path / "model.safetensors")
    assert torch.equal(again.field.nodes, fit.field.nodes)
    assert not again.field(somewhere(5)).requires_grad
    assert again.bounds == fit.bounds
    save(tmp_path / "model.nstq", again)
    assert (tmp_path / "model.nstq").read_bytes() == code


def test_what_is_no_compressed_shape_gets_no_file_of_one(code, tmp_path):
    fit = decompress_shape(code)
    plain = replace(fit, field=fit.field.plain)
    for other in (plain, replace(fit, colour_field=plain.field)):
        with pytest.raises(ValueError, match=r"\.nstq is for compressed shapes without colours"):
            save(tmp_path / "model.nstq", other)
    save(tmp_path / "plain.safetensors", plain)
    assert torch.equal(load(tmp_path / "plain.safetensors").field.nodes, fit.field.nodes)
    fit.field.nodes.requires_grad_()
    with pytest.raises(ValueError, match="its code does not hold"):
        save(tmp_path / "trained.safetensors", fit)
