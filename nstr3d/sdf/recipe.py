"""`Recipe`, how a signed distance was made: what saving it writes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, cast

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
        return replace(made, recipe=Recipe(function.__name__, dict(bound.arguments)))

    return cast(Callable[P, Any], make)
