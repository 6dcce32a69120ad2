"""Picture surfaces before and after a fit: ``python apps/bench/look.py [MESH ...]``.

Input and fit stand side by side, once whole and twice magnified 4 times: where the surface is
smoothest, which shows creases and bands, and where it has the most detail. Both are sphere traced
with the same light. The shapes are the meshes, our bunny and smooth analytic ones. Writes look.md
and a picture per shape to --out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from nstr3d.bench.commits import find_commit
from nstr3d.bench.smooth import smooth_shapes, tessellate
from nstr3d.cli.command import guarded
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.repair import repair
from nstr3d.io import load_mesh, save_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Extraction, Output, Training
from nstr3d.model.checkpoint import load
from nstr3d.render.camera import Camera
from nstr3d.render.framing import best_view
from nstr3d.render.traced import Buffers, RenderConfig, measure, render, side_by_side
from nstr3d.sdf import Sdf
from nstr3d.types import Mesh, Up

ROOT = Path(__file__).resolve().parents[2]
ZOOM = 4  # magnification of the second and third view
QUALITY = 92  # of the JPEG files: a PNG of a shaded surface takes five times the bytes


@dataclass(frozen=True)
class Options:
    """Picture surfaces before and after a fit."""

    meshes: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Mesh files, besides our bunny and smooth analytic shapes."""
    out: Path = Path("out/look")
    """Folder of look.md, the pictures and the fits."""
    training: Training = field(default_factory=Training)
    """Training of each fit."""
    size: int = 480
    """Width and height of a view in pixels."""


def shapes(options: Options) -> Iterator[tuple[str, Path, Sdf | None]]:
    """Name, mesh file and analytic surface (None for a mesh) of each shape."""
    yield from ((path.stem, path, None) for path in options.meshes)
    yield "bunny", ROOT / "assets" / "bunny.obj", None
    for name, shape in smooth_shapes().items():
        path = options.out / "meshes" / f"{name}.ply"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_mesh(path, tessellate(shape))
        yield f"analytic-{name}", path, shape


def zooms(camera: Camera, seen: Buffers) -> tuple[Camera, Camera]:
    """Cameras on the smoothest and on the most detailed window of a view, magnified by `ZOOM`.

    The smoothest window has the smallest spread of normals, the most detailed one the largest mean
    step between the normals of neighbouring pixels; the two do not overlap if that is possible.
    What shows no surface counts against a window, most of all more than a quarter of it.
    """
    side, step = camera.height // ZOOM, camera.height // (4 * ZOOM)
    windows = []
    for row in range(0, camera.height - side + 1, step):
        for column in range(0, camera.width - side + 1, step):
            window = np.s_[row : row + side, column : column + side]
            mask, normals = np.isfinite(seen.depth[window]), seen.normals[window]
            if mask.any():
                missing, spread = 1 - mask.mean(), np.linalg.norm(normals[mask].std(axis=0))
                detail = np.linalg.norm(np.diff(normals, axis=0), axis=-1)
                detail = detail[mask[1:] & mask[:-1]].mean() if mask.mean() > 0.1 else 0.0
                middle = (row + side / 2) / camera.height, (column + side / 2) / camera.width
                empty = missing + (missing > 0.25)
                windows.append((4 * missing + spread, empty - 10 * detail, middle))
    smooth = min(windows)[2]
    apart = [
        w for w in windows if max(abs(w[2][0] - smooth[0]), abs(w[2][1] - smooth[1])) * ZOOM >= 1
    ]
    detailed = min(apart or windows, key=lambda window: window[1])[2]
    return _zoom(camera, smooth), _zoom(camera, detailed)


def _zoom(camera: Camera, middle: tuple[float, float]) -> Camera:
    """``camera`` turned to the point ``middle`` (row, column in [0, 1]) and magnified."""
    right, above, backward = camera.axes
    half = np.tan(np.radians(camera.fov) / 2)
    across = (2 * middle[1] - 1) * half * right + (1 - 2 * middle[0]) * half * above
    x, y, z = (np.asarray(camera.eye) + across - backward).tolist()
    fov = 2 * float(np.degrees(np.arctan(half / ZOOM)))
    return replace(camera, target=(x, y, z), fov=fov)


def picture(pair: Sequence[Sdf], mesh: Mesh, size: int, up: Up = "y") -> np.ndarray:
    """Three rows, whole, smooth and detailed, of the surfaces ``pair`` side by side, from the
    direction from which the ``mesh`` shows the most."""
    camera = Camera.around(pair[0].bounds, *best_view(mesh, up), width=size, height=size, up=up)
    views = camera, *zooms(camera, measure(pair[0], camera))
    config = RenderConfig(samples_per_axis=2)
    rows = [side_by_side([render(sdf, view, config) for sdf in pair]) for view in views]
    gap = np.ones((8, rows[0].shape[1], 3), np.float32)
    return np.concatenate([rows[0], gap, rows[1], gap, rows[2]])


def fitted(path: Path, folder: Path, training: Training) -> dict[str, Any]:
    """Fits a mesh into ``folder`` and returns the report."""
    job = MeshJob(path, training, Extraction(picture=0), output=Output(folder, overwrite=True))
    return run(job).report


def look(options: Options) -> None:
    """Makes the pictures and the page."""
    stems = [path.stem for path in options.meshes] + ["bunny"]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ValueError(f"two shapes are named {twice[0]}; rename one of the files")
    parts, machine = [], {}
    for name, path, truth in shapes(options):
        folder = options.out / "fits" / name
        report = fitted(path, folder, options.training)
        mesh, _ = repair(load_mesh(path))
        before = truth or MeshDistance(mesh).sdf()
        pair = before, load(folder / "model.safetensors").sdf()
        seen = picture(pair, mesh, options.size, report["input"]["up"])
        pixels = (np.clip(seen, 0, 1) * 255).round().astype(np.uint8)
        with atomic_path(options.out / f"look-{name}.jpg") as temporary:
            Image.fromarray(pixels).save(temporary, "JPEG", quality=QUALITY)
        parts.append(section(name, report, truth is not None))
        machine = report["machine"]
        print(parts[-1], file=sys.stderr, flush=True)
    names = "".join(f" {path.name}" for path in options.meshes)
    head = (
        f"# Before and after\n\n`python apps/bench/look.py{names}`: the input on the left, the "
        "fit on the right, sphere traced with the same light; whole, then magnified 4 times where "
        "the surface is smoothest and where it has the most detail. Preset "
        f"{options.training.preset}, seed "
        f"{options.training.seed}, {machine['threads']} threads on {machine['device']}, commit "
        f"{find_commit(ROOT)}.\n"
    )
    with atomic_path(options.out / "look.md") as temporary:
        temporary.write_text("\n".join([head, *parts]))


def section(name: str, report: dict[str, Any], analytic: bool) -> str:
    """A shape's picture, with figures in the words below it."""
    accuracy = report["accuracy"]
    source = "the analytic surface" if analytic else f"{report['input']['faces']:,} faces"
    return (
        f"## {name}\n\n![{name}: input and fit](look-{name}.jpg)\n\nInput: {source}. Fit: "
        f"{report['field']['parameters']:,} parameters; near "
        f"{accuracy['distance_error_near'] * 1e4:.2f} x 1e-4, normals "
        f"{accuracy['normal_error_field']:.2f} degrees from those of the input's faces, kinks at "
        f"cell faces {accuracy['kink_p99']:.2f} degrees at the 99th percentile against "
        f"{accuracy['kink_control_p99']:.2f} inside a cell.\n"
    )


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: look(tyro.cli(Options, prog="look.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
