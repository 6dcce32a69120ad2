"""Pictures of an `Sdf`: sphere traced, lit like in a studio, needing neither a mesh nor a GPU driver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nstr3d.sdf import Sdf
from nstr3d.trace import EmptySpace, sphere_trace
from nstr3d.types import Camera, Rays

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """A distant light: the ``direction`` towards it as (right, up, towards the camera), and its linear RGB ``colour``."""

    direction: Vector
    colour: Vector


@dataclass(frozen=True)
class RenderConfig:
    """The studio. Colours are linear RGB; lights turn with the camera, the ambient light's sky and ground do not.

    ``occlusion_taps`` distances along the normal, up to ``occlusion_reach`` diagonals of the bounds, darken hollows;
    ``background`` is the grey of the middle and of the corners.
    ``shadow_steps`` steps towards the key light cast its shadow, the softer the larger ``shadow_softness`` (the tangent of the
    light's half angle). 0 turns either off. A pixel is the mean of ``samples_per_axis`` squared rays.
    """

    albedo: Vector = (0.66, 0.62, 0.57)
    key: Light = Light((-0.55, 0.75, 0.70), (1.00, 0.95, 0.88))
    fill: Light = Light((0.90, 0.15, 0.55), (0.17, 0.20, 0.25))
    rim: Light = Light((0.45, 0.55, -0.80), (0.42, 0.45, 0.50))
    sky: Vector = (0.30, 0.32, 0.35)
    ground: Vector = (0.16, 0.14, 0.13)
    gloss: float = 0.10
    background: tuple[float, float] = (0.90, 0.62)
    occlusion_taps: int = 4
    occlusion_reach: float = 0.06
    shadow_steps: int = 16
    shadow_softness: float = 0.12
    gamma: float = 2.2
    samples_per_axis: int = 1


def render(
    sdf: Sdf,
    camera: Camera,
    config: RenderConfig | None = None,
    device: torch.device | str = "cpu",
    chunk: int = 1 << 18,
) -> np.ndarray:
    """The picture ``(height, width, 3)`` float32 in [0, 1] that ``camera`` takes of ``sdf``.

    Works on ``chunk`` rays at a time on ``device``. Raises ValueError for less than one sample per pixel.
    """
    config = config or RenderConfig()
    fine = config.samples_per_axis
    if fine < 1 or chunk < 1:
        raise ValueError(f"rendering needs samples_per_axis and chunk of at least 1, not {fine} and {chunk}")
    dense = replace(camera, width=camera.width * fine, height=camera.height * fine)
    rays = dense.rays(device)
    # Small against a pixel's radius at depth 1: a ray that only passes a sharp edge has to miss it.
    footprint = math.tan(math.radians(camera.fov) / 2) / dense.height / 32
    studio = _Studio(sdf, camera, config, device)
    backdrop = _backdrop(dense.width, dense.height, config).to(device)
    parts = zip(rays.origins.split(chunk), rays.directions.split(chunk), backdrop.split(chunk))
    colours = [studio.colours(Rays(origins, directions), behind, footprint) for origins, directions, behind in parts]
    pixels = torch.cat(colours).clamp(0, 1) ** (1 / config.gamma)
    mean = pixels.reshape(camera.height, fine, camera.width, fine, 3).mean(dim=(1, 3))
    return mean.to(torch.float32).cpu().numpy()


def side_by_side(images: Sequence[np.ndarray], gap: int = 8) -> np.ndarray:
    """Pictures ``(h, w_i, 3)`` of one height in a row, ``gap`` white pixels between them.

    Raises ValueError where there is none, or the heights differ.
    """
    if not images or len({image.shape[0] for image in images}) != 1:
        heights = [image.shape[0] for image in images]
        raise ValueError(f"pictures side by side need one common height, not {heights}")
    spacer = np.ones((images[0].shape[0], gap, 3), np.float32)
    row = [part for image in images for part in (spacer, image.astype(np.float32))]
    return np.concatenate(row[1:], axis=1)


def _backdrop(width: int, height: int, config: RenderConfig) -> Tensor:
    """Linear grey ``(height * width, 3)``, bright behind the middle and falling off towards the corners."""
    y = torch.linspace(-1, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, width, dtype=torch.float64)[None, :]
    middle, corner = config.background
    grey = middle + (corner - middle) * (x * x + (y + 0.2) ** 2) / 2.44
    return grey.reshape(-1, 1).repeat(1, 3)


class _Studio:
    """Lights placed about a camera, and the shading of what its rays hit."""

    def __init__(
        self,
        sdf: Sdf,
        camera: Camera,
        config: RenderConfig,
        device: torch.device | str,
    ) -> None:
        self.sdf, self.config, self.device = sdf, config, device
        self.empty = EmptySpace.of(sdf, device)
        self.up = self._unit(camera.up)
        backward = self._unit(np.subtract(camera.eye, camera.target).tolist())
        right = torch.linalg.cross(self.up, backward)
        right = right / right.norm()
        self.axes = torch.stack([right, torch.linalg.cross(backward, right), backward])

    def colours(self, rays: Rays, behind: Tensor, footprint: float) -> Tensor:
        """Linear RGB ``(n, 3)`` of what the rays hit, and ``behind (n, 3)`` where they hit nothing."""
        hits = sphere_trace(self.sdf, rays, footprint=footprint, empty=self.empty)
        colours = behind.clone()
        points, directions = hits.points[hits.mask], rays.directions[hits.mask]
        if len(points):
            # On the surface itself an exact distance has no safe gradient; a little before it, it has.
            before = points - 3e-5 * self.sdf.bounds.diagonal * directions
            slope = self.sdf.gradient(before).to(points.dtype)
            steepness = slope.norm(dim=-1).clamp_min(1e-12)
            colours[hits.mask] = self.shade(points, slope / steepness[:, None], steepness, directions)
        return colours

    def shade(self, points: Tensor, normals: Tensor, steepness: Tensor, directions: Tensor) -> Tensor:
        """Linear RGB ``(n, 3)`` of surface points with unit ``normals`` seen along unit ``directions``.

        ``steepness (n,)`` is the gradient's length at the points: distances nearby are taken in units of it.
        """
        config = self.config
        # A tap below the surface would darken it: seen from the back, a normal is turned towards the eye.
        facing = (normals * directions).sum(dim=-1, keepdim=True)
        normals = torch.where(facing > 0, normals - 2 * facing * directions, normals)
        open_sky = self.openness(points, normals, steepness)[:, None]
        above = 0.5 + 0.5 * (normals @ self.up)[:, None]
        light = (self._row(config.ground) * (1 - above) + self._row(config.sky) * above) * open_sky
        key = self._towards(config.key)
        shadow = self.shadow(points, normals, steepness, key)[:, None]
        lit = (normals @ key).clamp_min(0)[:, None] * shadow
        light = light + lit * self._row(config.key.colour)
        # The fill light is a broad panel: it wraps around the terminator, and hollows see less of it.
        fill = (0.75 * (normals @ self._towards(config.fill)) + 0.25).clamp_min(0)[:, None]
        light = light + fill * open_sky * self._row(config.fill.colour)
        grazing = (1 + (normals * directions).sum(dim=-1, keepdim=True)).clamp(0, 1)
        rim = (normals @ self._towards(config.rim)).clamp_min(0)[:, None] * grazing**2
        light = light + 2 * rim * open_sky * self._row(config.rim.colour)
        half = key - directions
        half = half / half.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        shine = (normals * half).sum(dim=-1, keepdim=True).clamp_min(0) ** 48 * lit
        return light * self._row(config.albedo) + config.gloss * shine * self._row(config.key.colour)

    def openness(self, points: Tensor, normals: Tensor, steepness: Tensor) -> Tensor:
        """How much of the sky each point sees ``(n,)``, in [0, 1]: near walls, distance falls short of height."""
        taps = self.config.occlusion_taps
        blocked, total = torch.zeros_like(points[:, 0]), 0.0
        for tap in range(1, taps + 1):
            height = self.config.occlusion_reach * self.sdf.bounds.diagonal * (tap / taps) ** 2
            weight = 0.75**tap
            free = self._distance(points + height * normals) / (height * steepness)
            blocked += weight * (1 - free).clamp(0, 1)
            total += weight
        return (1 - blocked / total).clamp(0, 1) ** 1.5 if taps else torch.ones_like(blocked)

    def shadow(self, points: Tensor, normals: Tensor, steepness: Tensor, towards: Tensor) -> Tensor:
        """How much of a light each point sees ``(n,)``, in [0, 1]: the narrowest clearance on the way, over its travel.

        Quilez, "Soft shadows in raymarched SDFs".
        """
        size = self.sdf.bounds.diagonal
        seen = torch.ones_like(points[:, 0])
        # Lifted off the surface, so that the surface does not shade itself; what faces away is dark already.
        start = points + 0.004 * size * normals
        travel = torch.full_like(seen, 0.01 * size)
        active = torch.nonzero(normals @ towards > 0).squeeze(1)
        for _ in range(self.config.shadow_steps):
            if not len(active):
                break
            along = travel[active]
            at = start[active] + along[:, None] * towards
            # Where the coarse grid already promises enough room for the whole light, it need not be measured.
            clear = self.empty.at(at)
            tight = torch.nonzero(clear < torch.clamp(self.config.shadow_softness * along, min=0.02 * size)).squeeze(1)
            clear[tight] = self._distance(at[tight]) / steepness[active[tight]]
            ratio = 0.5 + 0.5 * clear / (self.config.shadow_softness * along)
            seen[active] = torch.minimum(seen[active], ratio.clamp(0, 1))
            travel[active] = along + clear.clamp(0.01 * size, 0.1 * size)
            active = active[(seen[active] > 0) & (travel[active] < size / 2)]
        return seen * seen * (3 - 2 * seen)

    def _distance(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            return self.sdf(points).to(points.dtype)

    def _towards(self, light: Light) -> Tensor:
        return self._unit(light.direction) @ self.axes

    def _unit(self, vector: Sequence[float]) -> Tensor:
        row = self._row(vector)
        return row / row.norm()

    def _row(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.device)
