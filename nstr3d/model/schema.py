"""Types and ranges of what model files hold, checked by pydantic.

The ranges bound what a file can ask for: a number out of range is refused before it sizes anything.
They are wider than any useful model.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
MOST = 1 << 53  # whole numbers above it are not exact as float64
SIZE, DEPTH, COUNT = (1, 1 << 16), (1, 256), (1, 1 << 31)
RATE, FACTOR = (0.0, 1e6), (1e-9, 1e9)
SHOWN = 60  # characters of a wrong value in a message
# The least and the largest value of each numeric option, by the tag of its class. The numbers in a
# tuple have the range of the tuple.
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "nstr": {
        "hidden": (0, 1 << 16),
        "sharpness": FACTOR,
        "table_rate": RATE,
        "table_decay": RATE,
        "decoder_rate": RATE,
    },
    "level": {
        "resolution": (1, 1 << 12),
        "plain": (0, 1 << 12),
        "order": (1, 2),
        "least_weight": RATE,
    },
    "amplitude-waves": {"count": (1, 1 << 12), "band": RATE},
    "complex-waves": {"count": (1, 1 << 12), "band": RATE},
    "phase-waves": {"count": (1, 1 << 12), "band": RATE, "radians": (-1e6, 1e6)},
    "transport": {"hidden": (0, 1 << 16)},
    "placement": {
        "samples": COUNT,
        "candidates": COUNT,
        "band": RATE,
        "amplitude": RATE,
        "least": RATE,
    },
    "linear-start": {"iterations": COUNT, "samples": COUNT, "ridge": RATE},
    "siren": {
        "width": SIZE,
        "depth": DEPTH,
        "first_omega": FACTOR,
        "hidden_omega": FACTOR,
        "rate": RATE,
    },
    "finer": {"width": SIZE, "depth": DEPTH, "omega": FACTOR, "bias": RATE, "rate": RATE},
    "fourier": {
        "width": SIZE,
        "depth": DEPTH,
        "frequencies": SIZE,
        "deviation": FACTOR,
        "rate": RATE,
    },
    "ngp": {
        "table": (1, 1 << 41),  # rows at most; a level has no more than its nodes
        "levels": DEPTH,
        "features": DEPTH,
        "coarsest": SIZE,
        "finest": (1, 1 << 20),
        "width": SIZE,
        "depth": DEPTH,
        "table_rate": RATE,
        "mlp_rate": RATE,
    },
    "cosines": {"shape": COUNT, "hops": SIZE, "rate": RATE},
    "pyramid": {"cells": (4, 512), "rate": RATE},
    "coded-pyramid": {
        "root": (4, 16),
        "depth": (1, 5),
        "whole": (0, 5),
        "reach": (0, 255),
        "finest": (0, 255),
        "step": (1e-6, 1),
    },
    "training": {
        "steps": COUNT,
        "batch": COUNT,
        "pool": COUNT,
        "warmup": (0, 1 << 31),
        "final_rate": RATE,
        "settle": COUNT,
        "betas": (0, 1),
        "seconds": (0, 1e12),
        "seed": (0, MOST),
    },
}

Coordinates = Annotated[tuple[float, ...], Field(strict=False, min_length=1, max_length=8)]


class FrameSchema(BaseModel):
    """A `nstr3d.types.Frame` in a header."""

    model_config = STRICT
    centre: Coordinates
    scale: float = Field(ge=1e-100, le=1e100)


class BoxSchema(BaseModel):
    """A `nstr3d.types.Box` in a header, with ordered bounds."""

    model_config = STRICT
    lower: Coordinates
    upper: Coordinates

    @model_validator(mode="after")
    def _ordered(self) -> BoxSchema:
        if len(self.lower) != len(self.upper):
            raise ValueError("lower and upper need as many numbers each")
        if any(low > high for low, high in zip(self.lower, self.upper)):
            raise ValueError("lower must not exceed upper")
        return self


class Header(BaseModel):
    """The header of a model file. The config is checked by `nstr3d.model.tags`."""

    model_config = STRICT
    config: Any
    in_dim: int = Field(ge=1, le=8)
    out_dim: int = Field(ge=1, le=1 << 16)
    frame: FrameSchema
    bounds: BoxSchema
    lipschitz: float | None = Field(gt=0)
    steps: int = Field(ge=0, le=MOST)
    seconds: float = Field(ge=0)
    interrupted: bool
    provenance: dict[str, Any]
    colours: Any = None

    @model_validator(mode="after")
    def _same_axes(self) -> Header:
        if self.colours is not None and (self.in_dim, self.out_dim) != (3, 1):
            raise ValueError("colours belong to a shape, from 3 coordinates to 1 distance")
        for name, numbers in (("frame.centre", self.frame.centre), ("bounds", self.bounds.lower)):
            if len(numbers) != self.in_dim:
                raise ValueError(f"{name} needs {self.in_dim} numbers, one for each axis")
        return self


class CompressedHeader(BaseModel):
    """The header of a compressed file (`nstr3d.model.codec`)."""

    model_config = STRICT
    channels: int = Field(ge=1, le=255)
    smooth: int = Field(ge=0, le=1)
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    hops: tuple[Annotated[int, Field(ge=1)], ...]
    step: float = Field(gt=0)
    shrink: tuple[int, ...]
    offset: tuple[float, ...]
    colours: tuple[float, ...]


def check_compressed(data: Any) -> CompressedHeader:
    """The header of a compressed file. Raises ValueError naming the first wrong entry."""
    try:
        return CompressedHeader.model_validate(data)
    except ValidationError as error:
        raise ValueError(first_fault(error, "its header")) from None


def check_header(data: Any) -> Header:
    """The header in the JSON ``data``. Raises ValueError naming the first wrong entry."""
    try:
        return Header.model_validate(data)
    except ValidationError as error:
        raise ValueError(first_fault(error, "its header")) from None


def check_options(kind: type, tag: str, values: Mapping[str, Any]) -> None:
    """Checks the types and ranges of options of the config class ``kind``.

    ``values`` holds decoded options; those that it lacks keep the class's defaults. Raises
    ValueError naming the first option of another type or out of range.
    """
    try:
        _options_of(kind, tag).model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0])
        place = f"its option {kind.__name__}.{name}"
        if fault["type"] in ("greater_than_equal", "less_than_equal", "finite_number"):
            raise ValueError(f"{place} is {_shown(fault['input'])}: {fault['msg']}") from None
        types = {field.name: field.type for field in dataclasses.fields(kind)}
        raise ValueError(f"{place} is not of the type {types[name]}") from None


def check_call(function: Any, values: Mapping[str, Any]) -> None:
    """Checks the types of the arguments ``values`` of ``function`` by its annotations, and that
    they are its arguments. Raises ValueError naming the first wrong one."""
    try:
        _arguments_of(function).model_validate(values)
    except ValidationError as error:
        raise ValueError(first_fault(error, f"its part {function.__name__}")) from None


def first_fault(error: ValidationError, place: str) -> str:
    """A clause on the first fault of data that ``place`` names, without a full stop."""
    fault = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{place} lacks '{path}'"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{place}: {path + ': ' if path else ''}{message}"
    return f"{place}: {path or 'it'} is {_shown(fault['input'])}: {message}"


def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of the ``pairs`` of a JSON object. Raises ValueError for a name that occurs twice."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the name {_shown(name)} occurs twice")
        result[name] = value
    return result


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


@cache
def _options_of(kind: type, tag: str) -> type[BaseModel]:
    """The schema of the options of a config class; no option is required."""
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {
        name: (_ranged(hints[name], RANGES.get(tag, {}).get(name)), None)
        for name in (field.name for field in dataclasses.fields(kind))
    }
    return create_model(kind.__name__, __config__=STRICT, **fields)


@cache
def _arguments_of(function: Any) -> type[BaseModel]:
    """The schema of the arguments of a function of shapes. Starred ones are a tuple."""
    hints, fields = get_type_hints(function), {}
    for name, parameter in inspect.signature(function).parameters.items():
        starred = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        hint: Any = tuple[hints[name], ...] if starred else hints[name]
        fields[name] = (hint, ...)
    return create_model(function.__name__, __config__=STRICT, **fields)


def _ranged(hint: Any, limits: tuple[float, float] | None) -> Any:
    """The type ``hint`` with the range ``limits`` on its numbers."""
    inner = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(_ranged(one, limits) for one in inner)]  # noqa: UP007 made at run time
    if get_origin(hint) is tuple:
        return tuple[tuple(one if one is Ellipsis else _ranged(one, limits) for one in inner)]
    if hint is bool:
        return bool | Annotated[int, Field(ge=0, le=1)]  # code may have passed 0 or 1
    if limits is not None and hint in (int, float):
        return Annotated[hint, Field(ge=limits[0], le=limits[1])]
    return hint
