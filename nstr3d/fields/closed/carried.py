"""Fills gaps in a sound by carrying phases across them: a complex local spectrum with a linear,
diagonal transport law.

The model is ``f(t) = Re sum_k S_k(t) exp(i omega_k t)`` with S_k linear between nodes, and the law
is ``dS_k/dt = (alpha_k + i delta_k) S_k`` with rates alpha_k and delta_k that vary slowly in time.
The fit alternates between two steps. S is fitted by conjugate gradients to the known samples, with
the squared error of the law as a penalty. The rates are fitted to S in closed form. In a gap only
the penalty determines S, so the waves continue with their local frequency. The result depends on
the positions of the nodes; averaging over shifted and scaled grids of nodes reduces this dependence
(cycle spinning; Coifman and Donoho, Translation-invariant de-noising, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from nstr3d.fields.conjugate import conjugate_gradients

# Largest product of the spacing of frequencies (cycles per sample) and of nodes (samples). At 1 the
# frame is no longer stable (Balian, 1981; Low, 1985).
SPACING = 0.9

HOPS = (0.75, 1.0, 1.25)  # hops that `spin` averages over, as factors of the configured hop
SHIFTS = 4  # shifts of the grid that `spin` averages over, for each hop

FLOOR = 1e-4  # least expected power of a wave, as a fraction of the largest expected power
CONVERGED = 1e-24  # squared residual, relative to the right side's square, that ends iterations


@dataclass(frozen=True)
class CarryConfig:
    """The options of `carry`.

    Nodes are ``hop`` samples apart. ``weight`` is the weight of the law's squared error and
    ``ridge`` that of the squared amplitudes, both relative to the squared error at the samples.
    Rates are averaged over ``reach`` nodes to either side (over the whole sound if None). The fit
    makes ``rounds`` of rates and amplitudes, with ``iterations`` of conjugate gradients in each.

    Two settings are controls. ``carry = False`` fits no rates: alpha_k and delta_k are 0, so the
    penalty is on the differences of S_k between neighbouring nodes, plain smoothness.
    ``weight = 0`` is ridge regression. Both make one round of ``4 * iterations``.

    Raises ValueError if ``hop`` is less than 2, ``rounds`` or ``iterations`` is less than 1,
    ``weight`` or ``ridge`` is negative or not finite, or ``reach`` is negative.
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
            or not all(0 <= weight < math.inf for weight in (self.weight, self.ridge))
            or (self.reach is not None and self.reach < 0)
        ):
            raise ValueError(
                "Carrying needs a hop of at least 2, at least 1 round and 1 iteration, and a "
                f"weight, a ridge and a reach of 0 or more, unlike {self}."
            )


@dataclass(frozen=True)
class Carried:
    """The fitted model: the complex ``spectrum (nodes, waves)``, with each node's phase counted
    from the node, and the frequencies ``omega (waves,)`` in radians per sample. Nodes are ``hop``
    samples apart."""

    spectrum: np.ndarray
    omega: np.ndarray
    hop: int

    def values(self, length: int) -> np.ndarray:
        """The modelled sound ``(length,)`` at the first ``length`` samples."""
        return _Frame(self.hop).synthesise(self.spectrum).ravel()[:length]

    def frequency(self) -> np.ndarray:
        """Instantaneous frequency ``(nodes - 1,)`` between neighbouring nodes, in radians per
        sample: the mean of omega_k + d arg S_k / dt over the waves, weighted by ``|S_k|^2``."""
        turn = np.exp(1j * self.omega * self.hop)
        product = self.spectrum[1:] * np.conj(self.spectrum[:-1] * turn)
        power = np.abs(product)
        local = self.omega + np.angle(product) / self.hop
        return (power * local).sum(axis=1) / np.maximum(power.sum(axis=1), 1e-30)


def carry(values: np.ndarray, known: np.ndarray, config: CarryConfig | None = None) -> Carried:
    """Fits the model to ``values (n,)`` where the bool array ``known (n,)`` is true.

    Raises ValueError if no sample is known or a known sample is not finite.
    """
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
    # A node's phase is counted from the node, so a constant S_k turns by this factor to the next.
    rates = np.broadcast_to(frame.turn, spectrum[1:].shape)
    scale = np.ones_like(spectrum, np.float64)
    learns = config.carry and config.weight > 0
    for index in range(config.rounds if learns else 1):
        weight = (
            config.weight if index or not config.carry else 0.0
        )  # The first round is a ridge regression: its spectrum gives the first rates.
        if index:
            rates, scale = _rates(spectrum, trust, config.reach), _scale(spectrum, config.reach)
        normal = _normal(frame, seen, scale, rates * scale[:-1] / scale[1:], config.ridge, weight)
        steps = config.iterations * (1 if learns else 4)
        fits = conjugate_gradients(normal, scale * right, spectrum / scale, tolerance=CONVERGED)
        solution, _ = next(islice(fits, steps - 1, None))
        spectrum = scale * solution
    return Carried(spectrum, omega, hop)


def spin(values: np.ndarray, known: np.ndarray, config: CarryConfig | None = None) -> np.ndarray:
    """The mean sound ``(n,)`` of 12 models that `carry` fits to ``values (n,)`` where ``known
    (n,)`` is true, on grids of nodes with `HOPS` and `SHIFTS`. Raises ValueError like `carry`."""
    config = config or CarryConfig()
    total = np.zeros(len(values))
    for ratio in HOPS:
        scaled = replace(config, hop=max(2, round(ratio * config.hop)))
        for shift in range(SHIFTS):
            ahead = shift * scaled.hop // SHIFTS  # unknown samples inserted before the first
            model = carry(np.pad(values, (ahead, 0)), np.pad(known, (ahead, 0)), scaled)
            total += model.values(len(values) + ahead)[ahead:]
    return total / (len(HOPS) * SHIFTS)


def bridge(
    values: np.ndarray, known: np.ndarray, config: CarryConfig | None = None, margin: int = 40
) -> np.ndarray:
    """``values (n, c)`` with the samples where ``known (n,)`` is false replaced by those of `spin`.

    Each channel is fitted by itself. Hidden samples at most ``margin`` hops apart form a part, and
    each part is fitted together with the ``margin`` hops before and after it. Raises ValueError if
    no sample is known or a known sample next to a gap is not finite.
    """
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
    """Synthesis of samples ``(cells, hop)`` from the spectrum ``(cells + 1, waves)`` at the nodes,
    and its adjoint, by fast Fourier transforms."""

    def __init__(self, hop: int):
        from scipy.fft import next_fast_len

        size: Any = next_fast_len(math.ceil(hop / SPACING), real=True)  # an int; the stub errs
        self.hop, self.size = hop, int(size)
        index = np.arange(self.size // 2 + 1)
        self.omega = 2 * np.pi / self.size * index
        self.turn = np.exp(1j * self.omega * hop)  # phase factor from one node to the next
        self.half = (
            np.where((index == 0) | (2 * index == self.size), 1.0, 0.5) * self.size
        )  # undoes the factors that irfft applies
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
    """The operator of the normal equations for amplitudes in units of ``scale``. ``seen (cells,
    hop)`` is 1 at known samples and 0 elsewhere."""
    return lambda s: (
        scale * frame.analyse(seen * frame.synthesise(scale * s))
        + ridge * s
        + weight * _law(s, rates)
    )


def _law(spectrum: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Half the gradient of ``sum_j |S_(j+1) - rates_j S_j|^2``."""
    error = spectrum[1:] - rates * spectrum[:-1]
    gradient = np.zeros_like(spectrum)
    gradient[1:] = error
    gradient[:-1] -= rates.conj() * error
    return gradient


def _trust(ratio: np.ndarray) -> np.ndarray:
    """Weight ``(cells,)`` of each cell when rates are fitted, from the ``ratio (cells,)`` of
    samples known in each cell: the squared minimum over the cell and its neighbours."""
    padded = np.pad(ratio, 1, mode="edge")
    return np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:]) ** 2


def _rates(spectrum: np.ndarray, trust: np.ndarray, reach: int | None) -> np.ndarray:
    """The factors ``(cells, waves)`` from each node to the next that fit ``spectrum`` best by
    weighted least squares, limited to magnitude 1 so that no wave grows."""
    change = trust[:, None] * spectrum[1:] * spectrum[:-1].conj()
    power = trust[:, None] * np.abs(spectrum[:-1]) ** 2
    if reach is None:
        change, power = (np.broadcast_to(part.sum(axis=0), part.shape) for part in (change, power))
    else:
        change, power = (_moving_sum(part, reach) for part in (change, power))
    rates = change / np.maximum(power, 1e-20)
    return rates / np.maximum(np.abs(rates), 1)


def _scale(spectrum: np.ndarray, reach: int | None) -> np.ndarray:
    """Expected amplitudes ``(nodes, waves)``, at most about 1, from the mean power of ``spectrum``
    over ``reach`` nodes to either side. The ridge then penalises waves of little power more."""
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
