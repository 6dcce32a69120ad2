"""nstr3d: neural surfaces with a local spectrum.

`fit_mesh`, `fit_points`, `fit_image` and `fit_sound` fit in one call. The steps from a file to a
surface are `load_mesh`, `repair`, `normalise`, `SurfaceBand`, a config's
``build``, `fit`, `Fit.sdf`, then `extract_mesh` or `render`. `save` and `load` store a fit.
"""

from typing import TYPE_CHECKING, Any

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
from nstr3d.io import Sound, load_image, load_mesh, load_sound, save_image, save_mesh, save_sound
from nstr3d.model.checkpoint import load, save
from nstr3d.render.camera import Camera
from nstr3d.render.shading import Curvature, Depth, Normals, Studio
from nstr3d.render.traced import Backdrop, RenderConfig, measure, render, turntable
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract_mesh
from nstr3d.surface.metrics import score
from nstr3d.surface.trace import sphere_trace
from nstr3d.training.fit import Fit, FitConfig, fit, fit_steps
from nstr3d.training.losses import SdfObjective, TransportPenalty
from nstr3d.training.presets import PRESETS, sized_nstr
from nstr3d.training.sampling import Raster, SurfaceBand
from nstr3d.types import Box, Frame, Hits, Lattice, Mesh, PointCloud, Rays, Samples

if TYPE_CHECKING:
    from nstr3d.jobs.direct import fit_image, fit_mesh, fit_points, fit_sound

__version__ = "0.1.0"

sdf_objective = SdfObjective  # the former name, kept for one version

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
    "load_sound",
    "measure",
    "normalise",
    "render",
    "repair",
    "save",
    "save_image",
    "save_mesh",
    "save_sound",
    "score",
    "sdf_objective",
    "sized_nstr",
    "sphere_trace",
    "turntable",
]


def __getattr__(name: str) -> Any:
    """The fits in one call. They are imported when they are first used, because the jobs behind
    them take half a second to import."""
    if name in ("fit_image", "fit_mesh", "fit_points", "fit_sound"):
        from nstr3d.jobs import direct

        return getattr(direct, name)
    raise AttributeError(f"module 'nstr3d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
