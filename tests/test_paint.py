"""Colours of mesh files: what is read, sampled and looked up, against closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from oracles import cube
from PIL import Image

from nstr3d.geometry.mesh.paint import NearestPaint, sample_paint
from nstr3d.io import load_mesh, save_image, save_mesh
from nstr3d.io.light import to_display, to_linear
from nstr3d.io.paint import Paint, PaintedPart, bilinear, read_paint
from nstr3d.types import Mesh

RED, BLUE = np.array([0.8, 0.2, 0.2]), np.array([0.2, 0.4, 1.0])
QUAD = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def textured(folder: Path, material: str = "map_Kd sheet.png") -> Path:
    """A square of OBJ whose texture is a picture of 2 x 2 colours, twice in each direction."""
    picture = np.array([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 0]]])
    save_image(folder / "sheet.png", picture)
    (folder / "sheet.mtl").write_text(f"newmtl sheet\nKd 0.5 0.25 0.75\n{material}\n")
    lines = ["mtllib sheet.mtl", *(f"v {x} {y} {z}" for x, y, z in QUAD)]
    lines += ["vt 0 0", "vt 2 0", "vt 2 2", "vt 0 2", "usemtl sheet"]
    lines += ["f 1/1 2/2 3/3", "f 1/1 3/3 4/4"]
    (folder / "sheet.obj").write_text("\n".join(lines) + "\n")
    return folder / "sheet.obj"


def test_display_values_and_linear_light_are_inverse() -> None:
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(to_display(to_linear(values)), values, atol=1e-12)
    assert to_linear(np.array(0.5)) == pytest.approx(0.2140411, abs=1e-6)
    assert (np.diff(to_linear(values)) > 0).all()


def test_texels_are_at_the_centres_of_pixels_and_repeat() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    uv = np.array([[0.25, 0.75], [0.75, 0.75], [0.25, 0.25], [0.75, 0.25]])
    np.testing.assert_allclose(bilinear(picture, uv) * 255, picture.reshape(4, 3), atol=1e-12)
    np.testing.assert_allclose(bilinear(picture, uv - 3), bilinear(picture, uv), atol=1e-12)
    middle = bilinear(picture, np.array([[0.5, 0.5], [0.0, 0.0]])) * 255
    np.testing.assert_allclose(middle, [picture.reshape(4, 3).mean(axis=0)] * 2, atol=1e-12)


def test_a_texture_is_read_with_its_coordinates(tmp_path: Path) -> None:
    paint, notes = read_paint(textured(tmp_path))
    assert paint is not None
    assert not notes
    assert paint.source == "texture"
    at = np.array([[0.125, 0.375, 0], [0.375, 0.375, 0], [0.125, 0.125, 0], [0.875, 0.875, 0]])
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    np.testing.assert_allclose(NearestPaint(paint)(at + [0, 0, 0.3]), expected, atol=1e-6)


def test_samples_lie_on_the_surface_and_have_its_colours() -> None:
    """The shades are the coordinates, so each sample's colour must be its place."""
    box = cube()
    mesh = Mesh((box.vertices - box.bounds.lower) / box.bounds.extent, box.faces)
    paint = Paint((PaintedPart(mesh, mesh.corners),), "vertices")
    points, colours = sample_paint(paint, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(points, colours, atol=1e-12)
    np.testing.assert_allclose(np.abs(points - 0.5).max(axis=1), 0.5, atol=1e-12)
    counts = [int((points[:, axis] < 1e-9).sum()) for axis in range(3)]
    np.testing.assert_allclose(counts, 20_000 / 6, rtol=0.06)
    np.testing.assert_allclose(NearestPaint(paint)(points[:500]), colours[:500], atol=1e-9)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_colours_of_vertices_are_written_and_read(tmp_path: Path, suffix: str) -> None:
    colours = np.linspace(0, 1, 12).reshape(4, 3)
    path = tmp_path / f"quad{suffix}"
    save_mesh(path, Mesh(QUAD, FACES), colours)
    np.testing.assert_array_equal(load_mesh(path).faces, FACES)
    paint, notes = read_paint(path)
    assert paint is not None
    assert not notes
    assert paint.source == "vertices"
    np.testing.assert_allclose(NearestPaint(paint)(QUAD), colours, atol=0.003)


def test_colours_of_a_glb_are_those_that_a_viewer_shows(tmp_path: Path) -> None:
    """glTF's colours are linear: the accessor holds 65,535 times the linear light."""
    colours = np.full((4, 3), 0.5)
    save_mesh(tmp_path / "a.glb", Mesh(QUAD, FACES), colours)
    data = (tmp_path / "a.glb").read_bytes()
    length = int.from_bytes(data[12:16], "little")
    tree = json.loads(data[20 : 20 + length])
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    view = tree["bufferViews"][accessor["bufferView"]]
    start = 28 + length + view["byteOffset"]
    stored = np.frombuffer(data[start : start + view["byteLength"]], "<u2").reshape(4, 4)
    np.testing.assert_allclose(stored[:, :3] / 65535, 0.21404, atol=1e-4)
    assert (stored[:, 3] == 65535).all()
    assert tree["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] == [1, 1, 1, 1]


@pytest.mark.parametrize("suffix", [".stl", ".off"])
def test_formats_without_colours_refuse_them(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"only \.ply, \.obj, \.glb store colours"):
        save_mesh(tmp_path / f"a{suffix}", Mesh(QUAD, FACES), np.zeros((4, 3)))


def test_colours_of_faces_are_read(tmp_path: Path) -> None:
    mesh = trimesh.Trimesh(QUAD, FACES, process=False)
    shades = np.round(np.array([RED, BLUE]) * 255)
    mesh.visual.face_colors = np.column_stack([shades, [255, 255]]).astype(np.uint8)
    mesh.export(tmp_path / "faces.ply")
    paint, _ = read_paint(tmp_path / "faces.ply")
    assert paint is not None
    assert paint.source == "faces"
    found = NearestPaint(paint)(np.array([[0.7, 0.2, 0], [0.2, 0.7, 0]]))
    np.testing.assert_allclose(found, [RED, BLUE], atol=0.003)


def test_a_factor_and_a_texture_of_gltf_are_multiplied_in_linear_light(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((2, 2, 3), 188, np.uint8))
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=picture, baseColorFactor=[0.5, 0.25, 1.0, 1.0]
    )
    visual = trimesh.visual.TextureVisuals(uv=QUAD[:, :2], material=material)
    trimesh.Trimesh(QUAD, FACES, visual=visual, process=False).export(tmp_path / "a.glb")
    paint, _ = read_paint(tmp_path / "a.glb")
    assert paint is not None
    expected = to_display(to_linear(np.full(3, 188 / 255)) * [0.5, 0.25, 1.0])
    np.testing.assert_allclose(NearestPaint(paint)(QUAD), [expected] * 4, atol=0.01)


def test_files_without_colours_and_of_one_grey_have_none(tmp_path: Path) -> None:
    for suffix in (".ply", ".obj", ".stl", ".off", ".glb"):
        save_mesh(tmp_path / f"a{suffix}", Mesh(QUAD, FACES))
        if suffix != ".glb":  # whose material is clay
            assert read_paint(tmp_path / f"a{suffix}") == (None, [])
    save_mesh(tmp_path / "grey.ply", Mesh(QUAD, FACES), np.full((4, 3), 0.5))
    assert read_paint(tmp_path / "grey.ply") == (None, [])


@pytest.mark.parametrize(
    ("material", "sentence"),
    [
        ("map_Kd lost.png", "its texture lost.png is not there"),
        ("map_Kd sheet.mtl", "its texture sheet.mtl could not be read"),
    ],
)
def test_a_missing_texture_leaves_the_material_and_a_warning(
    tmp_path: Path, material: str, sentence: str
) -> None:
    paint, notes = read_paint(textured(tmp_path, material))
    assert paint is not None
    assert sentence in notes[0]
    np.testing.assert_allclose(NearestPaint(paint)(QUAD), [[0.5, 0.25, 0.75]] * 4, atol=0.003)


def test_missing_materials_are_told(tmp_path: Path) -> None:
    path = textured(tmp_path)
    (tmp_path / "sheet.mtl").unlink()
    paint, notes = read_paint(path)
    assert paint is None
    assert notes == [f"{path}: its materials are in sheet.mtl, which is not there."]


def test_a_picture_takes_the_place_of_the_textures(tmp_path: Path) -> None:
    save_image(tmp_path / "red.png", np.broadcast_to(RED, (4, 4, 3)).copy())
    path = textured(tmp_path, "map_Kd lost.png")
    paint, _ = read_paint(path, tmp_path / "red.png")
    assert paint is not None
    np.testing.assert_allclose(NearestPaint(paint)(QUAD), [RED] * 4, atol=0.003)
    save_mesh(tmp_path / "bare.ply", Mesh(QUAD, FACES))
    with pytest.raises(ValueError, match="no texture coordinates"):
        read_paint(tmp_path / "bare.ply", tmp_path / "red.png")


def test_parts_without_colours_are_grey_and_told(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    for number in range(5):
        mesh = trimesh.Trimesh(QUAD + [0, 0, number], FACES, process=False)
        if number < 3:
            mesh.visual.vertex_colors = np.append(np.round(RED * 255), 255).astype(np.uint8)
        scene.add_geometry(mesh)
    scene.export(tmp_path / "five.glb")
    paint, notes = read_paint(tmp_path / "five.glb")
    assert paint is not None
    assert "2 of its 5 parts, with 4 faces, have no colour" in notes[0]
    found = NearestPaint(paint)(np.array([[0.5, 0.2, 0], [0.5, 0.2, 4]]))
    assert found[0, 0] > found[0, 1] + 0.3
    assert np.ptp(found[1]) < 1e-9


def test_texture_coordinates_that_are_not_finite_are_told(tmp_path: Path) -> None:
    path = textured(tmp_path)
    path.write_text(path.read_text().replace("vt 2 2", "vt nan 2"))
    paint, notes = read_paint(path)
    assert paint is not None
    assert "texture coordinates are not finite" in notes[0]
    assert np.isfinite(NearestPaint(paint)(QUAD)).all()
