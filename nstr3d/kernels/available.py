"""Tests whether numba, which compiles the CPU kernels, can be imported.

Without numba, the kernels' plain twins are used.
"""

from __future__ import annotations

from functools import lru_cache

from nstr3d.system import one_line

INSTALL = "pip install numba"


@lru_cache
def numba_fault() -> str | None:
    """The reason why numba cannot be imported, as one line; None if it can.

    An installed numba that fails to import counts as absent.
    """
    try:
        import numba  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: llvmlite's shared library fails to load
        return one_line(error)
    return None


def numba_found() -> bool:
    """Whether compiled kernels may be used."""
    return numba_fault() is None


def need_numba(what: str) -> None:
    """Raises ModuleNotFoundError if numba cannot be imported.

    ``what``, a plural noun, is the subject of the error's sentence: it names what needs numba.
    """
    fault = numba_fault()
    if fault is not None:
        raise ModuleNotFoundError(
            f"{what} need numba, which could not be imported ({fault}): {INSTALL}."
        )
