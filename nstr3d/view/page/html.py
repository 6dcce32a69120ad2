"""A fit as one HTML page that sphere traces the field, without a mesh, a server or a network."""

from __future__ import annotations

import base64
import json
import math
import zlib
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.closed.codedpyramid import CodedPyramid
from nstr3d.io.meshformats import CLAY
from nstr3d.render.camera import MARGIN, Camera
from nstr3d.render.colours import GAMMA, VIRIDIS
from nstr3d.render.drawing import BEFORE
from nstr3d.render.frequency import frequency_range
from nstr3d.render.shading import Studio
from nstr3d.render.traced import Backdrop
from nstr3d.sdf import from_field
from nstr3d.surface.trace import MARGIN as SLACK
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame, Up
from nstr3d.view.page.curves import LineCode, line_code
from nstr3d.view.page.grid import grid_code
from nstr3d.view.page.shader import WIDTH, FieldCode, field_code
from nstr3d.view.page.template import fill
from nstr3d.view.scene import Curves

CELLS = 64  # cells along the longest side of the coarse grid
# Limits of the level: a fraction of the largest depth inside, and a fraction of the diagonal.
DEEPEST, HIGHEST = 0.8, 0.08
STEPS = 96  # largest number of evaluations of a ray up to the surface
CONTOURS = 50  # approximate number of a slice's contour lines along the diagonal
SCRIPTS = "orbit.js", "tracer.js", "lines.js", "main.js"
PROBES = 1 << 17  # points at which the coarse grid's error is measured


def page_html(
    fit: Fit,
    title: str,
    level: float = 0.0,
    curves: Curves | None = None,
    up: Up = "y",
    view: tuple[float, float] = (30.0, 15.0),
) -> str:
    """The HTML page of ``fit``.

    The page starts with the surface at distance ``level``, in world units, and shows ``curves``
    where the surface does not hide them. The axis ``up`` points up, and ``view`` is the azimuth and
    the elevation of the first view in degrees, as `Camera.around` takes them. Raises the
    ValueErrors of `field_code` and `line_code`, and ValueError for distances that are not finite
    and for a level outside the page's range.
    """
    if isinstance(fit.field, CodedPyramid) and fit.colour_field is None:
        code = grid_code(fit.field)
    else:
        code = field_code(fit.field, fit.colour_field)
    drawn = line_code(fit, curves) if curves else None
    unit = Box(
        *(
            tuple(fit.frame.to_unit(np.array([corner]))[0].tolist())
            for corner in (fit.bounds.lower, fit.bounds.upper)
        )
    )
    coarse = _Coarse(fit, unit)
    levels = (
        DEEPEST * min(coarse.lowest, 0.0) * fit.frame.scale,
        HIGHEST * unit.diagonal * fit.frame.scale,
    )
    if not levels[0] <= level <= levels[1]:
        raise ValueError(
            f"The page shows levels between {levels[0]:.4g} and {levels[1]:.4g} of this model, "
            f"not {level:g}."
        )
    model = _model(fit, unit, code, coarse, drawn, level, levels)
    model["camera"] = {"azimuth": view[0], "elevation": view[1], "fov": 35.0}
    model["turn"] = _upright(up).tolist()
    return fill(
        _text("page.html"),
        title=title,
        css=_text("page.css"),
        facts=_facts(fit, code),
        model=json.dumps(model, allow_nan=False),
        data=base64.b64encode(zlib.compress(_payload(code, coarse, drawn), 9)).decode("ascii"),
        shader=_shader(fit, code, coarse, unit, up),
        scripts="\n".join(map(_text, [*(["pyramid.js"] if code.stream else []), *SCRIPTS])),
    )


def _facts(fit: Fit, code: FieldCode) -> str:
    if code.stream:
        return f"{len(code.stream):,} bytes, decoded here and sphere traced: no mesh."
    return f"{_parameters(fit):,} parameters, sphere traced as they are: no mesh."


def _parameters(fit: Fit) -> int:
    return fit.field.parameter_count + (fit.colour_field.parameter_count if fit.colour_field else 0)


def _model(
    fit: Fit,
    unit: Box,
    code: FieldCode,
    coarse: _Coarse,
    drawn: LineCode | None,
    level: float,
    levels: tuple[float, float],
) -> dict[str, Any]:
    """What main.js knows of the model, but for the camera."""
    return {
        "parameters": None if code.stream else _parameters(fit),
        "pyramid": code.about,
        "centre": fit.frame.centre,
        "scale": fit.frame.scale,
        "lower": unit.lower,
        "upper": unit.upper,
        "slack": SLACK * unit.diagonal,
        "margin": MARGIN,
        "level": level,
        "levels": levels,
        "steps": STEPS,
        "width": WIDTH,
        "entries": code.texels.size,
        "bitmaps": [len(stored) for stored in code.bitmaps],
        "grid": {
            "origin": coarse.origin,
            "cell": coarse.cell,
            "shape": coarse.shape,
            "reach": coarse.reach,
        },
        "key": _unit(Studio().key.direction),
        "frequencies": frequency_range(fit) if code.frequency else None,
        "lines": drawn and {**drawn.about, "slack": BEFORE * unit.diagonal},
        "colours": [f"rgb({', '.join(str(round(255 * c)) for c in colour)})" for colour in VIRIDIS],
    }


class _Coarse:
    """Signed distances at the cell centres of a coarse grid over everything that the page can show.

    ``codes (z, y, x)`` are uint8; lengths are in unit-box units. The code of a distance d is
    128 + 127 sign(d) sqrt(|d| / reach), whose resolution is finest near the surface. ``error`` is
    the margin by which interpolation between the centres may exceed the distance.
    """

    def __init__(self, fit: Fit, unit: Box) -> None:
        self.sdf = from_field(fit.field, Frame.identity(), unit, fit.lipschitz)
        grow = (SLACK + HIGHEST) * unit.diagonal
        extent = unit.extent + 2 * grow
        self.cell = float(extent.max()) / CELLS
        self.shape = [int(count) for count in np.ceil(extent / self.cell - 1e-6)]
        self.origin = (unit.lower - np.array(grow)).tolist()
        self.device = next(fit.field.parameters()).device
        axes = [torch.arange(count, dtype=torch.float64) + 0.5 for count in self.shape]
        z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        values = self._distance(torch.stack([x, y, z], dim=-1).reshape(-1, 3))
        if not bool(torch.isfinite(values).all()):
            raise ValueError("The model's distances are not finite; fit it again.")
        self.lowest, self.reach = float(values.min()), float(values.abs().max())
        signed = values.sign() * (values.abs() / self.reach).sqrt()
        self.codes = (
            (128 + 127 * signed).round().to(torch.uint8).reshape(*self.shape[::-1]).cpu().numpy()
        )
        self.error = self._error()

    def _distance(self, cells: Tensor) -> Tensor:
        """Signed distances ``(n,)`` at points ``(n, 3)`` in cells from the grid's lower corner."""
        with torch.no_grad():
            return self.sdf(
                (cells * self.cell + torch.tensor(self.origin, dtype=torch.float64)).to(self.device)
            ).cpu()

    def _error(self) -> float:
        """The largest excess of interpolation between cell centres over the distance at random
        points, plus a margin of 0.05 cells."""
        fractions = torch.rand(
            PROBES, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        code = (torch.from_numpy(self.codes).double() - 128) / 127
        values = code.sign() * code.square() * self.reach
        interpolated = torch.nn.functional.grid_sample(
            values[None, None],
            (2 * fractions - 1).view(1, 1, 1, -1, 3),
            padding_mode="border",
            align_corners=False,
        )
        excess = interpolated.reshape(-1) - self._distance(
            fractions * torch.tensor(self.shape, dtype=torch.float64)
        )
        return max(float(excess.max()), 0.0) + 0.05 * self.cell


def _payload(code: FieldCode, coarse: _Coarse, drawn: LineCode | None) -> bytes:
    """The numbers in the order in which main.js reads them. All high bytes of the tables precede
    the low bytes, because this order deflates better."""
    entries = code.texels.astype("<i2").reshape(-1).view(np.uint8).reshape(-1, 2)
    bitmaps = [np.packbits(stored).tobytes() for stored in code.bitmaps]
    parts = [entries[:, 1].tobytes(), entries[:, 0].tobytes(), *bitmaps, coarse.codes.tobytes()]
    return b"".join([*parts, code.stream, drawn.data if drawn else b""])


def _upright(up: Up) -> np.ndarray:
    """Rows: right, up and backward of the view at azimuth and elevation 0."""
    return Camera.around(Box((-1.0,) * 3, (1.0,) * 3), 0.0, 0.0, up=up).axes


def _shader(fit: Fit, code: FieldCode, coarse: _Coarse, unit: Box, up: Up) -> str:
    """The complete fragment shader: constants, the generated field, and the tracer."""
    studio, backdrop = Studio(), Backdrop()
    diagonal, scale = unit.diagonal, fit.frame.scale
    numbers = {
        "LIPSCHITZ": max(1.0, fit.lipschitz if math.isfinite(fit.lipschitz) else 1.0),
        "COARSE_CELL": coarse.cell,
        "COARSE_ERROR": coarse.error,
        "DIAGONAL": diagonal,
        "ACCURACY": 1e-5 * diagonal,
        "TAP": 2e-4 * diagonal,
        "SPACING": _round(diagonal * scale / CONTOURS) / scale,
        "OCCLUSION_REACH": studio.occlusion_reach * diagonal,
        "SHADOW_SOFTNESS": studio.shadow_softness,
        "GLOSS": studio.gloss,
        "GAMMA": GAMMA,
    }
    vectors = {
        "COARSE_LOWER": coarse.origin,
        "COARSE_EXTENT": [count * coarse.cell for count in coarse.shape],
        "UP": _upright(up)[1],
        "ALBEDO": CLAY,
        "SKY": studio.sky,
        "GROUND": studio.ground,
        "KEY_COLOUR": studio.key.colour,
        "FILL": studio.fill.direction,
        "FILL_COLOUR": studio.fill.colour,
        "RIM": studio.rim.direction,
        "RIM_COLOUR": studio.rim.colour,
        "MIDDLE": backdrop.middle,
        "CORNERS": backdrop.corners,
    }
    whole = {
        "WIDTH": WIDTH,
        "BITS": WIDTH.bit_length() - 1,
        "OCCLUSION_TAPS": studio.occlusion_taps,
        "SHADOW_STEPS": studio.shadow_steps,
    }
    lines = [
        "#version 300 es",
        *(["#define FREQUENCY"] if code.frequency else []),
        *(["#define COLOURED"] if code.coloured else []),
        "precision highp float;",
        "precision highp int;",
        *(f"const int {name} = {value};" for name, value in whole.items()),
        *(f"const float {name} = {float(value)!r};" for name, value in numbers.items()),
        *(f"const vec3 {name} = {_vec3(value)};" for name, value in vectors.items()),
        f"const vec3 VIRIDIS[{len(VIRIDIS)}] = vec3[]({', '.join(map(_vec3, VIRIDIS))});",
    ]
    return "\n".join([*lines, _text("field.glsl"), code.glsl, _text("trace.glsl")])


def _vec3(value: Any) -> str:
    return f"vec3({', '.join(repr(float(part)) for part in value)})"


def _unit(vector: tuple[float, float, float]) -> list[float]:
    return (np.array(vector) / np.linalg.norm(vector)).tolist()


def _round(value: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten on a logarithmic scale."""
    power = 10.0 ** math.floor(math.log10(value))
    return min(
        (step * power for step in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / value))
    )


def _text(name: str) -> str:
    return (files("nstr3d.view.page") / name).read_text(encoding="utf-8")
