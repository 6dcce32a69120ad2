"""`Recipe`, how a signed distance was made: what saving it writes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, cast

import numpy as np

P = ParamSpec("P")


@dataclass(frozen=True)
class Recipe:
    """The ``name`` of the function that made a signed distance, and its ``arguments`` by name:
    numbers, tuples of numbers, signed distances and tuples of them, and for the name "fit" a
    `nstr3d.training.fit.Fit`."""

    name: str
    arguments: Mapping[str, Any]


def recorded(function: Callable[P, Any]) -> Callable[P, Any]:
    """``function``, which makes a signed distance, with the call noted as its ``recipe``."""
    signature = inspect.signature(function)

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Any:
        made = function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {name: _fixed(value) for name, value in bound.arguments.items()}
        return replace(made, recipe=Recipe(function.__name__, arguments))

    return cast(Callable[P, Any], make)


def _fixed(value: Any) -> Any:
    """Lists and arrays as tuples, since a caller may change them later."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(map(_fixed, value)) if isinstance(value, (list, tuple)) else value
