"""Which way is out, told by a field that is trained on the points alone: no normals, no winding
number.

A small SIREN starts as a ball and is trained on unsigned data, the eikonal equation and a term that
spreads the sign; the signs of the normals are those of its gradient.
"""

from __future__ import annotations

import numpy as np
import torch

from nstr3d.fields.base import Field
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.orient import AGREED, estimate_normals, without_strays
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import Objective, sdf_objective
from nstr3d.training.unsigned import directional_divergence, unsigned_objective
from nstr3d.types import Samples

CARRIER = SirenConfig(width=64, depth=3, first_omega=15.0, hidden_omega=15.0, rate=1e-3)
BALL = FitConfig(steps=150, batch=2048, pool=100_000)
TRAINING = FitConfig(steps=400, batch=2048, pool=400_000, warmup=20)
# shares of samples on the points and near them, and how near; the rest fill the box
ON, NEAR, BAND = 0.5, 0.25, 0.05
SPREADING = 0.2  # weight of the term that spreads the sign
CHUNK = 1 << 14


def carried_normals(
    points: np.ndarray | Neighbours,
    objective: Objective | None = None,
    training: FitConfig = TRAINING,
) -> np.ndarray:
    """Unit normals ``(n, 3)`` of ``points (n, 3)`` in the unit box that look outward where the
    carrier has found out.

    Their directions are those of least variance; where the carrier's gradient differs much from
    these it counts instead.
    """
    tree = Neighbours.of(points)
    slope = _slopes(carrier(tree, objective, training), tree.points)
    normals = estimate_normals(tree)
    cosine = np.einsum("nd,nd->n", normals, slope)
    normals[cosine < 0] *= -1
    doubtful = np.abs(cosine) < AGREED
    normals[doubtful] = slope[doubtful]
    return without_strays(tree, normals)


def carrier(
    points: np.ndarray | Neighbours,
    objective: Objective | None = None,
    training: FitConfig = TRAINING,
) -> Field:
    """The field: about a signed distance to ``points (n, 3)`` in the unit box, negative inside,
    coarse."""
    tree, field = Neighbours.of(points), CARRIER.build(3, 1)
    generator = np.random.default_rng(0)
    volume = generator.uniform(-1, 1, (BALL.pool, 3))
    distance = np.linalg.norm(volume, axis=1) - np.linalg.norm(tree.points, axis=1).mean()
    _train(field, _samples(volume, distance), sdf_objective(delta=BAND), BALL)
    objective = objective or unsigned_objective(directional_divergence, SPREADING)
    _train(field, unsigned_samples(tree, training.pool, generator), objective, training)
    return field


def unsigned_samples(
    points: np.ndarray | Neighbours, count: int, generator: np.random.Generator
) -> Samples:
    """``count`` samples on, near and around ``points (n, 3)``: their values are the distance to the
    nearest, 0 on it."""
    tree, on, near = Neighbours.of(points), round(ON * count), round(NEAR * count)
    points = tree.points
    surface = points[generator.integers(0, len(points), on + near)]
    close = surface[on:] + BAND * generator.standard_normal((near, 3))
    away = np.concatenate([close, generator.uniform(-1, 1, (count - on - near, 3))]).clip(-1, 1)
    distance = np.maximum(tree.nearest(away)[0], 1e-6)
    return _samples(np.concatenate([surface[:on], away]), np.concatenate([np.zeros(on), distance]))


def _train(field: Field, samples: Samples, objective: Objective, config: FitConfig) -> None:
    for _ in fit_steps(field, samples, objective, config):
        pass


def _samples(points: np.ndarray, values: np.ndarray) -> Samples:
    return Samples(
        torch.from_numpy(points.astype(np.float32)),
        torch.from_numpy(values[:, None].astype(np.float32)),
    )


def _slopes(field: Field, points: np.ndarray) -> np.ndarray:
    parts = torch.from_numpy(points.astype(np.float32)).split(CHUNK)
    slope = torch.cat([field.value_and_gradient(part)[1] for part in parts]).double().numpy()
    return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)
