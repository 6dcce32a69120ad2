"""Text in pictures: titles, captions and scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nstr3d.render.colours import VIRIDIS, Colour, colour_map

INK = (0.13, 0.14, 0.16)
PAPER = 1.0  # grey of the ground on which labels stand


def write(
    picture: np.ndarray,
    at: tuple[float, float],
    words: str,
    size: float = 16,
    anchor: str = "la",
    ink: Colour = INK,
) -> None:
    """Writes ``words`` into ``picture (h, w, 3)``, which is changed.

    ``at`` is the column and the row of the anchor, one of Pillow's: "la" is left and top, "mm" the
    middle. ``size`` is in pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    mask = Image.new("L", (picture.shape[1], picture.shape[0]))
    ImageDraw.Draw(mask).text(at, words, fill=255, font=ImageFont.load_default(size), anchor=anchor)
    box = mask.getbbox()
    if box is None:
        return
    columns, rows = slice(box[0], box[2]), slice(box[1], box[3])
    cover = np.asarray(mask, np.float32)[rows, columns, None] / 255
    picture[rows, columns] = picture[rows, columns] * (1 - cover) + cover * np.array(ink)


def titled(picture: np.ndarray, title: str, note: str = "") -> np.ndarray:
    """``picture (h, w, 3)`` below a strip with ``title`` at the left and ``note`` at its right."""
    size = type_size(picture.shape[1])
    strip = np.full((round(1.9 * size), picture.shape[1], 3), PAPER, np.float32)
    write(strip, (0.4 * size, 0.95 * size), title, size, "lm")
    if note:
        write(strip, (picture.shape[1] - 0.4 * size, 0.95 * size), note, 0.85 * size, "rm")
    return np.concatenate([strip, picture.astype(np.float32)])


def scale_bar(
    height: int, ticks: Sequence[tuple[float, str]], title: str, stops: Sequence[Colour] = VIRIDIS
) -> np.ndarray:
    """An upright scale of the colours ``stops``, lowest below: ``(height, w, 3)``.

    ``ticks`` are shares from 0 to 1 of the scale and their words; ``title`` stands above.
    """
    import torch

    size = type_size(height)
    bar = np.full((height, round(5.5 * size), 3), PAPER, np.float32)
    top, bottom, left, right = 2 * size, height - size, 0.6 * size, 1.6 * size
    if bottom - top < size:  # too small for a scale
        return bar
    rows = np.arange(int(top), int(bottom))
    share = torch.from_numpy((bottom - 0.5 - rows) / (bottom - top))
    bar[rows, int(left) : int(right)] = colour_map(share, stops).numpy()[:, None]
    write(bar, (left, 0.9 * size), title, 0.9 * size, "lm")
    for at, words in ticks:
        row = bottom - 1 - at * (bottom - top - 1)
        bar[round(row), int(right) : int(right + 0.3 * size)] = INK
        write(bar, (right + 0.5 * size, row), words, 0.9 * size, "lm")
    return bar


def type_size(length: int) -> int:
    """The size of the type in pixels for a picture ``length`` pixels wide."""
    return int(np.clip(round(length / 32), 11, 28))
