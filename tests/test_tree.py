"""Files of combinations, and the command that makes them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nstr3d.cli import command as cli
from nstr3d.geometry.shapes import primitives as P
from nstr3d.io import load_mesh
from nstr3d.model.checkpoint import load, save
from nstr3d.model.container import Contents, read_container, write_container
from nstr3d.model.header import FORMAT, TEXT, TREE
from nstr3d.model.tree import DEEPEST, MOST_NODES, SHAPES, fits_of, load_sdf, save_sdf, up_of
from nstr3d.sdf import Sdf
from nstr3d.training.fit import Fit

POINTS = np.random.default_rng(0).uniform(-2, 2, (300, 3))
MADE = {
    "sphere": P.sphere(0.5, (1, 0, 0)),
    "torus": P.torus(0.8, 0.3),
    "box": P.box((0.5, 0.8, 0.3)),
    "rounded_box": P.rounded_box((0.5, 0.8, 0.3), 0.1),
    "thin_plate": P.thin_plate(),
    "capsule": P.capsule((0, 0, 0), (1, 0, 0), 0.2),
    "cylinder": P.cylinder(),
    "ellipsoid": P.ellipsoid((1, 2, 3)),
    "shells": P.shells(),
    "gyroid": P.gyroid(),
    "gyroid_slab": P.gyroid_slab(),
    "bracket": P.bracket(),
    "union": P.sphere() | P.box(),
    "intersection": P.sphere() & P.box(),
    "difference": P.sphere() - P.box(),
    "smooth_union": P.sphere().union(P.box(), radius=0.2),
    "smooth_intersection": P.sphere().intersection(P.box(), P.torus(), radius=0.2),
    "smooth_difference": P.sphere().difference(P.box(), P.torus(), radius=0.2),
    "offset": P.box().offset(-0.1),
    "shell": P.box().shell(0.1),
    "blend": P.box().blend(P.sphere(), 0.5),
    "translate": P.box().translate(np.array([1.0, 0, 2])),
    "rotate": P.box().rotate((1, 2, 3), 40),
    "scale": P.box().scale((1, 2, 3)),
    "repeat": P.sphere(0.3).repeat((1, 1, 1), (2, 3, 1)),
}


def test_every_tag_is_tried() -> None:
    assert MADE.keys() == SHAPES.keys()


def test_a_combination_stands_as_its_first_fit_does(torus_fit: Fit, tmp_path: Path) -> None:
    upright = dataclasses.replace(torus_fit, provenance={"up": "z"})
    both = (P.sphere(0.2) | upright.sdf()).scale(2) - torus_fit.sdf()
    assert [fit.up for fit in fits_of(both)] == ["z", torus_fit.up]
    save_sdf(tmp_path / "a.safetensors", both)
    assert up_of(load_sdf(tmp_path / "a.safetensors")) == "z"
    save_sdf(tmp_path / "b.safetensors", both, up="-x")
    assert up_of(load_sdf(tmp_path / "b.safetensors")) == "-x"
    assert up_of(P.sphere() | P.box()) == "y"


@pytest.mark.parametrize("tag", SHAPES)
def test_what_is_saved_is_loaded(tag: str, tmp_path: Path) -> None:
    save_sdf(tmp_path / "a.safetensors", MADE[tag])
    again = load_sdf(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(again(POINTS), MADE[tag](POINTS))
    assert (again.bounds, again.lipschitz) == (MADE[tag].bounds, MADE[tag].lipschitz)
    save_sdf(tmp_path / "b.safetensors", again)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_fits_are_saved_once_and_load_bit_for_bit(torus_fit: Fit, tmp_path: Path) -> None:
    sdf, path = torus_fit.sdf(), tmp_path / "a.safetensors"
    both = (sdf | sdf.translate((1, 0, 0))) - P.box((0.2, 0.2, 0.2))
    save_sdf(path, both)
    np.testing.assert_array_equal(load_sdf(path)(POINTS), both(POINTS))
    contents = read_container(path)
    assert len(contents.tensors) == len(torus_fit.field.state_dict())
    with pytest.raises(ValueError, match="is a combination of shapes, not a single fit"):
        load(path)
    save(tmp_path / "fit.safetensors", torus_fit)
    np.testing.assert_array_equal(load_sdf(tmp_path / "fit.safetensors")(POINTS), sdf(POINTS))


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    own = Sdf(lambda points: points.norm(dim=1) - 1, P.sphere().bounds)
    bumpy = P.displace(P.sphere(), lambda points: points[:, 0].sin(), 0.1, 1.0)
    deep = P.sphere()
    for _ in range(DEEPEST + 1):
        deep = deep.offset(0.01)
    many = P.union(*[P.sphere()] * (MOST_NODES + 1))
    cases = ((own | P.box(), "neither a fit"), (bumpy, "neither a fit"))
    for sdf, message in (*cases, (deep, "deeper than"), (many, "more than")):
        with pytest.raises(ValueError, match=message):
            save_sdf(path, sdf)
    with pytest.raises(TypeError):
        save_sdf(path, "sphere")  # type: ignore[arg-type]
    assert not path.exists()


BALL = {"tag": "sphere", "radius": 1.0, "centre": [0, 0, 0]}


def nested(depth: int) -> dict:
    node: dict = BALL
    for _ in range(depth):
        node = {"tag": "offset", "shape": node, "distance": 0.1}
    return node


def dense(depth: int) -> dict:
    node: dict = BALL
    for _ in range(depth):
        node = {"tag": "repeat", "shape": node, "period": [4, 4, 4], "counts": [2, 2, 2]}
        node = {"tag": "scale", "shape": node, "factor": 0.1}
    return node


def scaled(factor: float, times: int) -> dict:
    node: dict = BALL
    for _ in range(times):
        node = {"tag": "scale", "shape": node, "factor": factor}
    return node


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (None, "no tag"),
        ({"tag": "system", "radius": 1.0}, "tag 'system' is unknown"),
        ({"tag": "os.system"}, "is unknown"),
        ({"tag": ["sphere"]}, "no tag"),
        (BALL | {"radius": -1.0}, "radius must be positive"),
        (BALL | {"radius": "1"}, "radius"),
        (BALL | {"radius": True}, "radius"),
        (BALL | {"centre": [0, 0]}, "three finite numbers"),
        (BALL | {"centre": BALL}, "centre"),
        (BALL | {"colour": 1}, "colour"),
        ({"tag": "sphere", "radius": 1.0}, "lacks 'centre'"),
        ({"tag": "union", "parts": []}, "at least one shape"),
        ({"tag": "union", "parts": [1.0]}, "parts"),
        ({"tag": "union", "parts": BALL}, "parts"),
        ({"tag": "offset", "shape": 1.0, "distance": 1.0}, "shape"),
        ({"tag": "fit", "model": 0}, "must name one of its 0 models"),
        ({"tag": "fit", "model": True}, "must name one"),
        ({"tag": "union", "parts": [BALL] * (MOST_NODES + 1)}, "more than"),
        (nested(DEEPEST + 1), "deeper than"),
        (dense(5), "evaluations at a point"),
        ({"tag": "sphere", "radius": 1e999, "centre": [0, 0, 0]}, "radius"),
        (BALL | {"radius": 1 << 60}, "larger than 2"),
        (BALL | {"centre": [1e-320, 0, 1e31]}, "centre must be finite and at most"),
        (scaled(1e25, 3), "its part scale is larger than"),
        (scaled(1e-25, 3), "or smaller"),
    ],
)
def test_hostile_trees_are_refused(tree, message: str, tmp_path: Path) -> None:
    refused({"tree": tree, "fits": []}, {}, message, tmp_path)


def refused(text: object, tensors: dict, message: str, folder: Path) -> None:
    path = folder / "bad.safetensors"
    write_container(path, Contents({FORMAT: TREE, TEXT: json.dumps(text)}, tensors))
    with pytest.raises(ValueError, match=message) as caught:
        load_sdf(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hostile_files_are_refused(torus_fit: Fit, tmp_path: Path) -> None:
    refused([], {}, "needs the entries", tmp_path)
    refused({"tree": BALL, "fits": [], "more": 1}, {}, "needs the entries", tmp_path)
    refused({"tree": BALL, "fits": {}}, {}, "must be a list", tmp_path)
    refused({"tree": BALL, "fits": [{}]}, {}, "lacks 'config'", tmp_path)
    refused({"tree": BALL, "fits": []}, {"0/a": torch.zeros(1)}, "does not belong", tmp_path)
    save_sdf(tmp_path / "a.safetensors", torus_fit.sdf())
    whole = read_container(tmp_path / "a.safetensors")
    text = json.loads(whole.metadata[TEXT])
    lacking = dict(list(whole.tensors.items())[1:])
    refused(text, lacking, "is missing", tmp_path)
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "b.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        load_sdf(tmp_path / "b.safetensors")


# the command


@pytest.fixture(scope="module")
def models(torus_fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    save(folder / "ring.safetensors", torus_fit)
    save_sdf(folder / "ball.safetensors", P.sphere(0.5, (1.0, 0, 0)))
    return str(folder / "ring.safetensors"), str(folder / "ball.safetensors")


SMALL = ("--resolution", "32", "--picture", "0")


def test_combine_writes_a_model_that_other_commands_take(models, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    words = ["combine", *models, "--union", "--radius", "0.1", "--out", str(out), *SMALL]
    assert cli.main(words) == 0
    assert "watertight" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["mesh"]["watertight"]
    assert report["input"]["operation"] == "union"
    assert len(load_mesh(out / "mesh.ply").faces) == report["mesh"]["faces"]
    model = out / "model.safetensors"
    expected = load_sdf(models[0]).union(load_sdf(models[1]), radius=0.1)
    np.testing.assert_array_equal(load_sdf(model)(POINTS), expected(POINTS))
    assert cli.main(["info", str(model)]) == 0
    assert "combination" in capsys.readouterr().out
    mesh, picture = tmp_path / "a.stl", tmp_path / "a.png"
    assert (
        cli.main(["export", str(model), "--to", "stl", "--out", str(mesh), "--resolution", "24"])
        == 0
    )
    assert cli.main(["render", str(model), "--out", str(picture), "--size", "16", "16"]) == 0
    assert cli.main(words) == 1  # without --overwrite
    assert cli.main(["export", str(model), "--to", "onnx", "--out", str(tmp_path / "a.onnx")]) == 1
    assert "needs the model of a fit" in capsys.readouterr().err
    again = ["combine", str(model), models[1], "--difference", "--out", str(tmp_path / "b"), *SMALL]
    assert cli.main([*again, "--up", "z"]) == 0
    assert json.loads((tmp_path / "b" / "report.json").read_text())["input"]["up"] == "z"
    assert up_of(load_sdf(tmp_path / "b" / "model.safetensors")) == "z"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Choose one of --union"),
        (("--union", "--difference"), "Choose one of --union"),
        (("--union", "--radius", "-1"), "--radius must be finite and not negative"),
        (("--union", "--resolution", "2"), "--resolution is"),
        (("--union", "--picture", "-1"), "--picture is"),
    ],
)
def test_combine_refuses_wrong_options(words, message: str, models, tmp_path: Path, capsys) -> None:
    assert cli.main(["combine", *models, *words, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_combine_refuses_one_model_others_and_an_empty_result(
    models, tmp_path: Path, capsys
) -> None:
    out = ["--out", str(tmp_path / "out"), *SMALL]
    assert cli.main(["combine", models[0], "--union", *out]) == 1
    assert "2 to 64 models, not of 1" in capsys.readouterr().err
    assert cli.main(["combine", models[0], "none.safetensors", "--union", *out]) == 1
    assert "none.safetensors does not exist" in capsys.readouterr().err
    save_sdf(tmp_path / "far.safetensors", P.sphere(0.5, (9.0, 0, 0)))
    assert (
        cli.main(["combine", models[0], str(tmp_path / "far.safetensors"), "--intersection", *out])
        == 1
    )
    assert "is empty, so there is nothing to write" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
