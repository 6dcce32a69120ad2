"""The Surface Reconstruction Benchmark (Berger et al. 2013; the five simulated scans of Williams et
al. 2019): scans of known shapes, measured as in NeatSDF (arXiv 2604.16512) and exactly."""

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
    """A scan with normals and the true surface, both in the box [-1, 1]^3 that holds the latter."""

    name: str
    cloud: PointCloud
    truth: Mesh


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
        yield Scan(place.stem, points, Mesh(frame.to_unit(truth.vertices), truth.faces))


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
    """What ``method`` made of the scan ``name``, with the scanner's ``normals`` or without."""

    name: str
    normals: bool
    method: str
    deviation: Deviation
    seconds: float

    def row(self) -> str:
        """A line of the table."""
        far = self.deviation
        return (
            f"| {self.name} | {'yes' if self.normals else 'no'} | {self.method} | "
            f"{far.chamfer:.4f} | {far.hausdorff:.3f} | {far.exact:.4f} | {far.farthest:.3f} | "
            f"{self.seconds:.1f} |"
        )


def srb_table(results: Sequence[Result], command: str, commit: str) -> str:
    """srb.md, which ``command`` writes: a row for each result, means over the scans, and published
    rows."""
    head = "| scan | normals | method | d_C | d_H | exact | farthest | seconds |"
    groups: dict[tuple[bool, str], list[Result]] = {}
    for each in results:
        groups.setdefault((each.normals, each.method), []).append(each)
    means = [
        Result("mean", normals, method, _mean([one.deviation for one in own]), _seconds(own))
        for (normals, method), own in groups.items()
    ]
    lines = [
        "# Scans of known shapes\n",
        f"`{command}`: the Surface Reconstruction Benchmark, commit {commit}. Lengths are in "
        "halves of the longest side of the true shape. d_C is the sum of both directions' mean "
        "distances between 100,000 samples of each surface, drawn independently, and d_H the "
        "largest; the truth compared with itself is the floor of the sampling. *exact* is the mean "
        "of both directions to the surface itself.\n",
        head,
        "|---" * 8 + "|",
        *[each.row() for each in results],
        *[each.row() for each in means],
        "",
        PUBLISHED,
    ]
    return "\n".join(lines)


def _mean(all_of_them: Sequence[Deviation]) -> Deviation:
    return Deviation(*np.mean([astuple(each) for each in all_of_them], axis=0).tolist())


def _seconds(results: Sequence[Result]) -> float:
    return float(np.mean([each.seconds for each in results]))
