"""What notebooks show of fits and signed distances: a small picture, and a page to turn a shape on.

`nstr3d.sdf.Sdf` and `nstr3d.training.fit.Fit` name these functions by the methods that IPython
calls, and import this module when they are called: it stands above theirs.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch

from nstr3d.io.atomic import atomic_path
from nstr3d.io.image import encode_png
from nstr3d.render.camera import Camera
from nstr3d.render.traced import render
from nstr3d.sdf import Sdf
from nstr3d.signals.signal import Signal
from nstr3d.training.fit import Fit
from nstr3d.types import Lattice, Up
from nstr3d.view.page.html import page_html

SIZE = 320  # pixels of the longer side of a picture
INK, PAPER = 0.25, 0.95  # greys of the waveform of a sound


@dataclass(frozen=True)
class NotebookPage:
    """The page of a shape, which a notebook shows in a frame ``height`` pixels high."""

    text: str = field(repr=False)
    height: int = 480

    def _repr_html_(self) -> str:
        style = f"width: 100%; height: {self.height}px; border: 0"
        return f'<iframe style="{style}" srcdoc="{html.escape(self.text)}"></iframe>'

    def save(self, path: str | Path) -> None:
        """Writes the page as an HTML file, atomically. Raises OSError if it cannot be written."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.text, encoding="utf-8")


def page_of(fit: Fit, title: str, height: int) -> NotebookPage:
    """The page of ``fit``. Raises the ValueErrors of `page_html`."""
    return NotebookPage(page_html(fit, title), height)


def png_of(shown: Fit | Sdf) -> bytes | None:
    """A picture as PNG: of the shape, of the samples of an image, or of the waveform of a sound.
    None if there is nothing to draw, because a notebook must show the object anyway."""
    try:
        with torch.no_grad():
            if isinstance(shown, Fit) and shown.field.in_dim != 3:
                image = _signal(shown)
            else:
                image = _shape(shown)
        return encode_png(np.round(255 * image.clip(0, 1)).astype(np.uint8))
    except Exception:  # a picture that fails must not hide the object
        return None


def _shape(shown: Fit | Sdf) -> np.ndarray:
    sdf, up = (shown.sdf(), shown.up) if isinstance(shown, Fit) else (shown, "y")
    up = cast(Up, up if up in get_args(Up) else "y")  # a file can note any word
    return render(sdf, Camera.around(sdf.bounds, width=SIZE, height=SIZE, up=up))


def _signal(fit: Fit) -> np.ndarray:
    """The picture ``(h, w, 3)`` of an image or a sound, with at most SIZE samples along an axis."""
    shape = tuple(round(length) for length in fit.bounds.upper)
    signal = Signal(fit.field, Lattice(shape))
    if len(shape) == 1:
        return _waveform(signal, shape[0])
    step = max(1.0, max(shape) / SIZE)
    rows, columns = (np.arange(step / 2, length, step) for length in shape)
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    values = signal(places).reshape(len(rows), len(columns), -1)
    return np.repeat(values[..., :1], 3, axis=-1) if values.shape[-1] < 3 else values[..., :3]


def _waveform(signal: Signal, length: int) -> np.ndarray:
    """The range of the first channel in each column of a picture a quarter as high as wide."""
    places = np.linspace(0, length, SIZE * 16 + 1)[:-1] + length / SIZE / 32
    values = signal(places[:, None])[:, 0].reshape(SIZE, 16)
    level = np.linspace(1, -1, SIZE // 4)[:, None]
    half = 1 / (SIZE // 4)
    drawn = (level >= values.min(axis=1) - half) & (level <= values.max(axis=1) + half)
    return np.repeat(np.where(drawn, INK, PAPER)[..., None], 3, axis=-1)
