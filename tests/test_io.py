"""Files: round trips, one clear sentence for each kind of bad input, and atomic writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import tifffile
import trimesh
from PIL import Image
from programs import needs_parts

from nstr3d.geometry.mesh.surface import volume
from nstr3d.io import (
    NoFacesError,
    Picture,
    atomic,
    load_image,
    load_mesh,
    load_picture,
    save_image,
    save_json,
    save_mesh,
    save_picture,
)
from nstr3d.io.atomic import atomic_path
from nstr3d.types import Mesh

FORMATS = [".ply", ".obj", ".stl", ".off", ".glb"]
TRIANGLE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
PLY_HEADER = (
    "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float "
    "z\n"
    "element {} {}\nproperty list uchar int vertex_indices\nend_header\n"
)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode("latin-1") if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("scale", "offset"), [(1.0, 0.0), (1e-3, 1e6), (1e-12, 0.0), (1e12, 0.0), (1e-12, 1.0e-6)]
)
def test_meshes_come_back(tmp_path: Path, suffix: str, scale: float, offset: float) -> None:
    mesh = Mesh(oracles.torus().vertices * scale + offset, oracles.torus().faces)
    path = tmp_path / f"torus{suffix}"
    save_mesh(path, mesh)
    loaded = load_mesh(path)
    assert loaded.vertices.dtype == np.float64
    assert loaded.faces.dtype == np.int64
    np.testing.assert_allclose(
        loaded.corners, mesh.corners, rtol=0, atol=1e-6 * np.ptp(mesh.vertices)
    )
    if suffix != ".stl":  # STL has no shared vertices
        np.testing.assert_array_equal(loaded.faces, mesh.faces)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off"])
def test_precision_is_double_only_where_single_would_show(tmp_path: Path, suffix: str) -> None:
    mesh = oracles.sphere(2)
    save_mesh(tmp_path / f"near{suffix}", mesh)
    near = load_mesh(tmp_path / f"near{suffix}").vertices
    np.testing.assert_allclose(near, mesh.vertices, rtol=2e-7)
    assert (near != mesh.vertices).any()
    far = Mesh(mesh.vertices + 1e6, mesh.faces)
    save_mesh(tmp_path / f"far{suffix}", far)
    np.testing.assert_array_equal(load_mesh(tmp_path / f"far{suffix}").vertices, far.vertices)


def test_saving_is_possible_over_an_old_file_and_in_upper_case(tmp_path: Path) -> None:
    for mesh in (oracles.cube(), oracles.tetrahedron()):
        save_mesh(tmp_path / "shape.PLY", mesh)
    assert len(load_mesh(tmp_path / "shape.PLY").faces) == 4


def test_polygons_are_triangulated(tmp_path: Path) -> None:
    corners = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv -1 .5 0\n"
    mesh = load_mesh(written(tmp_path, "mixed.obj", corners + "f 1 2 3 4\nf 1 2 3 4 5\n"))
    assert len(mesh.faces) == 2 + 3
    a, b, c = np.moveaxis(mesh.corners, 1, 0)
    assert np.cross(b - a, c - a)[:, 2].sum() / 2 == pytest.approx(1 + 1.5)


def test_obj_may_count_from_the_end_and_hold_old_encodings_and_lost_materials(
    tmp_path: Path,
) -> None:
    text = "# gr\xf6\xdfe 0\nmtllib lost.mtl\nusemtl gone\n"
    text += "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvn 0 0 1\n"
    mesh = load_mesh(written(tmp_path, "odd.obj", text + "f -4/1/1 -3/1/1 -2/1/1 # 0\nf 1 2 4\n"))
    np.testing.assert_array_equal(mesh.corners[0], TRIANGLE)
    assert len(mesh.faces) == 2


def test_scenes_are_flattened_with_their_transforms(tmp_path: Path) -> None:
    tetrahedron = trimesh.Trimesh(
        oracles.tetrahedron().vertices, oracles.tetrahedron().faces, process=False
    )
    scene = trimesh.Scene()
    scene.add_geometry(
        tetrahedron,
        geom_name="one",
        transform=trimesh.transformations.translation_matrix([5, 6, 7]),
    )
    scene.add_geometry(tetrahedron.copy(), geom_name="two", transform=np.diag([-2.0, 2, 2, 1]))
    scene.add_geometry(trimesh.PointCloud(np.full((2, 3), 50.0)))
    scene.export(str(tmp_path / "scene.glb"))
    mesh = load_mesh(tmp_path / "scene.glb")
    assert len(mesh.faces) == 8
    np.testing.assert_allclose([mesh.bounds.lower, mesh.bounds.upper], [[-2, 0, 0], [6, 7, 8]])
    # The faces of the mirrored tetrahedron still point outward.
    assert volume(mesh) == pytest.approx(1 / 6 + 8 / 6)


@needs_parts("formats")
def test_3mf_and_collada_are_read(tmp_path: Path) -> None:
    mesh = trimesh.Trimesh(
        oracles.tetrahedron().vertices, oracles.tetrahedron().faces, process=False
    )
    scene = trimesh.Scene()
    scene.add_geometry(mesh, transform=np.diag([3.0, 1, 1, 1]))
    scene.export(str(tmp_path / "a.3mf"))
    assert volume(load_mesh(tmp_path / "a.3mf")) == pytest.approx(3 / 6)
    mesh.export(str(tmp_path / "a.dae"))
    assert volume(load_mesh(tmp_path / "a.dae")) == pytest.approx(1 / 6)


def test_textures_are_not_needed(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((4, 4, 3), 200, np.uint8))
    visual = trimesh.visual.TextureVisuals(uv=np.zeros((4, 2)), image=picture)
    tetrahedron = oracles.tetrahedron()
    trimesh.Trimesh(tetrahedron.vertices, tetrahedron.faces, visual=visual, process=False).export(
        str(tmp_path / "t.glb")
    )
    np.testing.assert_array_equal(load_mesh(tmp_path / "t.glb").corners, tetrahedron.corners)


JUNK = bytes(range(256)) * 8
CORNERS = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
BAD_MESHES = {
    "nothing.obj": (b"", "is empty"),
    "shape.step": ("solid", "STEP is read only with another package: pip install cascadio"),
    "noextension": ("solid", "unknown mesh extension ''"),
    "junk.obj": (JUNK, "is binary and not OBJ text"),
    "junk.ply": (JUNK, "has no PLY header"),
    "junk.off": (JUNK, "is binary and not OFF text"),
    "junk.stl": (JUNK, "could not be read as STL: it promises"),
    "junk.glb": (JUNK, "could not be read as glTF: it is damaged"),
    "junk.gltf": (JUNK, "could not be read as glTF: it is damaged"),
    "text.obj": ("hello world\n", "holds no geometry"),
    "void.stl": (b"\0" * 84, "holds no geometry"),
    "points.obj": (CORNERS, r"has 3 points but no faces; fit it with nstr3d points"),
    "points.ply": (
        PLY_HEADER.format(3, "face", 0) + "0 0 0\n1 0 0\n0 1 0\n",
        "has 3 points but no faces",
    ),
    "points.off": ("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "has 3 points but no faces"),
    "nan.obj": ("v 0 0 0\nv 1 nan 0\nv 0 1 0\nf 1 2 3\n", "vertex 1 is not finite"),
    "inf.off": ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 inf 0\n3 0 1 2\n", "vertex 2 is not finite"),
    "zero.obj": (CORNERS + "f 1 2 3\nf 1 2 0\n", "face on line 5 names vertex 0"),
    "zero_uv.obj": (CORNERS + "vt 0 0\nf 0/1 1/1 2/1\n", "face on line 5 names vertex 0"),
    "beyond.obj": (
        CORNERS + "f 1 2 3\nf 1 2 4\n",
        "line 5 names vertex 4, but the file has 3",
    ),
    "far.obj": (CORNERS + f"f 1 2 {2**64}\n", "line 4 names a number beyond 2\\^62, but the file"),
    "before.obj": (CORNERS + "f -1 -2 -4\n", "face on line 4 names vertex -4"),
    "beyond.off": (
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n",
        "face 0 names vertex 3",
    ),
    "before.off": (
        "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n",
        "face 0 names vertex -1",
    ),
    "beyond.ply": (
        PLY_HEADER.format(3, "face", 1) + "0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n",
        "face 0 names vertex 3",
    ),
    "before.ply": (
        PLY_HEADER.format(3, "face", 1) + "0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n",
        "face 0 names vertex -1",
    ),
}


@pytest.mark.parametrize("name", BAD_MESHES)
def test_bad_meshes_are_refused_with_the_file_and_the_reason(tmp_path: Path, name: str) -> None:
    content, sentence = BAD_MESHES[name]
    path = written(tmp_path, name, content)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_mesh(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    is_cloud = name in ("points.obj", "points.ply", "points.off")
    assert isinstance(caught.value, NoFacesError) == is_cloud


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".glb"])
def test_truncated_binaries_are_refused(tmp_path: Path, suffix: str) -> None:
    save_mesh(tmp_path / f"whole{suffix}", oracles.torus())
    part = written(tmp_path, f"part{suffix}", (tmp_path / f"whole{suffix}").read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"could not be read as|cut short"):
        load_mesh(part)


@pytest.mark.parametrize("load", [load_mesh, load_image])
def test_missing_files_and_folders_are_refused(tmp_path: Path, load) -> None:
    (tmp_path / "loop.obj").symlink_to("loop.obj")
    with pytest.raises(FileNotFoundError, match=r"loop\.obj is a link to nothing"):
        load_mesh(tmp_path / "loop.obj")
    with pytest.raises(FileNotFoundError, match=r"lost\.obj does not exist"):
        load(tmp_path / "lost.obj")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "mesh", "sentence"),
    [
        ("a.fbx", oracles.cube(), r"cannot write the extension '.fbx'; use one of .ply, .obj"),
        ("a.ply", Mesh(TRIANGLE, np.zeros((0, 3), int)), "has no faces"),
        ("a.ply", Mesh(TRIANGLE, np.array([[0, 1, 3]])), "face 0 names vertex 3"),
        ("a.ply", Mesh(TRIANGLE + np.inf, np.array([[0, 1, 2]])), "vertex 0 is not finite"),
    ],
)
def test_bad_meshes_are_not_saved(tmp_path: Path, name: str, mesh: Mesh, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        save_mesh(tmp_path / name, mesh)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = written(tmp_path, "result.txt", "old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == ".txt"
            temporary.write_text("half")
            assert target.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [
        ("result.txt", "old")
    ]


def test_a_disk_that_fills_up_says_which_file_it_was_for(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, atomic_path(tmp_path / "a.bin"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.bin")
    with (
        pytest.raises(OSError, match="No space") as caught,
        atomic_path(tmp_path / "a.bin") as temporary,
    ):
        raise OSError(28, "No space left on device", str(temporary))
    assert caught.value.filename == str(tmp_path / "a.bin")
    assert not list(tmp_path.iterdir())


def test_a_write_that_succeeds_replaces_what_a_link_points_at(tmp_path: Path) -> None:
    target = written(tmp_path, "real.txt", "old")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link.txt", "real.txt"]


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    ordinary = written(tmp_path, "ordinary", "x")
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "atomic").stat().st_mode == ordinary.stat().st_mode


def test_a_failing_encoder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    monkeypatch.setattr(atomic.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_image(tmp_path / "a.png", np.zeros((2, 2, 3)))
    with pytest.raises(OSError, match="no space"):
        save_mesh(tmp_path / "a.ply", oracles.cube())
    assert list(tmp_path.iterdir()) == []


def test_writing_into_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="create it before saving"):
        save_mesh(tmp_path / "lost" / "a.ply", oracles.cube())
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save_json(tmp_path / "folder.json", {})


@pytest.mark.parametrize("channels", [3, 4])
def test_images_come_back(tmp_path: Path, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    save_image(tmp_path / "bytes.png", image)
    save_image(tmp_path / "floats.png", image / 255)
    for name in ("bytes.png", "floats.png"):
        loaded = load_image(tmp_path / name)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, image.astype(np.float32) / 255)


def test_a_smooth_gradient_has_no_bands(tmp_path: Path) -> None:
    """Means over 8 x 8 pixels keep a slope of a tenth of a step from pixel to pixel."""
    image = np.broadcast_to(np.linspace(100, 106.3, 64)[None, :, None] / 255, (64, 64, 3))
    save_image(tmp_path / "a.png", image)
    written = load_image(tmp_path / "a.png") * 255

    def means(values: np.ndarray) -> np.ndarray:
        return values.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3))

    assert np.abs(written - image * 255).max() < 1
    np.testing.assert_allclose(means(written), means(image * 255), atol=0.04)


def test_every_kind_of_picture_becomes_grey_rgb_or_rgba(tmp_path: Path) -> None:
    grey = np.array([[0, 255], [51, 102]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_allclose(load_image(tmp_path / "grey.png")[..., 0], grey / 255, atol=1e-7)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_allclose(load_image(tmp_path / "deep.png")[..., 0], grey / 255, atol=1e-7)
    Image.fromarray(grey).convert("1").save(tmp_path / "bits.png")
    assert load_image(tmp_path / "bits.png").shape == (2, 2, 1)
    Image.fromarray(np.dstack([grey] * 3)).convert("P").save(tmp_path / "palette.png")
    assert load_image(tmp_path / "palette.png").shape == (2, 2, 3)
    Image.fromarray(np.dstack([grey, grey])).save(tmp_path / "veil.png")
    assert load_image(tmp_path / "veil.png").shape == (2, 2, 4)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_keep_shape_and_depth(tmp_path: Path, channels: int, bits: int) -> None:
    peak = 2**bits - 1
    values = (np.random.default_rng(0).integers(0, peak + 1, (9, 14, channels)) / peak).astype(
        np.float32
    )
    save_picture(tmp_path / "a.png", Picture(values, bits))
    loaded = load_picture(tmp_path / "a.png")
    assert (loaded.bits, loaded.values.dtype, loaded.notes) == (bits, np.float32, ())
    np.testing.assert_allclose(loaded.values, values, rtol=0, atol=1e-7)


def test_deep_tiff_colours_are_read_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 7, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    np.testing.assert_allclose(load_picture(tmp_path / "a.tif").values, values / 65535, atol=1e-7)


def test_deep_ppm_colours_are_read_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1001, (6, 7, 3))
    for peak in (1000, 65535):
        head = f"P6\n# a\n7 6\n{peak}\n".encode()
        picture = load_picture(written(tmp_path, "a.ppm", head + values.astype(">u2").tobytes()))
        assert (picture.bits, picture.notes) == (16, ())
        np.testing.assert_allclose(picture.values, values / peak, atol=1e-7)
    with pytest.raises(ValueError, match="could not be read as a picture"):
        load_picture(written(tmp_path, "b.ppm", head + values.astype(">u2").tobytes()[:-2]))


@pytest.mark.parametrize(
    ("kind", "top", "peak"),
    [
        ("u4", 4095, 65535), ("u4", 2**32 - 1, 2**32 - 1), ("i4", 4095, 65535),
        ("i4", 2**20, 2**31 - 1), ("i2", 20_000, 32767),
    ],
)  # fmt: skip
def test_the_scale_of_wide_and_signed_integers_is_said(
    tmp_path: Path, kind: str, top: int, peak: int
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, top // 3], [top, 1]], kind))
    picture = load_picture(tmp_path / "a.tif")
    expected = np.array([[0, top // 3], [top, 1]]) / peak
    np.testing.assert_allclose(picture.values[..., 0], expected, rtol=1e-6)
    assert picture.notes == (f"its integers, up to {top}, were divided by {peak}",)


def test_negative_integers_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, -5], [9, 1]], "i2"))
    with pytest.raises(ValueError, match="of full scale; scale them"):
        load_picture(tmp_path / "a.tif")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((3, 4, 3), level, np.uint8)) for level in (10, 200)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    film = load_picture(tmp_path / "film.gif")
    assert film.values.shape == (3, 4, 3)
    assert abs(film.values.mean() - 10 / 255) < 0.02
    assert film.notes == ("it has 2 frames, of which the first was taken",)
    frames[0].convert("CMYK").save(tmp_path / "print.tif")
    assert load_picture(tmp_path / "print.tif").notes == ("its CMYK colours were turned into RGB",)
    assert load_picture(tmp_path / "print.tif").values.shape == (3, 4, 3)


def test_float_pictures_lie_in_the_unit_interval(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 6)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(load_picture(tmp_path / "a.tif").values[..., 0], values)
    assert load_picture(tmp_path / "a.tif").bits == 32
    for name, bad in (("b.tif", values * 300), ("c.tif", values * np.float32(np.nan))):
        Image.fromarray(bad).save(tmp_path / name)
        with pytest.raises(ValueError, match="scale them"):
            load_picture(tmp_path / name)


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 2, 2)), np.zeros((2, 2)), np.full((2, 2, 1), 1.5), np.full((2, 2, 1), np.nan)],
)
def test_bad_deep_pictures_are_not_saved(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="picture"):
        save_picture(tmp_path / "a.png", Picture(values, 16))
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_turned_as_the_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(np.zeros((2, 5, 3), np.uint8)).save(tmp_path / "turned.png", exif=exif)
    assert load_image(tmp_path / "turned.png").shape == (5, 2, 3)


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"", "is empty"), (JUNK, "could not be read as a picture")]
)
def test_bad_pictures_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_image(written(tmp_path, "bad.png", content))


def test_a_huge_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "a.png", np.zeros((5, 5, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="promises 25 pixels; at most 20 are read"):
        load_image(tmp_path / "a.png")


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "whole.png", np.random.default_rng(0).random((64, 64, 3)))
    with pytest.raises(ValueError, match="could not be read"):
        load_image(written(tmp_path, "part.png", (tmp_path / "whole.png").read_bytes()[:3000]))


@pytest.mark.parametrize(
    ("name", "image", "sentence"),
    [
        ("a.jpg", np.zeros((2, 2, 3)), "end the name in .png"),
        ("a.png", np.zeros((2, 2)), r"not \(2, 2\)"),
        ("a.png", np.zeros((2, 2, 2)), r"not \(2, 2, 2\)"),
        ("a.png", np.zeros((0, 2, 3)), r"not \(0, 2, 3\)"),
        ("a.png", np.full((2, 2, 3), 1.5), r"spans \[1.5, 1.5\]"),
        ("a.png", np.full((2, 2, 3), np.nan), r"spans \[nan, nan\]"),
        ("a.png", np.zeros((2, 2, 3), np.int32), "uint8 or float, not int32"),
    ],
)
def test_bad_pictures_are_not_saved(
    tmp_path: Path, name: str, image: np.ndarray, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        save_image(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back(tmp_path: Path) -> None:
    data = {
        "a": [1, 2.5, None, True],
        "b": {"c": np.float32(0.5), "d": np.arange(3)},
        "e": ("x", np.int64(7)),
        5: "\u00f6",
    }
    save_json(tmp_path / "a.json", data)
    expected = {
        "a": [1, 2.5, None, True],
        "b": {"c": 0.5, "d": [0, 1, 2]},
        "e": ["x", 7],
        "5": "\u00f6",
    }
    assert json.loads((tmp_path / "a.json").read_text()) == expected


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"scores": [{"psnr": 1.0}, {"psnr": float("nan")}]}, r"data\.scores\[1\]\.psnr is nan"),
        ({"a": np.array([0.0, -np.inf])}, r"data\.a\[1\] is -inf"),
        ({"a": {1, 2}}, r"data\.a is a set"),
    ],
)
def test_json_refuses_what_it_cannot_hold(tmp_path: Path, data: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        save_json(tmp_path / "a.json", data)
    assert list(tmp_path.iterdir()) == []


def test_colours_of_vertices_go_into_files_that_hold_them(tmp_path):
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    mesh, colours = (
        Mesh(vertices, np.array([[0, 1, 2]])),
        np.array([[1.0, 0, 0], [0, 0.2, 0], [0, 0, 1]]),
    )
    save_mesh(tmp_path / "a.ply", mesh, colours)
    loaded: Any = trimesh.load(tmp_path / "a.ply", process=False)
    np.testing.assert_array_equal(loaded.vertices, vertices)
    np.testing.assert_array_equal(loaded.visual.vertex_colors[:, :3], colours * 255)
    np.testing.assert_array_equal(load_mesh(tmp_path / "a.ply").faces, mesh.faces)
    for name, wrong in (("b.stl", colours), ("b.ply", colours[:2]), ("b.ply", colours * 2)):
        with pytest.raises(ValueError, match=r"colours \(v, 3\) in \[0, 1\]"):
            save_mesh(tmp_path / name, mesh, wrong)
