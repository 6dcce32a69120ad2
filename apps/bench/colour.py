"""Race fields of colours: ``python apps/bench/colour.py [MESH[=PICTURE] ...]``.

Fields of equal size fit the colours of painted surfaces for the same seconds, turn by turn: a ball
painted by formulas, and the meshes with their textures, or with a PICTURE for their texture
coordinates. The fit of each mesh is also drawn without light from 12 sides, and compared with the
picture that OpenGL takes of the textured input. Writes colour.csv and colour.md to --out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.bench.compare import Row, limit_of, race, read_rows, write_rows
from nstr3d.bench.painted import PaintTrack, contenders, formulas
from nstr3d.bench.tables import Measure, by_track, summary
from nstr3d.cli.command import guarded
from nstr3d.io import load_image
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.colouroptions import MeshColours
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Output, Training
from nstr3d.model.checkpoint import load
from nstr3d.render.camera import Camera
from nstr3d.render.opengl import import_pyrender
from nstr3d.render.shading import Flat
from nstr3d.render.traced import RenderConfig, turntable
from nstr3d.sdf import Sdf
from nstr3d.signals.fidelity import ssim

ROOT = Path(__file__).resolve().parents[2]
PSNR = Measure("psnr", "PSNR dB", axis="PSNR dB", rising=True)
RMS = Measure("rms", "RMS error x 1e-3", 1e-3)
GREY = 0.5  # of the background, in [0, 1]


@dataclass(frozen=True)
class Options:
    """Race fields of colours on painted surfaces."""

    meshes: tyro.conf.Positional[tuple[str, ...]] = ()
    """Mesh files with colours; file=picture.png names a picture for the texture coordinates."""
    out: Path = Path("out/colour")
    """Folder of colour.csv, colour.md and the fits."""
    params: int = 50_000
    """Learned parameters of each field."""
    seconds: float = 6.0
    """Training time of each field."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of samples and fields."""
    pool: int = 500_000
    """Training samples."""
    views: int = 12
    """Views of each fitted mesh; 0 fits none."""
    size: int = 400
    """Width and height of a view in pixels."""
    preset: str = "standard"
    """Preset of the fits that are drawn."""


def measure(options: Options) -> None:
    """Runs the races that colour.csv lacks, fits the meshes, and writes the tables."""
    results = options.out / "colour.csv"
    rows, commit = read_rows(results), find_commit(ROOT)
    files = [_pair(each) for each in options.meshes]
    tracks: dict[str, Any] = {
        name: lambda name=name, paint=paint: PaintTrack.formula(name, paint)
        for name, paint in formulas(ROOT / "assets" / "texture.png").items()
    }
    tracks |= {
        path.stem: lambda path=path, picture=picture: PaintTrack.of(path, picture)
        for path, picture in files
    }
    limit = limit_of(options.seconds, None)
    for name, make in tracks.items():
        track = None
        for seed in options.seeds:
            done = {row.key for row in rows if row.done == 1}
            pending = [
                each
                for each in contenders()
                if (name, each.name, options.params, limit, seed) not in done
            ]
            if pending:
                track = track or make()
                rows += race(
                    pending,
                    track,
                    options.params,
                    seed,
                    seconds=options.seconds,
                    marks=(),
                    pool=options.pool,
                    commit=commit,
                    on_row=_tell,
                )
                write_rows(results, rows)
    seen = [views(path, picture, options) for path, picture in files if options.views]
    text = table(rows, seen)
    with atomic_path(options.out / "colour.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def views(path: Path, picture: Path | None, options: Options) -> list[str]:
    """The cells of the table on the fit of one mesh, drawn from all sides."""
    folder = options.out / path.stem
    job = MeshJob(
        path,
        Training(options.preset),  # type: ignore[arg-type]
        output=Output(folder, overwrite=True),
        colours=MeshColours(colour_params=options.params, texture=picture),
    )
    report = run(job).report
    sdf = load(folder / "model.safetensors").sdf()
    first = Camera.around(sdf.bounds, 0.0, 20.0, width=options.size, height=options.size)
    cameras = first.orbit(options.views)
    ours = turntable(sdf, cameras, RenderConfig(Flat(), None, samples_per_axis=3))
    scores = [
        ssim(_on_grey(mine), _on_grey(theirs)) or 0.0
        for mine, theirs in zip(ours, flat_pictures(path, picture, sdf, cameras))
    ]
    about = report["colour"]
    return [
        path.stem,
        f"{about['parameters']:,}",
        f"{about['psnr']:.1f}",
        f"{np.mean(scores):.3f}",
        f"{min(scores):.3f}",
        f"{about['seconds']:.1f}",
        f"{report['seconds']['fit']:.1f}",
    ]


def flat_pictures(
    path: Path, picture: Path | None, sdf: Sdf, cameras: Sequence[Camera]
) -> Iterator[np.ndarray]:
    """The pictures that pyrender takes of the textured file without light, RGBA in [0, 1]."""
    pyrender = import_pyrender()
    import trimesh
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    scene = trimesh.load_scene(str(path), process=False)
    if picture is not None:
        image = Image.fromarray(np.round(load_image(picture)[:, :, :3] * 255).astype(np.uint8))
        white = PBRMaterial(baseColorTexture=image, baseColorFactor=[255] * 4)
        for mesh in scene.geometry.values():
            mesh.visual = TextureVisuals(mesh.visual.uv, white)
    drawn = pyrender.Scene(bg_color=[0.0, 0.0, 0.0, 0.0])
    for mesh in scene.geometry.values():
        drawn.add(pyrender.Mesh.from_trimesh(mesh, smooth=False))
    fine = 3  # as many samples to an axis of a pixel as ours
    width, height = fine * cameras[0].width, fine * cameras[0].height
    renderer = pyrender.OffscreenRenderer(width, height)
    for camera in cameras:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = camera.axes.T, camera.eye
        far = 4 * float(np.linalg.norm(np.subtract(camera.eye, sdf.bounds.centre)))
        lens = pyrender.PerspectiveCamera(np.radians(camera.fov), znear=far / 1e3, zfar=far)
        node = drawn.add(lens, pose=pose)
        flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.RGBA
        colour: np.ndarray = renderer.render(drawn, flags)[0].astype(np.float64) / 255
        drawn.remove_node(node)
        shape = camera.height, fine, camera.width, fine, 4
        yield colour.reshape(shape).mean(axis=(1, 3))
    renderer.delete()


def _on_grey(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[:, :, 3:]
    return (rgba[:, :, :3] * alpha + GREY * (1 - alpha)).astype(np.float32)


def _pair(text: str) -> tuple[Path, Path | None]:
    mesh, _, picture = text.partition("=")
    return Path(mesh), Path(picture) if picture else None


def _tell(row: Row) -> None:
    print(f"{row.track} seed {row.seed} {row.field}: {row.measures['psnr']:.2f} dB", flush=True)


def table(rows: Sequence[Row], seen: Sequence[Sequence[str]]) -> str:
    """colour.md: the races, and the fits that were drawn."""
    commits = ", ".join(dict.fromkeys(row.commit for row in rows))
    parts = [
        "# Colours\n",
        "`python apps/bench/colour.py MESHES`: fields of colours at equal parameters and seconds; "
        f"{rows[0].threads} threads on a CPU, commit {commits}. *stripes*, *checker* and *wrapped* "
        "are a ball painted by formulas: stripes whose pitch drifts, a checkerboard beside noise, "
        "and a picture. Errors are at points that were not trained on.\n",
        summary(rows, "nstr without waves", (PSNR, RMS)),
        by_track(rows, PSNR),
    ]
    if seen:
        head = "| mesh | parameters of the colours | PSNR dB | SSIM of views | least | seconds | "
        lines = [f"{head}of the shape |", "|---" * 7 + "|"]
        lines += ["| " + " | ".join(cells) + " |" for cells in seen]
        parts += [
            "## Fits\n",
            "The whole job: PSNR at points held out, whose colours are asked for on the fitted "
            "surface, and the similarity of pictures without light to those that OpenGL takes of "
            "the textured input.\n",
            "\n".join(lines) + "\n",
        ]
    return "\n".join(parts)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the measurement and returns the exit code."""
    return guarded(lambda: measure(tyro.cli(Options, description=__doc__, args=args)))


if __name__ == "__main__":
    sys.exit(main())
