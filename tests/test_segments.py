"""Segments of signals whose parts are known."""

import numpy as np
import pytest
import torch

from nstr3d.spectrum.analysis import AnalysisConfig, analyse
from nstr3d.spectrum.reading import LocalSpectrum
from nstr3d.spectrum.segments import band_shares, segment


def test_two_bands_are_told_apart_within_a_cell():
    x = ((torch.arange(6000) + 0.5) / 6000 * 2 - 1)[:, None]
    signal = torch.where(x < 0.2, torch.sin(60 * x), torch.sin(200 * x))
    result = analyse(x, signal, AnalysisConfig(highest=260.0, octaves=3, degree=0))
    labels = segment(result.spectrum(x[::4]), 2)
    edges = x[::4][:-1, 0].numpy()[np.diff(labels) != 0]
    assert labels[0] == 0
    assert labels[-1] == 1
    assert len(edges) >= 1
    assert np.abs(edges - 0.2).max() <= 2 / result.config.cells[0]


def test_labels_are_stable_and_rise_with_frequency():
    generator = torch.Generator().manual_seed(0)
    level = torch.randint(0, 3, (300,), generator=generator)
    size = torch.tensor([10.0, 40.0, 160.0])[level][:, None] * (
        1 + 0.1 * torch.rand(300, 4, generator=generator)
    )
    directions = torch.nn.functional.normalize(torch.randn(300, 4, 3, generator=generator), dim=2)
    spectrum = LocalSpectrum(
        size[:, :, None] * directions, torch.rand(300, 4, generator=generator) + 0.1
    )
    labels = segment(spectrum, 3)
    np.testing.assert_array_equal(labels, level.numpy())
    order = torch.randperm(300, generator=generator)
    shuffled = segment(LocalSpectrum(spectrum.frequency[order], spectrum.power[order]), 3)
    np.testing.assert_array_equal(shuffled, labels[order.numpy()])
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    np.testing.assert_array_equal(
        segment(LocalSpectrum(spectrum.frequency @ rotation, spectrum.power), 3), labels
    )
    louder = segment(
        LocalSpectrum(spectrum.frequency, spectrum.power * torch.rand(300, 1, generator=generator)),
        3,
    )
    np.testing.assert_array_equal(louder, labels)
    assert (segment(spectrum, 1) == 0).all()


def test_shares_sum_to_one_and_one_wave_has_one_band_or_two():
    frequency = torch.linspace(1, 100, 50)[:, None, None]
    shares = band_shares(LocalSpectrum(frequency, torch.ones(50, 1)))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(50))
    assert ((shares > 0).sum(dim=1) <= 2).all()


def test_bad_input_is_refused():
    spectrum = LocalSpectrum(torch.ones(5, 2, 3), torch.ones(5, 2))
    for count in (0, 6):
        with pytest.raises(ValueError, match="5 points make 1 to 5 segments"):
            segment(spectrum, count)
    with pytest.raises(ValueError, match="no spectral power"):
        segment(LocalSpectrum(torch.ones(5, 2, 3), torch.zeros(5, 2)), 2)
