"""The options of a shape that is compressed in closed form instead of trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nstr3d.jobs.messages import Message
from nstr3d.jobs.ranges import LARGEST_COUNT, check_positive, check_range

if TYPE_CHECKING:
    from nstr3d.jobs.options import SurfaceJob


@dataclass(frozen=True)
class Compression:
    """How small, or how exact, a compressed shape is to be."""

    bytes: int | None = None
    """Write a compressed model.nstq of at most this many bytes, in closed form, instead of training
    a field."""
    error: float | None = None
    """Write the smallest compressed model.nstq whose surface is at most this far from the input's,
    as the mean of both directions in units of the unit box, such as 2e-4."""

    def __post_init__(self):
        check_positive(self, "bytes", "error")
        check_range(self, bytes=(1, LARGEST_COUNT), error=(0, 1))
        if self.bytes is not None and self.error is not None:
            raise ValueError(Message("<error> finds the size by itself; leave out <bytes>."))

    @property
    def cause(self) -> str | None:
        """The option that asks for compression, as messages name it; None if none does."""
        given = [name for name in ("bytes", "error") if getattr(self, name) is not None]
        return f"<{given[0]}>" if given else None


def check_untrained(job: SurfaceJob) -> None:
    """Raises ValueError for an option of a compressed shape's ``job`` that concerns training."""
    how, cause = job.training, job.compression.cause
    others = {"start": job.start, "resume": job.output.resume}
    others |= {"certified": job.extraction.certified}
    others |= {name: getattr(job.colours, name, None) for name in ("texture", "colour_params")}
    named = ["preset"] if cause and how.preset != "standard" else []
    named += [*how.trained, *(name for name, value in others.items() if value)]
    if named:
        text = (
            f"{cause or '<preset> instant'} makes a file without training; leave out <{named[0]}>."
        )
        raise ValueError(Message(text))
