"""Folders for temporary files that do not outlast the process by long, even if it is killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nstr3d.io.atomic import is_abandoned, owner_mark

START = "nstr3d-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Gives an empty folder among the temporary files, which is removed after the block.

    Folders that killed processes of this user have left are removed first. Raises OSError if the
    folder cannot be made.
    """
    _remove_leftovers(tempfile.gettempdir())
    folder = Path(tempfile.gettempdir(), START + owner_mark())
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(place: str) -> None:
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if not (entry.name.startswith(START) and entry.is_dir(follow_symlinks=False)):
                continue
            with suppress(OSError):
                own = not hasattr(os, "getuid") or entry.stat().st_uid == os.getuid()
                if own and is_abandoned(entry.name[len(START) :], entry):
                    shutil.rmtree(entry.path, ignore_errors=True)
