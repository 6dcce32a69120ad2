"""Shares of the points: every point is in exactly one share, whichever thread computes it."""

import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from nstr3d.kernels import threads
from nstr3d.kernels.threads import split_work, thread_count
from nstr3d.system import count_processors


@pytest.fixture(autouse=True)
def two() -> Iterator[None]:
    """Sets two threads for the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("named", "count"), [("3", 3), ("5,2", 5), ("", None), ("0", None), ("many", None)]
)
def test_without_torch_the_environment_or_the_processors_give_the_number(
    monkeypatch: pytest.MonkeyPatch, named: str, count: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", named)
    assert thread_count() == 2  # torch's
    monkeypatch.delitem(sys.modules, "torch")
    assert thread_count() == (count or count_processors())


@pytest.mark.parametrize("count", [0, 1, 511, 512, 5000])
def test_every_point_is_in_one_share_of_whole_blocks(count: int) -> None:
    calls = []
    split_work(lambda part, low, high: calls.append((part, low, high)), count, block=64)
    shares = sorted(calls)
    assert [part for part, _, _ in shares] == list(range(2 if count >= 512 else 1))
    assert [low for _, low, _ in shares] == [0, *[high for _, _, high in shares[:-1]]]
    assert shares[-1][2] == count
    assert all(low % 64 == 0 for _, low, _ in shares)


def test_what_a_helper_raises_reaches_who_asked() -> None:
    def kernel(part: int, low: int, high: int) -> None:
        if part == 1:
            raise ArithmeticError("of the second share")

    with pytest.raises(ArithmeticError, match="second share"):
        split_work(kernel, 5000)


def test_nothing_of_a_share_still_runs_when_it_raises() -> None:
    begun, ended = threading.Event(), threading.Event()

    def kernel(part: int, low: int, high: int) -> None:
        if part == 0:
            begun.wait(10)
            raise ArithmeticError("of the first share")
        begun.set()
        time.sleep(0.1)
        ended.set()

    with pytest.raises(ArithmeticError, match="first share"):
        split_work(kernel, 5000)
    assert ended.is_set()


def test_helpers_that_are_busy_keep_nobody_waiting() -> None:
    go = threading.Event()
    busy = threads.Range(lambda *_: go.wait(10), 1, 0, 1)
    threads.team_of(1).put(busy)  # the only helper
    calls = []
    split_work(lambda part, low, high: calls.append((part, threading.get_ident())), 5000)
    assert calls == [(part, threading.get_ident()) for part in (0, 1)]
    go.set()
    busy.end()
    assert busy.error is None


def test_a_range_that_nobody_began_is_not_run_after_an_exception() -> None:
    go, calls = threading.Event(), []
    busy = threads.Range(lambda *_: go.wait(10), 1, 0, 1)
    threads.team_of(1).put(busy)

    def kernel(part: int, low: int, high: int) -> None:
        calls.append(part)
        raise ArithmeticError("of the first share")

    with pytest.raises(ArithmeticError, match="first share"):
        split_work(kernel, 5000)
    go.set()
    busy.end()
    split_work(lambda part, low, high: None, 5000)  # the helper takes what is left in its queue
    assert calls == [0]


def test_ranges_may_be_split_again() -> None:
    calls = []

    def kernel(part: int, low: int, high: int) -> None:
        split_work(lambda *inner: calls.append((part, *inner)), 1000)

    split_work(kernel, 5000)
    halves = [(0, 0, 500), (1, 500, 1000)]
    assert sorted(calls) == [(part, *half) for part in (0, 1) for half in halves]
