"""Compressed shapes: cubic interpolation, the pyramid of integers, its code, and the files."""

import hashlib
import struct
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import joined

from nstr3d import load, load_mesh, load_sdf, save
from nstr3d.fields.closed.pyramid import PyramidConfig, interpolate, made_of, pad
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import normalise, sample_surface
from nstr3d.io import save_mesh
from nstr3d.jobs.info import describe_file
from nstr3d.jobs.mesh import run
from nstr3d.jobs.options import Extraction, MeshJob, Output, Training
from nstr3d.kernels import pyramid as kernels
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.model.pyramidcodec import Target, compress_shape, decompress_shape, load_shape
from nstr3d.model.shapeheader import LENGTH, Plan, ShapeHeader, load_shape_header, unpack
from nstr3d.types import Box, Frame, Mesh

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
    return compress_shape(target(up="-z"), 3000)


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
    assert torch.autograd.gradcheck(lambda g, p: interpolate(pad(g), p), (grid, at))


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
        code = compress_shape(target(), size)
        assert size / 2 < len(code) <= size
        values = decompress_shape(code).field(torch.from_numpy(on_ball(seed=3)).float())
        errors.append(float(values.abs().mean()))
    assert errors[0] > 1.5 * errors[1]


def test_too_few_bytes_raise_and_the_error_names_a_size_that_suffices():
    with pytest.raises(ValueError, match=r"100 bytes are too few for this shape; .*") as error:
        compress_shape(target(), 100)
    least = int(str(error.value).rsplit(" ", 1)[1].rstrip(".").replace(",", ""))
    assert len(compress_shape(target(), least)) <= least


def test_more_bytes_than_the_finest_step_needs_are_not_used():
    assert len(compress_shape(target(), 10**15)) < 10**6


def test_a_thin_plate_is_not_lost():
    mesh, frame = normalise(load_mesh(ASSETS / "plate.obj"))
    distance = MeshDistance(mesh)
    surface, _ = sample_surface(mesh, 5000, np.random.default_rng(0))
    code = compress_shape(Target(distance, surface, mesh.bounds, frame), 6000)
    error = decompress_shape(code).field(torch.from_numpy(surface).float()).abs()
    assert float(error.max()) < 1.5 * 2 / unpack(code).plan.cells


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
    fit = decompress_shape(
        compress_shape(target(distance=rod, surface=surface, bounds=bounds), 4000)
    )
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


def test_a_compressed_shape_can_be_saved_as_any_fit(code, tmp_path):
    fit = decompress_shape(code)
    save(tmp_path / "model.safetensors", fit)
    again = load(tmp_path / "model.safetensors")
    assert torch.equal(again.field.nodes, fit.field.nodes)
    assert not again.field(somewhere(5)).requires_grad
    with pytest.raises(ValueError, match=r"\.nstq is for compressed models"):
        save(tmp_path / "model.nstq", fit)
    assert again.bounds == fit.bounds


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compact") / "torus"
    job = MeshJob(
        ASSETS / "torus.obj",
        extraction=Extraction(resolution=48, samples=5000, picture=48),
        output=Output(folder),
        bytes=4000,
    )
    outcome = run(job)
    assert {path.name for path in outcome.files} == {
        "model.nstq", "mesh.ply", "render.png", "report.json"
    }  # fmt: skip
    assert outcome.report["field"]["bytes"] == (folder / "model.nstq").stat().st_size <= 4000
    assert outcome.report["accuracy"]["distance_error_near"] < 1e-3
    assert outcome.report["mesh"]["watertight"]
    return folder


def test_a_job_writes_a_model_of_so_many_bytes(finished):
    sdf = load_sdf(finished / "model.nstq")
    mesh = load_mesh(ASSETS / "torus.obj")
    points, _ = sample_surface(mesh, 2000, np.random.default_rng(0))
    assert np.abs(sdf(points)).mean() < 1e-3 * mesh.bounds.extent.max()


def test_a_model_in_few_bytes_describes_itself(finished):
    about = describe_file(finished)
    assert (about["kind"], about["field"]) == ("compressed shape", "pyramid")
    assert about["accuracy"]["iou_volume"] > 0.98
    assert about["up"] == "y"


def test_parts_that_are_lost_are_named(tmp_path):
    ball = load_mesh(ASSETS / "sphere.obj")
    crumb = Mesh(ball.vertices * 0.004 + (1.5, 0, 0), ball.faces)
    save_mesh(tmp_path / "both.obj", joined(ball, crumb))
    extraction = Extraction(resolution=64, samples=500, picture=0)
    job = MeshJob(
        tmp_path / "both.obj", extraction=extraction, output=Output(tmp_path / "out"), bytes=900
    )
    report = run(job).report
    assert report["mesh"]["components"] == 1
    (warning,) = [each for each in report["input"]["warnings"] if "part(s)" in each]
    assert warning.startswith("The surface has 1 part(s), that of the input 2:")


@pytest.mark.parametrize(
    "options",
    [{"training": Training(steps=5)}, {"training": Training(preset="fast")},
     {"training": Training(field="grid")}, {"output": Output(resume=True)},
     {"extraction": Extraction(certified=True)}, {"start": Path("a")}, {"bytes": 0}],
)  # fmt: skip
def test_options_of_training_and_bytes_exclude_each_other(options):
    with pytest.raises(ValueError, match="bytes"):
        MeshJob(ASSETS / "torus.obj", **{"bytes": 4000, **options})


def test_a_fit_replaces_a_compressed_one_and_the_other_way(finished):
    job = MeshJob(
        ASSETS / "sphere.obj",
        training=Training(steps=2, pool=5000, params=5000),
        extraction=Extraction(resolution=16, samples=500, picture=0),
        output=Output(finished, overwrite=True),
    )
    run(job)
    assert not (finished / "model.nstq").exists()
    compact = MeshJob(job.path, extraction=job.extraction, output=job.output, bytes=2000)
    run(compact)
    assert not (finished / "model.safetensors").exists()
