"""Proven bounds of signed distances over boxes.

Bounds of a fit come from its field (`nstr3d.fields.base.Field.enclose`), those of a primitive from
its value in the middle and its slope of at most 1, and those of a combination from its parts'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from nstr3d.geometry.shapes.combinators import fillet
from nstr3d.geometry.shapes.motions import rotation
from nstr3d.kernels.field.enclosure import HALVES
from nstr3d.sdf import Sdf
from nstr3d.training.fit import Fit
from nstr3d.types import UnprovenError, expect

ROOM = 1e-12  # relative rounding in double precision, with room
FARTHEST = 1e100  # coordinate of a box, whose square is finite
FLATTEST = 100.0  # ratio of an ellipsoid's radii to which its distance is computed
# Primitives whose distance has a slope of at most 1.
EXACT = {
    *("sphere", "torus", "box", "rounded_box", "thin_plate", "capsule", "cylinder"),
    *("ellipsoid", "shells", "gyroid", "gyroid_slab", "bracket"),
}
Arguments = Mapping[str, Any]


def enclose(sdf: Sdf, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Proven lower and upper bounds ``(n,)`` of a signed distance over the boxes from ``lower (n,
    3)`` to ``upper (n, 3)``, in world units.

    The bounds of a fit hold in exact arithmetic and for evaluation in the field's own precision,
    those of others for evaluation in float64. The gap of the bounds of a fit with quadratic levels,
    beyond the range of the distance, falls with the square of the box. Raises TypeError for other
    objects, ValueError for other shapes and for boxes that are not finite or turned inside out, and
    UnprovenError for a signed distance of which nothing is proven: that of a mesh, of another field
    than the default one, or of a function that is not of nstr3d.
    """
    expect(sdf, Sdf, "sdf")
    ends = []
    for name, corner in (("lower", lower), ("upper", upper)):
        expect(corner, np.ndarray, name)
        if corner.ndim != 2 or corner.shape[1] != 3 or corner.dtype.kind not in "iuf":
            raise ValueError(f"{name} must be numbers of the shape (n, 3), not {corner.shape}.")
        ends.append(np.asarray(corner, np.float64))
    low, high = ends
    known = low.shape == high.shape and (np.abs([low, high]) <= FARTHEST).all()
    if not known or not (low <= high).all():
        raise ValueError(
            "lower and upper must be corners of finite boxes, lower first, at most "
            f"{FARTHEST:g} from the origin."
        )
    halves = enclose_halves(sdf, np.stack([low, low / 2 + high / 2, high], axis=2))
    return halves[:, :, 0].min(axis=1), halves[:, :, 1].max(axis=1)


def enclose_halves(sdf: Sdf, ticks: np.ndarray) -> np.ndarray:
    """Proven bounds, lower and upper, over the eight halves of boxes ``(n, 8, 2)``.

    ``ticks (n, 3, 3)`` float64 are the rising coordinates in world units at which each box begins,
    is cut and ends along each axis. Raises UnprovenError as `enclose` does.
    """
    recipe = sdf.recipe
    if recipe is None or recipe.name not in {"fit", *EXACT, *RULES}:
        what = "it was not made by functions of nstr3d" if recipe is None else f"of {recipe.name}"
        raise UnprovenError(
            f"Nothing is proven of this signed distance: {what}. Bounds are proven for fits of the "
            "default field, for primitives, and for their unions, intersections, differences, "
            "offsets, shells, blends, translations, rotations and even scalings."
        )
    if recipe.name == "fit":
        return _of_fit(recipe.arguments["fit"], ticks)
    if recipe.name in EXACT:
        radii = recipe.arguments.get("radii", (1.0,))
        if max(radii) > FLATTEST * min(radii):
            raise UnprovenError(f"Nothing is proven of an ellipsoid with the radii {radii}.")
        return _of_primitive(sdf, ticks)
    return RULES[recipe.name](recipe.arguments, ticks)


def _of_fit(fit: Fit, ticks: np.ndarray) -> np.ndarray:
    """The bounds of a fit. Outside the unit box, the distance is at least that to the box, and at
    most that to a point of the box and the field's there."""
    unit = (ticks - np.array(fit.frame.centre)[:, None]) / fit.frame.scale
    inner = unit.clip(-1, 1)
    single = inner.astype(np.float32)
    step = np.float32(2.0**-22)  # more than the rounding of a number in [-1, 1]
    single[:, :, 0] = (single[:, :, 0] - step).clip(-1, 1)
    single[:, :, 2] = (single[:, :, 2] + step).clip(-1, 1)
    bounds = fit.field.enclose(single)
    outside = (unit < -1) | (unit > 1)
    if outside.any():
        rows = np.flatnonzero(outside.any(axis=(1, 2)))
        bounds[rows] = _beyond(bounds[rows], unit[rows])
    return _rounded(bounds * fit.frame.scale)


def _beyond(bounds: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Bounds of halves of which a part may lie outside the unit box."""
    found = bounds.copy()
    for index, (low, high) in enumerate(_halves(unit)):
        near = np.maximum(np.maximum(low - 1, -1 - high), 0)
        far = np.maximum(np.maximum(high - 1, -1 - low), 0)
        away, out = np.linalg.norm(near, axis=1), far.any(axis=1)
        below = np.where(away > 0, away, np.minimum(bounds[:, index, 0], 0))
        above = np.maximum(bounds[:, index, 1], 0) + np.linalg.norm(far, axis=1)
        found[out, index, 0], found[out, index, 1] = below[out], above[out]
    return found


def _of_primitive(sdf: Sdf, ticks: np.ndarray) -> np.ndarray:
    low, high = (np.stack(ends, axis=1) for ends in zip(*_halves(ticks)))
    value = sdf((low / 2 + high / 2).reshape(-1, 3)).reshape(len(ticks), len(HALVES))
    reach = max(sdf.lipschitz, 1.0) * np.linalg.norm(high / 2 - low / 2, axis=2)
    reach += ROOM * np.linalg.norm(np.maximum(np.abs(low), np.abs(high)), axis=2)
    return _rounded(np.stack([value - reach, value + reach], axis=2))


def _halves(ticks: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The lower and the upper corners ``(n, 3)`` of each of the eight halves."""
    axes = np.arange(3)
    return [(ticks[:, axes, np.array(half)], ticks[:, axes, np.array(half) + 1]) for half in HALVES]


def _rounded(bounds: np.ndarray) -> np.ndarray:
    """Bounds moved apart by what double precision may have rounded."""
    room = ROOM * np.abs(bounds).max(axis=-1)
    return np.stack([bounds[..., 0] - room, bounds[..., 1] + room], axis=-1)


def _parts(arguments: Arguments, ticks: np.ndarray) -> list[np.ndarray]:
    """The bounds of the parts of a combination. A cut is turned inside out."""
    if "parts" in arguments:
        return [enclose_halves(part, ticks) for part in arguments["parts"]]
    cuts = [-enclose_halves(cut, ticks)[..., ::-1] for cut in arguments["cuts"]]
    return [enclose_halves(arguments["whole"], ticks), *cuts]


# Smooth combinations rise with the distance of each part, so their bounds are those of bounds.
def _least(arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    return _folded(np.minimum, -1, arguments, ticks)


def _largest(arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    return _folded(np.maximum, 1, arguments, ticks)


def _folded(choose: Callable, side: int, arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    first, *others = _parts(arguments, ticks)
    for other in others:
        gap = np.abs(first - other)
        first = choose(first, other)
        if "k" in arguments:
            blended = fillet(torch.from_numpy(gap), float(arguments["k"])).numpy()
            first = first + side * blended
    return _rounded(first)


def _offset(arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    return _rounded(enclose_halves(arguments["shape"], ticks) - float(arguments["distance"]))


def _shell(arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    half = arguments["thickness"] / 2
    low, high = np.moveaxis(enclose_halves(arguments["shape"], ticks) + half, -1, 0)
    least = np.where((low <= 0) & (high >= 0), 0, np.minimum(np.abs(low), np.abs(high)))
    return _rounded(np.stack([least, np.maximum(np.abs(low), np.abs(high))], axis=-1) - half)


def _blend(arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    share = float(arguments["share"])
    first, second = (enclose_halves(arguments[name], ticks) for name in ("first", "second"))
    return _rounded((1 - share) * first + share * second)


def _translate(arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    return enclose_halves(arguments["shape"], ticks - np.array(arguments["offset"])[:, None])


def _scale(arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    factors = np.broadcast_to(np.asarray(arguments["factor"], np.float64), 3)
    if factors.min() != factors.max():
        raise UnprovenError(
            "Nothing is proven of a shape that is scaled by three different factors."
        )
    return _rounded(enclose_halves(arguments["shape"], ticks / factors[0]) * factors[0])


def _rotate(arguments: Arguments, ticks: np.ndarray) -> np.ndarray:
    """The bounds over the boxes around the turned halves."""
    back = rotation(arguments["axis"], arguments["degrees"]).T
    bounds = []
    for low, high in _halves(ticks):
        middle, reach = (low / 2 + high / 2) @ back.T, (high / 2 - low / 2) @ np.abs(back).T
        reach += ROOM * np.maximum(np.abs(low), np.abs(high)) @ np.abs(back).T
        turned = np.stack([middle - reach, middle, middle + reach], axis=2)
        found = enclose_halves(arguments["shape"], turned)
        bounds.append(np.stack([found[..., 0].min(axis=1), found[..., 1].max(axis=1)], axis=1))
    return np.stack(bounds, axis=1)


RULES: dict[str, Callable[[Arguments, np.ndarray], np.ndarray]] = {
    "union": _least,
    "smooth_union": _least,
    "intersection": _largest,
    "smooth_intersection": _largest,
    "difference": _largest,
    "smooth_difference": _largest,
    "offset": _offset,
    "shell": _shell,
    "blend": _blend,
    "translate": _translate,
    "scale": _scale,
    "rotate": _rotate,
}
