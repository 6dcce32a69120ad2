"""The phases of the waves in a part of a picture, read where pixels are known.

A wave is followed from window to window, beginning where it is strongest. A polynomial phase is
fitted to its frequencies, and continues them where nothing is known. The turns of its amplitudes
between nodes then correct the phase. Each wave is subtracted before the next one is read (matching
pursuit; Mallat and Zhang, 1993).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from nstr3d.fields.closed.wavelaw import NodeGrid, carried_amplitudes, synthesise

WAVES = 8  # at most, in a part of a picture
DEGREE = 3  # of the phase, so frequencies are quadratic
BEND = 1e-3  # weight of a phase's higher terms, relative to the squared errors of its frequencies
REFINEMENTS = 1  # corrections of each new phase
# Least share of the power without this wave that a further wave explains, and the share of the
# first power at which enough is explained.
LEAST, ENOUGH = 0.1, 2e-3
SILENT = 1e-7  # mean square of what is not smooth at which there is no wave, for pixels in [0, 1]
LONGEST = 2.2  # longest wave that is read, in hops; the smooth part has the longer ones
SEEN = 0.15  # least share of a window's mass at known pixels where a wave is read
FOLLOWED = 0.05  # least power of a wave in a window, relative to its strongest window


@dataclass(frozen=True)
class PolynomialPhase:
    """A phase in radians: a polynomial with ``coefficients (terms,)`` in the pixel's offset from
    ``centre (2,)``, in units of ``scale`` pixels."""

    coefficients: np.ndarray
    centre: tuple[float, float]
    scale: float

    def __call__(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The phase at pixels ``y`` and ``x`` (arrays of one shape)."""
        v, u = self._offsets(y, x)
        return sum(c * v**a * u**b for c, (a, b) in zip(self.coefficients, _terms())) + 0 * v

    def slopes(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The frequencies ``(..., 2)`` along y and x at pixels, in radians per pixel."""
        return _slopes(*self._offsets(y, x)) @ self.coefficients / self.scale

    def _offsets(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (y - self.centre[0]) / self.scale, (x - self.centre[1]) / self.scale


def read_waves(values: np.ndarray, known: np.ndarray, hop: int) -> list[PolynomialPhase]:
    """The phases of the strongest waves in ``values (h, w, c)`` where ``known (h, w)`` is true.

    Windows and amplitudes are ``hop`` pixels apart. The list is empty if nothing but a smooth part
    is there.
    """
    grid = NodeGrid((known.shape[0], known.shape[1]), hop)
    remainder, phases = _sharp(values, known, 0.75 * hop), []
    first = power = _power(remainder, known)
    while len(phases) < WAVES and power > max(SILENT, ENOUGH * first):
        phase = _strongest(remainder, known, hop)
        if phase is None:
            break
        for _ in range(REFINEMENTS):
            amplitudes = carried_amplitudes(grid, remainder, known, _images(grid, [phase]))
            (phase,) = _corrected(grid, [phase], amplitudes, known)
        images = _images(grid, [phase])
        model = sum(synthesise(grid, carried_amplitudes(grid, remainder, known, images), images))
        after = (remainder - model) * known[..., None]
        power, before = _power(after, known), power
        if power > (1 - LEAST) * before:
            break
        phases, remainder = [*phases, phase], after
    if not phases:
        return []
    amplitudes = carried_amplitudes(grid, values, known, _images(grid, phases))
    return _corrected(grid, phases, amplitudes, known)


def carried_waves(
    values: np.ndarray, known: np.ndarray, phases: list[PolynomialPhase], hop: int
) -> np.ndarray:
    """The waves ``(h, w, c)`` of ``phases`` with the amplitudes that fit ``values (h, w, c)`` where
    ``known (h, w)`` is true, on nodes ``hop`` pixels apart."""
    grid = NodeGrid((known.shape[0], known.shape[1]), hop)
    images = _images(grid, phases)
    return synthesise(grid, carried_amplitudes(grid, values, known, images), images)[1]


def _images(grid: NodeGrid, phases: list[PolynomialPhase]) -> list[np.ndarray]:
    y, x = np.mgrid[: grid.shape[0], : grid.shape[1]]
    return [phase(y, x) for phase in phases]


def _power(values: np.ndarray, known: np.ndarray) -> float:
    return float(np.square(values[known]).sum(axis=-1).mean())


def _sharp(values: np.ndarray, known: np.ndarray, deviation: float) -> np.ndarray:
    """What a Gaussian of ``deviation`` pixels takes away from ``values (h, w, c)``, 0 at hidden
    pixels."""
    from scipy.ndimage import gaussian_filter

    mass = np.maximum(gaussian_filter(known.astype(np.float64), deviation), 1e-3)
    seen = np.where(known[..., None], values, 0.0)
    smooth = [gaussian_filter(seen[..., i], deviation) / mass for i in range(values.shape[-1])]
    return (seen - np.stack(smooth, axis=-1)) * known[..., None]


def _strongest(values: np.ndarray, known: np.ndarray, hop: int) -> PolynomialPhase | None:
    """The phase of the strongest wave in ``values (h, w, c)``, or None if there is none. The wave
    is read in the colour with most power."""
    seen = values[known]
    colour = np.linalg.eigh(seen.T @ seen)[1][:, -1]
    windows = _Windows.of(values @ colour, known, hop)
    if not windows.power.any():
        return None
    places, slopes, weights = windows.follow()
    height, width = known.shape
    centre = (height - 1) / 2, (width - 1) / 2
    return _fit_phase(places, slopes, weights, centre, max(height, width) / 2)


@dataclass(frozen=True)
class _Windows:
    """The power spectra ``power (windows, ky, kx)`` in Gaussian windows around ``places (windows,
    2)``, which lie on a grid of ``shape``. ``ky`` and ``kx`` are the frequencies, ``mass`` each
    window's share at known pixels, and ``width`` half the width of a spectral line."""

    power: np.ndarray
    places: np.ndarray
    shape: tuple[int, int]
    ky: np.ndarray
    kx: np.ndarray
    mass: np.ndarray
    width: float

    @classmethod
    def of(cls, values: np.ndarray, known: np.ndarray, hop: int) -> _Windows:
        """The spectra of ``values (h, w)``, 0 at hidden pixels, in windows of deviation ``hop``."""
        from scipy.fft import rfft2

        size = (8 if hop <= 8 else 6) * hop
        bell = np.exp(-0.5 * ((np.arange(size) - size // 2) / hop) ** 2)
        window = np.outer(bell, bell)
        rows, columns = (np.arange(hop // 2, n, hop) for n in known.shape)
        slide = np.lib.stride_tricks.sliding_window_view
        each, seen = (
            slide(np.pad(image, size // 2), (size, size))[rows[:, None], columns].reshape(
                -1, size, size
            )
            for image in (values.astype(np.float32), known.astype(np.float32))
        )
        mass = np.einsum("nij,ij->n", seen, window) / window.sum()
        ky, kx = 2 * np.pi * np.fft.fftfreq(size), 2 * np.pi * np.fft.rfftfreq(size)
        power = np.zeros((len(each), size, len(kx)), np.float32)
        readable = np.hypot(*np.meshgrid(ky, kx, indexing="ij")) >= 2 * np.pi / (LONGEST * hop)
        for i in np.flatnonzero(mass > SEEN):
            spectrum = np.asarray(rfft2(each[i] * window.astype(np.float32)))
            power[i] = np.abs(spectrum) ** 2 * readable
        places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        return cls(power, places, (len(rows), len(columns)), ky, kx, mass, 1.5 / hop)

    def follow(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The places, frequencies and powers of the strongest wave, in the windows that it is
        followed to. The strongest window's neighbours come first."""
        first, ky, kx = np.unravel_index(int(self.power.argmax()), self.power.shape)
        start, top = self._peak(int(first), np.array([self.ky[ky], self.kx[kx]]))
        waves, queue = {int(first): (start, top)}, [(-top, int(first))]
        least = FOLLOWED * top / self.mass[first] ** 2
        while queue:
            _, here = heapq.heappop(queue)
            for there in self._neighbours(here):
                if there in waves or self.mass[there] <= SEEN:
                    continue
                slope, power = self._peak(there, waves[here][0])
                if power > 0 and power >= least * self.mass[there] ** 2:
                    waves[there] = slope, power
                    heapq.heappush(queue, (-power, there))
        slopes, powers = zip(*waves.values())
        return self.places[list(waves)], np.array(slopes), np.array(powers)

    def _neighbours(self, index: int) -> list[int]:
        row, column = divmod(index, self.shape[1])
        beside = ((row, column + 1), (row, column - 1), (row + 1, column), (row - 1, column))
        return [
            y * self.shape[1] + x
            for y, x in beside
            if 0 <= y < self.shape[0] and 0 <= x < self.shape[1]
        ]

    def _peak(self, index: int, near: np.ndarray) -> tuple[np.ndarray, float]:
        """The frequency and the power of a window's strongest wave within a line's width of the
        frequency ``near`` or its negative, with the sign of ``near``."""
        power = self.power[index]
        far = [
            np.maximum.outer(np.abs(self.ky - k[0]), np.abs(self.kx - k[1])) for k in (near, -near)
        ]
        masked = power * (np.minimum(*far) <= self.width)
        y, x = np.unravel_index(int(masked.argmax()), power.shape)
        top, size = float(masked[y, x]), len(self.ky)
        logs = np.log(np.maximum(power, 1e-4 * top + 1e-30))
        slope = np.array([self.ky[y], self.kx[x]])
        slope[0] += _vertex(logs[y - 1, x], logs[y, x], logs[(y + 1) % size, x]) * 2 * np.pi / size
        if 0 < x < len(self.kx) - 1:
            slope[1] += _vertex(*logs[y, x - 1 : x + 2]) * 2 * np.pi / size
        return (-slope if slope @ near < 0 else slope), top


def _vertex(before: float, here: float, after: float) -> float:
    """The offset in [-1/2, 1/2] of the vertex of the parabola through three equidistant values."""
    bend = before - 2 * here + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0


def _corrected(
    grid: NodeGrid, phases: list[PolynomialPhase], amplitudes: np.ndarray, known: np.ndarray
) -> list[PolynomialPhase]:
    """``phases`` corrected by the turns of their ``amplitudes`` between nodes whose surroundings
    are known."""
    from scipy.ndimage import gaussian_filter

    y, x = np.mgrid[: grid.nodes[0], : grid.nodes[1]] * grid.hop
    near = gaussian_filter(known.astype(np.float64), grid.hop / 2)
    near = near[np.minimum(y, grid.shape[0] - 1), np.minimum(x, grid.shape[1] - 1)]
    trust = np.minimum(
        np.minimum(near[:-1, :-1], near[1:, :-1]), np.minimum(near[:-1, 1:], near[1:, 1:])
    )
    y, x = y[:-1, :-1] + grid.hop / 2, x[:-1, :-1] + grid.hop / 2
    corrected = []
    for k, phase in enumerate(phases):
        wave = (amplitudes[:, 1 + 2 * k] + 1j * amplitudes[:, 2 + 2 * k]).reshape(*grid.nodes, -1)
        down = (wave[1:] * wave[:-1].conj()).sum(axis=-1)
        along = (wave[:, 1:] * wave[:, :-1].conj()).sum(axis=-1)
        down, along = down[:, :-1] + down[:, 1:], along[:-1] + along[1:]
        turns = np.stack([np.angle(down), np.angle(along)], axis=-1) / grid.hop
        weights = np.minimum(np.abs(down), np.abs(along)) * trust**2
        corrected.append(
            _fit_phase(
                np.stack([y, x], axis=-1).reshape(-1, 2),
                (phase.slopes(y, x) + turns).reshape(-1, 2),
                weights.ravel(),
                phase.centre,
                phase.scale,
            )
        )
    return corrected


def _fit_phase(
    places: np.ndarray,
    slopes: np.ndarray,
    weights: np.ndarray,
    centre: tuple[float, float],
    scale: float,
) -> PolynomialPhase:
    """The phase whose frequencies fit ``slopes (n, 2)`` at ``places (n, 2)`` best, by least squares
    with ``weights (n,)``."""
    weights = weights / max(float(weights.max()), 1e-300) + 1e-12
    y, x = (places - centre).T / scale
    design = _slopes(y, x) / scale
    matrix = np.einsum("n,nak,nal->kl", weights, design, design)
    degrees = np.array([a + b for a, b in _terms()], np.float64)
    stiff = np.where(degrees > 1, BEND * degrees**4, 0) * weights.sum() / scale**2
    right = np.einsum("n,nak,na->k", weights, design, slopes)
    tiny = 1e-12 * np.trace(matrix)
    coefficients = np.linalg.solve(matrix + np.diag(stiff + tiny), right)
    return PolynomialPhase(coefficients, centre, scale)


def _terms() -> list[tuple[int, int]]:
    """The exponents of y and x in a phase's terms."""
    return [(a, b) for a in range(DEGREE + 1) for b in range(DEGREE + 1 - a) if a + b]


def _slopes(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The derivatives ``(..., 2, terms)`` of the terms along v and u."""
    terms = _terms()
    down = np.stack([a * v ** max(a - 1, 0) * u**b for a, b in terms], axis=-1)
    along = np.stack([b * v**a * u ** max(b - 1, 0) for a, b in terms], axis=-1)
    return np.stack([down, along], axis=-2)
