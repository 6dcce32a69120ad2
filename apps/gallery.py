"""Make the pictures of docs/gallery.md: ``python apps/gallery.py``, some minutes on two cores.

The bunny, the bracket and the gyroid of assets/ are fitted at ``fast``, unless ``--models FOLDER``
has NAME/model.safetensors of them; the other shapes are formulas.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import torch

from nstr3d.fields.closed.cosinefit import local_frequency
from nstr3d.geometry.mesh.surface import face_normals, sample_surface
from nstr3d.geometry.shapes.combinators import difference, smooth_union
from nstr3d.geometry.shapes.motions import rotate, translate
from nstr3d.geometry.shapes.primitives import (
    box,
    cylinder,
    gyroid,
    gyroid_slab,
    shells,
    sphere,
    torus,
)
from nstr3d.geometry.shapes.ripples import drifting_ripple
from nstr3d.io import load_image, load_mesh, save_image
from nstr3d.io.audio import load_sound
from nstr3d.io.interop import to_trimesh
from nstr3d.jobs.direct import fit_image, fit_mesh, fit_sound
from nstr3d.model.checkpoint import load
from nstr3d.render.camera import Camera
from nstr3d.render.colours import BLUE_TO_RED
from nstr3d.render.framing import contact_sheet, view_of
from nstr3d.render.frequency import frequency_colours, frequency_range
from nstr3d.render.ground import Ground
from nstr3d.render.labels import scale_bar, titled
from nstr3d.render.panels import beside, comparison, spectrograms
from nstr3d.render.points import splat
from nstr3d.render.shading import Curvature, Depth, Normals, Shading, Studio
from nstr3d.render.traced import RenderConfig, render, side_by_side
from nstr3d.sdf import Sdf
from nstr3d.signals.signal import Signal
from nstr3d.training.fit import Fit
from nstr3d.training.sampling import Raster
from nstr3d.types import Box, PointCloud, Up

ROOT = Path(__file__).resolve().parents[1]
ASSETS, GALLERY, SIDE = ROOT / "assets", ROOT / "assets" / "gallery", 384


class Gallery:
    """The pictures, each a method that returns it; ``models`` may hold fitted models."""

    def __init__(self, models: Path | None):
        self.models = models

    def fit(self, name: str) -> Fit:
        saved = self.models and self.models / name / "model.safetensors"
        if saved and saved.is_file():
            return load(saved)
        return fit_mesh(ASSETS / f"{name}.obj", preset="fast", progress=False)

    @cached_property
    def bunny(self) -> Fit:
        return self.fit("bunny")

    @cached_property
    def view(self) -> tuple[float, float]:
        return view_of(self.bunny.sdf())

    def of_bunny(self, shading: Shading, level: float = 0.0) -> np.ndarray:
        sdf = self.bunny.sdf()
        return picture(sdf.offset(level) if level else sdf, shading, self.view)

    def bunny_studio(self) -> np.ndarray:
        return self.of_bunny(Studio())

    def bunny_normals(self) -> np.ndarray:
        return self.of_bunny(Normals())

    def bunny_curvature(self) -> np.ndarray:
        # tanh(1) of the largest colour: the curvature at which the colours are nearly full.
        full = 1 / (Curvature().radius * self.bunny.bounds.diagonal)
        ends = [(0.5 + 0.5 * np.tanh(at), f"{at * full:.3g}") for at in (-1, 0, 1)]
        bar = scale_bar(SIDE, ends, "1 / unit", BLUE_TO_RED)
        return beside([self.of_bunny(Curvature()), bar])

    def bunny_depth(self) -> np.ndarray:
        bounds = self.bunny.bounds
        camera = Camera.around(bounds, *self.view, width=SIDE, height=SIDE)
        near, far = depths(camera, bounds)
        grey = [(0.10, 0.10, 0.10), (0.95, 0.95, 0.95)]  # as Depth colours them
        bar = scale_bar(SIDE, [(0, f"{far:.3g}"), (1, f"{near:.3g}")], "units", grey)
        return beside([self.of_bunny(Depth()), bar])

    def bunny_frequency(self) -> np.ndarray:
        low, high = frequency_range(self.bunny)
        bar = scale_bar(SIDE, [(0, f"{low:.3g}"), (1, f"{high:.3g}")], "rad / unit")
        return beside([self.of_bunny(Studio(albedo=frequency_colours(self.bunny))), bar])

    def bunny_level(self) -> np.ndarray:
        return self.of_bunny(Studio(), 0.04 * self.bunny.bounds.diagonal)

    def bunny_sheet(self) -> np.ndarray:
        return contact_sheet(self.bunny.sdf(), RenderConfig(ground=Ground()), (224, 224))

    def bunny_points(self) -> np.ndarray:
        mesh = load_mesh(ASSETS / "bunny.obj")
        points, faces = sample_surface(mesh, 20_000, np.random.default_rng(0))
        camera = Camera.around(mesh.bounds, *self.view, width=SIDE, height=SIDE)
        cloud = PointCloud(points, face_normals(mesh)[faces])
        surface = titled(self.of_bunny(Studio()), "neural surface")
        return side_by_side([titled(splat(cloud, camera), "20,000 points"), surface])

    def bunny_infill(self) -> np.ndarray:
        sdf = self.bunny.sdf()
        middle, half = sdf.bounds.centre, sdf.bounds.extent / 2
        walls = sdf.shell(0.05) | (sdf & gyroid(0.5, 0.06, half).translate(middle))
        right = box(1.1 * half).translate(middle + [1.1 * half[0], 0.0, 0.0])
        return picture(walls - right, Studio(albedo=(0.30, 0.42, 0.55)), (70.0, 12.0))

    def bracket(self) -> np.ndarray:
        return picture(self.fit("bracket").sdf(), Studio(), up="z")

    def gyroid(self) -> np.ndarray:
        return picture(self.fit("gyroid").sdf(), Studio(albedo=(0.62, 0.35, 0.22)))

    def chain(self) -> np.ndarray:
        ring = torus(0.8, 0.22)
        links = [
            rotate(translate(ring, (1.1 * at, 0.0, 0.0)), (1.0, 0.0, 0.0), 45 + 90 * (at % 2))
            for at in (-1, 0, 1)
        ]
        return picture(smooth_union(*links, k=0.02), Studio(albedo=(0.60, 0.44, 0.20), gloss=0.4))

    def die(self) -> np.ndarray:
        pips = [sphere(0.2, (x, 1.03, z)) for x, z in ((-0.5, -0.5), (0.5, 0.5), (0.0, 0.0))] + [
            sphere(0.2, (x, y, 1.03)) for x in (-0.5, 0.5) for y in (-0.5, 0.5)
        ]
        return picture(difference(box(), *pips), Studio(albedo=(0.45, 0.10, 0.10)), (-30.0, 30.0))

    def ripple(self) -> np.ndarray:
        shape = drifting_ripple()

        def albedo(points: torch.Tensor) -> torch.Tensor:
            bright = 0.5 + 0.5 * torch.sin(shape.phase(points))[:, None]
            return bright * points.new_tensor((0.75, 0.78, 0.80)) + (1 - bright) * 0.12

        return picture(shape.sdf, Studio(albedo=albedo), (0.0, 15.0))

    def onion(self) -> np.ndarray:
        cut = translate(box((1.0, 1.0, 1.0)), (1.0, 1.0, 1.0))
        shape = difference(shells(), cut)
        return picture(shape, Studio(albedo=(0.30, 0.42, 0.55)), (45.0, 25.0))

    def lattice(self) -> np.ndarray:
        core = difference(gyroid_slab(0.8, 0.16), cylinder(0.3, 2.0))
        return picture(core, Normals(), (30.0, 25.0))

    def bunny_painted(self) -> np.ndarray:
        mesh = load_mesh(ASSETS / "bunny.obj")
        painted = to_trimesh(mesh, calico(mesh.vertices))
        return picture(fit_mesh(painted, preset="fast", progress=False).sdf(), Studio(), self.view)

    def image(self) -> np.ndarray:
        target = load_image(ASSETS / "texture.png")
        found = fit_image(target, bpp=2.0)
        fitted = Signal(found.field, Raster(target).lattice).raster()
        return comparison(target, fitted.clip(0, 1), local_frequency(fitted, 8))

    def sound(self) -> np.ndarray:
        heard = load_sound(ASSETS / "chirp.wav")
        found = fit_sound(heard)
        fitted = Signal(found.field, Raster(heard.values).lattice).raster()
        sounds = {"input": heard.values, "fit": fitted}
        drawn = spectrograms(sounds, heard.rate)
        height, width = (side // 2 * 2 for side in drawn.shape[:2])
        return drawn[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))


def calico(points: np.ndarray) -> np.ndarray:
    """The coat of a cat: display RGB ``(n, 3)`` of black and ginger patches on white."""
    patches = []
    for seed, pitch in ((1, 4.5), (5, 3.5)):
        waves = pitch * np.random.default_rng(seed).standard_normal((8, 3))
        height = np.cos(points @ waves.T + np.arange(8)).sum(axis=1)
        patches.append(1 / (1 + np.exp(-12 * (height - 1.6))))
    black, ginger = (each[:, None] for each in patches)
    coat = ginger * [0.85, 0.50, 0.22] + (1 - ginger) * [0.95, 0.92, 0.87]
    return (black * [0.16, 0.14, 0.14] + (1 - black) * coat).clip(0, 1)


def depths(camera: Camera, bounds: Box) -> tuple[float, float]:
    """The depths of the nearest and the farthest corner of ``bounds``, which `Depth` spans."""
    corners = np.array(list(product(*zip(bounds.lower, bounds.upper))))
    reach = np.linalg.norm(corners - camera.eye, axis=1)
    return float(reach.min()), float(reach.max())


def picture(
    sdf: Sdf, shading: Shading, view: tuple[float, float] | None = None, up: Up = "y"
) -> np.ndarray:
    """The shape on the ground, from ``view`` or from where it shows the most."""
    camera = Camera.around(sdf.bounds, *(view or view_of(sdf, up)), width=SIDE, height=SIDE, up=up)
    ground = None if isinstance(shading, (Normals, Depth)) else Ground()
    return render(sdf, camera, RenderConfig(shading, samples_per_axis=3, ground=ground))


TITLES = {
    "bunny_studio": "A bunny of 60,616 faces as a field of 100,000 parameters, `fast`",
    "bunny_sheet": "The same from six sides: `nstr3d render --sheet`",
    "bunny_points": "20,000 points, and the surface",
    "bunny_normals": "Normals: `--shading normals`",
    "bunny_curvature": "Mean curvature, blue in hollows and red on ridges: `--shading curvature`",
    "bunny_depth": "Depth: `--shading depth`",
    "bunny_frequency": "Local frequency: `--shading frequency`",
    "bunny_painted": "Colours of vertices, fitted as a second field",
    "bunny_level": "Another level set of the same field: `--iso`",
    "bunny_infill": "A shell around a gyroid, cut open: `docs/queries.md`",
    "bracket": "A bracket, with z up",
    "gyroid": "A gyroid",
    "chain": "A formula: three links (`nstr3d.geometry.shapes`)",
    "die": "A formula: a die",
    "ripple": "A formula: a ball whose relief rises in frequency, coloured by its phase",
    "onion": "A formula: shells, cut open",
    "lattice": "A formula: a bored gyroid, normals",
    "image": "A picture in closed form: input, fit, difference and local frequency",
    "sound": "A sound in closed form, by octaves",
}


def page() -> str:
    """docs/gallery.md, with the pictures that are there."""
    parts = [
        "# Gallery\n",
        "`python apps/gallery.py` makes all pictures from `assets/` and from formulas.\n",
        *(
            f"**{title}**\n\n![{title}](../assets/gallery/{name}.png)\n"
            for name, title in TITLES.items()
            if (GALLERY / f"{name}.png").is_file()
        ),
    ]
    return "\n".join(parts)


def main(args: Sequence[str] | None = None) -> int:
    """Makes the pictures and the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="folder of fitted models")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), help="pictures to make")
    parser.add_argument("--out", type=Path, default=GALLERY, help="folder of the pictures")
    options = parser.parse_args(args)
    options.out.mkdir(parents=True, exist_ok=True)
    gallery = Gallery(options.models)
    for name in options.only or TITLES:
        draw: Callable[[], np.ndarray] = getattr(gallery, name)
        save_image(options.out / f"{name}.png", draw().clip(0, 1))
        print(f"wrote {options.out / name}.png", flush=True)
    if options.out == GALLERY:
        (ROOT / "docs" / "gallery.md").write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
