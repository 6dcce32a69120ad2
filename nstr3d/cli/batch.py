"""The command ``nstr3d batch SHAPES --out OUT``, which fits the shapes of a data set."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import tyro

from nstr3d.batch.job import BatchJob
from nstr3d.batch.options import ShapeOptions

if TYPE_CHECKING:
    from tqdm import tqdm

    from nstr3d.batch.run import Standing


@dataclass(frozen=True)
class Batch:
    """Fit every shape of a data set that is not up to date. Writes a folder per shape,
    catalog.sqlite and index.html."""

    shapes: tyro.conf.Positional[str]
    """A folder, which is searched recursively; a list (.txt of paths; .csv with a column path and
    optionally id); or a URL of either."""
    out: str
    """Folder or URL (s3://, gs:// ...) of the data set."""
    fit: tyro.conf.OmitArgPrefixes[ShapeOptions] = field(default_factory=ShapeOptions)
    """How each shape is fitted, and what is kept of it."""
    workers: int | None = BatchJob.workers
    """Shapes to fit at a time on this machine; by default one per processor, or as many as its GPUs
    have memory for."""
    engine: Literal["local", "ray"] = "local"
    """local: use this machine. ray: use all of a Ray cluster."""
    address: str = "auto"
    """Address of the Ray cluster; auto is the cluster that this machine is part of."""
    shard: str = "1/1"
    """i/n: fit only part i of n, counted from 1, so that n jobs of any scheduler share the work and
    the output."""
    timeout: float = BatchJob.timeout
    """Seconds after which the fit of a shape is given up."""
    memory: float | None = BatchJob.memory
    """Gigabytes of memory above which the fit of a shape is given up."""
    gpu_memory: float = BatchJob.gpu_memory
    """Gigabytes of GPU memory to allow for each shape."""
    attempts: int = BatchJob.attempts
    """Tries for a shape whose process dies, because the shape may not be the cause."""
    grace: float = BatchJob.grace
    """Seconds for shapes in progress to finish after the run is told to stop."""
    where: str = BatchJob.where
    """Fit again only shapes whose row satisfies this SQL condition, such as "status <> 'done'" or
    "chamfer > 0.001"."""

    def __post_init__(self):
        self.job()

    def job(self) -> BatchJob:
        """The job that these options ask for. Raises ValueError if one is out of range."""
        names = "out", "workers", "timeout", "memory", "gpu_memory", "attempts", "grace", "where"
        return BatchJob(
            source=self.shapes,
            options=self.fit,
            address=self.address if self.engine == "ray" else None,
            shard=_shard(self.shard),
            **{name: getattr(self, name) for name in names},
        )


def fit_batch(options: Batch) -> None:
    """Fits a data set as ``options`` say, showing progress and a summary.

    Raises ValueError if a shape failed, now or in an earlier run.
    """
    from nstr3d.batch.run import run_batch

    with _Bar() as bar:
        standing = run_batch(options.job(), bar.show)
    print(summary(standing, options.out))
    failed = standing.failed + standing.failed_before
    if not failed:
        return
    if failed == standing.total:
        said = f"Not one of {standing.total} shapes could be fitted"
    else:
        said = f"{failed} of {standing.total} shapes could not be fitted"
    name, reason = standing.errors[0] if standing.errors else ("catalog.sqlite", "column error")
    raise ValueError(f"{said}; {name}: {reason}")


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise ValueError(f"--shard is i/n, such as 3/16, not {text}.")
    return int(index), int(count)


def summary(standing: Standing, out: str) -> str:
    """A few lines on what a run has done."""
    from nstr3d.batch.shapes import describe_unread

    lines = [
        f"{standing.total:,} shapes: {standing.skipped - standing.failed_before:,} up to date, "
        f"{standing.fitted:,} fitted, {standing.failed:,} failed"
    ]
    if standing.failed_before:
        lines[0] += f", {standing.failed_before:,} failed in an earlier run"
    if standing.ended:
        lines.append(f"{standing.seconds:.0f} s, {standing.per_hour:,.0f} shapes/hour")
    lines += [f"  {name}: {reason}" for name, reason in standing.errors]
    failed = standing.failed + standing.failed_before
    if standing.refused:
        lines.append(
            f"{standing.refused:,} of the failures are faults of rows of the list or of names: "
            "mend them and run the same command again"
        )
    if failed > standing.refused:
        lines.append("""to try them again: the same command with --where "status <> 'done'\"""")
    if standing.unread:
        lines.append(describe_unread(standing.unread))
    return "\n".join([*lines, f"wrote {out}/catalog.sqlite, index.html"])


class _Bar:
    """A progress bar on stderr with shapes done, failures, shapes per hour and remaining time;
    silent if stderr is not a terminal."""

    def __init__(self):
        self.bar: tqdm | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, standing: Standing) -> None:
        """Draws the bar for the progress ``standing``."""
        if self.bar is None:
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}%|{bar}| {n}/{total} {elapsed}<{remaining}{postfix}"
            start = standing.skipped  # skipped shapes do not count towards the pace
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
