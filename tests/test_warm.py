"""Warm starts: the carried field is the same function, missing nodes copy the nearest node, and a
job starts from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import sphere
from quick import QUICK, changed

from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig, TransportConfig
from nstr3d.fields.start.warm import warm_start
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.io import save_mesh
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.results import MODEL
from nstr3d.model.checkpoint import load, save
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame, Mesh

LEVELS = LevelConfig(4, plain=2, sparse=False), LevelConfig(6, plain=1, waves=PhaseWaves(2))


def field_near(mesh: Mesh | None, transport: TransportConfig | None = None):
    return NstrConfig(LEVELS, hidden=8, transport=transport).build(
        3, 1, mesh, torch.Generator().manual_seed(3)
    )


def inner(count: int = 500) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.6


def test_carried_to_the_same_shape_it_is_the_same_field() -> None:
    field = field_near(sphere(2), TransportConfig(hidden=4))
    same = warm_start(field, sphere(2))
    for name, tensor in field.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], tensor, atol=1e-5, rtol=0, msg=name)


def sloped(field: Nstr) -> Nstr:
    """The field with a spectrum that is linear in x, so that interpolation at other nodes is
    exact."""
    with torch.no_grad():
        for level in field.spectra:
            slope = torch.randn(3, level.table.shape[1], generator=torch.Generator().manual_seed(2))
            level.table.copy_(level.places() @ slope * 0.3 + 0.2)
    return field


SCALE, SHIFT = 1.3, (0.1, -0.05, 0.15)


@pytest.mark.parametrize("hidden", [8, 0])
@pytest.mark.parametrize("kind", [AmplitudeWaves, ComplexWaves, PhaseWaves])
def test_under_another_frame_it_is_the_same_distance(kind: type, hidden: int) -> None:
    levels = LEVELS[0], replace(LEVELS[1], waves=kind(2))
    config = NstrConfig(levels, hidden=hidden)
    field = sloped(config.build(3, 1, None, torch.Generator().manual_seed(3)))
    moved = warm_start(field, None, SCALE, SHIFT)
    points = inner() / 2  # their cells lie in both boxes
    expected = field(points * SCALE + torch.tensor(SHIFT)) / SCALE
    torch.testing.assert_close(moved(points), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("hidden", [8, 0])
@pytest.mark.parametrize("position", [True, False])
def test_under_another_frame_transport_explains_as_much(position: bool, hidden: int) -> None:
    """The law is compared channel by channel with the slope per cell of the new spectrum, which
    changes by the chain rule."""
    config = NstrConfig(LEVELS, hidden=hidden, transport=TransportConfig(4, position))
    field = sloped(config.build(3, 1, None, torch.Generator().manual_seed(3)))
    moved = warm_start(field, None, SCALE, SHIFT)
    points = inner() / 2
    before = points * SCALE + torch.tensor(SHIFT)
    errors = []
    for each, at in ((field, before), (moved, points)):
        assert each.transport is not None
        spectrum, slope = each.spectrum(at)
        errors.append((slope - each.transport(at, spectrum), slope))
    (old, _), (new, _) = errors
    factors = torch.ones(old.shape[1], 1)
    if not hidden:  # all but the two phases at the end
        factors[:-2] /= SCALE
    torch.testing.assert_close(new, SCALE * factors * old, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_scale_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        warm_start(field_near(None), None, scale)


def test_nodes_that_the_field_lacks_take_the_nearest() -> None:
    small = sphere(2)
    field = field_near(Mesh(small.vertices * 0.4, small.faces))
    old, new = (
        field.spectra[1],
        warm_start(field, Mesh(small.vertices * 0.9, small.faces)).spectra[1],
    )
    away = torch.cdist(new.places(), old.places())
    lacking = away.min(dim=1).values > 1e-3
    assert 0 < int(lacking.sum()) < len(lacking)
    reached = away.min(dim=1, keepdim=True).values + 1e-5
    for row in lacking.nonzero()[:, 0].tolist():
        ties = old.table[away[row] <= reached[row]]
        assert (ties - new.table[row]).abs().amax(dim=1).min() < 1e-6


SHARED = QUICK | {"resolution": 32, "picture": 0}


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> MeshJob:
    folder = tmp_path_factory.mktemp("first")
    save_mesh(folder / "ball.ply", sphere(2))
    job = changed(
        MeshJob(folder / "ball.ply"), out=folder / "ball", params=6000, steps=150, **SHARED
    )
    run(job)
    return job


@pytest.fixture
def job(first, tmp_path) -> MeshJob:
    # A larger ball at another place.
    save_mesh(tmp_path / "other.ply", Mesh(7 + 3 * sphere(2).vertices, sphere(2).faces))
    return changed(
        MeshJob(tmp_path / "other.ply"),
        out=tmp_path / "warm",
        start=first.folder / MODEL,
        steps=1,
        **SHARED,
    )


def test_a_job_begins_where_the_model_is_wherever_its_shape_lies(first, job) -> None:
    before = load(first.folder / MODEL)
    run(job)
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (1000, 3))
    # The one step changes the field slightly.
    assert (
        np.abs(load(job.folder / MODEL).sdf()(7 + 3 * points) - 3 * before.sdf()(points)).mean()
        < 0.05
    )
    assert load(job.folder / MODEL).field.config == before.field.config


def test_what_cannot_be_started_from_is_refused(job, tmp_path) -> None:
    with pytest.raises(ValueError, match="leave out params"):
        changed(job, params=5000)
    with pytest.raises(FileNotFoundError, match=r"nothing to start from"):
        run(changed(job, start=tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match=r"^/dev/zero is no regular file"):
        run(changed(job, start=Path("/dev/zero")))
    siren = SirenConfig(width=8, depth=1).build(3, 1)
    save(
        tmp_path / "siren.safetensors",
        Fit(siren, Frame.identity(3), Box((-1.0,) * 3, (1.0,) * 3), 1.0),
    )
    with pytest.raises(ValueError, match="is not an NSTR field of a surface"):
        run(changed(job, start=tmp_path / "siren.safetensors"))
    assert not (tmp_path / "warm").exists()
