"""What every shape of a data set is fitted with, and the key that says whether that was done already."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from nstr3d.jobs import MeshJob

LOG = "log.txt"  # what a shape's worker said
FORMAT = 1  # of keys: another number fits everything anew


@dataclass(frozen=True)
class ShapeOptions:
    """How each shape is fitted and what is kept of it; see `MeshJob`. ``mesh`` keeps the extracted surface, ``picture`` is the
    pixels to a side of the two views that make the thumbnail, 0 for none.

    Raises ValueError for options out of range.
    """

    preset: str = "fast"
    params: int | None = None
    cells: int | None = None
    seconds: float | None = None
    steps: int | None = None
    pool: int | None = None
    resolution: int = 128
    samples: int | None = None
    field: str = "nstr"
    transport: float = 0.0
    device: str = "auto"
    seed: int = 0
    picture: int = 128
    mesh: bool = False

    def __post_init__(self):
        self.job(Path(), Path())

    def job(self, path: Path, out: Path) -> MeshJob:
        """The job of one shape."""
        options = asdict(self)
        del options["mesh"]
        return MeshJob(path, out, **options)

    @property
    def digest(self) -> str:
        """Changes with what changes the results; the device does not count."""
        options = asdict(self) | {"format": FORMAT}
        del options["device"]
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def key_of(content: str, suffix: str, options: ShapeOptions) -> str:
    """The key of a result: of the input's ``content`` hash, how it is read, and the options."""
    return hashlib.sha256(f"{content} {suffix.lower()} {options.digest}".encode()).hexdigest()
