"""The output folder of a job: the checks before any work, one writer at a time, and the moment at
which a new set of files takes the place of the old one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nstr3d.io.atomic import remove_leftovers
from nstr3d.io.fileset import discard, replace_set, settle, stage
from nstr3d.io.folder import Folder
from nstr3d.io.lock import RUNS, SILENCE, Lock, Policy, hold, remove_empty, remove_unfinished
from nstr3d.jobs.messages import Message, sentence
from nstr3d.jobs.stages import stop_on_signal

REPORT = "report.json"
FILES = "files"  # the report's entry on the names of the set
# All names that jobs give to files of a set.
NAMES = {
    *("model.safetensors", "model.nstq", "checkpoint.safetensors", REPORT),
    *("mesh.ply", "render.png", "image.png", "sound.wav", "comparison.png"),
    *("flow.png", "residual.png", "segments.ply"),
    *("lines.ply", "lines.glb", "lines.vtp", "lines.json"),
}
FORMER = ".writing-*"  # hidden folders of earlier versions


def check_place(out: Path) -> None:
    """Raises OSError if no files can be written to the folder ``out``, which may be absent."""
    nearest = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        raise NotADirectoryError(Message("{} is not a folder; choose another <out>.", nearest))
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(
            Message("{} cannot be written to ({}); choose another <out>.", nearest, error.strerror)
        ) from error


def check_output(
    out: Path,
    names: Collection[str],
    overwrite: bool,
    expected: Collection[str] = (),
    going_on: str = "",
) -> None:
    """Raises OSError if the files ``names`` cannot be written to the folder ``out``, or if some
    exist already and may not be replaced.

    Existing files may be replaced if ``overwrite`` is true or if all are ``expected``. ``going_on``
    is text for the message: an option to name before the option overwrite.
    """
    for name in names:
        if (out / name).is_dir():
            raise IsADirectoryError(
                Message(
                    "{} is a folder where a file is to be written; choose another <out>.",
                    out / name,
                )
            )
    present = [name for name in names if (out / name).exists()]
    if not overwrite and not set(expected).issuperset(present):
        raise FileExistsError(
            Message(
                "{} already holds {}; pass {}<overwrite> or another <out>.",
                out,
                ", ".join(present),
                going_on,
            )
        )


@contextmanager
def writing_alone(
    out: Path,
    names: Collection[str],
    wait: Callable[[str], None] = lambda message: None,
    silence: float = SILENCE,
) -> Iterator[Lock]:
    """Holds the lock on the folder ``out`` in the block, so that no other run writes to ``out``.

    First ``out`` is created, and what killed runs have left there is removed: temporary files for
    ``names`` and sets that are not whole. ``wait`` gets a sentence before a wait for the sign of
    life of another run. Raises FileExistsError if another run holds the lock, and OSError if
    ``out`` cannot be written to.
    """
    check_place(out)

    def refuse(who: str) -> OSError:
        text = "{} is being written by {}; wait for it to end, or choose another <out>."
        return FileExistsError(Message(text, out, who))

    if (out / RUNS).is_symlink():  # a folder may come from anyone, and files in it are removed
        raise FileExistsError(
            Message("{} is a link; remove it, or choose another <out>.", out / RUNS)
        )
    try:
        with writing_to(out):
            pass
        with hold(Folder(out), Policy(refuse, wait=wait, silence=silence)) as lock:
            with writing_to(out):
                _clean(out, names)
            yield lock
    finally:
        remove_empty(out)


@contextmanager
def writing_file(path: Path) -> Iterator[None]:
    """Holds the lock on the single file ``path`` in the block, and removes what killed runs have
    left beside it. Its folder must exist.

    Raises FileExistsError if another run writes the same file, and OSError if its folder cannot be
    written to.
    """

    def refuse(who: str) -> OSError:
        text = "{} is being written by {}; wait for it to end, or choose another <out>."
        return FileExistsError(Message(text, path, who))

    place = path.with_name(f".{path.name}.writing")
    try:
        with hold(Folder(place), Policy(refuse)):
            remove_leftovers(path)
            yield
    finally:
        remove_empty(place)
        with suppress(OSError):  # another run has a record there, or the folder is absent
            place.rmdir()


def _clean(out: Path, names: Collection[str]) -> None:
    settle(out)
    for folder in out.glob(FORMER):
        shutil.rmtree(folder, ignore_errors=True)
    for name in (*names, REPORT):
        remove_leftovers(out / name)
    remove_unfinished(out)


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Creates the folder ``out``, and turns an OSError in the block into one sentence that names
    the folder and the reason."""
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if new:
            with suppress(OSError):  # it holds files, or was not created
                out.rmdir()
        reason = error.strerror or error
        raise OSError(
            Message(
                "{} could not be written to ({}); make room there or choose another <out>.",
                out,
                reason,
            )
        ) from error


@contextmanager
def publish(
    out: Path,
    names: Collection[str],
    lock: Lock,
    check: Callable[[], None],
    published: threading.Event,
) -> Iterator[Path]:
    """Gives a hidden folder, whose files replace the set in ``out`` at once if the block succeeds
    and are deleted if the block fails. Sets ``published`` at that moment.

    The old set are the files ``names`` and those that the old report lists. If the lock is lost, or
    ``check`` raises an OSError because files have appeared in ``out``, the new set stays apart in a
    folder of its own in ``out``, and the error names that folder.
    """
    with writing_to(out):
        folder = stage(out)
        try:
            yield folder
        except BaseException:
            discard(folder)
            raise
    with stop_on_signal():  # a stop between two steps would leave links in the place of files
        try:
            if not lock.held():
                text = "{} was taken over by another run, since this run showed no sign of life."
                raise FileExistsError(Message(text, out))
            check()
        except OSError as error:
            raise _set_apart(out, folder, error) from error
        with writing_to(out):
            try:
                replace_set(out, folder, {*names, *listed(out)})
            except OSError:
                discard(folder)
                raise
        published.set()


def listed(out: Path) -> set[str]:
    """The files of the set in ``out`` that its report lists; none if it has no such report.

    A report may come from anyone and the files are replaced, so names that no job gives are left
    out.
    """
    try:
        names = json.loads((out / REPORT).read_bytes())[FILES]
        return {name for name in names if name in NAMES and (out / name).is_file()}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _set_apart(out: Path, folder: Path, error: OSError) -> OSError:
    """The error to raise after the set in ``folder`` has moved to a folder of its own."""
    apart = out / f"unpublished-{secrets.token_hex(4)}"
    os.replace(folder, apart)
    discard(folder)
    reason = sentence(error).rstrip(".")
    return FileExistsError(Message("{}. The results of this run are in {}.", reason, apart))
