"""Tracks for races (`nstr3d.compare`): what is fitted, from which data, and how it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nstr3d.extract import extract_mesh
from nstr3d.fields.base import Field
from nstr3d.fit import Fit, FitConfig, draw_pool, lipschitz_estimate
from nstr3d.geometry.distance import MeshDistance
from nstr3d.geometry.holes import close_holes
from nstr3d.geometry.repair import repair
from nstr3d.geometry.surface import face_normals, normalise, sample_surface
from nstr3d.io import load_mesh
from nstr3d.metrics import BAND, TAU, compare_surfaces, iou, mean_abs_error, mean_angle
from nstr3d.sampling import SurfaceBand
from nstr3d.types import Frame, Mesh, Samples

TESTS = 20_000  # points of each kind that a distance field is measured at
RESOLUTION = 256  # of the mesh that is extracted at the end


@dataclass(frozen=True)
class MeshTrack:
    """The signed distance of a shape in the unit box.

    ``near_points``, ``volume_points`` and ``surface_points`` are ``(TESTS, 3)``; the first two come with distances, the last
    with normals. Training data is complete and exact unless ``samples`` bounds how many there are, or ``noise`` is the standard
    deviation of an error on their distances, in units of the box.
    """

    name: str
    near: Mesh
    distance: MeshDistance
    near_points: tuple[np.ndarray, np.ndarray]
    volume_points: tuple[np.ndarray, np.ndarray]
    surface_points: tuple[np.ndarray, np.ndarray]
    samples: int | None = None
    noise: float = 0.0
    in_dim: int = 3
    out_dim: int = 1

    @staticmethod
    def of(path: Path) -> MeshTrack:
        """The shape in a mesh file, repaired and closed as a fit would; test points come from seed 1 whatever the race's."""
        return MeshTrack.around(path.stem, close_holes(repair(load_mesh(path))[0])[0])

    @staticmethod
    def around(name: str, mesh: Mesh) -> MeshTrack:
        """The track of a mesh, which is normalised here."""
        mesh, _ = normalise(mesh)
        distance, generator = MeshDistance(mesh), np.random.default_rng(1)
        surface, faces = sample_surface(mesh, TESTS, generator)
        near = surface + BAND * generator.standard_normal((TESTS, 3))
        volume = generator.uniform(-1, 1, (TESTS, 3))
        normals = face_normals(mesh)[faces]
        return MeshTrack(name, mesh, distance, (near, distance(near)), (volume, distance(volume)), (surface, normals))

    def pool(self, config: FitConfig) -> Samples:
        """Samples of `SurfaceBand`."""
        pool = draw_pool(SurfaceBand(self.near, self.distance), config)
        if self.samples is not None:
            pool = Samples(pool.points[: self.samples], pool.values[: self.samples])
        error = torch.randn(pool.values.shape, generator=torch.Generator().manual_seed(config.seed))
        return Samples(pool.points, pool.values + self.noise * error)

    def measure(self, field: Field) -> dict[str, float]:
        """Mean distance errors near, on and all around the surface in units of the box, normals in degrees, and the
        intersection over union near the surface and in the volume."""
        sdf = Fit(field, Frame.identity(3), self.near.bounds, 1.0).sdf()
        (near, d_near), (volume, d_volume), (surface, normals) = self.near_points, self.volume_points, self.surface_points
        f_near, f_volume = sdf(near), sdf(volume)
        slope = np.concatenate([sdf.gradient(chunk) for chunk in np.array_split(surface, 8)])
        return {
            "near": mean_abs_error(f_near, d_near),
            "surface": mean_abs_error(sdf(surface), np.zeros(len(surface))),
            "volume": mean_abs_error(f_volume, d_volume),
            "normals": mean_angle(slope, normals),
            "iou_near": iou(f_near < 0, d_near < 0),
            "iou_volume": iou(f_volume < 0, d_volume < 0),
        }

    def measure_end(self, field: Field) -> dict[str, float]:
        """Chamfer and Hausdorff in diagonals and F-score of the extracted mesh; nothing where there is no closed surface."""
        lipschitz = lipschitz_estimate(field, torch.from_numpy(self.near_points[0].astype(np.float32)))
        diagonal = self.near.bounds.diagonal
        try:
            mesh = extract_mesh(Fit(field, Frame.identity(3), self.near.bounds, lipschitz).sdf(), RESOLUTION)
        except ValueError:
            return {}
        found = compare_surfaces(mesh, self.near, self.distance, np.random.default_rng(2), TAU * diagonal, TESTS)
        return {"chamfer": found.chamfer / diagonal, "hausdorff": found.hausdorff / diagonal, "f_score": found.f_score}
