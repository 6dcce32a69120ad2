"""What to read from a model's spectrum: the options of the flow job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nstr3d.jobs.messages import Message

# points of a surface: analysed, and where waves are read
SAMPLES, READ = 24_000, 4000
RESOLUTION = 128  # of the mesh that is sampled and coloured


@dataclass(frozen=True)
class FlowJob:
    """What to read from a model, and where to put it."""

    path: Path
    """A model that nstr3d saved: of a shape, an image or a sound."""
    out: Path | None = None
    """Folder for the results; flow/ beside the model by default."""
    seeds: int = 1500
    """Lines to try; those that come too near others are left out."""
    separation: float = 0.03
    """How far lines keep apart, where the longest side of the box is 2."""
    length: float = 0.6
    """How far a line is followed to each side, in the same units."""
    segments: int = 4
    """Regions of alike spectrum."""
    phases: bool = False
    """Read a shape's own phase waves instead of what its relief does; the report says how far they
    are apart."""
    highest: float | None = None
    """The highest frequency of that spectrum, in radians per box unit."""
    size: int = 768
    """Width and height of the picture of a shape."""
    resolution: int = RESOLUTION
    """Cells along the longest side of the surface of a shape."""
    samples: int = SAMPLES
    """Points of that surface that are analysed."""
    read: int = READ
    """Points among them where waves are read."""
    seed: int = 0
    """Seed of the lines' starts."""
    overwrite: bool = False
    """Replace results that are already there."""

    def __post_init__(self):
        """Raises ValueError for options out of range."""
        if self.seeds < 1:
            raise ValueError(
                Message(
                    "There are no seeds, so there is no line to follow; <seeds> is at least 1, not "
                    "{}.",
                    self.seeds,
                )
            )
        if not (self.separation > 0 and self.length > 0 and self.segments >= 1 and self.size >= 16):
            raise ValueError(
                Message(
                    "<separation> and <length> are positive, <segments> at least 1 and <size> at "
                    "least 16."
                )
            )
        if not 1 <= self.read <= self.samples:
            raise ValueError(
                Message(
                    "<read> is 1 to the number of <samples>, {}, not {}.", self.samples, self.read
                )
            )
        if self.highest is not None and not 0 < self.highest < math.inf:
            raise ValueError(
                Message(
                    "<highest> is a positive frequency in radians per box unit, not {}.",
                    self.highest,
                )
            )

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or self.path.parent / "flow"
