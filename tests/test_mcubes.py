"""Isosurface extraction against PyMCubes, an independent implementation of marching cubes that
evaluates every node of the grid."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from nstr3d.geometry.mesh.surface import area, volume
from nstr3d.geometry.shapes import primitives
from nstr3d.kernels.geometry import cells, plaincells
from nstr3d.sdf import Sdf
from nstr3d.surface import bricks, extract
from nstr3d.surface.extract import Extraction
from nstr3d.types import Mesh

mcubes = pytest.importorskip("mcubes", reason="PyMCubes is not installed")

SHAPES = {
    "sphere": primitives.sphere(0.8),
    "torus": primitives.torus(),
    "far": primitives.translate(primitives.scale(primitives.torus(), 40.0), (500.0, 3.0, -80.0)),
}


def by_pymcubes(sdf: Sdf, level: float, like: Extraction) -> Mesh:
    """The surface by PyMCubes on all nodes of the grid of ``like``, in world units."""
    origin = sdf.bounds.centre - np.array(like.shape) * like.cell / 2
    axes = [start + like.cell * np.arange(n + 1) for start, n in zip(origin, like.shape)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = sdf(nodes.reshape(-1, 3)).reshape(nodes.shape[:-1]) - level
    vertices, faces = mcubes.marching_cubes(values, 0.0)
    return Mesh(origin + vertices * like.cell, faces.astype(np.int64))


@pytest.mark.parametrize("kernels", [cells, plaincells], ids=["compiled", "plain"])
@pytest.mark.parametrize("level", [0.0, 0.05])
@pytest.mark.parametrize("name", SHAPES)
def test_vertices_area_and_volume_are_those_of_pymcubes(name, level, kernels, monkeypatch):
    sdf = SHAPES[name]
    for module in (bricks, extract):
        monkeypatch.setattr(module, "kernels", lambda: kernels)
    level *= sdf.bounds.diagonal
    ours = extract.extract(sdf, 40, level, sdf.bounds.scaled(1.3))
    theirs = by_pymcubes(sdf, level, ours)
    assert len(ours.mesh.vertices) == len(theirs.vertices) > 1000
    assert len(ours.mesh.faces) == len(theirs.faces)
    distance, index = cKDTree(theirs.vertices).query(ours.mesh.vertices)
    assert len(np.unique(index)) == len(index)  # each of theirs is one of ours
    assert distance.max() < 1e-9 * sdf.bounds.diagonal
    np.testing.assert_allclose(area(ours.mesh), area(theirs), rtol=1e-4)
    np.testing.assert_allclose(abs(volume(ours.mesh)), abs(volume(theirs)), rtol=1e-4)
