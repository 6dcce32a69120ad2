"""The options of the job that combines models of shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nstr3d.jobs.messages import Message
from nstr3d.jobs.ranges import (
    LARGEST_PICTURE,
    check_choice,
    check_not_negative,
    check_range,
    check_resolution,
)
from nstr3d.types import Up

MOST = 64  # models of one combination


@dataclass(frozen=True)
class CombineJob:
    """Which models to combine, how, and where to put the result."""

    paths: tuple[Path, ...]
    """Two models of shapes or more (.safetensors, .nstq); a result of this command is one too."""
    out: Path | None = None
    """Folder for the results; out/combination/ by default."""
    union: bool = False
    """What is in any of them."""
    intersection: bool = False
    """What is in all of them."""
    difference: bool = False
    """What is in the first and in no other."""
    radius: float = 0.0
    """Fill creases and round edges where two distances differ by less than this length, in the
    models' units."""
    resolution: int = 256
    """Cells of the extraction grid along the longest side."""
    picture: int = 768
    """Width and height in pixels of the picture; 0 makes none."""
    up: Literal["auto", "x", "y", "z", "-x", "-y", "-z"] = "auto"
    """The axis that points up in pictures, now and later; auto takes what the first model notes."""
    overwrite: bool = False
    """Replace results that are already there."""

    def __post_init__(self):
        """Raises ValueError if an option is out of range or contradicts another."""
        if self.union + self.intersection + self.difference != 1:
            text = "Choose one of <union>, <intersection> and <difference>."
            raise ValueError(Message(text))
        if not 2 <= len(self.paths) <= MOST:
            text = "A combination is of 2 to {} models, not of {}."
            raise ValueError(Message(text, MOST, len(self.paths)))
        check_choice(self, "up", ("auto", *get_args(Up)))
        check_not_negative(self, "radius")
        check_range(self, radius=(0, 1e15), picture=(0, LARGEST_PICTURE))
        check_resolution(self.resolution)

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self.out or Path("out") / "combination"

    @property
    def operation(self) -> str:
        """The name of the chosen operation."""
        return next(name for name in ("union", "intersection", "difference") if getattr(self, name))
