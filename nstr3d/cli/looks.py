"""The options of ``nstr3d render``, ``export`` and ``view``, apart from what acts on them, so that
help needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from nstr3d.cli.words import PORTS
from nstr3d.jobs.ranges import (
    LARGEST_COUNT,
    LARGEST_PICTURE,
    RESOLUTIONS,
    check_finite,
    check_range,
)
from nstr3d.system import Message

PLACES = (-1e15, 1e15)  # coordinates of cameras
LARGEST_TEXTURE = 8192  # pixels to a side
SHOWN = (8, 1024)  # fewest and most cells of the viewers along a model's longest side


@dataclass(frozen=True)
class Render:
    """Render a picture of a model by sphere tracing, or a quick one of a mesh; a turntable if the
    output is an animation."""

    model: tyro.conf.Positional[Path]
    """A model.safetensors or model.nstq of a shape or the folder of it, or a mesh (OBJ, PLY, STL
    ...), which needs pip install nstr3d[render]."""
    out: Path
    """.png for a picture, .gif or .mp4 for a turntable, .npz or .exr for depth along the rays and
    normals."""
    size: tuple[int, int] = (768, 768)
    """Width and height in pixels."""
    shading: Literal["studio", "clay", "flat", "normals", "depth", "curvature", "frequency"] = (
        "studio"
    )
    """Studio light on the colours of the shape, if it has any, or on clay; flat: these colours
    without light; or colours for normals, depth, mean curvature or the local frequency of a phase
    field."""
    azimuth: float | None = None
    """Direction of the camera in degrees about the axis that points up: with y up from +z, with z
    up from -y. Without azimuth and elevation, the direction that shows the most."""
    elevation: float | None = None
    """Direction of the camera in degrees: above the horizon."""
    sheet: bool = False
    """Draw a contact sheet of six labelled views, each of half the size."""
    up: Literal["auto", "x", "y", "z", "-x", "-y", "-z"] = "auto"
    """The axis that points up; auto takes what the fit noted, and guesses it for a mesh."""
    fov: float = 35.0
    """Vertical angle of view in degrees."""
    orthographic: bool = False
    """Use parallel rays instead of a perspective camera."""
    eye: tuple[float, float, float] | None = None
    """Position of the camera in the model's units, instead of azimuth and elevation."""
    target: tuple[float, float, float] | None = None
    """Point to look at; the middle of the shape by default."""
    samples: int = 3
    """Rays per pixel and axis where the picture is not smooth; 1 turns off anti-aliasing."""
    background: str = "studio"
    """A colour such as white or #203040, studio for grey, or none for transparency."""
    iso: float = 0.0
    """Show the surface where the distance has this value, in the model's units."""
    frames: int = 36
    """Number of pictures of a turntable."""
    rate: float = 18.0
    """Pictures per second of a turntable."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to trace on; auto: where the fastest path is that gives right results."""
    compute_path: Literal["auto", "triton", "torch", "cpu"] = "auto"
    """Kernels to trace with. triton: fused kernels of a GPU. torch: plain torch. cpu: compiled
    kernels of the CPU."""
    overwrite: bool = False
    """Replace a file that is already there."""

    def __post_init__(self):
        if not all(1 <= side <= LARGEST_PICTURE for side in self.size):
            text = "<size> is 1 to {} pixels to a side, not {} x {}."
            raise ValueError(Message(text, LARGEST_PICTURE, *self.size))
        check_range(self, azimuth=(-1e6, 1e6), elevation=(-90, 90), fov=(0.1, 175))
        check_range(self, samples=(1, 16), frames=(1, 100_000), rate=(0.1, 100))
        check_range(self, eye=PLACES, target=PLACES)
        check_finite(self, "iso")


@dataclass(frozen=True)
class Export:
    """Write a model as a web page that traces it, as a mesh, as distances on a grid, as ONNX, or
    for the simulator MuJoCo."""

    model: tyro.conf.Positional[Path]
    """A model.safetensors or model.nstq of a shape, or the folder of it."""
    to: Literal["html", "glb", "ply", "obj", "stl", "npz", "onnx", "mujoco"]
    """html: a page to open in a browser. glb, ply, obj, stl: a mesh. npz: distances on a grid.
    onnx: the distance as a network. mujoco: a rigid body for the simulator MuJoCo (.xml)."""
    out: Path | None = None
    """The file to write; by default beside the model, with the extension of the format."""
    resolution: int | None = None
    """For meshes, mujoco and npz: grid cells along the longest side; 256 by default."""
    faces: int | None = None
    """For meshes and mujoco: the largest number of faces; the mesh is decimated to it. For mujoco
    20,000 by default."""
    lod: tuple[int, ...] | None = None
    """For meshes: the largest numbers of faces of several files, each named by its number."""
    texture: int | None = None
    """For glb: width and height in pixels of a texture with the colours of the shape, instead of
    colours of vertices; the mesh has at most 20,000 faces unless --faces says otherwise. Needs pip
    install nstr3d[texture]."""
    certified: bool = False
    """For meshes and mujoco: find the surface by proof, so that no part of it is missed, and say
    what is proven."""
    up: Literal["auto", "x", "y", "z", "-x", "-y", "-z"] | None = None
    """For glb and html: the axis that points up; by default what the fit noted."""
    iso: float | None = None
    """For meshes, mujoco and html: the surface is where the distance has this value, in the model's
    units; 0 by default."""
    title: str | None = None
    """For html: the name of the shape on the page."""
    streamlines: Path | None = None
    """For html: a .ply or .json file of lines to show on the surface, such as the flow app
    writes."""
    overwrite: bool = False
    """Replace a file that is already there."""

    def __post_init__(self):
        from nstr3d.geometry.mesh.decimate import FEWEST
        from nstr3d.model.exchange import FINEST

        check_range(self, resolution=(2, FINEST if self.to == "npz" else RESOLUTIONS[1]))
        check_range(self, faces=(FEWEST, LARGEST_COUNT), lod=(FEWEST, LARGEST_COUNT))
        check_range(self, texture=(16, LARGEST_TEXTURE))
        check_finite(self, "iso")


@dataclass(frozen=True)
class View:
    """Show models, meshes and lines in a window, which needs a display, or with --browser on a
    page."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Models (.safetensors) of shapes or their folders, meshes (OBJ, PLY, STL ...), and lines that
    flow wrote (.ply, .json)."""
    input: Path | None = None
    """The mesh that a model was fitted to. It is shown beside or over the model, and the model's
    error is measured against it."""
    browser: bool = False
    """Serve a page with sliders instead of opening a window."""
    resolution: int = 128
    """Initial number of cells of the extraction grid along a model's longest side."""
    iso: float = 0.0
    """Show a model's surface where the distance has this value, in the model's units."""
    up: Literal["auto", "x", "y", "z", "-x", "-y", "-z"] = "auto"
    """The axis that points up; auto takes what the fit noted, and guesses it for a mesh."""
    size: tuple[int, int] = (1280, 800)
    """Width and height of the window in pixels."""
    host: str = "127.0.0.1"
    """Address of the page, by default for this machine only; 0.0.0.0 lets the network in, without a
    password."""
    port: int = 8080
    """Port of the page; 0 takes a free port."""

    def __post_init__(self):
        if not SHOWN[0] <= self.resolution <= SHOWN[1]:
            raise ValueError(
                Message("<resolution> is {} to {} cells, not {}.", *SHOWN, self.resolution)
            )
        if not all(16 <= side <= LARGEST_PICTURE for side in self.size):
            text = "<size> is 16 to {} pixels to a side, not {} x {}."
            raise ValueError(Message(text, LARGEST_PICTURE, *self.size))
        check_range(self, port=PORTS)
        check_finite(self, "iso")
