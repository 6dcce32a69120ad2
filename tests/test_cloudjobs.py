"""A point cloud through the whole job and the command line: the files written, the refusals, the
measurements and trimming."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from oracles import sphere
from quick import QUICK, WORDS, changed

from nstr3d.cli.command import main
from nstr3d.geometry.mesh.topology import genera
from nstr3d.io import load_image, load_mesh, save_mesh
from nstr3d.jobs import surface
from nstr3d.jobs.cloud import PointsJob, run_points
from nstr3d.jobs.results import CHECKPOINT, MESH, MODEL, PICTURE
from nstr3d.jobs.stages import Interrupted, Listener
from nstr3d.jobs.walk import REPORT
from nstr3d.model.checkpoint import load
from nstr3d.render.camera import Camera
from nstr3d.render.points import splat
from nstr3d.types import Mesh, PointCloud

RESULTS = {MODEL, MESH, PICTURE, REPORT}
SMALL = {"steps": 60, "params": 6000, "resolution": 40}


def points(count: int = 1500, noise: float = 0.0) -> np.ndarray:
    """Points and normals ``(n, 6)`` of a sphere of radius 3 with centre (10, 0, 0)."""
    generator = np.random.default_rng(0)
    normals = generator.standard_normal((count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.hstack(
        [normals * (3 + noise * generator.standard_normal((count, 1))) + [10, 0, 0], normals]
    )


def job_for(tmp_path, table: np.ndarray | None = None, **options) -> PointsJob:
    path = tmp_path / "scan.npy"
    if table is not None or not path.exists():
        np.save(path, points() if table is None else table)
    chosen = {"out": tmp_path / "new" / "out"} | QUICK | SMALL
    return changed(PointsJob(path), **(chosen | options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> PointsJob:
    """A finished job, measured against a reference. No test changes its files."""
    folder, ball = tmp_path_factory.mktemp("whole"), sphere(3)
    save_mesh(folder / "reference.ply", Mesh(3 * ball.vertices + [10, 0, 0], ball.faces))
    job = job_for(folder, reference=folder / "reference.ply")
    run_points(job)
    return job


def test_a_job_leaves_a_field_a_mesh_a_picture_and_a_report(whole):
    out = whole.folder
    assert {path.name for path in out.iterdir()} == RESULTS
    report = json.loads((out / REPORT).read_text())
    assert report["input"]["points"] == 1500
    assert report["input"]["measured"]
    assert report["mesh"]["watertight"]
    assert report["mesh"]["genus"] == [0]
    mesh = load_mesh(out / MESH)
    error = np.abs(np.linalg.norm(mesh.vertices - [10, 0, 0], axis=1) - 3)
    assert error.mean() < 0.05
    assert report["points"]["mean"] * report["points"]["diagonal"] < 0.05
    accuracy = report["accuracy"]
    assert accuracy["chamfer"] == pytest.approx(
        (accuracy["accuracy"] + accuracy["completeness"]) / 2, rel=0.1
    )
    assert accuracy["f_score"] > 0.5
    assert load(out / MODEL).sdf()(np.array([[10.0, 0, 0]]))[0] < -1.5
    assert load_image(out / PICTURE).shape == (32 + 21, 72, 3)


def test_the_same_job_gives_the_same_field_and_report(tmp_path, whole):
    where = np.random.default_rng(0).uniform(7, 13, (50, 3))
    outcome = run_points(changed(whole, out=tmp_path / "again"))
    again, before = (
        load(folder / MODEL).sdf()(where) for folder in (tmp_path / "again", whole.folder)
    )
    np.testing.assert_array_equal(again, before)
    report = json.loads((tmp_path / "again" / REPORT).read_text())
    assert report == json.loads(json.dumps(outcome.report))


def test_normals_can_be_estimated_and_the_noise_given(tmp_path):
    table = points(noise=0.03)
    table[:, 3:] = [0, 0, 1]  # wrong normals, which must be ignored
    report = run_points(job_for(tmp_path, table, normals="estimate", smooth=0.05)).report
    assert not report["input"]["measured"]
    assert report["input"]["noise"] == pytest.approx(0.05)
    assert report["input"]["noise_given"]
    assert report["accuracy"] is None
    assert load(tmp_path / "new" / "out" / MODEL).sdf()(np.array([[10.0, 0, 0]]))[0] < -1.5


def test_trimming_opens_the_mesh_where_there_were_no_points(tmp_path):
    table = points()
    report = run_points(job_for(tmp_path, table[table[:, 2] < 1.5], trim=3.0)).report
    assert not report["mesh"]["watertight"]
    assert load_mesh(tmp_path / "new" / "out" / MESH).vertices[:, 2].max() < 2.5


def test_pieces_of_the_field_that_no_points_support_are_left_out_and_others_kept(
    tmp_path, monkeypatch
):
    real = surface.extract_surface

    def with_bubble(*asked):
        extraction, ball = real(*asked), sphere(1)
        low = extraction.mesh.bounds.centre
        pieces = [extraction.mesh, Mesh(ball.vertices * 0.01 + low, ball.faces)]
        first = len(pieces[0].vertices)
        joined = (
            np.concatenate([piece.vertices for piece in pieces]),
            np.concatenate([pieces[0].faces, pieces[1].faces + first]),
        )
        return replace(extraction, mesh=Mesh(*joined))

    monkeypatch.setattr(surface, "extract_surface", with_bubble)
    away = np.array([9.0, 0, 0, 0, 0, 0])
    for name, table, components in (
        ("one", points(), 1),
        ("two", np.concatenate([points(), points() + away]), 2),
    ):
        job = job_for(tmp_path, table, out=tmp_path / name)
        assert run_points(job).report["mesh"]["components"] == components
        assert len(genera(load_mesh(tmp_path / name / MESH))) == components
    said = []
    job = job_for(tmp_path, points(), out=tmp_path / "proven", certified=True)
    report = run_points(job, Listener(warn=said.append)).report
    assert report["mesh"]["certificate"] is None
    assert any("nothing of it is proven" in each for each in said)


def test_a_stopped_run_goes_on_and_ends_as_if_never_stopped(tmp_path, whole):
    def stop(progress):
        if progress.step == 15:
            raise KeyboardInterrupt

    parts = changed(whole, out=tmp_path / "parts")
    with pytest.raises(Interrupted, match="with resume"):
        run_points(parts, Listener(step=stop))
    assert (tmp_path / "parts" / CHECKPOINT).exists()
    again = changed(parts, resume=True)
    with pytest.raises(ValueError, match="belongs to another run: smooth"):
        run_points(changed(again, smooth=0.1))
    run_points(again)
    assert (tmp_path / "parts" / MESH).read_bytes() == (whole.folder / MESH).read_bytes()


def test_the_user_is_told_of_outliers_and_turned_normals(tmp_path):
    table = points()
    table[:, 3:] *= -1
    far = np.hstack(
        [np.random.default_rng(1).uniform(-20, 40, (20, 3)), np.tile([0, 0, 1], (20, 1))]
    )
    heard = []
    run_points(job_for(tmp_path, np.concatenate([table, far])), Listener(warn=heard.append))
    assert "lie far from the others" in heard[0]
    assert heard[1].startswith("1500 normals pointed inward")


def test_the_report_says_how_the_columns_were_read_and_what_was_left_out(tmp_path):
    table = points()
    table[:200, 0], table[200:250, :3], table[250:260, 3:] = np.nan, 0, 0
    heard = []
    report = run_points(job_for(tmp_path, table), Listener(warn=heard.append)).report["input"]
    assert report["columns"].startswith("no names: columns 1 to 3 are the position, 4 to 6 the nor")
    assert (report["not_finite"], report["origins"], report["without_normal"]) == (200, 50, 10)
    assert report["deviation"] < 5
    assert heard == report["warnings"]
    assert [warning.split(" and ")[0] for warning in heard] == [
        "200 of 1500 points are not finite",
        "50 of 1500 points are 0 0 0, as depth cameras write pixels without depth,",
        "10 of 1500 points have no normal, unlike the others,",
    ]


def test_columns_that_are_no_normals_are_warned_of(tmp_path):
    table, heard = points(), []
    table[:, 3:] = [1, 0, 0]  # as long as normals, but of no direction of the surface
    run_points(job_for(tmp_path, table), Listener(warn=heard.append))
    assert "The normals deviate by 59 degrees" in heard[-1]
    assert "use normals estimate" in heard[-1]
    table[:, 3:] = 7 * points()[:, 3:]
    first = []
    report = run_points(
        job_for(tmp_path, table, overwrite=True), Listener(warn=first.append)
    ).report
    assert "their lengths are 7 to 7" in first[0]
    assert not report["input"]["measured"]


@pytest.mark.parametrize(
    "options",
    [
        {"smooth": -1.0},
        {"smooth": np.inf},
        {"trim": 0.0},
        {"trim": np.nan},
        {"normals": "some"},
        {"normals": "none"},
    ],
)
def test_options_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=rf"^{next(iter(options))} (must be|is one of)"):
        job_for(tmp_path, **options)


def test_a_failing_job_leaves_nothing(tmp_path):
    flat = points() * [1, 1, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="in a plane"):
        run_points(job_for(tmp_path, flat))
    with pytest.raises(FileNotFoundError, match=r"none\.obj does not exist"):
        run_points(job_for(tmp_path, points(), reference=tmp_path / "none.obj"))
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


def test_normals_of_length_zero_are_refused_and_the_advice_works(app, tmp_path, capsys):
    np.savetxt(tmp_path / "scan.xyz", points() * [1, 1, 1, 0, 0, 0], "%g")
    words = [str(tmp_path / "scan.xyz"), "--out", str(tmp_path / "a"), *WORDS, "--steps", "60"]
    words += ["--params", "6000", "--resolution", "40"]
    assert app("fit_points").main(words) == 1
    assert "--normals estimate" in capsys.readouterr().err
    assert app("fit_points").main([*words, "--normals", "estimate"]) == 0
    out = capsys.readouterr().out
    assert "normals estimated" in out
    assert "4 to 6 the normal, all of length zero" in out


def test_the_app_and_the_command_line_fit_points(app, tmp_path, capsys):
    np.savetxt(tmp_path / "scan.xyz", points()[:, :3])
    small = [*WORDS, "--steps", "60", "--params", "6000", "--resolution", "40"]
    assert (
        app("fit_points").main([str(tmp_path / "scan.xyz"), "--out", str(tmp_path / "a"), *small])
        == 0
    )
    table = capsys.readouterr().out
    assert "normals estimated" in table
    assert (tmp_path / "a" / MESH).exists()
    assert main(["points", str(tmp_path / "none.xyz")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.xyz'} does not exist\n"


BAD = {"2 columns": "1 2\n" * 200, "not finite": "1 2 nan\n" * 200, "only 1 points": "1 2 3\n"}


@pytest.mark.parametrize("reason", BAD)
def test_bad_input_is_one_line_and_exit_code_1(app, tmp_path, capsys, reason):
    (tmp_path / "bad.xyz").write_text(BAD[reason])
    assert app("fit_points").main([str(tmp_path / "bad.xyz"), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert reason in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_splat_shows_points_where_the_camera_sees_them():
    camera = Camera((0, 0, 10), (0, 0, 0), width=65, height=65)
    half = 10 * np.tan(np.radians(camera.fov / 2))
    cloud = PointCloud(
        np.array([[0.0, 0, 0], [half / 2, half / 2, 0], [0, 0, -5]]),
        np.array([[0.0, 0, 1], [1, 0, 0], [1, 0, 0]]),
    )
    picture = splat(cloud, camera)[..., 0]
    assert picture.shape == (65, 65)
    assert 0.5 < picture[32, 32] < 0.9  # the nearer point hides the dark point behind it
    assert picture[16, 48] < 0.2
    assert picture[48, 16] > 0.9


def test_the_benchmark_measures_what_it_can_and_names_what_is_missing(
    app, tmp_path, capsys, monkeypatch
):
    module = app("bench.points")
    monkeypatch.setitem(sys.modules, "open3d", None)
    save_mesh(tmp_path / "ball.ply", sphere(3))
    small = [
        str(tmp_path / "ball.ply"),
        "--counts",
        "1000",
        "--noises",
        "0.5",
        "--missing",
        "0.2",
        "--samples",
        "2000",
        "--out",
        str(tmp_path / "out"),
    ]
    assert module.main(small) == 1
    assert "pip install 'nstr3d[open3d]'" in capsys.readouterr().err
    assert module.main([*small, "--depths"]) == 0
    rows = (tmp_path / "out" / "points.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows[1:]] == ["True", "False"]
    assert [row.split(",")[6] for row in rows[1:]] == ["0", "0"]
    assert all(float(row.split(",")[7]) < 0.02 for row in rows[1:])
    assert module.main([*small, "--depths"]) == 0  # all rows are done already
    assert (tmp_path / "out" / "points.csv").read_text().splitlines() == rows
