"""Files of combinations: a tree of functions of `nstr3d.geometry.shapes` over fits and primitives.

A file is safetensors. Its metadata hold the tree as JSON and the headers of the fits, its tensors
the weights of all fits. A node of the tree is ``{"tag": "union", "parts": [...]}``: the tag of a
function and its arguments. Reading imports no name from a file: tags are looked up in SHAPES, and
arguments are checked by the types of the function's own and by the function. The size, the depth
and the cost of a tree are limited.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nstr3d.geometry.shapes import primitives
from nstr3d.geometry.shapes.motions import reach
from nstr3d.model.checkpoint import UNFIT, fit_of, header_of, load, weights_of
from nstr3d.model.container import Contents, check_contents, read_container, write_container
from nstr3d.model.header import FORMAT, TEXT, TREE, read_tree
from nstr3d.sdf import Sdf
from nstr3d.system import one_line
from nstr3d.training.fit import Fit
from nstr3d.types import Up, expect

TAG, MODEL, FIT = "tag", "model", "fit"
# The tags of files. A function may move or be renamed, but its tag must stay.
SHAPES: dict[str, Callable[..., Sdf]] = {
    "sphere": primitives.sphere,
    "torus": primitives.torus,
    "box": primitives.box,
    "rounded_box": primitives.rounded_box,
    "thin_plate": primitives.thin_plate,
    "capsule": primitives.capsule,
    "cylinder": primitives.cylinder,
    "ellipsoid": primitives.ellipsoid,
    "shells": primitives.shells,
    "gyroid": primitives.gyroid,
    "gyroid_slab": primitives.gyroid_slab,
    "bracket": primitives.bracket,
    "union": primitives.union,
    "intersection": primitives.intersection,
    "difference": primitives.difference,
    "smooth_union": primitives.smooth_union,
    "smooth_intersection": primitives.smooth_intersection,
    "smooth_difference": primitives.smooth_difference,
    "offset": primitives.offset,
    "shell": primitives.shell,
    "blend": primitives.blend,
    "translate": primitives.translate,
    "rotate": primitives.rotate,
    "scale": primitives.scale,
    "repeat": primitives.repeat,
}
STARRED = {"parts", "cuts"}  # arguments that are passed one by one
DEEPEST, MOST_NODES = 64, 1024
MOST_COST = 4096  # evaluations of fits and primitives at a point
MOST_WHOLE = 1 << 53  # number that a float holds
LARGEST = 1e60  # coordinate of the bounds of a part


def save_sdf(path: str | os.PathLike[str], sdf: Sdf, up: Up | None = None) -> None:
    """Writes a fit's signed distance, a primitive, or a combination of them to one file,
    atomically.

    The file notes for every fit that the axis ``up`` points up, by default what the fit notes.
    Raises TypeError for another object, OSError if the file cannot be written, and ValueError if a
    part was made by other functions than those of nstr3d, such as `displace`, if the tree is too
    large, or if a fit could not be loaded again.
    """
    expect(sdf, Sdf, "sdf")
    fits: list[Fit] = []
    try:
        tree = _encode(sdf, fits, [0], 0)
        headers = [header_of(_standing(fit, up)) for fit in fits]
        text = {"tree": tree, "fits": headers}
    except ValueError as error:
        raise ValueError(f"{path} was not written: {one_line(error).rstrip('.')}.") from None
    tensors = {  # copies, since two fits of one field would share them
        f"{number}/{name}": tensor.clone()
        for number, fit in enumerate(fits)
        for name, tensor in weights_of(fit).items()
    }
    write_container(
        path, Contents({FORMAT: TREE, TEXT: json.dumps(text, allow_nan=False)}, tensors)
    )


def load_sdf(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Sdf:
    """The signed distance that `save_sdf` wrote, or that of a model of a shape.

    Raises FileNotFoundError, IsADirectoryError, and ValueError naming the file and the fault, as
    `nstr3d.load` does.
    """
    path = Path(path)
    if path.suffix.lower() == ".nstq" or read_tree(path) is None:
        return load(path, device).sdf()
    contents = read_container(path)
    try:
        check_contents(contents)
        return _decode_file(contents, device)
    except UNFIT as error:
        reason = one_line(error)[:400].rstrip(".")
        raise ValueError(f"{path} is not a usable nstr3d model: {reason}.") from error


def fits_of(part: Any) -> list[Fit]:
    """The fits of which a signed distance is made, from left to right, some of them repeated."""
    if isinstance(part, Fit):
        return [part]
    if isinstance(part, Sdf) and part.recipe:
        part = tuple(part.recipe.arguments.values())
    return [fit for each in part for fit in fits_of(each)] if isinstance(part, tuple) else []


def up_of(sdf: Sdf) -> Up:
    """The axis that points up, as the first fit of ``sdf`` notes it; y without a fit."""
    fits = fits_of(sdf)
    return fits[0].up if fits else "y"


def _standing(fit: Fit, up: Up | None) -> Fit:
    return replace(fit, provenance={**fit.provenance, "up": up}) if up else fit


def _encode(value: Any, fits: list[Fit], count: list[int], depth: int) -> Any:
    """JSON data of an argument: a number, a tuple, or a signed distance."""
    if isinstance(value, tuple | list | np.ndarray):
        return [_encode(each, fits, count, depth) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    recipe = value.recipe if isinstance(value, Sdf) else None
    if recipe is None or recipe.name not in {FIT, *SHAPES}:
        raise ValueError(
            "a part of it is neither a fit nor made by the functions of nstr3d that have tags"
        )
    count[0] += 1
    if count[0] > MOST_NODES or depth >= DEEPEST:
        raise ValueError(f"it has more than {MOST_NODES} parts or is deeper than {DEEPEST}")
    if recipe.name == FIT:
        fit = recipe.arguments[FIT]
        if not any(each is fit for each in fits):
            fits.append(fit)
        return {TAG: FIT, MODEL: next(i for i, each in enumerate(fits) if each is fit)}
    items = recipe.arguments.items()
    return {TAG: recipe.name} | {
        name: _encode(each, fits, count, depth + 1) for name, each in items
    }


def _decode_file(contents: Contents, device: torch.device | str) -> Sdf:
    from nstr3d.model.schema import unique

    data = json.loads(contents.metadata.get(TEXT, ""), object_pairs_hook=unique)
    if not isinstance(data, dict) or data.keys() != {"tree", "fits"}:
        raise ValueError("its header needs the entries 'tree' and 'fits', and no other")
    headers = data["fits"]
    if not isinstance(headers, list) or len(headers) > MOST_NODES:
        raise ValueError(f"its entry 'fits' must be a list of at most {MOST_NODES}")
    weights: list[dict[str, torch.Tensor]] = [{} for _ in headers]
    for name, tensor in contents.tensors.items():
        number, _, rest = name.partition("/")
        if not number.isdecimal() or int(number) >= len(headers):
            raise ValueError(f"tensor {name[:60]} does not belong to it")
        weights[int(number)][rest] = tensor
    fits = [fit_of(header, tensors, device, ()) for header, tensors in zip(headers, weights)]
    sdf, cost = _Decoder(fits).node(data["tree"], 0)
    if cost > MOST_COST:
        raise ValueError(f"it takes {cost:,} evaluations at a point and may take {MOST_COST:,}")
    return sdf


class _Decoder:
    """Builds signed distances of nodes; counts the nodes."""

    def __init__(self, fits: list[Fit]) -> None:
        self.fits, self.count = fits, 0

    def node(self, data: Any, depth: int) -> tuple[Sdf, int]:
        """The signed distance of a node and how many evaluations of leaves it takes at a point."""
        self.count += 1
        if self.count > MOST_NODES or depth > DEEPEST:
            raise ValueError(f"it has more than {MOST_NODES} parts or is deeper than {DEEPEST}")
        if not isinstance(data, dict) or not isinstance(data.get(TAG), str):
            raise ValueError("a part of it has no tag")
        tag = data[TAG]
        if tag == FIT:
            return self._fit(data), 1
        if tag not in SHAPES:
            raise ValueError(f"its tag {tag[:60]!r} is unknown here; update nstr3d")
        inner = {name: self._argument(each, depth) for name, each in data.items() if name != TAG}
        values = {name: value for name, (value, _) in inner.items()}
        cost = sum(cost for _, cost in inner.values()) or 1
        made = _made(tag, values)
        size = np.abs([made.bounds.lower, made.bounds.upper]).max()
        if not (size <= LARGEST and made.bounds.diagonal >= 1 / LARGEST):
            raise ValueError(f"its part {tag} is larger than {LARGEST:g}, or smaller than 1 / that")
        if tag == "repeat":
            cost *= math.prod(reach(values["shape"], values["period"], values["counts"]))
        return made, min(cost, MOST_COST + 1)

    def _fit(self, data: Mapping[str, Any]) -> Sdf:
        number = data.get(MODEL)
        known = type(number) is int and 0 <= number < len(self.fits)
        if data.keys() != {TAG, MODEL} or not known:
            raise ValueError(f"its part {FIT} must name one of its {len(self.fits)} models")
        return self.fits[number].sdf()  # type: ignore[index]

    def _argument(self, data: Any, depth: int) -> tuple[Any, int]:
        if isinstance(data, dict):
            return self.node(data, depth + 1)
        if isinstance(data, list):
            parts = [self._argument(each, depth + 1) for each in data[: MOST_NODES + 1]]
            if depth > DEEPEST or len(parts) > MOST_NODES:
                raise ValueError(f"a list in it has more than {MOST_NODES} entries or is too deep")
            return tuple(value for value, _ in parts), sum(cost for _, cost in parts)
        if isinstance(data, int) and abs(data) > MOST_WHOLE:
            raise ValueError(f"its number {str(data)[:20]} is larger than 2^53")
        return data, 0


def _made(tag: str, values: dict[str, Any]) -> Sdf:
    """The signed distance that the function of ``tag`` makes of arguments, which it checks."""
    from nstr3d.model.schema import check_call

    function = SHAPES[tag]
    check_call(function, values)
    starred = [name for name in values if name in STARRED]
    before = [values[name] for name in ("whole",) if starred and name in values]
    rest = {name: each for name, each in values.items() if name not in {"whole", *starred}}
    if not starred:
        return function(**values)
    return function(*before, *values[starred[0]], **rest)
