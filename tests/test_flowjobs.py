"""The flow app end to end on a shape, an image and a sound; every refusal is one sentence and
writes no file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from programs import needs_parts

from apps import flow
from apps.bench import flow as flow_race
from nstr3d import fit_mesh, save
from nstr3d.cli import command as cli
from nstr3d.fields.base import Field
from nstr3d.jobs.flowshape import _curvature_correlation

SMALL = [
    "--seeds",
    "40",
    "--size",
    "64",
    "--samples",
    "6000",
    "--read",
    "500",
    "--resolution",
    "64",
]
ASSETS = Path(__file__).resolve().parents[1] / "assets"
FITTED = ["--params", "9000", "--steps", "150", "--resolution", "24"]


@pytest.fixture(scope="module")
def shape(fitted: Callable[..., Path]) -> Path:
    return fitted("ripple.obj", *FITTED)


def test_a_compressed_shape_has_a_relief_and_no_waves_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ripple.nstq"
    save(path, fit_mesh(ASSETS / "ripple.obj", bytes=8000))
    assert flow.main([str(path), "--out", str(tmp_path / "flow"), *SMALL]) == 0
    assert json.loads((tmp_path / "flow" / "report.json").read_text())["lines"]["count"] > 0
    assert flow.main([str(path), "--out", str(tmp_path / "own"), "--phases", *SMALL]) == 1
    assert "without phase waves" in capsys.readouterr().err


def test_a_shape_gives_lines_segments_and_a_report(shape: Path, tmp_path: Path) -> None:
    assert flow.main([str(shape), "--out", str(tmp_path / "flow"), *SMALL]) == 0
    names = {
        "flow.png",
        "residual.png",
        "lines.ply",
        "lines.glb",
        "lines.vtp",
        "lines.json",
        "segments.ply",
        "report.json",
    }
    assert {path.name for path in (tmp_path / "flow").iterdir()} == names
    report = json.loads((tmp_path / "flow" / "report.json").read_text())
    assert 1 <= report["lines"]["count"] <= 40
    assert sum(part["share"] for part in report["segments"]) == pytest.approx(1)
    assert (
        0
        < report["local_frequency"]["p5"]
        <= report["local_frequency"]["median"]
        <= report["local_frequency"]["p95"]
    )
    assert 0 <= report["analysis"]["explained"] <= 1
    assert (
        0
        <= report["unexplained"]["p5"]
        <= report["unexplained"]["median"]
        <= report["unexplained"]["p95"]
        <= 1
    )
    with Image.open(tmp_path / "flow" / "residual.png") as picture:
        assert picture.height > 64  # with its title
        assert picture.width > 64  # with its scale


def test_a_field_without_phases_says_so_and_its_relief_is_read(
    fitted: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = fitted("ripple.obj", *FITTED, "--field", "grid")
    capsys.readouterr()
    assert flow.main([str(model), "--out", str(tmp_path / "flow"), *SMALL, "--phases"]) == 1
    message = capsys.readouterr().err
    assert "without phase waves" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "flow").exists()
    assert flow.main([str(model), "--out", str(tmp_path / "flow"), *SMALL]) == 0


@needs_parts("audio")
def test_a_tone_has_its_frequency(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(
        tmp_path / "tone.wav", 0.5 * np.sin(0.3 * np.arange(8000)), 8000, subtype="FLOAT"
    )
    assert cli.main(["fit", str(tmp_path / "tone.wav"), "--out", str(tmp_path / "fit")]) == 0
    assert flow.main([str(tmp_path / "fit" / "model.safetensors")]) == 0
    report = json.loads((tmp_path / "fit" / "flow" / "report.json").read_text())
    assert report["local_frequency"]["median"] == pytest.approx(0.3, rel=0.01)


def test_a_grating_has_its_frequency(tmp_path: Path) -> None:
    grating = 0.5 + 0.4 * np.sin(0.5 * np.arange(96)) * np.ones((80, 1))
    Image.fromarray(np.round(grating * 255).astype(np.uint8)).save(tmp_path / "grating.png")
    assert (
        cli.main(
            [
                "fit",
                str(tmp_path / "grating.png"),
                "--out",
                str(tmp_path / "fit"),
                "--params",
                "3000",
            ]
        )
        == 0
    )
    assert (
        flow.main(
            [str(tmp_path / "fit" / "model.safetensors"), "--out", str(tmp_path / "flow"), *SMALL]
        )
        == 0
    )
    report = json.loads((tmp_path / "flow" / "report.json").read_text())
    assert report["local_frequency"]["median"] == pytest.approx(0.5, rel=0.01)


def test_the_benchmark_measures_the_same_fields_and_knows_their_frequencies(
    shape: Path, tmp_path: Path
) -> None:
    model = tmp_path / "fit" / shape.name
    shutil.copytree(shape.parent, model.parent)
    small = ["--size", "64", "--samples", "6000", "--read", "500", "--lines", "100"]
    words = ["--model", str(model), "--out", str(tmp_path / "table"), *small, "--gratings", "20"]
    assert flow_race.main(words) == 0
    table = (tmp_path / "table" / "flow.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if line.startswith("| ")
    ][1:]
    errors = {name: float(error.rstrip("%")) for name, error, *_ in rows}
    assert max(error for name, error in errors.items() if name.startswith("grating")) < 2
    assert errors["chirp over a factor of ten"] < 0.5
    assert sum("phase waves" in name for name in errors) == 3
    assert sum(name.startswith("ripples of a fit") for name in errors) == 1
    assert "streamlines of 200 steps" in table


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--seeds", "0"], "no seeds"),
        (["--highest", "-1"], "positive frequency"),
        (["--segments", "0"], "--segments is at least 1"),
        (["--separation", "nan"], "--separation must be positive and finite"),
        (["--length", "inf"], "--length must be positive and finite"),
        (["--size", "15"], "--size is 16 to"),
        (["--size", "100000"], "--size is 16 to"),
        (["--resolution", "4"], "--resolution is 8 to"),
        (["--seed", "-1"], "--seed is 0 to"),
        (["--read", "0"], "--read must be 1 to"),
    ],
)
def test_bad_options_are_refused(
    shape: Path, tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], sentence: str
) -> None:
    assert flow.main([str(shape), "--out", str(tmp_path / "flow"), *options]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "flow").exists()


def test_nothing_is_overwritten_unasked(
    shape: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "report.json").write_text("mine")
    assert flow.main([str(shape), "--out", str(tmp_path), *SMALL]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "mine"


class Bowl(Field):
    """The squared distance from ``centre``. The divergence of its normals at the distance r from
    the centre is 2 / r."""

    in_dim, out_dim = 3, 1

    def __init__(self, centre: float = 0.0):
        super().__init__()
        self.centre = centre

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return (points - self.centre).square().sum(dim=1, keepdim=True)

    def rates(self) -> list[dict]:
        return []


def test_curvature_at_the_side_of_the_box_is_measured_over_the_distance_inside_it() -> None:
    """Vectors as long as the curvature rank as the curvature does, at an edge of the box too, where
    the curvature is largest and two axes have no room on one side."""
    inner = torch.linspace(0.5, 0.9, 12)[:, None].repeat(1, 3)
    edge = torch.ones(8, 3)
    edge[:, 2] = torch.linspace(0.9, 0.95, 8)
    points = torch.cat([inner, edge])
    lengths = 2 / (points - 1.5).norm(dim=1, keepdim=True)
    measured = _curvature_correlation(Bowl(1.5), points, torch.eye(3)[:1] * lengths)
    assert measured == pytest.approx(1)


def test_a_correlation_without_ranks_is_none() -> None:
    """Ranks of equal values would be those of their order."""
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    assert _curvature_correlation(Bowl(), points, torch.ones(20, 3)) is None
    assert _curvature_correlation(Bowl(), points[:2], points[:2]) is None


def test_equal_lengths_have_equal_ranks() -> None:
    """Two groups of lengths on shells of two radii: the correlation of the groups, which the order
    of the points inside a group does not change."""
    directions = torch.nn.functional.normalize(
        torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    radii = torch.tensor([0.3, 0.6]).repeat_interleave(20)
    long = torch.tensor([2.0, 1.0]).repeat_interleave(20)
    measured = _curvature_correlation(
        Bowl(), directions * radii[:, None], torch.eye(3)[0] * long[:, None]
    )
    # 20 distinct ranks in each group against two ranks: sqrt(3) / 2 * sqrt(1600 / 1599)
    assert measured == pytest.approx((0.75 * 1600 / 1599) ** 0.5, rel=1e-6)
