"""The command line: exit codes, one clear sentence on stderr for each error, and signals sent to
the program."""

import ast
import fcntl
import json
import os
import pickle
import runpy
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import sphere
from quick import WORDS

import nstr3d
from nstr3d.cli import command as cli
from nstr3d.cli import tables
from nstr3d.io import load_image, load_mesh, save_mesh
from nstr3d.jobs import mesh
from nstr3d.jobs.messages import Message
from nstr3d.jobs.results import CHECKPOINT, MODEL
from nstr3d.jobs.stages import Interrupted
from nstr3d.model.checkpoint import load

SMALL = [*WORDS, "--steps", "60", "--params", "6000", "--resolution", "32"]
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
BAD_MESHES = {
    "missing.obj": (None, "does not exist"),
    "empty.obj": (b"", "is empty"),
    "mesh.unknown": (b"1", "unknown mesh extension '.unknown'"),
    "junk.obj": (np.random.default_rng(0).bytes(4000), "is binary"),
    "junk.ply": (np.random.default_rng(0).bytes(4000), "has no PLY header"),
    "text.obj": (b"hello world\n", "holds no geometry"),
    "cloud.obj": (TRIANGLE.encode(), "nstr3d points"),
    "nan.obj": (
        TRIANGLE.replace("0 1 0", "0 nan 0").encode() + b"f 1 2 3\n",
        "vertex 2 is not finite",
    ),
    "infinite.obj": (
        TRIANGLE.replace("0 1 0", "0 inf 0").encode() + b"f 1 2 3\n",
        "vertex 2 is not finite",
    ),
    "degenerate.obj": (
        TRIANGLE.replace("0 1 0", "2 0 0").encode() + b"f 1 2 3\nf 1 1 2\n",
        "none of the 2 faces",
    ),
    "point.obj": (b"v 1 1 1\n" * 3 + b"f 1 2 3\n", "none of the 1 faces"),
    "range.obj": (TRIANGLE.encode() + b"f 1 2 9\n", "names vertex 9, but the file has 3 vertices"),
}


def fit(path, out, *options) -> int:
    return cli.main(["fit", str(path), "--out", str(out), *SMALL, *options])


def assert_one_sentence(text: str, part: str) -> None:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert part in text


@pytest.mark.parametrize("name", BAD_MESHES)
def test_a_bad_mesh_gives_one_sentence_and_leaves_nothing(tmp_path, capsys, name):
    data, part = BAD_MESHES[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert fit(tmp_path / name, tmp_path / "a" / "b") == 1
    assert_one_sentence(capsys.readouterr().err, part)
    assert set(os.listdir(tmp_path)) == ({name} if data is not None else set())


def test_a_folder_is_no_mesh(tmp_path, capsys):
    assert fit(tmp_path, tmp_path / "out") == 1
    assert_one_sentence(capsys.readouterr().err, "is a folder")


@pytest.mark.parametrize(
    "options",
    [
        ("--threads", "0"),
        ("--threads", "-1"),
        ("--threads", "1000000"),
        ("--steps", "0"),
        ("--seconds", "nan"),
        ("--seed", "-1"),
    ],
)
def test_a_bad_option_gives_one_sentence_that_names_it(tmp_path, capsys, options):
    save_mesh(tmp_path / "in.ply", sphere(1))
    assert fit(tmp_path / "in.ply", tmp_path / "out", *options) == 1
    assert_one_sentence(capsys.readouterr().err, options[0])
    assert os.listdir(tmp_path) == ["in.ply"]


def test_an_unknown_option_exits_with_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        fit("in.ply", tmp_path, "--bogus", "1")
    assert stop.value.code == 2
    assert "--bogus" in capsys.readouterr().err


def test_a_fit_exits_with_0_and_prints_a_table_but_no_progress(tmp_path, capsys):
    save_mesh(tmp_path / "in.ply", sphere(2))
    out = tmp_path / "out"
    assert fit(tmp_path / "in.ply", out) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    report = json.loads((out / "report.json").read_text())
    assert f"{report['field']['parameters']:,} / {report['field']['bytes']:,}" in printed.out
    assert f"F-score at 0.5% of it          {report['accuracy']['f_score']:.4f}" in printed.out
    assert f"kinks at cells / inside        {report['accuracy']['kink_mean']:.3f} (" in printed.out
    assert printed.out.endswith(
        "wrote "
        + ", ".join(str(out / name) for name in (MODEL, "mesh.ply", "render.png", "report.json"))
        + "\n"
    )
    assert report["seconds"]["import"] > 0
    assert load_image(out / "render.png").shape == (32 + 21, 2 * 32 + 8, 3)
    assert len(load_mesh(out / "mesh.ply").faces) == report["mesh"]["faces"]
    assert load(out / MODEL).provenance["input"] == "in.ply"
    assert fit(tmp_path / "in.ply", out) == 1
    assert_one_sentence(capsys.readouterr().err, "already holds")


def test_results_go_to_a_folder_named_after_the_mesh(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(mesh, "run", lambda job, listener, seconds: asked.append(job.folder))
    monkeypatch.setattr(tables, "table", lambda outcome: "")
    assert cli.main(["fit", str(tmp_path / "my.shape.obj")]) == 0
    assert [str(out) for out in asked] == [os.path.join("out", "my.shape")]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("two\n  lines"), 1, "error: two lines\n"),
        (
            OSError(28, "No space left on device", "a/file"),
            1,
            "error: No space left on device: a/file\n",
        ),
        (FloatingPointError("The loss became nan."), 1, "error: The loss became nan.\n"),
        (MemoryError(), 1, "error: out of memory; use a smaller mesh, --resolution or --params.\n"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            1,
            "error: out of memory; use a smaller mesh, --resolution or --params.\n",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            1,
            "error: out of memory; use a smaller mesh, --resolution or --params.\n",
        ),
        (Interrupted("Stopped after 3 steps."), 130, "Stopped after 3 steps.\n"),
        (
            KeyboardInterrupt(),
            130,
            "Stopped; files that were written before the stop are kept.\n",
        ),
    ],
)
def test_expected_failures_become_one_line_and_an_exit_code(capsys, error, code, message):
    def fail():
        raise error

    assert cli.guarded(fail) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("kind", [ValueError, FileExistsError, Interrupted])
def test_a_message_that_names_options_gets_their_flags(capsys, kind):
    said = Message("{} holds {{}}; <keep_outliers> or <field> {}.", "a<b>", Message("<out>"))

    def fail():
        raise kind(said)

    assert str(kind(said)) == said == "a<b> holds {}; keep_outliers or field out."
    assert pickle.loads(pickle.dumps(said)).with_flags == said.with_flags
    cli.guarded(fail)
    assert capsys.readouterr().err.endswith("a<b> holds {}; --keep-outliers or --field --out.\n")


def test_a_defect_is_not_hidden():
    def fail():
        raise RuntimeError("a defect in memory")

    with pytest.raises(RuntimeError, match="a defect in memory"):
        cli.guarded(fail)


def test_sigterm_is_taken_like_ctrl_c():
    before = signal.getsignal(signal.SIGTERM)
    assert cli.guarded(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nstr3d", "render", "nowhere.safetensors", "--out", "a.png"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("nstr3d", run_name="__main__")
    assert stop.value.code == 1
    assert "nowhere.safetensors does not exist" in capsys.readouterr().err


def test_on_a_terminal_the_fit_shows_progress_and_ctrl_c_keeps_the_model(tmp_path):
    save_mesh(tmp_path / "in.ply", sphere(2))
    out = tmp_path / "out"
    command = ["fit", str(tmp_path / "in.ply"), "--out", str(out), *SMALL, "--steps", "100000"]
    code = f"import sys; from nstr3d.cli import main; sys.exit(main({command!r}))"
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown = _read_until(ours, "points/s")
        process.send_signal(signal.SIGINT)
        shown += _read_until(ours, "--resume")
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        process.stdout.close()
    assert "load ..." in shown
    assert "loss" in shown
    assert "the best model so far is in" in shown
    assert "Traceback" not in shown
    assert set(os.listdir(out)) == {MODEL, CHECKPOINT}
    assert load(out / MODEL).interrupted


def _read_until(terminal: int, part: str, seconds: float = 60) -> str:
    """The terminal's output up to and including ``part``; fails after ``seconds``."""
    shown, end = "", time.monotonic() + seconds
    while part not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"no {part!r} in {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_the_program_prints_its_commands(capsys, words):
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in said.out
        assert command.summary in said.out
    assert max(map(len, said.out.splitlines())) < 100


def test_the_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nstr3d {nstr3d.__version__}\n"


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("rendr", "did you mean render?"),
        ("fitt", "did you mean fit?"),
        ("bunny.obj", "to fit a file: nstr3d fit bunny.obj."),
        ("--steps", "options stand behind the command."),
        ("xyzzy", "the commands are fit, points, "),
    ],
)
def test_an_unknown_command_is_answered_with_a_near_one(capsys, word, advice):
    with pytest.raises(SystemExit) as stop:
        cli.main([word])
    assert stop.value.code == 2
    assert_one_sentence(capsys.readouterr().err, f"there is no command {word!r}; {advice}")


def test_an_unknown_option_is_answered_with_a_near_one(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "a.obj", "--resolutio", "3"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Perhaps you meant" in said
    assert "--resolution" in said
    assert said.count("--resolution ") == 1  # not those of other commands


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_commands_and_their_options(capsys, shell):
    assert cli.main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in cli.COMMANDS)
    assert "--resolution" in script


def test_completion_of_another_shell_is_refused(capsys):
    assert cli.main(["--completion", "fish"]) == 1
    assert_one_sentence(capsys.readouterr().err, "bash, zsh, not fish")


def test_the_program_has_every_command_and_each_has_help(capsys):
    names = "fit points render export view combine flow batch bench info check"
    assert " ".join(cli.COMMANDS) == names
    for name in ("flow", "bench", "check", "points"):
        with pytest.raises(SystemExit) as stop:
            cli.main([name, "--help"])
        assert stop.value.code == 0
        assert f"usage: nstr3d {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "nowhere.obj"], "nowhere.obj does not exist; name files or folders to race on."),
        (["bench", "speed", "nowhere.obj"], "nowhere.obj does not exist; name a mesh to measure"),
        (["flow", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
    ],
)
def test_flow_and_bench_miss_a_file_with_one_sentence(capsys, words, said):
    assert cli.main(words) == 1
    assert_one_sentence(capsys.readouterr().err, said)


def test_messages_name_commands_of_the_program_only():
    texts = [path.read_text(encoding="utf-8") for path in Path(nstr3d.__path__[0]).rglob("*.py")]
    literals = [
        node.value
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [text for text in literals if "python apps/" in text or "; apps/" in text]
