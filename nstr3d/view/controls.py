"""The controls of the browser page, and their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nstr3d.render.contours import Plane
from nstr3d.types import Box

RESOLUTIONS = (16, 512)  # range of the extraction resolution, in cells along the longest side


@dataclass(frozen=True)
class Settings:
    """The values of the controls. ``iso`` is a distance in world units. ``silent`` are the indices
    of the silenced spectrum levels. ``plane`` is the cutting plane, or None."""

    resolution: int = 128
    iso: float = 0.0
    silent: frozenset[int] = frozenset()
    plane: Plane | None = None
    wireframe: bool = False
    error: bool = False
    input: bool = False
    lines: bool = True
    trace: bool = False


class Controls:
    """The controls of a page in viser's ``gui``, for shapes in the world ``bounds``.

    ``levels`` are the names of the spectrum levels that can be silenced. The flags ``models``,
    ``lines`` and ``reference`` (an input mesh) say whether the page has such objects; controls of
    absent objects are hidden. ``changed`` is called after each change.
    """

    def __init__(
        self,
        gui: Any,
        bounds: Box,
        levels: Sequence[str],
        changed: Callable[[], None],
        models: bool,
        lines: bool,
        reference: bool,
    ) -> None:
        self.bounds = bounds
        self.status = gui.add_markdown("")
        self.legend = gui.add_image(np.full((1, 1, 3), 255, np.uint8), visible=False)
        with gui.add_folder("Surface", visible=models):
            self.resolution = gui.add_slider("Resolution", *RESOLUTIONS, 8, 128)
            step = float(f"{bounds.diagonal / 1000:.0e}")
            self.iso = gui.add_slider("Iso level", -40 * step, 40 * step, step, 0.0)
        with gui.add_folder("Spectrum levels", visible=bool(levels)):
            self.levels = [gui.add_checkbox(name, True) for name in levels]
        with gui.add_folder("Plane"):
            self.cutting = gui.add_checkbox("Cut", False, hint="with the distance's contour lines")
            self.axis = gui.add_dropdown("Axis", ("x", "y", "z"), initial_value="z")
            self.offset = gui.add_slider("Offset", 0.0, 1.0, 0.01, 0.5)
        with gui.add_folder("View"):
            self.wireframe = gui.add_checkbox("Wireframe", False)
            self.lines = gui.add_checkbox("Lines", True, visible=lines)
            self.input = gui.add_checkbox("Input mesh", False, visible=reference)
            self.error = gui.add_checkbox("Error against the input", False, visible=reference)
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
            control.on_update(lambda _: changed())

    def settings(self) -> Settings:
        """The current values of the controls."""
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

    def _offset(self) -> float:
        """The plane's offset in world units. The slider from 0 to 1 spans the bounds."""
        axis = "xyz".index(self.axis.value)
        low, high = self.bounds.lower[axis], self.bounds.upper[axis]
        return low + float(self.offset.value) * (high - low)
