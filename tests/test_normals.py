"""Normals of face corners for shading: smooth on a sphere, sharp on a cube."""

import numpy as np
from oracles import cube, sphere

from nstr3d.geometry.mesh.normals import corner_normals


def test_normals_are_smooth_on_a_sphere_and_sharp_on_a_cube() -> None:
    ball, box = sphere(4), cube()
    np.testing.assert_allclose(corner_normals(ball), ball.corners, atol=0.02)
    sharp = np.abs(corner_normals(box))
    np.testing.assert_allclose(sharp.max(axis=2), 1, atol=1e-12)
    assert np.abs(corner_normals(box, crease=100.0)).max() < 0.9
