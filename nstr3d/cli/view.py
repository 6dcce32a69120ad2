"""The command ``nstr3d view``, which shows models, meshes and lines in a window or on a page in the
browser."""

from __future__ import annotations

from collections.abc import Sequence

from nstr3d.cli.looks import View
from nstr3d.cli.render import MODELS, load_shape, model_in, paint_in
from nstr3d.geometry.mesh.pose import guess_up
from nstr3d.io import load_lines, load_mesh
from nstr3d.io.lines import holds_lines
from nstr3d.render.framing import best_view
from nstr3d.surface.extract import extract_mesh
from nstr3d.system import with_flags
from nstr3d.types import Up
from nstr3d.view.browser import Page
from nstr3d.view.scene import Curves, Shape, lifted
from nstr3d.view.window import KEYS, Window, has_display


def view(options: View) -> None:
    """Shows the files until the window is closed, or the page interrupted. Raises ValueError or
    OSError with one sentence for the user."""
    if not options.files:
        raise ValueError("There is nothing to look at; name a model, a mesh or lines.")
    if not options.browser and not has_display():
        raise OSError(
            "There is no display to open a window on; look in a browser with --browser, or take a "
            "picture with "
            f"nstr3d render {options.files[0]} --out picture.png."
        )
    shapes, curves = load_scene(options)
    reference = load_mesh(options.input) if options.input else None
    up = _up(options, shapes)
    view = best_view(shapes[0].mesh, up) if shapes else (30.0, 15.0)
    if not options.browser:
        with Window(shapes, curves, reference, options.size, _say, up, view) as window:
            print("keys: " + "; ".join(f"{key} {meaning}" for key, meaning in KEYS.items()))
            window.run()
        return
    with Page(shapes, curves, reference, options.host, options.port, up, view) as page:
        serve(page)


def _up(options: View, shapes: Sequence[Shape]) -> Up:
    """The axis that points up: the option, or what the first shape says."""
    if options.up != "auto":
        return options.up
    if not shapes:
        return "y"
    if shapes[0].fit is not None:
        return shapes[0].fit.up
    first = next(path for path in map(model_in, options.files) if not holds_lines(path))
    return guess_up(shapes[0].mesh, first.suffix)


def _say(text: str) -> None:
    print(with_flags(text))


def serve(page: Page) -> None:
    """Serves ``page`` until Ctrl-C."""
    print(f"look at {page.url}; Ctrl-C ends", flush=True)
    try:
        page.run()
    except KeyboardInterrupt:
        print("ended")


def load_scene(options: View) -> tuple[list[Shape], list[Curves]]:
    """The shapes and the lines in the files; the lines are lifted off the surface of the first
    shape. Raises ValueError or OSError, which names the file."""
    shapes, curves = [], []
    for path in map(model_in, options.files):
        if holds_lines(path):
            curves.append(Curves(path.stem, *load_lines(path)))
        elif path.suffix.lower() in MODELS:
            fit, sdf = load_shape(path, options.iso, "cpu")
            mesh = extract_mesh(sdf, options.resolution)
            shapes.append(Shape(path.parent.name if path.stem == "model" else path.stem, mesh, fit))
        else:
            shapes.append(Shape(path.stem, load_mesh(path), paint=paint_in(path)))
    flat = next((one for one in curves if one.lines.points.shape[1] != 3), None)
    if flat is not None:
        raise ValueError(
            f"The lines {flat.name} have {flat.lines.points.shape[1]} dimensions; the viewer "
            "shows lines of shapes, which have 3."
        )
    return shapes, [lifted(one, shapes[0].sdf()) for one in curves] if shapes else curves
