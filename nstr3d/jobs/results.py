"""The names of the files of a job on a surface, and the checks before any work."""

from __future__ import annotations

from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import SurfaceJob
from nstr3d.jobs.stages import check_output
from nstr3d.jobs.walk import REPORT

MODEL, MESH, PICTURE = "model.safetensors", "mesh.ply", "render.png"
CHECKPOINT = "checkpoint.safetensors"


def check_files(job: SurfaceJob) -> None:
    """Raises OSError, before any work, if a result cannot be written or would replace another, or
    if the start model or the checkpoint to resume is missing."""
    if job.start is not None and not job.start.is_file():
        raise FileNotFoundError(
            f"{job.start} does not exist, so there is nothing to start from; name a "
            "model.safetensors."
        )
    if job.output.resume and not (job.folder / CHECKPOINT).exists():
        raise FileNotFoundError(
            Message(
                "{} does not exist, so there is nothing to resume; run without <resume>.",
                job.folder / CHECKPOINT,
            )
        )
    expected = {MODEL, CHECKPOINT} if job.output.resume else set()
    going_on = (
        Message("<resume> to go on from the checkpoint, ")
        if not job.output.resume and (job.folder / CHECKPOINT).exists()
        else ""
    )
    check_output(
        job.folder,
        (MODEL, MESH, PICTURE, REPORT, CHECKPOINT),
        job.output.overwrite,
        expected,
        going_on,
    )
