"""``nstr3d batch SHAPES --out OUT``: a data set of shapes from the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Literal

import tyro
from tqdm import tqdm

from nstr3d.batch.options import ShapeOptions
from nstr3d.batch.run import BatchJob, Standing, run_batch


@dataclass(frozen=True)
class Batch:
    """Fit every shape of a data set; go on where it stopped. Writes a folder per shape,
    catalog.sqlite and index.html."""

    shapes: tyro.conf.Positional[str]
    """A folder, searched recursively; a list (.txt: paths; .csv: a column path and, if wanted, id);
    or a URL of either."""
    out: str
    """Folder or URL (s3://, gs:// ...) of the data set."""
    fit: tyro.conf.OmitArgPrefixes[ShapeOptions] = field(default_factory=ShapeOptions)
    """How each shape is fitted, and what is kept of it."""
    workers: int | None = BatchJob.workers
    """Shapes at a time on this machine: one per processor by default, or as many as have room on
    its GPUs."""
    engine: Literal["local", "ray"] = "local"
    """Work on this machine, or on all of a Ray cluster."""
    address: str = "auto"
    """Of the Ray cluster; auto is the one that this machine is part of."""
    shard: str = "1/1"
    """i/n: do only part i of n, counted from 1, so that n jobs of any scheduler share the work and
    the output."""
    timeout: float = BatchJob.timeout
    """Seconds after which a shape is given up."""
    memory: float | None = BatchJob.memory
    """Gigabytes that a shape may take, beyond which it is given up."""
    gpu_memory: float = BatchJob.gpu_memory
    """Gigabytes of a GPU's memory that a shape gets."""
    attempts: int = BatchJob.attempts
    """Times that a shape is tried whose process dies, as that need not be its fault."""
    grace: float = BatchJob.grace
    """Seconds that shapes in progress may take to end when the run is told to stop."""
    where: str = BatchJob.where
    """Fit again only shapes whose row satisfies this SQL condition, such as "status <> 'done'" or
    "chamfer > 0.001"."""


def fit_batch(options: Batch) -> None:
    """Fits a data set as ``options`` say, showing progress and a summary.

    Raises ValueError where not one shape could be fitted: then it is not the shapes.
    """
    same = ("out", "workers", "timeout", "memory", "gpu_memory", "attempts", "grace", "where")
    job = BatchJob(
        source=options.shapes,
        options=options.fit,
        address=options.address if options.engine == "ray" else None,
        shard=_shard(options.shard),
        **{name: getattr(options, name) for name in same},
    )
    with _Bar() as bar:
        standing = run_batch(job, bar.show)
    print(summary(standing, options.out))
    if standing.total and standing.failed == standing.total:
        name, reason = standing.errors[0]
        raise ValueError(f"Not one of {standing.total} shapes could be fitted; {name}: {reason}")


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise ValueError(f"--shard is i/n, such as 3/16, not {text}.")
    return int(index), int(count)


def summary(standing: Standing, out: str) -> str:
    """What a run has done, in a few lines."""
    lines = [
        f"{standing.total:,} shapes: {standing.skipped:,} up to date, {standing.fitted:,} fitted, "
        f"{standing.failed:,} failed"
    ]
    if standing.ended:
        lines.append(f"{standing.seconds:.0f} s, {standing.per_hour:,.0f} shapes/hour")
    lines += [f"  {name}: {reason}" for name, reason in standing.errors]
    if standing.failed:
        lines.append("""again: the same command with --where "status <> 'done'\"""")
    return "\n".join([*lines, f"wrote {out}/catalog.sqlite, index.html"])


class _Bar:
    """Shapes done, failures, shapes per hour and time left on stderr, silent where that is no
    terminal."""

    def __init__(self):
        self.bar: tqdm | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, standing: Standing) -> None:
        """Draws how far the run is."""
        if self.bar is None:
            form = "{desc} {percentage:3.0f}%|{bar}| {n}/{total} {elapsed}<{remaining}{postfix}"
            start = standing.skipped  # a run's pace is that of its own shapes
            self.bar = tqdm(
                total=standing.total,
                initial=start,
                desc="batch",
                disable=not sys.stderr.isatty(),
                bar_format=form,
                smoothing=0,
            )
        self.bar.update(standing.skipped + standing.ended - self.bar.n)
        self.bar.set_postfix_str(
            f"{standing.failed} failed, {standing.per_hour:,.0f} shapes/hour, {standing.running} "
            "running"
        )
