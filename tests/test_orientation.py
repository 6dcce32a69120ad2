"""Clouds that cannot be oriented, and the benchmark of orientation methods."""

import numpy as np
import pytest
from oracles import sphere
from test_cloud import ball

from nstr3d.io import save_mesh
from nstr3d.jobs.cloud import first_surface
from nstr3d.types import PointCloud


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (ball(50).points, "at least 100"),
        (ball(200).points * [1, 1, 0], "in a plane"),
        (np.full((200, 3), np.nan), "not finite"),
    ],
)
def test_points_without_a_surface_are_refused(points, reason):
    with pytest.raises(ValueError, match=reason):
        first_surface(PointCloud(points))


def test_the_benchmark_counts_wrong_signs(app, tmp_path, capsys, monkeypatch):
    race = app("bench.orientation")
    radial = {
        "radial": lambda tree: tree.points / np.linalg.norm(tree.points, axis=1, keepdims=True)
    }
    monkeypatch.setattr(race, "METHODS", radial | {"inward": lambda tree: -radial["radial"](tree)})
    save_mesh(tmp_path / "ball.ply", sphere(3))
    small = ["--samples", "2000", "--cells", "32"]
    assert race.main([str(tmp_path / "ball.ply"), "--counts", "1000", "--noises", "0", *small]) == 0
    exact, signed, right, inward = (
        [float(cell) for cell in line.split("|")[4:-1]]
        for line in capsys.readouterr().out.splitlines()[2:]
    )
    normals, sides, box, far = range(4)
    assert (
        exact[normals]
        == exact[sides]
        == exact[far]
        == right[normals]
        == right[sides]
        == right[far]
        == 0
    )
    assert signed[normals] == signed[sides] == 0
    assert inward[normals] == inward[sides] == 100
    assert inward[far] > 50
    assert right[box] < 2
    assert race.main([str(tmp_path / "none.ply")]) == 1
