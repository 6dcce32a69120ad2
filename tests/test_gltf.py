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


def test_rows_may_lie_among_others(tmp_path: Path) -> None:
    file = Gltf()
    rows = np.zeros((4, 8), "<f4")
    rows[:, 3:6] = POINTS
    view = file.view(rows.tobytes(), byteStride=32)
    file.tree["accessors"] = [
        {"bufferView": view, "byteOffset": 12, "componentType": 5126, "count": 4.0, "type": "VEC3"}
    ]
    entry: dict[str, Any] = {"attributes": {"POSITION": 0}, "indices": file.accessor(FACES)}
    file.tree["meshes"] = [{"primitives": [entry]}]
    check(file.save(tmp_path / "a.glb"))
    tight = plain()
    tight.tree["bufferViews"][0]["byteStride"] = 0  # as old exporters write it
    check(tight.save(tmp_path / "b.glb"))


def test_hidden_nodes_are_told_and_coarse_copies_left_out(tmp_path: Path) -> None:
    file = plain()
    hidden = {"extensions": {"KHR_node_visibility": {"visible": False}}}
    file.tree["nodes"] = [{"mesh": 0}, {"children": [2]} | hidden, {"mesh": 0}, {"mesh": 0}]
    file.tree["nodes"][0]["extensions"] = {"MSFT_lod": {"ids": [3]}}
    file.tree["extensionsRequired"] = ["KHR_node_visibility", "MSFT_lod"]
    del file.tree["scenes"], file.tree["scene"]
    path = file.save(tmp_path / "a.glb")
    mesh, notes = read_mesh(path)
    assert volume(mesh) == pytest.approx(VOLUME)
    assert notes == [f"{path}: 1 hidden nodes (KHR_node_visibility) were left out."]


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
    no_data = {"componentType": 5126, "count": 4, "type": "VEC3"}  # a target that moves nothing
    file.tree["accessors"].append(no_data)
    mesh["primitives"][0]["targets"] = [{"POSITION": len(file.tree["accessors"]) - 1}]
    check(file.save(tmp_path / "still.glb"))
    no_data["count"] = 10**9
    with pytest.raises(ValueError, match=r"1000000000 rows instead of 4 in accessor"):
        load_mesh(file.save(tmp_path / "long.glb"))
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


@pytest.mark.parametrize("uri", ["a%20b.bin", ".\\folder\\a.bin"])
def test_names_of_buffers_as_exporters_write_them(tmp_path: Path, uri: str) -> None:
    file = plain()
    path = file.save(tmp_path / "a.gltf", uri)
    (tmp_path / "folder").mkdir()
    (tmp_path / uri.replace("\\", "/")).write_bytes(file.body)
    check(path)


def test_damaged_base64_is_refused(tmp_path: Path) -> None:
    file = plain()
    head = "DATA:application/octet-stream;BASE64,"
    text = base64.b64encode(file.body + b"\0" * (-len(file.body) % 4)).decode()
    check(file.save(tmp_path / "a.gltf", head + text.rstrip("=")))
    with pytest.raises(ValueError, match="damaged base64 buffer"):
        load_mesh(file.save(tmp_path / "b.gltf", head + "!" + text))


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


def with_view(**changes: Any) -> Gltf:
    file = plain()
    file.tree["bufferViews"][0] |= changes
    return file


def with_indices(values: np.ndarray, **more: Any) -> Gltf:
    """A part whose indices are ``values``, between two parts with 4 vertices each."""
    file = plain()
    whole = file.tree["meshes"][0]["primitives"][0]
    part = whole | {"indices": file.accessor(values, **more)}
    file.tree["meshes"][0]["primitives"] = [whole, part, whole]
    return file


def with_sparse(kind: str = "<u2", count: int = 4) -> Gltf:
    file = plain()
    places, rows = file.view(np.array([3], kind).tobytes()), file.view(POINTS[3:].tobytes())
    codes = {"<u2": 5123, "<i2": 5122}
    entry = file.tree["accessors"][0]
    entry |= {"count": count, "sparse": {
        "count": 1,
        "indices": {"bufferView": places, "componentType": codes[kind]},
        "values": {"bufferView": rows},
    }}  # fmt: skip
    del entry["bufferView"]
    return file


def node(**changes: Any) -> Gltf:
    return edited(nodes=[{"mesh": 0} | changes])


PERSPECTIVE = np.eye(4).ravel().tolist()
PERSPECTIVE[3] = 0.5
BAD = {
    "index of the next part": (with_indices(FACES + 1), "face 1 names vertex 4, but .* 0 to 3"),
    "index of the part before": (with_indices(FACES.astype("<i2") - 1), "names vertex -1"),
    "restart": (with_indices(np.full(3, 65535, "<u2")), "names vertex 65535"),
    "indices of floats": (with_indices(FACES.astype("<f4")), "indices that are no whole numbers"),
    "normalised indices": (with_indices(FACES, normalized=True), "indices that are no whole"),
    "mode": (plain(mode=7), "the unknown mode 7"),
    "mode in words": (plain(mode="TRIANGLES"), "the unknown mode TRIANGLES"),
    "step back": (with_view(byteStride=-4), "the byteStride -4, which is no count"),
    "short step": (with_view(byteStride=4), "rows of 12 bytes at steps of 4"),
    "no step": (with_accessor(count=10**9), "promises 1000000000 rows in buffer view 0"),
    "no buffer": (with_view(buffer=1), "names entry 1 of its buffers"),
    "half a row": (with_accessor(count=3.5), "the count 3.5, which is no count"),
    "endless": (with_accessor(count=1e300), r"the count 1e\+300, which is no count"),
    "offset back": (with_view(byteOffset=-8), "the byteOffset -8"),
    "length back": (with_view(byteLength=-8), "the byteLength -8"),
    "sparse and signed": (with_sparse("<i2"), "sparse accessor with signed indices"),
    "sparse and long": (with_sparse(count=10**9), "promises 1000000000 rows in accessor 0"),
    "perspective": (node(matrix=PERSPECTIVE), "matrix with perspective"),
    "endless node": (node(scale=[1, float("inf"), 1]), "transform of node 0 that is not finite"),
    "no number": (node(rotation=[float("nan"), 0, 0, 1]), "transform of node 0 that is not finite"),
    "true": (edited(scenes=[{"nodes": [False]}]), "names entry False of its nodes"),
    "not placed": (edited(scenes=[{}]), "has meshes, but no node of its scene places them"),
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


def test_only_the_first_buffer_may_be_inside_a_glb(tmp_path: Path) -> None:
    file = with_view(buffer=1)
    with pytest.raises(ValueError, match="has no data for buffer 1"):
        load_mesh(file.save(tmp_path / "a.glb", more=({"byteLength": 48},)))


def test_a_decoder_that_is_not_installed_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(ValueError, match=r"Draco .* pip install nstr3d\[gltf\]"):
        load_mesh(with_draco("one part").save(tmp_path / "a.glb"))


@needs_parts("gltf")
def test_draco_is_decoded(tmp_path: Path) -> None:
    """Quantised positions inside Draco would have to be scaled."""
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
    file.tree["accessors"][1]["count"] = 15
    _, notes = read_mesh(file.save(tmp_path / "few.glb"))
    assert len(notes) == 1
    assert "a Draco part holds 4 triangles where 5 are promised" in notes[0]
    file.tree["accessors"][0] |= {"componentType": 5123, "normalized": True}
    with pytest.raises(ValueError, match=r"positions inside Draco .* that are no floats"):
        load_mesh(file.save(tmp_path / "b.glb"))


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


def test_rotations_that_meshopt_filters_are_decoded(tmp_path: Path) -> None:
    """The filter stores three numbers of a quaternion, times the square root of 2, and the place of
    the largest: no turn (0, 0, 0, 1), a half turn (0, 0, 1, 0) and a quarter turn about z."""
    meshopt: Any = pytest.importorskip("meshoptimizer")
    peak = 2047  # the filter's scale at 12 bits; the two lowest bits of the last word are the place
    rows = np.array([[0, 0, 0, peak], [0, 0, 0, peak - 1], [0, 0, peak, peak]], "<i2")
    file = plain()
    view = file.view(bytes(meshopt.encode_vertex_buffer(rows.view("<f4"), 3, 8)))
    data = file.tree["bufferViews"][view]
    packed = data | {"mode": "ATTRIBUTES", "byteStride": 8, "count": 3, "filter": "QUATERNION"}
    data["extensions"] = {"EXT_meshopt_compression": packed}
    data["buffer"] = 1
    file.tree["accessors"].append(
        {"bufferView": view, "componentType": 5122, "count": 3, "type": "VEC4", "normalized": True}
    )
    attributes = {"ROTATION": len(file.tree["accessors"]) - 1}
    attributes["TRANSLATION"] = file.accessor(np.array([[0, 0, 0], [9, 0, 0], [20, 0, 0]], "<f4"))
    instances = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    file.tree["nodes"] = [{"mesh": 0, "extensions": instances}]
    mesh = load_mesh(file.save(tmp_path / "a.glb", more=(FALLBACK,)))
    place = mesh.vertices.reshape(3, 4, 3)
    np.testing.assert_allclose(place[0], POINTS, atol=1e-3)
    np.testing.assert_allclose(place[1], POINTS * [-1, -1, 1] + [9, 0, 0], atol=2e-3)
    quarter = np.stack([-POINTS[:, 1], POINTS[:, 0], POINTS[:, 2]], axis=1) + [20, 0, 0]
    np.testing.assert_allclose(place[2], quarter, atol=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"count": 10**8}, {"byteStride": 300}, {"byteStride": 6}, {"filter": "COLOR"},
        {"filter": "QUATERNION"},
    ],
)  # fmt: skip
def test_what_meshopt_cannot_hold_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    meshopt: Any = pytest.importorskip("meshoptimizer")
    points = bytes(meshopt.encode_vertex_buffer(POINTS, 4, 12))
    file = packed_views(points, bytes(meshopt.encode_index_buffer(FACES.astype("<u4"), 12, 4)), 12)
    file.tree["bufferViews"][0]["extensions"]["EXT_meshopt_compression"] |= change
    with pytest.raises(ValueError, match=r"promises \d+ rows of \d+ bytes with the meshopt filter"):
        load_mesh(file.save(tmp_path / "a.glb", more=(FALLBACK,)))


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
