"""Rigid bodies for MuJoCo, in the simulator itself."""

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest

from nstr3d.cli import command as cli
from nstr3d.geometry.shapes import primitives as P
from nstr3d.io.mjcf import encode_mjcf
from nstr3d.model.tree import save_sdf
from nstr3d.surface.extract import extract_mesh

RING = P.torus(0.8, 0.3)
DENSITY = 1000.0  # MuJoCo's default, in kg per cubic metre


def simulated(scene: mujoco.MjSpec, seconds: float) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The ``scene`` on a floor at z = 0, after so many seconds."""
    floor = scene.worldbody.add_geom()
    floor.type, floor.size = mujoco.mjtGeom.mjGEOM_PLANE, [5, 5, 0.1]
    model = scene.compile()
    data = mujoco.MjData(model)
    while data.time < seconds:
        mujoco.mj_step(model, data)
    return model, data


def test_a_ball_falls_through_the_hole_of_a_ring() -> None:
    """A convex hull would carry the ball. The ring lies flat: its axis, y, is turned to z."""
    flat = RING.rotate((1, 0, 0), 90).translate((0.0, 0.0, 0.4))
    scene = mujoco.MjSpec.from_string(encode_mjcf(extract_mesh(flat, 64), "a <ring>").decode())
    ball = scene.worldbody.add_body(pos=[0.0, 0.0, 1.5])
    ball.add_freejoint()
    ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.3, 0, 0])
    model, data = simulated(scene, 2.0)
    assert model.body(1).name == "a <ring>"
    volume = 2 * math.pi**2 * 0.8 * 0.3**2
    assert model.body_mass[1] == pytest.approx(DENSITY * volume, rel=0.01)
    np.testing.assert_allclose(data.xipos[1], [0, 0, 0.3], atol=0.01)
    np.testing.assert_allclose(data.xpos[2], [0, 0, 0.3], atol=0.01)


def test_depths_agree_with_our_contacts() -> None:
    """A ball in the wall of the ring, in MuJoCo and by `Sdf.contacts`."""
    scene = mujoco.MjSpec.from_string(encode_mjcf(extract_mesh(RING, 96), "ring").decode())
    centre = np.array([1.1 + 0.2 - 0.03, 0.0, 0.0])
    scene.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.2, 0, 0], pos=centre)
    model = scene.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    theirs = -data.contact.dist.min()
    ours = RING.contacts(P.sphere(0.2, tuple(centre.tolist()))).depth[0]
    assert ours == pytest.approx(0.03, abs=1e-5)
    # MuJoCo's is the value in the middle between both surfaces.
    assert 2 * theirs == pytest.approx(ours, abs=0.003)


def test_the_command_writes_a_body_where_the_shape_is(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Far from the origin too, where single precision has steps of 0.06."""
    place = (1e6, -2e6, 3.0)
    save_sdf(tmp_path / "far.safetensors", P.box((0.3, 0.2, 0.1)).translate(place))
    model, out = tmp_path / "far.safetensors", tmp_path / "far.xml"
    words = ["export", str(model), "--to", "mujoco", "--resolution", "32"]
    assert cli.main([*words, "--out", str(out)]) == 0
    body = mujoco.MjModel.from_xml_path(str(out))
    assert body.body_mass[1] == pytest.approx(DENSITY * 0.6 * 0.4 * 0.2, rel=0.05)
    np.testing.assert_allclose(body.body_pos[1] + body.body_ipos[1], place, atol=1e-3)
    assert cli.main([*words, "--out", str(out)]) == 1
    assert "already there" in capsys.readouterr().err
    assert cli.main([*words, "--out", str(tmp_path / "far.ply")]) == 1
    assert "must end in one of .xml" in capsys.readouterr().err


def test_a_mesh_for_a_simulator_has_a_limit_of_faces(tmp_path: Path) -> None:
    save_sdf(tmp_path / "ring.safetensors", RING)
    out = tmp_path / "ring.xml"
    words = ["export", str(tmp_path / "ring.safetensors"), "--to", "mujoco", "--out", str(out)]
    assert cli.main([*words, "--resolution", "64", "--faces", "1000"]) == 0
    assert 900 < mujoco.MjModel.from_xml_path(str(out)).mesh_facenum[0] <= 1000
