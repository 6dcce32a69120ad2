"""`nstr3d info`: what files hold, from their headers, and that damaged files get a sentence; and
`nstr3d.load` of every model that the program writes."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import sphere
from programs import needs_parts

import nstr3d
from nstr3d.cli import command as cli
from nstr3d.io import Sound, save_image, save_lines, save_mesh, save_sound
from nstr3d.jobs.info import describe_file
from nstr3d.model.codec import load_compressed
from nstr3d.model.exchange import DistanceGrid, save_grid
from nstr3d.types import Mesh, Polylines
from nstr3d.view.page.html import page_html

SAVED = Path(__file__).parent / "fixtures" / "nstr3d-2"
MODELS = SAVED / "models"


def test_a_model_is_described_as_it_loads():
    for path in sorted(MODELS.glob("*.safetensors")):
        about, fit = describe_file(path), nstr3d.load(path)
        assert (about["inputs"], about["outputs"]) == (fit.field.in_dim, fit.field.out_dim)
        assert about["stored_numbers"] == sum(t.numel() for t in fit.field.state_dict().values())
        assert about["bounds"] == {"lower": fit.bounds.lower, "upper": fit.bounds.upper}
        assert about["steps"] == fit.steps
        assert about["provenance"] == fit.provenance
        assert json.dumps(about, allow_nan=False)


@pytest.mark.parametrize("name", ["image.nstq", "sound.nstq"])
def test_a_compressed_model_is_described_and_loads_as_a_fit(name):
    about, fit = describe_file(MODELS / name), nstr3d.load(MODELS / name)
    expected = load_compressed(MODELS / name)
    assert torch.equal(fit.field.amplitudes, expected.amplitudes)
    assert about["shape"] == [*expected.config.shape, expected.out_dim]
    assert about["subject"] == name.partition(".")[0]
    assert fit.bounds.upper == tuple(map(float, expected.config.shape))
    assert fit.frame.to_unit(np.array([fit.bounds.centre])).tolist() == [[0] * fit.field.in_dim]


def test_a_compressed_model_loads_under_another_name_and_is_saved_as_any_model(tmp_path):
    shutil.copy(MODELS / "image.nstq", tmp_path / "renamed.bin")
    fit = nstr3d.load(tmp_path / "renamed.bin")
    nstr3d.save(tmp_path / "again.safetensors", fit)
    again = nstr3d.load(tmp_path / "again.safetensors")
    points = torch.rand(50, 2, dtype=torch.float64)
    assert torch.equal(again.field(points), fit.field(points))
    assert describe_file(tmp_path / "again.safetensors")["field"] == "cosines"


def test_the_accuracy_is_that_of_the_report_of_this_model_only(tmp_path):
    folder = shutil.copytree(SAVED / "dataset" / "ball.ply", tmp_path / "ball")
    report = json.loads((folder / "report.json").read_text())
    about = describe_file(folder)
    assert about["path"] == str(folder / "model.safetensors")
    assert about["accuracy"] == report["accuracy"]
    assert about["parameters"] == report["field"]["parameters"]
    assert describe_file(folder / "report.json")["field"] == report["field"]
    report["field"]["bytes"] += 1
    (folder / "report.json").write_text(json.dumps(report))
    assert describe_file(folder)["accuracy"] is None


def test_a_checkpoint_is_told_from_a_model():
    (path,) = SAVED.glob("stopped/**/checkpoint.safetensors")
    assert describe_file(path)["kind"] == "checkpoint"
    assert nstr3d.load(path).steps == describe_file(path)["steps"]


def test_a_data_set_is_counted(capsys):
    for path in (SAVED / "dataset", SAVED / "dataset" / "catalog.sqlite"):
        assert cli.main(["info", str(path), "--json"]) == 0
        about = json.loads(capsys.readouterr().out)
        assert about["states"] == {"done": 1, "failed": 1}
        assert about["errors"][0].startswith("flat.ply: The mesh encloses no volume")


def test_meshes_points_and_lines_are_counted_and_placed(tmp_path):
    ball = sphere(2)
    save_mesh(tmp_path / "a.stl", ball)
    save_mesh(tmp_path / "a.obj", ball)
    about = describe_file(tmp_path / "a.obj")
    assert (about["kind"], about["vertices"], about["faces"]) == (
        "mesh",
        len(ball.vertices),
        len(ball.faces),
    )
    assert about["closed"]
    np.testing.assert_allclose(about["extent"], ball.bounds.extent, atol=1e-6)
    assert describe_file(tmp_path / "a.stl")["closed"]  # corners at one place are one
    save_mesh(tmp_path / "b.ply", Mesh(ball.vertices, ball.faces[1:]))
    assert not describe_file(tmp_path / "b.ply")["closed"]
    np.savetxt(tmp_path / "c.xyz", ball.vertices + (1, 2, 3))
    about = describe_file(tmp_path / "c.xyz")
    assert (about["kind"], about["points"], about["normals"]) == (
        "points",
        len(ball.vertices),
        False,
    )
    np.testing.assert_allclose(about["bounds"]["upper"], ball.vertices.max(0) + (1, 2, 3))
    lines = Polylines(ball.vertices[:5], np.array([0, 2, 5]), np.arange(5.0))
    save_lines(tmp_path / "d.ply", lines)
    about = describe_file(tmp_path / "d.ply")
    assert (about["kind"], about["lines"], about["points"]) == ("lines", 2, 5)


def test_pictures_sounds_and_grids_have_their_sizes(tmp_path):
    save_image(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8))
    about = describe_file(tmp_path / "a.png")
    assert (about["kind"], about["shape"], about["bits"]) == ("image", [4, 6, 3], 8)
    save_sound(tmp_path / "a.wav", Sound(np.zeros((800, 2), np.float32), 400))
    about = describe_file(tmp_path / "a.wav")
    assert (about["shape"], about["rate"], about["duration"]) == ([800, 2], 400, 2.0)
    assert about["notes"] == ["All samples are 0, so there is nothing to hear."]
    distance = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    save_grid(tmp_path / "a.npz", DistanceGrid(distance, np.array([1.0, 2.0, 3.0]), 0.5))
    about = describe_file(tmp_path / "a.npz")
    assert (about["shape"], about["least"], about["most"]) == ([2, 3, 4], 0.0, 23.0)
    assert about["bounds"]["upper"] == (1.5, 3.0, 4.5)


def damaged(tmp_path: Path, name: str) -> Path:
    """A file of this name that holds no such thing."""
    header = json.dumps({"__metadata__": {"format": "nstr3d-2", "nstr3d": "{}"}}).encode()
    contents = {
        "short.safetensors": b"12",
        "other.safetensors": struct.pack("<Q", 2) + b"{}",
        "empty.safetensors": struct.pack("<Q", len(header)) + header,
        "long.safetensors": struct.pack("<Q", 1 << 60) + b"{}",
        "other.nstq": b"PNG",
        "short.nstq": b"NSTQ1" + bytes(3),
        "report.json": b"[1, 2]",
        "text.json": b"no JSON",
        "grid.npz": b"PK\x03\x04",
        "model.onnx": b"",
        "text.onnx": b"no network",
        "page.html": b"<title>a page</title>",
        "damaged.html": b'<title>a</title><script type="application/json" id="model">{}</script>',
    }
    (tmp_path / name).write_bytes(contents[name])
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("short.safetensors", "is not a usable nstr3d model: it is truncated"),
        ("other.safetensors", "not of nstr3d"),
        ("empty.safetensors", "its header lacks 'config'"),
        ("long.safetensors", "truncated"),
        ("other.nstq", "does not begin with NSTQ1"),
        ("short.nstq", "is damaged"),
        ("report.json", "is not a report of nstr3d"),
        ("text.json", "could not be read as lines"),
        ("grid.npz", "grid.npz"),
        ("page.html", "is no page of nstr3d"),
        ("damaged.html", "its model is damaged"),
        ("model.onnx", "model.onnx is empty"),
        pytest.param("text.onnx", "is no usable ONNX model", marks=needs_parts("export")),
    ],
)
def test_a_damaged_file_gets_one_sentence(tmp_path, capsys, name, said):
    path = damaged(tmp_path, name)
    assert cli.main(["info", str(path)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert cli.main(["info", str(path), "--json"]) == 1
    assert said in json.loads(capsys.readouterr().out)["error"]


def test_a_page_is_described_as_the_model_that_it_shows(tmp_path):
    model = nstr3d.load(SAVED / "dataset" / "ball.ply" / "model.safetensors")
    (tmp_path / "a.html").write_text(page_html(model, "a <ball>"), encoding="utf-8")
    about = describe_file(tmp_path / "a.html")
    assert (about["kind"], about["title"], about["level"]) == ("page", "a <ball>", 0.0)
    assert about["parameters"] == model.field.parameter_count
    assert np.allclose(about["bounds"]["lower"], model.bounds.lower)


@needs_parts("export")
def test_a_network_is_described_by_its_ends(tmp_path, capsys):
    from onnx import TensorProto, helper, save

    points = helper.make_tensor_value_info("points", TensorProto.FLOAT, ["n", 3])
    distance = helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"])
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 4], np.zeros(12))
    graph = helper.make_graph([], "g", [points], [distance], [weights])
    network = helper.make_model(graph, producer_name="another")
    save(network, str(tmp_path / "a.onnx"))
    about = describe_file(tmp_path / "a.onnx")
    assert (about["producer"], about["parameters"]) == ("another", 12)
    helper.set_model_props(
        network,
        {
            "producer": "nstr3d",
            "bounds": '{"lower": [0, 0, 0], "upper": [1, 2, 3]}',
            "lipschitz": "1.5",
            "origin": "null",
        },
    )
    save(network, str(tmp_path / "a.onnx"))
    about = describe_file(tmp_path / "a.onnx")
    assert (about["producer"], about["lipschitz"]) == ("nstr3d", 1.5)
    assert about["bounds"]["upper"] == (1, 2, 3)
    assert cli.main(["info", str(tmp_path / "a.onnx")]) == 0
    assert "points (n x 3) to distance (n), by nstr3d" in capsys.readouterr().out


def test_an_empty_folder_is_no_result(tmp_path, capsys):
    assert cli.main(["info", str(tmp_path)]) == 1
    assert "holds no model and no report of nstr3d; name a file." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("models/image.nstq", ["compressed model of image", "12 x 16 x 3 samples"]),
        ("dataset/ball.ply", ["model of shape", "near error", "parameters"]),
        ("dataset", ["2 shapes: 1 done, 1 failed", "median accuracy", "flat.ply"]),
        ("ball.ply", ["kind         mesh", "faces, closed", "nstr3d fit"]),
    ],
)
def test_the_table_says_it_in_words(capsys, name, parts):
    assert cli.main(["info", str(SAVED / name)]) == 0
    said = capsys.readouterr().out
    assert all(part in said for part in parts), said
