"""What kind of file an extension names, for files that are not read."""

from __future__ import annotations

MESHES = ".obj, .ply, .stl, .off, .glb and .gltf work"

# Extensions of shapes that only other programs read, with the name of the format.
SHAPES = {
    ".3dm": "Rhino", ".3ds": "3D Studio", ".abc": "Alembic", ".ac": "AC3D", ".amf": "AMF",
    ".b3d": "Blitz3D", ".binvox": "binvox", ".blend": "Blender", ".brep": "BREP",
    ".c4d": "Cinema 4D", ".catpart": "CATIA", ".cgr": "CATIA", ".ctm": "OpenCTM", ".drc": "Draco",
    ".dwg": "DWG", ".dxf": "DXF", ".f3d": "Fusion 360", ".fbx": "FBX", ".iam": "Inventor",
    ".ifc": "IFC", ".iges": "IGES", ".igs": "IGES", ".ipt": "Inventor", ".jt": "JT",
    ".lwo": "LightWave", ".ma": "Maya", ".max": "3ds Max", ".mb": "Maya", ".md2": "Quake II",
    ".md5mesh": "Doom 3", ".mesh": "Medit", ".ms3d": "MilkShape", ".msh": "Gmsh", ".nas": "Nastran",
    ".ply2": "PLY2", ".pmx": "PMX", ".prt": "PRT", ".sat": "ACIS", ".skp": "SketchUp",
    ".sldasm": "SolidWorks", ".sldprt": "SolidWorks", ".u3d": "U3D", ".usd": "USD", ".usda": "USD",
    ".usdc": "USD", ".usdz": "USD", ".vox": "MagicaVoxel", ".vrml": "VRML", ".vtk": "VTK",
    ".vtp": "VTK", ".vtu": "VTK", ".wrl": "VRML", ".x": "DirectX", ".x3d": "X3D",
    ".x_b": "Parasolid", ".x_t": "Parasolid",
}  # fmt: skip
# Extensions that trimesh reads where an extra package is installed, with the format and the remedy.
EXTRAS = {
    ".3mf": ("3MF", "pip install nstr3d[formats]"),
    ".3dxml": ("3DXML", "pip install nstr3d[formats]"),
    ".xaml": ("XAML", "pip install nstr3d[formats]"),
    ".dae": ("COLLADA", "pip install nstr3d[formats]"),
    ".zae": ("COLLADA", "pip install nstr3d[formats]"),
    ".step": ("STEP", "pip install cascadio"),
    ".stp": ("STEP", "pip install cascadio"),
}
POINTS = {".pcd", ".las", ".laz", ".xyz", ".pts", ".asc", ".npy", ".npz"}
PICTURES = {
    ".heic", ".heif", ".avif", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf",
    ".rw2", ".psd", ".svg", ".xcf", ".exr", ".hdr", ".jxl", ".pdf", ".ai", ".eps",
}  # fmt: skip
SOUNDS = {
    ".m4a", ".aac", ".wma", ".amr", ".ac3", ".caf", ".mid", ".midi", ".alac", ".ape", ".m4b",
    ".mka", ".ra",
}  # fmt: skip
FILMS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".wmv"}
# Scans in formats that are not read.
SCANS = {".e57", ".ptx"}
ARCHIVES = {".zip", ".gz", ".bz2", ".xz", ".7z", ".rar", ".tar", ".tgz"}
UNREAD_SHAPES = SHAPES.keys() | EXTRAS.keys() | SCANS


def unread(suffix: str) -> str:
    """A clause that says what a file of extension ``suffix`` is and what to do with it."""
    suffix = suffix.lower()
    if suffix in EXTRAS:
        name, remedy = EXTRAS[suffix]
        return f"{name} is read only with another package: {remedy}, or export it as GLB or OBJ"
    if suffix in SHAPES:
        return f"the format {SHAPES[suffix]} ({suffix}) is not read; export it as GLB or OBJ"
    if suffix in SCANS:
        return f"the points of '{suffix}' are not read; export them as PLY, LAS or PCD"
    if suffix in PICTURES:
        return f"pictures with the extension '{suffix}' are not read; convert it to PNG"
    if suffix in SOUNDS:
        return f"sounds with the extension '{suffix}' are not read; convert it to WAV or FLAC"
    if suffix in FILMS:
        return f"films ({suffix}) are not read; convert a frame to PNG, or the sound to WAV"
    if suffix in POINTS:
        return f"'{suffix}' holds points and no faces; fit it with nstr3d points"
    if suffix in ARCHIVES:
        return f"archives ({suffix}) are not read; unpack it and name a file in it"
    if suffix in (".safetensors", ".nstq"):
        return "a model is no input of a fit; nstr3d info says what it holds"
    return f"unknown mesh extension '{suffix}'; {MESHES}"
