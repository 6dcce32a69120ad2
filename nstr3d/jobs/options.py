"""The options that jobs on meshes, points and whole data sets share: plain dataclasses, which the
command line parses, a job takes and a data set stores. Each raises ValueError for options out of
range or at odds with each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nstr3d.fields.nstr import NstrConfig, TransportConfig
from nstr3d.fields.vicinity import Near
from nstr3d.jobs.messages import Message
from nstr3d.training.fit import FitConfig
from nstr3d.training.losses import GRADIENT_WEIGHT
from nstr3d.training.presets import FIELDS, LARGEST, PRESETS, SMALLEST, levels_for

SAMPLES = 100_000
RESOLUTIONS = (8, 4096)  # at the upper end, a surface of about 90 million faces
LARGEST_SEED = 2**32 - 1  # the random generators take seeds derived from it
Device = Literal["auto", "cpu", "cuda"]
PresetName = Literal["fast", "standard", "fine"]


@dataclass(frozen=True)
class Training:
    """Which field is trained, and how."""

    preset: PresetName = "standard"
    """How much to spend: about 100k, 100k and 400k parameters, and more training with each."""
    params: int | None = None
    """Budget of learned parameters; the field sizes itself to it."""
    cells: int | None = None
    """Cells per axis of the finest level instead of a budget: all shapes get one architecture, and
    Dataset.stack takes their fields."""
    seconds: float | None = None
    """Train for this long instead of the preset's number of steps."""
    steps: int | None = None
    """Train for this many steps instead of the preset's."""
    pool: int | None = None
    """Samples to train on; the preset's by default."""
    field: Literal["nstr", "grid", "ngp", "siren", "fourier"] = "nstr"
    """The kind of field: ours, the same without waves, or a baseline (Instant-NGP, SIREN, Fourier
    features)."""
    transport: float = 0.0
    """Weight of the transport loss; 0 leaves the transport network out."""
    device: Device = "auto"
    """Where to train."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise ValueError(
                Message("<preset> is one of {}, not {}.", ", ".join(PRESETS), self.preset)
            )
        check_positive(self, "params", "seconds", "steps", "pool")
        if self.field not in FIELDS:
            raise ValueError(
                Message("<field> is one of {}, not {}.", ", ".join(FIELDS), self.field)
            )
        if self.transport and self.field not in ("nstr", "grid"):
            raise ValueError(
                Message(
                    "<transport> needs a local spectrum, which <field> {} has not; use <field> "
                    "nstr.",
                    self.field,
                )
            )
        check_not_negative(self, "transport")
        if self.cells is not None and (
            self.field != "nstr" or not SMALLEST <= self.cells <= LARGEST
        ):
            text = "<cells> is {} to {}, for <field> nstr, not {} for {}."
            raise ValueError(Message(text, SMALLEST, LARGEST, self.cells, self.field))
        check_seed(self.seed)

    @property
    def config(self) -> FitConfig:
        """The preset's training with these changes."""
        changes = {"seed": self.seed, "seconds": self.seconds}
        changes |= {
            name: value for name, value in (("steps", self.steps), ("pool", self.pool)) if value
        }
        return replace(PRESETS[self.preset].training, **changes)

    @property
    def gradient_weight(self) -> float:
        """The weight of the samples' gradients in the loss: none for the baselines, whose near
        errors at equal seconds they raise, as autograd differentiates twice for them."""
        return GRADIENT_WEIGHT if self.field in ("nstr", "grid") else 0.0

    def architecture(self, near: Near) -> Any:
        """The config of a new field near a shape, a mesh or points in the unit box."""
        if self.cells:
            config = NstrConfig(levels=levels_for(self.cells))
        else:
            config = FIELDS[self.field](self.params or PRESETS[self.preset].params, near)
        return replace(config, transport=TransportConfig()) if self.transport else config


@dataclass(frozen=True)
class Extraction:
    """What is made of a fitted field, and measured."""

    resolution: int = 512
    """Cells of the extraction grid along the longest side."""
    samples: int | None = None
    """Points to measure accuracy with; 100,000 by default."""
    picture: int = 512
    """Pixels to a side of the two views in the picture; 0 for none."""

    def __post_init__(self):
        check_positive(self, "samples")
        if not RESOLUTIONS[0] <= self.resolution <= RESOLUTIONS[1]:
            raise ValueError(
                Message("<resolution> is {} to {} cells, not {}.", *RESOLUTIONS, self.resolution)
            )

    @property
    def scored(self) -> int:
        """Points that accuracy is measured with."""
        return self.samples or SAMPLES


@dataclass(frozen=True)
class Output:
    """Where results go, and whether a run goes on."""

    out: Path | None = None
    """Folder for the results; out/<name of the file>/ by default."""
    overwrite: bool = False
    """Replace results that are already there."""
    resume: bool = False
    """Go on from the checkpoint of an interrupted run with the same options."""
    checkpoint_seconds: float = 20.0
    """Training is saved this often, to go on from."""


@dataclass(frozen=True)
class SurfaceJob:
    """What to fit a surface to and how: the file at ``path``, and groups of options."""

    path: Path
    training: Training = field(default_factory=Training)
    extraction: Extraction = field(default_factory=Extraction)
    output: Output = field(default_factory=Output)
    start: Path | None = None
    """Start from the model.safetensors of a nearby shape, which takes fewer steps; the field is as
    large as that model's."""

    def __post_init__(self):
        how = self.training
        if self.start is not None and (
            how.params or how.cells or how.transport or how.field != "nstr"
        ):
            raise ValueError(
                Message(
                    "<start> takes the field from that model; leave out <params>, <cells>, "
                    "<field> and <transport>."
                )
            )

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.output.out or default_folder(self.path)


def default_folder(path: Path) -> Path:
    """Where the results for a file go unless a folder is named."""
    return Path("out") / path.stem


def check_positive(options: Any, *names: str) -> None:
    """Raises ValueError where one of the options is neither positive and finite nor None."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(Message(f"<{name}> must be positive and finite, not {{}}.", value))


def check_not_negative(options: Any, *names: str) -> None:
    """Raises ValueError where one of the options is negative, infinite or no number."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(Message(f"<{name}> must be finite and not negative, not {{}}.", value))


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that the random generators cannot take."""
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(Message("<seed> is 0 to {}, not {}.", LARGEST_SEED, seed))
