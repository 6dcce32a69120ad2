"""Carrying relief across what is missing of a surface: complex waves near it under a linear,
diagonal transport law.

``f(x) = c(x) + Re sum_k S_k(x) exp(i omega_k . x)``: a coarse cubic spline c, S_k multilinear
between the nodes near the samples, and from a node to the next along an axis ``S_k -> rho_k S_k``.
The factors rho_k vary slowly from place to place: they are read off S where samples are, averaged,
in closed form, and in turn S is the least-squares solution for the samples under the law. Where no
sample is the law alone speaks: ridges go on with their local frequency.
`nstr3d.fields.closed.carried` does so for sounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from nstr3d.fields.conjugate import conjugate_gradients
from nstr3d.fields.lattice import lattice_links, lattice_nodes, sparse_rows
from nstr3d.fields.start.placement import PlacementConfig, strongest_frequencies

PLACEMENT = PlacementConfig(samples=20_000, candidates=600, band=(0.5, 3.8))
FLOOR = 1e-4  # of the largest power that a wave is expected to have at least
CHUNK = 1 << 14
RIDGE_ITERATIONS = 50  # of the first solution, without the law
CONVERGED = 1e-12  # of the right side's square: a residual at which iterations end


@dataclass(frozen=True)
class SurfaceWavesConfig:
    """``waves`` with amplitudes on a grid of ``cells`` per axis of the unit box, and a spline of
    ``coarse`` cells.

    Per node, the law has the ``weight`` and the amplitudes a ``ridge``, against its samples; the
    spline's second differences have ``smooth``. Factors are first read off a solution without the
    law, under ``first_ridge``, and averaged by a Gaussian of standard deviation ``reach``, wider
    than a hole's radius; ``rounds`` of factors and amplitudes follow, with ``iterations`` each.
    ``carry = False`` holds the factors at 1, plain smoothness, and ``weight = 0`` is ridge
    regression: the controls.
    """

    waves: int = 16
    cells: int = 16
    coarse: int = 8
    weight: float = 0.005
    ridge: float = 1e-3
    first_ridge: float = 0.01
    smooth: float = 0.01
    reach: float = 0.25
    rounds: int = 5
    iterations: int = 25
    carry: bool = True
    placement: PlacementConfig = PLACEMENT

    def __post_init__(self):
        if min(self.waves, self.cells, self.coarse, self.rounds, self.iterations) < 1:
            raise ValueError(
                "Waves near a surface take a wave, a cell, a round and an iteration at least, "
                f"unlike {self}."
            )
        if min(self.weight, self.ridge, self.smooth) < 0 or not self.reach > 0:
            raise ValueError(
                f"Weights must not be below 0 and the reach must be positive, unlike in {self}."
            )


@dataclass(frozen=True)
class SurfaceWaves:
    """The fitted model: ``spline (m,)`` and complex ``amplitudes (nodes, waves)`` of waves ``omega
    (waves, dim)``."""

    spline: np.ndarray
    amplitudes: np.ndarray
    omega: np.ndarray
    frame: _Frame

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values ``(n,)`` at ``points (n, dim)``, in the cells of what it was fitted near."""
        vector = self.frame.vector(self.spline, self.amplitudes)
        parts = np.array_split(points, max(1, -(-len(points) // CHUNK)))
        return np.concatenate([self.frame.design(part) @ vector for part in parts])


def fit_surface_waves(
    points: np.ndarray,
    values: np.ndarray,
    near: np.ndarray,
    config: SurfaceWavesConfig | None = None,
    generator: np.random.Generator | None = None,
) -> SurfaceWaves:
    """The model of ``values (n,)``, distances near a surface, at ``points (n, dim)`` in the unit
    box; the first ``config.placement.samples`` of them count. ``near (m, dim)`` are places, to
    within a cell, where values will be asked for: the surface with its holes closed somehow.
    Frequencies are drawn with ``generator``.

    Raises ValueError for no samples, or one that is not finite.
    """
    config, generator = config or SurfaceWavesConfig(), generator or np.random.default_rng(0)
    points, values = (
        points[: config.placement.samples].astype(np.float32),
        values[: config.placement.samples].astype(np.float32),
    )
    if not len(points) or not (np.isfinite(points).all() and np.isfinite(values).all()):
        raise ValueError("Waves near a surface need samples, all of them finite.")
    omega = strongest_frequencies(
        points, values[:, None], config.cells, config.waves, config.placement, generator
    )
    frame = _Frame(points, near, omega, config.cells, config.coarse)
    law, system = _Law(frame, config.reach), _System(frame, points, values, config)
    if config.weight and not config.carry:
        still = np.ones((len(law.links), len(omega)))
        solution = system.solve(
            system.zero,
            law,
            still,
            config.weight,
            config.ridge,
            law.even,
            config.rounds * config.iterations,
        )
        return SurfaceWaves(*frame.split(solution), omega, frame)
    ridge = config.first_ridge if config.weight else config.ridge
    solution = system.solve(system.zero, law, None, 0.0, ridge, law.even, RIDGE_ITERATIONS)
    for _ in range(config.rounds if config.weight else 0):
        factors, scale = law.read(frame.split(solution)[1])
        solution = system.solve(
            solution, law, factors, config.weight, config.ridge, scale, config.iterations
        )
    return SurfaceWaves(*frame.split(solution), omega, frame)


class _Frame:
    """The nodes near the samples and the linear map from unknowns to values: spline coefficients,
    then real and imaginary parts of the amplitudes, wave by wave."""

    def __init__(
        self, points: np.ndarray, near: np.ndarray, omega: np.ndarray, cells: int, coarse: int
    ):
        self.omega, self.cells, self.coarse, self.dim = omega, cells, coarse, points.shape[1]
        self.rows = _stored(np.concatenate([points, near]), cells)
        self.count = int(self.rows.max()) + 1
        self.mass = np.asarray(self.spread(points).sum(axis=0)).ravel()
        self.size = (coarse + 3) ** self.dim

    @property
    def places(self) -> np.ndarray:
        """Where the nodes are ``(nodes, dim)``, in cells."""
        found = np.flatnonzero(self.rows >= 0)
        return np.stack(np.unravel_index(found, (self.cells + 1,) * self.dim), axis=1)

    def spread(self, points: np.ndarray) -> Any:
        """From values at the nodes to the points; nodes that are not stored count as zero."""
        corners, weights = lattice_nodes(points, self.cells)
        rows = self.rows[corners]
        return sparse_rows(np.maximum(rows, 0), np.where(rows >= 0, weights, 0), self.count)

    def design(self, points: np.ndarray) -> Any:
        """The matrix ``(n, unknowns)``."""
        from scipy.sparse import diags, hstack

        spread, phase = self.spread(points), (points @ self.omega.T).astype(np.float32)
        waves = [
            diags(turn(phase)[:, k]) @ spread
            for turn in (np.cos, lambda p: -np.sin(p))
            for k in range(phase.shape[1])
        ]
        return hstack([_spline(points, self.coarse), *waves]).tocsr()

    def split(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Spline coefficients and amplitudes ``(nodes, waves)``."""
        real, imaginary = vector[self.size :].reshape(2, len(self.omega), self.count)
        return vector[: self.size], (real + 1j * imaginary).T

    def vector(self, spline: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """The inverse of `split`."""
        return np.concatenate([spline, amplitudes.T.real.ravel(), amplitudes.T.imag.ravel()])


class _Law:
    """Neighbouring nodes, and the factors from one to the next."""

    def __init__(self, frame: _Frame, reach: float):
        from scipy.sparse import csr_array

        grid = frame.rows.reshape((frame.cells + 1,) * frame.dim)
        pairs = lattice_links(grid)
        self.links = np.concatenate(pairs)
        self.axes = np.split(
            np.arange(len(self.links)), np.cumsum([len(pair) for pair in pairs])[:-1]
        )
        one, lines = np.ones(len(self.links), np.float32), np.arange(len(self.links))
        self.first, self.second = (
            csr_array((one, (lines, end)), shape=(len(one), frame.count)) for end in self.links.T
        )
        self.even = np.ones((frame.count, len(frame.omega)))
        typical = np.median(frame.mass[frame.mass > 0])
        self.known = np.minimum(frame.mass / typical, 1) ** 2  # how far a node can be believed
        self.trust = self.known[self.links].min(axis=1)[:, None]
        places, cells = frame.places, reach * frame.cells / 2
        middles = places[self.links].mean(axis=1)
        self.around = [_gaussian(middles[axis], cells) for axis in self.axes]
        self.near = _gaussian(places, cells)

    def read(self, amplitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The factors ``(links, waves)`` that fit best around each link, never growing, and how
        large amplitudes are expected to be ``(nodes, waves)``: waves without energy nearby are held
        back."""
        before, after = amplitudes[self.links[:, 0]], amplitudes[self.links[:, 1]]
        change, power = self.trust * after * before.conj(), self.trust * np.abs(before) ** 2
        factors = np.empty_like(change)
        for lines, around in zip(self.axes, self.around):
            factors[lines] = (around @ change[lines]) / np.maximum(around @ power[lines], 1e-20)
        share = self.near @ (self.known[:, None] * np.abs(amplitudes) ** 2)
        share /= np.maximum(self.near @ self.known, 1e-9)[:, None]
        return factors / np.maximum(np.abs(factors), 1), np.sqrt(
            share / max(float(share.max()), 1e-30) + FLOOR
        )

    def gradient(self, amplitudes: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Half the gradient of the sum of ``|S_second - factor S_first|^2`` over links."""
        error = self.second @ amplitudes - factors * (self.first @ amplitudes)
        return self.second.T @ error - self.first.T @ (factors.conj() * error)


class _System:
    """The normal equations."""

    def __init__(
        self, frame: _Frame, points: np.ndarray, values: np.ndarray, config: SurfaceWavesConfig
    ):
        self.frame, self.config = frame, config
        self.matrix = frame.design(points)
        self.transposed = self.matrix.T.tocsr()
        self.right = self.transposed @ values
        self.diagonal = np.asarray(self.transposed.power(2).sum(axis=1)).ravel()
        self.density = len(points) / frame.count
        self.bending = _second_differences(config.coarse, frame.dim)
        self.zero = np.zeros(self.matrix.shape[1])

    def solve(
        self,
        start: np.ndarray,
        law: _Law,
        factors: np.ndarray | None,
        weight: float,
        ridge: float,
        scale: np.ndarray,
        steps: int,
    ) -> np.ndarray:
        """Conjugate gradients (Jacobi) from ``start``, on amplitudes in units of ``scale``."""
        frame, size, smooth = self.frame, self.frame.size, self.config.smooth
        units = np.concatenate([np.ones(size), scale.T.ravel(), scale.T.ravel()])
        weight, ridge = weight * self.density, ridge * self.density
        relative = (
            None if factors is None else factors * scale[law.links[:, 0]] / scale[law.links[:, 1]]
        )

        def normal(vector: np.ndarray) -> np.ndarray:
            result = units * (self.transposed @ (self.matrix @ (units * vector)))
            result[:size] += smooth * (self.bending.T @ (self.bending @ vector[:size]))
            result[size:] += ridge * vector[size:]
            if relative is not None:
                spline, amplitudes = frame.split(vector)
                result += weight * frame.vector(0 * spline, law.gradient(amplitudes, relative))
            return result

        diagonal = units**2 * self.diagonal
        diagonal[:size] += 6 * smooth * frame.dim
        diagonal[size:] += ridge + (0 if relative is None else 2 * frame.dim * weight)
        solutions = conjugate_gradients(
            normal,
            units * self.right,
            start / units,
            1 / np.maximum(diagonal, 1e-9),
            tolerance=CONVERGED,
        )
        solution, _ = next(islice(solutions, steps - 1, None))
        return units * solution


def _stored(points: np.ndarray, cells: int) -> np.ndarray:
    """Row of each node ``((cells + 1)^dim,)``: those of the points' cells, -1 for the others."""
    corners = np.unique(lattice_nodes(points, cells)[0])
    rows = np.full((cells + 1) ** points.shape[1], -1)
    rows[corners] = np.arange(len(corners))
    return rows


def _spline(points: np.ndarray, cells: int) -> Any:
    """Uniform cubic B-splines: the matrix ``(n, (cells + 3)^dim)``."""
    dim = points.shape[1]
    scaled = (points + 1) * (cells / 2)
    cell = np.clip(np.floor(scaled), 0, cells - 1).astype(np.int64)
    u = scaled - cell
    pieces = (
        np.stack(
            [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=2
        )
        / 6
    )
    strides = (cells + 3) ** np.arange(dim - 1, -1, -1)
    columns, weights = [], []
    for shift in np.ndindex(*(4,) * dim):
        columns.append((cell + shift) @ strides)
        weights.append(math.prod(pieces[:, axis, s] for axis, s in enumerate(shift)))
    return sparse_rows(
        np.stack(columns, axis=1), np.stack(weights, axis=1).astype(np.float32), (cells + 3) ** dim
    )


def _second_differences(cells: int, dim: int) -> Any:
    """The matrix that takes a spline's coefficients to their second differences along every
    axis."""
    grid, edge = np.arange((cells + 3) ** dim).reshape((cells + 3,) * dim), cells + 3
    lines = [
        np.stack(
            [np.take(grid, range(shift, edge - 2 + shift), axis).ravel() for shift in range(3)],
            axis=1,
        )
        for axis in range(dim)
    ]
    columns = np.concatenate(lines)
    return sparse_rows(
        columns, np.tile(np.array([1, -2, 1], np.float32), (len(columns), 1)), grid.size
    )


def _gaussian(places: np.ndarray, deviation: float) -> Any:
    """Gaussian weights ``(n, n)`` between places, cut off at 2.5 standard deviations."""
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    pairs = KDTree(places).query_pairs(2.5 * deviation, output_type="ndarray")
    away = np.square(places[pairs[:, 0]] - places[pairs[:, 1]]).sum(axis=1)
    weight, same = np.exp(-0.5 * away / deviation**2), np.arange(len(places))
    entries = np.concatenate([weight, weight, np.ones(len(places))])
    rows, columns = (np.concatenate([pairs[:, a], pairs[:, 1 - a], same]) for a in range(2))
    return csr_array((entries, (rows, columns)), shape=(len(places),) * 2)
