"""Fits in one call for Python programs: `fit_mesh`, `fit_points`, `fit_image` and `fit_sound`.

Each prepares its input and fits as the job of the command line does, and returns the `Fit` instead
of writing files. Messages for the user become Python warnings.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nstr3d.fields.vicinity import Vicinity
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.pose import guess_up
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.io import Sound, read_cloud, read_mesh
from nstr3d.io.interop import as_cloud, as_mesh
from nstr3d.io.paintfile import paint_of, read_paint
from nstr3d.jobs.cloud import first_surface, points_warnings
from nstr3d.jobs.colour import Shades, away_warnings, fit_colours, unknown_warnings
from nstr3d.jobs.colouroptions import Colours, MeshColours
from nstr3d.jobs.compressing import COLOURLESS, compress, surface_error, surface_target
from nstr3d.jobs.compressoptions import Compression
from nstr3d.jobs.fitting import Placed, draw_samples, new_field, objective_of
from nstr3d.jobs.meshwarnings import check_mesh
from nstr3d.jobs.messages import sentence
from nstr3d.jobs.options import Parts, SurfaceJob, Training
from nstr3d.jobs.prepared import prepare_mesh, unite_overlap
from nstr3d.jobs.signal import chosen, fit_values
from nstr3d.jobs.signaloptions import SignalJob
from nstr3d.jobs.signalsource import load_source
from nstr3d.jobs.stages import Listener
from nstr3d.training.choice import choose
from nstr3d.training.fit import Fit, FitConfig, Progress, fit
from nstr3d.training.sampling import Raster
from nstr3d.types import Mesh

T = TypeVar("T")


def fit_mesh(source: Any, *, progress: bool | None = None, **options: Any) -> Fit:
    """Fits a signed distance field to the solid that a mesh bounds.

    ``source`` is a path, a `Mesh`, a pair of vertices ``(v, 3)`` and faces ``(f, 3)``, or a mesh of
    trimesh or Open3D. The options are those of `Training`, `Parts` and `MeshColours`, such as
    ``preset="fast"``, ``steps``, ``seed``, ``open=True`` or ``colour="off"``, and those of
    `Compression`: ``bytes=16000`` or ``error=2e-4``. The result equals the model that ``nstr3d
    fit`` writes, with the colours of the source if it has any. A compressed shape, which
    ``preset="instant"`` makes too, has no colours, and `save` can write it to a .nstq.
    ``progress`` shows a bar; by default it does in a terminal or a notebook. Ctrl-C ends training
    early with the best field so far.

    Raises TypeError for an unknown option or another source, ValueError for options out of range
    and for a mesh that bounds no solid, and the errors of `read_mesh` for a file.
    """
    training, parts, colours, how = _split(options, Training, Parts, MeshColours, Compression)
    compressed = _compressed(training, colours, how)
    mesh, notes = read_mesh(source) if _is_path(source) else (as_mesh(source), [])
    paint = None
    if colours.colour != "off" and _is_path(source):
        paint, told = read_paint(source, colours.texture)
        notes = [*notes, *told]
    elif colours.colour != "off":
        paint = paint_of(source)
    prepared = prepare_mesh(mesh, parts.drop_far, parts.sheets(1 / training.resolution))
    prepared = unite_overlap(prepared, MeshDistance(prepared.mesh))
    _warn([*notes, *prepared.warnings])
    suffix = Path(source).suffix if _is_path(source) else ""
    if compressed:
        _warn([] if paint is None else [COLOURLESS])
        return _compress_solid(prepared.mesh, training, suffix, how)
    shades = None if paint is None else Shades.of_paint(paint, training.seed)
    thickness = prepared.thickness or 0.0
    return _fit_solid(prepared.mesh, training, progress, suffix, shades, colours, thickness)


def fit_points(
    source: Any,
    *,
    normals: str = "given",
    smooth: float | None = None,
    keep_outliers: bool = False,
    keep_scans: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> Fit:
    """Fits a signed distance field to the surface that a point cloud samples.

    ``source`` is a path, a `PointCloud`, points ``(n, 3)`` or points with normals ``(n, 6)``, a
    pair of these, or a cloud of trimesh or Open3D. ``normals`` is "given" or "estimate", which
    ignores normals of the source; ``smooth`` is the standard deviation of the noise in the points'
    units, by default estimated. ``keep_outliers`` keeps points that lie far from all others, and
    ``keep_scans`` leaves scans that lie beside each other where they are. The other options are
    those of `Training`, `Colours` and `Compression`. The result equals the model that ``nstr3d
    points`` writes. For ``progress``, compressed shapes and errors see `fit_mesh`.
    """
    training, colours, how = _split(options, Training, Colours, Compression)
    compressed = _compressed(training, colours, how)
    if normals not in ("given", "estimate"):
        raise ValueError(f"normals is 'given' or 'estimate', not {normals!r}.")
    if _is_path(source):
        cloud, reading = read_cloud(source)
        _warn(reading.warnings)
    else:
        cloud = as_cloud(source)
    first = first_surface(cloud, normals == "estimate", smooth, keep_outliers, keep_scans)
    check_mesh(first.mesh)
    _warn(points_warnings(first))
    mesh = close_holes(repair(first.mesh)[0])[0]
    if compressed:
        _warn([COLOURLESS] if cloud.colours is not None and colours.colour != "off" else [])
        return _compress_solid(mesh, training, "", how)
    shades = None if colours.colour == "off" else Shades.of_cloud(cloud, training.seed)
    _warn([] if shades is None else unknown_warnings(cloud))
    return _fit_solid(mesh, training, progress, "", shades, colours)


def fit_image(source: Any, **options: Any) -> Fit:
    """Fits a field to a picture: ``fit.field`` maps points of its lattice to colours.

    ``source`` is a path or samples ``(h, w)`` or ``(h, w, c)``, floats in [0, 1] or uint8. The
    options are those of `SignalJob` that choose the field: ``params``, ``bpp`` or ``bytes``,
    ``field``, ``transport``, ``noise``, ``steps``, ``seconds``, ``device`` and ``seed``. Raises
    TypeError for an unknown option and ValueError for options or samples out of range.
    """
    if _is_path(source):
        return _fit_signal(load_source(Path(source)).values, "image.png", options)
    values = np.asarray(source)
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(f"a picture has samples (h, w) or (h, w, c), not {values.shape}.")
    values = values.reshape(*values.shape[:2], -1)
    scaled = values / 255 if values.dtype == np.uint8 else values
    if not (np.isfinite(scaled).all() and scaled.min() >= 0 and scaled.max() <= 1):
        raise ValueError("the samples of a picture are floats in [0, 1] or uint8; scale them.")
    return _fit_signal(scaled.astype(np.float32), "image.png", options)


def fit_sound(source: Any, **options: Any) -> Fit:
    """Fits a field to a sound: ``fit.field`` maps places in time to samples.

    ``source`` is a path, a `Sound`, or samples ``(n,)`` or ``(n, channels)`` with full scale
    [-1, 1]. The options are those of `fit_image`.
    """
    if _is_path(source):
        return _fit_signal(load_source(Path(source)).values, "sound.wav", options)
    values = np.asarray(source.values if isinstance(source, Sound) else source)
    if values.ndim not in (1, 2) or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"a sound has finite samples (n,) or (n, channels), not {values.shape}.")
    return _fit_signal(values.reshape(len(values), -1).astype(np.float32), "sound.wav", options)


def _fit_solid(
    mesh: Mesh,
    training: Training,
    progress: bool | None,
    suffix: str,
    shades: Shades | None,
    colours: Colours,
    thickness: float = 0.0,
) -> Fit:
    """The fit to the closed ``mesh`` in world units, from a file that ends in ``suffix``, with the
    colours of the ``shades`` if there are any. ``thickness`` is that of sheets."""
    unit, frame = normalise(mesh)
    placed, distance = Placed(mesh, unit, frame, Vicinity(unit)), MeshDistance(unit)
    config, choice = training.config, choose(training.device, training.compute_path)
    _warn(choice.warnings)
    template = training.architecture(placed.vicinity)
    pool = draw_samples(unit, distance, config)
    with choice.path.using(), _bar(config, progress) as step:
        field = new_field(training, template, placed.vicinity, choice.path.device)
        result = fit(field, pool, objective_of(training), config, frame, mesh.bounds, step)
    result = replace(result, provenance={"up": guess_up(mesh, suffix)})
    if shades is None:
        return result
    with choice.path.using():
        device = choice.path.device
        coloured = fit_colours(shades, placed, distance, colours, training, device, thickness)
    _warn(away_warnings(coloured))
    return replace(result, colour_field=coloured.field)


def _compressed(training: Training, colours: Colours, how: Compression) -> bool:
    """Whether the shape is compressed. Raises ValueError for options of training then."""
    return _made(
        SurfaceJob,
        {"path": Path(), "training": training, "colours": colours, "compression": how},
    ).compressed


def _compress_solid(mesh: Mesh, training: Training, suffix: str, how: Compression) -> Fit:
    """The compressed closed ``mesh`` in world units, from a file that ends in ``suffix``."""
    unit, frame = normalise(mesh)
    distance = MeshDistance(unit)
    target = surface_target(unit, distance, frame, guess_up(mesh, suffix), training.seed)
    try:
        return compress(how, target, lambda fit: surface_error(fit, unit, distance, training.seed))
    except ValueError as error:
        raise ValueError(sentence(error)) from error


def _fit_signal(values: np.ndarray, name: str, options: dict[str, Any]) -> Fit:
    """The fit to ``values (*shape, c)``; the suffix of ``name`` says of what kind they are."""
    refused = options.keys() & {"path", "out", "overwrite", "mask", "scale"}
    if refused:
        raise TypeError(f"a fit has no option {sorted(refused)[0]!r}; the command line has it.")
    job = _made(SignalJob, {"path": Path(name), **options})
    choice = chosen(job)
    _warn(choice.warnings)
    with choice.path.using():
        return fit_values(job, Raster(values), choice.path.device, Listener())[0]


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))


def _split(options: dict[str, Any], *kinds: type) -> list[Any]:
    """One object of each of the dataclasses ``kinds``, from the options that are its fields."""
    known = [{each.name for each in fields(kind)} for kind in kinds]
    unknown = sorted(options.keys() - set().union(*known))
    if unknown:
        raise TypeError(
            f"there is no option {unknown[0]!r}; the options are "
            f"{', '.join(sorted(set().union(*known)))}."
        )
    return [
        _made(kind, {name: value for name, value in options.items() if name in names})
        for kind, names in zip(kinds, known)
    ]


def _made(kind: Callable[..., T], options: dict[str, Any]) -> T:
    """An object of the class ``kind``, whose messages become plain sentences."""
    try:
        return kind(**options)
    except ValueError as error:
        raise ValueError(sentence(error)) from error


def _warn(messages: Iterable[str]) -> None:
    for message in messages:
        warnings.warn(message, stacklevel=3)


@contextmanager
def _bar(config: FitConfig, wanted: bool | None) -> Iterator[Callable[[Progress], None]]:
    """Shows training as a bar of percents, and gives the function that each step calls."""
    from tqdm.auto import tqdm

    shown = wanted if wanted is not None else sys.stderr.isatty() or "ipykernel" in sys.modules
    with tqdm(total=100, unit="%", disable=not shown, desc="fit", leave=False) as bar:

        def step(progress: Progress) -> None:
            bar.update(int(100 * progress.done) - bar.n)

        yield step
