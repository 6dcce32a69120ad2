"""nstr3d: neural surfaces with a local spectrum.

`fit_mesh`, `fit_points`, `fit_image` and `fit_sound` fit in one call. The steps from a file to a
surface are `load_mesh`, `repair`, `normalise`, `SurfaceBand`, a config's
``build``, `fit`, `Fit.sdf`, then `extract_mesh` or `render`. `save` and `load` store a fit.

Names and submodules are imported when they are first used, because torch takes seconds to import.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nstr3d.batch.dataset import Dataset
    from nstr3d.fields.closed.cosinefit import fit_cosines
    from nstr3d.fields.closed.cosines import CosineConfig
    from nstr3d.fields.level import LevelConfig
    from nstr3d.fields.nstr import NstrConfig, TransportConfig
    from nstr3d.fields.start.placement import PlacementConfig
    from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
    from nstr3d.geometry.mesh.distance import MeshDistance
    from nstr3d.geometry.mesh.repair import repair
    from nstr3d.geometry.mesh.surface import normalise
    from nstr3d.io import (
        Sound,
        load_image,
        load_mesh,
        load_sound,
        save_image,
        save_mesh,
        save_sound,
    )
    from nstr3d.jobs.direct import fit_image, fit_mesh, fit_points, fit_sound
    from nstr3d.model.checkpoint import load, save
    from nstr3d.model.tree import load_sdf, save_sdf
    from nstr3d.render.camera import Camera
    from nstr3d.render.shading import Curvature, Depth, Flat, Normals, Studio
    from nstr3d.render.traced import Backdrop, RenderConfig, measure, render, turntable
    from nstr3d.sdf import Sdf
    from nstr3d.surface.extract import extract_mesh
    from nstr3d.surface.metrics import score
    from nstr3d.surface.trace import sphere_trace
    from nstr3d.training.fit import Fit, FitConfig, fit, fit_steps
    from nstr3d.training.losses import SdfObjective, TransportPenalty, sdf_objective
    from nstr3d.training.presets import PRESETS, sized_nstr
    from nstr3d.training.sampling import Raster, SurfaceBand
    from nstr3d.types import Box, Frame, Hits, Lattice, Mesh, PointCloud, Rays, Samples

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "AmplitudeWaves",
    "Backdrop",
    "Box",
    "Camera",
    "ComplexWaves",
    "CosineConfig",
    "Curvature",
    "Dataset",
    "Depth",
    "Fit",
    "FitConfig",
    "Flat",
    "Frame",
    "Hits",
    "Lattice",
    "LevelConfig",
    "Mesh",
    "MeshDistance",
    "Normals",
    "NstrConfig",
    "PhaseWaves",
    "PlacementConfig",
    "PointCloud",
    "Raster",
    "Rays",
    "RenderConfig",
    "Samples",
    "Sdf",
    "SdfObjective",
    "Sound",
    "Studio",
    "SurfaceBand",
    "TransportConfig",
    "TransportPenalty",
    "extract_mesh",
    "fit",
    "fit_cosines",
    "fit_image",
    "fit_mesh",
    "fit_points",
    "fit_sound",
    "fit_steps",
    "load",
    "load_image",
    "load_mesh",
    "load_sdf",
    "load_sound",
    "measure",
    "normalise",
    "render",
    "repair",
    "save",
    "save_image",
    "save_mesh",
    "save_sdf",
    "save_sound",
    "score",
    "sdf_objective",
    "sized_nstr",
    "sphere_trace",
    "turntable",
]

# The module of each public name; tests compare it with the imports above.
_HOMES = {
    "AmplitudeWaves": "fields.waves",
    "Backdrop": "render.traced",
    "Box": "types",
    "Camera": "render.camera",
    "ComplexWaves": "fields.waves",
    "CosineConfig": "fields.closed.cosines",
    "Curvature": "render.shading",
    "Dataset": "batch.dataset",
    "Depth": "render.shading",
    "Fit": "training.fit",
    "FitConfig": "training.fit",
    "Flat": "render.shading",
    "Frame": "types",
    "Hits": "types",
    "Lattice": "types",
    "LevelConfig": "fields.level",
    "Mesh": "types",
    "MeshDistance": "geometry.mesh.distance",
    "Normals": "render.shading",
    "NstrConfig": "fields.nstr",
    "PRESETS": "training.presets",
    "PhaseWaves": "fields.waves",
    "PlacementConfig": "fields.start.placement",
    "PointCloud": "types",
    "Raster": "training.sampling",
    "Rays": "types",
    "RenderConfig": "render.traced",
    "Samples": "types",
    "Sdf": "sdf",
    "SdfObjective": "training.losses",
    "Sound": "io",
    "Studio": "render.shading",
    "SurfaceBand": "training.sampling",
    "TransportConfig": "fields.nstr",
    "TransportPenalty": "training.losses",
    "extract_mesh": "surface.extract",
    "fit": "training.fit",
    "fit_cosines": "fields.closed.cosinefit",
    "fit_image": "jobs.direct",
    "fit_mesh": "jobs.direct",
    "fit_points": "jobs.direct",
    "fit_sound": "jobs.direct",
    "fit_steps": "training.fit",
    "load": "model.checkpoint",
    "load_image": "io",
    "load_mesh": "io",
    "load_sdf": "model.tree",
    "load_sound": "io",
    "measure": "render.traced",
    "normalise": "geometry.mesh.surface",
    "render": "render.traced",
    "repair": "geometry.mesh.repair",
    "save": "model.checkpoint",
    "save_image": "io",
    "save_mesh": "io",
    "save_sdf": "model.tree",
    "save_sound": "io",
    "score": "surface.metrics",
    "sdf_objective": "training.losses",
    "sized_nstr": "training.presets",
    "sphere_trace": "surface.trace",
    "turntable": "render.traced",
}


def __getattr__(name: str) -> Any:
    # A package comes first: render is one that can be called.
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
