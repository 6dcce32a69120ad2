"""Textures of surfaces: baked colours against those of the shape."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles import sphere as ball
from programs import needs_parts
from torch import Tensor

from nstr3d.geometry.mesh.decimate import decimate
from nstr3d.geometry.mesh.paint import sample_paint
from nstr3d.geometry.shapes.primitives import sphere
from nstr3d.io.paint import Paint, PaintedPart
from nstr3d.sdf import Sdf
from nstr3d.surface.atlas import bake, unwrap
from nstr3d.surface.extract import extract_mesh

pytestmark = needs_parts("texture")


def painted() -> Sdf:
    def colour(points: Tensor) -> Tensor:
        return 0.5 + 0.4 * (4 * points).sin()

    return replace(sphere(1.0), paint=colour)


def test_the_texture_shows_the_colours_of_the_shape() -> None:
    shape = painted()
    atlas = bake(shape, decimate(extract_mesh(shape, 48), 2000), 512)
    assert atlas.picture.shape == (512, 512, 3)
    faces = atlas.mesh.faces
    part = PaintedPart(
        atlas.mesh, np.ones((len(faces), 3, 3)), "texture", atlas.uv[faces], atlas.picture
    )
    points, shown = sample_paint(Paint((part,), "texture"), 20_000, np.random.default_rng(0))
    error = np.abs(shown - shape.colour(points))
    assert error.mean() < 1 / 255
    assert np.quantile(error, 0.999) < 6 / 255  # also beside the seams


def test_a_mesh_is_cut_and_not_changed() -> None:
    mesh = ball(3)
    cut, uv = unwrap(mesh)
    assert cut.faces.shape == mesh.faces.shape
    np.testing.assert_allclose(
        np.sort(cut.corners.reshape(-1, 9), axis=0),
        np.sort(mesh.corners.reshape(-1, 9), axis=0),
        atol=1e-9,
    )
    assert uv.shape == (len(cut.vertices), 2)
    assert uv.min() >= 0
    assert uv.max() <= 1
    edges = uv[cut.faces[:, 1:]] - uv[cut.faces[:, :1]]
    area = np.abs(np.linalg.det(edges)) / 2
    assert area.min() > 0
    assert 0.3 < area.sum() <= 1  # pieces fill the square and do not overlap


def test_a_shape_without_colours_and_a_missing_xatlas_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="no colours to bake"):
        bake(sphere(1.0), ball(2), 64)
    monkeypatch.setitem(sys.modules, "xatlas", None)
    with pytest.raises(ModuleNotFoundError, match=r"nstr3d\[texture\]"):
        bake(painted(), ball(2), 64)


def test_far_from_the_origin_the_texture_is_as_fine(tmp_path: Path) -> None:
    shape = painted().scale(1e-3).translate((1e3, 0.0, 0.0))
    mesh = extract_mesh(shape, 32)
    atlas = bake(shape, mesh, 256)
    faces = atlas.mesh.faces
    part = PaintedPart(
        atlas.mesh, np.ones((len(faces), 3, 3)), "texture", atlas.uv[faces], atlas.picture
    )
    points, shown = sample_paint(Paint((part,), "texture"), 2000, np.random.default_rng(0))
    assert np.abs(shown - shape.colour(points)).mean() < 3 / 255
