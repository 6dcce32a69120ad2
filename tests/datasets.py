"""Folders of good and bad procedural shapes, and the part of a data set that does not vary between
runs."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from oracles import sphere

from apps.bench.batch_runs import VARYING
from nstr3d.batch.catalogue import CATALOGUE, COLUMNS, select
from nstr3d.io import save_mesh
from nstr3d.types import Mesh

PLACES = (
    "{}.ply",
    "sub dir/{}.obj",
    "ünï çode/{}.stl",
    "sub dir/deeper/{}.off",
    "twice/{}.ply",
    "twice/{}.obj",
)


def good_shape(number: int) -> Mesh:
    """An ellipsoid whose axes and place depend on ``number``."""
    generator, mesh = np.random.default_rng(number), sphere(2)
    return Mesh(
        mesh.vertices * generator.uniform(0.9, 1.15, 3) + generator.uniform(-5, 5, 3), mesh.faces
    )


def bad_file(number: int) -> bytes:
    """A PLY that cannot be fitted: not finite, flat, truncated, junk, empty, with a face of a
    missing vertex, or with a header of billions of elements."""
    head = "ply\nformat ascii 1.0\nelement vertex {}\n"
    head += "property float x\nproperty float y\nproperty float z\n"
    head += "element face {}\nproperty list uchar int vertex_indices\nend_header\n"
    binary = (
        head.replace("ascii", "binary_little_endian").format(4_000_000_000, 4_000_000_000).encode()
    )
    corners = "0 0 0\n1 0 0\n0 1 0\n"
    return (
        (head.format(3, 1) + "0 0 0\nnan 0 0\n0 1 0\n3 0 1 2\n").encode(),
        (head.format(3, 1) + corners + "3 0 1 2\n").encode(),
        (head.format(300, 1) + corners).encode(),
        b"\x00junk" * 100,
        b"",
        (head.format(3, 1) + corners + "3 0 1 7\n").encode(),
        binary + struct.pack("<3f", 1, 2, 3),
    )[number % 7]


def write_shapes(folder: Path, good: int, bad: int) -> None:
    """Writes ``good`` shapes that can be fitted and ``bad`` files that cannot, one of them a pipe,
    under awkward names."""
    for number in range(good):
        path = folder / PLACES[number % len(PLACES)].format(
            f"shape {number // 2:03d}" if number % 6 > 3 else f"s{number:03d}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_mesh(path, good_shape(number))
    (folder / "bad").mkdir(exist_ok=True)
    for number in range(bad - 1):
        (folder / "bad" / f"b{number:02d}.ply").write_bytes(bad_file(number))
    os.mkfifo(folder / "bad" / "pipe.obj")
    loop = folder / "sub dir" / "loop"
    if not loop.is_symlink():
        loop.symlink_to("..")


def constant_part(out: Path) -> list[dict[str, Any]]:
    """The rows of the catalogue without the columns ``VARYING``."""
    return select(out / CATALOGUE, [name for name in COLUMNS if name not in VARYING])


def workers_of(pid: int) -> list[int]:
    """The worker processes that process ``pid`` has started."""
    workers = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid and b"nstr3d.batch.worker" in words:
                workers.append(int(entry.name))
    return workers
