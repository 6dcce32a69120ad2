"""Race at equal bytes: ``python apps/bench/bytes.py MESH ...``.

A mesh is written by ``fit --bytes`` and, for comparison, decimated (quadric error, libigl's qslim)
and compressed by Draco. Of all numbers of faces and quantisation bits whose Draco code has at most
as many bytes as our file, the one with the least error counts. Both are measured alike: the mean
distance between random points of one surface and the other surface, as a mean of both directions,
the greatest of these distances, and the angle between the normals of the input and those at the
nearest point. Writes bytes.md to --out. Needs DracoPy.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.cli.command import guarded
from nstr3d.geometry.mesh.decimate import decimate
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_normals, normalise, sample_surface
from nstr3d.io import load_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.prepared import prepare_mesh
from nstr3d.model.pyramidcodec import decompress_shape, pack_shape
from nstr3d.model.pyramidsearch import Target, compress_shape
from nstr3d.surface.extract import extract_mesh
from nstr3d.types import Frame, Mesh

ROOT = Path(__file__).resolve().parents[2]
FEWEST, RATIO = 400, 1.4  # faces of the coarsest decimation, and between two decimations
BITS = (8, 9, 10, 11, 12)


@dataclass(frozen=True)
class Options:
    """Compare surfaces in few bytes with decimated meshes under Draco."""

    meshes: tyro.conf.Positional[tuple[Path, ...]]
    """Mesh files."""
    out: Path = Path("out/bytes")
    """Folder of bytes.md."""
    sizes: tuple[int, ...] = (8_000, 16_000, 32_000, 64_000)
    """Bytes of the files."""
    samples: int = 50_000
    """Points on each surface."""
    resolution: int = 512
    """Cells of the grid on which our surface is extracted."""


@dataclass(frozen=True)
class Row:
    """A file of ``size`` bytes: mean and greatest distance in 1e-4 of the unit box, the angle of
    normals in degrees, and the seconds that it takes to write and to read."""

    what: str
    size: int
    mean: float
    most: float
    angle: float
    seconds: tuple[float, float]


class Judge:
    """Measures surfaces against the mesh ``unit`` in the unit box."""

    def __init__(self, unit: Mesh, samples: int) -> None:
        self.unit, self.samples, self.distance = unit, samples, MeshDistance(unit)
        self.points, faces = sample_surface(unit, samples, np.random.default_rng(1))
        self.normals = face_normals(unit)[faces]

    def row(self, what: str, size: int, mesh: Mesh, seconds: tuple[float, float]) -> Row:
        """The row of the surface ``mesh``."""
        to, face, _ = MeshDistance(mesh).nearest(self.points)
        back, _ = sample_surface(mesh, self.samples, np.random.default_rng(2))
        away = self.distance.unsigned(back)
        cosine = (face_normals(mesh)[face] * self.normals).sum(axis=1).clip(-1, 1)
        mean = (to.mean() + away.mean()) / 2
        most = max(to.max(), away.max())
        angle = float(np.degrees(np.arccos(cosine)).mean())
        return Row(what, size, mean * 1e4, most * 1e4, angle, seconds)


def ours(judge: Judge, size: int, resolution: int) -> Row:
    """Our file of at most ``size`` bytes."""
    unit = judge.unit
    surface, _ = sample_surface(unit, 20_000, np.random.default_rng(0))
    started = time.perf_counter()
    target = Target(MeshDistance(unit), surface, unit.bounds, Frame.identity())
    data = pack_shape(compress_shape(target, size))
    written = time.perf_counter()
    fit = decompress_shape(data)
    read = time.perf_counter()
    mesh = extract_mesh(fit.sdf(), resolution)
    return judge.row("nstr3d", len(data), mesh, (written - started, read - written))


def decimated(judge: Judge) -> Iterator[Row]:
    """The files of all decimations and quantisations under Draco."""
    import DracoPy

    faces = FEWEST
    while faces < len(judge.unit.faces):
        started = time.perf_counter()
        mesh = decimate(judge.unit, faces)
        made = time.perf_counter() - started
        for bits in BITS:
            started = time.perf_counter()
            data = DracoPy.encode(
                mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32),
                quantization_bits=bits, compression_level=10,
            )  # fmt: skip
            written = time.perf_counter()
            coded = DracoPy.decode(data)
            read = time.perf_counter()
            points = np.asarray(coded.points, np.float64).reshape(-1, 3)
            whole = Mesh(points, np.asarray(coded.faces, np.int64).reshape(-1, 3))
            seconds = made + written - started, read - written
            name = f"Draco, {len(mesh.faces):,} faces, {bits} bits"
            yield judge.row(name, len(data), _proper(whole), seconds)
        faces = int(faces * RATIO)


def _proper(mesh: Mesh) -> Mesh:
    """``mesh`` without faces that quantisation has made flat."""
    return Mesh(mesh.vertices, mesh.faces[np.linalg.norm(face_normals(mesh), axis=1) > 0])


def race(options: Options) -> str:
    """The page of the race."""
    lines = [
        "# Shapes at equal bytes",
        "",
        "`python apps/bench/bytes.py MESH ...`: a file of `fit --bytes`, and the decimated mesh "
        "under Draco with the least error of those that are no larger. Distances in 1e-4 of the "
        f"unit box, mean of both directions and greatest, {options.samples:,} points each; ours "
        f"extracted on {options.resolution} cells. {torch.get_num_threads()} threads, commit "
        f"{find_commit(ROOT)}.",
        "",
        "| shape | faces | file | bytes | mean | ratio | greatest | normals | write s | read s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in options.meshes:
        unit, _ = normalise(prepare_mesh(load_mesh(path)).mesh)  # its holes are closed
        judge = Judge(unit, options.samples)
        others = list(decimated(judge))
        for size in options.sizes:
            own = ours(judge, size, options.resolution)
            fitting = [row for row in others if row.size <= own.size]
            rows = [own, *sorted(fitting, key=lambda row: row.mean)[:1]]
            for row in rows:
                ratio = f"{own.mean / row.mean:.2f}" if row is not own else ""
                write, read = row.seconds
                lines.append(
                    f"| {path.stem} | {len(unit.faces):,} | {row.what} | {row.size:,} | "
                    f"{row.mean:.2f} | {ratio} | {row.most:.1f} | {row.angle:.2f} | {write:.2f} | "
                    f"{read:.2f} |"
                )
            print("\n".join(lines[-len(rows) :]), flush=True)
    return "\n".join(lines) + "\n"


def write(options: Options) -> None:
    """Runs the race and writes its page."""
    options.out.mkdir(parents=True, exist_ok=True)
    page = race(options)
    with atomic_path(options.out / "bytes.md") as path:
        path.write_text(page)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: write(tyro.cli(Options, prog="bytes.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
