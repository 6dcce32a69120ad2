"""A browser page by viser. It shows surfaces that are extracted again when sliders move, a plane of
contour lines, and the sphere-traced view."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.io.interop import to_trimesh
from nstr3d.io.meshformats import Extras, encode_mesh_glb
from nstr3d.render.camera import Camera
from nstr3d.render.contours import cap, contour_colours, contours, cut
from nstr3d.render.traced import GREY
from nstr3d.sdf import Sdf
from nstr3d.surface.vertices import vertex_normals
from nstr3d.system import Message
from nstr3d.training.fit import Fit, Progress
from nstr3d.types import Box, Mesh, Up
from nstr3d.view.controls import Controls, Settings
from nstr3d.view.legend import Scale, picture
from nstr3d.view.painting import paint_finely
from nstr3d.view.scene import (
    Curves,
    Shape,
    box_of,
    error_colours,
    joint_box,
    levels_of,
    literal,
    muted,
    surface,
)
from nstr3d.view.tracing import BEFORE, camera_of, shown, traced, view_of

CLAY, INK, INSIDE = (176, 168, 156), (60, 92, 140), (158, 184, 212)
SETTLED = 0.25  # seconds without camera motion before the view is sphere traced
LEGEND = 120  # height of the scale of the errors in pixels
BACKDROP = 160, 100  # pixels of the grey behind the shapes
LIVE_RESOLUTION = 72  # extraction cells of a field in training, along the longest side


class Page:
    """A page that is served at ``url``.

    `refresh` applies the changes of visitors, in the thread that calls `refresh` or `run`. The
    scene is centred on the middle of all shapes, and scaled so that their bounds have diagonal 2.
    ``reference`` is the input mesh. The axis ``up`` points up, and ``view`` is the azimuth and the
    elevation of the first view in degrees. Raises OSError for a port that is taken,
    ModuleNotFoundError if viser cannot be imported, and ValueError for a port number out of range.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        curves: Sequence[Curves] = (),
        reference: Mesh | None = None,
        host: str = "127.0.0.1",
        port: int = 8080,
        up: Up = "y",
        view: tuple[float, float] = (30.0, 15.0),
    ) -> None:
        viser = import_viser()
        self.shapes, self.curves, self.reference = list(shapes), list(curves), reference
        self.distance = MeshDistance(reference).sdf() if reference is not None else None
        self.bounds = joint_box(
            [shape.mesh.bounds for shape in shapes] + [box_of(c.lines.points) for c in curves]
        )
        self.scale = 2 / self.bounds.diagonal
        self.sdfs: list[Sdf] = [shape.sdf() for shape in shapes]
        self.meshes: list[Mesh | None] = [shape.mesh for shape in shapes]
        self.server = viser.ViserServer(host, free_port(host, port), label="nstr3d", verbose=False)
        self.url = f"http://{host}:{self.server.get_port()}"
        self.changed = threading.Event()
        self.shown: Settings | None = None
        self.views: dict[
            int, tuple[Any, float]
        ] = {}  # for each visitor, the view that was traced (or None) and the time of last motion
        self._stage(up, view)
        models = [shape.fit for shape in self.shapes if shape.fit is not None]
        self.controls = Controls(
            self.server.gui,
            self.bounds,
            levels_of(models[0]) if models else (),
            self.changed.set,
            bool(models),
            bool(self.curves),
            reference is not None,
        )
        self.refresh()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop()

    def run(self) -> None:
        """Serves the page until interrupted."""
        while True:
            self.changed.wait(0.1)
            self.refresh()

    def refresh(self) -> None:
        """Applies the changed settings of the controls, then sphere traces the views whose camera
        has stopped."""
        self.changed.clear()
        now, before = self.controls.settings(), self.shown
        if now != before:
            shaping = [
                (one.resolution, one.iso, one.silent) if one else None for one in (now, before)
            ]
            if shaping[0] != shaping[1] and before is not None:
                self._extract(now)
            self._draw(now)
            self.shown = now
            self.views.clear()
        self._trace(now)

    def restart(self) -> None:
        """Extracts and draws all shapes again."""
        self.shown = self.controls.settings()
        self._extract(self.shown)
        self._draw(self.shown)

    def training(
        self, fit: Fit, progress: Progress | None, resolution: int = LIVE_RESOLUTION
    ) -> None:
        """Shows the current surface of a ``fit`` in training, extracted at ``resolution`` cells,
        and its ``progress`` in the status."""
        with torch.no_grad():
            mesh = surface(replace(fit, lipschitz=2.0).sdf(), resolution)
        self.meshes[0] = mesh
        self.sdfs[0] = fit.sdf()
        self.shown = replace(self.controls.settings(), trace=False)
        self._draw(self.shown)
        if progress is not None:
            done = f"step {progress.step:,}, loss {progress.loss:.4f}, {progress.seconds:.1f} s"
            self.controls.status.content = f"Fitting: {done} ({progress.done:.0%})"

    def _stage(self, up: Up, view: tuple[float, float]) -> None:
        server = self.server
        camera = Camera.around(Box((-0.6,) * 3, (0.6,) * 3), *view, up=up)
        server.gui.configure_theme(show_logo=False, show_share_button=False)
        server.gui.main_panel.dock_right()
        server.scene.set_up_direction(camera.up)
        small = replace(camera, width=BACKDROP[0], height=BACKDROP[1])
        grey = GREY.colours(small, torch.arange(BACKDROP[0] * BACKDROP[1])).numpy()
        self.backdrop = np.round(255 * grey).astype(np.uint8).reshape(*BACKDROP[::-1], 3)
        server.scene.set_background_image(self.backdrop, "png")
        server.initial_camera.position, server.initial_camera.look_at = camera.eye, camera.target
        server.initial_camera.up, server.initial_camera.fov = (
            camera.up,
            float(np.radians(camera.fov)),
        )

    def _extract(self, now: Settings) -> None:
        for index, shape in enumerate(self.shapes):
            if shape.fit is not None:
                self.sdfs[index] = muted(shape.fit, now.silent)
                self.meshes[index] = surface(self.sdfs[index], now.resolution, now.iso)

    def _place(self, points: np.ndarray) -> np.ndarray:
        return ((points - self.bounds.centre) * self.scale).astype(np.float32)

    def _draw(self, now: Settings) -> None:
        scene, notes = self.server.scene, []
        self.controls.legend.visible = now.error and self.distance is not None
        with self.server.atomic():
            for index, (shape, mesh) in enumerate(zip(self.shapes, self.meshes)):
                notes.append(self._draw_surface(f"/shape{index}", shape, mesh, now))
                self._draw_cut(index, now)
            for index, curves in enumerate(self.curves):
                ends = curves.lines.segments
                if now.plane is not None:
                    ends = ends[
                        (curves.lines.points[ends, now.plane.axis] <= now.plane.offset).all(axis=1)
                    ]
                shades = np.round(curves.colours[ends] * 255).astype(np.uint8)
                places = self._place(curves.lines.points[ends])
                scene.add_line_segments(
                    f"/lines{index}", places, shades, thickness=0.004, visible=now.lines
                )
            if self.reference is not None and now.input:
                vertices = self._place(self.reference.vertices)
                scene.add_mesh_simple(
                    "/input",
                    vertices,
                    self.reference.faces.astype(np.uint32),
                    color=INK,
                    wireframe=True,
                )
            else:
                scene.remove_by_name("/input")
        self.controls.status.content = "  \n".join(notes)

    def _draw_cut(self, index: int, now: Settings) -> None:
        """Draws the face of the cut through a shape and its contour lines, or removes them."""
        scene, sdf, plane = self.server.scene, self.sdfs[index], now.plane
        scene.remove_by_name(f"/cap{index}")
        if plane is None:
            scene.remove_by_name(f"/contours{index}")
            return
        face = cap(sdf, plane, now.iso)
        if len(face.faces):
            vertices, faces = self._place(face.vertices), face.faces.astype(np.uint32)
            scene.add_mesh_simple(f"/cap{index}", vertices, faces, color=INSIDE, side="double")
        segments, distances = contours(sdf, plane, now.iso)
        colours = contour_colours(distances, now.iso, self.bounds.diagonal)
        shades = np.round(colours * 255).astype(np.uint8)[:, None].repeat(2, axis=1)
        places = self._place(segments)
        # So that the face of the cut does not hide the contour lines.
        places[..., plane.axis] += 2 * BEFORE
        scene.add_line_segments(f"/contours{index}", places, shades, thickness=0.005)

    def _draw_surface(self, name: str, shape: Shape, mesh: Mesh | None, now: Settings) -> str:
        """Draws one surface, or removes it if there is nothing to show. Returns a line for the
        status."""
        part = mesh if mesh is None or now.plane is None else cut(mesh, now.plane)
        if mesh is None or part is None or not len(part.faces):
            self.server.scene.remove_by_name(name)
            reason = "no closed surface at this level" if mesh is None else "all of it is cut away"
            return f"**{literal(shape.name)}**: {reason}"
        vertices, faces = self._place(part.vertices), part.faces.astype(np.uint32)
        note = f"**{literal(shape.name)}**: {len(mesh.faces):,} triangles"
        if now.error and self.distance is not None:
            colours, limit = error_colours(part, self.distance)
            self.server.scene.add_mesh_trimesh(
                name, to_trimesh(Mesh(vertices.astype(np.float64), part.faces), colours)
            )
            scale = Scale("distance to the input, world units", "0", f"{limit:.3g} and more")
            image = picture(scale, LEGEND)
            self.controls.legend.image = np.round(255 * image).astype(np.uint8)
            return f"{note}; error from violet, 0, to yellow, {limit:.3g}"
        side = "double" if now.plane is not None else "front"
        if not now.wireframe and (coloured := _coloured(shape, part)) is not None:
            drawn, extras = coloured
            placed = Mesh(self._place(drawn.vertices).astype(np.float64), drawn.faces)
            self.server.scene.add_glb(name, encode_mesh_glb(placed, True, extras))
            return note
        self.server.scene.add_mesh_simple(
            name, vertices, faces, color=CLAY, wireframe=now.wireframe, side=side
        )
        return note

    def _trace(self, now: Settings) -> None:
        """Shows the sphere-traced picture to each visitor whose camera has stopped, and removes the
        picture when the camera moves."""
        for number, client in self.server.get_clients().items():
            seen, moved = self.views.get(number, (None, 0.0))
            view = view_of(client.camera)
            if not now.trace or view is None:
                if seen is not None or number not in self.views:
                    client.scene.set_background_image(self.backdrop, "png")
                    self.views[number] = (None, time.monotonic())
            elif view != seen:
                if seen is not None or not moved:  # the motion has just begun
                    client.scene.set_background_image(self.backdrop, "png")
                    self.views[number] = (None, time.monotonic())
                elif time.monotonic() - moved > SETTLED:
                    whole = self._show_traced(client, now)
                    self.views[number] = (view if whole else None, moved)

    def camera(self, client: Any) -> Camera:
        """A visitor's camera in world units, whose picture has the aspect ratio of the page."""
        return camera_of(client.camera, self.bounds, self.scale)

    def _show_traced(self, client: Any, now: Settings) -> bool:
        """Shows a visitor finer and finer pictures. Returns whether the finest is shown: a change
        of the controls ends the work, even one that is taken back."""
        views = traced(shown(self.sdfs, now), self.camera(client), self.scale)
        while True:
            try:
                view = next(views, None)
            except ValueError as error:  # the camera is inside the surface
                self.controls.status.content = literal(str(error))
                return True
            if view is None:
                return True
            client.scene.set_background_image(view[0], "png", depth=view[1])
            if self.changed.is_set():
                return False


def free_port(host: str, port: int) -> int:
    """``port`` if it is free, or any free port if ``port`` is 0.

    This check is needed because viser silently uses the next free port. Raises OSError for a port
    that is taken, and ValueError for a number that is not from 0 to 65535.
    """
    if not 0 <= port <= 65535:
        raise ValueError(Message("<port> is 0 to 65535, not {}.", port))
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return probe.getsockname()[1]
    except OSError as error:
        text = "The host {1} has no free port ({2})."
        if port:
            text = "Port {} of {} is taken; pass another <port>, or 0 for any free one ({})."
        raise OSError(Message(text, port, host, error.strerror)) from error


def import_viser() -> Any:
    """The module viser. Raises ModuleNotFoundError naming the extra if viser is not installed."""
    try:
        import viser
    except ImportError as error:
        raise ModuleNotFoundError(
            "The page in the browser needs viser: pip install 'nstr3d[viewer]'."
        ) from error
    return viser


def _coloured(shape: Shape, part: Mesh) -> tuple[Mesh, Extras] | None:
    """What is drawn of ``part`` of a shape with colours; None for one without."""
    if shape.paint is not None:
        fine, normals, colours = paint_finely(part, shape.paint)
        return fine, Extras(normals, colours)
    colours = shape.colours(part)
    return None if colours is None else (part, Extras(vertex_normals(shape.sdf(), part), colours))
