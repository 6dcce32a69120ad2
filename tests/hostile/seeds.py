"""Small valid files of every format that is read, to be mutated."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from nstr3d import fit_cosines, fit_mesh, save
from nstr3d.io import Sound, save_image, save_mesh, save_sound
from nstr3d.io.ply import encode_ply, table_of
from nstr3d.model.codec import compress, save_compressed
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame, Mesh


def octahedron() -> Mesh:
    """A closed mesh of 8 faces."""
    vertices = np.array(
        [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float
    )
    faces = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    return Mesh(vertices, np.array(faces))


def write_seeds(folder: Path) -> list[Path]:
    """Writes a valid file of each format into ``folder`` and returns their paths. Formats of parts
    that are not installed are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*_meshes(folder), *_clouds(folder), *_signals(folder), *_models(folder)]


def _meshes(folder: Path) -> list[Path]:
    paths = [folder / f"mesh{suffix}" for suffix in (".obj", ".ply", ".stl", ".off", ".glb")]
    for path in paths:
        save_mesh(path, octahedron())
    mesh = octahedron()
    text = [f"element vertex {len(mesh.vertices)}", *(f"property float {name}" for name in "xyz")]
    text += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices"]
    rows = [" ".join(map(str, row)) for row in mesh.vertices.tolist()]
    rows += ["3 " + " ".join(map(str, row)) for row in mesh.faces.tolist()]
    path = folder / "text.ply"
    path.write_text("\n".join(["ply", "format ascii 1.0", *text, "end_header", *rows]) + "\n")
    return [*paths, path]


def _clouds(folder: Path) -> list[Path]:
    points = np.random.default_rng(0).normal(size=(200, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    both = np.concatenate([points, points], axis=1)
    paths = [folder / name for name in ("cloud.xyz", "cloud.csv", "cloud.npy", "points.ply")]
    np.savetxt(paths[0], both, fmt="%.6f")
    np.savetxt(paths[1], both, fmt="%.6f", delimiter=",", header="x,y,z,nx,ny,nz", comments="")
    np.save(paths[2], both)
    paths[3].write_bytes(encode_ply(vertex=table_of(dict(zip(("x", "y", "z"), points.T)))))
    head = "# .PCD v.7\nVERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 200\n"
    head += "HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 200\nDATA binary\n"
    (folder / "cloud.pcd").write_bytes(head.encode() + points.astype("<f4").tobytes())
    return [*paths, folder / "cloud.pcd"]


def _signals(folder: Path) -> list[Path]:
    picture = np.random.default_rng(1).random((12, 16, 3), np.float32)
    save_image(folder / "picture.png", picture)
    header = b"P6\n16 12\n65535\n"
    (folder / "picture.ppm").write_bytes(header + (picture * 65535).astype(">u2").tobytes())
    paths = [folder / "picture.png", folder / "picture.ppm"]
    if importlib.util.find_spec("soundfile"):
        values = np.sin(np.arange(400, dtype=np.float32) / 9)[:, None] / 2
        save_sound(folder / "sound.wav", Sound(values, 8000))
        paths.append(folder / "sound.wav")
    return paths


def _models(folder: Path) -> list[Path]:
    save(folder / "shape.safetensors", fit_mesh(octahedron(), cells=4, steps=50, pool=8192))
    picture = np.random.default_rng(2).random((12, 16, 3), np.float32)
    frame, box = Frame.identity(2), Box((0.0, 0.0), (1.0, 1.0))
    save(folder / "picture.safetensors", Fit(fit_cosines(picture, 200), frame, box, 1.0))
    save_compressed(folder / "picture.nstq", compress(picture, 300))
    return [folder / name for name in ("shape.safetensors", "picture.safetensors", "picture.nstq")]
