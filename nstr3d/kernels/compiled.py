"""numba's ``njit`` with a cache on disk that helps where it can be written and is not needed.

numba refuses to compile a function whose cache cannot be written, and a full disk or a damaged
file of the cache ends a program. Here the function is then compiled without its cache.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config
from numba.core import event
from numba.core.caching import FunctionCache
from numba.misc.appdirs import AppDirs

config: Any = numba_config  # its names are made when it is imported
KERNELS = Path(__file__).parent
LOG = logging.getLogger(__name__)
ADVICE = "set NUMBA_CACHE_DIR to a folder that can be written to"


def njit(cache: bool = False, **options: Any) -> Callable[[Callable], Any]:
    """`numba.njit` with ``options``; with ``cache``, what is compiled is kept for later processes
    in the first folder that can be written to."""

    def decorate(function: Callable) -> Any:
        # C never calls a kernel, and the wrapper for it costs a tenth of the compilation.
        flags: dict[str, Any] = {"no_cfunc_wrapper": True, **options}
        dispatcher = numba.njit(**flags)(function)
        if cache and hasattr(dispatcher, "_cache"):  # a plain function if NUMBA_DISABLE_JIT is set
            _enable_cache(dispatcher, Path(function.__code__.co_filename).parent)
        return dispatcher

    return decorate


def cache_warning() -> str | None:
    """A sentence for the user if compiled kernels are cached in a temporary folder or not at all,
    else None."""
    own, temporary = own_cache(KERNELS), temporary_cache()
    if own:
        return None
    if temporary is not None:
        return f"Compiled kernels are kept in {temporary}, which may not last; {ADVICE}."
    return (
        "Compiled kernels cannot be kept in any folder, so each run compiles them anew, which "
        f"takes about a minute; {ADVICE}."
    )


@lru_cache
def own_cache(sources: Path) -> bool:
    """Whether one of the folders that numba itself would take for functions in the folder
    ``sources`` can be written to: that of NUMBA_CACHE_DIR, ``__pycache__``, or the user's cache."""
    named = [config.CACHE_DIR] if config.CACHE_DIR else []
    home = AppDirs(appname="numba", appauthor=False).user_cache_dir
    # Without a home, the path begins with a "~" and would be taken relative to the working folder.
    places = [*named, str(sources / "__pycache__"), *([home] if os.path.isabs(home) else [])]
    return any(_writable(place) for place in places)


@lru_cache
def temporary_cache() -> str | None:
    """A folder for the cache among the temporary files, which this user alone may write to; None if
    there is none. numba would run the code that another user put there."""
    with suppress(OSError):
        user = os.getuid() if hasattr(os, "getuid") else "user"
        path = os.path.join(tempfile.gettempdir(), f"nstr3d-kernels-{user}")
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        about = os.lstat(path)
        private = user == "user" or (about.st_uid == user and not about.st_mode & 0o022)
        if stat.S_ISDIR(about.st_mode) and private and _writable(path):
            return path
    return None


class _Announcement(event.Listener):
    """Says when the first kernel is compiled, as what is cached is not. Users wait for it."""

    told = False

    def on_start(self, event: Any) -> None:
        """Logs the sentence if the event is the first compilation of a function of ours."""
        function = event.data["dispatcher"].py_func
        if not self.told and function.__module__.startswith("nstr3d"):
            self.told = True
            LOG.info("Compiling kernels, once for this installation; it may take a minute ...")

    def on_end(self, event: Any) -> None:
        """Nothing: later compilations follow."""


ANNOUNCEMENT = _Announcement()
event.register("numba:compile", ANNOUNCEMENT)


class _Cache(FunctionCache):
    """numba's cache of one function, which is left out where it fails."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # unpickling a damaged file may raise any exception
            with suppress(Exception):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(Exception):  # the disk is full, or the index is damaged
            super().save_overload(sig, data)


def _enable_cache(dispatcher: Any, sources: Path) -> None:
    """Gives ``dispatcher``, a function in the folder ``sources``, its cache, if it has a place."""
    before = config.CACHE_DIR
    if not own_cache(sources):
        if temporary_cache() is None:
            return
        config.CACHE_DIR = temporary_cache()  # is read when the cache is made
    try:
        dispatcher._cache = _Cache(dispatcher.py_func)
    except RuntimeError:  # numba finds no place
        pass
    finally:
        config.CACHE_DIR = before


def _writable(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
