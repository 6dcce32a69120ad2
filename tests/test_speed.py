"""Speed measurements whose values are known: counts, memory and orders. No test asserts a time."""

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch

from nstr3d.bench.roofline import best, costs
from nstr3d.bench.speed import dense, extraction, tracing
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.geometry.shapes.primitives import sphere
from nstr3d.kernels.field.interpolate import plain_torch


def test_costs_of_a_field_are_counted() -> None:
    field = NstrConfig((LevelConfig(2, plain=3, sparse=False),), hidden=4).build(3, 1)
    counted = costs(field, batch=10)
    assert counted["decode"].operations == 2 * 4 * (3 + 1) + 25 * 4
    assert counted["encode"].bytes == 12 + 8 * (4 * 3 + 4)
    assert counted["Adam"].bytes == pytest.approx(28 * field.parameter_count / 10)
    with pytest.raises(ValueError, match="decoder"):
        costs(NstrConfig(hidden=0).build(3, 1), 10)


def test_dense_evaluation_sees_every_node_and_hands_them_over() -> None:
    grids = []
    assert dense(sphere(), 8, grids.append)["resolution"] == 8
    assert grids[0].shape == (9, 9, 9)
    assert grids[0][4, 4, 4] == pytest.approx(-1.0, abs=1e-6)
    np.testing.assert_allclose(grids[0], grids[0][::-1].transpose(0, 2, 1), atol=1e-6)


def test_extraction_and_tracing_count_what_they_do() -> None:
    rows = extraction(sphere(), [16, 32], repeats=1)
    assert 3 < rows[1]["faces"] / rows[0]["faces"] < 5  # cost grows with the square
    counted = tracing(sphere(), 24, repeats=1)
    assert 0 < counted["steps"] < counted["plain steps"]


FRESH = """
import json
import numpy as np
import torch
from nstr3d.system import peak_memory

found = [peak_memory() >> 20]
held = np.ones(int(found[0] + 64) << 17)  # of 8 bytes
del held
print(json.dumps([*found, peak_memory() >> 20]))
"""
MEMORY = """
from nstr3d.geometry.shapes.primitives import sphere
from nstr3d.bench.speed import memory

print(memory(sphere(), 256)["megabytes"])
"""


def fresh(program: str) -> Any:
    """The JSON that ``program`` prints in a new process, whose memory no other test has used."""
    return json.loads(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
    )


def test_the_most_memory_that_was_held_counts_what_is_freed_again() -> None:
    before, after = fresh(FRESH)
    assert before > 50  # torch alone
    assert before + 64 < after < 2 * before + 1000


def test_the_memory_of_an_extraction_is_what_it_adds() -> None:
    assert 1 < fresh(MEMORY) < 1000


def test_plain_torch_leaves_the_kernels_out_and_lets_them_back_in() -> None:
    field, points = NstrConfig().build(3, 1), torch.rand(10, 3)
    with plain_torch():
        assert type(field(points).grad_fn).__name__ == "AddmmBackward0"
    assert type(field(points).grad_fn).__name__ == "_FusedBackward"


def test_best_is_the_least_of_three_calls_at_least() -> None:
    times = []

    def call() -> None:
        begun = time.perf_counter()
        time.sleep(0 if times else 0.2)
        times.append(time.perf_counter() - begun)

    least = best(call, seconds=0.0)
    assert len(times) == 3
    assert min(times) <= least < times[0]
