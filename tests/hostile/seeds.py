"""Small valid files of every format that is read, to be mutated."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch

from nstr3d import fit_cosines, fit_mesh, save, save_sdf
from nstr3d.batch.catalogue import CATALOGUE, Catalogue
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.geometry.shapes import primitives
from nstr3d.io import Sound, save_image, save_mesh, save_sound
from nstr3d.io.folder import Folder
from nstr3d.io.lock import Policy, hold
from nstr3d.io.ply import encode_ply, table_of
from nstr3d.model.codec import compress, save_compressed
from nstr3d.training.fit import Fit, FitConfig, fit_steps, training_state
from nstr3d.training.losses import SdfObjective
from nstr3d.types import Box, Frame, Mesh, Samples


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
    parts = _meshes, _clouds, _signals, _models, _records
    return [path for part in parts for path in part(folder)]


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
    _checkpoint(folder / "run.safetensors")
    shape = fit_mesh(octahedron(), cells=4, steps=50, pool=8192)
    save(folder / "shape.safetensors", shape)
    hollow = shape.sdf().shell(0.1) | primitives.gyroid(0.5, 0.1, (0.4, 0.4, 0.4))
    hollow = hollow.difference(primitives.box((0.2, 0.2, 0.2)), radius=0.1)
    save_sdf(folder / "combined.safetensors", hollow.scale(2.0).repeat((3, 3, 3), (2, 1, 1)))
    picture = np.random.default_rng(2).random((12, 16, 3), np.float32)
    frame, box = Frame.identity(2), Box((0.0, 0.0), (1.0, 1.0))
    save(folder / "picture.safetensors", Fit(fit_cosines(picture, 200), frame, box, 1.0))
    save_compressed(folder / "picture.nstq", compress(picture, 300))
    names = ("shape", "combined", "run", "picture")
    save(folder / "shape.nstq", fit_mesh(octahedron(), bytes=900))
    save(folder / "coded.safetensors", fit_mesh(octahedron(), bytes=900))
    names = (*names, "coded")
    compressed = [folder / "picture.nstq", folder / "shape.nstq"]
    return [*(folder / f"{name}.safetensors" for name in names), *compressed]


def _checkpoint(path: Path) -> None:
    """A run on a sphere, stopped after 3 of 6 steps."""
    points = torch.rand(256, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pool = Samples(points, points.norm(dim=1, keepdim=True) - 0.5)
    field = NstrConfig((LevelConfig(3, plain=2, sparse=False),), hidden=5).build(3, 1)
    steps = fit_steps(field, pool, SdfObjective(), FitConfig(steps=6, batch=64, pool=256))
    progress = next(progress for progress in steps if progress.step == 3)
    fit = Fit(field, Frame.identity(3), Box((-1.0,) * 3, (1.0,) * 3), 1.0, 3, 0.1, True)
    save(path, fit, training_state(progress))


def _records(folder: Path) -> list[Path]:
    """A report and a catalogue of a data set, a list of shapes, and the lock of a run."""
    data = folder / "data"
    paths = [data / "a" / "report.json", folder / "lock.json", folder / "list.lst"]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    batch = {"status": "done", "error": None, "path": "a.ply", "key": "k", "seconds": 1.5}
    parts = {"accuracy": {"chamfer": 1e-3}, "input": {"faces": 8, "warnings": ["one"]}}
    paths[0].write_text(json.dumps({"batch": batch} | parts, indent=2))
    with hold(Folder(folder), Policy(FileExistsError)) as lock:
        paths[1].write_bytes((folder / lock.name).read_bytes())
    paths[2].write_text("mesh.ply\nmesh.obj\n# a comment\ncloud.xyz\n")
    with Catalogue(Folder(data)) as catalogue:
        catalogue.sync()
    return [*paths, data / CATALOGUE]
