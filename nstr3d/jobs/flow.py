"""The job that reads a model's spectrum: streamlines, segments, a picture and a report."""

from __future__ import annotations

from nstr3d.jobs.flowoptions import FlowJob
from nstr3d.jobs.flowshape import ShapeFlow
from nstr3d.jobs.flowsignal import SignalFlow
from nstr3d.jobs.ranges import check_surface
from nstr3d.jobs.stages import Listener, Outcome
from nstr3d.jobs.walk import walk
from nstr3d.model.checkpoint import load


def run_flow(job: FlowJob, listener: Listener | None = None) -> Outcome:
    """Reads the model, follows its streamlines and writes the files.

    Raises ValueError if the model has no spectrum to read, and OSError if a file cannot be read or
    written.
    """
    model = load(job.path)
    if model.field.in_dim == 3:
        check_surface(job.resolution)
    stages = ShapeFlow if model.field.in_dim == 3 else SignalFlow
    return walk(stages(job, model, listener))
