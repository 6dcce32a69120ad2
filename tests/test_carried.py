"""Carrying phases across gaps: more accurate than its controls where waves continue, and equal to
closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nstr3d.fields.closed.carried import Carried, CarryConfig, bridge, carry, spin

RATE = 4000
TIME = np.arange(RATE) / RATE


def two_tones() -> np.ndarray:
    """A tone of 40 Hz, followed by one of 400 Hz in the second half."""
    return np.where(
        TIME < 0.5, np.sin(2 * np.pi * 40 * TIME), 0.8 * np.sin(2 * np.pi * 400 * TIME + 0.7)
    )


def snr(estimate: np.ndarray, reference: np.ndarray) -> float:
    return 10 * math.log10(np.square(reference).sum() / np.square(estimate - reference).sum())


def gap(start: int, length: int, size: int = RATE) -> np.ndarray:
    known = np.ones(size, bool)
    known[start : start + length] = False
    return known


@pytest.mark.parametrize("start", [900, 2900])
def test_a_wave_goes_on_through_a_gap_and_the_controls_do_not(start: int) -> None:
    sound, known = two_tones(), gap(start, 120)  # 30 ms

    def inside(config: CarryConfig) -> float:
        return snr(spin(sound, known, config)[~known], sound[~known])

    carried, still, ridge = (
        inside(c)
        for c in (CarryConfig(iterations=60), CarryConfig(carry=False), CarryConfig(weight=0))
    )
    assert carried > 30
    assert carried > max(still, ridge) + 15


@pytest.mark.parametrize("line", [3, 10])
def test_the_control_without_rates_continues_a_constant_spectrum(line: int) -> None:
    """A tone at one of the model's own frequencies has a constant S_k, which is smooth: the control
    continues it, whatever its frequency. A tone between two frequencies has none."""
    known = gap(900, 120)
    config = CarryConfig(hop=64, weight=1.0, carry=False)
    omega = carry(np.ones(RATE), known, replace(config, iterations=1)).omega

    def inside(frequency: float) -> float:
        sound = np.cos(frequency * np.arange(RATE) + 0.3)
        return snr(carry(sound, known, config).values(RATE)[~known], sound[~known])

    assert inside(omega[line]) > 20
    assert inside((omega[line] + omega[line + 1]) / 2) < 5


def test_a_quarter_of_the_samples_is_enough() -> None:
    sound = two_tones()
    known = np.random.default_rng(0).random(RATE) < 0.25
    achieved = snr(spin(sound, known, CarryConfig(iterations=60)), sound)
    assert achieved > 24
    assert achieved > 10 + snr(spin(sound, known, CarryConfig(weight=0)), sound)


def test_with_every_sample_the_sound_is_reproduced() -> None:
    sound = np.random.default_rng(0).normal(size=501)
    known = np.ones(501, bool)
    assert (
        snr(carry(sound, known, CarryConfig(hop=16, weight=0, ridge=1e-8)).values(501), sound) > 60
    )


def test_the_frame_and_its_adjoint_agree() -> None:
    generator = np.random.default_rng(0)
    model = carry(generator.normal(size=100), np.ones(100, bool), CarryConfig(hop=10, rounds=1))
    from nstr3d.fields.closed.carried import _Frame

    frame = _Frame(10)
    spectrum = generator.normal(size=model.spectrum.shape) + 1j * generator.normal(
        size=model.spectrum.shape
    )
    cells = generator.normal(size=(10, 10))
    place = np.arange(10)[:, None]
    here, there = np.exp(1j * frame.omega * place), np.exp(1j * frame.omega * (place - 10))
    by_definition = ((1 - place / 10) * here) @ spectrum[3] + (place / 10 * there) @ spectrum[4]
    np.testing.assert_allclose(frame.synthesise(spectrum)[3], by_definition.real)
    assert (frame.synthesise(spectrum) * cells).sum() == pytest.approx(
        np.vdot(frame.analyse(cells), spectrum).real
    )


def test_the_instantaneous_frequency_of_a_chirp() -> None:
    phase = 2 * np.pi * (300 * TIME + 200 * TIME**2)  # from 300 to 700 Hz
    model = carry(np.sin(phase), np.ones(RATE, bool), CarryConfig(hop=64, weight=0))
    middle = (np.arange(len(model.spectrum) - 1) + 0.5) * 64 / RATE
    expected = 2 * np.pi * (300 + 400 * middle) / RATE
    error = np.abs(model.frequency() / expected - 1)[2:-2]
    assert np.median(error) < 0.01


def test_a_rotating_spectrum_has_the_frequency_it_turns_with() -> None:
    omega, hop = np.array([0.5]), 8
    model = Carried(np.exp(1j * 0.6 * hop * np.arange(5))[:, None], omega, hop)
    np.testing.assert_allclose(model.frequency(), 0.6)


def test_bridging_keeps_what_is_known_in_every_channel() -> None:
    sound = np.stack([two_tones(), -0.5 * two_tones()], axis=-1).astype(np.float32)
    known = gap(2700, 60) & gap(3800, 50)
    filled = bridge(sound, known)
    np.testing.assert_array_equal(filled[known], sound[known])
    for channel in range(2):
        assert snr(filled[~known, channel], sound[~known, channel]) > 15
    np.testing.assert_array_equal(bridge(sound, np.ones(RATE, bool)), sound)


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="hides every sample"):
        carry(np.ones(10), np.zeros(10, bool))
    with pytest.raises(ValueError, match="hides every sample"):
        bridge(np.ones((10, 1)), np.zeros(10, bool))
    with pytest.raises(ValueError, match="not finite"):
        carry(np.full(10, np.nan), np.ones(10, bool))
    for bad in (
        *({"hop": 1}, {"rounds": 0}, {"iterations": 0}, {"reach": -1}),
        *({name: value} for name in ("weight", "ridge") for value in (-1.0, math.nan, math.inf)),
    ):
        with pytest.raises(ValueError, match="Carrying needs"):
            CarryConfig(**bad)
