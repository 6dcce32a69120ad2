"""The options that jobs on meshes, point clouds and whole data sets share.

They are plain dataclasses: the command line parses them, jobs take them and a data set stores them.
Each raises ValueError if an option is out of range or contradicts another. The fields that options
choose are imported when they are built, so that the command line's help needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from nstr3d.jobs.colouroptions import Colours, MeshColours
from nstr3d.jobs.compressoptions import Compression, check_untrained
from nstr3d.jobs.messages import Message
from nstr3d.jobs.ranges import (
    LARGEST_COUNT,
    LARGEST_PICTURE,
    LARGEST_SECONDS,
    check_choice,
    check_not_negative,
    check_positive,
    check_range,
    check_resolution,
    check_seed,
    check_surface,
)
from nstr3d.system import check_memory

if TYPE_CHECKING:
    from nstr3d.fields.vicinity import Near
    from nstr3d.training.fit import FitConfig
    from nstr3d.training.presets import Preset
    from nstr3d.types import Box

SAMPLES = 100_000
SHEET_CELLS = 2  # cells of the extraction grid in the thickness of a sheet, if none is chosen
Device = Literal["auto", "cpu", "cuda", "mps"]
PathName = Literal["auto", "triton", "torch", "cpu"]
PresetName = Literal["instant", "fast", "standard", "fine"]
FieldName = Literal["nstr", "grid", "ngp", "siren", "fourier"]
NORMALS = ("given", "estimate")


@dataclass(frozen=True)
class Training:
    """Which field is trained, and how."""

    preset: PresetName = "standard"
    """Cost of the fit. instant: a grid in closed form, without training, in model.nstq. fast,
    standard, fine: about 100k, 100k and 400k parameters, each with longer training."""
    params: int | None = None
    """Budget of learned parameters, to which the field is sized; the preset's by default."""
    cells: int | None = None
    """Cells per axis of the finest level, instead of a budget. All shapes then get the same
    architecture, which Dataset.stack needs."""
    seconds: float | None = None
    """Train for this many seconds instead of the preset's number of steps."""
    steps: int | None = None
    """Train for this many steps instead of the preset's."""
    pool: int | None = None
    """Number of training samples; the preset's by default."""
    field: FieldName = "nstr"
    """nstr: ours. grid: ours without waves. ngp, siren, fourier: baselines (Instant-NGP, SIREN,
    Fourier features)."""
    transport: float = 0.0
    """Weight of the transport loss; 0 leaves out the transport network."""
    device: Device = "auto"
    """Device to train on; auto: where the fastest path is that gives right results."""
    compute_path: PathName = "auto"
    """Kernels to train with. triton: fused kernels of a GPU. torch: plain torch. cpu: compiled
    kernels of the CPU."""
    seed: int = 0
    """Seed of all random numbers."""

    def __post_init__(self):
        check_choice(self, "preset", get_args(PresetName))
        check_positive(self, "params", "seconds", "steps", "pool")
        check_choice(self, "field", get_args(FieldName))
        if self.transport and self.field not in ("nstr", "grid"):
            raise ValueError(
                Message(
                    "<transport> needs a local spectrum, which <field> {} does not have; use "
                    "<field> nstr.",
                    self.field,
                )
            )
        check_not_negative(self, "transport")
        counts = dict.fromkeys(("params", "steps", "pool"), (1, LARGEST_COUNT))
        check_range(self, **counts, seconds=(0, LARGEST_SECONDS), transport=(0, 1e6))
        if self.cells is not None:
            self._check_cells(self.cells)
        check_seed(self.seed)
        if self.instant and (named := self.trained):
            text = f"<preset> instant trains nothing; leave out <{named[0]}>."
            raise ValueError(Message(text))

    @property
    def instant(self) -> bool:
        """Whether the shape gets a grid in closed form instead of a trained field."""
        return self.preset == "instant"

    @property
    def trained(self) -> list[str]:
        """The names of the options that have another value than the default and concern training,
        apart from the preset."""
        names = "params", "cells", "seconds", "steps", "pool", "field", "transport"
        plain = {each.name: each.default for each in fields(self)}
        return [name for name in names if getattr(self, name) != plain[name]]

    def _check_cells(self, cells: int) -> None:
        from nstr3d.training.presets import LARGEST, SMALLEST

        if self.field != "nstr" or not SMALLEST <= cells <= LARGEST:
            text = "<cells> is {} to {} and needs <field> nstr, not {} with <field> {}."
            raise ValueError(Message(text, SMALLEST, LARGEST, cells, self.field))

    @property
    def resolution(self) -> int:
        """Cells of the extraction grid that the budget of parameters can resolve."""
        params = self.params or self._preset.params
        return int(min(max(round(256 * math.sqrt(params / 1e5) / 16) * 16, 96), 512))

    @property
    def config(self) -> FitConfig:
        """The preset's training, changed by ``seed``, ``seconds``, ``steps`` and ``pool``."""
        changes = {"seed": self.seed, "seconds": self.seconds}
        changes |= {
            name: value for name, value in (("steps", self.steps), ("pool", self.pool)) if value
        }
        return replace(self._preset.training, **changes)

    @property
    def _preset(self) -> Preset:
        from nstr3d.training.presets import PRESETS, STANDARD

        return PRESETS.get(self.preset, STANDARD)

    @property
    def gradient_weight(self) -> float:
        """The weight of the samples' gradients in the loss; 0 for the baselines.

        For the baselines, autograd must differentiate twice to fit gradients. At equal training
        time this raises their error near the surface.
        """
        from nstr3d.training.losses import GRADIENT_WEIGHT

        return GRADIENT_WEIGHT if self.field in ("nstr", "grid") else 0.0

    def architecture(self, near: Near) -> Any:
        """The config of a new field near a mesh or points in the unit box. Raises ValueError if
        ``params`` is too small a budget for the coarsest field."""
        from nstr3d.fields.nstr import NstrConfig, TransportConfig
        from nstr3d.training.presets import FIELDS, levels_for

        if self.cells:
            config = NstrConfig(levels=levels_for(self.cells))
        else:
            config = FIELDS[self.field](self.params or self._preset.params, near)
        return replace(config, transport=TransportConfig()) if self.transport else config


@dataclass(frozen=True)
class Extraction:
    """What is extracted from a fitted field, and how it is measured."""

    resolution: int | None = None
    """Cells of the extraction grid along the longest side; 256 for 100,000 parameters by default,
    and as the square root of their number."""
    samples: int | None = None
    """Points to measure accuracy with; 100,000 by default."""
    picture: int = 768
    """Width and height in pixels of each of the picture's two views; 0 makes no picture."""
    up: Literal["auto", "x", "y", "z", "-x", "-y", "-z"] = "auto"
    """The axis that points up in pictures; auto guesses it from the format and the shape."""
    certified: bool = False
    """Find the surface by proof, so that the mesh misses no part of it; the report says what is
    proven."""

    def __post_init__(self):
        check_positive(self, "samples")
        check_range(self, samples=(1, LARGEST_COUNT))
        if self.resolution is not None:
            check_resolution(self.resolution)
        if not 0 <= self.picture <= LARGEST_PICTURE:
            raise ValueError(
                Message("<picture> is 0 to {} pixels, not {}.", LARGEST_PICTURE, self.picture)
            )

    @property
    def scored(self) -> int:
        """The number of points that accuracy is measured with."""
        return self.samples or SAMPLES


@dataclass(frozen=True)
class Output:
    """Where the results go, and whether to resume a run."""

    out: Path | None = None
    """Folder for the results; out/<name of the file>/ by default."""
    overwrite: bool = False
    """Replace results that are already there."""
    resume: bool = False
    """Continue from the checkpoint of an interrupted run with the same options."""
    checkpoint_seconds: float = 20.0
    """Seconds between two checkpoints of training."""

    def __post_init__(self):
        check_not_negative(self, "checkpoint_seconds")
        check_range(self, checkpoint_seconds=(0, LARGEST_SECONDS))


@dataclass(frozen=True)
class Parts:
    """Which parts of a mesh are fitted, and how open ones are."""

    drop_far: bool = False
    """Leave out all parts that lie far from the others; small open flakes far off are left out
    unless open surfaces are kept."""
    open: bool = False
    """Keep open surfaces, such as terrain, as thin sheets. By default, their holes are closed if
    that gives a solid, and what encloses no volume is left out."""
    thickness: float | None = None
    """Thickness of these sheets in units of the input; two cells of the extraction grid by default.
    Implies open."""

    def __post_init__(self):
        check_positive(self, "thickness")
        check_range(self, thickness=(0, 1e15))

    def sheets(self, cell: float) -> Callable[[Box], float] | None:
        """Gives the thickness of sheets for the box of a mesh; None if open surfaces are to be
        closed. ``cell`` is the edge of the extraction's cells in longest sides of the box."""
        if not (self.open or self.thickness):
            return None
        return lambda bounds: self.thickness or SHEET_CELLS * cell * float(bounds.extent.max())


@dataclass(frozen=True)
class SurfaceJob:
    """What to fit a surface to, the file at ``path``, and how: groups of options."""

    path: Path
    training: Training = field(default_factory=Training)
    extraction: Extraction = field(default_factory=Extraction)
    output: Output = field(default_factory=Output)
    colours: Colours = field(default_factory=Colours)
    start: Path | None = None
    """Start from the model.safetensors of a similar shape, which needs fewer steps. The field has
    the size of that model."""
    compression: Compression = field(default_factory=Compression)

    def __post_init__(self):
        how = self.training
        if self.start is not None and (
            how.params or how.cells or how.transport or how.field != "nstr"
        ):
            raise ValueError(
                Message(
                    "<start> takes the field from a saved model; leave out <params>, <cells>, "
                    "<field> and <transport>."
                )
            )
        if self.extraction.certified and how.field not in ("nstr", "grid"):
            text = "<certified> needs <field> nstr or grid; nothing is proven of {}."
            raise ValueError(Message(text, how.field))
        if self.compressed:
            check_untrained(self)

    @property
    def compressed(self) -> bool:
        """Whether the result is a compressed model, which is not trained."""
        return self.training.instant or self.compression.cause is not None

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self.output.out or default_folder(self.path)

    @property
    def resolution(self) -> int:
        """Cells of the extraction grid along the longest side: what the options say, or what the
        budget of parameters can resolve."""
        return self.extraction.resolution or self.training.resolution

    def check_memory(self) -> None:
        """Raises ValueError for an option whose arrays alone are larger than the free memory."""
        counts = self.training.params, self.training.pool, self.extraction.samples
        for name, count, size in zip(("params", "pool", "samples"), counts, (16, 64, 100)):
            subject = Message(f"<{name}> {{:,}}", count or 0)
            check_memory(size * (count or 0), subject, "choose a smaller one.")
        check_surface(self.resolution)


@dataclass(frozen=True)
class MeshJob(SurfaceJob):
    """What to fit to a mesh, and how."""

    path: Path
    """A mesh file: OBJ, PLY, STL, OFF, GLB, GLTF, or another format that trimesh reads."""
    parts: Parts = field(default_factory=Parts)
    colours: MeshColours = field(default_factory=MeshColours)


@dataclass(frozen=True)
class PointsJob(SurfaceJob):
    """What to fit to a point cloud, and how."""

    path: Path
    """Point cloud, with or without normals: PLY, PCD, text (XYZ, CSV, PTS ...), NPY, NPZ or LAS
    (needs laspy)."""
    normals: Literal["given", "estimate"] = "given"
    """given: use the file's normals, or estimate normals if it has none. estimate: ignore the
    file's normals."""
    smooth: float | None = None
    """Standard deviation of the noise, in the points' units; estimated by default. With 0 the
    surface follows the points closely."""
    trim: float | None = None
    """For open scans: remove surface that is farther than this many typical spacings from every
    point. 4 suits most scans."""
    reference: Path | None = None
    """A mesh to measure the result against."""
    keep_outliers: bool = False
    """Keep points that lie far from all others."""
    keep_scans: bool = False
    """Leave the scans of a cloud where they are, even if they lie beside each other."""

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "normals", NORMALS)
        check_not_negative(self, "smooth")
        check_positive(self, "trim")
        check_range(self, smooth=(0, 1e15), trim=(0, 1e6))

    @property
    def surfacing(self) -> dict[str, Any]:
        """The keyword arguments of `first_surface` that these options set."""
        return {
            "estimate_normals": self.normals != "given",
            "smooth": self.smooth,
            "keep_outliers": self.keep_outliers,
            "keep_scans": self.keep_scans,
        }


def default_folder(path: Path) -> Path:
    """The folder of the results for a file, unless the user names one."""
    return Path("out") / path.stem
