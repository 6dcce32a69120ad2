"""Normals of face corners for shading: smooth on a sphere, sharp on a cube."""

import numpy as np
import pytest
from oracles import cube, sphere

from nstr3d.geometry.mesh.normals import corner_normals
from nstr3d.types import Mesh


def test_normals_are_smooth_on_a_sphere_and_sharp_on_a_cube() -> None:
    ball, box = sphere(4), cube()
    np.testing.assert_allclose(corner_normals(ball), ball.corners, atol=0.02)
    sharp = np.abs(corner_normals(box))
    np.testing.assert_allclose(sharp.max(axis=2), 1, atol=1e-12)
    assert np.abs(corner_normals(box, crease=100.0)).max() < 0.9


@pytest.mark.parametrize("crease", [0.0, 35.0, 90.0, 120.0, 180.0])
def test_faces_without_area_have_no_normal_and_change_no_other(crease: float) -> None:
    box = cube()
    a, b, c = box.faces[0].tolist()
    spoilt = Mesh(box.vertices, np.concatenate([box.faces, [[a, a, b], [c, c, c]]]))
    normals = corner_normals(spoilt, crease)
    assert not normals[-2:].any()
    np.testing.assert_allclose(normals[:-2], corner_normals(box, crease), atol=1e-12)


@pytest.mark.parametrize("crease", [-1.0, 181.0, float("nan")])
def test_a_crease_that_is_no_angle_is_refused(crease: float) -> None:
    with pytest.raises(ValueError, match="0 to 180 degrees"):
        corner_normals(cube(), crease)
