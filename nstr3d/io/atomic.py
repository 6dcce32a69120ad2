"""Atomic writes, JSON files, and the check before every read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.system import process_space, process_start

DAY = 86400.0  # seconds
OWNED = re.compile("([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}")  # space, process and token in a name


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A context manager that yields a temporary path beside ``path`` to write to.

    The temporary file replaces ``path`` if the block succeeds and is deleted if the block fails, so
    a reader sees the old file or the complete new file. The temporary path keeps the suffix of
    ``path`` for writers that choose the format by extension. Temporary files for ``path`` that
    killed processes have left are removed first. Raises ``FileNotFoundError`` if the folder is
    missing and ``IsADirectoryError`` if ``path`` is a folder.
    """
    target = Path(os.path.realpath(path))  # keeps a link and replaces the file it points to
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file inside it")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"the folder {target.parent} does not exist; create it before saving {target.name}"
        )
    remove_leftovers(target)
    temporary = target.with_name(f".{target.stem}.{owner_mark()}{target.suffix}")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # some writers create a file that only its owner may read
        os.replace(temporary, target)
    except BaseException as error:
        if (
            isinstance(error, OSError)
            and error.strerror
            and error.filename in (None, str(temporary))
        ):
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(target: Path) -> None:
    """Removes temporary files of `atomic_path` for ``target`` that no process will finish.

    Those are the files of ended processes of this machine, and of other machines the files that
    have not changed for a day.
    """
    start, end = f".{target.stem}.", target.suffix
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if not (entry.name.startswith(start) and entry.name.endswith(end)):
                continue
            if is_abandoned(entry.name[len(start) : len(entry.name) - len(end)], entry):
                with suppress(OSError):
                    os.unlink(entry.path)


def owner_mark() -> str:
    """A part of the name of a temporary file: the system and the process that own it, and a random
    token."""
    return f"{_space()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_abandoned(mark: str, entry: os.DirEntry[str]) -> bool:
    """Whether ``mark`` is an `owner_mark` of a process that has ended; on another machine, one of
    an ``entry`` that has not changed for a day."""
    owner = OWNED.fullmatch(mark)
    if owner is None:
        return False
    if owner[1] == _space():
        return process_start(int(owner[2])) == ""
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY
    except OSError:  # it has been removed
        return False


def _space() -> str:
    """A short word for `process_space`, for names of files."""
    return hashlib.sha256(process_space().encode()).hexdigest()[:8]


def save_json(path: str | os.PathLike[str], data: Any) -> None:
    """Writes ``data`` as indented JSON, atomically. Raises ValueError like `json_text`."""
    text = json_text(data, indent=2)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def json_text(data: Any, indent: int | None = None) -> str:
    """``data`` as JSON, on one line unless there is an ``indent``.

    ``data`` may hold dicts, lists, tuples, strings, numbers, booleans, None, numpy scalars and
    arrays. Raises ValueError naming the key path of a NaN, an infinity, or a value of a type that
    JSON cannot hold.
    """
    return json.dumps(_plain(data, "data"), indent=indent, allow_nan=False)


def check_readable(path: Path) -> None:
    """Raises ``FileNotFoundError`` if ``path`` does not exist, ``IsADirectoryError`` if it is a
    folder, and ``ValueError`` if it is a pipe, a device or an empty file."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file inside it")
    if not path.exists():
        raise FileNotFoundError(
            f"{path} {'is a link to nothing' if path.is_symlink() else 'does not exist'}"
        )
    if not path.is_file():
        raise ValueError(f"{path} is no regular file, so there is nothing to read; name a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")


def _plain(value: Any, where: str) -> Any:
    """``value`` with numpy types converted to Python types. Raises ValueError naming ``where``, the
    key path, for a value that JSON cannot hold."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"{where} is {value}, which JSON cannot hold; leave it out or replace it by None"
        )
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(
        f"{where} is a {type(value).__name__}, which JSON cannot hold; convert it to numbers, "
        "strings or lists"
    )
