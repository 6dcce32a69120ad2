"""The options that every shape of a data set is fitted with, and the key of a result.

A shape whose result has the current key is up to date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from nstr3d.jobs.colouroptions import Colours
from nstr3d.jobs.compressoptions import Compression
from nstr3d.jobs.options import Extraction, Output, Parts, PresetName, SurfaceJob, Training

Job = TypeVar("Job", bound=SurfaceJob)
LOG = "log.txt"  # the output of a shape's worker
# Part of every key. Raise it when the same configs lead to different fits: all shapes are refitted.
FORMAT = 5
PRESET: PresetName = "fast"  # of data sets, unless another is chosen


@dataclass(frozen=True)
class ShapeOptions:
    """How each shape is fitted and which files are kept."""

    training: Training = field(default_factory=lambda: Training(preset=PRESET))
    extraction: Extraction = field(default_factory=lambda: Extraction(resolution=128, picture=128))
    parts: Parts = field(default_factory=Parts)
    colours: Colours = field(default_factory=Colours)
    mesh: bool = False
    """Keep each extracted surface as mesh.ply."""
    compression: Compression = field(default_factory=Compression)

    def __post_init__(self):
        self.job(SurfaceJob, Path(), Path())  # refuses options of training for a compressed shape

    @property
    def compressed(self) -> bool:
        """Whether each shape becomes a compressed model."""
        return self.training.instant or self.compression.cause is not None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ShapeOptions:
        """The options that `dataclasses.asdict` turned into ``values``."""
        return cls(
            Training(**values["training"]),
            Extraction(**values["extraction"]),
            Parts(**values["parts"]),
            Colours(**values["colours"]),
            values["mesh"],
            Compression(**values["compression"]),
        )

    def job(self, kind: type[Job], path: Path, out: Path) -> Job:
        """The job, of class ``kind``, that fits the file ``path`` into the folder ``out``.

        ``parts`` and ``colours`` are not in it, as kinds of jobs have their own.
        """
        how, size = self.training, self.compression
        if size.cause and how.preset == PRESET:
            how = replace(how, preset="standard")  # the default of a single job: nothing is trained
        return kind(path, how, self.extraction, Output(out), compression=size)

    @cached_property
    def digest(self) -> str:
        """A hash of everything that affects the results, 16 hexadecimal digits.

        It covers the options and the default configs that they select, but not the device
        and the path of computation.
        """
        import numpy as np

        from nstr3d.model.tags import encode_config

        how = replace(self.training, params=None)  # each shape reports a budget that is too small
        configs = how.config, how.architecture(np.zeros((1, 3)))
        defaults = [encode_config(each) for each in configs]
        options = {**asdict(self.training), **asdict(self.extraction), "mesh": self.mesh}
        options |= asdict(self.parts) | asdict(self.colours)
        # Absent unless asked for, so that the keys of trained shapes stay.
        options |= {name: value for name, value in asdict(self.compression).items() if value}
        options |= {"format": FORMAT, "defaults": defaults}
        del options["device"], options["compute_path"]
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def key_of(content: str, suffix: str, options: ShapeOptions) -> str:
    """The key of a result: a SHA-256 of the input's hash, its file suffix and the options.

    ``content`` is the hash of the input; ``suffix`` decides how the input is read.
    """
    return hashlib.sha256(f"{content} {suffix.lower()} {options.digest}".encode()).hexdigest()
