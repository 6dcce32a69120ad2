"""Pictures of a mesh by OpenGL, through pyrender.

They are an independent check of the sphere tracer, and fast previews of large meshes. They need the
extra ``render`` and OpenGL; on Linux they need EGL, which needs no display.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.normals import corner_normals
from nstr3d.io.meshformats import CLAY
from nstr3d.render.camera import Camera
from nstr3d.render.colours import GAMMA
from nstr3d.render.shading import Light
from nstr3d.render.traced import GREY, STUDIO, Backdrop
from nstr3d.system import one_line, prepare_opengl
from nstr3d.types import Mesh

NEAREST = 1e-3  # least depth of the near plane, in diagonals of the mesh


@dataclass(frozen=True)
class MeshPicture:
    """A picture of a mesh and its depth, in the formats of `render` and `measure`.

    ``picture (h, w, 3)`` is float32 in [0, 1], with 4 channels if there is no backdrop.
    ``depth (h, w)`` is float32, in world units along the ray through each pixel's centre, infinite
    where there is no mesh.
    """

    picture: np.ndarray
    depth: np.ndarray


def rasterise(
    mesh: Mesh, camera: Camera, colours: np.ndarray | None = None, backdrop: Backdrop | None = GREY
) -> MeshPicture:
    """The anti-aliased picture that ``camera`` takes of ``mesh``.

    The light is that of `render.shading.Studio`, without shadows. ``colours (v, 3)`` are display
    RGB of the vertices; the default is grey. Both sides of a face are drawn. Raises ValueError if
    the colours do not fit, the mesh has no faces, or a perspective camera is so near to the mesh
    that it would see through it, and ModuleNotFoundError if pyrender or OpenGL cannot be loaded.
    """
    return next(raster_turntable(mesh, [camera], colours, backdrop))


def raster_turntable(
    mesh: Mesh,
    cameras: Sequence[Camera],
    colours: np.ndarray | None = None,
    backdrop: Backdrop | None = GREY,
) -> Iterator[MeshPicture]:
    """The pictures of `rasterise` for many cameras, one at a time; the mesh is uploaded once."""
    if not len(mesh.faces):
        raise ValueError("A mesh without faces cannot be drawn.")
    if colours is not None and (
        colours.shape != mesh.vertices.shape or not (colours.min() >= 0 and colours.max() <= 1)
    ):
        raise ValueError(
            f"A mesh of {len(mesh.vertices)} vertices takes colours (v, 3) in [0, 1], not "
            f"{colours.shape}."
        )
    pyrender = import_pyrender()
    # Centred and scaled to its size, the mesh needs only single precision, wherever it lies in the
    # world.
    place = _Place(tuple(mesh.bounds.centre.tolist()), max(mesh.bounds.diagonal, 1e-300))
    surface = pyrender.Mesh([_primitive(pyrender, mesh, place, colours)])
    # pyrender measures depth on front faces only, so the backs are the fronts of a second mesh.
    backs = pyrender.Mesh([_primitive(pyrender, Mesh(mesh.vertices, mesh.faces[:, ::-1]), place)])
    renderer, size = None, None
    try:
        for camera in cameras:
            if (camera.width, camera.height) != size:
                if renderer is not None:
                    renderer.delete()
                renderer, size = (
                    _renderer(pyrender, camera.width, camera.height),
                    (camera.width, camera.height),
                )
            _check_distance(mesh, camera, place)
            sides = surface, backs
            yield _take_picture(pyrender, renderer, sides, mesh, camera, place, backdrop)
    finally:
        if renderer is not None:
            renderer.delete()


@dataclass(frozen=True)
class _Place:
    """The origin and the unit of length of the OpenGL scene, in world units."""

    centre: tuple[float, float, float]
    scale: float

    def of(self, points: Any) -> np.ndarray:
        return np.subtract(points, self.centre) / self.scale


def _take_picture(
    pyrender: Any,
    renderer: Any,
    sides: tuple[Any, Any],
    mesh: Mesh,
    camera: Camera,
    place: _Place,
    backdrop: Backdrop | None,
) -> MeshPicture:
    near, far = _range(mesh, camera, place)
    # The background is transparent black, so edge colours are premultiplied by their coverage.
    scene = pyrender.Scene(
        bg_color=[0.0, 0.0, 0.0, 0.0], ambient_light=np.add(STUDIO.sky, STUDIO.ground) / 4
    )
    nodes = [scene.add(side) for side in sides]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = camera.axes.T, place.of(camera.eye)
    scene.add(_lens(pyrender, camera, place, near, far), pose=pose)
    for light in (STUDIO.key, STUDIO.fill, STUDIO.rim):
        scene.add(pyrender.DirectionalLight(light.colour, math.pi), pose=_aim(light, camera))
    flags = pyrender.RenderFlags
    # Segmentation samples at the centres of the pixels, as the tracer does. Pictures sample at four
    # points about each centre.
    _, depth = renderer.render(scene, flags.SEG, dict.fromkeys(nodes, (255, 255, 255)))
    # Pictures show both sides of the first mesh. The second one moves behind the camera, because
    # a scene without it would upload it anew for the next picture.
    away = np.eye(4)
    away[:3, 3] = camera.axes[2] * (float(np.linalg.norm(place.of(camera.eye))) + 1)
    scene.set_pose(nodes[1], away)
    colour = renderer.render(scene, flags.RGBA)[0] / 255.0
    if backdrop is None:
        picture = np.concatenate(
            [colour[..., :3] / np.maximum(colour[..., 3:], 1e-9), colour[..., 3:]], axis=2
        )
    else:
        behind = (
            backdrop.colours(camera, torch.arange(camera.width * camera.height))
            .numpy()
            .reshape(*depth.shape, 3)
        )
        picture = colour[..., :3] + (1 - colour[..., 3:]) * behind
    along = _along(depth.astype(np.float64), camera, near, far) * place.scale
    return MeshPicture(picture.clip(0, 1).astype(np.float32), along.astype(np.float32))


def _check_distance(mesh: Mesh, camera: Camera, place: _Place) -> None:
    """Raises ValueError if a part of the mesh may be nearer to a perspective camera than the near
    plane, which would cut a hole in it."""
    if camera.span is not None:
        return
    height = math.tan(math.radians(camera.fov) / 2)
    corner = math.hypot(1, height, height * camera.width / camera.height)
    least = NEAREST * corner * place.scale
    eye, box = np.array([camera.eye]), mesh.bounds
    if (eye < np.subtract(box.lower, least)).any() or (eye > np.add(box.upper, least)).any():
        return
    distance = float(MeshDistance(mesh).unsigned(eye)[0])
    if distance < least:
        raise ValueError(
            f"The camera at {camera.eye} is {distance:.3g} from the mesh; OpenGL draws it from a "
            f"distance of {least:.3g}. Move the camera."
        )


def _range(mesh: Mesh, camera: Camera, place: _Place) -> tuple[float, float]:
    """The depths of the near and the far plane, which enclose the mesh, in scene units.

    The planes are close together, which keeps the depth accurate.
    """
    corners = (
        np.array(np.meshgrid(*zip(mesh.bounds.lower, mesh.bounds.upper), indexing="ij"))
        .reshape(3, -1)
        .T
    )
    ahead = -(place.of(corners) - place.of(camera.eye)) @ camera.axes[2]
    near, far = float(ahead.min()) - 0.01, float(ahead.max()) + 0.01
    if camera.span is None and far <= 0:
        return 0.01, 0.02  # the whole mesh is behind the camera
    return max(near, NEAREST), max(far, 2 * NEAREST)


def _lens(pyrender: Any, camera: Camera, place: _Place, near: float, far: float) -> Any:
    aspect = camera.width / camera.height
    if camera.span is None:
        return pyrender.PerspectiveCamera(
            math.radians(camera.fov), znear=near, zfar=far, aspectRatio=aspect
        )
    half = camera.span / 2 / place.scale
    return pyrender.OrthographicCamera(half * aspect, half, znear=near, zfar=far)


def _along(depth: np.ndarray, camera: Camera, near: float, far: float) -> np.ndarray:
    """Depth along the rays from pyrender's depth, in scene units.

    pyrender measures depth along the view axis, and returns 0 where there is no mesh.
    """
    view_depth = np.where(depth > 0, depth, np.nan)
    if camera.span is not None:  # pyrender has undone a perspective that this lens does not have
        fraction = (far + near - 2 * near * far / view_depth) / (far - near)
        return np.nan_to_num(near + (fraction + 1) / 2 * (far - near), nan=np.inf)
    directions = camera.rays().directions.numpy()
    return np.nan_to_num(
        view_depth / -(directions @ camera.axes[2]).reshape(view_depth.shape), nan=np.inf
    )


def _aim(light: Light, camera: Camera) -> np.ndarray:
    """The pose of a light, whose backward axis points towards the light."""
    backward = np.asarray(light.direction) @ camera.axes
    backward /= np.linalg.norm(backward)
    right = np.cross(np.eye(3)[np.abs(backward).argmin()], backward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(backward, right), backward], axis=1)
    return pose


def _primitive(pyrender: Any, mesh: Mesh, place: _Place, colours: np.ndarray | None = None) -> Any:
    flat = mesh.faces.ravel()
    shades = (
        None
        if colours is None
        else np.column_stack([colours[flat] ** GAMMA, np.ones(len(flat))]).astype(np.float32)
    )
    base = (*(CLAY if colours is None else (1.0, 1.0, 1.0)), 1.0)
    material = pyrender.MetallicRoughnessMaterial(
        baseColorFactor=base, metallicFactor=0.0, roughnessFactor=0.6, doubleSided=True
    )
    return pyrender.Primitive(
        positions=place.of(mesh.vertices[flat]).astype(np.float32),
        normals=corner_normals(mesh).reshape(-1, 3).astype(np.float32),
        color_0=shades,
        material=material,
        mode=4,  # triangles
    )


def import_pyrender() -> Any:
    prepare_opengl()
    if sys.platform == "linux":
        os.environ.setdefault("PYOPENGL_PLATFORM", "egl")  # read when OpenGL is first imported
    try:
        import pyrender
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Pictures of meshes need pyrender: pip install 'nstr3d[render]'."
        ) from error
    except (ImportError, OSError, AttributeError) as error:
        # PyOpenGL raises these if a system library is absent.
        raise ModuleNotFoundError(_NO_OPENGL.format(error)) from error
    return pyrender


def _renderer(pyrender: Any, width: int, height: int) -> Any:
    try:
        return pyrender.OffscreenRenderer(width, height)
    except Exception as error:  # drivers raise exceptions of any type
        raise ModuleNotFoundError(
            _NO_OPENGL.format(one_line(error) or type(error).__name__)
        ) from error


_NO_OPENGL = (
    "OpenGL could not be used ({}); on Linux install libegl1, libgl1 and libgl1-mesa-dri, or "
    "render a model instead of a mesh, which needs no OpenGL."
)
