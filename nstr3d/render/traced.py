"""Sphere-traced pictures of an `Sdf`, which need neither a mesh nor a GPU driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nstr3d.kernels.field.fused import unchanged
from nstr3d.render.camera import Camera
from nstr3d.render.colours import GAMMA
from nstr3d.render.ground import Ground, Shade
from nstr3d.render.shading import Shading, Studio, Surface, Vector
from nstr3d.render.softlight import SoftLight
from nstr3d.sdf import Sdf
from nstr3d.surface.emptyspace import EmptySpace
from nstr3d.surface.trace import sphere_trace
from nstr3d.types import Rays, expect

THIN = 0.5  # parts thinner along a ray than this fraction of a pixel may be missed
CHUNK = 1 << 18  # rays that are traced at a time


@dataclass(frozen=True)
class Backdrop:
    """Linear RGB behind the surface, in the ``middle`` of the picture and in its ``corners``."""

    middle: Vector = (0.90, 0.90, 0.90)
    corners: Vector = (0.62, 0.62, 0.62)

    def colours(self, camera: Camera, which: Tensor) -> Tensor:
        """Display RGB ``(m, 3)`` of the pixels ``which (m,)``.

        The colour changes smoothly from the middle to the corners.
        """
        x = 2 * (which % camera.width + 0.5) / camera.width - 1
        y = 2 * (which // camera.width + 0.5) / camera.height - 1
        fraction = ((x * x + (y + 0.2) ** 2) / 2.44).to(torch.float64)[:, None]
        middle, corners = (fraction.new_tensor(colour) for colour in (self.middle, self.corners))
        return (middle * (1 - fraction) + corners * fraction).clamp(0, 1) ** (1 / GAMMA)


STUDIO, GREY = Studio(), Backdrop()


@dataclass(frozen=True)
class RenderConfig:
    """The shading, the background and the anti-aliasing of a picture.

    Without a ``backdrop`` the background is transparent: the picture is RGBA with straight alpha.
    With a ``ground`` and a backdrop, the shape casts a soft shadow on the ground below it.
    If the 3 x 3 neighbourhood of a pixel varies by more than ``contrast``, the pixel is the mean of
    ``samples_per_axis`` squared rays; every other pixel is one ray. Raises ValueError if
    ``samples_per_axis`` is below 1 or ``contrast`` is negative.
    """

    shading: Shading = STUDIO
    backdrop: Backdrop | None = GREY
    samples_per_axis: int = 2
    contrast: float = 0.12
    ground: Ground | None = None

    def __post_init__(self):
        if self.samples_per_axis < 1 or not self.contrast >= 0:
            values = f"{self.samples_per_axis} and {self.contrast}"
            raise ValueError(
                "rendering needs samples_per_axis of at least 1 and a contrast of at least 0, "
                f"not {values}"
            )


@dataclass(frozen=True)
class Buffers:
    """The depth and the normals that a camera measures, float32.

    ``depth (h, w)`` is along each ray in world units, infinite on a miss. ``normals (h, w, 3)`` are
    unit outward normals, zero on a miss.
    """

    depth: np.ndarray
    normals: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Where the camera sees the surface, ``(h, w)`` bool."""
        return np.isfinite(self.depth)


def render(
    sdf: Sdf,
    camera: Camera,
    config: RenderConfig | None = None,
    device: torch.device | str = "cpu",
    chunk: int = CHUNK,
) -> np.ndarray:
    """The picture ``(height, width, 3)`` float32 in [0, 1] that ``camera`` takes of ``sdf``.

    It has 4 channels if there is no backdrop. ``chunk`` rays are traced at a time on ``device``;
    for MPS, which has no float64, on the CPU. Raises ValueError if a pinhole camera stands on or
    inside the surface, or ``chunk`` is below 1.
    """
    return next(turntable(sdf, [camera], config, device, chunk))


def tracing_device(device: torch.device | str) -> torch.device:
    """``device``, or the CPU in place of a device without float64, in which rays are traced; the
    field may stay on the device."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def turntable(
    sdf: Sdf,
    cameras: Sequence[Camera],
    config: RenderConfig | None = None,
    device: torch.device | str = "cpu",
    chunk: int = CHUNK,
) -> Iterator[np.ndarray]:
    """The pictures of many cameras, one at a time, as `render` takes them.

    The empty space of ``sdf`` and its shadow on the ground are measured once.
    """
    empty, config = EmptySpace.of(sdf, tracing_device(device)), config or RenderConfig()
    shades: dict[tuple[float, ...], Shade] = {}  # by the axis that points up
    for camera in cameras:
        with unchanged():
            view = _View(sdf, camera, config, empty, chunk)
            if config.ground is not None and config.backdrop is not None:
                if camera.up not in shades:
                    shades[camera.up] = Shade(config.ground, sdf, view.up)
                view.shade = shades[camera.up]
            picture = view.picture()
        yield picture


@unchanged()
def measure(
    sdf: Sdf, camera: Camera, device: torch.device | str = "cpu", chunk: int = CHUNK
) -> Buffers:
    """The depth and the normals that ``camera`` sees of ``sdf``.

    Raises ValueError if a pinhole camera stands on or inside the surface, or ``chunk`` is below 1.
    """
    sdf = replace(sdf, cast=None)  # whose normals are for shading
    device = tracing_device(device)
    view = _View(sdf, camera, RenderConfig(), EmptySpace.of(sdf, device), chunk)
    rays = camera.rays(device)
    depth = torch.full_like(rays.origins[:, 0], torch.inf)
    normals = torch.zeros_like(rays.origins)
    for which in torch.arange(len(depth), device=depth.device).split(chunk):
        hit, seen = view.trace_surface(Rays(rays.origins[which], rays.directions[which]))
        depth[which[hit]], normals[which[hit]] = seen.depth, seen.normals
    shape = camera.height, camera.width
    return Buffers(
        depth.float().cpu().numpy().reshape(shape), normals.float().cpu().numpy().reshape(*shape, 3)
    )


def side_by_side(images: Sequence[np.ndarray], gap: int = 8) -> np.ndarray:
    """Pictures ``(h, w_i, 3)`` of one height in a row, with ``gap`` white pixels between them.

    Raises ValueError if there are no pictures or their heights differ.
    """
    if not images or len({image.shape[0] for image in images}) != 1:
        heights = [image.shape[0] for image in images]
        raise ValueError(f"pictures side by side need one common height, not {heights}")
    spacer = np.ones((images[0].shape[0], gap, 3), np.float32)
    row = [part for image in images for part in (spacer, image.astype(np.float32))]
    return np.concatenate(row[1:], axis=1)


class _View:
    """One picture in progress. Colours are RGBA ``(n, 4)``, premultiplied by their coverage."""

    shade: Shade | None = None

    def __init__(
        self, sdf: Sdf, camera: Camera, config: RenderConfig, empty: EmptySpace, chunk: int
    ) -> None:
        expect(camera, Camera, "camera")
        if chunk < 1:
            raise ValueError(f"rendering needs a chunk of at least 1 ray, not {chunk}")
        self.sdf, self.camera, self.config, self.empty, self.chunk = (
            sdf,
            camera,
            config,
            empty,
            chunk,
        )
        self.device = empty.origin.device
        self.axes = torch.tensor(camera.axes, device=self.device)
        self.light = SoftLight(camera.height, camera.width, self.device)
        up = torch.tensor(camera.up, dtype=torch.float64, device=self.device)
        self.up = up / up.norm()
        if camera.span is None:
            with torch.no_grad():
                height = float(
                    sdf(torch.tensor([camera.eye], dtype=torch.float64, device=self.device))
                )
            if height <= 0:
                raise ValueError(
                    f"The camera at {camera.eye} stands on or inside the surface (distance "
                    f"{height:.3g}); move it."
                )
        signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
        corners = sdf.bounds.centre + signs * sdf.bounds.extent - camera.eye
        reach = (
            np.linalg.norm(corners, axis=1) if camera.span is None else -corners @ camera.axes[2]
        )
        self.span = float(reach.min()), float(reach.max())

    def picture(self) -> np.ndarray:
        """The picture: one ray for each pixel, then more rays where neighbours differ."""
        camera, fine = self.camera, self.config.samples_per_axis
        order = self.light.order(camera.width).to(self.device)
        pixels = torch.empty(len(order), 4, dtype=torch.float64, device=self.device)
        pixels[order] = self.colours(camera, order)
        if fine > 1 and len(rough := self.rough(pixels)):
            pixels[rough] = self.supersampled(rough, fine)
        if self.config.backdrop is None:
            pixels = torch.cat(
                [pixels[:, :3] / pixels[:, 3:].clamp_min(1e-9), pixels[:, 3:]], dim=1
            )
        pixels = pixels if self.config.backdrop is None else pixels[:, :3]
        return pixels.clamp(0, 1).float().reshape(camera.height, camera.width, -1).cpu().numpy()

    def rough(self, pixels: Tensor) -> Tensor:
        """The pixels ``(m,)`` whose 3 x 3 neighbourhood varies by more than the contrast."""
        height, width = self.camera.height, self.camera.width
        image = pixels.float().reshape(1, height, width, 4).permute(0, 3, 1, 2)
        padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
        highest = torch.nn.functional.max_pool2d(padded, 3, 1)
        lowest = -torch.nn.functional.max_pool2d(-padded, 3, 1)
        return torch.nonzero(
            (highest - lowest).amax(dim=1).reshape(-1) > self.config.contrast
        ).squeeze(1)

    def supersampled(self, which: Tensor, fine: int) -> Tensor:
        """The mean RGBA ``(m, 4)`` of ``fine`` squared rays in each pixel of ``which (m,)``."""
        camera = replace(
            self.camera, width=self.camera.width * fine, height=self.camera.height * fine
        )
        row, column = which // self.camera.width, which % self.camera.width
        steps = torch.arange(fine, device=self.device)
        inner = (
            (row[:, None, None] * fine + steps[:, None]) * camera.width
            + column[:, None, None] * fine
            + steps
        )
        return (
            self.colours(camera, inner.reshape(-1)).reshape(len(which), fine * fine, 4).mean(dim=1)
        )

    def colours(self, camera: Camera, which: Tensor) -> Tensor:
        """RGBA ``(m, 4)`` along the rays ``which (m,)`` of ``camera``.

        ``camera`` has the pose of this picture's camera and any resolution.
        """
        return torch.cat([self._shade(camera, part) for part in which.split(self.chunk)])

    def _shade(self, camera: Camera, which: Tensor) -> Tensor:
        rays = camera.rays(self.device, which)
        hit, seen = self.trace_surface(rays)
        seen = replace(seen, light=self.light, at=self._places(camera, which[hit]))
        colours = self._behind(camera, which)
        if self.shade is not None:
            colours[:, :3] *= self.shade.light(rays)[:, None]
        if len(seen.points):
            colours[hit] = torch.cat(
                [self.config.shading.colours(seen), torch.ones_like(seen.depth)[:, None]], dim=1
            )
        return colours

    def trace_surface(self, rays: Rays) -> tuple[Tensor, Surface]:
        """Trace ``rays``; return the mask ``(n,)`` of the hits and the surface at the hits."""
        sdf = self.sdf
        hit, depth, normals, steepness = self._cast(rays) if sdf.cast else self._trace(rays)
        directions = rays.directions[hit]
        points = torch.addcmul(rays.origins[hit], depth[:, None], directions)
        frame = self.axes, self.up, self.span
        seen = Surface(sdf, self.empty, *frame, points, normals, steepness, directions, depth)
        return hit, replace(seen, pixel=self.camera.pixel)

    def _cast(self, rays: Rays) -> tuple[Tensor, ...]:
        """The mask ``(n,)`` of the hits, and their depth, normals and steepness, without steps."""
        depth, normals = self.sdf.cast(rays)  # type: ignore[misc]
        hit = depth.isfinite()
        return hit, depth[hit], normals[hit], torch.ones_like(depth[hit])

    def _trace(self, rays: Rays) -> tuple[Tensor, ...]:
        """What `_cast` returns, by sphere tracing."""
        hits = sphere_trace(self.sdf, rays, footprint=THIN * self.camera.pixel, empty=self.empty)
        points, directions = hits.points[hits.mask], rays.directions[hits.mask]
        # An exact distance has no safe gradient on the surface; a little before it, it has one.
        before = points - 3e-5 * self.sdf.bounds.diagonal * directions
        slope = self.sdf.gradient(before).to(points.dtype) if len(points) else points
        steepness = slope.norm(dim=-1).clamp_min(1e-12)
        return hits.mask, hits.depth[hits.mask], slope / steepness[:, None], steepness

    def _places(self, camera: Camera, which: Tensor) -> Tensor:
        """Rows and columns ``(m, 2)`` in this picture of pixels ``which (m,)`` of ``camera``."""
        places = torch.stack([which // camera.width, which % camera.width], dim=1).double()
        return (places + 0.5) / (camera.width / self.camera.width) - 0.5

    def _behind(self, camera: Camera, which: Tensor) -> Tensor:
        """The RGBA ``(m, 4)`` of the background at the pixels ``which (m,)``."""
        if self.config.backdrop is None:
            return torch.zeros(len(which), 4, dtype=torch.float64, device=self.device)
        colours = self.config.backdrop.colours(camera, which)
        return torch.cat([colours, torch.zeros_like(colours[:, :1])], dim=1)
