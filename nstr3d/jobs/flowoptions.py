"""The options of the flow job, which reads a model's spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nstr3d.jobs.messages import Message
from nstr3d.jobs.ranges import (
    LARGEST_PICTURE,
    check_positive,
    check_range,
    check_resolution,
    check_seed,
)

# points of a surface that are analysed, and points among them where waves are read
SAMPLES, READ = 24_000, 4000
RESOLUTION = 128  # cells along the longest side of the mesh that is sampled and coloured


@dataclass(frozen=True)
class FlowJob:
    """What to read from a model, and where to put it."""

    path: Path
    """A model saved by nstr3d, of a shape, an image or a sound."""
    out: Path | None = None
    """Folder for the results; flow/ beside the model by default."""
    seeds: int = 1500
    """Lines to try; lines too close to others are left out."""
    separation: float = 0.03
    """Distance to keep between lines, in the unit box, whose sides are 2 long."""
    length: float = 0.6
    """Distance to follow a line to each side of its seed, in the unit box."""
    segments: int = 4
    """Number of regions of similar spectrum."""
    phases: bool = False
    """Read the phase waves of a shape's model, instead of waves fitted to its relief; the report
    compares the two."""
    highest: float | None = None
    """Highest frequency to look for, in radians per box unit; estimated by default."""
    size: int = 768
    """Width and height in pixels of the picture of a shape."""
    resolution: int = RESOLUTION
    """Cells of the extraction grid along the longest side of a shape."""
    samples: int = SAMPLES
    """Number of points of a shape's surface that are analysed."""
    read: int = READ
    """Number of these points where waves are read."""
    seed: int = 0
    """Seed of the random points and of the lines' starts."""
    overwrite: bool = False
    """Replace results that are already there."""

    def __post_init__(self):
        """Raises ValueError if an option is out of range."""
        if self.seeds < 1:
            raise ValueError(
                Message(
                    "There are no seeds, so there is no line to follow; <seeds> is at least 1, not "
                    "{}.",
                    self.seeds,
                )
            )
        check_positive(self, "separation", "length")
        check_resolution(self.resolution)
        check_seed(self.seed)
        if not self.segments >= 1:
            raise ValueError(Message("<segments> is at least 1, not {}.", self.segments))
        if not 16 <= self.size <= LARGEST_PICTURE:
            raise ValueError(
                Message("<size> is 16 to {} pixels, not {}.", LARGEST_PICTURE, self.size)
            )
        if not 1 <= self.read <= self.samples:
            raise ValueError(
                Message(
                    "<read> must be 1 to <samples>, which is {}; it is {}.", self.samples, self.read
                )
            )
        if self.highest is not None and not 0 < self.highest < math.inf:
            raise ValueError(
                Message(
                    "<highest> is a positive frequency in radians per box unit, not {}.",
                    self.highest,
                )
            )
        check_range(self, seeds=(1, 10**6), separation=(1e-4, 4), length=(1e-4, 100))
        check_range(self, segments=(1, 1000), samples=(1, 10**7), highest=(1e-6, 1e6))

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self.out or self.path.parent / "flow"
