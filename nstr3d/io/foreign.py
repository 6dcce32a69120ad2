"""What trimesh would leave out of a file without a word."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from nstr3d.io.errors import ContentError

TRANSFORM = re.compile(rb"<(?:\w+:)?((?:Scale|Rotate|Translate)Transform3D)\b")
PLACED = re.compile(rb"<(?:\w+:)?((?:GeometryModel3D|Model3DGroup)\.Transform)\b")
GEOMETRY = re.compile(rb"<(?:\w+:)?MeshGeometry3D\b[^>]*>")
BEAM = re.compile(rb"<(?:\w+:)?beam\b")


def check_xaml(path: Path) -> None:
    """Raises `ContentError` for a XAML file with transforms that are not applied, and for meshes
    that lack what trimesh needs."""
    text = re.sub(rb"<!--.*?-->", b"", path.read_bytes(), flags=re.DOTALL)
    for pattern in (TRANSFORM, PLACED):
        if found := pattern.search(text):
            raise ContentError(
                f"{path} has a {found.group(1).decode()}, which is not applied; export it as GLB"
            )
    for tag in GEOMETRY.findall(text):
        for name in ("Positions", "TriangleIndices", "Normals"):
            if name.encode() not in tag:
                raise ContentError(f"{path} has a mesh without {name}; export it as GLB")


def beam_notes(path: Path) -> tuple[str, ...]:
    """A note if a 3MF file has beams, which are solids without triangles."""
    if not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as archive:
        models = [name for name in archive.namelist() if name.lower().endswith(".model")]
        beams = sum(len(BEAM.findall(archive.read(name))) for name in models)
    return (f"{beams} beams of a lattice were left out",) if beams else ()
