"""A browser page that shows a fit during training."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from nstr3d.training.fit import Fit, Progress
from nstr3d.types import Mesh
from nstr3d.view.browser import LIVE_RESOLUTION, Page, free_port, import_viser
from nstr3d.view.scene import Shape

LIVE_SECONDS = 1.5  # between two drawings of a field in training


class LivePage:
    """A page that shows a fit during training.

    Pass `started` and `step` to a job's `Listener`, call `finished` at the end, and then `close`.
    The field's surface is extracted and drawn about every ``seconds``, at ``resolution`` cells
    along the longest side. Raises OSError, ModuleNotFoundError and ValueError as `Page` does.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        seconds: float = LIVE_SECONDS,
        resolution: int = LIVE_RESOLUTION,
    ):
        import_viser()
        self.seconds, self.resolution = seconds, resolution
        self.host, self.port = host, free_port(host, port)  # fails before any work is done
        self.page: Page | None = None
        self.fit: Fit | None = None
        self.looked = 0.0

    def started(self, fit: Fit) -> None:
        """Opens the page for a field that is about to be trained in place."""
        self.fit = fit
        box = fit.bounds
        corners = np.array([box.lower, box.upper, (box.upper[0], box.lower[1], box.lower[2])])
        name = str(fit.provenance.get("input", "fit"))
        self.page = Page(
            [Shape(name, Mesh(corners, np.array([[0, 1, 2]])), fit)],
            host=self.host,
            port=self.port,
            up=fit.up,
        )

    def step(self, progress: Progress) -> None:
        """Draws the field between two training steps if ``seconds`` have passed since the last
        drawing."""
        if (
            self.page is not None
            and self.fit is not None
            and time.monotonic() - self.looked > self.seconds
        ):
            self.page.training(self.fit, progress, self.resolution)
            self.looked = time.monotonic()

    def close(self) -> None:
        """Stops serving the page."""
        if self.page is not None:
            self.page.server.stop()

    def finished(self, fit: Fit) -> Page:
        """The page of the finished model with working controls; serve it with its ``run``. Raises
        ValueError if `started` was not called."""
        if self.page is None:
            raise ValueError("There is no page: training was never started.")
        self.page.shapes[0] = replace(self.page.shapes[0], fit=fit)
        self.page.restart()
        return self.page
