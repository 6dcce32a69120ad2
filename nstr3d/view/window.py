"""A desktop window by Open3D. It shows surfaces side by side, the input mesh over or beside them,
the error against the input, and lines, and it saves screenshots."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.io import save_image
from nstr3d.io.interop import import_open3d, line_set
from nstr3d.render.camera import Camera
from nstr3d.system import Message, prepare_opengl
from nstr3d.types import Box, Mesh, Up
from nstr3d.view.drawables import drawable, painted
from nstr3d.view.legend import GREY, Legend, Scale
from nstr3d.view.painting import paint_finely
from nstr3d.view.scene import Curves, Shape, box_of, error_colours, joint_box

CLAY, SLATE, INK = (0.70, 0.66, 0.61), (0.40, 0.50, 0.63), (0.13, 0.25, 0.45)
GAP = 1.15  # distance between surfaces in widths, where a width is 0.7 of the largest diagonal
KEYS = {
    "W": "wireframe",
    "I": "input mesh: overlaid, beside, away",
    "E": "error against the input as colours",
    "F": "flow lines",
    "P": "screenshot",
    "R": "first view again",
    "Q": "close",
}


@dataclass(frozen=True)
class Showing:
    """The display settings. ``input`` is the state of the input mesh: 0 hidden, 1 overlaid as
    wires, 2 beside the surfaces."""

    wireframe: bool = False
    input: int = 0
    error: bool = False
    lines: bool = True


def has_display() -> bool:
    """Whether this process can open a window."""
    if not sys.platform.startswith("linux"):
        return True
    if os.environ.get("WAYLAND_DISPLAY"):
        return True
    library = find_library("X11")
    if not os.environ.get("DISPLAY") or library is None:
        return False
    x11 = ctypes.CDLL(library)
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)  # DISPLAY may name a display that does not exist
    if display:
        x11.XCloseDisplay(ctypes.c_void_p(display))
    return bool(display)


class Window:
    """An open window that shows ``shapes`` in a row, ``curves``, and the input mesh ``reference``.

    ``size`` is the width and height in pixels. The axis ``up`` points up, and ``view`` is the
    azimuth and the elevation of the first view in degrees. ``say`` receives messages for the user,
    one line each. Call `close` at the end, or use the window in a ``with`` statement. Raises
    OSError if there is no display or the window cannot be opened, and ModuleNotFoundError if Open3D
    cannot be imported.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        curves: Sequence[Curves] = (),
        reference: Mesh | None = None,
        size: tuple[int, int] = (1280, 800),
        say: Callable[[str], None] = lambda text: None,
        up: Up = "y",
        view: tuple[float, float] = (30.0, 15.0),
    ) -> None:
        if not has_display():
            raise OSError("There is no display to open a window on.")
        prepare_opengl()
        self.open3d = import_open3d()
        self.open3d.utility.set_verbosity_level(self.open3d.utility.VerbosityLevel.Error)
        self.shapes, self.curves, self.reference, self.say = (
            list(shapes),
            list(curves),
            reference,
            say,
        )
        self.showing, self.view = Showing(), view
        self.up: Up = up
        self.meshes = [drawable(self.open3d, shape.mesh) for shape in shapes]
        self.coloured = [self._coloured(shape) for shape in shapes]
        self.errors: list[np.ndarray] | None = None
        self.limit = 0.0  # the error of the last colour
        self.legend: Legend | None = None
        self.window = self.open3d.visualization.VisualizerWithKeyCallback()
        title = ", ".join(shape.name for shape in shapes) or "nstr3d"
        if not self.window.create_window(f"nstr3d: {title}", *size):
            raise OSError(
                "The window could not be opened; use the browser page, or make pictures with "
                "nstr3d render."
            )
        options = self.window.get_render_option()
        options.background_color = np.full(3, GREY)
        options.mesh_shade_option = (
            self.open3d.visualization.MeshShadeOption.Color
        )  # smooth shading by vertex normals
        options.mesh_show_back_face = True
        options.point_size = 1.0  # a pixel of the legend
        self.camera = Camera.around(self.bounds(), *view, width=size[0], height=size[1], up=up)
        actions = {
            "W": self.wireframe,
            "I": self.input,
            "E": self.error,
            "F": self.flow,
            "P": self.screenshot,
            "R": self.place_camera,
        }
        for key, action in actions.items():
            self.window.register_key_callback(ord(key), _quietly(action))
        self.window.register_animation_callback(self._follow)
        self.draw()
        self.place_camera()

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the window."""
        self.window.destroy_window()

    def run(self) -> None:
        """Shows the window until it is closed."""
        self.window.run()

    def bounds(self) -> Box:
        """The bounds, in world units, of everything that is shown."""
        boxes = [
            _moved(shape.mesh.bounds, place) for shape, place in zip(self.shapes, self._places())
        ]
        boxes += [box_of(curves.lines.points) for curves in self.curves if self.showing.lines]
        if self.reference is not None and self.showing.input:
            boxes.append(
                _moved(
                    self.reference.bounds,
                    self._places()[-1] if self.showing.input == 2 else np.zeros(3),
                )
            )
        return joint_box(boxes)

    def draw(self) -> None:
        """Draws everything that is shown again and keeps the view."""
        camera = self.window.get_view_control().convert_to_pinhole_camera_parameters()
        self.window.clear_geometries()
        options = self.window.get_render_option()
        options.mesh_show_wireframe = self.showing.wireframe
        options.line_width = (
            1.0 if self.showing.input == 1 else 3.0
        )  # the width holds for all lines, and the many wires of a mesh have to be thin
        for geometry in self._geometries():
            self.window.add_geometry(geometry, reset_bounding_box=True)
        scale = self._scale()
        self.legend = scale and Legend(self.open3d, scale, (self.camera.width, self.camera.height))
        if self.legend is not None:
            self.legend.place(camera, self._distance())
            self.window.add_geometry(self.legend.cloud, reset_bounding_box=False)
        self.window.get_view_control().convert_from_pinhole_camera_parameters(
            camera, allow_arbitrary=True
        )

    def place_camera(self, camera: Camera | None = None) -> None:
        """Sets the view to ``camera``, whose picture must have the size of the window. By default,
        the view shows everything that is shown."""
        camera = self.camera = camera or Camera.around(
            self.bounds(),
            *self.view,
            width=self.camera.width,
            height=self.camera.height,
            up=self.up,
        )
        parameters = self.open3d.camera.PinholeCameraParameters()
        focal = camera.height / 2 / np.tan(np.radians(camera.fov) / 2)
        parameters.intrinsic = self.open3d.camera.PinholeCameraIntrinsic(
            camera.width,
            camera.height,
            focal,
            focal,
            camera.width / 2 - 0.5,
            camera.height / 2 - 0.5,
        )
        extrinsic = np.eye(4)
        extrinsic[:3, :3] = camera.axes * [[1], [-1], [-1]]  # right, down and forward
        extrinsic[:3, 3] = -extrinsic[:3, :3] @ np.asarray(camera.eye)
        parameters.extrinsic = extrinsic
        self.window.get_view_control().convert_from_pinhole_camera_parameters(
            parameters, allow_arbitrary=True
        )

    def capture(self) -> np.ndarray:
        """The picture in the window: ``(h, w, 3)`` float32 in [0, 1]."""
        self._follow(self.window)
        self.window.poll_events()
        self.window.update_renderer()
        return np.array(self.window.capture_screen_float_buffer(do_render=True), np.float32).clip(
            0, 1
        )

    def screenshot(self) -> None:
        """Saves the picture in the window to the working directory, as the first free name of
        view-1.png, view-2.png and so on."""
        path = next(
            path
            for path in (Path(f"view-{number}.png") for number in range(1, 10**6))
            if not path.exists()
        )
        save_image(path, self.capture())
        self.say(f"wrote {path}")

    def wireframe(self) -> None:
        """Shows or hides the edges of the triangles."""
        self._show(replace(self.showing, wireframe=not self.showing.wireframe))

    def flow(self) -> None:
        """Shows or hides the lines."""
        self._show(replace(self.showing, lines=not self.showing.lines))

    def input(self) -> None:
        """Cycles the input mesh between overlaid as wires, beside the surfaces, and hidden."""
        if self.reference is None:
            self.say(Message("There is no mesh to show beside the model; name it as <input>."))
            return
        self._show(replace(self.showing, input=(self.showing.input + 1) % 3))
        if self.showing.input != 1:
            self.place_camera()

    def error(self) -> None:
        """Switches the surfaces between plain colour and colours of the distance to the input."""
        if self.reference is None:
            self.say(Message("There is no mesh to measure the error against; name it as <input>."))
            return
        if self.errors is None:
            distance = MeshDistance(self.reference).sdf()
            result = [error_colours(shape.mesh, distance) for shape in self.shapes]
            limit = self.limit = max((limit for _, limit in result), default=0.0)
            self.errors = [error_colours(shape.mesh, distance, limit)[0] for shape in self.shapes]
            self.say(f"distance to the input: violet 0, yellow {limit:.3g} and more")
        self._show(replace(self.showing, error=not self.showing.error))

    def _show(self, showing: Showing) -> None:
        self.showing = showing
        self.draw()

    def _scale(self) -> Scale | None:
        """What the colours mean that are shown: errors, or else the values of the lines."""
        if self.showing.error and self.errors is not None:
            return Scale("distance to the input, world units", "0", f"{self.limit:.3g} and more")
        valued = [c.lines.values for c in self.curves if c.lines.values is not None]
        if not (self.showing.lines and valued):
            return None
        values = np.concatenate(valued)
        lowest, highest = np.quantile(values, [0.02, 0.98])
        return Scale("local frequency, radians / unit", f"{lowest:.3g}", f"{highest:.3g}")

    def _distance(self) -> float:
        return float(np.linalg.norm(np.subtract(self.camera.target, self.camera.eye)))

    def _follow(self, window: Any) -> bool:
        """Keeps the legend in its place; whether anything moved."""
        if self.legend is None:
            return False
        camera = window.get_view_control().convert_to_pinhole_camera_parameters()
        before = np.array(self.legend.cloud.points)
        self.legend.place(camera, self._distance())
        if np.array_equal(before, np.asarray(self.legend.cloud.points)):
            return False
        window.update_geometry(self.legend.cloud)
        return True

    def _places(self) -> list[np.ndarray]:
        """The offset ``(3,)`` of each shape and, last, of the mesh beside them. The offsets are
        equally spaced to the right of the first view."""
        right = Camera.around(Box((-1.0,) * 3, (1.0,) * 3), *self.view, up=self.up).axes[0]
        meshes = [shape.mesh for shape in self.shapes] + (
            [self.reference] if self.reference is not None else []
        )
        width = max((mesh.bounds.diagonal for mesh in meshes), default=0.0) * GAP * 0.7
        return [right * width * n for n in range(len(self.shapes) + 1)]

    def _coloured(self, shape: Shape) -> tuple[Any, Mesh, np.ndarray] | None:
        """What is drawn of a shape with colours: the `drawable` of a mesh, the mesh and the colours
        of its vertices. None for a shape without."""
        if shape.paint is not None:
            fine, normals, colours = paint_finely(shape.mesh, shape.paint)
            return drawable(self.open3d, fine, normals), fine, colours
        colours = shape.colours(shape.mesh)
        return None if colours is None else (drawable(self.open3d, shape.mesh), shape.mesh, colours)

    def _geometries(self) -> list[Any]:
        places, result = self._places(), []
        wrong = self.errors is not None and self.showing.error
        for index, (mesh, place) in enumerate(zip(self.meshes, places)):
            coloured = self.coloured[index]
            if coloured is not None and not wrong and not self.showing.wireframe:
                result.append(painted(self.open3d, *coloured, CLAY, place))
                continue
            colours = self.errors[index] if wrong else None  # type: ignore[index]
            result.append(painted(self.open3d, mesh, self.shapes[index].mesh, colours, CLAY, place))
        if self.reference is not None and self.showing.input == 1:
            wires = self.open3d.geometry.LineSet.create_from_triangle_mesh(
                self.open3d.geometry.TriangleMesh(
                    self.open3d.utility.Vector3dVector(self.reference.vertices),
                    self.open3d.utility.Vector3iVector(self.reference.faces.astype(np.int32)),
                )
            )
            result.append(wires.paint_uniform_color(INK))
        if self.reference is not None and self.showing.input == 2:
            beside = drawable(self.open3d, self.reference)
            result.append(painted(self.open3d, beside, self.reference, None, SLATE, places[-1]))
        if self.showing.lines:
            result += [line_set(curves.lines, curves.colours) for curves in self.curves]
        return result


def _quietly(action: Callable[[], None]) -> Callable[[Any], bool]:
    def call(window: Any) -> bool:
        action()
        return True  # asks Open3D to draw again

    return call


def _moved(box: Box, by: np.ndarray) -> Box:
    return Box(tuple(np.add(box.lower, by).tolist()), tuple(np.add(box.upper, by).tolist()))
