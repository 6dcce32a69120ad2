"""Files that are complete or absent: atomic writes, JSON, and the check before every read."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to: it replaces ``path`` when the block succeeds
    and vanishes when it fails.

    A reader sees the old file or the whole new one, never a part. The temporary keeps the suffix of
    ``path``, so that writers which go by extension work. Raises ``FileNotFoundError`` if the folder
    is missing, ``IsADirectoryError`` if ``path`` is a folder.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: what it points at is replaced
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file inside it")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"the folder {target.parent} does not exist; create it before saving {target.name}"
        )
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(
            mode
        )  # some writers, that of safetensors for one, make a file that only its owner may read
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


def save_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write ``data`` (dicts, lists, tuples, strings, numbers, numpy scalars and arrays) as indented
    JSON, atomically.

    Raises ``ValueError`` naming the key path of a NaN or infinity, or of a value that JSON has no
    form for.
    """
    text = json.dumps(_plain(data, "data"), indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def check_readable(path: Path) -> None:
    """Raises ``FileNotFoundError``, ``IsADirectoryError`` or ``ValueError`` unless ``path`` is a
    file that holds something."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file inside it")
    if not path.exists():
        raise FileNotFoundError(
            f"{path} {'is a link to nothing' if path.is_symlink() else 'does not exist'}"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")


def _plain(value: Any, where: str) -> Any:
    """``value`` with numpy turned into plain Python, refusing what JSON cannot hold."""
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
