"""Tracks of painted surfaces: colours that fields fit, in closed form or from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from nstr3d.bench.compare import Contender
from nstr3d.fields.base import Field
from nstr3d.fields.baselines.ngp import NgpConfig, sized_ngp
from nstr3d.fields.baselines.siren import sized_siren
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.vicinity import Near
from nstr3d.geometry.mesh.paint import sample_paint
from nstr3d.geometry.mesh.solid import solid_distance
from nstr3d.geometry.mesh.surface import normalise, sample_surface
from nstr3d.geometry.shapes.primitives import sphere
from nstr3d.io import load_image, load_mesh
from nstr3d.io.paint import bilinear
from nstr3d.io.paintfile import read_paint
from nstr3d.signals.ratios import psnr
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import FitConfig
from nstr3d.training.losses import ValueObjective
from nstr3d.training.presets import (
    COLOURS,
    changed,
    colour_levels_for,
    sized_colours,
    sized_nstr,
)
from nstr3d.types import Mesh, Samples

BALL_CELLS = 64  # cells of the extraction of the ball that formulas paint
SMALL = FitConfig(batch=1024, settle=None)  # larger batches are worse here


@dataclass(frozen=True)
class PaintTrack:
    """The colours of the surface ``near``, which lies in the unit box.

    ``draw(count, generator)`` gives points ``(n, 3)`` of the surface and their display RGB ``(n,
    3)``; ``tests`` are points and colours that are not trained on.
    """

    name: str
    near: Mesh
    draw: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
    tests: tuple[np.ndarray, np.ndarray]
    in_dim: int = 3
    out_dim: int = 3

    @staticmethod
    def of(path: Path, picture: Path | None = None, tests: int = 50_000) -> PaintTrack:
        """The track of a mesh file with colours, or with texture coordinates and a ``picture``.
        Raises ValueError for a file without colours."""
        paint, _ = read_paint(path, picture)
        if paint is None:
            raise ValueError(f"{path} has no colours.")
        unit, frame = normalise(solid_distance(load_mesh(path)).mesh)

        def draw(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            points, colours = sample_paint(paint, count, generator)
            return frame.to_unit(points), colours

        return PaintTrack(path.stem, unit, draw, draw(tests, np.random.default_rng(1)))

    @staticmethod
    def formula(
        name: str, colour: Callable[[np.ndarray], np.ndarray], tests: int = 50_000
    ) -> PaintTrack:
        """A ball that ``colour`` paints: a function from unit vectors ``(n, 3)`` to display RGB."""
        mesh, _ = normalise(extract_mesh(sphere(1.0), BALL_CELLS))
        radius = float(np.linalg.norm(mesh.vertices, axis=1).mean())

        def draw(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            points, _ = sample_surface(mesh, count, generator)
            unit = points / np.linalg.norm(points, axis=1, keepdims=True)
            return radius * unit, colour(unit)

        return PaintTrack(name, mesh, draw, draw(tests, np.random.default_rng(1)))

    def pool(self, config: FitConfig) -> Samples:
        """The training samples that ``config.seed`` determines."""
        drawn = self.draw(config.pool, np.random.default_rng([config.seed, 0]))
        return Samples(*(torch.tensor(each, dtype=torch.float32) for each in drawn))

    def measure(self, field: Field) -> dict[str, float]:
        """The PSNR in dB and the root of the mean squared error at the points of ``tests``."""
        points, wanted = self.tests
        with torch.no_grad():
            parts = torch.tensor(points, dtype=torch.float32).split(1 << 14)
            got = torch.cat([field(part) for part in parts]).clamp(0, 1).double().numpy()
        error = float(np.sqrt(np.mean((got - wanted) ** 2)))
        return {"psnr": psnr(got, wanted, 1.0), "rms": error}

    def measure_end(self, field: Field) -> dict[str, float]:
        """Nothing more."""
        return {}


def stripes(unit: np.ndarray) -> np.ndarray:
    """Stripes whose wavelength drifts from 0.17 to 0.03 radii along the axis of the ball."""
    phase = 100 * np.exp(0.9 * (unit[:, 2] + 0.15 * unit[:, 0]))
    return 0.5 + 0.4 * np.sin(phase[:, None] + [0.0, 0.8, 1.6])


def checker(unit: np.ndarray) -> np.ndarray:
    """A checkerboard on one half of the ball and noise of two octaves on the other."""
    across, along = np.arctan2(unit[:, 1], unit[:, 2]), np.arcsin(unit[:, 0].clip(-1, 1))
    board = (np.floor(8 * across / np.pi) + np.floor(8 * along / np.pi)) % 2
    waves = np.random.default_rng(0).standard_normal((24, 3)) * np.repeat([6.0, 20.0], 12)[:, None]
    noise = np.cos(unit @ waves.T + np.arange(24)).mean(axis=1)
    grey = np.where(unit[:, 0] > 0, 0.15 + 0.7 * board, 0.5 + 1.2 * noise).clip(0, 1)
    return grey[:, None] * [1.0, 0.9, 0.7]


def photograph(picture: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A picture ``(h, w, 3)`` wrapped twice around the ball, by longitude and latitude."""
    texels = np.round(picture[:, :, :3] * 255).astype(np.uint8)

    def colour(unit: np.ndarray) -> np.ndarray:
        longitude = np.arctan2(unit[:, 1], unit[:, 0]) / np.pi
        latitude = 0.5 + np.arcsin(unit[:, 2].clip(-1, 1)) / np.pi
        return bilinear(texels, np.stack([longitude, latitude], axis=1))

    return colour


def formulas(picture: Path) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The paints of the ball by name; one shows the ``picture``."""
    return {"stripes": stripes, "checker": checker, "wrapped": photograph(load_image(picture))}


def waveless_levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The control for the waves: the levels of colours with plain channels instead of waves."""
    *coarser, last = colour_levels_for(finest)
    return *coarser, LevelConfig(last.resolution, plain=last.features, order=last.order)


def plain_levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The best grid without waves that we have: finer, with fewer channels."""
    return (
        LevelConfig(max(2, round(finest / 4)), plain=4, order=2),
        LevelConfig(max(3, round(finest / 2)), plain=3, order=2),
        LevelConfig(finest, plain=1, order=2),
    )


def contenders() -> list[Contender]:
    """The default field of colours, its controls, and the baselines with several settings."""
    loss = ValueObjective()

    def levels(
        make: Callable[[int], tuple[LevelConfig, ...]], template: NstrConfig = COLOURS
    ) -> Callable[[int, Near], NstrConfig]:
        return lambda params, near: sized_nstr(params, near, make, template, out_dim=3)

    random = replace(COLOURS, placement=None)
    result = [
        Contender("nstr", sized_colours, loss),
        Contender("nstr, random waves", levels(colour_levels_for, random), loss),
        Contender("nstr without waves", levels(waveless_levels_for), loss),
        Contender("grid", levels(plain_levels_for), loss),
    ]
    for finest in (128, 256):
        template = NgpConfig(levels=8, finest=finest, table_rate=2e-2)
        size = partial(sized_ngp, out_dim=3, template=template)
        result.append(Contender(f"ngp, {finest} cells", size, loss, SMALL))
    for omega in (30.0, 60.0):
        siren = changed(partial(sized_siren, out_dim=3), rate=1e-3, first_omega=omega)
        result.append(Contender(f"siren, omega {omega:g}", siren, loss, SMALL))
    return result
