"""Export to other programs: a sampled grid holds the sdf's distances at its nodes, and an ONNX
model computes the same distances as torch."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from programs import needs_parts

from nstr3d.fields.baselines.ngp import NgpConfig
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.waves import PhaseWaves
from nstr3d.geometry.shapes.primitives import torus
from nstr3d.model import exchange
from nstr3d.model.exchange import onnx_origin, sample_grid, save_grid, save_onnx
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame

FRAME, BOUNDS = Frame((3.0, -2.0, 1.0), 2.5), Box((1.0, -4.0, -1.0), (5.0, 0.0, 3.0))
NEAR = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3))
CONFIGS = {
    "nstr": NstrConfig(
        (
            LevelConfig(3, plain=2, sparse=False),
            LevelConfig(8, plain=1, waves=PhaseWaves(2), order=2),
        ),
        hidden=8,
    ),
    "siren": SirenConfig(12, 2),
    "ngp": NgpConfig(levels=2, features=2, coarsest=3, finest=9, table=256, width=8, depth=1),
}


def unfitted(name: str) -> Fit:
    """An untrained fit of ``CONFIGS[name]`` with random weights."""
    return Fit(
        CONFIGS[name].build(3, 1, NEAR, torch.Generator().manual_seed(1)), FRAME, BOUNDS, 1.5
    )


@needs_parts("export")
@pytest.mark.parametrize("name", CONFIGS)
def test_onnx_computes_what_torch_does(name, tmp_path):
    import onnxruntime

    fit = unfitted(name)
    save_onnx(tmp_path / "field.onnx", fit)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "field.onnx"), providers=["CPUExecutionProvider"]
    )
    box = BOUNDS.scaled(2)  # reaches beyond the unit box
    for count in (1, 2, 501):
        points = (
            np.random.default_rng(count)
            .uniform(box.lower, box.upper, (count, 3))
            .astype(np.float32)
        )
        (distance,) = session.run(["distance"], {"points": points})
        assert distance.shape == (count,)
        expected = fit.sdf().bound(torch.from_numpy(points)).detach()
        np.testing.assert_allclose(distance, expected, atol=1e-5)
        inside = (np.abs(FRAME.to_unit(points)) <= 1).all(axis=1)
        np.testing.assert_allclose(distance[inside], fit.sdf()(points[inside]), atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["bounds"]) == {
        "lower": list(BOUNDS.lower),
        "upper": list(BOUNDS.upper),
    }
    assert json.loads(metadata["lipschitz"]) == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["field.onnx"]


@needs_parts("export")
def test_onnx_keeps_centimetres_at_map_coordinates(tmp_path):
    import onnxruntime

    middle = np.array([512434.25, 5405590.5, 348.75])
    bounds = Box(tuple((middle - 2).tolist()), tuple((middle + 2).tolist()))
    fit = replace(unfitted("siren"), frame=Frame(tuple(middle.tolist()), 2.5), bounds=bounds)
    save_onnx(tmp_path / "field.onnx", fit)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(tmp_path / "field.onnx"), options, providers=["CPUExecutionProvider"]
    )
    points = np.random.default_rng(0).uniform(bounds.lower, bounds.upper, (300, 3))
    origin = np.array(json.loads(session.get_modelmeta().custom_metadata_map["origin"]))
    near = {"points": (points - origin).astype(np.float32), "origin": origin}
    (distance,) = session.run(["distance"], near)
    np.testing.assert_allclose(distance, fit.sdf()(points), atol=1e-5)
    # World points in single precision are as good as their rounding, of half a metre in y.
    (distance,) = session.run(["distance"], {"points": points.astype(np.float32)})
    rounded = points.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(distance, fit.sdf()(rounded), atol=1e-5)
    assert np.abs(fit.sdf()(rounded) - fit.sdf()(points)).max() > 1e-3


@needs_parts("export")
def test_a_model_that_rounds_map_coordinates_is_refused(tmp_path, monkeypatch):
    """The check compares with the field in double precision, so it sees the rounded input."""
    bounds = Box((5405590.0, -2.0, -2.0), (5405594.0, 2.0, 2.0))
    frame = Frame((5405592.0, 0.0, 0.0), 2.5)
    fit = replace(unfitted("siren"), frame=frame, bounds=bounds)
    assert onnx_origin(fit) == (5405592.0, 0.0, 0.0)
    monkeypatch.setattr(exchange, "onnx_origin", lambda fit: None)
    with pytest.raises(ValueError, match="differs from the field by up to"):
        save_onnx(tmp_path / "field.onnx", fit)
    assert onnx_origin(unfitted("siren")) is None


@needs_parts("export")
def test_onnx_that_computes_something_else_is_not_published(tmp_path, monkeypatch):
    fit = unfitted("siren")
    monkeypatch.setattr(
        exchange, "_Distance", lambda fit: wrong(replace(fit, frame=replace(fit.frame, scale=2.0)))
    )
    with pytest.raises(ValueError, match="differs from the field by up to"):
        save_onnx(tmp_path / "field.onnx", fit)
    assert list(tmp_path.iterdir()) == []


wrong = exchange._Distance


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(
        ModuleNotFoundError, match=re.escape(f"need {package}: pip install 'nstr3d[export]'")
    ):
        save_onnx(tmp_path / "field.onnx", unfitted("siren"))


def test_a_grid_holds_the_distances_of_its_nodes(tmp_path):
    ring, reports = torus(1.0, 0.3), []
    grid = sample_grid(ring, 20, lambda done, total: reports.append((done, total)))
    save_grid(tmp_path / "grid.npz", grid)
    with np.load(tmp_path / "grid.npz") as file:
        distance, origin, spacing = file["distance"], file["origin"], file["spacing"]
    assert distance.dtype == np.float32
    nodes = np.stack(
        np.meshgrid(*(np.arange(count) for count in distance.shape), indexing="ij"), axis=-1
    )
    np.testing.assert_allclose(
        distance.ravel(), ring((origin + spacing * nodes).reshape(-1, 3)), atol=1e-6
    )
    assert max(distance.shape) == 21
    assert reports[-1] == (distance.shape[0], distance.shape[0])
    last = origin + spacing * (np.array(distance.shape) - 1)
    assert (origin < ring.bounds.lower).all()
    assert (last > ring.bounds.upper).all()


@pytest.mark.parametrize("resolution", [1, 2000])
def test_a_grid_has_a_sensible_resolution(resolution):
    with pytest.raises(ValueError, match="2 to 1024 cells"):
        sample_grid(torus(1.0, 0.3), resolution)
