"""Races: all contenders get the same data, budget and time, rows survive their file, and tables
agree with the rows."""

import math
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from programs import needs_parts

from nstr3d.bench.commits import find_commit
from nstr3d.bench.compare import MARKS, Contender, Row, race, read_rows, write_rows
from nstr3d.bench.contenders import sized_linear
from nstr3d.bench.tables import PICTURE, Measure, _main, by_track, plot, summary
from nstr3d.bench.tracks import TESTS, MeshTrack, RasterTrack
from nstr3d.fields.base import Field
from nstr3d.fields.baselines.ngp import NgpConfig, sized_ngp
from nstr3d.fields.baselines.siren import sized_siren
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.io import save_mesh
from nstr3d.training.fit import FitConfig, Progress
from nstr3d.training.losses import Objective
from nstr3d.training.solve import least_squares
from nstr3d.types import Samples

BUDGET, POOL = 3000, 50_000
MEASURES = {
    "near": 2e-4,
    "surface": 1e-4,
    "volume": 3e-3,
    "normals": 1.5,
    "iou_near": 0.9,
    "iou_volume": 0.95,
}
END = {"chamfer": 1e-4, "hausdorff": 2e-3, "f_score": 1.0}
ROW = Row("abc", "cpu", 2, "ball", "a", 100, "5 s", 0, 1.0, 99, 400, 10, 5.0, MEASURES | END)


def near(error: float) -> dict[str, float]:
    return MEASURES | END | {"near": error}


@pytest.fixture(scope="module")
def track(tmp_path_factory) -> MeshTrack:
    path = tmp_path_factory.mktemp("track") / "ball.ply"
    save_mesh(path, oracles.sphere(5, radius=2.0))
    return replace(MeshTrack.of(path), resolution=64)


def small_ngp(params, near):
    return sized_ngp(params, near, template=NgpConfig(levels=3, coarsest=4, finest=16, width=16))


CONTENDERS = [Contender("ngp", small_ngp), Contender("siren", sized_siren)]


class Offset(Field):
    """The signed distance of a ball of radius ``radius``, plus ``error``."""

    in_dim, out_dim = 3, 1

    def __init__(self, radius: float, error: float):
        super().__init__()
        self.radius, self.error = torch.nn.Parameter(torch.tensor(radius)), error

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return points.norm(dim=1, keepdim=True) - self.radius + self.error

    def rates(self) -> list[dict]:
        return [{"params": [self.radius], "lr": 0.0}]


@pytest.mark.parametrize("error", [0.0, 0.01, -0.02])
def test_a_field_that_is_off_by_a_constant_measures_as_off_by_it(
    track: MeshTrack, error: float
) -> None:
    # the icosphere's radius is within 0.5% of it
    radius = float(np.linalg.norm(track.near.vertices, axis=1).max())
    scores = track.measure(Offset(radius, error))
    for name in ("near", "surface", "volume"):
        assert scores[name] == pytest.approx(abs(error), abs=5e-3)
    assert scores["normals"] < 6
    assert scores["iou_volume"] == pytest.approx((1 - abs(error) / radius) ** 3, abs=0.03)


def test_test_points_are_those_of_the_conventions(track: MeshTrack) -> None:
    (near, d_near), (volume, _), (surface, normals) = (
        track.near_points,
        track.volume_points,
        track.surface_points,
    )
    assert near.shape == volume.shape == surface.shape == normals.shape == (TESTS, 3)
    # Gaussian noise of deviation 0.01 moves a point off a plane by 0.01 sqrt(2 / pi) on average
    assert np.abs(d_near).mean() == pytest.approx(0.01 * math.sqrt(2 / math.pi), rel=0.02)
    assert np.abs(volume).max() <= 1


def test_a_race_to_a_number_of_steps_gives_everybody_all_of_them(track: MeshTrack) -> None:
    rows = race(CONTENDERS, track, BUDGET, 0, steps=40, pool=POOL, commit="abc")
    for name in ("ngp", "siren"):
        own = [row for row in rows if row.field == name]
        assert [row.done for row in own] == [*MARKS, 1.0]
        assert own[-1].steps == 40
        assert 0.9 * BUDGET <= own[-1].parameters <= BUDGET
        assert own[-1].bytes > 4 * own[-1].parameters
        assert (own[-1].track, own[-1].budget, own[-1].limit, own[-1].seed) == (
            "ball",
            BUDGET,
            "40 steps",
            0,
        )
        assert own[-1].measures["near"] < own[0].measures["near"]
        assert [row.steps for row in own] == [2, 4, 8, 16, 28, 40]
    assert len(rows) == 12


def test_contenders_take_turns() -> None:
    """Every step takes 0.125 s of its contender's clock, so a turn of 0.3 s has three steps."""

    def slow(
        field: Field, pool: Samples, objective: Objective, config: FitConfig
    ) -> Iterator[Progress]:
        return (Progress(step, step / 8, step / 8, 0.0) for step in range(1, 9))

    config = NstrConfig((LevelConfig(2, plain=3, sparse=False),), hidden=4)
    pair = [Contender(name, lambda params, near: config, steps=slow) for name in "ab"]
    rows = race(pair, tone(), 1, 0, steps=8, marks=(0.25, 0.5))
    assert [(row.field, row.steps) for row in rows] == [
        ("a", 2),
        ("b", 2),
        ("a", 4),
        ("b", 4),
        ("a", 8),
        ("b", 8),
    ]


def test_a_contender_without_time_for_a_step_has_a_row_that_says_so() -> None:
    def start(*args) -> Iterator[Progress]:
        time.sleep(0.02)
        yield from ()

    config = NstrConfig((LevelConfig(2, plain=3, sparse=False),), hidden=4)
    late = Contender("late", lambda params, near: config, steps=start)
    (row,) = race([late], tone(), 1, 0, seconds=0.01, marks=())
    assert (row.steps, row.done, row.note) == (0, 1.0, "no time for a step")
    assert row.seconds >= 0.02  # the start is on the clock
    assert row.gemm > 0
    assert row.gather > 0
    assert "| late (no time for a step) |" in summary([row], "late", PICTURE)
    assert "M rows/s" in summary([row], "late", PICTURE)


def test_a_race_repeats_but_for_its_clock(track: MeshTrack) -> None:
    one, two = (
        [
            replace(row, seconds=0.0)
            for row in race(CONTENDERS, track, BUDGET, 1, steps=20, marks=(0.4,), pool=POOL)
        ]
        for _ in range(2)
    )
    assert sorted(one, key=str) == sorted(two, key=str)


def test_a_race_on_the_clock_gives_everybody_as_long(track: MeshTrack) -> None:
    rows = [
        row
        for row in race(CONTENDERS, track, BUDGET, 0, seconds=1.0, marks=(), pool=POOL)
        if row.done == 1
    ]
    assert len(rows) == 2
    # the last step may end after the turn's time; a step takes much less than a second
    assert all(1.0 <= row.seconds < 2.0 for row in rows)


@pytest.mark.parametrize("limits", [{}, {"seconds": 1.0, "steps": 5}])
def test_a_race_without_one_limit_raises(track: MeshTrack, limits: dict) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        race(CONTENDERS, track, BUDGET, 0, **limits)


def test_rows_survive_their_file(tmp_path) -> None:
    rows = [ROW, replace(ROW, field="b, with a comma", measures=MEASURES)]
    write_rows(tmp_path / "new" / "rows.csv", rows)
    assert read_rows(tmp_path / "new" / "rows.csv") == rows
    assert read_rows(tmp_path / "none.csv") == []


def test_rows_of_earlier_versions_do_not_say_how_fast_the_machine_is(tmp_path) -> None:
    write_rows(tmp_path / "rows.csv", [replace(ROW, gemm=60.0, gather=90.0, note="slow")])
    (new,) = read_rows(tmp_path / "rows.csv")
    assert (new.gemm, new.gather, new.note) == (60.0, 90.0, "slow")
    head, line = (tmp_path / "rows.csv").read_text().splitlines()
    old = [head.replace("gemm,gather,note,", ""), line.replace("60,90,slow,", "")]
    (tmp_path / "rows.csv").write_text("\n".join(old))
    assert read_rows(tmp_path / "rows.csv") == [ROW]


def test_another_csv_file_is_refused(tmp_path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        read_rows(tmp_path / "rows.csv")


def test_the_summary_averages_and_compares() -> None:
    rows = [
        ROW,
        replace(ROW, seed=1, measures=near(4e-4)),
        replace(ROW, field="b", measures=near(6e-4)),
        replace(ROW, field="b", seed=1, measures=near(6e-4)),
    ]
    text = summary(rows, base="b")
    assert "**100 parameters, 5 s**, mean over 1 signals and 2 seeds" in text
    first, second = [line for line in text.splitlines() if line.startswith(("| a", "| b"))]
    assert "| a | 99 | 10 | 5.0 | 0.50 | 3.00 ± 1.00 |" in first
    assert "| b | 99 | 10 | 5.0 | 1.00 | 6.00 ± 0.00 |" in second


def test_the_summary_leaves_out_what_not_everybody_finished() -> None:
    rows = [
        ROW,
        replace(ROW, seed=1, measures=near(4e-4)),
        replace(ROW, field="b", measures=near(6e-4)),
    ]
    assert "1 signals and 1 seeds" in summary(rows, base="b")
    assert summary([replace(ROW, done=0.5)], base="b") == ""


def test_the_table_by_track_has_a_column_for_each() -> None:
    text = by_track(
        [
            ROW,
            replace(ROW, track="cube", measures=near(5e-4)),
            replace(ROW, seed=1, measures=near(4e-4)),
        ]
    )
    assert "| field | ball | cube |" in text
    assert "| a | 3.00 | 5.00 |" in text


@needs_parts("bench")
def test_plots_are_drawn(tmp_path) -> None:
    places = [(name, budget, done) for name in "ab" for budget in (100, 400) for done in (0.5, 1.0)]
    rows = [
        replace(ROW, field=name, budget=b, parameters=b, done=done, seconds=5 * done)
        for name, b, done in places
    ]
    expected = [
        f"near_{x}{suffix}"
        for x in ("seconds", "parameters", "bytes")
        for suffix in (".png", ".svg")
    ]
    written = plot(rows, tmp_path)
    assert [path.name for path in written] == expected
    assert all(path.stat().st_size > 5000 for path in written)


def test_plots_show_the_race_that_most_took_part_in() -> None:
    rows = [replace(ROW, field=name, budget=b) for name in "ab" for b in (100, 400)]
    short = replace(ROW, limit="1 s")
    assert _main([short, *rows]) == [row for b in (100, 400) for row in rows if row.budget == b]


def test_where_more_is_better_the_order_turns_and_differences_are_shown() -> None:
    psnr = Measure("psnr", "PSNR dB", axis="PSNR", rising=True)
    rows = [
        replace(ROW, field=name, measures={"psnr": value})
        for name, value in (("a", 30.0), ("b", 33.5))
    ]
    lines = [
        line for line in summary(rows, "a", [psnr]).splitlines() if line.startswith(("| a", "| b"))
    ]
    assert lines[0].startswith("| b | 99 | 10 | 5.0 | +3.50 | 33.50 ± 0.00 |")
    assert lines[1].startswith("| a | 99 | 10 | 5.0 | +0.00 | 30.00 ± 0.00 |")


def test_a_pool_can_be_short_and_noisy(track: MeshTrack) -> None:
    config = FitConfig(pool=20_000, seed=3)
    clean = track.pool(config)
    noisy = replace(track, samples=5000, noise=0.01).pool(config)
    assert torch.equal(noisy.points, clean.points[:5000])
    error = noisy.values - clean.values[:5000]
    assert float(error.std()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(error.mean())) < 5e-4


def test_least_squares_races_too(track: MeshTrack) -> None:
    """A plain grid fitted by conjugate gradients approximates the ball; a field with a decoder is
    refused."""
    contender = Contender("linear", sized_linear, steps=least_squares(samples=20_000))
    last = race([contender], track, BUDGET, 0, steps=20, marks=(), pool=POOL)[-1]
    assert last.steps == 20
    assert last.measures["near"] < 3e-3
    with pytest.raises(ValueError, match="linear in its parameters"):
        race([replace(contender, config=small_ngp)], track, BUDGET, 0, steps=2, pool=POOL)


def tone(keep: float = 1.0, jump: float | None = None) -> RasterTrack:
    x = (np.arange(40) + 0.5) / 20 - 1
    return RasterTrack(
        "tone",
        np.stack([np.sin(3 * x)[:, None] * x, np.cos(x)[:, None] * x], axis=-1),
        2.0,
        keep,
        jump,
    )


class Shifted(Field):
    """The values of `tone` plus a constant error, everywhere or only where the last coordinate is
    positive."""

    in_dim = out_dim = 2

    def __init__(self, error: float, right: bool = False):
        super().__init__()
        self.error, self.right = torch.nn.Parameter(torch.tensor(error)), right

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        row, column = points.double().unbind(dim=1)
        truth = torch.stack([torch.sin(3 * row) * column, torch.cos(row) * column], dim=1)
        return (truth + self.error * ((column > 0)[:, None] if self.right else 1)).float()

    def rates(self) -> list[dict]:
        return [{"params": [self.error], "lr": 0.0}]


def test_a_raster_is_sampled_at_the_centres_of_its_cells() -> None:
    track = tone()
    assert (track.in_dim, track.out_dim) == (2, 2)
    assert track.near.shape == (1600, 2)
    assert track.near[0] == pytest.approx([-0.975, -0.975])
    assert track.near[1] == pytest.approx([-0.975, -0.925])  # the last axis varies fastest
    assert track.near[-1] == pytest.approx([0.975, 0.975])
    pool = track.pool(FitConfig())
    assert torch.equal(pool.points, torch.from_numpy(track.near))
    assert torch.allclose(pool.values, Shifted(0.0)(pool.points), atol=1e-6)


@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_a_constant_error_has_its_decibels(keep: float) -> None:
    track = tone(keep)
    scores = track.measure(Shifted(0.02))
    assert scores["psnr"] == pytest.approx(20 * math.log10(2 / 0.02), abs=1e-3)
    values = track.values.reshape(-1, 2)[~track.kept] if keep < 1 else track.values
    assert scores["snr"] == pytest.approx(10 * math.log10(np.mean(values**2) / 0.02**2), abs=1e-3)
    assert track.measure_end(Shifted(0.02)) == {}


def test_what_is_left_out_is_what_is_measured() -> None:
    track = tone(0.25)
    assert track.kept.sum() == 400
    assert len(track.pool(FitConfig(seed=5))) == 400
    assert np.array_equal(track.kept, tone(0.25).kept)


def test_overshoot_and_ringing_look_around_the_jump() -> None:
    # the error exceeds the last column's largest value
    scores = tone(jump=0.975).measure_end(Shifted(0.1, right=True))
    assert scores["ringing"] == pytest.approx(0.05, rel=1e-4)
    assert scores["overshoot"] == pytest.approx(0.05, abs=2e-3)
    assert tone(jump=-0.975).measure_end(Shifted(0.1, right=True)) == pytest.approx(
        {"overshoot": 0.0, "ringing": 0.0}, abs=1e-6
    )


def test_the_commit_of_a_folder_is_found_and_empty_outside_a_repository(tmp_path) -> None:
    assert find_commit(tmp_path) == ""
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=tmp_path, text=True)
    commit = find_commit(tmp_path)
    assert len(commit) >= 4
    assert head.startswith(commit)
