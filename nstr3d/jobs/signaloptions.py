"""What to fit to an image or a sound: the options of the job, and the files that it writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import (
    Device,
    check_not_negative,
    check_positive,
    check_seed,
    default_folder,
)
from nstr3d.jobs.results import MODEL
from nstr3d.jobs.walk import REPORT
from nstr3d.signals.signal import TRAINED, kind_of
from nstr3d.training.fit import FitConfig

COMPRESSED = "model.nstq"
PICTURE, SOUND, COMPARISON = "image.png", "sound.wav", "comparison.png"
# per pixel or frame of samples that the default budget comes to
BITS = {"image": 16.0, "sound": 8.0}


@dataclass(frozen=True)
class SignalJob:
    """What to fit to an image or a sound, and how."""

    path: Path
    """Any picture that Pillow reads (PNG, JPEG, TIFF, WebP ...) or sound that libsndfile reads
    (WAV, FLAC, OGG, MP3 ...)."""
    out: Path | None = None
    """Folder for the results; out/<name of the file>/ by default."""
    params: int | None = None
    """Budget of stored parameters, positions included."""
    bpp: float | None = None
    """The budget as bits per pixel, or per moment of a sound, 32 to a parameter; 16, or 8 per
    channel, by default."""
    bytes: int | None = None
    """The budget as the size of the model's file, quantised and entropy coded."""
    field: Literal["cosines", "nstr", "ngp", "siren", "fourier"] = "cosines"
    """The kind of field: ours in closed form, ours trained, or a trained baseline."""
    scale: int = 1
    """Reconstruct at this many times the resolution."""
    transport: float = 0.0
    """Weight of the transport loss, for the field nstr; 0 leaves the transport network out."""
    mask: Path | None = None
    """A picture (or sound) of the same size: only where it is white (or not zero) is the input
    known; the rest is filled in."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise to add before the fit, full scale being 1; the report
    compares with the input."""
    seconds: float | None = None
    """Train for this long; for trained fields."""
    steps: int | None = None
    """Train for this many steps, 2000 by default; for trained fields."""
    device: Device = "auto"
    """Where to train."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Replace results that are already there."""

    def __post_init__(self):
        """Raises ValueError for options out of range or at odds with each other."""
        check_positive(self, "params", "bpp", "bytes", "seconds", "steps")
        if sum(value is not None for value in (self.params, self.bpp, self.bytes)) > 1:
            raise ValueError(
                Message("<params>, <bpp> and <bytes> each set the budget; give one of them.")
            )
        if self.bytes is not None and (self.field != "cosines" or self.noise):
            raise ValueError(
                Message(
                    "<bytes> is for the closed-form field of samples without noise; use <params>."
                )
            )
        if self.field not in ("cosines", *TRAINED):
            raise ValueError(
                Message(
                    "<field> is one of cosines, {} for an image or a sound, not {}.",
                    ", ".join(TRAINED),
                    self.field,
                )
            )
        if self.field == "cosines" and (self.seconds or self.steps):
            raise ValueError(
                Message(
                    "<steps> and <seconds> are for a trained <field>; the default has a closed "
                    "form."
                )
            )
        if self.transport and self.field != "nstr":
            raise ValueError(
                Message("<transport> needs a trained local spectrum; use <field> nstr.")
            )
        check_not_negative(self, "transport", "noise")
        if not 1 <= self.scale <= 64:
            raise ValueError(Message("<scale> is 1 to 64, not {}.", self.scale))
        check_seed(self.seed)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or default_folder(self.path)

    @property
    def training(self) -> FitConfig:
        """How a trained field is trained."""
        return FitConfig(
            self.steps or 2000, batch=8192, settle=None, seconds=self.seconds, seed=self.seed
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The files that it writes."""
        return (
            MODEL if self.bytes is None else COMPRESSED,
            PICTURE if kind_of(self.path) == "image" else SOUND,
            COMPARISON,
            REPORT,
        )


def budget(job: SignalJob, shape: tuple[int, ...], kind: str) -> int:
    """Stored parameters that ``job`` allows for samples of ``shape (*shape, c)``: 32 bits each."""
    if job.params is not None:
        return job.params
    bits = job.bpp if job.bpp is not None else BITS[kind] * (shape[-1] if kind == "sound" else 1)
    return max(1, int(bits * math.prod(shape[:-1]) / 32), 64 if job.bpp is None else 1)
