"""Every kind of job: a failed measurement does not lose the fit, and expensive structures are built
once."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.spatial
from oracles import sphere
from PIL import Image
from quick import QUICK, changed

from nstr3d.cli.tables import points_table, signal_table, table
from nstr3d.fields import vicinity
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.io import save_mesh
from nstr3d.jobs import cloud, fitting, flowshape, mesh, signal, surface
from nstr3d.jobs.cloud import PointsJob, run_points
from nstr3d.jobs.flow import run_flow
from nstr3d.jobs.flowoptions import FlowJob
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.results import MODEL, PICTURE
from nstr3d.jobs.signal import COMPARISON, SignalJob, run_signal
from nstr3d.jobs.stages import Interrupted, Listener, Outcome
from nstr3d.jobs.walk import REPORT
from nstr3d.model.checkpoint import load
from nstr3d.types import Mesh

TINY = QUICK | {"steps": 20, "pool": 8000, "samples": 500, "resolution": 16, "picture": 16}
REASON = "RuntimeError: no luck"


def mesh_job(folder: Path, **options: Any) -> MeshJob:
    ball = sphere(2)
    save_mesh(folder / "in.ply", Mesh(3 * ball.vertices + [10, 0, 0], ball.faces))
    chosen = TINY | {"params": 6000, "out": folder / "out"}
    return changed(MeshJob(folder / "in.ply"), **(chosen | options))


def points_job(folder: Path, **options: Any) -> PointsJob:
    normals = np.random.default_rng(0).standard_normal((1500, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    np.save(folder / "in.npy", np.hstack([normals, normals]))
    save_mesh(folder / "reference.ply", sphere(2))
    chosen = TINY | {"steps": 60, "params": 6000, "resolution": 32, "out": folder / "out"}
    reference = {"reference": folder / "reference.ply"}
    return changed(PointsJob(folder / "in.npy"), **(chosen | reference | options))


def picture_job(folder: Path) -> SignalJob:
    values = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
    Image.fromarray(values).save(folder / "in.png")
    return SignalJob(folder / "in.png", folder / "out", params=300)


JOBS: dict[str, tuple[Callable, Callable, Any, Callable, dict[str, str], set[str], str]] = {
    # Each job: how to make and to run it, the module whose functions are made to fail, its table,
    # each function's name in the report, the files that are not written then, and the model file.
    "mesh": (
        mesh_job,
        run,
        mesh,
        table,
        {
            "score": "accuracy",
            "measure_kink": "kink",
            "render": "picture",
            "_transport": "transport",
        },
        {PICTURE},
        MODEL,
    ),
    "points": (
        points_job,
        run_points,
        cloud,
        points_table,
        {
            "score": "accuracy",
            "render": "picture",
            "compare_cloud": "points",
            "genera": "genus",
        },
        {PICTURE},
        MODEL,
    ),
    "signal": (
        picture_job,
        run_signal,
        signal,
        signal_table,
        {"score_signal": "accuracy", "comparison": "comparison"},
        {COMPARISON},
        MODEL,
    ),
}


@pytest.mark.parametrize("kind", JOBS)
def test_every_measurement_may_fail_and_the_fit_is_kept_with_the_reasons(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, start, module, tabulate, failing, unwritten, model = JOBS[kind]

    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("no\n  luck")

    for function in failing:
        monkeypatch.setattr(module, function, fail)
    if kind != "signal":
        monkeypatch.setattr(surface, "structure", fail)
        failing = failing | {"structure": "structure"}
    warnings: list[str] = []
    job = make(tmp_path)
    outcome: Outcome = start(job, Listener(warn=warnings.append))
    report = json.loads((job.folder / REPORT).read_text())
    assert report == json.loads(json.dumps(outcome.report))
    reasons = {key: value for key, value in report.items() if key.endswith("_failed")}
    assert reasons == {f"{name}_failed": REASON for name in failing.values()}
    for name in {"accuracy", "points", "transport"} & set(failing.values()):
        assert report[name] is None
    if kind != "signal":
        assert report["mesh"]["watertight"] is report["mesh"]["components"] is None
    assert sorted(warnings) == sorted(
        f"{name} could not be measured ({REASON})." for name in failing.values()
    )
    written = {path.name for path in job.folder.iterdir()}
    assert written == {path.name for path in outcome.files}
    assert not written & unwritten
    assert load(job.folder / model).provenance["input"] == job.path.name
    assert REASON in tabulate(outcome)


def test_kinks_that_cannot_be_measured_leave_the_other_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(mesh, "measure_kink", fail)
    outcome = run(mesh_job(tmp_path))
    assert outcome.report["kink_failed"] == REASON
    accuracy = outcome.report["accuracy"]
    assert accuracy["iou_volume"] > 0.5
    assert {value for key, value in accuracy.items() if key.startswith("kink")} == {None}
    assert f"not measured: {REASON}" in table(outcome)


def test_a_picture_of_a_former_run_goes_when_its_successor_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = picture_job(tmp_path)
    run_signal(job)
    assert (job.folder / COMPARISON).exists()

    def fail(*args: Any) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(signal, "comparison", fail)
    report = run_signal(changed(job, overwrite=True)).report
    assert report["comparison_failed"] == "MemoryError: too large"
    assert not (job.folder / COMPARISON).exists()


@pytest.mark.parametrize(
    ("stopped", "sentence"),
    [(KeyboardInterrupt(), "nothing was written"), (Interrupted("Stopped at once."), "at once")],
)
def test_a_stop_while_measuring_is_no_failed_measurement(
    stopped: BaseException, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any) -> None:
        raise stopped

    monkeypatch.setattr(signal, "score_signal", stop)
    with pytest.raises(Interrupted, match=sentence):
        run_signal(picture_job(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"in.png"}


def test_a_stop_after_publishing_says_where_the_results_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = picture_job(tmp_path)

    def stop(self: signal.SignalStages) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signal.SignalStages, "finish", stop)
    with pytest.raises(Interrupted, match="results are complete in") as stopped:
        run_signal(job)
    assert str(job.folder) in str(stopped.value)
    assert {path.name for path in job.folder.iterdir()} == set(job.names)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each expensive structure is built, by its kind and a hash of its input."""
    counts: Counter = Counter()

    def of(*parts: Any) -> str:
        return hashlib.md5(
            b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        ).hexdigest()

    for name in ("_tree", "_winding_tree"):
        prop = MeshDistance.__dict__[name]

        def build(self: MeshDistance, name: str = name, real: Callable = prop.func) -> Any:
            counts[name, of(np.round(self._vertices, 6), self._faces)] += 1
            return real(self)

        monkeypatch.setattr(prop, "func", build)

    class Tree(scipy.spatial.KDTree):
        def __init__(self, data: np.ndarray, *args: Any, **options: Any):
            counts["points", of(data)] += 1
            super().__init__(data, *args, **options)

    monkeypatch.setattr(scipy.spatial, "KDTree", Tree)
    lattice = vicinity.surface_lattice

    def nodes(shape: Mesh, spacing: float) -> np.ndarray:
        counts["lattice", spacing, of(shape.vertices, shape.faces)] += 1
        return lattice(shape, spacing)

    monkeypatch.setattr(vicinity, "surface_lattice", nodes)
    digest = hashlib.sha256

    class Hashes:
        @staticmethod
        def sha256(data: bytes) -> Any:
            counts["hash", of(np.frombuffer(data, np.uint8))] += 1
            return digest(data)

    monkeypatch.setattr(fitting, "hashlib", Hashes)
    return counts


def kinds(counts: Counter) -> dict[str, int]:
    """The number of different structures that were built, by kind."""
    return dict(Counter(kind for kind, *_ in counts))


def test_a_job_on_a_mesh_builds_each_tree_lattice_and_hash_once(
    tmp_path: Path, built: Counter
) -> None:
    run(mesh_job(tmp_path, params=30_000))
    assert set(built.values()) == {1}
    number = kinds(built)
    assert number.pop("lattice") > 2
    # Trees of the input and of the extracted mesh, which needs no signs; the tree of the samples is
    # for the start of training.
    assert number == {"_tree": 2, "_winding_tree": 1, "points": 1, "hash": 1}


def test_a_job_that_starts_from_a_model_builds_each_lattice_and_tree_once(
    tmp_path: Path, built: Counter
) -> None:
    run(mesh_job(tmp_path))
    built.clear()
    start = {"start": tmp_path / "out" / MODEL, "params": None, "out": tmp_path / "next"}
    run(mesh_job(tmp_path, **start))
    assert kinds(built)["hash"] == 2  # one hash of the input, one of the model
    assert {count for (kind, *_), count in built.items() if kind != "points"} == {1}


def test_a_job_on_points_builds_each_tree_lattice_and_hash_once(
    tmp_path: Path, built: Counter
) -> None:
    run_points(points_job(tmp_path, trim=4.0))
    assert set(built.values()) == {1}
    number = kinds(built)
    # Trees of the surface, the extracted mesh and the reference.
    assert (number["_tree"], number["_winding_tree"], number["hash"]) == (3, 2, 1)


def test_a_flow_builds_each_tree_once_and_survives_figures_that_fail(
    tmp_path: Path, built: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mesh_job(tmp_path))
    built.clear()

    def fail(*args: Any) -> None:
        raise ValueError("no luck")

    failing = {
        "_agreement": "agreement",
        "_flow_of": "spectral_flow",
        "_curvature_correlation": "mean_curvature_rank_correlation",
        "_transport_residual": "transport_residual",
    }
    for function in failing:
        monkeypatch.setattr(flowshape, function, fail)
    few = {"samples": 1500, "read": 300, "resolution": 32, "size": 32, "seeds": 100}
    reach = {"separation": 0.05, "length": 0.3}
    outcome = run_flow(FlowJob(tmp_path / "out" / MODEL, **few, **reach))
    assert set(built.values()) == {1}
    report = outcome.report
    reasons = {key: value for key, value in report.items() if key.endswith("_failed")}
    assert reasons == {f"{name}_failed": "ValueError: no luck" for name in failing.values()}
    assert report["agreement"] is report["spectral_flow"]["median"] is None
    assert {path.name for path in (tmp_path / "out" / "flow").iterdir()} == {
        path.name for path in outcome.files
    }


def test_a_hash_that_is_known_is_taken(tmp_path: Path, built: Counter) -> None:
    job = mesh_job(tmp_path)
    run(job, sha256="known")
    assert "hash" not in kinds(built)
    assert load(job.folder / MODEL).provenance["sha256"] == "known"
