"""The job fits the union of the parts of its mesh, and says what was left out or turned over."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import oracles
import pytest
from quick import QUICK, changed

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.union import Union, inner_share
from nstr3d.io import load_mesh, save_mesh
from nstr3d.jobs.mesh import MeshJob, MeshStages, run
from nstr3d.jobs.results import MESH
from nstr3d.jobs.solid import turned_warnings, union_warnings
from nstr3d.types import Mesh


def job_for(folder: Path, mesh: Mesh) -> MeshJob:
    save_mesh(folder / "input.ply", mesh)
    small = {"steps": 150, "params": 6000, "resolution": 32, "picture": 0, "out": folder / "out"}
    return changed(MeshJob(folder / "input.ply"), **(QUICK | small))


def prepared(folder: Path, mesh: Mesh) -> MeshStages:
    """The stages of a job on ``mesh``, just before sampling."""
    stages = MeshStages(job_for(folder, mesh))
    stages.read()
    stages.prepare()
    return stages


def test_overlapping_balls_are_fitted_as_one_solid(tmp_path: Path) -> None:
    second = (1.0, 0.0, 0.0)
    job = job_for(tmp_path, oracles.joined(oracles.sphere(2), oracles.sphere(2, centre=second)))
    report = run(job).report
    union = report["input"]["repairs"]["union"]
    assert union["united"] == 2
    assert union["area"] == pytest.approx(0.25, abs=0.02)
    (warning,) = report["input"]["warnings"]
    assert f"{union['area']:.2%} of the surface lay inside the solid" in warning
    assert "2 parts overlap or touch others" in warning
    assert report["mesh"]["components"] == 1
    extracted = MeshDistance(load_mesh(job.folder / MESH))
    deep = extracted(np.array([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(deep, [-np.sqrt(0.75), -1, -1], atol=0.1)


def test_a_plain_ball_is_fitted_as_it_is_without_a_word(tmp_path: Path) -> None:
    ball = oracles.sphere(2)
    stages = prepared(tmp_path, ball)
    np.testing.assert_array_equal(stages.placed.mesh.faces, ball.faces)
    assert stages.prepared.union == Union()
    assert stages.run.warnings == []


def test_a_room_scanned_from_inside_is_turned_with_a_warning(tmp_path: Path) -> None:
    room = oracles.joined(oracles.inverted(oracles.cube(half=2.0)), oracles.cube(half=0.5))
    stages = prepared(tmp_path, room)
    (warning,) = stages.run.warnings
    assert warning.startswith("All 24 faces were turned over")
    np.testing.assert_array_equal(
        stages.distance(np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])) > 0, [True, False]
    )


def test_a_part_that_is_inside_out_is_named(tmp_path: Path) -> None:
    beside = oracles.inverted(oracles.cube(centre=(4.0, 0.0, 0.0)))
    stages = prepared(tmp_path, oracles.joined(oracles.sphere(2), beside))
    (warning,) = stages.run.warnings
    assert warning.startswith("12 of ")
    assert "1 whole part(s) that were inside out" in warning


def test_open_parts_are_closed_before_they_are_united(tmp_path: Path) -> None:
    second = oracles.sphere(2, centre=(1.0, 0.0, 0.0))
    cap = second.corners.mean(axis=1)[:, 0] > 1.8
    opened = Mesh(second.vertices, second.faces[~cap])
    stages = prepared(tmp_path, oracles.joined(oracles.sphere(2), opened))
    assert stages.prepared.repairs.union is None
    assert stages.prepared.union.united == 2
    assert stages.distance(np.array([[0.0, 0.0, 0.0]])) == pytest.approx(-0.6, abs=0.2)


def test_surface_that_could_not_be_left_out_is_named() -> None:
    nested = oracles.joined(oracles.sphere(2), oracles.sphere(2, radius=0.5))
    (warning,) = union_warnings(Union(), inner_share(MeshDistance(nested)))
    assert "has the solid on both sides and still counts as surface" in warning
    assert union_warnings(Union(), inner_share(MeshDistance(oracles.sphere(2)))) == []
    plain = repair(oracles.sphere(2))[1]
    assert turned_warnings(plain, 320) == []
    assert "whole" not in turned_warnings(replace(plain, flipped_faces=3), 320)[0]


def test_what_two_unions_left_out_adds_up() -> None:
    both = Union(2, 1, 0, 4, 0.5).followed_by(Union(0, 1, 2, 1, 0.5))
    assert asdict(both) == {"walls": 2, "nested": 2, "united": 2, "cut": 5, "area": 0.75}
