"""The input of a job on an image or a sound: its samples, its mask and its size limits."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io import Picture, Sound, load_picture, load_sound
from nstr3d.jobs.messages import Message
from nstr3d.jobs.signaloptions import SignalJob
from nstr3d.signals.kinds import kind_of

LARGEST_SIDE = 8192  # pixels
LARGEST_OUTPUT = 1 << 28  # samples of an enlarged reconstruction


@dataclass(frozen=True)
class Source:
    """An input: its samples ``values (*shape, c)``, the picture or sound ``file`` as it was read,
    and ``notes`` for the user."""

    values: np.ndarray
    file: Picture | Sound
    notes: tuple[str, ...]

    def like(self, values: np.ndarray, scale: int) -> Picture | Sound:
        """``values`` as a picture or sound in the input's format, ``scale`` times the input's
        resolution; a sound's rate is multiplied by ``scale``."""
        if isinstance(self.file, Picture):
            return dataclasses.replace(self.file, values=values.clip(0, 1))
        return dataclasses.replace(self.file, values=values, rate=self.file.rate * scale)


def load_source(path: Path) -> Source:
    """The image or sound in the file. Raises ValueError for another kind of file, and what
    `load_picture` and `load_sound` raise."""
    if kind_of(path) == "mesh":
        raise ValueError(
            f"{path} is neither a picture nor a sound by its extension '{path.suffix}'; .png or "
            ".wav work."
        )
    if kind_of(path) == "image":
        picture = load_picture(path)
        return Source(picture.values, picture, picture.notes)
    sound = load_sound(path)
    return Source(sound.values, sound, ())


def load_mask(job: SignalJob, shape: tuple[int, ...]) -> np.ndarray | None:
    """The known samples as bool ``(*shape)``; None if the job has no mask.

    A sample is known where the mask image is brighter than 1/2, or where the mask sound is not
    zero. Raises ValueError if the mask has another size than ``shape`` or hides every sample.
    """
    if job.mask is None:
        return None
    values = load_source(job.mask).values
    if values.shape[:-1] != shape:
        raise ValueError(
            Message(
                "<mask> {} has {} samples where {} has {}; make them equal.",
                job.mask,
                values.shape[:-1],
                job.path,
                shape,
            )
        )
    bright = values[..., : min(3, values.shape[-1])].mean(axis=-1) > 0.5
    known = np.asarray(bright if len(shape) == 2 else values.any(axis=-1))
    if not known.any():
        raise ValueError(
            Message(
                "<mask> {} is dark throughout, so it hides every sample; make known parts white.",
                job.mask,
            )
        )
    return known


def check_size(shape: tuple[int, ...], scale: int, kind: str) -> None:
    """Raises ValueError if samples of ``shape`` are too many to fit, or to reconstruct at ``scale``
    times the resolution."""
    if kind == "image" and max(shape) > LARGEST_SIDE:
        raise ValueError(
            f"The picture measures {shape[1]} x {shape[0]} pixels; sides up to {LARGEST_SIDE} "
            "work, so shrink it."
        )
    if math.prod(shape) * scale ** len(shape) > LARGEST_OUTPUT:
        raise ValueError(
            Message(
                "<scale> {} would make more than {:,} samples; use a smaller one.",
                scale,
                LARGEST_OUTPUT,
            )
        )


def about_input(job: SignalJob, source: Source, known: np.ndarray | None) -> dict[str, Any]:
    """The report's entry on the input, whose samples ``known (*shape)`` the mask does not hide."""
    about = {"bits": source.file.bits} if isinstance(source.file, Picture) else _about(source.file)
    return {
        "path": str(job.path),
        "kind": kind_of(job.path),
        "shape": list(source.values.shape),
        **about,
        "notes": list(source.notes),
        "known": None if known is None else float(known.mean()),
        "noise": job.noise,
    }


def _about(sound: Sound) -> dict[str, Any]:
    return {"rate": sound.rate, "subtype": sound.subtype, "seconds": len(sound.values) / sound.rate}
