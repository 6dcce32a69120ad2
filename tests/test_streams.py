"""Standard output and error that fail, a terminal that is lost, and encodings without some letter:
no result is lost, nothing prints a traceback, and the exit status says what happened."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import sphere
from PIL import Image

from nstr3d.cli import command as cli
from nstr3d.cli.streams import Stream, lasting_streams
from nstr3d.io import save_mesh
from nstr3d.jobs.signal import SignalJob, run_signal

ROOT = Path(__file__).resolve().parents[1]
CLEAN = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
NSTR3D = f"{sys.executable} -m nstr3d"
FILES = {"model.safetensors", "image.png", "comparison.png", "report.json"}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture whose name is not ASCII."""
    values = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    path = tmp_path / "bl\u00fcte.png"
    Image.fromarray(values).save(path)
    return path


def shell(words: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs ``words`` in a shell of no terminal; its exit status is that of the first command."""
    script = f"set -o pipefail; {words}"
    variables = CLEAN | {"HOME": os.environ.get("HOME", "/")} | environment
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        env=variables,
        timeout=100,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("streams", "status", "said"),
    [
        (">&- 2>&-", 0, b""),
        ("<&- 2>&-", 0, None),
        ("| true", 0, b""),
        ("2>&1 >/dev/full", 1, b"the standard output could not be written to (No space left"),
        ("2>/dev/full", 0, None),
    ],
)
def test_no_stream_costs_a_result(
    tmp_path: Path, picture: Path, streams: str, status: int, said: bytes | None
) -> None:
    out = tmp_path / "out"
    ended = shell(f"{NSTR3D} fit {picture} --out {out} {streams}")
    assert ended.returncode == status
    assert set(os.listdir(out)) == FILES
    everything = ended.stdout + ended.stderr
    assert b"Traceback" not in everything
    assert b"BrokenPipe" not in everything
    assert said is None or (everything == said if not said else said in everything)
    assert json.loads((out / "report.json").read_text())["files"]


def test_a_failure_keeps_its_status_where_nobody_listens(tmp_path: Path) -> None:
    ended = shell(f"{NSTR3D} fit {tmp_path}/none.png --out {tmp_path}/out >&- 2>&-")
    assert ended.returncode == 1
    assert os.listdir(tmp_path) == []


def test_the_head_of_the_help_is_the_head_of_the_help() -> None:
    ended = shell(f"{NSTR3D} fit --help | head -1")
    assert ended.returncode == 0
    assert ended.stdout.count(b"\n") == 1
    assert ended.stderr == b""


@pytest.mark.parametrize("terminal", ["ascii", "latin-1"])
def test_letters_that_the_encoding_lacks_are_escaped(
    tmp_path: Path, picture: Path, terminal: str
) -> None:
    """The C locale without UTF-8, where a name in Chinese cannot be printed either."""
    other = picture.with_name("\u82b1.png")
    picture.rename(other)
    out = tmp_path / "\u82b1"
    ended = shell(
        f"{NSTR3D} fit {other} --out {out}",
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        PYTHONIOENCODING=terminal,
    )
    assert ended.returncode == 0, ended.stderr
    assert set(os.listdir(out)) == FILES
    assert ended.stderr == b""
    assert b"\\u82b1/model.safetensors" in ended.stdout or b"\\udc" in ended.stdout


def test_a_terminal_that_is_lost_costs_no_result(tmp_path: Path, picture: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*NSTR3D.split(), "fit", str(picture), "--out", str(tmp_path / "out")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=CLEAN | {"HOME": os.environ.get("HOME", "/"), "TERM": "xterm"},
    )
    os.close(theirs)
    os.close(ours)  # what is written now fails with "Input/output error"
    assert process.wait(100) == 1  # the table is lost
    assert set(os.listdir(tmp_path / "out")) == FILES


class Terminal:
    """A stream that claims to be a terminal of ``encoding`` and keeps what is written."""

    def __init__(self, encoding: str = "utf-8"):
        self.encoding, self.text = encoding, ""

    def write(self, text: str) -> int:
        text.encode(self.encoding)
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("wish", "shown"), [("1", "red"), ("", "\x1b[31mred\x1b[0m")])
def test_no_color_leaves_out_colours(
    monkeypatch: pytest.MonkeyPatch, wish: str, shown: str
) -> None:
    monkeypatch.setenv("NO_COLOR", wish)
    terminal = Terminal()
    Stream(terminal).write("\x1b[31mred\x1b[0m")
    assert terminal.text == shown


@pytest.mark.parametrize(("wish", "coloured"), [("1", False), ("", True)])
def test_the_help_on_a_terminal_has_colours_unless_refused(
    monkeypatch: pytest.MonkeyPatch, wish: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", wish)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit):
        cli.main(["check", "--help"])
    assert ("\x1b[" in terminal.text) == coloured
    assert "table" in terminal.text


def test_closed_descriptors_are_not_those_of_the_next_file(tmp_path: Path) -> None:
    """A library's complaint on descriptor 2 must not land in a result."""
    program = (
        "import os, sys\n"
        "from nstr3d.cli.streams import lasting_streams\n"
        "with lasting_streams():\n"
        "    file = open(sys.argv[1], 'w')\n"
        "    os.write(2, b'complaint')\n"
        "    file.close()\n"
    )
    path = tmp_path / "result"
    script = f'{sys.executable} -c "$0" {path} >&- 2>&-'
    subprocess.run(["bash", "-c", script, program], env=CLEAN, check=True, timeout=100)
    assert path.read_text() == ""


def test_streams_are_as_before_after_a_command() -> None:
    before = sys.stdout, sys.stderr
    with lasting_streams() as out:
        assert sys.stdout is out
    assert (sys.stdout, sys.stderr) == before


def test_a_pipe_that_breaks_after_the_results_is_no_failure(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)

        def command() -> None:
            outcome = run_signal(SignalJob(picture, tmp_path / "out", params=100))
            print(outcome.files, flush=True)

        assert cli.guarded(command) == 0
        assert fcntl.fcntl(writing, fcntl.F_GETFD) >= 0
    assert set(os.listdir(tmp_path / "out")) == FILES


def test_a_batch_with_failed_rows_exits_1_and_so_does_its_repetition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shapes, out = tmp_path / "shapes", tmp_path / "out"
    shapes.mkdir()
    save_mesh(shapes / "ball.ply", sphere(2))
    (shapes / "bad.obj").write_text("junk")
    words = ["batch", str(shapes), "--out", str(out), "--workers", "1"]
    small = "--steps 20 --pool 8000 --params 6000 --resolution 16 --picture 0 --samples 500"
    words += ["--preset", "fast", *small.split()]
    assert cli.main(words) == 1
    first = capsys.readouterr()
    assert "1 fitted, 1 failed" in first.out
    assert first.err.startswith("error: 1 of 2 shapes could not be fitted; bad.obj: ")
    assert cli.main(words) == 1
    second = capsys.readouterr()
    assert "2 shapes: 1 up to date, 0 fitted, 0 failed, 1 failed in an earlier run" in second.out
    assert second.err.startswith("error: 1 of 2 shapes could not be fitted; ")
    # The advice of the summary, in this state, after the shape was mended.
    assert """the same command with --where "status <> 'done'\"""" in second.out
    save_mesh(shapes / "bad.obj", sphere(1))
    assert cli.main([*words, "--where", "status <> 'done'"]) == 0
