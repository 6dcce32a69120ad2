"""The Open3D window, opened on a virtual display, shows the silhouette that the tracer computes."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from oracles import torus
from programs import needs, needs_parts

from nstr3d.cli import command as cli
from nstr3d.cli import view as viewing
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.io import save_mesh
from nstr3d.render.camera import Camera
from nstr3d.render.traced import measure
from nstr3d.view.window import Window

PROGRAM = """
import sys
import numpy as np
from pathlib import Path
from nstr3d.io import load_mesh
from nstr3d.geometry.mesh.paint import NearestPaint
from nstr3d.io.paintfile import read_paint
from nstr3d.view.scene import Curves, Shape
from nstr3d.types import Polylines
from nstr3d.view.window import Window

folder = Path(sys.argv[1])
mesh = load_mesh(folder / "torus.ply")
line = Polylines(np.array([[-1.0, 0, 1], [1, 0, 1]]), np.array([0, 2]))
curves = Curves("line", line, np.tile((1.0, 0.0, 0.0), (2, 1)))
with Window([Shape("torus", mesh)], [curves], mesh, (400, 320)) as window:
    shots = {"lines": window.capture()}
    window.flow()
    window.place_camera()
    shots["plain"] = window.capture()
    eye, target = window.camera.eye, window.camera.target
    for name in ("error", "error", "input", "input", "wireframe"):
        getattr(window, name)()
        shots[name + str(len(shots))] = window.capture()
    window.error()
    shots["legend"] = window.capture()
    window.window.get_view_control().rotate(200.0, 60.0)
    shots["turned"] = window.capture()
    window.screenshot()
paint = NearestPaint(read_paint(folder / "red.ply")[0])
with Window([Shape("red", mesh, paint=paint)], size=(400, 320)) as window:
    shots["red"] = window.capture()
np.savez(folder / "shots.npz", eye=eye, target=target, **shots)
"""


@needs_parts("open3d")
@needs("open3d", "xvfb")
def test_the_window_shows_the_silhouette_that_the_tracer_sees(tmp_path: Path) -> None:
    mesh = torus(48, 24)
    save_mesh(tmp_path / "torus.ply", mesh)
    shades = np.where(mesh.vertices[:, :1] > 0, (1.0, 0.0, 0.0), (0.8, 0.0, 0.0))
    save_mesh(tmp_path / "red.ply", mesh, shades)
    read, write = os.pipe()
    display = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    try:
        number = os.read(read, 16).decode().strip()
        environment = os.environ | {"DISPLAY": f":{number}"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    finally:
        display.terminate()
        display.wait()
    with np.load(tmp_path / "shots.npz") as shots:
        camera = Camera(tuple(shots["eye"]), tuple(shots["target"]), width=400, height=320)
        expected = measure(MeshDistance(mesh).sdf(), camera).mask
        drawn = (np.abs(shots["plain"] - 0.93) > 2 / 255).any(axis=2)
        assert (drawn & expected).sum() / (drawn | expected).sum() > 0.98
        red = (shots["lines"] * (1, -1, -1)).sum(axis=2) > 0.5
        assert 20 < red.sum() < 4000
        names = [name for name in shots.files if name not in ("eye", "target", "red")]
        pictures = [shots[name] for name in names]
        assert all(np.abs(a - b).max() > 0.05 for a, b in pairwise(pictures[1:]))
        # The scale is at the left edge, yellow above, and stays when the view turns.
        for picture in (shots["legend"], shots["turned"]):
            strip = picture[:, 23]
            coloured = np.flatnonzero(np.ptp(strip, axis=1) > 0.1)
            assert 100 < len(coloured) < 150
            top, bottom = strip[coloured[2]], strip[coloured[-3]]
            assert top[0] > 0.8 > 0.4 > top[2]
            assert bottom[2] > bottom[1]
        drawn = (np.abs(shots["red"] - 0.93) > 2 / 255).any(axis=2)
        assert 0.9 < drawn.sum() / expected.sum() < 1.1
        assert (shots["red"] * (1, -1, -1)).sum(axis=2)[drawn].mean() > 0.3
    assert (tmp_path / "view-1.png").exists()


def test_without_a_display_the_ways_to_look_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    save_mesh(tmp_path / "torus.ply", torus())
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["view", str(tmp_path / "torus.ply")]) == 1
    message = capsys.readouterr().err
    assert "--browser" in message
    assert "nstr3d render" in message
    assert message.count("\n") == 1


class Blind(Window):
    """A window that draws nothing and acts as if its user asked for the input mesh and error."""

    def __init__(self, shapes, curves, reference, size, say, up, view):
        self.reference, self.say = reference, say

    def run(self) -> None:
        self.input()
        self.error()

    def close(self) -> None:
        self.reference = None


def test_what_the_window_lacks_is_named_as_a_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    save_mesh(tmp_path / "torus.ply", torus())
    monkeypatch.setattr(viewing, "Window", Blind)
    monkeypatch.setattr(viewing, "has_display", lambda: True)
    assert cli.main(["view", str(tmp_path / "torus.ply")]) == 0
    assert capsys.readouterr().out.count("name it as --input.") == 2
