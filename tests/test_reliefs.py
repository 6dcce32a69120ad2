"""The relief shapes are closed and wind outward, and their phases have the stated frequency."""

import numpy as np
import pytest
import trimesh

from nstr3d.geometry.shapes.reliefs import RELIEFS, barrel, cloth, drifting
from nstr3d.types import Mesh


@pytest.mark.parametrize("name", list(RELIEFS))
def test_shapes_are_closed_wind_outward_and_fill_the_box(name: str) -> None:
    mesh = RELIEFS[name]() if name != "cloth" else cloth(200)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.volume > 0
    assert solid.euler_number == 2
    assert solid.referenced_vertices.all()
    assert 0.8 < np.abs(mesh.vertices).max() <= 1


def test_a_barrel_without_relief_has_the_volume_of_its_profile() -> None:
    mesh: Mesh = barrel(lambda angle, height: np.zeros_like(angle), around=300, along=400)
    height = np.linspace(-1, 1, 400_001)
    volume = np.pi * 0.36 * np.clip(1 - height**16, 0, 1) ** 0.5
    expected = float(volume.mean() * 2)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume == pytest.approx(
        expected, rel=2e-3
    )


def test_a_drifting_phase_has_the_frequency_that_it_states() -> None:
    at = np.linspace(-1, 1, 2001)
    np.testing.assert_allclose(
        np.gradient(drifting(at, 30.0, 24.0), at)[1:-1], 30 + 24 * at[1:-1], atol=1e-6
    )
