"""The command ``nstr3d export``, which converts a model for browsers and other programs."""

from __future__ import annotations

import math
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nstr3d.cli.looks import Export
from nstr3d.cli.render import check_new, chosen_up, load_shape, model_in, need_fit
from nstr3d.geometry.mesh.decimate import decimate
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.io import load_lines, save_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.io.image import encode_png
from nstr3d.io.meshformats import COLOURED, Extras, encode_mesh_glb, fits_float32
from nstr3d.io.mjcf import encode_mjcf
from nstr3d.jobs.publishing import writing_file
from nstr3d.jobs.ranges import check_surface
from nstr3d.model.exchange import (
    coordinate_step,
    onnx_origin,
    sample_grid,
    save_grid,
    save_onnx,
)
from nstr3d.render.framing import view_of
from nstr3d.sdf import Sdf
from nstr3d.surface.atlas import bake, need_xatlas
from nstr3d.surface.certified import describe
from nstr3d.surface.extract import extract
from nstr3d.surface.vertices import vertex_colours, vertex_normals
from nstr3d.types import Mesh, Up
from nstr3d.view.page.html import page_html
from nstr3d.view.scene import Curves

MESHES = "glb", "ply", "obj", "stl"
SUFFIXES = {"mujoco": ".xml"}  # of formats that are not named by their suffix
SIMULATED = 20_000  # faces of a mesh for a simulator, unless the user says otherwise
TEXTURED = 20_000  # faces of a mesh with a texture, unless the user says otherwise
RESOLUTION = 256  # cells along the longest side, by default
SAMPLES = 50_000  # points of a decimated mesh whose distance is reported


def export_model(options: Export) -> None:
    """Exports a model as ``options`` say. Raises ValueError, OSError or ModuleNotFoundError with
    one sentence for the user."""
    options = replace(options, model=model_in(options.model))
    allowed = {
        "resolution": "glb ply obj stl mujoco npz",
        "faces": "glb ply obj stl mujoco",
        "lod": "glb ply obj stl",
        "texture": "glb",
        "up": "html glb",
        "iso": "html glb ply obj stl mujoco",
        "title": "html",
        "streamlines": "html",
        "certified": "glb ply obj stl mujoco",
    }
    for name, formats in allowed.items():
        if getattr(options, name) not in (None, False) and options.to not in formats.split():
            raise ValueError(f"--{name} is for {formats.replace(' ', ', ')}, not for {options.to}.")
    if options.texture:
        need_xatlas()
    suffix = SUFFIXES.get(options.to, f".{options.to}")
    out = options.out or options.model.with_suffix(suffix)
    if options.to in (*MESHES, "mujoco"):
        check_surface(options.resolution or RESOLUTION)
    levels = _levels(options, out)
    for path in levels:
        check_new(path, (suffix,), options.overwrite)
    iso, resolution = (
        options.iso or 0.0,
        RESOLUTION if options.resolution is None else options.resolution,
    )
    with ExitStack() as outputs:
        for path in levels:
            outputs.enter_context(writing_file(path))
            # another run may have ended by now
            check_new(path, (suffix,), options.overwrite)
        _write(options, out, levels, iso, resolution)


def _write(
    options: Export, out: Path, levels: dict[Path, int | None], iso: float, resolution: int
) -> None:
    """Writes the files and prints their names."""
    path = options.streamlines
    curves = Curves(path.name, *load_lines(path)) if path else None
    fit, sdf = load_shape(options.model, iso, "cpu")
    if sdf.paint is not None and options.to in ("stl", "mujoco"):
        print(f"note: {options.to} holds the shape alone; the other formats hold its colours too.")
    if options.to == "html":
        up = chosen_up(options.up or "auto", sdf)
        page = page_html(
            need_fit(fit, "--to html"), _title(options), iso, curves, up, view_of(sdf, up)
        )
        with atomic_path(out) as temporary:
            temporary.write_text(page, encoding="utf-8")
    elif options.to == "onnx":
        save_onnx(out, need_fit(fit, "--to onnx"))
    elif options.to == "npz":
        _save_npz(out, sdf, resolution)
    elif options.to == "mujoco":
        mesh = _surface(sdf, resolution, options.certified)
        mesh, note = _decimated(mesh, options.faces or SIMULATED, sdf)
        with atomic_path(out) as temporary:
            temporary.write_bytes(encode_mjcf(mesh, _title(options)))
        print(f"wrote {out} ({len(mesh.faces):,} faces, {out.stat().st_size:,} bytes){note}")
        return
    else:
        if options.texture and sdf.paint is None:
            raise ValueError(f"{options.model} has no colours, so there is no texture to bake.")
        mesh = _surface(sdf, resolution, options.certified)
        _save_meshes(levels, mesh, sdf, chosen_up(options.up or "auto", sdf), options.texture)
        return
    print(f"wrote {out} ({out.stat().st_size:,} bytes)")
    if options.to == "onnx" and fit is not None and (origin := onnx_origin(fit)) is not None:
        print(
            f"note: float32 coordinates have steps of {coordinate_step(fit.bounds):.3g} here. For "
            f"full precision pass points relative to the origin {list(origin)}, and that origin as "
            "the model's float64 input origin; world points alone are rounded."
        )


def _title(options: Export) -> str:
    """The name of the shape on the page, by default the model's file name. Jobs name every model
    file "model" and the folder after the shape, so for such files it is the folder's name."""
    name = options.model.stem
    return options.title or (options.model.absolute().parent.name if name == "model" else name)


def _levels(options: Export, out: Path) -> dict[Path, int | None]:
    """The files to write, each with its largest number of faces. Raises ValueError for numbers that
    cannot be, or two wishes at once."""
    if options.lod is not None and options.faces is not None:
        raise ValueError("--faces asks for one mesh and --lod for several; name one of them.")
    levels: dict[Path, int | None] = {out: options.faces}
    if options.lod is not None:
        levels = {out.with_stem(f"{out.stem}-{count}"): count for count in options.lod}
        if len(levels) < max(1, len(options.lod)):
            raise ValueError("--lod takes one number of faces or more, each once.")
    return levels


def _surface(sdf: Sdf, resolution: int, certified: bool) -> Mesh:
    """The surface of ``sdf``. Prints what is proven of it."""
    found = extract(sdf, resolution, certified=certified)
    if found.certificate is not None:
        print(f"proven of the extracted mesh: {describe(found.certificate)}")
    return found.mesh


def _save_meshes(
    levels: dict[Path, int | None], mesh: Mesh, sdf: Sdf, up: Up, texture: int | None
) -> None:
    """Writes the surface ``mesh`` of ``sdf`` to each file with its largest number of faces, and
    with a ``texture`` of so many pixels squared, and says how far decimated ones are from the
    surface."""
    for path, count in sorted(levels.items(), key=lambda item: -(item[1] or math.inf)):
        mesh, note = _decimated(mesh, count or (TEXTURED if texture else math.inf), sdf)
        if texture:
            _save_textured(path, mesh, sdf, up, texture)
        else:
            colours = vertex_colours(sdf, mesh) if path.suffix.lower() in COLOURED else None
            save_mesh(path, mesh, colours, vertex_normals(sdf, mesh), up)
        size = path.stat().st_size
        print(f"wrote {path} ({len(mesh.faces):,} faces, {size:,} bytes){note}")


def _decimated(mesh: Mesh, count: float, sdf: Sdf) -> tuple[Mesh, str]:
    """``mesh`` with at most ``count`` faces, and what a user should know of its error."""
    if count >= len(mesh.faces):
        return mesh, ""
    mesh = decimate(mesh, int(count))
    points, _ = sample_surface(mesh, SAMPLES, np.random.default_rng(0))
    error = np.abs(sdf(points)) / sdf.bounds.diagonal
    return mesh, (
        f"; its distance to the field is {error.mean():.1e} of the diagonal on average, "
        f"{error.max():.1e} at most"
    )


def _save_textured(path: Path, mesh: Mesh, sdf: Sdf, up: Up, size: int) -> None:
    atlas = bake(sdf, mesh, size)
    normals, picture = vertex_normals(sdf, atlas.mesh), encode_png(atlas.picture)
    single = fits_float32(atlas.mesh)
    data = encode_mesh_glb(atlas.mesh, single, Extras(normals, up=up, texture=(atlas.uv, picture)))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _save_npz(out: Path, sdf: Sdf, resolution: int) -> None:
    with tqdm(total=1, desc="distances", unit="slab", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        save_grid(out, sample_grid(sdf, resolution, show))
