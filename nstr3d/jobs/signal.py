"""One image or sound file in; a model, a reconstruction, pictures and a report out."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from nstr3d.fields.base import Field
from nstr3d.fields.closed.carried import CarryConfig, bridge
from nstr3d.fields.closed.completion import fill
from nstr3d.fields.closed.cosinefit import fit_cosines, local_frequency
from nstr3d.fields.closed.cosines import Cosines
from nstr3d.fields.nstr import TransportConfig
from nstr3d.io import (
    Picture,
    Sound,
    load_picture,
    load_sound,
    save_image,
    save_picture,
    save_sound,
)
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import (
    Device,
    check_not_negative,
    check_positive,
    check_seed,
    default_folder,
)
from nstr3d.jobs.results import MODEL
from nstr3d.jobs.stages import (
    Interrupted,
    Listener,
    Outcome,
    check_output,
    machine,
    pick_device,
)
from nstr3d.jobs.walk import REPORT, Run, Stages, walk
from nstr3d.kernels.available import need_numba
from nstr3d.model.checkpoint import save
from nstr3d.model.codec import CODE, compress, decompress, save_compressed
from nstr3d.model.tags import encode_config
from nstr3d.render.panels import comparison, spectrograms
from nstr3d.signals.fidelity import spectral_error, ssim
from nstr3d.signals.signal import TRAINED, Signal, kind_of
from nstr3d.surface.metrics import psnr, snr
from nstr3d.training.fit import Fit, FitConfig, fit
from nstr3d.training.losses import TransportPenalty, value_objective
from nstr3d.training.sampling import Raster

COMPRESSED = "model.nstq"
PICTURE, SOUND, COMPARISON = "image.png", "sound.wav", "comparison.png"
# per pixel or frame of samples that the default budget comes to
BITS = {"image": 16.0, "sound": 8.0}
LARGEST_SIDE = 8192
LARGEST_OUTPUT = 1 << 28  # samples that --scale may ask for
GAPS = CarryConfig(hop=512, reach=6, iterations=30)  # how gaps of a sound are filled
ANALYSIS = {"image": 8, "sound": 512}  # hop of the local frequency


@dataclass(frozen=True)
class SignalJob:
    """What to fit to an image or a sound, and how."""

    path: Path
    """Any picture that Pillow reads (PNG, JPEG, TIFF, WebP ...) or sound that libsndfile reads
    (WAV, FLAC, OGG, MP3 ...)."""
    out: Path | None = None
    """Folder for the results; out/<name of the file>/ by default."""
    params: int | None = None
    """Budget of stored parameters, positions included."""
    bpp: float | None = None
    """The budget as bits per pixel, or per moment of a sound, 32 to a parameter; 16, or 8 per
    channel, by default."""
    bytes: int | None = None
    """The budget as the size of the model's file, quantised and entropy coded."""
    field: Literal["cosines", "nstr", "ngp", "siren", "fourier"] = "cosines"
    """The kind of field: ours in closed form, ours trained, or a trained baseline."""
    scale: int = 1
    """Reconstruct at this many times the resolution."""
    transport: float = 0.0
    """Weight of the transport loss, for the field nstr; 0 leaves the transport network out."""
    mask: Path | None = None
    """A picture (or sound) of the same size: only where it is white (or not zero) is the input
    known; the rest is filled in."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise to add before the fit, full scale being 1; the report
    compares with the input."""
    seconds: float | None = None
    """Train for this long; for trained fields."""
    steps: int | None = None
    """Train for this many steps, 2000 by default; for trained fields."""
    device: Device = "auto"
    """Where to train."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Replace results that are already there."""

    def __post_init__(self):
        """Raises ValueError for options out of range or at odds with each other."""
        check_positive(self, "params", "bpp", "bytes", "seconds", "steps")
        if sum(value is not None for value in (self.params, self.bpp, self.bytes)) > 1:
            raise ValueError(
                Message("<params>, <bpp> and <bytes> each set the budget; give one of them.")
            )
        if self.bytes is not None and (self.field != "cosines" or self.noise):
            raise ValueError(
                Message(
                    "<bytes> is for the closed-form field of samples without noise; use <params>."
                )
            )
        if self.field not in ("cosines", *TRAINED):
            raise ValueError(
                Message(
                    "<field> is one of cosines, {} for an image or a sound, not {}.",
                    ", ".join(TRAINED),
                    self.field,
                )
            )
        if self.field == "cosines" and (self.seconds or self.steps):
            raise ValueError(
                Message(
                    "<steps> and <seconds> are for a trained <field>; the default has a closed "
                    "form."
                )
            )
        if self.transport and self.field != "nstr":
            raise ValueError(
                Message("<transport> needs a trained local spectrum; use <field> nstr.")
            )
        check_not_negative(self, "transport", "noise")
        if not 1 <= self.scale <= 64:
            raise ValueError(Message("<scale> is 1 to 64, not {}.", self.scale))
        check_seed(self.seed)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or default_folder(self.path)

    @property
    def training(self) -> FitConfig:
        """How a trained field is trained."""
        return FitConfig(
            self.steps or 2000, batch=8192, settle=None, seconds=self.seconds, seed=self.seed
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The files that it writes."""
        return (
            MODEL if self.bytes is None else COMPRESSED,
            PICTURE if kind_of(self.path) == "image" else SOUND,
            COMPARISON,
            REPORT,
        )


@dataclass(frozen=True)
class Source:
    """What was read: ``values (*shape, c)``, and the picture or sound that says how to write it
    again."""

    values: np.ndarray
    file: Picture | Sound
    notes: tuple[str, ...]

    def like(self, values: np.ndarray, scale: int) -> Picture | Sound:
        """``values`` as a file of the same depth, or type and rate, at ``scale`` times the
        resolution."""
        if isinstance(self.file, Picture):
            return dataclasses.replace(self.file, values=values.clip(0, 1))
        return dataclasses.replace(self.file, values=values, rate=self.file.rate * scale)


def run_signal(
    job: SignalJob, listener: Listener | None = None, import_seconds: float | None = None
) -> Outcome:
    """Does the job. All files appear together at the end or not at all.

    The report gets the caller's ``import_seconds``.

    Raises ValueError, OSError, FloatingPointError or ModuleNotFoundError with one sentence for the
    user, and `Interrupted` after a Ctrl-C.
    """
    return walk(SignalStages(job, listener, import_seconds))


class SignalStages(Stages):
    """The stages of a `SignalJob`."""

    def __init__(self, job: SignalJob, listener: Listener | None, import_seconds: float | None):
        if job.bytes is not None:
            need_numba(CODE)
        self.job, self.kind, self.names = job, kind_of(job.path), job.names
        self.device, self.import_seconds = pick_device(job.device), import_seconds
        check_output(job.folder, job.names, job.overwrite)
        super().__init__(Run(listener), job.folder)

    def read(self) -> None:
        with self.run.stage("load"):
            self.source = load_source(self.job.path)
            self.known = _mask(self.job, self.source.values.shape[:-1])
        self.run.warn(f"{self.job.path}: {note}." for note in self.source.notes)

    def prepare(self) -> None:
        job, self.seen = self.job, self.source.values
        _check_size(self.seen.shape[:-1], job.scale, self.kind)
        if job.noise:
            generator = np.random.default_rng([job.seed, 2])
            noise = generator.standard_normal(self.seen.shape, np.float32)
            self.seen = self.seen + np.float32(job.noise) * noise

    def sample(self) -> None:
        self.raster = Raster(self.seen, self.known)
        self.params = budget(self.job, self.seen.shape, self.kind)

    def fit(self) -> None:
        job, self.compressed = self.job, None
        with self.run.stage("fit"):
            if job.field != "cosines":
                self.result = _train(job, self.raster, self.params, self.device, self.run.listener)
                return
            completed = _completed(self.seen, self.known)
            if job.bytes is None:
                field = fit_cosines(completed, self.params, noise=job.noise)
            else:
                self.compressed = compress(completed, job.bytes)
                field = decompress(self.compressed)
            self.result = _fitted(job, field, self.raster, self.params)

    def extract(self) -> None:
        signal = Signal(self.result.field, self.raster.lattice)
        with self.run.clock("reconstruct"):
            self.fitted = signal.raster()
            self.enlarged = signal.raster(self.job.scale) if self.job.scale > 1 else self.fitted

    def measure(self) -> None:
        target, known = self.source.values, self.known
        shown = self.seen if known is None else np.where(known[..., None], self.seen, 0)
        with self.run.clock("score"):
            self.accuracy = self.run.measure(
                "accuracy", lambda: score_signal(self.fitted, target, known)
            )
            self.comparison = self.run.measure(
                "comparison",
                lambda: _comparison(shown if self.job.noise else target, self.fitted),
            )

    def publish(self, folder: Path) -> dict[str, Any]:
        with self.run.clock("write"):
            if self.compressed is None:
                save(folder / MODEL, self.result)
            else:
                save_compressed(folder / COMPRESSED, self.compressed)
            again = self.source.like(self.enlarged, self.job.scale)
            if isinstance(again, Picture):
                save_picture(folder / PICTURE, again)
            else:
                save_sound(folder / SOUND, again)
            if self.comparison is not None:
                save_image(folder / COMPARISON, self.comparison)
        size = (folder / self.names[0]).stat().st_size
        return {
            "input": _about_input(self.job, self.source, self.known),
            "field": _about_field(self.job, self.result, self.source.values.shape, size),
            "scale": self.job.scale,
            "accuracy": self.accuracy,
            "seconds": {**self.run.seconds, "import": self.import_seconds},
            "machine": machine(self.device),
            "seed": self.job.seed,
        }


def load_source(path: Path) -> Source:
    """The image or sound in the file. Raises what `load_picture` and `load_sound` do, ValueError
    for another kind of file."""
    if kind_of(path) == "mesh":
        raise ValueError(
            f"{path} is neither a picture nor a sound by its extension '{path.suffix}'; .png or "
            ".wav work."
        )
    if kind_of(path) == "image":
        picture = load_picture(path)
        return Source(picture.values, picture, picture.notes)
    sound = load_sound(path)
    return Source(sound.values, sound, ())


def budget(job: SignalJob, shape: tuple[int, ...], kind: str) -> int:
    """Stored parameters that ``job`` allows for samples of ``shape (*shape, c)``: 32 bits each."""
    if job.params is not None:
        return job.params
    bits = job.bpp if job.bpp is not None else BITS[kind] * (shape[-1] if kind == "sound" else 1)
    return max(1, int(bits * math.prod(shape[:-1]) / 32), 64 if job.bpp is None else 1)


def score_signal(
    fitted: np.ndarray, target: np.ndarray, known: np.ndarray | None
) -> dict[str, Any]:
    """How near ``fitted`` is to ``target (*shape, c)``; in the hidden part alone too, where there
    is one. None where a measure has no meaning: a ratio to silence, an error of zero in dB,
    similarity of pictures below 11 pixels."""
    if target.ndim == 3:
        fitted = fitted.clip(0, 1)
    found: dict[str, Any] = {"psnr": _finite(psnr(fitted, target, 1.0)), "peak": 1.0}
    found["snr"] = _finite(snr(fitted, target)) if target.any() else None
    if target.ndim == 3:
        found["ssim"] = ssim(fitted, target)
    else:
        error = spectral_error(fitted, target)
        found["spectral_error"] = None if error is None else dataclasses.asdict(error)
    if known is not None and not known.all():
        hidden = ~known
        found["psnr_hidden"] = _finite(psnr(fitted[hidden], target[hidden], 1.0))
        found["snr_hidden"] = (
            _finite(snr(fitted[hidden], target[hidden])) if target[hidden].any() else None
        )
    return found


def _fitted(job: SignalJob, field: Field, raster: Raster, params: int) -> Fit:
    """The field in closed form as a finished fit."""
    frame, bounds = raster.lattice.frame, raster.lattice.bounds
    return Fit(field, frame, bounds, math.inf, provenance=_provenance(job, params))


def _train(
    job: SignalJob, raster: Raster, params: int, device: torch.device, listener: Listener
) -> Fit:
    lattice, channels = raster.lattice, raster.values.shape[-1]
    generator = torch.Generator().manual_seed(job.seed)
    config = TRAINED[job.field](params, lattice, channels)
    if job.transport:
        config = dataclasses.replace(config, transport=TransportConfig())
    field = config.build(len(lattice.shape), channels, generator=generator).to(device)
    result = fit(
        field,
        raster,
        value_objective(TransportPenalty(job.transport) if job.transport else None),
        job.training,
        lattice.frame,
        lattice.bounds,
        listener.step,
    )
    if result.interrupted:
        raise Interrupted(f"Stopped after {result.steps} steps; nothing was written.")
    return dataclasses.replace(result, lipschitz=math.inf, provenance=_provenance(job, params))


def _provenance(job: SignalJob, params: int) -> dict[str, Any]:
    return {"input": job.path.name, "field": job.field, "params": params, "seed": job.seed}


def _completed(seen: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    if known is None:
        return seen
    return fill(seen, known) if seen.ndim == 3 else bridge(seen, known, GAPS)


def _mask(job: SignalJob, shape: tuple[int, ...]) -> np.ndarray | None:
    """Which samples are known: where the mask, of the same size, is brighter than half, or the
    masking sound not silent."""
    if job.mask is None:
        return None
    values = load_source(job.mask).values
    if values.shape[:-1] != shape:
        raise ValueError(
            Message(
                "<mask> {} has {} samples where {} has {}; make them equal.",
                job.mask,
                values.shape[:-1],
                job.path,
                shape,
            )
        )
    bright = values[..., : min(3, values.shape[-1])].mean(axis=-1) > 0.5
    known = np.asarray(bright if len(shape) == 2 else values.any(axis=-1))
    if not known.any():
        raise ValueError(
            Message(
                "<mask> {} is dark throughout, so it hides every sample; what is white is known.",
                job.mask,
            )
        )
    return known


def _check_size(shape: tuple[int, ...], scale: int, kind: str) -> None:
    if kind == "image" and max(shape) > LARGEST_SIDE:
        raise ValueError(
            f"The picture measures {shape[1]} x {shape[0]} pixels; sides up to {LARGEST_SIDE} "
            "work, so shrink it."
        )
    if math.prod(shape) * scale ** len(shape) > LARGEST_OUTPUT:
        raise ValueError(
            Message(
                "<scale> {} would make more than {:,} samples; use a smaller one.",
                scale,
                LARGEST_OUTPUT,
            )
        )


def _comparison(target: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    if target.ndim == 3:
        return comparison(target, fitted, local_frequency(fitted, ANALYSIS["image"]))
    return spectrograms([target, fitted, fitted - target])


def _about_input(job: SignalJob, source: Source, known: np.ndarray | None) -> dict[str, Any]:
    about = {"bits": source.file.bits} if isinstance(source.file, Picture) else _about(source.file)
    return {
        "path": str(job.path),
        "kind": kind_of(job.path),
        "shape": list(source.values.shape),
        **about,
        "notes": list(source.notes),
        "known": None if known is None else float(known.mean()),
        "noise": job.noise,
    }


def _about_field(job: SignalJob, result: Fit, shape: tuple[int, ...], size: int) -> dict[str, Any]:
    """What a report says of the field of samples of ``shape``, whose file has ``size`` bytes."""
    field = result.field
    stored = field.stored_parameters if isinstance(field, Cosines) else field.parameter_count
    return {
        "name": job.field,
        "config": encode_config(field.config),
        "parameters": stored,
        "amplitudes": field.parameter_count if isinstance(field, Cosines) else None,
        "bytes": size,
        "bits_per_sample": size * 8 / math.prod(shape[:-1]),
        "steps": result.steps,
    }


def _about(sound: Sound) -> dict[str, Any]:
    return {"rate": sound.rate, "subtype": sound.subtype, "seconds": len(sound.values) / sound.rate}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
