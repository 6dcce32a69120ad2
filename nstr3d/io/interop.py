"""Conversion to and from the types of Open3D and trimesh, and a callable for kaolin's voxel grids.

Vertices and faces keep their order, orientation and double precision. No vertices are merged and no
faces repaired.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from nstr3d.io.lines import joined
from nstr3d.sdf import Sdf
from nstr3d.types import Box, Mesh, PointCloud, Polylines

ROUNDING = 1e-6  # sides of a cube; a smaller rounding error of its points does not show


def to_open3d(mesh: Mesh, colours: np.ndarray | None = None) -> Any:
    """``mesh`` as an ``open3d.geometry.TriangleMesh``.

    ``colours (v, 3)`` in [0, 1] are optional colours of the vertices. Raises ModuleNotFoundError if
    Open3D cannot be imported, and ValueError for colours of another shape or range.
    """
    open3d = import_open3d()
    _check_colours(mesh, colours)
    result = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(np.ascontiguousarray(mesh.vertices, np.float64)),
        open3d.utility.Vector3iVector(np.ascontiguousarray(mesh.faces, np.int32)),
    )
    if colours is not None:
        result.vertex_colors = open3d.utility.Vector3dVector(
            np.ascontiguousarray(colours, np.float64)
        )
    return result


def from_open3d(mesh: Any) -> Mesh:
    """The `Mesh` of an ``open3d.geometry.TriangleMesh``, or of the tensor-based
    ``open3d.t.geometry.TriangleMesh``."""
    if hasattr(mesh, "to_legacy"):
        mesh = mesh.to_legacy()
    return Mesh(
        np.array(mesh.vertices, np.float64).reshape(-1, 3),
        np.array(mesh.triangles, np.int64).reshape(-1, 3),
    )


def line_set(lines: Polylines, colours: np.ndarray | None = None) -> Any:
    """``lines`` as an ``open3d.geometry.LineSet``.

    ``colours (n, 3)`` in [0, 1] are optional colours of the points; a segment gets the mean colour
    of its two ends. Raises ValueError for lines that are not in 3 dimensions, and
    ModuleNotFoundError if Open3D cannot be imported.
    """
    if lines.points.shape[1] != 3:
        raise ValueError(f"A line set holds lines in 3 dimensions, not {lines.points.shape[1]}.")
    open3d = import_open3d()
    segments = lines.segments
    result = open3d.geometry.LineSet(
        open3d.utility.Vector3dVector(np.ascontiguousarray(lines.points, np.float64)),
        open3d.utility.Vector2iVector(segments.astype(np.int32)),
    )
    if colours is not None:
        result.colors = open3d.utility.Vector3dVector(
            colours[segments].mean(axis=1).astype(np.float64)
        )
    return result


def from_line_set(lines: Any) -> Polylines:
    """The `Polylines` of an ``open3d.geometry.LineSet``. Successive segments that share a point
    become one line; see `joined`."""
    points, ends = (
        np.array(lines.points, np.float64).reshape(-1, 3),
        np.array(lines.lines, np.int64).reshape(-1, 2),
    )
    order, starts = joined(ends)
    return Polylines(points[order], starts)


def to_trimesh(mesh: Mesh, colours: np.ndarray | None = None) -> Any:
    """``mesh`` as a ``trimesh.Trimesh`` made with ``process=False``. ``colours (v, 3)`` in [0, 1]
    are optional colours of the vertices. Raises ValueError for colours of another shape or
    range."""
    import trimesh

    _check_colours(mesh, colours)
    shades = (
        None
        if colours is None
        else np.round(np.column_stack([colours, np.ones(len(colours))]) * 255).astype(np.uint8)
    )
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=shades, process=False)


def from_trimesh(mesh: Any) -> Mesh:
    """The `Mesh` of a ``trimesh.Trimesh``."""
    return Mesh(np.array(mesh.vertices, np.float64), np.array(mesh.faces, np.int64))


def as_mesh(source: Any) -> Mesh:
    """The `Mesh` of a `Mesh`, a pair of vertices ``(v, 3)`` and faces ``(f, 3)``, a
    ``trimesh.Trimesh``, a scene of trimesh, or a triangle mesh of Open3D.

    Raises TypeError for another object, and ValueError for arrays of another shape.
    """
    if isinstance(source, Mesh):
        return source
    if hasattr(source, "to_mesh"):  # a scene of trimesh
        return from_trimesh(source.to_mesh())
    if hasattr(source, "vertices") and hasattr(source, "faces"):
        return from_trimesh(source)
    if hasattr(source, "to_legacy") or hasattr(source, "triangles"):
        return from_open3d(source)
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        raise TypeError(
            f"a mesh is a path, a Mesh, a pair (vertices, faces) or a mesh of trimesh or Open3D, "
            f"not {type(source).__name__}"
        )
    vertices, faces = _rows(source[0], "vertices", (3,)), np.asarray(_array(source[1]))
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise ValueError(f"faces are integers (f, 3), not {faces.dtype} {faces.shape}")
    return Mesh(vertices, faces.astype(np.int64))


def as_cloud(source: Any) -> PointCloud:
    """The `PointCloud` of a `PointCloud`, points ``(n, 3)``, points with normals ``(n, 6)``, a pair
    of these, or a cloud of trimesh or Open3D.

    Raises TypeError for another object, and ValueError for arrays of another shape.
    """
    if isinstance(source, PointCloud):
        return source
    if hasattr(source, "to_legacy"):
        source = source.to_legacy()
    if hasattr(source, "points"):  # Open3D
        normals = np.asarray(source.normals) if len(getattr(source, "normals", ())) else None
        source = np.asarray(source.points) if normals is None else (source.points, normals)
    elif hasattr(source, "vertices"):  # a PointCloud of trimesh
        source = np.asarray(source.vertices)
    if isinstance(source, tuple) and len(source) == 2 and np.ndim(source[0]) == 2:
        points, normals = (_rows(each, "points and normals", (3,)) for each in source)
        if len(points) != len(normals):
            raise ValueError(f"{len(points)} points have {len(normals)} normals")
        return PointCloud(points, normals)
    rows = _rows(source, "points", (3, 6))
    return PointCloud(rows[:, :3], rows[:, 3:] if rows.shape[1] == 6 else None)


def _array(values: Any) -> Any:
    """``values``, as a NumPy array if they are a torch tensor."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _rows(values: Any, what: str, widths: tuple[int, ...]) -> np.ndarray:
    """``values`` as a float64 array ``(n, w)`` whose w is one of ``widths``."""
    values = _array(values)
    try:
        rows = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} are an array of numbers, not {type(values).__name__}") from error
    if rows.ndim != 2 or rows.shape[1] not in widths:
        wanted = " or ".join(f"(n, {width})" for width in widths)
        raise ValueError(f"{what} have the shape {wanted}, not {rows.shape}")
    return rows


def cube_sdf(
    sdf: Sdf, bounds: Box | None = None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """``sdf`` on the cube [-1/2, 1/2]^3, which kaolin's voxel grids span by default.

    Returns two functions. The first maps torch points ``(..., 3)`` of the cube to signed distances
    ``(...)`` in units of the cube's side, negative inside and differentiable. The second maps
    points ``(..., 3)`` of the cube to world points; these are float64 if single precision would
    move them visibly, as it does far from the origin. The cube encloses ``bounds``, by default the
    bounds of ``sdf`` enlarged by 5%. For world points, use the `Sdf` itself.
    """
    box = bounds or sdf.bounds.scaled(1.05)
    side = float(box.extent.max())
    reach = np.abs([box.lower, box.upper]).max().astype(np.float32)
    wide = bool(np.spacing(reach) > ROUNDING * side)

    def to_world(points: Tensor) -> Tensor:
        points = points.double() if wide else points
        return points * side + points.new_tensor(box.centre.tolist())

    def distance(points: Tensor) -> Tensor:
        return (sdf(to_world(points).reshape(-1, 3)) / side).reshape(points.shape[:-1]).to(points)

    return distance, to_world


def import_open3d() -> Any:
    """The module open3d. Raises ModuleNotFoundError with one sentence if it cannot be imported."""
    try:
        import open3d  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:  # a missing system library is an OSError
        raise ModuleNotFoundError(
            f"Open3D could not be imported ({error}): pip install 'nstr3d[open3d]'; on Linux it "
            "also needs "
            "libusb-1.0-0, libgl1, libegl1, libgomp1 and libx11-6."
        ) from error
    return open3d


def _check_colours(mesh: Mesh, colours: np.ndarray | None) -> None:
    if colours is not None and (
        colours.shape != mesh.vertices.shape or not (colours.min() >= 0 and colours.max() <= 1)
    ):
        raise ValueError(
            f"{len(mesh.vertices)} vertices take colours (v, 3) in [0, 1], not {colours.shape}."
        )
