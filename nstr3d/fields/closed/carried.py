"""Carrying the phase across gaps of a sound: a complex local spectrum with a linear, diagonal
transport law.

``f(t) = Re sum_k S_k(t) exp(i omega_k t)``, S_k linear between nodes, and ``dS_k/dt = (alpha_k + i
delta_k) S_k`` with rates that vary slowly in time. S is the least-squares solution for the known
samples under the law, by conjugate gradients, and the rates are fitted to S in closed form, in
turn. Where nothing is known the law alone speaks: waves go on with their local frequency. What
depends on where the nodes happen to be is averaged out over shifted and scaled grids (cycle
spinning; Coifman and Donoho, Translation-invariant de-noising, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from nstr3d.fields.conjugate import conjugate_gradients

# at most, of frequencies times that of nodes; at 1 the frame collapses (Balian, 1981; Low, 1985)
SPACING = 0.9

HOPS = (0.75, 1.0, 1.25)  # of the configured one, that spinning averages over
SHIFTS = 4  # of the grid at each

FLOOR = 1e-4  # of the largest power that a wave is expected to have at least
CONVERGED = 1e-24  # of the right side's square: a residual at which iterations end


@dataclass(frozen=True)
class CarryConfig:
    """``hop`` samples between nodes; ``weight`` of the law and of a ``ridge`` against the samples;
    ``reach`` nodes to either side over which rates are averaged (the whole sound when None);
    ``rounds`` of rates and amplitudes with ``iterations`` each.

    ``carry = False`` puts rates to zero, |S_k| and phase staying as they are: plain smoothness.
    ``weight = 0`` is ridge regression. Both are controls.
    """

    hop: int = 64
    weight: float = 0.1
    ridge: float = 1e-3
    reach: int | None = None
    rounds: int = 10
    iterations: int = 100
    carry: bool = True

    def __post_init__(self):
        if (
            self.hop < 2
            or self.rounds < 1
            or self.iterations < 1
            or min(self.weight, self.ridge) < 0
        ):
            raise ValueError(
                "Carrying needs a hop of 2 or more, a round, an iteration and weights not below "
                f"0, unlike {self}."
            )


@dataclass(frozen=True)
class Carried:
    """The fitted model: ``spectrum (nodes, waves)`` complex, each node's phase counted from itself,
    and ``omega (waves,)`` in radians per sample."""

    spectrum: np.ndarray
    omega: np.ndarray
    hop: int

    def values(self, length: int) -> np.ndarray:
        """The sound ``(length,)`` at its samples."""
        return _Frame(self.hop).synthesise(self.spectrum).ravel()[:length]

    def frequency(self) -> np.ndarray:
        """Instantaneous frequency ``(nodes - 1,)`` in radians per sample, between nodes: the mean
        of omega + d arg S / dt over waves, weighted by ``|S|^2``."""
        turn = np.exp(1j * self.omega * self.hop)
        product = self.spectrum[1:] * np.conj(self.spectrum[:-1] * turn)
        power = np.abs(product)
        local = self.omega + np.angle(product) / self.hop
        return (power * local).sum(axis=1) / np.maximum(power.sum(axis=1), 1e-30)


def carry(values: np.ndarray, known: np.ndarray, config: CarryConfig | None = None) -> Carried:
    """The model of ``values (n,)`` where ``known (n,)`` is true. Raises ValueError where nothing
    is, or it is not finite."""
    config = config or CarryConfig()
    if not known.any():
        raise ValueError("The mask hides every sample, so there is nothing to continue.")
    if not np.isfinite(values[known]).all():
        raise ValueError(
            "The samples hold values that are not finite; replace them, or mask them out."
        )
    hop, count = config.hop, -(-len(values) // config.hop)
    frame = _Frame(hop)
    omega = frame.omega
    seen = np.zeros((count, hop))
    seen.ravel()[: len(values)] = known
    target = np.zeros((count, hop))
    target.ravel()[: len(values)][known] = values[known]
    spectrum = np.zeros((count + 1, len(omega)), np.complex128)
    trust, right = _trust(seen.mean(axis=1)), frame.analyse(target)
    rates = np.broadcast_to(
        np.exp(1j * omega * hop) if config.carry else np.ones(len(omega)), spectrum[1:].shape
    )
    scale = np.ones_like(spectrum, np.float64)
    learns = config.carry and config.weight > 0
    for index in range(config.rounds if learns else 1):
        weight = (
            config.weight if index or not config.carry else 0.0
        )  # the first rates are those of a ridge regression
        if index:
            rates, scale = _rates(spectrum, trust, config.reach), _scale(spectrum, config.reach)
        normal = _normal(frame, seen, scale, rates * scale[:-1] / scale[1:], config.ridge, weight)
        steps = config.iterations * (1 if learns else 4)
        fits = conjugate_gradients(normal, scale * right, spectrum / scale, tolerance=CONVERGED)
        solution, _ = next(islice(fits, steps - 1, None))
        spectrum = scale * solution
    return Carried(spectrum, omega, hop)


def spin(values: np.ndarray, known: np.ndarray, config: CarryConfig | None = None) -> np.ndarray:
    """The mean sound ``(n,)`` of the models that `carry` fits on shifted and scaled grids of nodes.
    Raises as it does."""
    config = config or CarryConfig()
    total = np.zeros(len(values))
    for share in HOPS:
        scaled = replace(config, hop=max(2, round(share * config.hop)))
        for shift in range(SHIFTS):
            ahead = shift * scaled.hop // SHIFTS  # unknown samples put before the first
            model = carry(np.pad(values, (ahead, 0)), np.pad(known, (ahead, 0)), scaled)
            total += model.values(len(values) + ahead)[ahead:]
    return total / (len(HOPS) * SHIFTS)


def bridge(
    values: np.ndarray, known: np.ndarray, config: CarryConfig | None = None, margin: int = 40
) -> np.ndarray:
    """``values (n, c)`` where ``known (n,)`` is true, and elsewhere what `spin` says of each
    channel, fitted to each hidden part with ``margin`` nodes to either side. Raises ValueError
    where nothing is known."""
    config = config or CarryConfig()
    if not known.any():
        raise ValueError("The mask hides every sample, so there is nothing to continue.")
    filled, hidden, room = values.copy(), np.flatnonzero(~known), margin * config.hop
    for part in np.split(hidden, np.flatnonzero(np.diff(hidden) > room) + 1):
        if len(part) == 0:
            continue
        cut = slice(max(0, part[0] - room), min(len(values), part[-1] + room + 1))
        for channel in range(values.shape[1]):
            filled[part, channel] = spin(values[cut, channel], known[cut], config)[part - cut.start]
    return filled


class _Frame:
    """Synthesis ``(cells, hop)`` from ``(cells + 1, waves)`` nodes, and its adjoint, by fast
    Fourier transforms."""

    def __init__(self, hop: int):
        from scipy.fft import next_fast_len

        size: Any = next_fast_len(math.ceil(hop / SPACING), real=True)  # an int; the stub errs
        self.hop, self.size = hop, int(size)
        index = np.arange(self.size // 2 + 1)
        self.omega = 2 * np.pi / self.size * index
        self.turn = np.exp(1j * self.omega * hop)  # from a node to the next
        self.half = (
            np.where((index == 0) | (2 * index == self.size), 1.0, 0.5) * self.size
        )  # a real transform's own factors
        self.rise = np.arange(hop) / hop

    def synthesise(self, spectrum: np.ndarray) -> np.ndarray:
        from scipy.fft import irfft

        ahead = np.asarray(irfft(self.half * spectrum[:-1], self.size))[:, : self.hop]
        behind = np.asarray(irfft((self.half * self.turn.conj()) * spectrum[1:], self.size))[
            :, : self.hop
        ]
        return ahead + self.rise * (behind - ahead)

    def analyse(self, cells: np.ndarray) -> np.ndarray:
        from scipy.fft import rfft

        spectrum = np.zeros((len(cells) + 1, len(self.omega)), np.complex128)
        behind = np.asarray(rfft(self.rise * cells, self.size))
        spectrum[:-1] = np.asarray(rfft(cells, self.size)) - behind
        spectrum[1:] += self.turn * behind
        return spectrum


def _normal(
    frame: _Frame,
    seen: np.ndarray,
    scale: np.ndarray,
    rates: np.ndarray,
    ridge: float,
    weight: float,
) -> Callable[[np.ndarray], np.ndarray]:
    """The normal equations' operator, on amplitudes in units of ``scale``."""
    return lambda s: (
        scale * frame.analyse(seen * frame.synthesise(scale * s))
        + ridge * s
        + weight * _law(s, rates)
    )


def _law(spectrum: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Half the gradient of ``sum |S_j+1 - rates_j S_j|^2``."""
    error = spectrum[1:] - rates * spectrum[:-1]
    gradient = np.zeros_like(spectrum)
    gradient[1:] = error
    gradient[:-1] -= rates.conj() * error
    return gradient


def _trust(share: np.ndarray) -> np.ndarray:
    """How far a step across each cell can be believed when rates are fitted: by how much around it
    is known."""
    padded = np.pad(share, 1, mode="edge")
    return np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:]) ** 2


def _rates(spectrum: np.ndarray, trust: np.ndarray, reach: int | None) -> np.ndarray:
    """Factors ``(cells, waves)`` from a node to the next that fit best, never growing."""
    change = trust[:, None] * spectrum[1:] * spectrum[:-1].conj()
    power = trust[:, None] * np.abs(spectrum[:-1]) ** 2
    if reach is None:
        change, power = (np.broadcast_to(part.sum(axis=0), part.shape) for part in (change, power))
    else:
        change, power = (_moving_sum(part, reach) for part in (change, power))
    rates = change / np.maximum(power, 1e-20)
    return rates / np.maximum(np.abs(rates), 1)


def _scale(spectrum: np.ndarray, reach: int | None) -> np.ndarray:
    """How large amplitudes are expected to be ``(nodes, waves)``: waves without energy so far are
    held back."""
    power = np.abs(spectrum) ** 2
    power = (
        np.broadcast_to(power.mean(axis=0), power.shape)
        if reach is None
        else _moving_sum(power, reach) / (2 * reach + 1)
    )
    return np.sqrt(power / max(float(power.max()), 1e-30) + FLOOR)


def _moving_sum(values: np.ndarray, reach: int) -> np.ndarray:
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    index = np.arange(len(values))
    return total[np.minimum(index + reach + 1, len(values))] - total[np.maximum(index - reach, 0)]
