"""Whether numba, which compiles the kernels for the CPU, can be imported. Where it cannot, their
plain twins answer."""

from __future__ import annotations

from functools import lru_cache

from nstr3d.system import one_line

INSTALL = "pip install numba"


@lru_cache
def numba_fault() -> str | None:
    """Why numba cannot be imported, None where it can. An installation that is there but fails to
    import counts as absent."""
    try:
        import numba  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a library of llvmlite does not load
        return one_line(error)
    return None


def numba_found() -> bool:
    """Whether compiled kernels may be used."""
    return numba_fault() is None


def need_numba(what: str) -> None:
    """Raises ModuleNotFoundError with one sentence where numba cannot be imported; ``what``, a
    plural, is what needs it."""
    fault = numba_fault()
    if fault is not None:
        raise ModuleNotFoundError(
            f"{what} need numba, which could not be imported ({fault}): {INSTALL}."
        )
