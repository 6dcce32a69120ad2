"""Continues the relief of a surface across holes by waves and a transport law.

The waves are complex and have amplitudes near the surface; the law is linear and diagonal. The
model is ``f(x) = c(x) + Re sum_k S_k(x) exp(i omega_k . x)``, where c is a coarse cubic spline. The
amplitudes S_k are multilinear between lattice nodes near the samples. The transport law says that
from a node to the next along an axis ``S_k -> rho_k S_k``, with factors rho_k that vary slowly in
space. The fit alternates two steps. The factors are local averages of the ratios of neighbouring
amplitudes where samples are, in closed form. The amplitudes are the least-squares solution for the
samples and the law. Where there are no samples, only the law determines the amplitudes, so ridges
continue with their local frequency. `nstr3d.fields.closed.carried` does the same for sounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from nstr3d.bench.splines import gaussian_matrix, second_differences, spline_matrix, stored_nodes
from nstr3d.fields.conjugate import conjugate_gradients
from nstr3d.fields.lattice import lattice_links, lattice_nodes, sparse_rows
from nstr3d.fields.start.placement import PlacementConfig, strongest_frequencies

PLACEMENT = PlacementConfig(samples=20_000, candidates=600, band=(0.5, 3.8))
FLOOR = 1e-4  # least expected power of a wave, relative to the largest
CHUNK = 1 << 14
RIDGE_ITERATIONS = 50  # iterations for the first solution, which ignores the law
CONVERGED = 1e-12  # squared residual, relative to the right side's square, that ends iterations


@dataclass(frozen=True)
class SurfaceWavesConfig:
    """The number of ``waves``, the resolutions and the weights of the fit.

    Amplitudes lie on a lattice of ``cells`` per axis of the unit box, the spline on ``coarse``
    cells per axis. ``weight`` weighs the law and ``ridge`` the squared amplitudes, both relative to
    the mean number of samples per node; ``smooth`` weighs the squared second differences of the
    spline. The first factors come from a solution without the law, with ``first_ridge`` in place of
    ``ridge``. Factors are averaged by a Gaussian of standard deviation ``reach``, in units of the
    unit box, which should exceed a hole's radius. Then ``rounds`` rounds update the factors and the
    amplitudes, the latter with ``iterations`` of conjugate gradients. Two settings are controls:
    ``carry = False`` fixes the factors at 1 (plain smoothness), and ``weight = 0`` is ridge
    regression. Raises ValueError for a count below 1, a negative weight, a reach that is not
    positive, and a number that is not finite.
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
                "Waves near a surface need waves, cells, coarse, rounds and iterations of at least "
                f"1, unlike {self}."
            )
        weights = self.weight, self.ridge, self.first_ridge, self.smooth
        if not all(0 <= weight < math.inf for weight in weights) or not 0 < self.reach < math.inf:
            raise ValueError(
                "Weights must not be negative and reach must be positive, and both finite, unlike "
                f"in {self}."
            )


@dataclass(frozen=True)
class SurfaceWaves:
    """The fitted model.

    ``spline (m,)`` holds the coefficients of c, ``amplitudes (nodes, waves)`` the complex S_k, and
    ``omega (waves, dim)`` the frequencies in radians per unit.
    """

    spline: np.ndarray
    amplitudes: np.ndarray
    omega: np.ndarray
    frame: _Frame

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values ``(n,)`` at ``points (n, dim)``.

        The amplitudes are zero at nodes outside the cells of the samples and of ``near`` (see
        `fit_surface_waves`).
        """
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
    """Fits the model to signed distances ``values (n,)`` at ``points (n, dim)`` near a surface.

    Points are in the unit box; only the first ``config.placement.samples`` of them are used. ``near
    (m, dim)`` are points, accurate to within a cell, where the model will be evaluated: points of
    the surface with its holes roughly closed. ``generator`` draws the candidate frequencies. Raises
    ValueError if there are no samples or one is not finite.
    """
    config, generator = config or SurfaceWavesConfig(), generator or np.random.default_rng(0)
    points, values = (
        points[: config.placement.samples].astype(np.float32),
        values[: config.placement.samples].astype(np.float32),
    )
    if not len(points) or not (np.isfinite(points).all() and np.isfinite(values).all()):
        raise ValueError(
            "Waves near a surface need at least one sample; points and values must be finite."
        )
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
    """The stored nodes and the linear map from the unknowns to values.

    Stored nodes are those of the cells of ``points`` and ``near``. The vector of unknowns holds the
    ``size`` spline coefficients, then the real parts of the amplitudes wave by wave, then the
    imaginary parts. ``rows`` is the row of every lattice node, -1 if it is not stored; ``mass`` is
    the sum of the samples' multilinear weights at each stored node.
    """

    def __init__(
        self, points: np.ndarray, near: np.ndarray, omega: np.ndarray, cells: int, coarse: int
    ):
        self.omega, self.cells, self.coarse, self.dim = omega, cells, coarse, points.shape[1]
        self.rows = stored_nodes(np.concatenate([points, near]), cells)
        self.count = int(self.rows.max()) + 1
        self.mass = np.asarray(self.spread(points).sum(axis=0)).ravel()
        self.size = (coarse + 3) ** self.dim

    @property
    def places(self) -> np.ndarray:
        """The positions ``(nodes, dim)`` of the stored nodes, in cells."""
        indices = np.flatnonzero(self.rows >= 0)
        return np.stack(np.unravel_index(indices, (self.cells + 1,) * self.dim), axis=1)

    def spread(self, points: np.ndarray) -> Any:
        """The sparse matrix ``(n, nodes)`` that interpolates node values at ``points (n, dim)``.

        Nodes that are not stored have the value zero.
        """
        corners, weights = lattice_nodes(points, self.cells)
        rows = self.rows[corners]
        return sparse_rows(np.maximum(rows, 0), np.where(rows >= 0, weights, 0), self.count)

    def design(self, points: np.ndarray) -> Any:
        """The sparse matrix ``(n, unknowns)`` from unknowns to values at ``points (n, dim)``."""
        from scipy.sparse import diags, hstack

        spread, phase = self.spread(points), (points @ self.omega.T).astype(np.float32)
        waves = [
            diags(turn(phase)[:, k]) @ spread
            for turn in (np.cos, lambda p: -np.sin(p))
            for k in range(phase.shape[1])
        ]
        return hstack([spline_matrix(points, self.coarse), *waves]).tocsr()

    def split(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Spline coefficients and complex amplitudes ``(nodes, waves)`` of a vector of unknowns."""
        real, imaginary = vector[self.size :].reshape(2, len(self.omega), self.count)
        return vector[: self.size], (real + 1j * imaginary).T

    def vector(self, spline: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """The vector of unknowns; the inverse of `split`."""
        return np.concatenate([spline, amplitudes.T.real.ravel(), amplitudes.T.imag.ravel()])


class _Law:
    """The transport law on the links between neighbouring stored nodes.

    ``links (links, 2)`` are the nodes' rows, ``axes`` the links of each axis; ``first`` and
    ``second`` are the matrices that select a link's ends.
    """

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
        self.known = np.minimum(frame.mass / typical, 1) ** 2  # weight of a node, from its samples
        self.trust = self.known[self.links].min(axis=1)[:, None]
        places, cells = frame.places, reach * frame.cells / 2
        middles = places[self.links].mean(axis=1)
        self.around = [gaussian_matrix(middles[axis], cells) for axis in self.axes]
        self.near = gaussian_matrix(places, cells)

    def read(self, amplitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The factors ``(links, waves)`` and the expected sizes ``(nodes, waves)`` of amplitudes.

        A factor is the least-squares fit to the amplitudes around its link, and its modulus is at
        most 1. The expected size is relative to the largest; it is small for waves without power
        nearby, which the ridge then suppresses.
        """
        before, after = amplitudes[self.links[:, 0]], amplitudes[self.links[:, 1]]
        change, power = self.trust * after * before.conj(), self.trust * np.abs(before) ** 2
        factors = np.empty_like(change)
        for lines, around in zip(self.axes, self.around):
            factors[lines] = (around @ change[lines]) / np.maximum(around @ power[lines], 1e-20)
        energies = self.near @ (self.known[:, None] * np.abs(amplitudes) ** 2)
        energies /= np.maximum(self.near @ self.known, 1e-9)[:, None]
        return factors / np.maximum(np.abs(factors), 1), np.sqrt(
            energies / max(float(energies.max()), 1e-30) + FLOOR
        )

    def gradient(self, amplitudes: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Half the gradient of the sum of ``|S_second - factor S_first|^2`` over the links."""
        error = self.second @ amplitudes - factors * (self.first @ amplitudes)
        return self.second.T @ error - self.first.T @ (factors.conj() * error)


class _System:
    """The normal equations of the least-squares problem for the unknowns."""

    def __init__(
        self, frame: _Frame, points: np.ndarray, values: np.ndarray, config: SurfaceWavesConfig
    ):
        self.frame, self.config = frame, config
        self.matrix = frame.design(points)
        self.transposed = self.matrix.T.tocsr()
        self.right = self.transposed @ values
        self.diagonal = np.asarray(self.transposed.power(2).sum(axis=1)).ravel()
        self.density = len(points) / frame.count
        self.bending = second_differences(config.coarse, frame.dim)
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
        """The unknowns after ``steps`` iterations of conjugate gradients from ``start``.

        The preconditioner is the diagonal (Jacobi). ``scale (nodes, waves)`` is the unit of each
        amplitude, in which the ridge and the law are measured. Without ``factors`` there is no law.
        """
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
