"""Make the assets of this folder: ``python assets/make_assets.py [--out DIR] [--only NAME ...]``.

Each shape is an analytic signed distance, meshed by marching cubes. Meshes of smooth shapes are
relaxed along the surface; all vertices are rounded to four decimals. Units are arbitrary; +y is up
and the bunny faces +z. The local frequencies of the picture and of the sound vary.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from skimage.measure import marching_cubes
from torch import Tensor

from nstr3d.geometry.shapes import primitives as shapes
from nstr3d.geometry.shapes.ripples import Chirp, drifting_ripple
from nstr3d.io import Sound, save_image, save_sound
from nstr3d.sdf import Sdf
from nstr3d.types import Mesh

DECIMALS = 4
# The coat's wavelength grows with the distance from the throat: 0.3 at neck and chest, 0.1 at the
# rump.
THROAT = (0.0, 0.35, 0.35)
COAT = Chirp(0.35, 1.3, 2 * math.pi / 0.3, 2 * math.pi / 0.1)


def bunny() -> Sdf:
    """A sitting bunny, about 2.3 high, with smooth ears, face and paws, a knurled tail, and a coat
    whose ripples get finer from the chest to the rump."""
    # The depth of a ripple is proportional to its wavelength, so all are as steep as the coarsest;
    # the slow change of the depth adds to the Lipschitz bound.
    fading = (COAT.fast - COAT.slow) / (COAT.end - COAT.start) / COAT.slow**2
    coat = shapes.displace(
        _torso(), _coat_relief, amplitude=0.024, lipschitz=COAT.slow * math.hypot(1, fading)
    )
    furred = shapes.smooth_union(coat, _tail(), k=0.03)
    return shapes.smooth_union(furred, _head(), *_paws(), k=0.06)


def _torso() -> Sdf:
    body = _blob((0.42, 0.47, 0.48), (0.0, -0.4, -0.22), tilt=-25.0)
    chest = _blob((0.33, 0.44, 0.33), (0.0, -0.28, 0.16), tilt=-10.0)
    haunches = [
        _blob((0.2, 0.33, 0.37), (side * 0.38, -0.56, -0.12), tilt=-20.0) for side in (-1, 1)
    ]
    return shapes.smooth_union(shapes.smooth_union(body, chest, k=0.16), *haunches, k=0.05)


def _coat_relief(points: Tensor) -> Tensor:
    away = torch.linalg.vector_norm(points - points.new_tensor(THROAT), dim=-1)
    return torch.sin(COAT.phase(away)) * COAT.slow / COAT.frequency(away)


def _tail() -> Sdf:
    ball = shapes.sphere(0.18, (0.0, -0.5, -0.78))
    omega = 2 * math.pi / 0.1

    def knurl(points: Tensor) -> Tensor:
        x, y = points[:, 0], points[:, 1] + 0.5
        return torch.sin(omega * (x + y) / math.sqrt(2)) * torch.sin(omega * (x - y) / math.sqrt(2))

    return shapes.displace(ball, knurl, amplitude=0.014, lipschitz=omega)


def _head() -> Sdf:
    skull = _blob((0.4, 0.35, 0.39), (0.0, 0.36, 0.3), tilt=10.0)
    cheeks = [_blob((0.135, 0.115, 0.12), (side * 0.085, 0.225, 0.6)) for side in (-1, 1)]
    chin = shapes.sphere(0.09, (0.0, 0.14, 0.57))
    face = shapes.smooth_union(shapes.smooth_union(skull, chin, k=0.1), *cheeks, k=0.04)
    face = shapes.smooth_union(face, _ear(-1, lean=10.0), _ear(1, lean=24.0), k=0.06)
    eyes = [_blob((0.075, 0.09, 0.075), (side * 0.205, 0.43, 0.57)) for side in (-1, 1)]
    nose = _blob((0.052, 0.036, 0.035), (0.0, 0.31, 0.705))
    return shapes.smooth_union(face, *eyes, nose, k=0.012)


def _ear(side: int, lean: float) -> Sdf:
    blade = _blob((0.135, 0.42, 0.065), (0.0, 0.36, 0.0))
    hollow = _blob((0.075, 0.3, 0.05), (0.0, 0.36, 0.065))
    ear = shapes.smooth_difference(blade, hollow, k=0.03)
    leaning = shapes.rotate(
        shapes.rotate(ear, (1.0, 0.0, 0.0), -12.0), (0.0, 0.0, 1.0), -lean * side
    )
    return shapes.translate(leaning, (side * 0.18, 0.62, 0.2))


def _paws() -> list[Sdf]:
    feet = [
        shapes.capsule((side * 0.36, -0.83, -0.1), (side * 0.38, -0.84, 0.34), 0.115)
        for side in (-1, 1)
    ]
    arms = [
        shapes.capsule((side * 0.17, -0.35, 0.36), (side * 0.14, -0.8, 0.46), 0.1)
        for side in (-1, 1)
    ]
    hands = [_blob((0.115, 0.09, 0.15), (side * 0.14, -0.86, 0.52)) for side in (-1, 1)]
    return [*feet, *arms, *hands]


def _blob(
    radii: tuple[float, float, float], centre: tuple[float, float, float], tilt: float = 0.0
) -> Sdf:
    """An ellipsoid at ``centre``, its top tilted towards +z by ``tilt`` degrees."""
    shape = shapes.ellipsoid(radii)
    return shapes.translate(shapes.rotate(shape, (1.0, 0.0, 0.0), tilt) if tilt else shape, centre)


@dataclass(frozen=True)
class Recipe:
    """The recipe of a mesh file: ``shape``; the ``spacing`` of the grid along x, y and z; rounds of
    ``relax``, which evens out the triangles of a smooth shape; and rounds of ``sharpen``, which
    moves vertices onto sharp edges."""

    shape: Callable[[], Sdf]
    spacing: tuple[float, ...]
    relax: int = 0
    sharpen: int = 0


RECIPES = {
    "bunny": Recipe(bunny, (0.0195,) * 3, relax=8),
    "sphere": Recipe(shapes.sphere, (0.13,) * 3, relax=8),
    "torus": Recipe(shapes.torus, (0.12,) * 3, relax=8),
    "gyroid": Recipe(shapes.gyroid_slab, (0.07,) * 3, relax=8),
    "bracket": Recipe(shapes.bracket, (0.05,) * 3, sharpen=3),
    # The outermost inner nodes are as near to the rim as to the flat sides. Therefore cells that
    # are much wider than high resolve the rim.
    "plate": Recipe(shapes.thin_plate, (1.99 / 21, 0.01, 1.99 / 21), sharpen=3),
    "shells": Recipe(shapes.shells, (0.11,) * 3, relax=8),
    "ripple": Recipe(lambda: drifting_ripple().sdf, (0.05,) * 3, relax=8),
}


def mesh_shape(recipe: Recipe) -> Mesh:
    """The zero set of the recipe's shape by marching cubes, relaxed, sharpened and rounded."""
    shape, step = recipe.shape(), np.array(recipe.spacing)
    lower = np.floor(np.array(shape.bounds.lower) / step).astype(int) - 1
    upper = np.ceil(np.array(shape.bounds.upper) / step).astype(int) + 1
    # Shapes often have planes at multiples of the spacing; nodes are half a step off them.
    axes = [(np.arange(lo, hi + 1) + 0.5) * h for lo, hi, h in zip(lower, upper, step)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    indices, faces, _, _ = marching_cubes(
        _narrow_band(shape, grid, float(np.linalg.norm(step))), 0.0
    )
    vertices, faces = grid[0, 0, 0] + indices.astype(np.float64) * step, faces.astype(np.int64)
    for _ in range(recipe.relax):
        vertices = _project(shape, _centred(vertices, faces))
    for _ in range(recipe.sharpen):
        vertices = _sharpened(shape, vertices, faces, float(step.max()))
    for _ in range(2):
        vertices = _project(shape, vertices)
    mesh = _welded(vertices, faces)
    return _flipped(shape, mesh) if recipe.sharpen else mesh


def _narrow_band(shape: Sdf, grid: np.ndarray, diagonal: float) -> np.ndarray:
    """Values ``(x, y, z)`` at the nodes ``grid (x, y, z, 3)``: exact in the narrow band, of the
    right sign elsewhere.

    Where the Lipschitz bound excludes a crossing nearby, a block has the value of its first node;
    blocks have four nodes along each axis.
    """
    blocks = grid[::4, ::4, ::4]
    coarse = shape(blocks.reshape(-1, 3)).reshape(blocks.shape[:3])
    values = (
        coarse.repeat(4, 0)
        .repeat(4, 1)
        .repeat(4, 2)[tuple(slice(n) for n in grid.shape[:3])]
        .copy()
    )
    near = np.abs(values) < shape.lipschitz * 4 * diagonal
    # Pieces that fit the cache halve the time.
    points = grid[near]
    values[near] = np.concatenate(
        [shape(piece) for piece in np.array_split(points, len(points) // 16384 + 1)]
    )
    return values


def _centred(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Vertices moved half way to the mean of their neighbours, which removes the slivers of
    marching cubes."""
    start, end = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    count = np.bincount(start, minlength=len(vertices))
    total = np.stack(
        [np.bincount(start, vertices[end, axis], len(vertices)) for axis in range(3)], axis=-1
    )
    return (vertices + total / count[:, None]) / 2


def _project(shape: Sdf, vertices: np.ndarray) -> np.ndarray:
    """Vertices moved towards the zero set by a Newton step along the gradient."""
    slope = shape.gradient(vertices)
    return vertices - slope * (shape(vertices) / np.maximum((slope**2).sum(axis=-1), 0.1))[:, None]


def _sharpened(shape: Sdf, vertices: np.ndarray, faces: np.ndarray, reach: float) -> np.ndarray:
    """Vertices moved by at most ``reach`` to the intersection of the tangent planes of their faces.

    The planes touch the surface at the faces' projected centroids (Ohtake and Belyaev, "Dual/primal
    mesh optimization for polygonized implicit surfaces", 2002). A vertex does not move in
    directions that its planes leave open.
    """
    feet = vertices[faces].mean(axis=1)
    for _ in range(3):
        feet = _project(shape, feet)
    normals = shape.normals(feet)
    corners = faces.ravel()
    tangent = np.zeros((len(vertices), 3, 3))
    np.add.at(tangent, corners, np.repeat(normals[:, :, None] * normals[:, None, :], 3, axis=0))
    offsets = (
        (np.repeat(feet, 3, axis=0) - vertices[corners]) * np.repeat(normals, 3, axis=0)
    ).sum(axis=-1)
    pull = np.zeros_like(vertices)
    np.add.at(pull, corners, np.repeat(normals, 3, axis=0) * offsets[:, None])
    strength, directions = np.linalg.eigh(tangent)
    kept = strength > 0.05 * strength[:, -1:]
    along = np.einsum("vij,vi->vj", directions, pull) * kept / np.where(kept, strength, 1.0)
    move = np.einsum("vij,vj->vi", directions, along)
    length = np.linalg.norm(move, axis=-1, keepdims=True)
    return vertices + move * np.minimum(1.0, reach / np.maximum(length, 1e-12))


def _welded(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    """The mesh rounded to ``DECIMALS``, with equal vertices merged and collapsed faces removed."""
    # Adding zero turns -0.0 into 0.0, which the files must not distinguish.
    rounded, index = np.unique(np.round(vertices, DECIMALS) + 0.0, axis=0, return_inverse=True)
    faces = index.reshape(-1)[faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    used, index = np.unique(faces, return_inverse=True)
    return Mesh(rounded[used], index.reshape(faces.shape))


def _flipped(shape: Sdf, mesh: Mesh) -> Mesh:
    """The mesh with the longest edge of every folded or collapsed face flipped, in eight rounds.

    Sharpening aligns vertices along an edge, where some triangles become flat or turn over.
    """
    faces, vertices = mesh.faces.copy(), mesh.vertices
    for _ in range(8):
        corners = vertices[faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=-1)
        height = np.linalg.norm(normal, axis=-1) / length.max(axis=-1)
        outward = (normal * shape.normals(corners.mean(axis=1))).sum(axis=-1) > 0
        across = {
            edge: face
            for face, row in enumerate(faces.tolist())
            for edge in zip(row, row[1:] + row[:1])
        }
        for face in np.flatnonzero(~outward | (height < 10.0**-DECIMALS)).tolist():
            _flip_edge(faces, across, face, int(length[face].argmax()))
    return Mesh(vertices, faces)


def _flip_edge(faces: np.ndarray, across: dict[tuple[int, int], int], face: int, side: int) -> None:
    """Flips an edge of ``faces[face]`` in place, unless the new edge exists already or an earlier
    flip changed the face. ``across`` maps each directed edge to its face."""
    a, b, c = np.roll(faces[face], -side).tolist()
    if across.get((a, b)) != face or (b, a) not in across:
        return
    other = across[b, a]
    d = int(faces[other].sum()) - a - b
    if (c, d) in across or (d, c) in across:
        return
    faces[face], faces[other] = (a, d, c), (d, b, c)
    del across[a, b], across[b, a]
    across.update(
        {(a, d): face, (d, c): face, (c, a): face, (d, b): other, (b, c): other, (c, d): other}
    )


def texture() -> np.ndarray:
    """A picture ``(192, 256, 3)`` in [0, 1] with stripes whose frequency and direction drift, a
    weave, and a smooth disc with an edge."""
    y, x = np.mgrid[0:192, 0:256] + 0.5
    away = np.hypot(x - 60, y - 140)
    stripes = np.sin(0.12 * away + 0.0016 * away**2)  # from 0.12 to about 0.9 radians per pixel
    weave = np.sin(0.35 * x + 8 * np.sin(y / 40)) * np.sin(0.5 * y)
    fraction = 1 / (1 + np.exp(-(x - 0.6 * y - 70) / 12))
    grey = 0.5 + 0.3 * (stripes * (1 - fraction) + weave * fraction)
    colour = grey[..., None] * np.array([1.0, 0.9, 0.75]) + 0.15 * (y / 192)[..., None] * np.array(
        [-1.0, 0.2, 1.0]
    )
    disc = 1 / (1 + np.exp((np.hypot(x - 190, y - 50) - 32) / 0.8))
    ball = np.array([0.85, 0.3, 0.2]) * (1 - 0.4 * np.hypot(x - 180, y - 40) / 42)[..., None]
    return (colour * (1 - disc[..., None]) + ball * disc[..., None]).clip(0, 1)


def chirp() -> np.ndarray:
    """A sound ``(32000, 1)`` of two seconds at 16 kHz: a chirp from 110 to 3520 Hz, a tone of 220
    Hz with vibrato, a click, and a fade at both ends."""
    time = np.arange(32_000) / 16_000
    rise = np.log(32) / 2
    sweep = np.sin(2 * np.pi * 110 * (np.exp(rise * time) - 1) / rise)
    tone = np.sin(2 * np.pi * 220 * time + 3 * np.sin(2 * np.pi * 5 * time))
    click = (
        np.exp(-np.maximum(time - 1.2, 0) * 400) * (time >= 1.2) * np.sin(2 * np.pi * 1800 * time)
    )
    fade = np.minimum(1, np.minimum(time / 0.02, (2 - time) / 0.2))
    return (fade * (0.5 * sweep + 0.25 * tone) + 0.2 * click)[:, None]


def write_obj(path: Path, mesh: Mesh) -> None:
    """Writes a minimal Wavefront OBJ: vertices, and triangles with one-based indices."""
    lines = [
        f"v {x:.{DECIMALS}f} {y:.{DECIMALS}f} {z:.{DECIMALS}f}"
        for x, y, z in mesh.vertices.tolist()
    ]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
    path.write_text("\n".join(lines) + "\n", newline="\n")


def main() -> None:
    """Writes the assets that the command line names; all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write to"
    )
    names = [*sorted(RECIPES), "texture", "chirp"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="assets to make")
    args = parser.parse_args()
    # The arrays are too small to gain from threads, which cost much time on a busy machine.
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if "texture" in args.only:
        save_image(args.out / "texture.png", texture())
    if "chirp" in args.only:
        save_sound(args.out / "chirp.wav", Sound(chirp(), 16_000))
    for name in RECIPES.keys() & set(args.only):
        mesh = mesh_shape(RECIPES[name])
        write_obj(args.out / f"{name}.obj", mesh)
        print(f"{name}: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces")


if __name__ == "__main__":
    main()
