"""Colours for numbers: linear between the stops, and equal for tensors and pictures."""

import numpy as np
import pytest
import torch
from programs import needs_parts

from nstr3d.render.colours import BLUE_TO_RED, VIRIDIS, colour_map, coloured


@pytest.mark.parametrize("stops", [VIRIDIS, BLUE_TO_RED])
def test_colours_are_linear_between_even_stops(stops) -> None:
    values = torch.linspace(-0.5, 1.5, 301, dtype=torch.float64)
    expected = [
        np.interp(values, np.linspace(0, 1, len(stops)), channel) for channel in zip(*stops)
    ]
    np.testing.assert_allclose(colour_map(values, stops), np.stack(expected, axis=1), atol=1e-12)
    square = values[:300].reshape(10, 30)
    assert torch.equal(colour_map(square, stops).reshape(-1, 3), colour_map(values[:300], stops))


@needs_parts("bench")
def test_the_map_is_viridis() -> None:
    import matplotlib

    values = np.linspace(0, 1, 256)
    expected = matplotlib.colormaps["viridis"](values)[:, :3]
    assert np.sqrt(np.mean((colour_map(torch.from_numpy(values)).numpy() - expected) ** 2)) < 0.01


def test_pictures_reach_from_low_to_high() -> None:
    values = np.array([[2.0, 5.0], [3.5, 9.0]], np.float32)
    seen = coloured(values, 2.0, 5.0)
    assert (seen.shape, seen.dtype) == ((2, 2, 3), np.float32)
    np.testing.assert_allclose(seen[0], [VIRIDIS[0], VIRIDIS[-1]], atol=1e-6)
    np.testing.assert_allclose(seen[1, 0], np.mean(VIRIDIS[4:6], axis=0), atol=1e-6)
    np.testing.assert_allclose(seen[1, 1], VIRIDIS[-1], atol=1e-6)
    np.testing.assert_allclose(coloured(values, 4.0, 4.0)[0], [VIRIDIS[0], VIRIDIS[-1]], atol=1e-6)
