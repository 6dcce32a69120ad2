"""Colours of mesh files: what is read, sampled and looked up, against closed forms."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import trimesh
from oracles import cube
from PIL import Image

from nstr3d.geometry.mesh.paint import NearestPaint, sample_paint
from nstr3d.io import load_mesh, save_image, save_mesh
from nstr3d.io.light import to_display, to_linear
from nstr3d.io.paint import CLAMP, MIRROR, Paint, PaintedPart, bilinear
from nstr3d.io.paintfile import read_paint
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
    outside = np.array([[1.3, 0.75], [-0.3, 0.25]])
    kept = bilinear(picture, np.array([[0.75, 0.75], [0.25, 0.25]]))
    np.testing.assert_allclose(bilinear(picture, outside, (CLAMP, CLAMP)), kept, atol=1e-12)
    turned = bilinear(picture, np.array([[0.7, 0.75], [0.3, 0.25]]))
    np.testing.assert_allclose(bilinear(picture, outside, (MIRROR, MIRROR)), turned, atol=1e-12)
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
    paint = Paint((PaintedPart(mesh, mesh.corners, "vertices"),), "vertices")
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


def test_a_file_whose_faces_have_no_corners_has_no_colours(tmp_path: Path) -> None:
    path = textured(tmp_path)
    path.write_text(re.sub(r"(?m)^f .*$", "f 1/1 2/2", path.read_text()))
    assert read_paint(path)[0] is None


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
    assert "texture coordinates that are not finite" in notes[0]
    assert np.isfinite(NearestPaint(paint)(QUAD)).all()


TETRA = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
SIDES = "usemtl a\nf 1 3 2\nf 1 2 4\nusemtl b\nf 2 3 4\nf 1 4 3\n"


def seen(path: Path) -> tuple[np.ndarray, list[str]]:
    """The colours above the slanted face of the tetrahedron and below its base, and the notes."""
    paint, notes = read_paint(path)
    assert paint is not None, notes
    return NearestPaint(paint)(np.array([[0.5, 0.5, 0.5], [0.2, 0.2, -0.1]])), notes


@pytest.mark.parametrize(
    "library",
    [
        "mtllib a.mtl b.mtl\n",
        "mtllib a.mtl\nmtllib b.mtl\n",
        "# " + 100_000 * "x" + "\nmtllib a.mtl\nmtllib b.mtl\n",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_materials_of_several_files_are_found(tmp_path: Path, library: str, end: str) -> None:
    (tmp_path / "a.mtl").write_text("newmtl a\nKd 1 0 0 # red\n")
    (tmp_path / "b.mtl").write_text("newmtl b\nKd 0 0 1\nnewmtl c\nKd xyz 1 1 1\n")
    text = (library + TETRA + SIDES).replace("\n", end)
    (tmp_path / "t.obj").write_bytes(text.encode())
    colours, notes = seen(tmp_path / "t.obj")
    np.testing.assert_allclose(colours, [[0, 0, 1], [1, 0, 0]], atol=1e-9)
    assert all("material c could not be read" in note for note in notes)


@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("kind", ["uchar", "ushort", "int", "float", "double"])
@pytest.mark.parametrize("names", ["red green blue", "r g b", "Red Green Blue"])
def test_colours_of_ply_have_any_type_and_range(
    tmp_path: Path, kind: str, full: int, names: str
) -> None:
    if kind in ("uchar", "ushort", "int") and full == 1:
        full = {"uchar": 255, "ushort": 65535, "int": 2**31 - 1}[kind]
    level = full // 2 if full > 1 else 0.5
    rows = "".join(f"{x} {y} {z} {level} 0 {full}\n" for x, y, z in QUAD)
    head = "ply\nformat ascii 1.0\nelement vertex 4\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += "".join(f"property {kind} {name}\n" for name in names.split())
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "a.ply").write_text(head + rows + "4 0 1 2 3\n")
    paint, notes = read_paint(tmp_path / "a.ply")
    assert paint is not None
    assert not notes
    np.testing.assert_allclose(NearestPaint(paint)(QUAD), [[0.5, 0, 1]] * 4, atol=0.003)


def test_textures_of_ply_are_read(tmp_path: Path) -> None:
    textured(tmp_path)
    head = "ply\nformat ascii 1.0\ncomment TextureFile sheet.png\nelement vertex 4\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    wedge = "element face 2\nproperty list uchar int vertex_indices\n"
    wedge += "property list uchar float texcoord\nend_header\n"
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in QUAD)
    faces = "3 0 1 2 6 0 0 1 0 1 1\n3 0 2 3 6 0 0 1 1 0 1\n"
    (tmp_path / "wedge.ply").write_text(head + wedge + rows + faces)
    plain = "property float s\nproperty float t\nelement face 1\n"
    plain += "property list uchar int vertex_indices\nend_header\n"
    rows = "".join(f"{x} {y} {z} {x} {y}\n" for x, y, z in QUAD)
    (tmp_path / "vertex.ply").write_text(head + plain + rows + "4 0 1 2 3\n")
    at = np.array([[0.25, 0.75, 0], [0.75, 0.75, 0], [0.25, 0.25, 0]])
    for name in ("wedge.ply", "vertex.ply"):
        paint, notes = read_paint(tmp_path / name)
        assert paint is not None
        assert not notes
        np.testing.assert_allclose(NearestPaint(paint)(at), np.eye(3), atol=1e-6)
    (tmp_path / "sheet.png").unlink()
    paint, notes = read_paint(tmp_path / "vertex.ply")
    assert paint is None
    assert "texture sheet.png is not there" in notes[0]


def test_faces_of_ply_keep_the_numbers_of_their_textures(tmp_path: Path) -> None:
    """The first texture is missing, and a face names one that does not exist."""
    save_image(tmp_path / "blue.png", np.broadcast_to(BLUE, (4, 4, 3)).copy())
    head = "ply\nformat ascii 1.0\ncomment TextureFile lost.png\ncomment TextureFile blue.png\n"
    head += "element vertex 4\n" + "".join(f"property float {axis}\n" for axis in "xyz")
    head += "element face 2\nproperty list uchar int vertex_indices\n"
    head += "property list uchar float texcoord\nproperty int texnumber\nend_header\n"
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in QUAD)
    at = np.array([[0.7, 0.2, 0], [0.2, 0.7, 0]])
    for first in (0, 5):
        faces = f"3 0 1 2 6 0 0 1 0 1 1 {first}\n3 0 2 3 6 0 0 1 1 0 1 1\n"
        (tmp_path / "two.ply").write_text(head + rows + faces)
        paint, notes = read_paint(tmp_path / "two.ply")
        assert paint is not None
        assert "lost.png is not there" in notes[0]
        assert "1 of its 2 parts, with 1 faces, have no colour" in notes[1]
        np.testing.assert_allclose(NearestPaint(paint)(at), [[0.8] * 3, BLUE], atol=0.003)


@pytest.mark.parametrize("scale", [1, 255])
def test_colours_of_off_are_read(tmp_path: Path, scale: int) -> None:
    number = "{:.1f}" if scale == 1 else "{:.0f}"
    shade = " ".join(number.format(value * scale) for value in (1, 0, 0))
    corners = "".join(f"{x} {y} {z} {shade}\n" for x, y, z in QUAD)
    (tmp_path / "v.off").write_text(f"COFF\n4 1 0\n{corners}4 0 1 2 3\n")
    bare = "".join(f"{x} {y} {z}\n" for x, y, z in QUAD)
    (tmp_path / "f.off").write_text(f"OFF\n4 1 0\n{bare}4 0 1 2 3 {shade}\n")
    for name, source in (("v.off", "vertices"), ("f.off", "faces")):
        paint, _ = read_paint(tmp_path / name)
        assert paint is not None
        assert paint.source == source
        np.testing.assert_allclose(NearestPaint(paint)(QUAD), [[1, 0, 0]] * 4, atol=1e-9)


def scene(folder: Path, texture: dict, sampler: dict, uv: np.ndarray, kind: int = 5126) -> Path:
    """A glTF square whose texture is red, green, blue and yellow."""
    textured(folder)
    points = QUAD.astype("<f4").tobytes()
    types = {5126: "<f4", 5121: "u1", 5123: "<u2"}
    coordinates = np.ascontiguousarray(uv.astype(types[kind])).tobytes()
    indices = FACES.astype("<u2").tobytes()
    parts = [points, coordinates + bytes(-len(coordinates) % 4), indices]
    views, place = [], 0
    for part in parts:
        views.append({"buffer": 0, "byteOffset": place, "byteLength": len(part)})
        place += len(part)
    shape = [
        {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
        {"bufferView": 1, "componentType": kind, "count": 4, "type": "VEC2",
         "normalized": kind != 5126},
        {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
    ]  # fmt: skip
    number = texture.get("texCoord", 0)
    tree = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, f"TEXCOORD_{number}": 1},
                             "indices": 2, "material": 0}]}
        ],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0, **texture}}}],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [sampler],
        "images": [{"uri": "sheet.png"}],
        "accessors": shape,
        "bufferViews": views,
        "buffers": [{"byteLength": place, "uri": "data.bin"}],
    }  # fmt: skip
    (folder / "data.bin").write_bytes(b"".join(parts))
    (folder / "a.gltf").write_text(json.dumps(tree))
    return folder / "a.gltf"


CORNER = {"red": (0.25, 0.25), "green": (0.75, 0.25), "blue": (0.25, 0.75), "yellow": (0.75, 0.75)}
RGBY = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}


@pytest.mark.parametrize(
    ("texture", "sampler", "kind", "at", "expected"),
    [
        ({}, {}, 5126, (0.25, 0.25), "red"),
        ({}, {}, 5126, (1.25, -0.25), "blue"),
        ({}, {"wrapS": 33071, "wrapT": 33071}, 5126, (1.75, -0.75), "green"),
        ({}, {"wrapS": 33648, "wrapT": 33648}, 5126, (1.25, 0.25), "green"),
        ({"texCoord": 1}, {}, 5126, (0.75, 0.75), "yellow"),
        ({}, {}, 5121, (0.75, 0.25), "green"),
        ({}, {}, 5123, (0.25, 0.75), "blue"),
        ({"extensions": {"KHR_texture_transform": {"offset": [0.5, 0]}}}, {}, 5126,
         (0.25, 0.25), "green"),
        ({"extensions": {"KHR_texture_transform": {"scale": [0.5, 0.5]}}}, {}, 5126,
         (1.5, 0.5), "green"),
        ({"extensions": {"KHR_texture_transform": {"rotation": np.pi / 2}}}, {}, 5126,
         (0.25, -0.75), "green"),
    ],
)  # fmt: skip
def test_textures_of_gltf_follow_their_sampler_and_transform(
    tmp_path: Path, texture: dict, sampler: dict, kind: int, at: tuple, expected: str
) -> None:
    """In glTF (0, 0) is the upper left corner of the picture, and a rotation maps (u, v) to (u cos
    - v sin, u sin + v cos)."""
    full = {5126: 1, 5121: 255, 5123: 65535}[kind]
    path = scene(tmp_path, texture, sampler, np.tile(np.array(at) * full, (4, 1)).round(6), kind)
    paint, notes = read_paint(path)
    assert paint is not None, notes
    found = NearestPaint(paint)(QUAD)
    np.testing.assert_allclose(found, [RGBY[expected]] * 4, atol=0.02)


def test_deep_and_grey_pictures_are_textures(tmp_path: Path) -> None:
    path = textured(tmp_path)
    for mode, value, wanted in (("I;16", 32768, 0.5), ("L", 64, 0.251), ("RGBA", None, 0.502)):
        shape = (2, 2) if value is not None else (2, 2, 4)
        kind = np.uint16 if mode == "I;16" else np.uint8
        Image.fromarray(np.full(shape, value or 128, kind)).save(tmp_path / "sheet.png")
        paint, notes = read_paint(path)
        assert paint is not None, notes
        np.testing.assert_allclose(NearestPaint(paint)(QUAD), wanted, atol=0.002)


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ("-s 2 2 2 sheet.png", (0.0625, 0.1875, 0), (1, 0, 0)),
        ("-o 0.5 0 sheet.png", (0.125, 0.375, 0), (0, 1, 0)),
        ("-bm 0.3 -clamp on sheet.png", (0.9, 0.375, 0), (0, 1, 0)),
        ('"sheet.png"', (0.125, 0.375, 0), (1, 0, 0)),
        (r".\sheet.png", (0.125, 0.375, 0), (1, 0, 0)),
    ],
)
def test_options_of_maps_are_followed(
    tmp_path: Path, words: str, at: tuple, expected: tuple
) -> None:
    paint, notes = read_paint(textured(tmp_path, f"map_Kd {words}"))
    assert paint is not None, notes
    assert not notes
    np.testing.assert_allclose(NearestPaint(paint)(np.array([at])), [expected], atol=1e-6)
