"""glTF as programs write it: the volume and place of a tetrahedron in each way of storing it."""

import base64
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gltf import Gltf
from programs import needs_parts

from nstr3d.geometry.mesh.surface import volume
from nstr3d.io import NoFacesError, load_mesh, read_mesh

POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "<f4")
FACES = np.array([0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3], "<u2")
VOLUME = 1 / 6


def plain(**primitive: Any) -> Gltf:
    file = Gltf()
    entry = {"attributes": {"POSITION": file.accessor(POINTS)}, "indices": file.accessor(FACES)}
    file.tree["meshes"] = [{"primitives": [entry | primitive]}]
    return file


def check(path: Path, times: float = 1.0, upper=(1, 1, 1)) -> None:
    mesh, notes = read_mesh(path)
    assert not notes
    assert volume(mesh) == pytest.approx(VOLUME * times, abs=1e-4)
    np.testing.assert_allclose(mesh.bounds.upper, upper, atol=1e-4)


def test_node_transforms_multiply_and_mirrors_turn_faces(tmp_path: Path) -> None:
    file = plain()
    half = np.sqrt(0.5)
    file.tree["nodes"] = [
        {"children": [1], "translation": [5, 0, 0], "rotation": [0, 0, half, half]},
        {"mesh": 0, "matrix": np.diag([2.0, -3, 1, 1]).T.ravel().tolist()},
    ]
    # (x, y) becomes (2 x, -3 y) and then, a quarter turn about z, (3 y, 2 x).
    check(file.save(tmp_path / "a.glb"), 6, (8, 2, 1))


@pytest.mark.parametrize("kind", ["i1", "u1", "<i2", "<u2"])
def test_quantised_positions_are_scaled(tmp_path: Path, kind: str) -> None:
    peak = np.iinfo(kind).max
    file = Gltf()
    padded = np.zeros((4, 4), kind)
    padded[:, :3] = POINTS * peak
    view = file.view(padded.tobytes(), byteStride=padded.itemsize * 4)
    codes = {"i1": 5120, "u1": 5121, "<i2": 5122, "<u2": 5123}
    for scale, normalised in ((3.0, True), (3.0 / peak, False)):
        file.tree["accessors"].append(
            {"bufferView": view, "componentType": codes[kind], "count": 4, "type": "VEC3"}
            | ({"normalized": True} if normalised else {})
        )
        entry = {"attributes": {"POSITION": len(file.tree["accessors"]) - 1}}
        entry["indices"] = file.accessor(FACES)
        file.tree["meshes"] = [{"primitives": [entry]}]
        file.tree["nodes"] = [{"mesh": 0, "scale": [scale] * 3}]
        file.tree["extensionsRequired"] = ["KHR_mesh_quantization"]
        check(file.save(tmp_path / "a.glb"), 27, (3, 3, 3))


@pytest.mark.parametrize("has_base", [True, False])
def test_sparse_accessors_replace_rows(tmp_path: Path, has_base: bool) -> None:
    file = plain()
    places = np.array([1, 2, 3], "<u2") if not has_base else np.array([3], "<u2")
    rows = POINTS[places] * [1, 1, 4]
    entry = file.tree["accessors"][0]
    entry["sparse"] = {
        "count": len(places),
        "indices": {"bufferView": file.view(places.tobytes()), "componentType": 5123},
        "values": {"bufferView": file.view(rows.astype("<f4").tobytes())},
    }
    if not has_base:
        del entry["bufferView"]
    check(file.save(tmp_path / "a.glb"), 4, (1, 1, 4))


def test_strips_fans_and_missing_indices(tmp_path: Path) -> None:
    file = plain()
    points = file.tree["meshes"][0]["primitives"][0]["attributes"]
    strip = file.accessor(np.array([0, 2, 1, 3, 0, 2], "<u1"))
    file.tree["meshes"][0]["primitives"] = [{"attributes": points, "indices": strip, "mode": 5}]
    check(file.save(tmp_path / "strip.glb"))
    fans = [file.accessor(np.array(fan, "<u4")) for fan in ([0, 2, 1, 3, 2], [1, 2, 3])]
    file.tree["meshes"][0]["primitives"] = [
        {"attributes": points, "indices": fan, "mode": 6} for fan in fans
    ]
    check(file.save(tmp_path / "fan.glb"))
    soup = {"attributes": {"POSITION": file.accessor(POINTS[FACES])}}
    file.tree["meshes"][0]["primitives"] = [soup]
    check(file.save(tmp_path / "soup.glb"))


def test_instances_are_placed(tmp_path: Path) -> None:
    file = plain()
    half = round(np.sqrt(0.5) * 32767)
    attributes = {
        "TRANSLATION": file.accessor(np.array([[0, 0, 0], [4, 0, 0]], "<f4")),
        "SCALE": file.accessor(np.array([[1, 1, 1], [2, 2, 2]], "<f4")),
        "ROTATION": file.accessor(
            np.array([[0, 0, 0, 32767], [0, 0, half, half]], "<i2"), normalized=True
        ),
    }
    node = {"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}}
    file.tree["nodes"] = [node | {"translation": [0, 0, 7]}]
    check(file.save(tmp_path / "a.glb"), 9, (4, 2, 9))


def test_only_the_default_scene_is_read_and_the_others_are_told(tmp_path: Path) -> None:
    file = plain()
    file.tree |= {"nodes": [{"mesh": 0}, {"mesh": 0, "translation": [9, 0, 0]}], "scene": 1}
    file.tree["scenes"] = [{"nodes": [0]}, {"nodes": [1]}]
    mesh, notes = read_mesh(file.save(tmp_path / "a.glb"))
    assert mesh.bounds.upper[0] == 10
    assert ["2 scenes, of which scene 1" in note for note in notes] == [True]
    del file.tree["scene"], file.tree["scenes"]
    assert len(load_mesh(file.save(tmp_path / "b.glb")).faces) == 8


def test_morphs_and_skins_are_applied_as_the_file_is_at_rest(tmp_path: Path) -> None:
    file = plain()
    target = file.accessor((POINTS * [2, 0, 0]).astype("<f4"))
    mesh = file.tree["meshes"][0]
    mesh["primitives"][0]["targets"] = [{"POSITION": target}]
    mesh["weights"] = [0.5]
    check(file.save(tmp_path / "morph.glb"), 2, (2, 1, 1))
    del mesh["weights"]
    joints = np.array([[0, 1, 0, 0]] * 4, "u1")
    weights = np.array([[0.25, 0.75, 0, 0]] * 4, "<f4")
    inverse = np.tile(np.eye(4, dtype="<f4"), (2, 1, 1))
    inverse[1, 3, 0] = -1  # by columns: joint 1 was bound at x = 1
    attributes = mesh["primitives"][0]["attributes"]
    attributes |= {"JOINTS_0": file.accessor(joints), "WEIGHTS_0": file.accessor(weights)}
    file.tree["skins"] = [{"joints": [1, 2], "inverseBindMatrices": file.accessor(inverse)}]
    file.tree["scenes"] = [{"nodes": [0, 1, 2]}]
    file.tree["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [50, 0, 0]},  # glTF ignores this transform
        {"translation": [0, 4, 0]},
        {"translation": [1, 8, 0]},
    ]
    check(file.save(tmp_path / "skin.glb"), 1, (1, 1 + 0.25 * 4 + 0.75 * 8, 1))


@pytest.mark.parametrize("uri", ["my%20b%C3%BCffer.bin", "data:;base64,"])
def test_buffers_outside_the_file(tmp_path: Path, uri: str) -> None:
    file = plain()
    data = uri.startswith("data:")
    file.body += b"\0" * (-len(file.body) % 4)
    path = file.save(
        tmp_path / "a.gltf", uri + base64.b64encode(file.body).decode() if data else uri
    )
    if not data:
        with pytest.raises(ValueError, match=r"needs the file my büffer\.bin, which is missing"):
            load_mesh(path)
        (tmp_path / "my büffer.bin").write_bytes(file.body)
    check(path)


def edited(**changes: Any) -> Gltf:
    file = plain()
    file.tree |= changes
    return file


def with_draco(view_of: str) -> Gltf:
    extension = {"bufferView": 0, "attributes": {"POSITION": 0}}
    file = plain(extensions={"KHR_draco_mesh_compression": extension})
    if view_of == "two parts":
        whole = dict(file.tree["meshes"][0]["primitives"][0])
        del whole["extensions"]
        file.tree["meshes"][0]["primitives"].insert(0, whole)
    return file


def with_accessor(**changes: Any) -> Gltf:
    file = plain()
    file.tree["accessors"][0] |= changes
    return file


BAD = {
    "required": (edited(extensionsRequired=["VENDOR_cubes"]), "extension VENDOR_cubes"),
    "draco": (with_draco("one part"), "Draco .KHR_draco_mesh_compression"),
    "draco in one part": (with_draco("two parts"), "Draco .KHR_draco_mesh_compression"),
    "version": (edited(asset={"version": "1.0"}), "is glTF 1.0"),
    "loop": (edited(nodes=[{"mesh": 0, "children": [0]}]), "node 0 in two places"),
    "no node": (edited(scenes=[{"nodes": [3]}]), "names entry 3 of its nodes"),
    "no mesh": (edited(meshes=[]), "names entry 0 of its meshes"),
    "too many": (with_accessor(count=400), "promises 400 rows"),
    "no type": (with_accessor(type="VEC9"), "its structure is damaged"),
    "index": (with_accessor(count=3), "face 1 names vertex 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_gltf_is_refused(tmp_path: Path, name: str) -> None:
    file, sentence = BAD[name]
    with pytest.raises(ValueError, match=sentence):
        load_mesh(file.save(tmp_path / "a.glb"))


def test_gltf_of_points_has_no_faces_and_harmless_extensions_pass(tmp_path: Path) -> None:
    with pytest.raises(NoFacesError, match="4 points"):
        load_mesh(plain(mode=0).save(tmp_path / "a.glb"))
    check(edited(extensionsRequired=["KHR_materials_unlit"]).save(tmp_path / "b.glb"))


def test_glb_cut_short_is_refused_with_both_numbers(tmp_path: Path) -> None:
    data = plain().save(tmp_path / "a.glb").read_bytes()
    (tmp_path / "b.glb").write_bytes(data[:-8])
    with pytest.raises(ValueError, match=f"promises {len(data)} bytes but holds {len(data) - 8}"):
        load_mesh(tmp_path / "b.glb")


def test_a_decoder_that_is_not_installed_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(ValueError, match=r"Draco .* pip install nstr3d\[gltf\]"):
        load_mesh(with_draco("one part").save(tmp_path / "a.glb"))


@needs_parts("gltf")
def test_draco_is_decoded(tmp_path: Path) -> None:
    import DracoPy

    file = Gltf()
    packed = DracoPy.encode(POINTS, FACES.reshape(-1, 3).astype(np.uint32), quantization_bits=16)
    extension = {"bufferView": file.view(packed), "attributes": {"POSITION": 0}}
    file.tree["accessors"] = [
        {"componentType": 5126, "count": 4, "type": "VEC3"},
        {"componentType": 5123, "count": 12, "type": "SCALAR"},
    ]
    part = {"attributes": {"POSITION": 0}, "indices": 1}
    part["extensions"] = {"KHR_draco_mesh_compression": extension}
    file.tree |= {
        "meshes": [{"primitives": [part]}],
        "extensionsRequired": ["KHR_draco_mesh_compression"],
    }
    check(file.save(tmp_path / "a.glb"))


def packed_views(points: bytes, faces: bytes, stride: int) -> Gltf:
    """A file of two compressed views whose own buffer is empty."""
    file = plain()
    places = file.view(points), file.view(faces)
    entries = file.tree["bufferViews"]
    packed = [entries[place] for place in places]
    modes = {"mode": "ATTRIBUTES", "byteStride": stride, "count": 4}, {
        "mode": "TRIANGLES", "byteStride": 2, "count": 12,
    }  # fmt: skip
    for entry, data, mode in zip(entries, packed, modes):
        entry["extensions"] = {"EXT_meshopt_compression": data | mode}
        entry["buffer"] = 1
    return file


FALLBACK = {"byteLength": 99, "extensions": {"EXT_meshopt_compression": {"fallback": True}}}


def test_meshopt_is_refused_by_name_without_its_decoder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nstr3d.io.gltffile._has_meshoptimizer", lambda: False)
    file = packed_views(b"\xa0" * 64, b"\xe0" * 64, 12)
    path = file.save(tmp_path / "a.glb", more=(FALLBACK,))
    with pytest.raises(ValueError, match=r"meshopt .EXT_meshopt_compression.: pip install"):
        load_mesh(path)


def test_meshopt_is_decoded(tmp_path: Path) -> None:
    meshopt: Any = pytest.importorskip("meshoptimizer")
    points = meshopt.encode_vertex_buffer(POINTS, 4, 12)
    faces = meshopt.encode_index_buffer(FACES.astype("<u4"), 12, 4)
    file = packed_views(bytes(points), bytes(faces), 12)
    check(file.save(tmp_path / "a.glb", more=(FALLBACK,)))
