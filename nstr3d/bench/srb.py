"""The Surface Reconstruction Benchmark (Berger et al. 2013; the five simulated scans of Williams et
al. 2019): scans of known shapes, measured as in NeatSDF (arXiv 2604.16512) and exactly.

The benchmark simulates the registration of the scans too, so that each lies some 0.7 degrees beside
its true shape. What a method is answerable for is measured after `registration`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_areas
from nstr3d.io import load_cloud, load_mesh
from nstr3d.types import Frame, Mesh, PointCloud

SAMPLES = 100_000  # on each surface
SCAN = "scan_"
ROUNDS = 40  # of the registration
CORE = 0.002  # distance below which all points weigh the same
PUBLISHED = """Published means over all five scans (NeatSDF, arXiv 2604.16512, tables 1 and 2), not
measured here; without normals, on data-centre GPUs:

| method | d_C | d_H | minutes |
|---|---|---|---|
| Neural Singular Hessian | .0102 | .0521 | 19 |
| NeatSDF | .0104 | .0645 | 11 |
| HotSpot | .0105 | .0704 | 6 |
"""


@dataclass(frozen=True)
class Scan:
    """A scan with normals and the true surface, both in the box [-1, 1]^3 that holds the latter.

    ``seen`` is the true surface where the scan saw it, by `registration`.
    """

    name: str
    cloud: PointCloud
    truth: Mesh
    seen: Mesh


@dataclass(frozen=True)
class Deviation:
    """How far a surface is from the true one, in halves of the longest side of the truth.

    ``chamfer`` is the sum, over both directions, of the mean distance between samples, and
    ``hausdorff`` the largest distance between samples. ``exact`` is the mean of both directions of
    the distance from samples to the other surface, and ``farthest`` the largest one.
    """

    chamfer: float
    hausdorff: float
    exact: float
    farthest: float


def scans(folder: Path) -> Iterator[Scan]:
    """The scans ``scan_NAME.ply`` of ``folder`` whose truth ``NAME.off`` is there too, by name.
    Raises ValueError if there is none."""
    found = [
        (path, truth)
        for path in sorted(folder.glob(f"{SCAN}*.ply"))
        if (truth := folder / f"{path.stem.removeprefix(SCAN)}.off").is_file()
    ]
    if not found:
        raise ValueError(f"{folder} holds no pair of {SCAN}NAME.ply and NAME.off.")
    for path, place in found:
        cloud, truth = load_cloud(path), load_mesh(place)
        bounds = truth.bounds
        frame = Frame(tuple(bounds.centre.tolist()), float(bounds.extent.max()) / 2)
        points = PointCloud(frame.to_unit(cloud.points), cloud.normals)
        mesh = Mesh(frame.to_unit(truth.vertices), truth.faces)
        moved = np.linalg.inv(registration(points.points, mesh))
        seen = Mesh(mesh.vertices @ moved[:3, :3].T + moved[:3, 3], mesh.faces)
        yield Scan(place.stem, points, mesh, seen)


def registration(points: np.ndarray, mesh: Mesh) -> np.ndarray:
    """The matrix ``(4, 4)`` of the similarity that moves ``points (n, 3)`` onto ``mesh``, from a
    nearby place: iteratively reweighted least squares of the distances (point to plane), whose sum
    of absolute values becomes least, so that outliers count little."""
    distance, whole, at = MeshDistance(mesh), np.eye(4), points
    for _ in range(ROUNDS):
        value, gradient = distance.value_and_gradient(at)
        weight = np.sqrt(1 / np.maximum(np.abs(value), CORE))
        radial = (gradient * at).sum(axis=1)
        rows = np.column_stack([np.cross(at, gradient), gradient, radial]) * weight[:, None]
        x, y, z, *shift, growth = np.linalg.lstsq(rows, -value * weight)[0]
        step = np.eye(4)
        step[:3, :3] += [[growth, -z, y], [z, growth, -x], [-y, x, growth]]
        step[:3, 3] = shift
        at, whole = at @ step[:3, :3].T + step[:3, 3], step @ whole
    return whole


def independent(mesh: Mesh, count: int, generator: np.random.Generator) -> np.ndarray:
    """``count`` points ``(n, 3)`` of ``mesh``, drawn independently, as the protocols do: those of
    `sample_surface` are spread more evenly, which would lower the figures."""
    area = face_areas(mesh)
    corners = mesh.corners[generator.choice(len(area), count, p=area / area.sum())]
    a, b = np.sqrt(generator.random(count)), generator.random(count)
    weights = np.stack([1 - a, a * (1 - b), a * b], axis=1)
    return np.einsum("nc,ncd->nd", weights, corners)


def deviation(mesh: Mesh, truth: Mesh, seed: int = 0, samples: int = SAMPLES) -> Deviation:
    """The `Deviation` of ``mesh`` from ``truth``, over ``samples`` points of each."""
    generator = np.random.default_rng(seed)
    mine, theirs = (independent(each, samples, generator) for each in (mesh, truth))
    ahead, back = Neighbours(theirs).nearest(mine)[0], Neighbours(mine).nearest(theirs)[0]
    forward, backward = MeshDistance(truth).unsigned(mine), MeshDistance(mesh).unsigned(theirs)
    return Deviation(
        float(ahead.mean() + back.mean()),
        float(max(ahead.max(), back.max())),
        float(forward.mean() + backward.mean()) / 2,
        float(max(forward.max(), backward.max())),
    )


@dataclass(frozen=True)
class Result:
    """What ``method`` made of the scan ``name``, with the scanner's ``normals`` or without: how far
    it is from the truth, and from the truth where the scan saw it."""

    name: str
    normals: bool
    method: str
    deviation: Deviation
    registered: Deviation
    seconds: float

    def row(self) -> str:
        """A line of the table."""
        figures = [
            f"{far.chamfer:.4f} | {far.hausdorff:.3f} | {far.exact:.4f}"
            for far in (self.deviation, self.registered)
        ]
        return (
            f"| {self.name} | {'yes' if self.normals else 'no'} | {self.method} | "
            f"{' | '.join(figures)} | {self.seconds:.1f} |"
        )


def srb_table(results: Sequence[Result], command: str, commit: str) -> str:
    """srb.md, which ``command`` writes: a row for each result, means over the scans, and published
    rows."""
    figures = "d_C | d_H | exact"
    head = f"| scan | normals | method | {figures} | registered {figures} | seconds |"
    groups: dict[tuple[bool, str], list[Result]] = {}
    for each in results:
        groups.setdefault((each.normals, each.method), []).append(each)
    means = [
        Result(
            "mean",
            normals,
            method,
            _mean([one.deviation for one in own]),
            _mean([one.registered for one in own]),
            float(np.mean([one.seconds for one in own])),
        )
        for (normals, method), own in groups.items()
    ]
    lines = [
        "# Scans of known shapes\n",
        f"`{command}`: the Surface Reconstruction Benchmark, commit {commit}. Lengths are in "
        "halves of the longest side of the true shape. d_C is the sum of both directions' mean "
        "distances between 100,000 samples of each surface, drawn independently, and d_H the "
        "largest; the truth compared with itself is the floor of the sampling. *exact* is the mean "
        "of both directions to the surface itself.\n\nEach scan lies beside its true shape: a "
        "similarity, found by its points (`registration`), moves it onto the shape. The row *truth "
        "as scanned* is the true surface moved the other way, the best that a method can do in the "
        "frame of the truth. *registered* are the distances from that surface.\n",
        head,
        "|---" * 10 + "|",
        *[each.row() for each in results],
        *[each.row() for each in means],
        "",
        PUBLISHED,
    ]
    return "\n".join(lines)


def _mean(all_of_them: Sequence[Deviation]) -> Deviation:
    return Deviation(*np.mean([astuple(each) for each in all_of_them], axis=0).tolist())
