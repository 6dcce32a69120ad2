"""The genus of meshes whose handles one can count."""

from pathlib import Path

import numpy as np
import pytest

from nstr3d.geometry.mesh.topology import genera
from nstr3d.io import load_mesh
from nstr3d.types import Mesh

ASSETS = Path(__file__).parents[1] / "assets"


def joined(*meshes: Mesh) -> Mesh:
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([m.faces + n for m, n in zip(meshes, first[:-1])]),
    )


@pytest.mark.parametrize(("name", "genus"), [("sphere", 0), ("torus", 1)])
def test_a_sphere_has_no_handle_and_a_torus_one(name, genus):
    assert genera(load_mesh(ASSETS / f"{name}.obj")) == [genus]


def test_each_component_is_counted_and_an_open_one_has_none():
    sphere, torus = load_mesh(ASSETS / "sphere.obj"), load_mesh(ASSETS / "torus.obj")
    assert genera(joined(sphere, torus)) == [1, 0]  # the torus has more faces
    assert genera(joined(Mesh(sphere.vertices, sphere.faces[1:]), torus)) == [1, None]
