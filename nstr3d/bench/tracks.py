"""Tracks for races (`nstr3d.bench.compare`): what is fitted, from which data, and how it is
measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nstr3d.fields.base import Field
from nstr3d.fields.closed.cosines import Cosines
from nstr3d.fields.nstr import Nstr
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.surface import face_normals, normalise, sample_surface
from nstr3d.io import load_image, load_mesh, load_sound
from nstr3d.signals.signal import kind_of
from nstr3d.surface.extract import extract_mesh
from nstr3d.surface.metrics import (
    BAND,
    TAU,
    compare_surfaces,
    iou,
    mean_abs_error,
    mean_angle,
    psnr,
    snr,
)
from nstr3d.training.fit import Fit, FitConfig, draw_pool, lipschitz_estimate
from nstr3d.training.sampling import SurfaceBand
from nstr3d.types import Frame, Lattice, Mesh, Samples

TESTS = 20_000  # points of each kind that a distance field is measured at
RESOLUTION = 256  # of the mesh that is extracted at the end


@dataclass(frozen=True)
class MeshTrack:
    """The signed distance of a shape in the unit box, ``near``.

    ``near_points``, ``volume_points`` and ``surface_points`` are ``(n, 3)``; the first two come
    with distances, the last with normals. Training data is complete and exact unless ``samples``
    bounds how many there are, or ``noise`` is the standard deviation of an error on their
    distances, in units of the box. ``meshed`` asks for the figures of the mesh too that is
    extracted at ``resolution``.
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
        """The shape in a mesh file, repaired and closed as a fit would; ``tests`` points of each
        kind come from seed 1, whatever the race's."""
        return MeshTrack.around(path.stem, close_holes(repair(load_mesh(path))[0])[0], tests)

    @staticmethod
    def around(name: str, mesh: Mesh, tests: int = TESTS) -> MeshTrack:
        """The track of a mesh, which is normalised here, with ``tests`` points of each kind."""
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
        """Samples of `SurfaceBand`; with noise their gradients are not known."""
        pool = draw_pool(SurfaceBand(self.near, self.distance), config)
        if self.samples is not None:
            pool = pool.map(lambda tensor: tensor[: self.samples])
        if not self.noise:
            return pool
        error = torch.randn(pool.values.shape, generator=torch.Generator().manual_seed(config.seed))
        return Samples(pool.points, pool.values + self.noise * error)

    def measure(self, field: Field) -> dict[str, float]:
        """Mean distance errors near, on and all around the surface in units of the box, normals in
        degrees, and the intersection over union near the surface and in the volume."""
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
        """Chamfer and Hausdorff in diagonals and F-score of the extracted mesh, unless there is no
        closed surface; the transport residual near the surface of a field with a transport
        network."""
        found = {}
        if isinstance(field, Nstr) and field.transport is not None:
            with torch.no_grad():
                found["residual"] = float(
                    field.transport_residual(
                        torch.from_numpy(self.near_points[0].astype(np.float32))
                    )
                )
        if not self.meshed:
            return found
        lipschitz = lipschitz_estimate(
            field, torch.from_numpy(self.near_points[0].astype(np.float32))
        )
        diagonal = self.near.bounds.diagonal
        try:
            mesh = extract_mesh(
                Fit(field, Frame.identity(3), self.near.bounds, lipschitz).sdf(), self.resolution
            )
        except ValueError:
            return found
        meshes = compare_surfaces(
            mesh,
            self.near,
            self.distance,
            np.random.default_rng(2),
            TAU * diagonal,
            len(self.near_points[0]),
        )
        found |= {
            "chamfer": meshes.chamfer / diagonal,
            "hausdorff": meshes.hausdorff / diagonal,
            "f_score": meshes.f_score,
        }
        return found


@dataclass(frozen=True)
class RasterTrack:
    """An image, a sound or another signal on a `Lattice`: ``values (*shape, channels)``.

    ``peak`` is the range that the PSNR refers to. Only the share ``keep`` of the samples, drawn at
    random, is trained on; then the others are what is measured. ``jump`` is where along the last
    axis the signal changes abruptly.
    """

    name: str
    values: np.ndarray
    peak: float = 1.0
    keep: float = 1.0
    jump: float | None = None

    @staticmethod
    def of(path: Path) -> RasterTrack:
        """An image, transparency left out, or a sound, whatever the file holds."""
        if kind_of(path) == "sound":
            return RasterTrack(path.stem, load_sound(path).values)
        values = load_image(path)
        return RasterTrack(path.stem, values[..., :3] if values.shape[-1] == 4 else values)

    @property
    def in_dim(self) -> int:
        """How many axes the signal has."""
        return self.values.ndim - 1

    @property
    def out_dim(self) -> int:
        """How many channels it has."""
        return self.values.shape[-1]

    @property
    def lattice(self) -> Lattice:
        """Where the samples are."""
        return Lattice(self.values.shape[:-1])

    @property
    def near(self) -> np.ndarray:
        """The lattice's points ``(n, d)``, last axis fastest."""
        return self.lattice.points(np.arange(self.lattice.size)).astype(np.float32)

    @property
    def kept(self) -> np.ndarray:
        """Which samples are trained on, bool ``(n,)``; the same in every race."""
        count = math.prod(self.values.shape[:-1])
        chosen = np.zeros(count, bool)
        chosen[np.random.default_rng(7).permutation(count)[: round(self.keep * count)]] = True
        return chosen

    def pool(self, config: FitConfig) -> Samples:
        """The samples that are kept, all of them whatever ``config.pool``."""
        kept = self.kept
        values = self.values.reshape(-1, self.out_dim).astype(np.float32)
        return Samples(torch.from_numpy(self.near[kept]), torch.from_numpy(values[kept]))

    def measure(self, field: Field) -> dict[str, float]:
        """PSNR and SNR in dB; of the samples left out where some are."""
        judged = ~self.kept if self.keep < 1 else slice(None)
        answer, truth = (
            values.reshape(-1, self.out_dim)[judged]
            for values in (self._answer(field), self.values)
        )
        return {"psnr": psnr(answer, truth, self.peak), "snr": snr(answer, truth)}

    def measure_end(self, field: Field) -> dict[str, float]:
        """Around the jump, within a twentieth of the axis: the overshoot past the signal's range,
        and the root mean square error, both relative to the peak."""
        if self.jump is None:
            return {}
        answer = self._answer(field)
        axis = self.near[: self.values.shape[-2], -1]
        window = np.abs(axis - self.jump) < 0.05
        around, truth = answer[..., window, :], self.values[..., window, :]
        past = max(
            float(around.max() - self.values.max()), float(self.values.min() - around.min()), 0.0
        )
        return {
            "overshoot": past / self.peak,
            "ringing": float(np.sqrt(np.mean((around - truth) ** 2))) / self.peak,
        }

    def _answer(self, field: Field) -> np.ndarray:
        if isinstance(field, Cosines):
            return field.raster()
        with torch.no_grad():
            parts = [field(part) for part in torch.from_numpy(self.near).split(1 << 15)]
        return torch.cat(parts).numpy().reshape(self.values.shape)
