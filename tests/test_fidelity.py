"""SSIM of pictures and spectral errors of sounds, against closed forms and independent
implementations."""

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from nstr3d.signals.fidelity import ROWS, spectral_error, ssim
from nstr3d.signals.spectrogram import magnitudes


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(11, 11, 1), (40, 30, 3), (ROWS + 25, 17, 4)])
def test_ssim_agrees_with_its_twin(shape: tuple[int, ...]) -> None:
    a = picture(*shape)
    b = (a + 0.2 * picture(*shape, seed=1)).clip(0, 1)
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
        "channel_axis": 2,
    }
    whole = structural_similarity(a.astype(float), b.astype(float), full=True, **options)[1]
    assert ssim(b, a) == pytest.approx(float(whole[5:-5, 5:-5].mean()), abs=1e-4)


def test_ssim_of_equal_pictures_is_one_and_of_tiny_ones_unknown() -> None:
    assert ssim(picture(12, 15, 3), picture(12, 15, 3)) == pytest.approx(1)
    assert ssim(picture(10, 15, 3), picture(10, 15, 3)) is None


def test_ssim_of_flat_pictures_compares_their_means() -> None:
    a, b = np.full((16, 16, 1), 0.5, np.float32), np.full((16, 16, 1), 0.25, np.float32)
    assert ssim(a, b) == pytest.approx((2 * 0.125 + 1e-4) / (0.3125 + 1e-4), abs=1e-4)


def test_a_sine_of_amplitude_one_has_magnitude_one() -> None:
    tone = np.sin(2 * math.pi * 64 / 512 * np.arange(8192))
    spectrum = magnitudes(tone, 512)
    assert spectrum.shape[0] == 257
    assert spectrum[64, 20] == pytest.approx(1, abs=1e-3)
    assert spectrum[100:, 20].max() < 1e-3


def test_magnitudes_are_those_of_the_windows_own_transform() -> None:
    sound = np.random.default_rng(3).normal(size=700)
    starts = np.array([-256, -100, 0, 333, 644, 700])
    computed = magnitudes(sound, 256, starts)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    padded = np.concatenate([np.zeros(256), sound, np.zeros(256)])
    for column, start in zip(computed.T, starts):
        part = padded[start + 256 : start + 512] * window
        np.testing.assert_allclose(column, 2 * np.abs(np.fft.rfft(part)) / window.sum(), atol=1e-6)
    even = np.arange(-128, 701, 64)
    np.testing.assert_array_equal(magnitudes(sound, 256), magnitudes(sound, 256, even))


def test_spectral_errors_of_a_scaled_sound_are_known() -> None:
    sound = np.random.default_rng(0).normal(size=(9000, 2)).astype(np.float32)
    error = spectral_error(sound * np.float32(0.5), sound)
    assert error is not None
    assert error.convergence == pytest.approx(0.5, rel=1e-4)
    assert error.log_magnitude == pytest.approx(20 * math.log10(2), rel=0.01)
    same = spectral_error(sound, sound)
    assert same is not None
    assert (same.convergence, same.log_magnitude) == (0, 0)


def test_silence_has_no_spectrum_to_compare_with() -> None:
    assert spectral_error(np.ones((100, 1), np.float32), np.zeros((100, 1), np.float32)) is None


@pytest.mark.parametrize("frames", [700, 8192, 19_999])
@pytest.mark.parametrize("length", [300, 20_000])
def test_sounds_compared_in_parts_have_the_spectra_of_the_whole(length: int, frames: int) -> None:
    """A slow loud tone makes the spectra of windows that are cut differ much."""
    time = np.arange(length)[:, None]
    generator = np.random.default_rng(0)
    noise, other = (1e-3 * generator.normal(size=time.shape) for _ in range(2))
    tone = np.cos(0.02 * time)
    sound, estimate = (tone + noise).astype(np.float32), (tone + other).astype(np.float32)
    whole, parts = spectral_error(estimate, sound), spectral_error(estimate, sound, frames)
    assert whole is not None
    assert parts is not None
    assert parts.convergence == pytest.approx(whole.convergence, rel=1e-6)
    assert parts.log_magnitude == pytest.approx(whole.log_magnitude, rel=1e-6)
