"""Fields of colours: fits of painted shapes, their files, and colours through the algebra."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from oracles import sphere
from programs import needs_parts
from torch import Tensor

import nstr3d
from nstr3d.cli import command as cli
from nstr3d.cli.looks import View
from nstr3d.cli.view import load_scene
from nstr3d.geometry.mesh.paint import sample_paint
from nstr3d.geometry.shapes.primitives import sphere as ball
from nstr3d.io import load_image, load_mesh, save_mesh
from nstr3d.io.interop import import_open3d, to_open3d
from nstr3d.io.paintfile import paint_of, read_paint
from nstr3d.jobs.colour import poor_warnings
from nstr3d.model.checkpoint import load
from nstr3d.render.camera import Camera
from nstr3d.render.shading import Studio
from nstr3d.render.traced import RenderConfig, render
from nstr3d.surface.vertices import vertex_colours
from nstr3d.training.losses import ValueObjective
from nstr3d.training.presets import sized_colours
from nstr3d.types import Mesh, PointCloud

RED, BLUE = (0.8, 0.2, 0.2), (0.2, 0.3, 0.9)


def shade(points: np.ndarray) -> np.ndarray:
    """A smooth colour of the places on the unit sphere."""
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return 0.5 + 0.4 * np.sin(3 * unit[:, [1, 2, 0]] + [0.0, 1.0, 2.0])


def painted(path: Path, level: int = 5) -> Mesh:
    mesh = sphere(level)
    save_mesh(path, mesh, shade(mesh.vertices))
    return mesh


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a short fit of a painted sphere."""
    place = tmp_path_factory.mktemp("colour")
    painted(place / "ball.ply")
    words = "--steps 60 --params 12000 --pool 20000 --samples 2000 --picture 64 --resolution 48"
    out = ["--out", str(place / "out")]
    assert cli.main(["fit", str(place / "ball.ply"), *words.split(), *out]) == 0
    return place / "out"


def test_a_painted_shape_gets_a_field_of_colours(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    about = report["colour"]
    assert about["source"] == "vertices"
    assert about["psnr"] > 38
    assert about["away"] == 0
    assert about["parameters"] <= 6000
    assert report["seconds"]["colour"] > 0
    fit = nstr3d.load(folder / "model.safetensors")
    at = np.random.default_rng(0).standard_normal((500, 3))
    at *= np.random.default_rng(1).uniform(0.8, 1.2, (500, 1)) / np.linalg.norm(
        at, axis=1, keepdims=True
    )
    assert np.abs(fit.colour(at) - shade(at)).mean() < 0.02
    np.testing.assert_allclose(
        fit.colour(torch.tensor(at)).detach().numpy(), fit.colour(at), atol=1e-6
    )


def test_colours_are_constant_along_normals(folder: Path) -> None:
    sdf = nstr3d.load(folder / "model.safetensors").sdf()
    at = sphere(2).vertices
    on = sdf.closest_points(at).points
    out = on + 0.03 * sdf.normals(on)
    np.testing.assert_allclose(sdf.colour(out), sdf.colour(on), atol=0.01)


def test_the_mesh_and_the_picture_have_the_colours(folder: Path, tmp_path: Path) -> None:
    sdf = nstr3d.load(folder / "model.safetensors").sdf()
    mesh = load_mesh(folder / "mesh.ply")
    paint, _ = read_paint(folder / "mesh.ply")
    assert paint is not None
    stored = paint.parts[0].shades
    wanted = vertex_colours(sdf, mesh)
    assert wanted is not None
    assert np.abs(stored - wanted[mesh.faces]).mean() < 2 / 255
    left, right = np.split(load_image(folder / "render.png")[:, :136], [64], axis=1)
    assert np.abs(left[-64:] - right[-64:, 8:]).mean() < 0.02
    saturation = np.ptp(left[-44:-20, 20:44], axis=2).mean()
    words = ["render", str(folder / "model.safetensors"), "--size", "48", "48", "--samples", "1"]
    for shading in ("studio", "clay"):
        out = ["--shading", shading, "--out", str(tmp_path / f"{shading}.png")]
        assert cli.main([*words, *out]) == 0
    grey = np.ptp(load_image(tmp_path / "clay.png")[16:32, 16:32], axis=2).mean()
    assert saturation > 3 * grey


def test_info_says_that_there_are_colours(folder: Path, capsys) -> None:
    assert cli.main(["info", str(folder / "model.safetensors")]) == 0
    about = json.loads((folder / "report.json").read_text())["colour"]
    told = f"{about['parameters']:,} parameters, {about['psnr']:.1f} dB at points held out"
    assert told in capsys.readouterr().out
    assert cli.main(["export", str(folder / "model.safetensors"), "--to", "stl"]) == 0
    assert "stl holds the shape alone" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["glb", "obj", "ply"])
def test_exports_hold_the_colours(folder: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"ball.{kind}"
    words = ["export", str(folder / "model.safetensors"), "--to", kind, "--out", str(out)]
    assert cli.main([*words, "--resolution", "48"]) == 0
    paint, notes = read_paint(out)
    assert paint is not None
    assert not notes
    part = paint.parts[0]
    sdf = nstr3d.load(folder / "model.safetensors").sdf()
    wanted = vertex_colours(sdf, part.mesh)
    assert wanted is not None
    assert np.abs(part.shades - wanted[part.mesh.faces]).mean() < 2 / 255


def test_a_folder_of_results_stands_for_its_model(folder: Path, tmp_path: Path) -> None:
    for place, name in ((folder, "a"), (folder / "model.safetensors", "b")):
        words = ["export", str(place), "--to", "npz", "--resolution", "16"]
        assert cli.main([*words, "-o", str(tmp_path / f"{name}.npz")]) == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    (shape,), _ = load_scene(View((folder,), resolution=32))
    assert shape.fit is not None
    picture = tmp_path / "a.png"
    assert cli.main(["render", str(folder), "-o", str(picture), "--size", "32", "32"]) == 0
    assert cli.main(["export", str(tmp_path), "--to", "npz"]) == 1


def test_colours_are_saved_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    fit = load(folder / "model.safetensors")
    nstr3d.save(tmp_path / "again.safetensors", fit)
    again = load(tmp_path / "again.safetensors")
    assert fit.colour_field is not None
    assert again.colour_field is not None
    own, other = fit.colour_field.state_dict(), again.colour_field.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    bare = replace(fit, colour_field=None)
    nstr3d.save(tmp_path / "bare.safetensors", bare)
    assert load(tmp_path / "bare.safetensors").colour_field is None
    with pytest.raises(ValueError, match="has no colours"):
        bare.colour(np.zeros((1, 3)))


def test_the_distance_is_that_of_a_fit_without_colours(folder: Path, tmp_path: Path) -> None:
    painted(tmp_path / "ball.ply")
    words = "--steps 60 --params 12000 --pool 20000 --samples 2000 --picture 0 --resolution 48"
    out = ["--colour", "off", "--out", str(tmp_path / "out")]
    assert cli.main(["fit", str(tmp_path / "ball.ply"), *words.split(), *out]) == 0
    fits = [load(place / "model.safetensors") for place in (folder, tmp_path / "out")]
    assert fits[1].colour_field is None
    own, other = (fit.field.state_dict() for fit in fits)
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert "colour" not in json.loads((tmp_path / "out" / "report.json").read_text())


def test_the_budget_of_colours_is_kept() -> None:
    mesh = sphere(4)
    for budget in (4000, 20_000):
        config = sized_colours(budget, mesh)
        count = config.build(3, 3, near=mesh).parameter_count
        assert 0.6 * budget < count <= budget
    with pytest.raises(ValueError, match="too small"):
        sized_colours(10, mesh)


def plain(colour: tuple[float, float, float]):
    def of(points: Tensor) -> Tensor:
        return points.new_tensor(colour).expand(len(points), 3)

    return of


def test_combinations_keep_the_colours_of_their_parts() -> None:
    red = replace(ball(1.0), paint=plain(RED))
    blue = replace(ball(1.0), paint=plain(BLUE)).translate((1.5, 0, 0))
    both = red | blue
    ends = np.array([[-1.0, 0, 0], [2.5, 0, 0]])
    np.testing.assert_allclose(both.colour(ends), [RED, BLUE], atol=1e-6)
    cut = red - blue
    np.testing.assert_allclose(cut.colour(np.array([[0.5, 0, 0]])), [BLUE], atol=1e-6)
    grey = red | ball(1.0).translate((1.5, 0, 0))
    assert np.ptp(grey.colour(ends)[1]) == 0
    assert (ball(1.0) | ball(2.0)).paint is None
    wide = red.offset(0.2)
    np.testing.assert_allclose(wide.colour(np.array([[0, 1.2, 0]])), [RED], atol=1e-6)
    rows = (red | blue).repeat((5.0, 5.0, 5.0), (2, 1, 1))
    np.testing.assert_allclose(rows.colour(ends + [5.0, 0, 0]), [RED, BLUE], atol=1e-6)
    turned = both.rotate((0, 0, 1), 90.0)
    np.testing.assert_allclose(turned.colour(np.array([[0, 2.5, 0]])), [BLUE], atol=1e-6)


def test_a_picture_shows_the_colours_of_the_shape() -> None:
    red = replace(ball(1.0), paint=plain(RED))
    camera = Camera.around(red.bounds, width=24, height=24)
    own, given = (
        render(sdf, camera, RenderConfig(Studio(albedo=albedo)))
        for sdf, albedo in ((red, None), (ball(1.0), tuple(float(v**2.2) for v in RED)))
    )
    np.testing.assert_allclose(own, given, atol=1e-6)
    assert own[12, 12, 0] > own[12, 12, 1] + 0.1


def test_options_that_contradict_each_other_are_refused(tmp_path: Path, capsys) -> None:
    painted(tmp_path / "ball.ply", 3)
    for words, sentence in (
        (["--colour", "off", "--colour-params", "9"], "leave out --colour-params"),
        (["--bytes", "9000", "--colour-params", "9"], "leave out --colour-params"),
        (["--colour-params", "0"], "--colour-params"),
    ):
        assert cli.main(["fit", str(tmp_path / "ball.ply"), *words]) == 1
        assert sentence in capsys.readouterr().err


def test_a_compressed_shape_says_that_it_has_no_colours(tmp_path: Path, capsys) -> None:
    painted(tmp_path / "ball.ply", 4)
    words = ["--bytes", "6000", "--out", str(tmp_path / "out"), "--picture", "0"]
    assert cli.main(["fit", str(tmp_path / "ball.ply"), *words, "--samples", "2000"]) == 0
    assert "colours of the input were left out" in capsys.readouterr().err


def test_objects_of_other_programs_bring_their_colours() -> None:
    mesh = sphere(3)
    other = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    shades = np.round(255 * shade(mesh.vertices)).astype(np.uint8)
    other.visual.vertex_colors = np.column_stack([shades, np.full(len(shades), 255, np.uint8)])
    fit = nstr3d.fit_mesh(other, steps=20, params=12000, pool=20_000, colour_params=5000)
    assert fit.colour_field is not None
    assert np.abs(fit.colour(mesh.vertices) - shade(mesh.vertices)).mean() < 0.03
    bare = nstr3d.fit_mesh(other, steps=5, params=12000, pool=20_000, colour="off")
    assert bare.colour_field is None


def test_a_mesh_of_open3d_brings_its_colours() -> None:
    open3d = import_open3d()
    mesh = sphere(3)
    other = to_open3d(mesh, shade(mesh.vertices))
    assert isinstance(other, open3d.geometry.TriangleMesh)
    paint = paint_of(other)
    assert paint is not None
    np.testing.assert_allclose(paint.parts[0].shades, shade(mesh.vertices)[mesh.faces], atol=1e-6)
    assert paint_of(to_open3d(mesh)) is None
    assert paint_of((mesh.vertices, mesh.faces)) is None


def test_the_colours_of_points_are_fitted(tmp_path: Path) -> None:
    at = np.random.default_rng(0).standard_normal((20_000, 3))
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    noisy = at * (1 + 0.003 * np.random.default_rng(1).standard_normal((len(at), 1)))
    rows = np.hstack([noisy, at, np.round(255 * shade(at))])
    np.savetxt(tmp_path / "ball.xyz", rows, "%.6f")
    words = "--steps 60 --params 12000 --pool 20000 --samples 2000 --picture 64 --resolution 48"
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["points", str(tmp_path / "ball.xyz"), *words.split(), *out]) == 0
    about = json.loads((tmp_path / "out" / "report.json").read_text())["colour"]
    assert about["source"] == "points"
    assert about["psnr"] > 32
    picture = load_image(tmp_path / "out" / "render.png")
    left = picture[40:, : picture.shape[1] // 2]
    assert (np.ptp(left, axis=2) > 0.2).mean() > 0.2  # the points have their colours
    fit = nstr3d.load(tmp_path / "out" / "model.safetensors")
    assert np.abs(fit.colour(at[:500]) - shade(at[:500])).mean() < 0.03
    direct = nstr3d.fit_points(
        tmp_path / "ball.xyz", steps=5, params=12000, pool=20_000, colour="off"
    )
    assert direct.colour_field is None


def test_few_points_are_not_learnt_by_heart() -> None:
    at = np.random.default_rng(0).standard_normal((2000 + 500, 3))
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    known, asked = at[:2000], at[2000:]
    cloud = PointCloud(known, known, colours=shade(known))
    fit = nstr3d.fit_points(cloud, steps=5, params=12_000, pool=20_000, colour_params=20_000)
    # Trained on the points alone, this field is off by 0.08.
    assert np.sqrt(np.mean((fit.colour(asked) - shade(asked)) ** 2)) < 0.03


def test_a_stop_while_colours_are_fitted_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    painted(tmp_path / "ball.ply", 3)

    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(ValueObjective, "__call__", stopped)
    words = "--steps 20 --params 12000 --pool 20000 --resolution 32 --picture 0"
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["fit", str(tmp_path / "ball.ply"), *words.split(), *out]) == 130
    assert not (tmp_path / "out" / "report.json").exists()


def test_colours_far_from_the_surface_are_left_out_with_a_word(tmp_path: Path, capsys) -> None:
    """A painted ball within a painted ball: what is inside is no surface of the solid."""
    outer, inner = sphere(4), sphere(3)
    vertices = np.concatenate([outer.vertices, 0.5 * inner.vertices])
    both = Mesh(vertices, np.concatenate([outer.faces, inner.faces + len(outer.vertices)]))
    save_mesh(tmp_path / "two.ply", both, shade(both.vertices))
    words = "--steps 20 --params 12000 --pool 20000 --samples 2000 --resolution 32 --picture 0"
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["fit", str(tmp_path / "two.ply"), *words.split(), *out]) == 0
    assert "of the coloured surface is not on the fitted one" in capsys.readouterr().err
    about = json.loads((tmp_path / "out" / "report.json").read_text())["colour"]
    assert about["away"] == pytest.approx(0.2, abs=0.02)
    assert about["psnr"] > 35


def test_a_painted_mesh_is_drawn_and_described_with_its_colours(
    folder: Path, tmp_path: Path, capsys
) -> None:
    for name, suffix in (("model.safetensors", "model"), ("mesh.ply", "mesh")):
        words = ["render", str(folder / name), "--size", "64", "64", "--samples", "1"]
        words += ["--azimuth", "30", "--elevation", "15"]
        assert cli.main([*words, "--out", str(tmp_path / f"{suffix}.png")]) == 0
    model, mesh = (load_image(tmp_path / f"{name}.png") for name in ("model", "mesh"))
    assert np.abs(model - mesh).mean() < 0.01
    assert np.ptp(mesh[24:40, 24:40], axis=2).mean() > 0.1
    capsys.readouterr()
    assert cli.main(["info", str(folder / "mesh.ply")]) == 0
    assert "of vertices" in capsys.readouterr().out


def test_a_grid_has_the_colours_near_the_surface(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ball.npz"
    words = ["export", str(folder / "model.safetensors"), "--to", "npz", "--out", str(out)]
    assert cli.main([*words, "--resolution", "20"]) == 0
    grid = np.load(out)
    near = np.abs(grid["distance"]) < 1.9 * grid["spacing"]
    at = grid["origin"] + grid["spacing"] * np.argwhere(near)
    assert np.abs(grid["colour"][near] / 255 - shade(at)).mean() < 0.02
    assert not grid["colour"][np.abs(grid["distance"]) > 2.1 * grid["spacing"]].any()


def test_samples_of_the_surface_have_its_colours(folder: Path) -> None:
    sdf = nstr3d.load(folder / "model.safetensors").sdf()
    cloud = sdf.sample_surface(500)
    assert cloud.colours is not None
    np.testing.assert_allclose(cloud.colours, sdf.colour(cloud.points), atol=1e-3)


@needs_parts("export")
def test_a_network_has_the_colours_as_a_second_output(folder: Path, tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "ball.onnx"
    words = ["export", str(folder / "model.safetensors"), "--to", "onnx", "--out", str(out)]
    assert cli.main(words) == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    sdf = nstr3d.load(folder / "model.safetensors").sdf()
    at = sdf.closest_points(sphere(3).vertices).points
    distance, colour = session.run(["distance", "colour"], {"points": at.astype(np.float32)})
    assert np.abs(np.asarray(distance)).max() < 1e-3
    np.testing.assert_allclose(np.asarray(colour), sdf.colour(at), atol=0.01)


@needs_parts("texture")
def test_an_export_with_a_texture_is_read_again(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "ball.glb"
    words = ["export", str(folder / "model.safetensors"), "--to", "glb", "--out", str(out)]
    words += ["--resolution", "48", "--texture", "256"]
    assert cli.main([*words, "--faces", "2000", "--up", "y"]) == 0
    paint, notes = read_paint(out)
    assert paint is not None
    assert not notes
    assert paint.source == "texture"
    points, shown = sample_paint(paint, 5000, np.random.default_rng(0))
    sdf = nstr3d.load(folder / "model.safetensors").sdf()
    assert np.abs(shown - sdf.colour(points)).mean() < 2 / 255
    words[words.index("glb")] = "ply"
    assert cli.main(words) == 1
    assert "--texture is for glb" in capsys.readouterr().err


QUICK = ["--steps", "20", "--params", "12000", "--pool", "20000", "--samples", "2000"]
QUICK += ["--resolution", "48", "--picture", "0"]


def test_far_from_the_origin_colours_are_as_right(tmp_path: Path) -> None:
    """The centre is no number of single precision, which would move it by half the shape."""
    mesh, centre = sphere(4), np.array([1234567.33, 2345678.77, -3456789.11])
    far = Mesh(0.05 * mesh.vertices + centre, mesh.faces)
    save_mesh(tmp_path / "far.ply", far, shade(mesh.vertices))
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["fit", str(tmp_path / "far.ply"), *QUICK, *out]) == 0
    fit = nstr3d.load(tmp_path / "out" / "model.safetensors")
    assert np.abs(fit.colour(far.vertices) - shade(mesh.vertices)).mean() < 0.02
    assert json.loads((tmp_path / "out" / "report.json").read_text())["colour"]["psnr"] > 30


def test_both_sides_of_a_sheet_have_the_colours_of_the_surface(tmp_path: Path, capsys) -> None:
    across = np.linspace(-1, 1, 31)
    x, y = (each.ravel() for each in np.meshgrid(across, across, indexing="ij"))
    vertices = np.stack([x, y, 0.1 * np.sin(3 * x)], axis=1)
    low = (31 * np.arange(30)[:, None] + np.arange(30)).ravel()
    faces = np.concatenate(
        [np.stack([low, low + 31, low + 32], axis=1), np.stack([low, low + 32, low + 1], axis=1)]
    )
    colours = np.stack([0.5 + 0.4 * x, 0.5 + 0.4 * y, 0.5 + 0 * x], axis=1)
    save_mesh(tmp_path / "sheet.ply", Mesh(vertices, faces), colours)
    words = [*QUICK, "--open", "--thickness", "0.15", "--out", str(tmp_path / "out")]
    assert cli.main(["fit", str(tmp_path / "sheet.ply"), *words]) == 0
    assert "coloured surface" not in capsys.readouterr().err
    fit = nstr3d.load(tmp_path / "out" / "model.safetensors")
    inner = (np.abs(vertices[:, :2]) < 0.8).all(axis=1)
    for side in (-0.08, 0.08):
        error = fit.colour(vertices[inner] + [0, 0, side]) - colours[inner]
        assert np.abs(error).mean() < 0.03


def test_what_is_wrong_with_the_colours_is_told(tmp_path: Path, capsys) -> None:
    at = np.random.default_rng(0).standard_normal((3000, 3))
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    for kept, sentence in (
        (30, "30 points have colours; 100 are needed"),
        (1500, "1,500 of 3,000"),
    ):
        colours = shade(at)
        colours[kept:] = np.nan
        table = np.hstack([at, at, colours])
        np.savetxt(
            tmp_path / "a.csv",
            table,
            "%.6f",
            ",",
            header="x,y,z,nx,ny,nz,red,green,blue",
            comments="",
        )
        words = [*QUICK, "--overwrite", "--out", str(tmp_path / "out")]
        assert cli.main(["points", str(tmp_path / "a.csv"), *words]) == 0
        assert sentence in capsys.readouterr().err
    assert poor_warnings({"psnr": 5.2})
    assert not poor_warnings({"psnr": 30.0})
    assert not poor_warnings({"psnr": None})
