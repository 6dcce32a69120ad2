"""Chooses the frequencies, amplitudes and phases of a level's phase waves from the samples, before
training.

A wave that starts at a random frequency seldom converges to the relief that it could represent,
because the loss has a minimum per period. Therefore the residual of a coarser grid is demodulated
at many candidate frequencies, and the waves start at those with the most energy. The greedy choice
is matching pursuit (Mallat and Zhang, 1993) with atoms whose amplitude and phase vary over the
level's nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nstr3d.fields.lattice import lattice_links, lattice_nodes, sparse_rows, touched_rows
from nstr3d.fields.level import Level
from nstr3d.fields.waves import PhaseWaves
from nstr3d.types import Samples

CHUNK = 64  # candidate frequencies that are measured at a time
COVERED = 0.9  # least sum of the stored nodes' weights at a sample for the sample to be used
DAMPING = 0.45  # of a wave's least squares, times the root of the samples per node
ITERATIONS = 15  # of a wave's least squares


@dataclass(frozen=True)
class PlacementConfig:
    """The options of `place_waves`.

    It uses at most ``samples`` samples and tries ``candidates`` random frequencies within ``band``,
    in units of the nodes' Nyquist frequency. ``amplitude`` is the root mean square of each placed
    wave's amplitudes. If the frequency of the strongest wave is below ``least``, in the same units
    as ``band``, no wave is placed, because plain channels can represent it.

    Raises ValueError if ``samples`` or ``candidates`` is less than 1, ``least`` is negative, or
    ``band`` is not (low, high) with 0 <= low <= high < inf.
    """

    samples: int = 12_000
    candidates: int = 400
    band: tuple[float, float] = (0.3, 2.5)
    amplitude: float = 0.03
    least: float = 0.0

    def __post_init__(self):
        if min(self.samples, self.candidates) < 1 or self.least < 0:
            raise ValueError(
                "Placing waves takes at least 1 sample, at least 1 candidate and a least frequency "
                f"of 0 or more, unlike {self}."
            )
        if not 0 <= self.band[0] <= self.band[1] < math.inf:
            raise ValueError(
                "A band is (low, high) with 0 <= low <= high, in units of the Nyquist frequency of "
                f"the nodes, not {self.band}."
            )


def place_waves(
    level: Level, samples: Samples, config: PlacementConfig, generator: np.random.Generator
) -> None:
    """Sets the frequencies, amplitudes and phases of ``level``'s phase waves, in place, from
    ``samples`` of the signal.

    Only samples at which the stored nodes have a weight of at least `COVERED` are used. From their
    values a multilinear grid of half the level's resolution is subtracted. Then the waves are
    placed one by one: the candidate frequency at which the demodulated remainder has the most
    energy is chosen, the wave's complex amplitude at every node is fitted by damped least squares,
    and the fitted wave is subtracted from the remainder. Phases are unwrapped between neighbouring
    nodes, the strongest links first. The level keeps its random waves if no sample can be used, the
    strongest frequency is below ``config.least``, or a fitted wave is zero or not finite.
    """
    waves = level.config.waves
    assert isinstance(waves, PhaseWaves)
    points, values = (
        part[: 4 * config.samples].cpu().numpy() for part in (samples.points, samples.values)
    )
    nodes, weights = lattice_nodes(points, level.config.resolution, level.config.order)
    rows = level.rows.cpu().numpy()[nodes]
    weights = np.where(rows >= 0, weights, 0)
    inside = np.flatnonzero(weights.sum(axis=1) >= COVERED)[: config.samples]
    if not len(inside):
        return
    rows = np.maximum(rows[inside], 0)  # where the weight is zero, the row does not matter
    spread = sparse_rows(rows, weights[inside], level.table.shape[0])
    pursuit = _Pursuit(
        points[inside], values[inside], spread, level.config.resolution, config, generator
    )
    if np.linalg.norm(pursuit.strongest) < config.least * math.pi * level.config.resolution / 2:
        return
    chosen = [pursuit.next() for _ in range(waves.count)]
    size = np.sqrt(np.mean([np.abs(amplitude) ** 2 for _, amplitude in chosen], axis=1))
    if not (np.isfinite(size).all() and size.min() > 0):
        return
    rows = level.rows.cpu().numpy().reshape((level.config.edge,) * points.shape[1])
    links, start = np.concatenate(lattice_links(rows)), level.config.plain
    table = level.table.detach()
    with torch.no_grad():
        for index, (omega, amplitude) in enumerate(chosen):
            strength = np.abs(amplitude)
            # Re(z exp(i w x)) = |z| sin(w x + arg z + pi / 2)
            phase = _unwrapped(np.angle(amplitude) + math.pi / 2, strength, links) / waves.radians
            level.omega[index] = torch.as_tensor(omega)
            level.phase[index] = 0.0
            table[:, start + index] = torch.as_tensor(strength * (config.amplitude / size[index]))
            table[:, start + waves.count + index] = torch.as_tensor(phase)


class _Pursuit:
    """Matching pursuit on the ``remainder (n,)`` of ``values (n, c)`` at ``points (n, dim)`` after
    a coarse grid is subtracted.

    ``spread (n, nodes)`` is the sparse matrix that interpolates values at the nodes to the points.
    """

    def __init__(
        self,
        points: np.ndarray,
        values: np.ndarray,
        spread: Any,
        cells: int,
        config: PlacementConfig,
        generator: np.random.Generator,
    ):
        self.points, self.spread, self.nodes = points, spread, spread.shape[1]
        self.gathered = self.spread.T.tocsr()
        self.mass = np.asarray(self.gathered.sum(axis=1)).ravel() + 1e-3
        self.remainder = _subtract_coarse(points, _project(values), max(4, cells // 2))
        self.omega = _draw_candidates(points.shape[1], cells, config, generator)
        chunks = range(0, len(self.omega), CHUNK)
        self.energy = np.concatenate(
            [self._energies(self.omega[start : start + CHUNK]) for start in chunks]
        )

    @property
    def strongest(self) -> np.ndarray:
        """The candidate frequency ``(dim,)`` with the most energy, by the latest measurement of
        each candidate."""
        return self.omega[int(self.energy.argmax())]

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """The best candidate frequency ``(dim,)`` and its complex amplitudes ``(nodes,)``. The wave
        is subtracted from the remainder.

        Energies fall as waves are subtracted, so only the candidates with the most energy in their
        latest measurements are measured again.
        """
        leading = np.argsort(-self.energy)[:CHUNK]
        self.energy[leading] = self._energies(self.omega[leading])
        best = leading[int(self.energy[leading].argmax())]
        amplitude = self._fit_wave(self.omega[best])
        return self.omega[best], amplitude

    def _energies(self, omega: np.ndarray) -> np.ndarray:
        """Energy ``(k,)`` of the remainder r demodulated at each of the frequencies ``omega (k,
        dim)``: the sum over the nodes of |weighted mean of r exp(-i w x)|^2 times the node's sum of
        weights."""
        phase = torch.from_numpy(self.points) @ torch.from_numpy(omega).T
        remainder = torch.from_numpy(self.remainder)[:, None]
        moved = torch.cat([remainder * phase.cos(), remainder * phase.sin()], dim=1).numpy()
        energy = ((self.gathered @ moved) ** 2 / self.mass[:, None]).sum(axis=0)
        return energy[: len(omega)] + energy[len(omega) :]

    def _fit_wave(self, omega: np.ndarray) -> np.ndarray:
        from scipy.sparse import diags, hstack
        from scipy.sparse.linalg import lsmr

        phase = self.points @ omega
        system = hstack(
            [diags(np.cos(phase)) @ self.spread, -diags(np.sin(phase)) @ self.spread]
        ).tocsr()
        solution = lsmr(
            system,
            self.remainder.astype(float),
            damp=DAMPING * math.sqrt(len(self.points) / self.nodes),
            maxiter=ITERATIONS,
        )[0]
        self.remainder = (self.remainder - system @ solution).astype(np.float32)
        return solution[: self.nodes] + 1j * solution[self.nodes :]


def strongest_frequencies(
    points: np.ndarray,
    values: np.ndarray,
    cells: int,
    count: int,
    config: PlacementConfig,
    generator: np.random.Generator,
) -> np.ndarray:
    """The ``count`` frequencies ``(count, dim)``, in radians per unit length of the unit box, that
    matching pursuit chooses for ``values (n, c)`` at ``points (n, dim)``, as in `place_waves`.

    The waves' amplitudes vary over a multilinear grid of ``cells`` per axis. ``config.least`` is
    ignored.
    """
    spread = touched_rows(points, cells)
    pursuit = _Pursuit(points, values, spread, cells, config, generator)
    return np.array([pursuit.next()[0] for _ in range(count)])


def _subtract_coarse(points: np.ndarray, values: np.ndarray, cells: int) -> np.ndarray:
    """``values (n,)`` minus a multilinear grid of ``cells`` per axis that is fitted to them by
    least squares."""
    from scipy.sparse.linalg import lsmr

    grid = touched_rows(points, cells)
    values = values.astype(float)
    return (values - grid @ lsmr(grid, values, damp=0.1, maxiter=30)[0]).astype(np.float32)


def _project(values: np.ndarray) -> np.ndarray:
    """``values (n, c)`` projected onto their first principal axis, ``(n,)``."""
    if values.shape[1] == 1:
        return values[:, 0]
    centred = values - values.mean(axis=0)
    return centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]


def _draw_candidates(
    dim: int, cells: int, config: PlacementConfig, generator: np.random.Generator
) -> np.ndarray:
    direction = generator.standard_normal((config.candidates, dim))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    low, high = (bound * math.pi * cells / 2 for bound in config.band)
    return (direction * generator.uniform(low, high, (config.candidates, 1))).astype(np.float32)


def _unwrapped(phase: np.ndarray, strength: np.ndarray, links: np.ndarray) -> np.ndarray:
    """``phase (nodes,)`` plus multiples of 2 pi, such that neighbours on a spanning tree of the
    strongest ``links (m, 2)`` differ by at most pi. A link is as strong as the weaker of its two
    nodes, whose strengths are ``strength (nodes,)``."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    count = len(phase)
    link = np.minimum(strength[links[:, 0]], strength[links[:, 1]])
    cost = 2.0 - link / max(link.max(initial=0.0), 1e-30)  # positive, because zero means no link
    tree = minimum_spanning_tree(
        csr_array((cost, (links[:, 0], links[:, 1])), shape=(count, count))
    )
    smooth, seen = phase.copy(), np.zeros(count, bool)
    for root in np.argsort(-strength):
        if seen[root]:
            continue
        order, before = breadth_first_order(tree, root, directed=False)
        seen[order] = True
        for node in order[1:]:
            smooth[node] += (
                2 * math.pi * np.round((smooth[before[node]] - phase[node]) / (2 * math.pi))
            )
    return smooth
