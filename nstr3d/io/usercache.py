"""The folder for what this user's runs keep, and can make again."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from nstr3d.io.atomic import save_json

NAME = "nstr3d"


def cache_folder() -> Path | None:
    """The folder, which need not exist: in XDG_CACHE_HOME or ~/.cache on Linux, ~/Library/Caches on
    macOS, and LOCALAPPDATA on Windows. None for a user without a home."""
    if sys.platform == "win32":
        places = [os.environ.get("LOCALAPPDATA", "")]
    elif sys.platform == "darwin":
        places = [os.path.expanduser("~/Library/Caches")]
    else:
        places = [os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")]
    # Without a home the path begins with a "~", and would be taken relative to the working folder.
    return next((Path(place, NAME) for place in places if os.path.isabs(place)), None)


def load_kept(name: str) -> Any:
    """The JSON that `keep` wrote to the file ``name`` of the folder; None if it is missing, cannot
    be read or is damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    with suppress(OSError, ValueError, RecursionError):
        return json.loads((folder / name).read_text(encoding="utf-8"))
    return None


def keep(name: str, data: Any) -> bool:
    """Writes ``data`` as JSON to the file ``name`` of the folder, whole or not at all: of several
    processes that write it at once, one wins. Returns whether the file could be written."""
    folder = cache_folder()
    if folder is None:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_json(folder / name, data)
    except OSError:
        return False
    return True
