"""The options of colours, which jobs on meshes, point clouds and data sets share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nstr3d.jobs.messages import Message
from nstr3d.jobs.ranges import LARGEST_COUNT, check_choice, check_positive, check_range


@dataclass(frozen=True)
class Colours:
    """Whether the colours of a file are fitted, and how."""

    colour: Literal["auto", "off"] = "auto"
    """auto: fit the colours of the file, if it has any: of points, vertices, faces, materials or
    textures. off: leave them out."""
    colour_params: int | None = None
    """Budget of learned parameters of the colours, in addition to those of the shape; by default
    an eighth of the shape's to as many, by the detail of the colours."""

    def __post_init__(self):
        check_choice(self, "colour", ("auto", "off"))
        check_positive(self, "colour_params")
        check_range(self, colour_params=(1, LARGEST_COUNT))
        if self.colour == "off" and self.colour_params:
            text = "<colour> off leaves the colours out; leave out <colour_params>."
            raise ValueError(Message(text))


@dataclass(frozen=True)
class MeshColours(Colours):
    """Whether the colours of a mesh are fitted, and how."""

    texture: Path | None = None
    """A picture to take the colours from, by the texture coordinates of the file, in place of the
    textures that the file names."""

    def __post_init__(self):
        super().__post_init__()
        if self.colour == "off" and self.texture:
            raise ValueError(Message("<colour> off leaves the colours out; leave out <texture>."))
