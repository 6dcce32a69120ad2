"""COLLADA, XAML and 3MF: what is read is right, and what is not read is named."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from programs import needs_parts

from nstr3d.geometry.mesh.surface import volume
from nstr3d.io import load_mesh, read_mesh

pytestmark = needs_parts("formats")

# An L of three unit cubes: a fan of its concave ends would cover the notch.
OUTLINE = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
POINTS = np.array([(x, y, z) for z in (0, 1) for x, y in OUTLINE], float)
SIDES = [[i, (i + 1) % 6, 6 + (i + 1) % 6, 6 + i] for i in range(6)]
FACES = [[4, 3, 2, 1, 0, 5], [10, 11, 6, 7, 8, 9], *SIDES]
INPUT = '<input semantic="VERTEX" source="#v" offset="0"/>'
PLACED = '<instance_geometry url="#g"/>'


def words(rows) -> str:
    return " ".join(str(value) for row in rows for value in row)


def polylist(faces=FACES) -> str:
    counts = words([len(face)] for face in faces)
    return (
        f'<polylist count="{len(faces)}">{INPUT}<vcount>{counts}</vcount>'
        f"<p>{words(faces)}</p></polylist>"
    )


def collada(parts: str = polylist(), nodes: str = PLACED) -> str:
    axes = "".join(f'<param name="{axis}" type="float"/>' for axis in "XYZ")
    return (
        '<?xml version="1.0"?>'
        '<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1"><asset>'
        "<created>2020-01-01T00:00:00</created><modified>2020-01-01T00:00:00</modified></asset>"
        '<library_geometries><geometry id="g"><mesh><source id="p">'
        f'<float_array id="a" count="{POINTS.size}">{words(POINTS)}</float_array>'
        f'<technique_common><accessor source="#a" count="{len(POINTS)}" stride="3">{axes}'
        '</accessor></technique_common></source><vertices id="v">'
        f'<input semantic="POSITION" source="#p"/></vertices>{parts}</mesh></geometry>'
        '</library_geometries><library_visual_scenes><visual_scene id="s"><node id="n">'
        f"{nodes}</node></visual_scene></library_visual_scenes>"
        '<scene><instance_visual_scene url="#s"/></scene></COLLADA>'
    )


def saved(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_concave_polygons_of_collada_keep_their_notch(tmp_path: Path) -> None:
    assert volume(load_mesh(saved(tmp_path / "a.dae", collada()))) == pytest.approx(3)
    parts = "".join(f"<p>{words([face])}</p>" for face in FACES)
    text = collada(f'<polygons count="{len(FACES)}">{INPUT}{parts}</polygons>')
    assert volume(load_mesh(saved(tmp_path / "b.dae", text))) == pytest.approx(3)
    with zipfile.ZipFile(tmp_path / "c.zae", "w") as archive:
        archive.writestr("doc.dae", collada())
    assert volume(load_mesh(tmp_path / "c.zae")) == pytest.approx(3)


def test_mirrored_and_nested_parts_of_collada_stay_outward(tmp_path: Path) -> None:
    inner = f"<node><translate>9 0 0</translate><scale>-1 2 1</scale>{PLACED}</node>"
    mesh = load_mesh(saved(tmp_path / "a.dae", collada(nodes=PLACED + inner)))
    assert volume(mesh) == pytest.approx(3 + 6)
    assert mesh.bounds.upper == (9, 4, 1)


SKIN = '<instance_controller url="#skin"/>'
BAD = {
    "skinned parts": (collada(nodes=PLACED + SKIN), r"skinned or morphed .* \(instance_contr"),
    "fans": (collada(polylist() + f"<trifans>{INPUT}<p>0 1 2</p></trifans>"), "1 fans .trifans."),
    "holes": (
        collada(f'<polygons count="1">{INPUT}<ph><p>0 1 2</p><h>3 4 5</h></ph></polygons>'),
        "polygons with holes .ph.",
    ),
    "missing part": (
        collada(nodes=PLACED + '<instance_geometry url="#other"/>'),
        "places the part 'other', which is missing",
    ),
    "missing node": (
        collada(nodes=PLACED + '<instance_node url="#other"/>'),
        "places the node 'other', which is missing",
    ),
    "cut corners": (collada(polylist().replace(" 9 0 1 ", " 9 0 ", 1)), "corners in a part but"),
    "index": (collada(polylist([[0, 1, 2], [0, 1, 12]])), "vertex that is not there|damaged"),
    "no document": ("<COLLADA", "could not be read as DAE"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_read_of_collada_is_named(tmp_path: Path, name: str) -> None:
    text, sentence = BAD[name]
    with pytest.raises(ValueError, match=sentence):
        load_mesh(saved(tmp_path / "a.dae", text))


def xaml(attributes: str, transform: str = "") -> str:
    return (
        '<Page xmlns="http://schemas.microsoft.com/winfx/2006/xaml/presentation"><ModelVisual3D>'
        f"{transform}<ModelVisual3D.Content><GeometryModel3D><GeometryModel3D.Geometry>"
        f"<MeshGeometry3D {attributes}/></GeometryModel3D.Geometry></GeometryModel3D>"
        "</ModelVisual3D.Content></ModelVisual3D></Page>"
    )


CORNERS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
TRIANGLES = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
MESH = {
    "Positions": words(CORNERS),
    "TriangleIndices": words(TRIANGLES),
    "Normals": words([(0, 0, 1)] * 4),
}


def placed(kind: str) -> str:
    return f"<ModelVisual3D.Transform><{kind}/></ModelVisual3D.Transform>"


def test_xaml_is_read_with_its_matrix_and_refused_with_other_transforms(tmp_path: Path) -> None:
    attributes = " ".join(f'{name}="{value}"' for name, value in MESH.items())
    doubled = placed('MatrixTransform3D Matrix="2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"')
    path = tmp_path / "a.xaml"
    assert volume(load_mesh(saved(path, xaml(attributes)))) == pytest.approx(1 / 6)
    assert volume(load_mesh(saved(path, xaml(attributes, doubled)))) == pytest.approx(2 / 6)
    for kind in ("ScaleTransform3D", "RotateTransform3D", "TranslateTransform3D"):
        with pytest.raises(ValueError, match=f"has a {kind}, which is not applied"):
            load_mesh(saved(path, xaml(attributes, placed(f'{kind} ScaleX="2"'))))
    for name in MESH:
        fewer = attributes.replace(f"{name}=", "Other=")
        with pytest.raises(ValueError, match=f"has a mesh without {name}"):
            load_mesh(saved(path, xaml(fewer)))


def test_beams_of_3mf_are_noted(tmp_path: Path) -> None:
    import trimesh

    trimesh.Trimesh(CORNERS, TRIANGLES).export(str(tmp_path / "a.3mf"))
    with zipfile.ZipFile(tmp_path / "a.3mf") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    assert read_mesh(tmp_path / "a.3mf")[1] == []
    beams = (
        b'<b:beamlattice xmlns:b="http://schemas.microsoft.com/3dmanufacturing/beamlattice/2017/02"'
        b' radius="1"><b:beams><b:beam v1="0" v2="1"/></b:beams></b:beamlattice></mesh>'
    )
    with zipfile.ZipFile(tmp_path / "b.3mf", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data.replace(b"</mesh>", beams))
    (note,) = read_mesh(tmp_path / "b.3mf")[1]
    assert "1 beams of a lattice were left out" in note
