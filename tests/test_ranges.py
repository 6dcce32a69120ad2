"""Every number of every command has a range: what lies outside is refused with one sentence."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nstr3d.system as system
from nstr3d.cli import command
from nstr3d.cli.batch import Batch
from nstr3d.cli.check import Check
from nstr3d.cli.command import main
from nstr3d.cli.export import Export
from nstr3d.cli.fit import FitMesh, FitPoints, FitSignal
from nstr3d.cli.render import Render
from nstr3d.cli.view import View
from nstr3d.jobs.flowoptions import FlowJob
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.messages import sentence
from nstr3d.jobs.options import Extraction, Training
from nstr3d.jobs.signal import run_signal
from nstr3d.jobs.signaloptions import SignalJob

COMMANDS = FitMesh, FitPoints, FitSignal, FlowJob, Batch, Check, Render, View, Export
REQUIRED: dict[str, Any] = {
    "path": Path("a.png"),
    "out": "a.png",
    "shapes": "shapes",
    "model": Path("a.safetensors"),
    "files": (Path("a.ply"),),
    "to": "npz",
}
VALUES = (-1, 0, 10**12, 10**30, math.nan, math.inf, -math.inf, 1e30)
# The options for which some of VALUES are legal.
LEGAL = {
    **dict.fromkeys(
        ("transport", "checkpoint_seconds", "noise", "picture", "seed"), frozenset([0])
    ),
    **dict.fromkeys(("grace", "port"), frozenset([0])),
    **dict.fromkeys(("azimuth", "elevation"), frozenset([-1, 0])),
    **dict.fromkeys(("eye", "target"), frozenset([-1, 0, 10**12])),
    "iso": {-1, 0, 10**12, 10**30, 1e30},
    "thickness": {10**12},
    "smooth": {0, 10**12},
    "shard": set(),
}


def numbers(options: type) -> Iterator[tuple[type, str, type, bool]]:
    """The numeric options of a dataclass and of those in it: class, name, kind, and whether it is
    a tuple of three or two."""
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        kinds = {hints[field.name], *typing.get_args(hints[field.name])}
        kinds |= {inner for kind in kinds for inner in typing.get_args(kind)}
        for kind in kinds:
            if dataclasses.is_dataclass(kind):
                yield from numbers(typing.cast(type, kind))
            elif kind in (int, float):
                is_tuple = any(typing.get_origin(each) is tuple for each in kinds)
                yield options, field.name, typing.cast(type, kind), is_tuple


OPTIONS = sorted({each for one in COMMANDS for each in numbers(one)}, key=str)


def built(options: type, name: str, value: Any) -> Any:
    needed = {
        field.name: REQUIRED[field.name]
        for field in dataclasses.fields(options)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return options(**{**needed, name: value})


def test_the_walk_finds_the_options() -> None:
    found = {(options.__name__, name) for options, name, *_ in OPTIONS}
    assert len(found) > 45
    assert {("Training", "params"), ("Extraction", "resolution"), ("SignalJob", "noise")} <= found
    assert {("Render", "size"), ("Batch", "workers"), ("LiveScreen", "port")} <= found
    assert LEGAL.keys() <= {name for _, name in found} | {"shard"}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda one: f"{one[0].__name__}.{one[1]}")
def test_a_number_out_of_range_is_refused_with_one_sentence(option) -> None:
    options, name, kind, is_tuple = option
    default = options.__dataclass_fields__[name].default
    length = len(default or (0, 0, 0)) if is_tuple else 0
    for value in VALUES:
        if kind is int and not isinstance(value, int):
            continue  # the parser refuses it
        given = (value,) * length if is_tuple else value
        if any(value == legal for legal in LEGAL.get(name, ())):
            built(options, name, given)
            continue
        with pytest.raises(ValueError, match=r"\.$") as refused:
            built(options, name, given)
        said = sentence(refused.value, flags=True)
        assert said.endswith(".")
        assert f"--{name.replace('_', '-')}" in said or (options, name) == (SignalJob, "seconds")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit a.obj --params 1e12", "--params is 1 to 1,000,000,000, not 1000000000000."),
        ("fit a.obj --params 10000000000000", "--params is 1 to 1,000,000,000, not 1000000000"),
        ("fit a.obj --resolution 100000", "--resolution is 8 to 4096 cells, not 100000."),
        ("fit a.png --noise 1e30", "--noise is 0 to 100, not 1e+30."),
        ("fit a.obj --steps -1", "--steps must be positive and finite, not -1."),
        ("fit a.obj --seconds nan", "--seconds must be positive and finite, not nan."),
        ("fit a.obj --batch 0", None),
        ("batch shapes --out out --workers 0", "--workers must be positive and finite, not 0."),
        ("batch shapes --out out --grace inf", "--grace is 0 to 1,000,000,000, not inf."),
        ("batch shapes --out out --shard 0/0", "--shard is i/n with i from 1 to n, not 0/0."),
        ("batch '' --out out", "The value after batch is empty; give one, or leave it out."),
        ("batch shapes --out ''", "The value after --out is empty; give one, or leave it out."),
        ("fit a.obj --out=", "The value after --out is empty; give one, or leave it out."),
        ("render a.ply --out a.png --frames 0", "--frames is 1 to 100,000, not 0."),
        ("render a.ply --out a.png --fov nan", "--fov is 0.1 to 175, not nan."),
        ("view a.ply --port 70000", "--port is 0 to 65,535, not 70000."),
        ("export a.safetensors --to ply --resolution 100000", "--resolution is 2 to 4,096, not 10"),
    ],
)  # fmt: skip
def test_the_command_refuses_before_any_work(
    words: str, said: str | None, capsys, tmp_path, monkeypatch
) -> None:
    import shlex

    monkeypatch.chdir(tmp_path)
    try:
        code = main(shlex.split(words))
    except SystemExit as refused:  # words that are no number, or no option
        code = refused.code
    error = capsys.readouterr().err
    assert code == (2 if said is None else 1)
    if said is not None:
        assert error.startswith(f"error: {said}")
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Training(params=10**9), "params 1,000,000,000 would take 16 GB of memory, but 1 GB are f"),
        (Training(pool=10**9), "pool 1,000,000,000 would take 64 GB of memory"),
        (Extraction(samples=10**9), "samples 1,000,000,000 would take 100 GB of memory"),
        (Extraction(resolution=4096), "A surface at resolution 4,096 would take 10.1 GB of memory"),
    ],
)
def test_what_no_memory_holds_is_refused_before_work(job, said: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(system, "free_memory", lambda: 10**9)
    group = {"training" if isinstance(job, Training) else "extraction": job}
    with pytest.raises(ValueError, match=said):
        run(MeshJob(tmp_path / "absent.obj", **group))
    if isinstance(job, Training) and job.params:
        with pytest.raises(ValueError, match="params 1,000,000,000 would take 16 GB"):
            run_signal(SignalJob(tmp_path / "absent.png", params=10**9, field="nstr"))


def test_a_large_picture_is_refused_by_its_memory(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(system, "free_memory", lambda: 10**9)
    words = ["render", "a.ply", "--out", str(tmp_path / "a.gif"), "--size", "8000", "8000"]
    assert main([*words, "--frames", "100"]) == 1
    assert capsys.readouterr().err == (
        "error: --size 8000 x 8000 and --frames 100 would take 41.5 GB of memory, but 1 GB are "
        "free; choose smaller ones.\n"
    )


def test_only_our_own_warnings_are_shown_and_in_one_line(capsys) -> None:
    class Foreign(UserWarning):
        """As of GLFW."""

    def work() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("a part\nwas left out.", stacklevel=1)
            warnings.warn("(65537) no context", Foreign, stacklevel=1)
            warnings.warn("divide by zero", RuntimeWarning, stacklevel=1)
        logging.getLogger("trimesh").warning("unable to load materials")
        raise ValueError("It is so.")

    assert command.guarded(work) == 1
    assert capsys.readouterr().err == "warning: a part was left out.\nerror: It is so.\n"
    assert sys.stderr is not None
