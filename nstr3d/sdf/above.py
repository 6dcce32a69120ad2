"""The one place where a signed distance reaches the packages above it."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def above(name: str) -> Any:
    """The module ``nstr3d.NAME`` of a higher layer, which only a call imports."""
    return import_module(f"nstr3d.{name}")
