"""Tracks for races (`nstr3d.bench.compare`): signals, their training data and their measures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nstr3d.bench.options import RESOLUTION, TESTS
from nstr3d.fields.base import Field
from nstr3d.fields.closed.cosines import Cosines
from nstr3d.fields.nstr import Nstr
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.solid import solid_distance
from nstr3d.geometry.mesh.surface import face_normals, normalise, sample_surface
from nstr3d.io import load_image, load_mesh, load_sound
from nstr3d.signals.kinds import kind_of
from nstr3d.signals.ratios import psnr, snr
from nstr3d.surface.extract import extract_mesh
from nstr3d.surface.metrics import (
    BAND,
    TAU,
    compare_surfaces,
    mean_abs_error,
    mean_angle,
)
from nstr3d.surface.overlap import iou
from nstr3d.training.fit import Fit, FitConfig, draw_pool, lipschitz_estimate
from nstr3d.training.sampling import SurfaceBand
from nstr3d.types import Frame, Lattice, Mesh, Samples


@dataclass(frozen=True)
class MeshTrack:
    """The signed distance of the mesh ``near``, which lies in the unit box.

    The test points ``near_points``, ``volume_points`` and ``surface_points`` are ``(n, 3)``; the
    first two come with signed distances ``(n,)``, the last with normals ``(n, 3)``. Training data
    is complete and exact by default. ``samples`` limits the number of training samples; ``noise``
    is the standard deviation of a Gaussian error on their distances, in units of the unit box. If
    ``meshed`` is set, the end of a race also measures the mesh extracted at ``resolution``.
    """

    name: str
    near: Mesh
    distance: MeshDistance
    near_points: tuple[np.ndarray, np.ndarray]
    volume_points: tuple[np.ndarray, np.ndarray]
    surface_points: tuple[np.ndarray, np.ndarray]
    samples: int | None = None
    noise: float = 0.0
    meshed: bool = True
    resolution: int = RESOLUTION
    in_dim: int = 3
    out_dim: int = 1

    @staticmethod
    def of(path: Path, tests: int = TESTS) -> MeshTrack:
        """The track of a mesh file, repaired and with its holes closed as for a fit.

        It has ``tests`` test points of each kind, which do not depend on a race's seed. Raises the
        errors of `load_mesh` and `repair`.
        """
        return MeshTrack.around(path.stem, solid_distance(load_mesh(path)).mesh, tests)

    @staticmethod
    def around(name: str, mesh: Mesh, tests: int = TESTS) -> MeshTrack:
        """The track of ``mesh``, normalised to the unit box.

        It has ``tests`` test points of each kind, drawn with seed 1. Raises ValueError for a mesh
        without faces or size.
        """
        mesh, _ = normalise(mesh)
        distance, generator = MeshDistance(mesh), np.random.default_rng(1)
        surface, faces = sample_surface(mesh, tests, generator)
        near = surface + BAND * generator.standard_normal((tests, 3))
        volume = generator.uniform(-1, 1, (tests, 3))
        normals = face_normals(mesh)[faces]
        return MeshTrack(
            name,
            mesh,
            distance,
            (near, distance(near)),
            (volume, distance(volume)),
            (surface, normals),
        )

    def pool(self, config: FitConfig) -> Samples:
        """Samples of `SurfaceBand`; noisy samples have no gradients."""
        pool = draw_pool(SurfaceBand(self.near, self.distance), config)
        if self.samples is not None:
            pool = pool.map(lambda tensor: tensor[: self.samples])
        if not self.noise:
            return pool
        error = torch.randn(pool.values.shape, generator=torch.Generator().manual_seed(config.seed))
        return Samples(pool.points, pool.values + self.noise * error)

    def measure(self, field: Field) -> dict[str, float]:
        """The errors of a field's signed distance and normals, and its overlap with the shape.

        Mean absolute distance errors are near the surface, on it, and in the volume, in units of
        the unit box; the mean normal error is in degrees; intersections over union are near the
        surface and in the volume.
        """
        sdf = Fit(field, Frame.identity(3), self.near.bounds, 1.0).sdf()
        (near, d_near), (volume, d_volume), (surface, normals) = (
            self.near_points,
            self.volume_points,
            self.surface_points,
        )
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
        """The errors of the extracted mesh, and the transport residual of a field with F.

        Chamfer and Hausdorff distances are in bounding box diagonals of ``near``. They and the
        F-score are missing if no surface can be extracted. The residual is that at ``near_points``.
        """
        figures = {}
        if isinstance(field, Nstr) and field.transport is not None:
            with torch.no_grad():
                figures["residual"] = float(
                    field.transport_residual(
                        torch.from_numpy(self.near_points[0].astype(np.float32))
                    )
                )
        if not self.meshed:
            return figures
        lipschitz = lipschitz_estimate(
            field, torch.from_numpy(self.near_points[0].astype(np.float32))
        )
        diagonal = self.near.bounds.diagonal
        try:
            mesh = extract_mesh(
                Fit(field, Frame.identity(3), self.near.bounds, lipschitz).sdf(), self.resolution
            )
        except ValueError:
            return figures
        meshes = compare_surfaces(
            mesh,
            self.near,
            self.distance,
            np.random.default_rng(2),
            TAU * diagonal,
            len(self.near_points[0]),
        )
        figures |= {
            "chamfer": meshes.chamfer / diagonal,
            "hausdorff": meshes.hausdorff / diagonal,
            "f_score": meshes.f_score,
        }
        return figures


@dataclass(frozen=True)
class RasterTrack:
    """An image, a sound or another signal on a `Lattice`: ``values (*shape, channels)``.

    ``peak`` is the peak value of the PSNR. A random fraction ``keep`` of the samples is trained on;
    if it is less than 1, the other samples are measured. ``jump`` is the position along the last
    axis, in [-1, 1], where the signal changes abruptly, None if nowhere.
    """

    name: str
    values: np.ndarray
    peak: float = 1.0
    keep: float = 1.0
    jump: float | None = None

    @staticmethod
    def of(path: Path) -> RasterTrack:
        """The track of an image file, without its alpha channel, or of a sound file."""
        if kind_of(path) == "sound":
            return RasterTrack(path.stem, load_sound(path).values)
        values = load_image(path)
        return RasterTrack(path.stem, values[..., :3] if values.shape[-1] == 4 else values)

    @property
    def in_dim(self) -> int:
        """The number of axes of the signal."""
        return self.values.ndim - 1

    @property
    def out_dim(self) -> int:
        """The number of channels of the signal."""
        return self.values.shape[-1]

    @property
    def lattice(self) -> Lattice:
        """The lattice of the samples."""
        return Lattice(self.values.shape[:-1])

    @property
    def near(self) -> np.ndarray:
        """The points of the lattice ``(n, d)``, in [-1, 1]^d, last axis fastest."""
        return self.lattice.points(np.arange(self.lattice.size)).astype(np.float32)

    @property
    def kept(self) -> np.ndarray:
        """A mask ``(n,)`` of the samples that are trained on, the same in every race."""
        count = math.prod(self.values.shape[:-1])
        chosen = np.zeros(count, bool)
        chosen[np.random.default_rng(7).permutation(count)[: round(self.keep * count)]] = True
        return chosen

    def pool(self, config: FitConfig) -> Samples:
        """All samples that are kept; ``config`` is ignored."""
        kept = self.kept
        values = self.values.reshape(-1, self.out_dim).astype(np.float32)
        return Samples(torch.from_numpy(self.near[kept]), torch.from_numpy(values[kept]))

    def measure(self, field: Field) -> dict[str, float]:
        """PSNR and SNR in dB.

        They are over the samples that are not trained on if there are any, else over all samples.
        """
        measured = ~self.kept if self.keep < 1 else slice(None)
        output, truth = (
            values.reshape(-1, self.out_dim)[measured]
            for values in (self._evaluate(field), self.values)
        )
        return {"psnr": psnr(output, truth, self.peak), "snr": snr(output, truth)}

    def measure_end(self, field: Field) -> dict[str, float]:
        """The overshoot and the ringing around the jump, relative to ``peak``.

        Both are measured at positions within 0.05 of the jump; without a jump the result is empty.
        The overshoot is the largest excursion beyond the signal's range, the ringing is the root
        mean square error.
        """
        if self.jump is None:
            return {}
        output = self._evaluate(field)
        axis = self.near[: self.values.shape[-2], -1]
        window = np.abs(axis - self.jump) < 0.05
        around, truth = output[..., window, :], self.values[..., window, :]
        past = max(
            float(around.max() - self.values.max()), float(self.values.min() - around.min()), 0.0
        )
        return {
            "overshoot": past / self.peak,
            "ringing": float(np.sqrt(np.mean((around - truth) ** 2))) / self.peak,
        }

    def _evaluate(self, field: Field) -> np.ndarray:
        if isinstance(field, Cosines):
            return field.raster()
        with torch.no_grad():
            parts = [field(part) for part in torch.from_numpy(self.near).split(1 << 15)]
        return torch.cat(parts).numpy().reshape(self.values.shape)
