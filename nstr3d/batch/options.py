"""What every shape of a data set is fitted with, and the key that says whether that was done
already."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nstr3d.jobs.mesh import MeshJob
from nstr3d.model.tags import encode_config, encode_formerly

LOG = "log.txt"  # what a shape's worker said
FORMAT = (
    2  # of keys: raised whenever the same configs come to other fits, it has everything fitted anew
)


@dataclass(frozen=True)
class ShapeOptions:
    """How each shape is fitted and what is kept of it; see `MeshJob`, which refuses options out of
    range."""

    preset: Literal["fast", "standard", "fine"] = "fast"
    """How much to spend on a shape, as for nstr3d fit."""
    params: int | None = None
    """Budget of learned parameters of each field."""
    cells: int | None = None
    """Cells per axis of the finest level instead of a budget: all fields get one architecture, and
    Dataset.stack takes them."""
    seconds: float | None = None
    """Train each for this long instead of the preset's number of steps."""
    steps: int | None = None
    """Train each for this many steps instead of the preset's."""
    pool: int | None = None
    """Samples of a shape to train on; the preset's by default."""
    resolution: int = 128
    """Cells of the extraction grid along the longest side."""
    samples: int | None = None
    """Points to measure accuracy with; 100,000 by default."""
    field: Literal["nstr", "grid", "ngp", "siren", "fourier"] = "nstr"
    """The kind of field."""
    transport: float = 0.0
    """Weight of the transport loss; 0 leaves the transport network out."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    seed: int = 0
    """Seed of everything random, the same for every shape."""
    picture: int = 128
    """Pixels to a side of the two views in a thumbnail; 0 for none."""
    mesh: bool = False
    """Keep each extracted surface as mesh.ply."""

    def job(self, path: Path, out: Path) -> MeshJob:
        """The job of one shape. Raises ValueError for options out of range."""
        options = asdict(self)
        del options["mesh"]
        return MeshJob(path, out, **options)

    @property
    def digest(self) -> str:
        """Changes with what changes the results, the defaults behind the options too; the device
        does not count."""
        return self.digests[0]

    @cached_property
    def digests(self) -> tuple[str, str]:
        """`digest`, and the digest of versions that named configs by import path. Both stand for
        the same results."""
        job = replace(self, params=None).job(
            Path(), Path()
        )  # a budget that is too small is for each shape to say
        configs = job.training, job.config(np.zeros((1, 3)))
        return self._digest([encode_config(each) for each in configs]), self._digest(
            [encode_formerly(each) for each in configs]
        )

    def _digest(self, defaults: list[Any]) -> str:
        options = asdict(self) | {"format": FORMAT, "defaults": defaults}
        del options["device"]
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def key_of(content: str, suffix: str, options: ShapeOptions) -> str:
    """The key of a result: of the input's ``content`` hash, how it is read, and the options."""
    return keys_of(content, suffix, options)[0]


def keys_of(content: str, suffix: str, options: ShapeOptions) -> tuple[str, ...]:
    """`key_of`, and the key of the same result in versions that named configs by import path; see
    `ShapeOptions.digests`."""
    texts = (f"{content} {suffix.lower()} {digest}" for digest in options.digests)
    return tuple(hashlib.sha256(text.encode()).hexdigest() for text in texts)
