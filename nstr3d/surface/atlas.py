"""Textures of surfaces: a mesh is unwrapped on to a square, which is baked from the colours of its
shape."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.paint import barycentric
from nstr3d.sdf import Sdf
from nstr3d.types import Mesh

ROWS = 256  # rows of a picture that are baked at a time
MISSING = "Textures need xatlas: pip install 'nstr3d[texture]'."


@dataclass(frozen=True)
class Atlas:
    """A ``mesh`` cut along seams, the texture coordinates ``uv (v, 2)`` of its vertices in [0, 1]
    with v upward, and ``picture (h, w, 3)``, display RGB uint8 whose last row is at v = 0."""

    mesh: Mesh
    uv: np.ndarray
    picture: np.ndarray


def bake(sdf: Sdf, mesh: Mesh, size: int) -> Atlas:
    """The atlas of ``mesh``, a surface of ``sdf``, with a picture of ``size`` squared pixels.

    xatlas cuts and places the mesh. A pixel has the colour of the surface where the nearest
    triangle of the atlas shows it, so the gaps between the pieces continue them. Raises ValueError
    for a shape without colours, and ModuleNotFoundError without xatlas.
    """
    if sdf.paint is None:
        raise ValueError("This shape has no colours to bake; fit a file that has them.")
    cut, uv = unwrap(mesh)
    flat = MeshDistance(Mesh(np.column_stack([uv, np.zeros(len(uv))]), cut.faces))
    across = (np.arange(size) + 0.5) / size
    picture = np.empty((size, size, 3), np.uint8)
    for top in range(0, size, ROWS):
        down = 1 - across[top : top + ROWS]
        at = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
        places = np.column_stack([at, np.zeros(len(at))])
        _, face, closest = flat.nearest(places)
        weights = barycentric(flat.mesh.corners[face], closest)
        points = np.einsum("nc,ncd->nd", weights, cut.corners[face])
        colours = sdf.paint(_onto(sdf, torch.from_numpy(points))).detach().cpu().numpy()
        rows = np.round(colours * 255).astype(np.uint8)
        picture[top : top + ROWS] = rows.reshape(len(down), size, 3)
    return Atlas(cut, uv, picture)


def need_xatlas() -> None:
    """Raises ModuleNotFoundError, with one sentence, without xatlas."""
    if find_spec("xatlas") is None:
        raise ModuleNotFoundError(MISSING)


def unwrap(mesh: Mesh) -> tuple[Mesh, np.ndarray]:
    """``mesh`` cut along seams, with texture coordinates ``(v, 2)`` in [0, 1]. Raises
    ModuleNotFoundError without xatlas."""
    need_xatlas()
    import xatlas

    centred = (mesh.vertices - mesh.bounds.centre) / max(mesh.bounds.diagonal, 1e-300)
    kept, faces, uv = xatlas.parametrize(
        np.ascontiguousarray(centred, np.float32), np.ascontiguousarray(mesh.faces, np.uint32)
    )
    cut = Mesh(mesh.vertices[np.asarray(kept, np.int64)], np.asarray(faces, np.int64))
    return cut, np.asarray(uv, np.float64).clip(0, 1)


def _onto(sdf: Sdf, points: torch.Tensor) -> torch.Tensor:
    """``points (n, 3)`` of a mesh moved along the gradient to the surface, by one step."""
    value, slope = sdf.value_and_gradient(points)
    steep = slope.square().sum(dim=1, keepdim=True).clamp_min(1e-6)
    return points - (value[:, None] / steep * slope).to(points)
