"""Mutated files of every format are read or refused with one sentence: no traceback, no hang, no
gigabytes, and no changed weight is accepted."""

from itertools import count
from pathlib import Path

import pytest
from hostile.attack import attack, table
from hostile.mutate import mutated
from hostile.seeds import write_seeds
from hostile.worker import answer

SECONDS = 60.0


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_seeds(tmp_path_factory.mktemp("seeds"))


def test_valid_files_are_accepted(seeds: list[Path]) -> None:
    for path in seeds:
        assert answer(path, path)["outcome"] == "accepted", path.name


def test_a_mutation_is_the_same_every_time() -> None:
    data = b"v 1 2 3\nf 1 2 3\n" * 20
    assert [mutated(data, n) for n in range(50)] == [mutated(data, n) for n in range(50)]
    assert len({mutated(data, n) for n in range(50)}) > 40


def test_a_changed_weight_and_a_traceback_are_faults(seeds: list[Path], tmp_path: Path) -> None:
    model = next(path for path in seeds if path.name == "shape.safetensors")
    other = next(path for path in seeds if path.name == "picture.safetensors")
    assert answer(other, model)["outcome"] == "fault"
    (tmp_path / "a.safetensors").mkdir()
    assert answer(tmp_path / "a.safetensors", model)["outcome"] == "refused"


def test_mutated_files_are_read_or_refused(seeds: list[Path], tmp_path: Path) -> None:
    outcomes = attack(seeds, tmp_path / "files", count(), SECONDS)
    faults = [fault for outcome in outcomes.values() for fault in outcome.faults]
    assert not faults, "\n".join(faults)
    assert min(sum(outcome.counts.values()) for outcome in outcomes.values()) >= 3
    assert "| mesh.obj |" in table(outcomes)
