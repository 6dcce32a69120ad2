"""The job that fits a field to an image or a sound: model, reconstruction, picture, report."""

from __future__ import annotations

import dataclasses
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nstr3d.fields.base import Field
from nstr3d.fields.closed.carried import CarryConfig, bridge
from nstr3d.fields.closed.cosinefit import fit_cosines, local_frequency
from nstr3d.fields.closed.cosines import Cosines
from nstr3d.fields.closed.wavefill import fill
from nstr3d.fields.nstr import TransportConfig
from nstr3d.io import Picture, save_image, save_picture, save_sound
from nstr3d.jobs.messages import Message
from nstr3d.jobs.publishing import check_output
from nstr3d.jobs.results import COMPRESSED, MODEL
from nstr3d.jobs.signaloptions import COMPARISON, PICTURE, SOUND, SignalJob, budget
from nstr3d.jobs.signalsource import about_input, check_size, load_mask, load_source
from nstr3d.jobs.stages import Interrupted, Listener, Outcome, machine
from nstr3d.jobs.walk import Run, Stages, walk
from nstr3d.kernels.available import need_numba
from nstr3d.model.checkpoint import save
from nstr3d.model.codec import CODE, compress, decompress, save_compressed
from nstr3d.model.tags import encode_config
from nstr3d.render.panels import comparison, spectrograms
from nstr3d.signals.fidelity import spectral_error, ssim
from nstr3d.signals.kinds import kind_of
from nstr3d.signals.ratios import psnr, snr
from nstr3d.signals.signal import TRAINED, Signal
from nstr3d.system import check_memory
from nstr3d.training.choice import Choice, choose
from nstr3d.training.fit import Fit, fit
from nstr3d.training.losses import TransportPenalty, ValueObjective
from nstr3d.training.sampling import Raster

GAPS = CarryConfig(hop=512, reach=6, iterations=30)  # for filling the gaps of a sound
ANALYSIS = {"image": 8, "sound": 512}  # samples per value of the local frequency


def run_signal(
    job: SignalJob, listener: Listener | None = None, import_seconds: float | None = None
) -> Outcome:
    """Runs the job. All files appear together at the end, or none appears.

    ``import_seconds`` is copied into the report.

    Raises ValueError, OSError, FloatingPointError or ModuleNotFoundError with one sentence for the
    user, and `Interrupted` after Ctrl-C.
    """
    return walk(SignalStages(job, listener, import_seconds))


class SignalStages(Stages):
    """The stages of a `SignalJob`."""

    def __init__(self, job: SignalJob, listener: Listener | None, import_seconds: float | None):
        if job.bytes is not None:
            need_numba(CODE)
        if job.params is not None:
            subject = Message("<params> {:,}", job.params)
            check_memory(16 * job.params, subject, "choose fewer.")
        self.job, self.kind, self.names = job, kind_of(job.path), job.names
        self.import_seconds = import_seconds
        super().__init__(Run(listener), job.folder)
        self.choice = chosen(job)
        self.run.warn(self.choice.warnings)

    def computing(self) -> AbstractContextManager[None]:
        return self.choice.path.using()

    def check(self, publishing: bool = False) -> None:
        check_output(self.job.folder, self.job.names, self.job.overwrite)

    def read(self) -> None:
        with self.run.stage("load"):
            self.source = load_source(self.job.path)
            self.known = load_mask(self.job, self.source.values.shape[:-1])
        self.run.warn(f"{self.job.path}: {note}." for note in self.source.notes)

    def prepare(self) -> None:
        job, self.seen = self.job, self.source.values
        check_size(self.seen.shape[:-1], job.scale, self.kind)
        if job.noise:
            generator = np.random.default_rng([job.seed, 2])
            noise = generator.standard_normal(self.seen.shape, np.float32)
            self.seen = self.seen + np.float32(job.noise) * noise

    def sample(self) -> None:
        self.raster = Raster(self.seen, self.known)

    def fit(self) -> None:
        with self.run.stage("fit"):
            self.result, self.compressed = fit_values(
                self.job, self.raster, self.choice.path.device, self.run.listener
            )

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
                lambda: self._comparison(shown if self.job.noise else target),
            )

    def _comparison(self, target: np.ndarray) -> np.ndarray:
        """A picture of ``target``, the fit and their difference."""
        fitted, file = self.fitted, self.source.file
        if isinstance(file, Picture):
            return comparison(target, fitted, local_frequency(fitted, ANALYSIS["image"]))
        sounds = {"input": target, "fit": fitted, "difference": fitted - target}
        return spectrograms(sounds, file.rate)

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
            "input": about_input(self.job, self.source, self.known),
            "field": _about_field(self.job, self.result, self.source.values.shape, size),
            "scale": self.job.scale,
            "accuracy": self.accuracy,
            "seconds": {**self.run.seconds, "import": self.import_seconds},
            "machine": machine(self.choice),
            "seed": self.job.seed,
        }


def chosen(job: SignalJob) -> Choice:
    """The path of computation of ``job``; the CPU for a field in closed form, which is not
    trained."""
    return choose("cpu") if job.field == "cosines" else choose(job.device, job.compute_path)


def fit_values(
    job: SignalJob, raster: Raster, device: torch.device, listener: Listener
) -> tuple[Fit, Any]:
    """The fit of the field of ``job`` to the samples of ``raster``, and its compressed code if the
    job has a budget of bytes, else None."""
    values, params = raster.values, budget(job, raster.values.shape, kind_of(job.path))
    if job.field != "cosines":
        return _train(job, raster, params, device, listener), None
    completed = _completed(values, raster.known)
    if job.bytes is None:
        field = fit_cosines(completed, params, noise=job.noise)
        return _fitted(job, field, raster, params), None
    code = compress(completed, job.bytes)
    return _fitted(job, decompress(code), raster, params), code


def _fitted(job: SignalJob, field: Field, raster: Raster, params: int) -> Fit:
    """The closed-form ``field`` as a finished fit."""
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
        ValueObjective(TransportPenalty(job.transport) if job.transport else None),
        job.training,
        lattice.frame,
        lattice.bounds,
        listener.step,
    )
    if result.interrupted:
        raise Interrupted(f"Stopped after {result.steps} steps; nothing was written.")
    return dataclasses.replace(result, lipschitz=math.inf, provenance=_provenance(job, params))


def _provenance(job: SignalJob, params: int) -> dict[str, Any]:
    """The provenance of a fit with the budget ``params``, or ``job.bytes`` if the job sets that."""
    allowed = {"params": params} if job.bytes is None else {"bytes": job.bytes}
    return {"input": job.path.name, "field": job.field, **allowed, "seed": job.seed}


def _completed(seen: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    if known is None:
        return seen
    return fill(seen, known) if seen.ndim == 3 else bridge(seen, known, GAPS)


def score_signal(
    fitted: np.ndarray, target: np.ndarray, known: np.ndarray | None
) -> dict[str, Any]:
    """How near ``fitted`` is to ``target``, both ``(*shape, c)``: PSNR and SNR in dB, and SSIM for
    an image or the spectral error for a sound.

    If ``known (*shape)`` hides samples, PSNR and SNR over the hidden samples are added. A measure
    that has no meaning is None: an SNR relative to silence, an error of zero in dB, and the SSIM of
    images smaller than 11 pixels.
    """
    if target.ndim == 3:
        fitted = fitted.clip(0, 1)
    scores: dict[str, Any] = {"psnr": _finite(psnr(fitted, target, 1.0)), "peak": 1.0}
    scores["snr"] = _finite(snr(fitted, target)) if target.any() else None
    if target.ndim == 3:
        scores["ssim"] = ssim(fitted, target)
    else:
        error = spectral_error(fitted, target)
        scores["spectral_error"] = None if error is None else dataclasses.asdict(error)
    if known is not None and not known.all():
        hidden = ~known
        scores["psnr_hidden"] = _finite(psnr(fitted[hidden], target[hidden], 1.0))
        scores["snr_hidden"] = (
            _finite(snr(fitted[hidden], target[hidden])) if target[hidden].any() else None
        )
    return scores


def _about_field(job: SignalJob, result: Fit, shape: tuple[int, ...], size: int) -> dict[str, Any]:
    """The report's entry on the field; its samples have ``shape (*shape, c)``, its file ``size``
    bytes."""
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
