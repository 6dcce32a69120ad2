"""Race our searches over triangles and dipoles against libigl's: ``python apps/bench/distance.py``.

Nearest triangle: `nstr3d.kernels.geometry.triangles` against ``igl.AABB.squared_distance``, whose
points come as drawn, and sorted along a Hilbert curve as ours are. Winding number of oriented
points: `nstr3d.kernels.geometry.dipoles` against ``igl.fast_winding_number``. Ours and theirs take
turns; rates are those of the best turn, ratios medians over turns. Each number of threads has a
process of its own, because libigl reads the number once. Writes distance.md to --out.
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
WIDTH = 1e-5  # smoothing of our winding number, in unit-box units: as good as none
CHECKED = 200  # points at which the winding number is summed without a tree
# of libigl's expansion: with 1 it is about as accurate as ours, 2 is its default
ORDERS = (1, 2)
CHILD = "import sys; from apps.bench.distance import tell; tell(sys.argv[1], int(sys.argv[2]))"
Work = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """Measure nearest triangles and winding numbers, ours and libigl's."""

    mesh: Path = ROOT / "assets" / "bunny.obj"
    """The mesh."""
    out: Path = Path("out/distance")
    """Folder of distance.md."""
    faces: int = 100_000
    """Faces of the mesh that is subdivided from it."""
    clouds: tuple[int, ...] = (30_000, 100_000)
    """Numbers of oriented points."""
    points: int = 50_000
    """Points of a query."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads."""
    turns: int = 7
    """Turns of each."""


def subdivide(mesh: Mesh, faces: int) -> Mesh:
    """The same surface with ``faces`` faces, or one more: the largest are split at their
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
    """Points ``(count, 3)`` near the surface, and all over the unit box."""
    generator = np.random.default_rng(1)
    near = sample_surface(mesh, count, generator)[0] + BAND * generator.standard_normal((count, 3))
    return {"near": near, "far": generator.uniform(-1, 1, (count, 3))}


def race(works: Mapping[str, Work], turns: int) -> dict[str, list[float]]:
    """Seconds of each work's turns, the works one after the other in every turn; the first turn,
    which compiles, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return {name: spent[1:] for name, spent in seconds.items()}


def distances(mesh: Mesh, name: str, options: Options) -> Iterator[dict[str, Any]]:
    """Rows of the nearest triangle."""
    import igl

    corners = np.ascontiguousarray(mesh.vertices[mesh.faces])
    ours, theirs = Triangles(corners), igl.AABB()
    theirs.init(mesh.vertices, mesh.faces)

    def search(points: np.ndarray) -> Any:
        return theirs.squared_distance(mesh.vertices, mesh.faces, points)[0]

    def search_sorted(points: np.ndarray) -> np.ndarray:
        order = np.argsort(along(points))
        found = np.empty(len(points))
        found[order] = search(points[order])
        return found

    for kind, points in queries(mesh, options.points).items():
        works = {
            "ours": lambda at=points: ours.nearest(at),
            "igl": lambda at=points: search(at),
            "igl, sorted": lambda at=points: search_sorted(at),
        }
        apart = np.abs(ours.nearest(points).distance - np.sqrt(search(points))).max()
        found = {"what": f"{name}, {kind}", "points": options.points, "apart": float(apart)}
        yield found | {"seconds": race(works, options.turns)}


def windings(mesh: Mesh, count: int, options: Options) -> Iterator[dict[str, Any]]:
    """Rows of the winding number of ``count`` oriented points, their tree included: libigl's query
    by itself converts its tree from Python lists each time, so one point's time stands for it."""
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
            "ours, query": lambda at=points: tree.number(vectors, WIDTH, at),
        }
        for order in ORDERS:
            works[f"igl {order}"] = lambda at=points, order=order: search(at, order)
            works[f"igl {order}, tree"] = lambda at=points, order=order: search(at[:1], order)
        some = points[:CHECKED]
        answers = {f"igl {order}": search(some, order) for order in ORDERS}
        answers["ours"] = tree.number(vectors, WIDTH, some)
        off = {
            name: abs(answer - summed(places, vectors, some)) for name, answer in answers.items()
        }
        found = {"what": f"{count:,} points, {kind}", "points": options.points}
        found["errors"] = {name: (float(np.median(e)), float(e.max())) for name, e in off.items()}
        yield found | {"seconds": race(works, options.turns)}


def summed(places: np.ndarray, vectors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Winding number ``(m,)`` of all dipoles at ``at (m, 3)``, without a tree."""
    found = []
    for point in at:
        away = places - point
        cubes = ((away**2).sum(axis=1) + WIDTH**2) ** 1.5
        found.append((np.einsum("nd,nd->n", away, vectors) / cubes).sum() / (4 * np.pi))
    return np.array(found)


def measure(options: Options, threads: int) -> dict[str, list[dict[str, Any]]]:
    """All rows on ``threads`` threads; libigl has as many as IGL_NUM_THREADS said at its first
    call."""
    torch.set_num_threads(threads)
    mesh, _ = normalise(load_mesh(options.mesh))
    fine = subdivide(mesh, options.faces)
    meshes = {f"{len(each.faces):,} faces": each for each in (mesh, fine)}
    return {
        "distance": [row for name in meshes for row in distances(meshes[name], name, options)],
        "winding": [row for count in options.clouds for row in windings(mesh, count, options)],
    }


def tell(words: str, threads: int) -> None:
    """Prints `measure` as JSON, for options in JSON."""
    given = json.loads(words)
    options = Options(**given | {"mesh": Path(given["mesh"]), "out": Path(given["out"])})
    print(json.dumps(measure(options, threads)))


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    """Median of the turns' ratios, and their range."""
    ratios = np.array(above) / np.array(below)
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def table(rows: Mapping[int, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """Markdown of the rows of every number of threads."""
    lines = [
        "Nearest triangle, M points/s, and libigl's seconds over ours:",
        "",
        "| mesh, queries | threads | ours | igl | igl, sorted | igl / ours | igl, sorted / ours "
        "| largest difference |",
        "|---" * 8 + "|",
    ]
    for threads, found in rows.items():
        for row in found["distance"]:
            spent = row["seconds"]
            rates = " | ".join(f"{row['points'] / min(spent[n]) / 1e6:.3f}" for n in spent)
            ratios = " | ".join(ratio(spent[n], spent["ours"]) for n in ("igl", "igl, sorted"))
            lines.append(f"| {row['what']} | {threads} | {rates} | {ratios} | {row['apart']:.1e} |")
    lines += [
        "",
        "Winding number of oriented points, M points/s with the tree's making, libigl's seconds "
        "over ours with it and without, and errors against the plain sum (median, largest). Ours "
        "has one order, libigl's expansion has the one named:",
        "",
        "| cloud, queries | threads | order | ours | igl | igl / ours | igl / ours, query alone "
        "| our errors | igl's errors |",
        "|---" * 9 + "|",
    ]
    for threads, found in rows.items():
        for row in found["winding"]:
            lines += [_winding_line(row, threads, order) for order in ORDERS]
    return "\n".join(lines)


def _winding_line(row: Mapping[str, Any], threads: int, order: int) -> str:
    spent, theirs = row["seconds"], f"igl {order}"
    rates = [f"{row['points'] / min(spent[name]) / 1e6:.3f}" for name in ("ours", theirs)]
    query = [a - b for a, b in zip(spent[theirs], spent[f"{theirs}, tree"])]
    ratios = ratio(spent[theirs], spent["ours"]), ratio(query, spent["ours, query"])
    errors = ["{:.1e}, {:.1e}".format(*row["errors"][name]) for name in ("ours", theirs)]
    return "| " + " | ".join([row["what"], f"{threads} | {order}", *rates, *ratios, *errors]) + " |"


def run(options: Options) -> None:
    """Measures, prints and writes distance.md."""
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
        f"{BAND:g} off the surface (standard deviation), far ones anywhere in the box. Ratios are "
        "medians over turns and their range."
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
