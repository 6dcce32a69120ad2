"""The command ``nstr3d export``, which converts a model for browsers and other programs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from nstr3d.cli.render import check_new, load_shape
from nstr3d.io import load_lines, save_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.options import RESOLUTIONS, check_finite, check_range, check_surface
from nstr3d.jobs.publishing import writing_file
from nstr3d.model.exchange import (
    FINEST,
    coordinate_step,
    onnx_origin,
    sample_grid,
    save_grid,
    save_onnx,
)
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit
from nstr3d.view.page.html import page_html
from nstr3d.view.scene import Curves

MESHES = "glb", "ply", "obj", "stl"
RESOLUTION = 256  # cells along the longest side, by default


@dataclass(frozen=True)
class Export:
    """Write a model as a web page that traces it, as a mesh, as distances on a grid, or as ONNX."""

    model: tyro.conf.Positional[Path]
    """A model.safetensors of a shape."""
    to: Literal["html", "glb", "ply", "obj", "stl", "npz", "onnx"]
    """html: a page to open in a browser. glb, ply, obj, stl: a mesh. npz: distances on a grid.
    onnx: the distance as a network."""
    out: Path | None = None
    """The file to write; by default beside the model, with the extension of the format."""
    resolution: int | None = None
    """For meshes and npz: grid cells along the longest side; 256 by default."""
    iso: float | None = None
    """For meshes and html: the surface is where the distance has this value, in the model's units;
    0 by default."""
    title: str | None = None
    """For html: the name of the shape on the page."""
    streamlines: Path | None = None
    """For html: a .ply or .json file of lines to show on the surface, such as the flow app
    writes."""
    overwrite: bool = False
    """Replace a file that is already there."""

    def __post_init__(self):
        check_range(self, resolution=(2, FINEST if self.to == "npz" else RESOLUTIONS[1]))
        check_finite(self, "iso")


def export_model(options: Export) -> None:
    """Exports a model as ``options`` say. Raises ValueError, OSError or ModuleNotFoundError with
    one sentence for the user."""
    allowed = {
        "resolution": "glb ply obj stl npz",
        "iso": "html glb ply obj stl",
        "title": "html",
        "streamlines": "html",
    }
    for name, formats in allowed.items():
        if getattr(options, name) is not None and options.to not in formats.split():
            raise ValueError(f"--{name} is for {formats.replace(' ', ', ')}, not for {options.to}.")
    out = options.out or options.model.with_suffix(f".{options.to}")
    if options.to in MESHES:
        check_surface(options.resolution or RESOLUTION)
    check_new(out, (f".{options.to}",), options.overwrite)
    iso, resolution = (
        options.iso or 0.0,
        RESOLUTION if options.resolution is None else options.resolution,
    )
    with writing_file(out):
        check_new(out, (f".{options.to}",), options.overwrite)  # another run may have ended by now
        fit = _write(options, out, iso, resolution)
    print(f"wrote {out} ({out.stat().st_size:,} bytes)")
    if options.to == "onnx" and (origin := onnx_origin(fit)) is not None:
        print(
            f"note: float32 coordinates have steps of {coordinate_step(fit.bounds):.3g} here. For "
            f"full precision pass points relative to the origin {list(origin)}, and that origin as "
            "the model's float64 input origin; world points alone are rounded."
        )


def _write(options: Export, out: Path, iso: float, resolution: int) -> Fit:
    """Writes the file and returns the model."""
    path = options.streamlines
    curves = Curves(path.name, *load_lines(path)) if path else None
    fit, sdf = load_shape(options.model, iso, "cpu")
    if options.to == "html":
        page = page_html(fit, _title(options), iso, curves)
        with atomic_path(out) as temporary:
            temporary.write_text(page, encoding="utf-8")
    elif options.to == "onnx":
        save_onnx(out, fit)
    elif options.to == "npz":
        _save_npz(out, sdf, resolution)
    else:
        save_mesh(out, extract_mesh(sdf, resolution))
    return fit


def _title(options: Export) -> str:
    """The name of the shape on the page, by default the model's file name. Jobs name every model
    file "model" and the folder after the shape, so for such files it is the folder's name."""
    name = options.model.stem
    return options.title or (options.model.absolute().parent.name if name == "model" else name)


def _save_npz(out: Path, sdf: Sdf, resolution: int) -> None:
    with tqdm(total=1, desc="distances", unit="slab", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        save_grid(out, sample_grid(sdf, resolution, show))
