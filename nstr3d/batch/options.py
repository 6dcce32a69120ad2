"""What every shape of a data set is fitted with, and the key that says whether that was done
already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nstr3d.jobs.options import Extraction, Output, SurfaceJob, Training
from nstr3d.model.tags import encode_config

Job = TypeVar("Job", bound=SurfaceJob)
LOG = "log.txt"  # what a shape's worker said
# of keys: raised whenever the same configs come to other fits, it has everything fitted anew
FORMAT = 3


@dataclass(frozen=True)
class ShapeOptions:
    """How each shape is fitted and what is kept of it."""

    training: Training = field(default_factory=lambda: Training(preset="fast"))
    extraction: Extraction = field(default_factory=lambda: Extraction(resolution=128, picture=128))
    mesh: bool = False
    """Keep each extracted surface as mesh.ply."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ShapeOptions:
        """The options of which `dataclasses.asdict` made ``values``."""
        training, extraction = Training(**values["training"]), Extraction(**values["extraction"])
        return cls(training, extraction, values["mesh"])

    def job(self, kind: type[Job], path: Path, out: Path) -> Job:
        """The job of one shape."""
        return kind(path, self.training, self.extraction, Output(out))

    @cached_property
    def digest(self) -> str:
        """Changes with what changes the results, the defaults behind the options too; the device
        does not count."""
        how = replace(self.training, params=None)  # a budget too small is for each shape to say
        configs = how.config, how.architecture(np.zeros((1, 3)))
        defaults = [encode_config(each) for each in configs]
        options = {**asdict(self.training), **asdict(self.extraction), "mesh": self.mesh}
        options |= {"format": FORMAT, "defaults": defaults}
        del options["device"]
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def key_of(content: str, suffix: str, options: ShapeOptions) -> str:
    """The key of a result: of the input's ``content`` hash, how it is read, and the options."""
    return hashlib.sha256(f"{content} {suffix.lower()} {options.digest}".encode()).hexdigest()
