"""What notebooks show: pictures of fits and distances, and the page of a shape."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import nstr3d
from nstr3d import Box, Fit, Lattice, Sdf
from nstr3d.view.notebook import SIZE

BALL = Sdf(lambda points: points.norm(dim=1) - 1, Box((-1.0,) * 3, (1.0,) * 3))


def picture(shown) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(shown._repr_png_())))


def signal_fit(values: np.ndarray) -> Fit:
    lattice = Lattice(values.shape[:-1])
    field = nstr3d.fit_cosines(values, values.size * 4)
    return Fit(field, lattice.frame, lattice.bounds, math.inf)


def test_a_distance_shows_its_surface_in_the_middle_and_the_background_around() -> None:
    shown = picture(BALL)
    assert shown.shape == (SIZE, SIZE, 3)
    light = shown.astype(int).sum(axis=-1)
    assert abs(light[SIZE // 2, SIZE // 2] - light[2, 2]) > 30
    np.testing.assert_allclose(light[2, 2], light[2, -3], atol=3)  # the backdrop is symmetric


def test_a_shape_shows_itself_and_has_a_page(torus_fit, tmp_path) -> None:
    assert picture(torus_fit).shape == (SIZE, SIZE, 3)
    page = torus_fit.page("a torus", height=300)
    shown = page._repr_html_()
    assert shown.startswith("<iframe")
    assert "height: 300px" in shown
    assert "<!DOCTYPE" not in shown  # the inner page is escaped
    assert "&lt;title&gt;a torus" in shown
    page.save(tmp_path / "a.html")
    assert "<title>a torus" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert len(repr(page)) < 200


def test_an_image_shows_its_samples() -> None:
    values = np.zeros((16, 24, 3), np.float32)
    values[:, 12:, 0] = 1
    shown = picture(signal_fit(values))
    assert shown.shape == (16, 24, 3)
    assert np.abs(shown / 255 - values).max() < 0.02


def test_a_sound_shows_its_waveform() -> None:
    times = np.linspace(0, 1, 2000, dtype=np.float32)
    loud = np.where(times < 0.5, 0.0, np.sin(2500 * times)).astype(np.float32)
    shown = picture(signal_fit(loud[:, None]))
    assert shown.shape == (SIZE // 4, SIZE, 3)
    dark = (shown[..., 0] < 128).sum(axis=0)
    assert dark[: SIZE // 2 - 20].max() <= 6
    assert dark[SIZE // 2 + 20 :].min() > SIZE // 8


def test_what_cannot_be_drawn_shows_no_picture_and_raises_nothing() -> None:
    broken = Sdf(lambda points: 1 / torch.zeros(0, 3), BALL.bounds)
    assert broken._repr_png_() is None
    assert Sdf(lambda points: points.norm(dim=1), Box((0.0,), (1.0,)))._repr_png_() is None


def test_a_notebook_calls_them(torus_fit) -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    data, _ = formatters.DisplayFormatter().format(torus_fit)
    assert data["image/png"].startswith(b"\x89PNG") or data["image/png"].startswith("iVBOR")
    assert data["text/plain"].startswith("Fit(")
