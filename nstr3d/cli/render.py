"""The command ``nstr3d render``: a picture, a turntable, or depth and normals of a model by sphere
tracing; a picture or a turntable of a mesh by OpenGL."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tqdm import tqdm

from nstr3d.cli.looks import Render
from nstr3d.geometry.mesh.clean import merge_vertices
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.paint import NearestPaint
from nstr3d.geometry.mesh.pose import guess_up
from nstr3d.io import load_mesh, save_image
from nstr3d.io.meshformats import CLAY
from nstr3d.io.paintfile import read_paint
from nstr3d.jobs.publishing import writing_file
from nstr3d.model.checkpoint import load
from nstr3d.model.header import read_tree
from nstr3d.model.tree import load_sdf, up_of
from nstr3d.render.animation import ANIMATIONS, BUFFERS, save_animation, save_buffers
from nstr3d.render.camera import Camera
from nstr3d.render.colours import GAMMA
from nstr3d.render.framing import best_view, contact_sheet, view_of
from nstr3d.render.frequency import frequency_colours
from nstr3d.render.ground import Ground
from nstr3d.render.opengl import raster_turntable, rasterise
from nstr3d.render.shading import Curvature, Depth, Flat, Normals, Shading, Studio, Vector
from nstr3d.render.traced import Backdrop, RenderConfig, measure, turntable
from nstr3d.sdf import Sdf
from nstr3d.surface.emptyspace import EmptySpace
from nstr3d.system import Message, check_memory
from nstr3d.training.choice import by_inference, choose
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Mesh, Up

MODELS = ".safetensors", ".nstq"
CUSTOM = 30.0, 15.0  # azimuth and elevation of a camera of which only one is named
GROUNDED = (
    "studio",
    "clay",
    "curvature",
    "frequency",
)  # shadings that leave a shadow on the ground


def render_model(options: Render) -> None:
    """Renders as ``options`` say. Raises ValueError or OSError with one sentence for the user."""
    options = replace(options, model=model_in(options.model))
    suffix, suffixes = options.out.suffix.lower(), (".png", *ANIMATIONS, *BUFFERS)
    check_new(options.out, suffixes, options.overwrite)
    kept = options.frames if suffix == ".gif" else 1  # pictures in memory at a time
    size = options.size[0] * options.size[1] * (48 + 6 * kept)
    subject = Message("<size> {} x {} and <frames> {}", *options.size, kept)
    check_memory(size, subject, "choose smaller ones.")
    backdrop = _backdrop(options.background)
    if backdrop is None and suffix != ".png":
        raise ValueError(f"--background none needs a PNG, which can be transparent, not {suffix}.")
    if options.sheet and (suffix != ".png" or backdrop is None or _is_mesh(options.model)):
        raise ValueError("--sheet draws a model on a background, to a .png file.")
    with writing_file(options.out):
        check_new(options.out, suffixes, options.overwrite)  # another run may have ended by now
        draw = _render_mesh if _is_mesh(options.model) else _render_field
        draw(options, backdrop)
    print(f"wrote {options.out}")


def model_in(path: Path) -> Path:
    """The model of a folder of results; ``path`` itself if it is none."""
    found = [path / f"model{suffix}" for suffix in MODELS]
    return next((each for each in found if each.is_file()), path)


def _render_field(options: Render, backdrop: Backdrop | None) -> None:
    choice = choose(options.device, options.compute_path, by_inference)
    for warning in choice.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    with choice.path.using():
        _trace_field(options, backdrop, choice.path.device)


def _trace_field(options: Render, backdrop: Backdrop | None, device: torch.device) -> None:
    suffix = options.out.suffix.lower()
    fit, sdf = load_shape(options.model, options.iso, device)
    ground = Ground() if options.shading in GROUNDED else None
    config = RenderConfig(_shading(options.shading, fit), backdrop, options.samples, ground=ground)
    up = chosen_up(options.up, sdf)
    if options.sheet:
        width, height = options.size
        half = max(1, width // 2), max(1, height // 2)
        save_image(options.out, contact_sheet(sdf, config, half, up, device))
        return
    camera = _camera(options, sdf.bounds, up, lambda: view_of(sdf, up))
    if suffix in BUFFERS:
        save_buffers(options.out, measure(sdf, camera, device), camera)
    elif suffix == ".png":
        save_image(options.out, next(turntable(sdf, [camera], config, device)))
    else:
        _animate(options, turntable(sdf, camera.orbit(options.frames), config, device))


def _render_mesh(options: Render, backdrop: Backdrop | None) -> None:
    suffix = options.out.suffix.lower()
    if suffix in BUFFERS or options.shading != "studio" or options.iso:
        raise ValueError(
            "A mesh is drawn in studio light; --shading, --iso and .npz or .exr files are for "
            "models."
        )
    mesh = load_mesh(options.model)
    up = guess_up(mesh, options.model.suffix) if options.up == "auto" else options.up
    camera = _camera(options, mesh.bounds, up, lambda: best_view(mesh, up))
    painted = _painted(options.model, mesh)
    if painted is not None:
        config = RenderConfig(Studio(), backdrop, options.samples, ground=Ground())
        if suffix == ".png":
            save_image(options.out, next(turntable(painted, [camera], config)))
        else:
            _animate(options, turntable(painted, camera.orbit(options.frames), config))
        return
    if suffix == ".png":
        save_image(options.out, rasterise(mesh, camera, backdrop=backdrop).picture)
    else:
        drawn = raster_turntable(mesh, camera.orbit(options.frames), backdrop=backdrop)
        _animate(options, (raster.picture for raster in drawn))


def paint_in(path: Path) -> NearestPaint | None:
    """The colours of a mesh file, if it has any. What could not be read of them is told."""
    paint, notes = read_paint(path)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    return None if paint is None else NearestPaint(paint)


def _painted(path: Path, mesh: Mesh) -> Sdf | None:
    """The ``mesh`` of a file with its colours, to be traced; None if it has none. What cannot be
    drawn is told."""
    paint = paint_in(path)
    if paint is None:
        return None
    distance = MeshDistance(merge_vertices(mesh)[0])
    if not distance.closed:
        print(
            f"warning: {path} is drawn without its colours, as its surface is open; nstr3d fit "
            "closes it.",
            file=sys.stderr,
        )
        return None
    return replace(distance.sdf(), paint=paint.colour)


def _is_mesh(path: Path) -> bool:
    return path.suffix.lower() not in MODELS


def chosen_up(option: str, sdf: Sdf) -> Up:
    """The axis ``option``, or for "auto" the one that the first fit of ``sdf`` noted."""
    return up_of(sdf) if option == "auto" else cast(Up, option)


def _animate(options: Render, pictures: Iterable[np.ndarray]) -> None:
    with tqdm(
        pictures, total=options.frames, desc="render", disable=not sys.stderr.isatty()
    ) as bar:
        save_animation(options.out, bar, options.rate)


def check_new(path: Path, suffixes: Sequence[str], overwrite: bool) -> None:
    """Raises ValueError or OSError, before any work, if the file ``path`` cannot be written.

    Its suffix must be one of ``suffixes`` and its folder must exist. It must not exist itself
    unless ``overwrite`` is true.
    """
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: the name must end in one of {', '.join(suffixes)}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file inside it.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is already there; pass --overwrite or another name.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"The folder {path.parent} does not exist; create it, or choose another."
        )


def need_fit(fit: Fit | None, what: str) -> Fit:
    """The ``fit``. Raises ValueError with a sentence about ``what`` for a combination, which has
    none."""
    if fit is None:
        raise ValueError(f"{what} needs the model of a fit, not a combination of models.")
    return fit


def load_shape(path: Path, iso: float, device) -> tuple[Fit | None, Sdf]:
    """The model of a shape, or None for a combination of models, and the signed distance whose zero
    is the model's level set ``iso`` (in world units).

    Raises ValueError if ``iso`` is not finite, the model is of something else than a shape, or the
    level set is empty.
    """
    if not math.isfinite(iso):
        raise ValueError(Message("<iso> must be finite, not {}.", iso))
    combination = path.suffix.lower() == MODELS[0] and read_tree(path) is not None
    fit = None if combination else load(path, device)
    if fit is not None and (fit.field.in_dim, fit.field.out_dim) != (3, 1):
        inputs, outputs = fit.field.in_dim, fit.field.out_dim
        kind = {1: "of a sound", 2: "of an image"}.get(
            inputs, f"with {inputs} coordinates and {outputs} values"
        )
        raise ValueError(
            f"{path} is a model {kind}; this needs the model of a shape, with 3 coordinates and 1 "
            "distance."
        )
    sdf = load_sdf(path, device) if fit is None else fit.sdf()
    sdf = sdf.offset(iso) if iso else sdf
    empty = EmptySpace.of(sdf, device)
    if not empty.surface or bool((empty.clearance < 0).all()):
        where = (
            f"has no surface where the distance is {iso:g}"
            if iso
            else "has no surface" + ("; fit it for longer" if fit else "")
        )
        raise ValueError(f"{path} {where}.")
    return fit, sdf


def _shading(name: str, fit: Fit | None) -> Shading:
    if name == "frequency":
        return Studio(albedo=frequency_colours(need_fit(fit, "--shading frequency")))
    lit = {"studio": Studio(), "clay": Studio(albedo=CLAY), "curvature": Curvature()}
    return {**lit, "flat": Flat(), "normals": Normals(), "depth": Depth()}[name]


def _backdrop(name: str) -> Backdrop | None:
    from PIL import ImageColor

    if name in ("none", "studio"):
        return None if name == "none" else Backdrop()
    try:
        red, green, blue = ((value / 255) ** GAMMA for value in ImageColor.getrgb(name)[:3])
    except ValueError as error:
        raise ValueError(
            f"--background is studio, none or a colour like white or #203040, not {name}."
        ) from error
    colour: Vector = (red, green, blue)
    return Backdrop(colour, colour)


def _camera(
    options: Render, bounds: Box, up: Up, best: Callable[[], tuple[float, float]]
) -> Camera:
    """The camera that ``options`` ask for, with the axis ``up`` upward; ``best`` gives azimuth and
    elevation where the options name neither."""
    width, height = options.size
    given = options.azimuth, options.elevation
    if given == (None, None) and options.eye is None:
        azimuth, elevation = best()
    else:
        azimuth, elevation = (CUSTOM[at] if one is None else one for at, one in enumerate(given))
    around = Camera.around(
        bounds,
        azimuth,
        elevation,
        options.fov,
        width,
        height,
        orthographic=options.orthographic,
        up=up,
    )
    if options.eye is None and options.target is None:
        return around
    return replace(around, eye=options.eye or around.eye, target=options.target or around.target)
