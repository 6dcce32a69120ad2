"""A page in the browser, by viser: surfaces extracted anew as sliders move, a plane of contour
lines, the traced view."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.io.interop import to_trimesh
from nstr3d.render.contours import Plane, contour_colours, contours, cut
from nstr3d.render.traced import GREY, RenderConfig, measure, render
from nstr3d.sdf import Sdf
from nstr3d.system import Message
from nstr3d.training.fit import Fit, Progress
from nstr3d.types import Box, Camera, Mesh
from nstr3d.view.scene import Curves, Shape, error_colours, levels_of, muted, surface

CLAY, INK = (176, 168, 156), (60, 92, 140)
RESOLUTIONS = (16, 512)
SETTLED = 0.25  # seconds that a camera rests before its view is traced
# by how much a traced picture is nearer than what it shows, in the scene's units: it hides the mesh
BEFORE = 0.004
BEHIND = 160.0  # depth of nothing, in the scene's units: viser's own limit is 167
TRACED = 720  # pixels to the height of a traced view, at most
# between looks at a field in training, and how finely it is extracted
LIVE_SECONDS, LIVE_RESOLUTION = 1.5, 72


@dataclass(frozen=True)
class Settings:
    """What the page's controls say."""

    resolution: int = 128
    iso: float = 0.0
    silent: frozenset[int] = frozenset()
    plane: Plane | None = None
    wireframe: bool = False
    error: bool = False
    input: bool = False
    lines: bool = True
    trace: bool = False


class Page:
    """A page served at ``url``. What its visitors change is done by `refresh`, in the thread that
    calls it or `run`.

    Shapes are shown where they are, about the middle of the page's scene and in a size that suits
    it. Raises OSError for a port that is taken, ModuleNotFoundError where viser cannot be imported,
    ValueError for a port that is none.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        curves: Sequence[Curves] = (),
        reference: Mesh | None = None,
        host: str = "127.0.0.1",
        port: int = 8080,
    ) -> None:
        viser = _viser()
        self.shapes, self.curves, self.reference = list(shapes), list(curves), reference
        self.distance = MeshDistance(reference).sdf() if reference is not None else None
        self.bounds = _joint(
            [shape.mesh.bounds for shape in shapes] + [_box(c.lines.points) for c in curves]
        )
        self.scale = 2 / self.bounds.diagonal
        self.sdfs: list[Sdf] = [shape.sdf() for shape in shapes]
        self.meshes: list[Mesh | None] = [shape.mesh for shape in shapes]
        self.server = viser.ViserServer(host, _free_port(host, port), label="nstr3d", verbose=False)
        self.url = f"http://{host}:{self.server.get_port()}"
        self.changed = threading.Event()
        self.shown: Settings | None = None
        self.views: dict[
            int, tuple[Any, float]
        ] = {}  # of each visitor: the camera that was traced, and when it last moved
        self._stage()
        self._controls()
        self.refresh()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop()

    def run(self) -> None:
        """Serves the page until interrupted."""
        while True:
            self.changed.wait(0.1)
            self.changed.clear()
            self.refresh()

    def settings(self) -> Settings:
        """What the controls say now."""
        plane = Plane("xyz".index(self.axis.value), self._offset()) if self.cutting.value else None
        silent = frozenset(index for index, box in enumerate(self.levels) if not box.value)
        return Settings(
            int(self.resolution.value),
            float(self.iso.value),
            silent,
            plane,
            bool(self.wireframe.value),
            bool(self.error.value),
            bool(self.input.value),
            bool(self.lines.value),
            bool(self.trace.value),
        )

    def refresh(self) -> None:
        """Does what the controls say where that has changed; then traces the views that rest."""
        now, before = self.settings(), self.shown
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
        """Extracts and draws everything anew."""
        self.shown = self.settings()
        self._extract(self.shown)
        self._draw(self.shown)

    def training(
        self, fit: Fit, progress: Progress | None, resolution: int = LIVE_RESOLUTION
    ) -> None:
        """Shows the field of a ``fit`` under way as it is now, extracted at ``resolution``."""
        with torch.no_grad():
            mesh = surface(replace(fit, lipschitz=2.0).sdf(), resolution)
        self.meshes[0] = mesh
        self.sdfs[0] = fit.sdf()
        self.shown = replace(self.settings(), trace=False)
        self._draw(self.shown)
        if progress is not None:
            done = f"step {progress.step:,}, loss {progress.loss:.4f}, {progress.seconds:.1f} s"
            self.status.content = f"Fitting: {done} ({progress.done:.0%})"

    def _stage(self) -> None:
        server, camera = self.server, Camera.around(Box((-0.6,) * 3, (0.6,) * 3))
        server.gui.configure_theme(show_logo=False, show_share_button=False)
        server.gui.main_panel.dock_right()
        server.scene.set_up_direction("+y")
        server.initial_camera.position, server.initial_camera.look_at = camera.eye, camera.target
        server.initial_camera.up, server.initial_camera.fov = (
            camera.up,
            float(np.radians(camera.fov)),
        )

    def _controls(self) -> None:
        gui, size = self.server.gui, self.bounds.diagonal
        models = [shape.fit for shape in self.shapes if shape.fit is not None]
        self.status = gui.add_markdown("")
        with gui.add_folder("Surface", visible=bool(models)):
            self.resolution = gui.add_slider("Resolution", *RESOLUTIONS, 8, 128)
            step = float(f"{size / 1000:.0e}")
            self.iso = gui.add_slider("Iso level", -40 * step, 40 * step, step, 0.0)
        names = levels_of(models[0]) if models else []
        with gui.add_folder("Spectrum levels", visible=bool(names)):
            self.levels = [gui.add_checkbox(name, True) for name in names]
        with gui.add_folder("Plane"):
            self.cutting = gui.add_checkbox("Cut", False, hint="with the distance's contour lines")
            self.axis = gui.add_dropdown("Axis", ("x", "y", "z"), initial_value="z")
            self.offset = gui.add_slider("Offset", 0.0, 1.0, 0.01, 0.5)
        with gui.add_folder("View"):
            self.wireframe = gui.add_checkbox("Wireframe", False)
            self.lines = gui.add_checkbox("Lines", True, visible=bool(self.curves))
            self.input = gui.add_checkbox("Input mesh", False, visible=self.reference is not None)
            self.error = gui.add_checkbox(
                "Error against the input", False, visible=self.reference is not None
            )
            self.trace = gui.add_checkbox(
                "Sphere traced", False, hint="the field itself, once the view rests"
            )
        everything = [
            self.resolution,
            self.iso,
            self.cutting,
            self.axis,
            self.offset,
            self.wireframe,
            self.lines,
        ]
        for control in [*everything, self.input, self.error, self.trace, *self.levels]:
            control.on_update(lambda _: self.changed.set())

    def _offset(self) -> float:
        """The plane's offset in world units: the slider runs across the bounds."""
        axis = "xyz".index(self.axis.value)
        low, high = self.bounds.lower[axis], self.bounds.upper[axis]
        return low + float(self.offset.value) * (high - low)

    def _extract(self, now: Settings) -> None:
        for index, shape in enumerate(self.shapes):
            if shape.fit is not None:
                self.sdfs[index] = muted(shape.fit, now.silent)
                self.meshes[index] = surface(self.sdfs[index], now.resolution, now.iso)

    def _place(self, points: np.ndarray) -> np.ndarray:
        return ((points - self.bounds.centre) * self.scale).astype(np.float32)

    def _draw(self, now: Settings) -> None:
        scene, notes = self.server.scene, []
        with self.server.atomic():
            for index, (shape, mesh) in enumerate(zip(self.shapes, self.meshes)):
                notes.append(self._draw_surface(f"/shape{index}", shape, mesh, now))
                if now.plane is not None:
                    segments, distances = contours(self.sdfs[index], now.plane, now.iso)
                    colours = contour_colours(distances, now.iso, self.bounds.diagonal)
                    shades = np.round(colours * 255).astype(np.uint8)[:, None].repeat(2, axis=1)
                    places = self._place(segments)
                    places[..., now.plane.axis] += (
                        2 * BEFORE
                    )  # off the section, so that it does not hide them
                    scene.add_line_segments(f"/contours{index}", places, shades, thickness=0.005)
                else:
                    scene.remove_by_name(f"/contours{index}")
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
        self.status.content = "  \n".join(notes)

    def _draw_surface(self, name: str, shape: Shape, mesh: Mesh | None, now: Settings) -> str:
        """Draws one surface and says what it is."""
        part = mesh if mesh is None or now.plane is None else cut(mesh, now.plane)
        if mesh is None or part is None or not len(part.faces):
            self.server.scene.remove_by_name(name)
            reason = "no closed surface at this level" if mesh is None else "all of it is cut away"
            return f"**{shape.name}**: {reason}"
        vertices, faces = self._place(part.vertices), part.faces.astype(np.uint32)
        note = f"**{shape.name}**: {len(mesh.faces):,} triangles"
        if now.error and self.distance is not None:
            colours, limit = error_colours(part, self.distance)
            self.server.scene.add_mesh_trimesh(
                name, to_trimesh(Mesh(vertices.astype(np.float64), part.faces), colours)
            )
            return f"{note}; error from violet, 0, to yellow, {limit:.3g}"
        side = "double" if now.plane is not None else "front"
        self.server.scene.add_mesh_simple(
            name, vertices, faces, color=CLAY, wireframe=now.wireframe, side=side
        )
        return note

    def _trace(self, now: Settings) -> None:
        """Gives each visitor whose view rests the traced picture of it, and takes it away when the
        view moves."""
        for number, client in self.server.get_clients().items():
            seen, moved = self.views.get(number, (None, 0.0))
            view = _view(client.camera)
            if not now.trace or view is None:
                if seen is not None or number not in self.views:
                    client.scene.set_background_image(None)
                    self.views[number] = (None, time.monotonic())
            elif view != seen:
                if seen is not None or not moved:  # it has just begun to move
                    client.scene.set_background_image(None)
                    self.views[number] = (None, time.monotonic())
                elif time.monotonic() - moved > SETTLED:
                    self.views[number] = (view, moved)
                    self._show_traced(client, self.camera(client), now)

    def camera(self, client: Any) -> Camera:
        """The camera of a visitor, in world units, with a picture of the page's shape."""
        eye, target, up, fov, width, height = _view(client.camera) or (
            (0.0, 0.0, 3.0),
            (0.0,) * 3,
            (0.0, 1.0, 0.0),
            0.6,
            16,
            16,
        )
        ex, ey, ez = (np.asarray(eye) / self.scale + self.bounds.centre).tolist()
        tx, ty, tz = (np.asarray(target) / self.scale + self.bounds.centre).tolist()
        shrink = min(1.0, TRACED / height)
        pixels = max(1, round(width * shrink)), max(1, round(height * shrink))
        return Camera((ex, ey, ez), (tx, ty, tz), up, float(np.degrees(fov)), *pixels)

    def _show_traced(self, client: Any, camera: Camera, now: Settings) -> None:
        sdf = _union([self._shown_sdf(sdf, now) for sdf in self.sdfs])
        for shrink in (4, 1):  # a coarse picture at once, then the fine one
            small = replace(
                camera, width=max(1, camera.width // shrink), height=max(1, camera.height // shrink)
            )
            try:
                picture = render(
                    sdf, small, RenderConfig(backdrop=GREY, samples_per_axis=1 if shrink > 1 else 2)
                )
                depth = measure(sdf, small).depth
            except ValueError as error:  # the camera is within the surface
                self.status.content = str(error)
                return
            ahead = -(small.rays().directions.numpy() @ small.axes[2]).reshape(depth.shape)
            far = _spread(np.where(np.isfinite(depth), depth * ahead * self.scale - BEFORE, BEHIND))
            client.scene.set_background_image(
                np.round(picture * 255).astype(np.uint8), "png", depth=far
            )
            if self.changed.is_set():
                return

    def _shown_sdf(self, sdf: Sdf, now: Settings) -> Sdf:
        shown = sdf.level(now.iso) if now.iso else sdf
        plane = now.plane
        if plane is None:
            return shown
        return replace(
            shown, distance=lambda p: torch.maximum(shown(p), p[:, plane.axis] - plane.offset)
        )


class LivePage:
    """Follows a fit on a page: hand `started` and `step` to a job's `Listener`, call `finished` at
    the end, and `close`.

    It looks at the field every ``seconds``, extracted at ``resolution``.

    Raises OSError, ModuleNotFoundError and ValueError as `Page`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        seconds: float = LIVE_SECONDS,
        resolution: int = LIVE_RESOLUTION,
    ):
        _viser()
        self.seconds, self.resolution = seconds, resolution
        self.host, self.port = host, _free_port(host, port)  # before any work is done
        self.page: Page | None = None
        self.fit: Fit | None = None
        self.looked = 0.0

    def started(self, fit: Fit) -> None:
        """Opens the page on a field that is about to be trained in place."""
        self.fit = fit
        box = fit.bounds
        corners = np.array([box.lower, box.upper, (box.upper[0], box.lower[1], box.lower[2])])
        name = str(fit.provenance.get("input", "fit"))
        self.page = Page(
            [Shape(name, Mesh(corners, np.array([[0, 1, 2]])), fit)], host=self.host, port=self.port
        )

    def step(self, progress: Progress) -> None:
        """Looks at the field now and then, between two steps of training."""
        if (
            self.page is not None
            and self.fit is not None
            and time.monotonic() - self.looked > self.seconds
        ):
            self.page.training(self.fit, progress, self.resolution)
            self.looked = time.monotonic()

    def close(self) -> None:
        """Ends the page."""
        if self.page is not None:
            self.page.server.stop()

    def finished(self, fit: Fit) -> Page:
        """The page with the finished model, its controls at work; serve it with ``run``."""
        if self.page is None:
            raise ValueError("There is no page: training was never started.")
        self.page.shapes[0] = replace(self.page.shapes[0], fit=fit)
        self.page.restart()
        return self.page


def _spread(depth: np.ndarray) -> np.ndarray:
    """Each pixel as near as its nearest neighbour, so that a mesh's coarser outline does not show
    beside a traced picture's."""
    for axis in (0, 1):
        around = np.pad(depth, [(2, 2) if n == axis else (0, 0) for n in (0, 1)], mode="edge")
        depth = np.min(
            [around.take(np.arange(depth.shape[axis]) + n, axis=axis) for n in range(5)], axis=0
        )
    return depth


def _union(sdfs: Sequence[Sdf]) -> Sdf:
    if len(sdfs) == 1:
        return sdfs[0]
    bounds = _joint([sdf.bounds for sdf in sdfs])
    return Sdf(
        lambda p: torch.stack([sdf(p) for sdf in sdfs]).amin(dim=0),
        bounds,
        max(sdf.lipschitz for sdf in sdfs),
    )


def _view(camera: Any) -> tuple[Any, ...] | None:
    """Where a visitor stands and looks, and the size of the page; None before the page has said
    so."""
    if camera.update_timestamp == 0.0 or min(camera.image_width, camera.image_height) < 1:
        return None
    eye, target, up = (
        tuple(np.round(np.asarray(v), 6).tolist())
        for v in (camera.position, camera.look_at, camera.up_direction)
    )
    return (
        eye,
        target,
        up,
        round(float(camera.fov), 6),
        int(camera.image_width),
        int(camera.image_height),
    )


def _joint(boxes: Sequence[Box]) -> Box:
    lower, upper = (
        np.min([box.lower for box in boxes], axis=0),
        np.max([box.upper for box in boxes], axis=0),
    )
    return Box(tuple(lower.tolist()), tuple(upper.tolist()))


def _box(points: np.ndarray) -> Box:
    return Box(tuple(points.min(axis=0).tolist()), tuple(points.max(axis=0).tolist()))


def _free_port(host: str, port: int) -> int:
    """``port`` if it can be had, any free one for 0; viser itself would silently take the next."""
    if not 0 <= port <= 65535:
        raise ValueError(Message("<port> is 0 to 65535, not {}.", port))
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return probe.getsockname()[1]
    except OSError as error:
        text = "Port {} of {} has no free port ({})."
        if port:
            text = "Port {} of {} is taken; pass another <port>, or 0 for any free one ({})."
        raise OSError(Message(text, port, host, error.strerror)) from error


def _viser() -> Any:
    try:
        import viser
    except ImportError as error:
        raise ModuleNotFoundError(
            "The page in the browser needs viser: pip install 'nstr3d[viewer]'."
        ) from error
    return viser
