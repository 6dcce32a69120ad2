"""The options of the job on an image or a sound, and the names of the files it writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import Device, PathName, default_folder
from nstr3d.jobs.ranges import (
    LARGEST_COUNT,
    LARGEST_SECONDS,
    check_not_negative,
    check_positive,
    check_range,
    check_seed,
)
from nstr3d.signals.kinds import kind_of

if TYPE_CHECKING:
    from nstr3d.training.fit import FitConfig

PICTURE, SOUND, COMPARISON = "image.png", "sound.wav", "comparison.png"
LARGEST_BYTES = 10**11
FieldName = Literal["cosines", "nstr", "ngp", "siren", "fourier"]
# default budget: bits per pixel of an image, or per frame and channel of a sound
BITS = {"image": 16.0, "sound": 8.0}


@dataclass(frozen=True)
class SignalJob:
    """What to fit to an image or a sound, and how."""

    path: Path
    """An image that Pillow reads (PNG, JPEG, TIFF, WebP ...) or a sound that libsndfile reads (WAV,
    FLAC, OGG, MP3 ...)."""
    out: Path | None = None
    """Folder for the results; out/<name of the file>/ by default."""
    params: int | None = None
    """Budget of stored parameters, including the positions of amplitudes."""
    bpp: float | None = None
    """Budget in bits per pixel, or per frame of a sound, at 32 bits per parameter. The default is
    16, or 8 per channel of a sound."""
    bytes: int | None = None
    """Budget as the size in bytes of the model's file, which is quantised and entropy coded."""
    field: FieldName = "cosines"
    """cosines: ours in closed form. nstr: ours, trained. ngp, siren, fourier: trained baselines."""
    scale: int = 1
    """Reconstruct at this many times the resolution."""
    transport: float = 0.0
    """Weight of the transport loss, for the field nstr; 0 leaves out the transport network."""
    mask: Path | None = None
    """An image (or sound) of the same size, white (or nonzero) where the input is known. Other
    samples are filled in."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise to add before the fit, where full scale is 1. Accuracy
    is measured against the input without noise."""
    seconds: float | None = None
    """Train for this many seconds; only for trained fields."""
    steps: int | None = None
    """Train for this many steps, 2000 by default; only for trained fields."""
    device: Device = "auto"
    """Device to train on; auto: where the fastest path is that gives right results."""
    compute_path: PathName = "auto"
    """Kernels to train with. triton: fused kernels of a GPU. torch: plain torch. cpu: compiled
    kernels of the CPU."""
    seed: int = 0
    """Seed of all random numbers."""
    overwrite: bool = False
    """Replace results that are already there."""

    def __post_init__(self):
        """Raises ValueError if an option is out of range or contradicts another."""
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
        if self.field not in get_args(FieldName):
            raise ValueError(
                Message(
                    "<field> is one of {} for an image or a sound, not {}.",
                    ", ".join(get_args(FieldName)),
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
        counts = dict.fromkeys(("params", "steps"), (1, LARGEST_COUNT))
        check_range(self, **counts, bpp=(0, 4096), bytes=(1, LARGEST_BYTES), noise=(0, 100))
        check_range(self, seconds=(0, LARGEST_SECONDS), transport=(0, 1e6))
        if not 1 <= self.scale <= 64:
            raise ValueError(Message("<scale> is 1 to 64, not {}.", self.scale))
        check_seed(self.seed)

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self.out or default_folder(self.path)

    @property
    def training(self) -> FitConfig:
        """How a trained field is trained."""
        from nstr3d.training.fit import FitConfig

        return FitConfig(
            self.steps or 2000, batch=8192, settle=None, seconds=self.seconds, seed=self.seed
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files that the job writes, the model first."""
        from nstr3d.jobs.publishing import REPORT
        from nstr3d.jobs.results import COMPRESSED, MODEL

        return (
            MODEL if self.bytes is None else COMPRESSED,
            PICTURE if kind_of(self.path) == "image" else SOUND,
            COMPARISON,
            REPORT,
        )


def budget(job: SignalJob, shape: tuple[int, ...], kind: str) -> int:
    """The number of stored parameters, of 32 bits each, that ``job`` allows.

    The samples have ``shape (*shape, c)`` and are of ``kind`` "image" or "sound". The default
    budget is at least 64 parameters.
    """
    if job.params is not None:
        return job.params
    bits = job.bpp if job.bpp is not None else BITS[kind] * (shape[-1] if kind == "sound" else 1)
    return max(1, int(bits * math.prod(shape[:-1]) / 32), 64 if job.bpp is None else 1)
