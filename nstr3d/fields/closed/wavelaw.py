"""The amplitudes of waves on a picture by the law of transport: one Hermitian banded solve.

The model is ``f(x) = c(x) + Re sum_k S_k(x) exp(i phi_k(x))`` with bilinear c and complex S_k
between nodes. The law says that the spectrum is covariantly constant: from node i to its neighbour
j the whole wave ``T_k = S_k exp(i phi_k)`` changes by the factor ``exp(i w_ij)`` with ``w_ij =
phi_k(x_j) - phi_k(x_i)``, so the solve minimises ``sum |T_j - exp(i w_ij) T_i|^2 = sum |S_j -
S_i|^2`` beside the squared error at the known pixels. Where no pixel is known the law alone
determines the amplitudes, and a small ridge lets them fade away from the known pixels. Stripe
patterns on surfaces have the same energy (Knoeppel, Crane, Pinkall and Schroeder, 2015).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SMOOTH = 0.01  # weight of the law, relative to the squared error of a cell's pixels
RIDGE = 1e-4  # weight of the squared amplitudes, likewise
BASE_SMOOTH, BASE_RIDGE = 0.02, 1e-6  # these weights for c
CHUNK = 1 << 16  # pixels whose equations are summed at a time


@dataclass(frozen=True)
class NodeGrid:
    """Nodes ``hop`` pixels apart over a picture of ``shape (h, w)``, the first at its corner."""

    shape: tuple[int, int]
    hop: int

    @property
    def cells(self) -> tuple[int, int]:
        """The number of cells along each axis; the last ones may reach beyond the picture."""
        return -(-self.shape[0] // self.hop), -(-self.shape[1] // self.hop)

    @property
    def nodes(self) -> tuple[int, int]:
        """The number of nodes along each axis."""
        return self.cells[0] + 1, self.cells[1] + 1

    def corners(self) -> np.ndarray:
        """The indices ``(cells, 4)`` of the nodes at each cell's corners."""
        row, column = np.divmod(np.arange(self.cells[0] * self.cells[1]), self.cells[1])
        first = row * self.nodes[1] + column
        return np.stack([first + a * self.nodes[1] + b for a in (0, 1) for b in (0, 1)], axis=1)

    def weights(self) -> np.ndarray:
        """The bilinear weights ``(4, hop * hop)`` of a cell's corners at its pixels."""
        rise = (np.arange(self.hop) + 0.5) / self.hop
        along = np.stack([1 - rise, rise])
        return np.einsum("ai,bj->abij", along, along).reshape(4, -1)

    def split(self, image: np.ndarray) -> np.ndarray:
        """``image (h, w, c)`` as ``(cells, hop * hop, c)``, 0 beyond its border."""
        (rows, columns), hop = self.cells, self.hop
        room = [(0, cells * hop - n) for cells, n in zip(self.cells, self.shape)]
        padded = np.pad(image, [*room, (0, 0)]).reshape(rows, hop, columns, hop, -1)
        return padded.swapaxes(1, 2).reshape(rows * columns, hop * hop, -1)

    def join(self, parts: np.ndarray) -> np.ndarray:
        """The inverse of `split`."""
        (rows, columns), hop = self.cells, self.hop
        image = parts.reshape(rows, columns, hop, hop, -1).swapaxes(1, 2)
        return image.reshape(rows * hop, columns * hop, -1)[: self.shape[0], : self.shape[1]]


def carried_amplitudes(
    grid: NodeGrid, values: np.ndarray, known: np.ndarray, phases: Sequence[np.ndarray]
) -> np.ndarray:
    """The coefficients ``(nodes, 1 + 2 waves, c)`` that fit ``values (h, w, c)`` where ``known (h,
    w)`` is true under the law: c, then the real and the imaginary part of each S_k. ``phases`` are
    the waves' phi_k ``(h, w)``."""
    from scipy.linalg import solveh_banded

    columns, count = 1 + 2 * len(phases), grid.nodes[0] * grid.nodes[1]
    corners, size = grid.corners(), count * columns
    places = (corners[:, :, None] * columns + np.arange(columns)).reshape(len(corners), -1)
    band = np.zeros(((grid.nodes[1] + 2) * columns) * size)  # lower diagonals, one after another
    right = np.zeros((size, values.shape[-1]))
    target = grid.split(np.where(known[..., None], values, 0.0))
    seen = grid.split(known[..., None].astype(np.float64))
    for part, basis in _bases(grid, phases):
        design = (grid.weights().T[:, :, None] * basis[:, :, None]).reshape(
            *basis.shape[:2], -1
        ) * seen[part]
        turned = design.swapaxes(1, 2)
        np.add.at(right, places[part], turned @ target[part])
        rows, others = np.broadcast_arrays(places[part][:, :, None], places[part][:, None])
        lower = rows >= others
        index = (rows[lower] - others[lower]) * size + others[lower]
        band += np.bincount(index, (turned @ design)[lower], minlength=len(band))
    band = band.reshape(-1, size)
    _add_law(band, grid, columns)
    solution = solveh_banded(band, right, lower=True, overwrite_ab=True, check_finite=False)
    return solution.reshape(count, columns, -1)


def synthesise(
    grid: NodeGrid, amplitudes: np.ndarray, phases: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The smooth part c and the sum of the waves, both ``(h, w, c)``, of `carried_amplitudes`."""
    corners, weights, smooth, waves = grid.corners(), grid.weights(), [], []
    for part, basis in _bases(grid, phases):
        between = np.einsum("kp,nkbc->npbc", weights, amplitudes[corners[part]])
        smooth.append(between[:, :, 0])
        waves.append(np.einsum("npb,npbc->npc", basis[..., 1:], between[:, :, 1:]))
    return grid.join(np.concatenate(smooth)), grid.join(np.concatenate(waves))


def _bases(grid: NodeGrid, phases: Sequence[np.ndarray]) -> Iterator[tuple[slice, np.ndarray]]:
    """Cells, and the functions ``(cells, hop * hop, 1 + 2 waves)`` that their amplitudes scale."""
    turns = [grid.split(phase[..., None])[..., 0] for phase in phases]
    step, count = max(1, CHUNK // grid.hop**2), grid.cells[0] * grid.cells[1]
    for start in range(0, count, step):
        part = slice(start, start + step)
        waves = [wave for turn in turns for wave in (np.cos(turn[part]), -np.sin(turn[part]))]
        one = np.ones((min(step, count - start), grid.hop**2))
        yield part, np.stack([one, *waves], axis=-1)


def _add_law(band: np.ndarray, grid: NodeGrid, columns: int) -> None:
    """Adds the law and the ridge to the lower diagonals ``band`` in place."""
    law, ridge = np.full(columns, SMOOTH), np.full(columns, RIDGE)
    law[0], ridge[0] = BASE_SMOOTH, BASE_RIDGE
    law, ridge = law * grid.hop**2, ridge * grid.hop**2
    diagonal = band[0].reshape(*grid.nodes, columns)
    diagonal += ridge
    for axis, step in ((0, grid.nodes[1]), (1, 1)):
        first, second = (
            (cut, slice(None)) if axis == 0 else (slice(None), cut)
            for cut in (slice(None, -1), slice(1, None))
        )
        diagonal[first] += law
        diagonal[second] += law
        band[step * columns].reshape(*grid.nodes, columns)[first] -= law
