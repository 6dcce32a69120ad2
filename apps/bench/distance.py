"""Compare our searches over triangles and dipoles with libigl's: ``python apps/bench/distance.py``.

For the nearest triangle, `nstr3d.kernels.geometry.triangles` is compared with
``igl.AABB.squared_distance``. libigl gets the points once as drawn and once sorted along a Hilbert
curve; our search sorts them itself. For the winding number of oriented points,
`nstr3d.kernels.geometry.dipoles` is compared with ``igl.fast_winding_number``. Our code and
libigl's take turns. Rates are those of the best turn; ratios are medians over turns. Each number of
threads has its own process, because libigl reads the number once. Writes distance.md to --out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.cli.command import guarded
from nstr3d.geometry.cloud.winding import CloudWinding
from nstr3d.geometry.mesh.surface import face_areas, face_normals, normalise, sample_surface
from nstr3d.io import load_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.kernels.geometry.dipoles import Dipoles
from nstr3d.kernels.geometry.triangles import Triangles, along
from nstr3d.types import Mesh

ROOT = Path(__file__).resolve().parents[2]
BAND = 0.01  # standard deviation of near points' distance from the surface, in unit-box units
WIDTH = 1e-5  # smoothing of our winding number, in unit-box units: too small to have an effect
CHECKED = 200  # points where the exact winding number is summed without a tree
# Orders of libigl's expansion: order 1 is about as accurate as ours; order 2 is libigl's default.
ORDERS = (1, 2)
CHILD = "import sys; from apps.bench.distance import tell; tell(sys.argv[1], int(sys.argv[2]))"
Work = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """Measure nearest triangles and winding numbers, ours and libigl's."""

    mesh: Path = ROOT / "assets" / "bunny.obj"
    """Mesh to search."""
    out: Path = Path("out/distance")
    """Folder of distance.md."""
    faces: int = 100_000
    """Number of faces of the second mesh, which is a subdivision of the first."""
    clouds: tuple[int, ...] = (30_000, 100_000)
    """Numbers of oriented points."""
    points: int = 50_000
    """Number of points in a query."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads."""
    turns: int = 7
    """Measured turns of each method."""


def subdivide(mesh: Mesh, faces: int) -> Mesh:
    """The same surface with ``faces`` faces or one more: the largest faces are split at their
    centroids."""
    split = np.argsort(-face_areas(mesh))[: max(0, -(-(faces - len(mesh.faces)) // 2))]
    a, b, c = mesh.faces[split].T
    centre = len(mesh.vertices) + np.arange(len(split))
    parts = [np.stack(corners, axis=1) for corners in ((a, b, centre), (b, c, centre))]
    whole = mesh.faces.copy()
    whole[split] = np.stack([c, a, centre], axis=1)
    middles = mesh.vertices[mesh.faces[split]].mean(axis=1)
    return Mesh(np.concatenate([mesh.vertices, middles]), np.concatenate([whole, *parts]))


def queries(mesh: Mesh, count: int) -> dict[str, np.ndarray]:
    """Points ``(count, 3)`` near the surface (``near``) and all over the unit box (``far``)."""
    generator = np.random.default_rng(1)
    near = sample_surface(mesh, count, generator)[0] + BAND * generator.standard_normal((count, 3))
    return {"near": near, "far": generator.uniform(-1, 1, (count, 3))}


def race(works: Mapping[str, Work], turns: int) -> dict[str, list[float]]:
    """Seconds of each of ``works`` in each of ``turns`` turns. In a turn the works run one after
    the other. A turn before them, which compiles, is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return {name: times[1:] for name, times in seconds.items()}


def distances(mesh: Mesh, name: str, options: Options) -> Iterator[dict[str, Any]]:
    """Rows of the nearest triangle of ``mesh``, one for each kind of `queries`."""
    import igl

    corners = np.ascontiguousarray(mesh.vertices[mesh.faces])
    ours, theirs = Triangles(corners), igl.AABB()
    theirs.init(mesh.vertices, mesh.faces)

    def search(points: np.ndarray) -> Any:
        return theirs.squared_distance(mesh.vertices, mesh.faces, points)[0]

    def search_sorted(points: np.ndarray) -> np.ndarray:
        order = np.argsort(along(points))
        squares = np.empty(len(points))
        squares[order] = search(points[order])
        return squares

    for kind, points in queries(mesh, options.points).items():
        works = {
            "ours": lambda at=points: ours.nearest(at),
            "igl": lambda at=points: search(at),
            "igl, sorted": lambda at=points: search_sorted(at),
        }
        difference = np.abs(ours.nearest(points).distance - np.sqrt(search(points))).max()
        row = {"what": f"{name}, {kind}", "points": options.points, "apart": float(difference)}
        yield row | {"seconds": race(works, options.turns)}


def windings(mesh: Mesh, count: int, options: Options) -> Iterator[dict[str, Any]]:
    """Rows of the winding number of ``count`` oriented points, one for each kind of `queries`.

    The times include building the trees. libigl can query a ready tree, but converts the tree from
    Python lists in every call.
    """
    import igl

    places, faces = sample_surface(mesh, count, np.random.default_rng(2))
    normals = face_normals(mesh)[faces]
    areas = CloudWinding(places, normals).areas
    vectors, tree = areas[:, None] * normals, Dipoles(places)

    def search(at: np.ndarray, order: int) -> Any:
        return igl.fast_winding_number(places, normals, areas, at, order, 2.0)

    for kind, points in queries(mesh, options.points).items():
        works: dict[str, Work] = {
            "ours": lambda at=points: Dipoles(places).number(vectors, WIDTH, at),
        }
        for order in ORDERS:
            works[f"igl {order}"] = lambda at=points, order=order: search(at, order)
        checked = points[:CHECKED]
        answers = {f"igl {order}": search(checked, order) for order in ORDERS}
        answers["ours"] = tree.number(vectors, WIDTH, checked)
        errors = {
            name: abs(answer - summed(places, vectors, checked)) for name, answer in answers.items()
        }
        row = {"what": f"{count:,} points, {kind}", "points": options.points}
        row["errors"] = {name: (float(np.median(e)), float(e.max())) for name, e in errors.items()}
        yield row | {"seconds": race(works, options.turns)}


def summed(places: np.ndarray, vectors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Winding numbers ``(m,)`` at the points ``at (m, 3)``, summed over all dipoles without a
    tree: ``places (n, 3)`` and ``vectors (n, 3)``, which are areas times normals."""
    numbers = []
    for point in at:
        away = places - point
        cubes = ((away**2).sum(axis=1) + WIDTH**2) ** 1.5
        numbers.append((np.einsum("nd,nd->n", away, vectors) / cubes).sum() / (4 * np.pi))
    return np.array(numbers)


def measure(options: Options, threads: int) -> dict[str, list[dict[str, Any]]]:
    """All rows on ``threads`` threads. libigl takes its number of threads from IGL_NUM_THREADS at
    its first call."""
    torch.set_num_threads(threads)
    mesh, _ = normalise(load_mesh(options.mesh))
    fine = subdivide(mesh, options.faces)
    meshes = {f"{len(each.faces):,} faces": each for each in (mesh, fine)}
    return {
        "distance": [row for name in meshes for row in distances(meshes[name], name, options)],
        "winding": [row for count in options.clouds for row in windings(mesh, count, options)],
    }


def tell(words: str, threads: int) -> None:
    """Prints the rows of `measure` as JSON; ``words`` are the options as JSON."""
    values = json.loads(words)
    options = Options(**values | {"mesh": Path(values["mesh"]), "out": Path(values["out"])})
    print(json.dumps(measure(options, threads)))


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """Median and range of the ratios ``above`` / ``below`` of the turns."""
    ratios = np.array(above) / np.array(below)
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def table(rows: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """Markdown of the ``rows`` of every number of threads."""
    lines = [
        "Nearest triangle, M points/s, and libigl's seconds over ours:",
        "",
        "| mesh, queries | threads | ours | igl | igl, sorted | igl / ours | igl, sorted / ours "
        "| largest difference |",
        "|---" * 8 + "|",
    ]
    for threads, groups in rows.items():
        for row in groups["distance"]:
            seconds = row["seconds"]
            rates = " | ".join(f"{row['points'] / min(seconds[n]) / 1e6:.3f}" for n in seconds)
            ratios = " | ".join(ratio(seconds[n], seconds["ours"]) for n in ("igl", "igl, sorted"))
            lines.append(f"| {row['what']} | {threads} | {rates} | {ratios} | {row['apart']:.1e} |")
    lines += [
        "",
        "Winding number of oriented points: M points/s with building the tree, libigl's seconds "
        "over ours, and errors against the plain sum (median, largest). The order is that of "
        "libigl's expansion; ours has a fixed order:",
        "",
        "| cloud, queries | threads | order | ours | igl | igl / ours | our errors "
        "| igl's errors |",
        "|---" * 8 + "|",
    ]
    for threads, groups in rows.items():
        for row in groups["winding"]:
            lines += [_winding_line(row, threads, order) for order in ORDERS]
    return "\n".join(lines)


def _winding_line(row: Mapping[str, Any], threads: int, order: int) -> str:
    seconds, theirs = row["seconds"], f"igl {order}"
    rates = [f"{row['points'] / min(seconds[name]) / 1e6:.3f}" for name in ("ours", theirs)]
    errors = ["{:.1e}, {:.1e}".format(*row["errors"][name]) for name in ("ours", theirs)]
    return (
        "| "
        + " | ".join(
            [
                row["what"],
                f"{threads} | {order}",
                *rates,
                ratio(seconds[theirs], seconds["ours"]),
                *errors,
            ]
        )
        + " |"
    )


def run(options: Options) -> None:
    """Measures on each number of threads in a process of its own, and prints and writes
    distance.md."""
    rows = {}
    words = json.dumps(vars(options) | {"mesh": str(options.mesh), "out": str(options.out)})
    for threads in options.threads:
        path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        environment = os.environ | {"PYTHONPATH": path, "IGL_NUM_THREADS": str(threads)}
        command = [sys.executable, "-c", CHILD, words, str(threads)]
        rows[threads] = json.loads(subprocess.check_output(command, env=environment))
    about = (
        f"`python apps/bench/distance.py`: {options.points:,} points, {options.turns} turns, "
        f"commit {find_commit(ROOT)}. Lengths are in units of a box of side 2; near points are "
        f"{BAND:g} off the surface (standard deviation), far points are anywhere in the box. "
        "Ratios are medians and ranges over turns."
    )
    text = f"# Nearest triangles and winding numbers\n\n{about}\n\n{table(rows)}\n"
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.out / "distance.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: run(tyro.cli(Options, prog="distance.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
