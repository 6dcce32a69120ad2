"""Closing holes: a closed mesh is unchanged; an open mesh becomes watertight with its full
volume."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.surface import volume
from nstr3d.types import Mesh


def without(mesh: Mesh, *faces: int) -> Mesh:
    return Mesh(mesh.vertices, np.delete(mesh.faces, faces, axis=0))


def test_a_closed_mesh_stays_as_it_is():
    mesh = oracles.cube()
    closed, closing = close_holes(mesh)
    assert closed is mesh
    assert (closing.holes, closing.left) == (0, 0)


@pytest.mark.parametrize("missing", [(0,), (0, 1), (0, 1, 2)])
def test_a_cube_with_faces_missing_is_closed_again(missing):
    closed, closing = close_holes(without(oracles.cube(), *missing))
    assert closing.left == 0
    assert closing.holes >= 1
    assert repair(closed)[1].watertight
    assert repair(closed)[1].flipped_faces == 0  # the caps face outward


def test_a_planar_hole_gets_a_planar_cap_and_the_volume_back():
    cube = oracles.cube()
    normals = np.cross(
        cube.corners[:, 1] - cube.corners[:, 0], cube.corners[:, 2] - cube.corners[:, 0]
    )
    side = np.flatnonzero(normals[:, 0] > 1e-9)
    closed, closing = close_holes(without(cube, *side))
    assert closing.holes == 1
    assert volume(closed) == pytest.approx(volume(cube), rel=1e-12)
    edge = np.ptp(cube.vertices[:, 1])
    assert closing.widest == pytest.approx(np.sqrt(2) * edge)


def test_loops_that_meet_in_a_vertex_stay_open():
    sheet = Mesh(
        np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]),
        np.array([[0, 1, 2], [0, 3, 4]]),
    )
    closed, closing = close_holes(sheet)
    assert closing.holes == 0
    assert closing.left == 6
    assert len(closed.faces) == 2
