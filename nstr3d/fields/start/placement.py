"""Where waves go: frequencies, amplitudes and phases of a level's phase waves, read off the samples
before training.

A wave that starts at a random frequency seldom finds the relief that it could carry: the loss has a
minimum per period. So the local spectrum of what a coarser grid leaves is measured first, by
demodulation, and the waves start where its energy is. The greedy choice is matching pursuit (Mallat
and Zhang, 1993) with atoms whose amplitude and phase vary over the level's nodes.
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

CHUNK = 64  # candidate frequencies at a time
COVERED = 0.9  # sum of the stored nodes' weights from which on a sample counts


@dataclass(frozen=True)
class PlacementConfig:
    """How `place_waves` looks: at ``samples`` samples, for the best of ``candidates`` random
    frequencies between the shares ``band`` of the nodes' Nyquist frequency; ``amplitude`` is the
    root mean square of the amplitudes that it starts with. Where the strongest wave is slower than
    the share ``least`` of that frequency, nothing is placed, and plain channels carry it."""

    samples: int = 12_000
    candidates: int = 400
    band: tuple[float, float] = (0.3, 2.5)
    amplitude: float = 0.03
    least: float = 0.0

    def __post_init__(self):
        if min(self.samples, self.candidates) < 1 or self.least < 0:
            raise ValueError(
                "Placing waves takes at least one sample and one candidate, and a least frequency "
                "of 0 or more."
            )
        if not 0 <= self.band[0] <= self.band[1] < math.inf:
            raise ValueError(
                "A band is (low, high) with 0 <= low <= high, in Nyquist frequencies of the "
                f"nodes, not {self.band}."
            )


def place_waves(
    level: Level, samples: Samples, config: PlacementConfig, generator: np.random.Generator
) -> None:
    """Sets the frequencies, amplitudes and phases of ``level``'s phase waves, in place, from
    samples of the signal.

    Only samples where the stored nodes have most of the weight count. From these a multilinear grid
    of half the level's resolution is subtracted. Then, wave by wave, the frequency whose
    demodulated remainder has the most energy is taken, its complex amplitude at every node is
    fitted by damped least squares, and what it explains is subtracted. Phases are unwrapped over
    neighbouring nodes, strongest links first. Where nothing is left to explain, or nothing that is
    fast enough, the level keeps its random start.
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
    rows = np.maximum(rows[inside], 0)  # any row will do where the weight is zero
    spread = sparse_rows(rows, weights[inside], level.table.shape[0])
    found = _Pursuit(
        points[inside], values[inside], spread, level.config.resolution, config, generator
    )
    if np.linalg.norm(found.strongest) < config.least * math.pi * level.config.resolution / 2:
        return
    chosen = [found.next() for _ in range(waves.count)]
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
    """Matching pursuit on what a coarse grid leaves of ``values (n, c)`` at ``points (n, dim)``:
    the ``remainder (n,)``.

    ``spread`` is the matrix that takes values at the nodes to the points, multilinearly.
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
        self.remainder = _without_coarse(points, _principal(values), max(4, cells // 2))
        self.omega = _candidates(points.shape[1], cells, config, generator)
        chunks = range(0, len(self.omega), CHUNK)
        self.energy = np.concatenate(
            [self._energies(self.omega[start : start + CHUNK]) for start in chunks]
        )

    @property
    def strongest(self) -> np.ndarray:
        """The candidate with the most energy, as far as they have been looked at ``(dim,)``."""
        return self.omega[int(self.energy.argmax())]

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """The best candidate and its complex amplitudes ``(nodes,)``, which are then subtracted.

        Energies fall as waves are taken away, so only the candidates that were best before are
        looked at again.
        """
        look = np.argsort(-self.energy)[:CHUNK]
        self.energy[look] = self._energies(self.omega[look])
        best = look[int(self.energy[look].argmax())]
        amplitude = self._fitted(self.omega[best])
        return self.omega[best], amplitude

    def _energies(self, omega: np.ndarray) -> np.ndarray:
        """Energy of the demodulated remainder: sum over nodes of |mean of r exp(-i w x)|^2 times
        the node's mass."""
        phase = torch.from_numpy(self.points) @ torch.from_numpy(omega).T
        remainder = torch.from_numpy(self.remainder)[:, None]
        moved = torch.cat([remainder * phase.cos(), remainder * phase.sin()], dim=1).numpy()
        energy = ((self.gathered @ moved) ** 2 / self.mass[:, None]).sum(axis=0)
        return energy[: len(omega)] + energy[len(omega) :]

    def _fitted(self, omega: np.ndarray) -> np.ndarray:
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


DAMPING, ITERATIONS = 0.45, 15  # of the least squares; damping per root of samples per node


def strongest_frequencies(
    points: np.ndarray,
    values: np.ndarray,
    cells: int,
    count: int,
    config: PlacementConfig,
    generator: np.random.Generator,
) -> np.ndarray:
    """The ``count`` frequencies ``(count, dim)`` that say most about ``values (n, c)`` at ``points
    (n, dim)`` beyond a coarse grid, with amplitudes on a grid of ``cells``: those that
    `place_waves` would take."""
    spread = touched_rows(points, cells)
    found = _Pursuit(points, values, spread, cells, config, generator)
    return np.array([found.next()[0] for _ in range(count)])


def _without_coarse(points: np.ndarray, values: np.ndarray, cells: int) -> np.ndarray:
    """What a multilinear grid of ``cells`` per axis, fitted by least squares, leaves of ``values
    (n,)``."""
    from scipy.sparse.linalg import lsmr

    grid = touched_rows(points, cells)
    values = values.astype(float)
    return (values - grid @ lsmr(grid, values, damp=0.1, maxiter=30)[0]).astype(np.float32)


def _principal(values: np.ndarray) -> np.ndarray:
    """``values (n, c)`` along their first principal direction ``(n,)``."""
    if values.shape[1] == 1:
        return values[:, 0]
    centred = values - values.mean(axis=0)
    return centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]


def _candidates(
    dim: int, cells: int, config: PlacementConfig, generator: np.random.Generator
) -> np.ndarray:
    direction = generator.standard_normal((config.candidates, dim))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    low, high = (share * math.pi * cells / 2 for share in config.band)
    return (direction * generator.uniform(low, high, (config.candidates, 1))).astype(np.float32)


def _unwrapped(phase: np.ndarray, strength: np.ndarray, links: np.ndarray) -> np.ndarray:
    """``phase (nodes,)`` plus multiples of 2 pi that make it smooth along the spanning tree of the
    strongest ``links``."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    count = len(phase)
    link = np.minimum(strength[links[:, 0]], strength[links[:, 1]])
    cost = 2.0 - link / max(link.max(initial=0.0), 1e-30)  # positive: zero would be no link
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
