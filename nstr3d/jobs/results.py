"""The names of the files of a job on a surface, the place of an unfinished run, and the checks
before any work."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nstr3d.io.atomic import remove_leftovers
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import SurfaceJob
from nstr3d.jobs.publishing import REPORT, check_output
from nstr3d.model.header import check_regular

MODEL, MESH, PICTURE = "model.safetensors", "mesh.ply", "render.png"
COMPRESSED = "model.nstq"
CHECKPOINT = "checkpoint.safetensors"
UNFINISHED = "unfinished"  # the folder of a run that is to replace the results around it
OWNED = (MODEL, COMPRESSED, MESH, PICTURE, REPORT, CHECKPOINT)


@dataclass(frozen=True)
class Unfinished:
    """The place of a run that has not ended: its ``checkpoint``, and its best ``model`` so far,
    which is written when the run is stopped."""

    checkpoint: Path
    model: Path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in the folder of a job's results. The first is that of a run that is to
    replace the results."""
    paths = (folder / UNFINISHED / CHECKPOINT, folder / CHECKPOINT)
    return [path for path in paths if path.exists()]


def place_unfinished(job: SurfaceJob, checkpoint: Path | None = None) -> Unfinished:
    """The place for a run that begins, or that resumes from ``checkpoint``.

    A run that is to replace files has a folder of its own, so that they stay whole if it is
    stopped.
    """
    folder, apart = job.folder, job.folder / UNFINISHED
    if checkpoint is None:
        old = any((folder / name).exists() for name in OWNED)
        checkpoint = (apart if old else folder) / CHECKPOINT
    # Beside a checkpoint and without a report, a model is that of the stopped run.
    replaces = (folder / REPORT).exists() or checkpoint.parent == apart
    return Unfinished(checkpoint, (apart if replaces else folder) / MODEL)


def check_files(job: SurfaceJob, publishing: bool = False) -> None:
    """Raises OSError if a result cannot be written or would replace another, or, before any work,
    if the start model or the checkpoint to resume is missing."""
    folder, present = job.folder, checkpoints(job.folder)
    if job.start is not None and not publishing:
        check_start(job.start)
    if job.output.resume and not publishing and not present:
        raise FileNotFoundError(
            Message(
                "{} does not exist, so there is nothing to resume; run without <resume>.",
                folder / CHECKPOINT,
            )
        )
    expected = {CHECKPOINT} if publishing else set()
    if job.output.resume:  # whoever began the run in UNFINISHED has agreed to replace the results
        expected = (
            set(OWNED) if folder / UNFINISHED / CHECKPOINT in present else {MODEL, CHECKPOINT}
        )
    going_on = (
        Message("<resume> to go on from the checkpoint, ")
        if not job.output.resume and present
        else ""
    )
    check_output(folder, OWNED, job.output.overwrite, expected, going_on)


def check_start(path: Path) -> None:
    """Raises FileNotFoundError or ValueError unless there is a file to start from."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist, so there is nothing to start from; name a model.safetensors."
        )
    check_regular(path)


def remove_unfinished(place: Unfinished) -> None:
    """Removes the files of an unfinished run, after its results were published, and their folder if
    it holds nothing else."""
    apart = place.checkpoint.parent
    place.checkpoint.unlink(missing_ok=True)
    if apart.name == UNFINISHED:
        (apart / MODEL).unlink(missing_ok=True)
        for name in (MODEL, CHECKPOINT):
            remove_leftovers(apart / name)
        with suppress(OSError):  # it holds other files
            apart.rmdir()
