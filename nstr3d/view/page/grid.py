"""A compressed shape as GLSL: the page decodes its code (pyramid.js) into a texture of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstr3d.fields.closed.codedpyramid import CodedPyramid
from nstr3d.view.page.shader import FieldCode

SCALE = 64.0  # of the texture's numbers, so that half precision holds small distances
# The weights are those of `nstr3d.fields.closed.pyramid.interpolate`.
GLSL = """
uniform highp sampler3D nodes; // distances times NODE_SCALE at the nodes, z, y, x

float decoded(vec3 x) {
  vec3 scaled = (x + 1.0) * 0.5 * NODE_CELLS, cell = clamp(floor(scaled), 0.0, NODE_CELLS - 1.0);
  vec3 t = scaled - cell, s = t * t, u = s * t;
  vec3 a = 0.5 * (2.0 * s - t - u), b = 0.5 * (2.0 - 5.0 * s + 3.0 * u);
  vec3 c = 0.5 * (t + 4.0 * s - 3.0 * u), d = 0.5 * (u - s);
  bvec3 low = equal(cell, vec3(0)), high = equal(cell, vec3(NODE_CELLS - 1.0));
  vec3 shares[4] = vec3[](
    mix(mix(a, vec3(0), high), b + 2.0 * a, low), mix(mix(b, a, high), c - a, low),
    mix(mix(c, b - d, high), d, low), mix(mix(d, c + 2.0 * d, high), vec3(0), low));
  ivec3 first = clamp(ivec3(cell) - 1, 0, int(NODE_CELLS) - 3);
  float sum = 0.0;
  for (int k = 0; k < 64; k++) {
    ivec3 tap = ivec3(k >> 4, (k >> 2) & 3, k & 3);
    float share = shares[tap.x].x * shares[tap.y].y * shares[tap.z].z;
    sum += share * texelFetch(nodes, (first + tap).zyx, 0).r;
  }
  return sum / NODE_SCALE;
}
"""


def grid_code(field: CodedPyramid) -> FieldCode:
    """The code of a compressed shape, without tables."""
    config, stream = field.config, field.code.tobytes()
    numbers = {"NODE_CELLS": float(config.plan.cells), "NODE_SCALE": SCALE}
    lines = [f"const float {name} = {value!r};" for name, value in numbers.items()]
    names = "root", "depth", "whole", "reach", "finest", "step"
    about: dict[str, Any] = {name: getattr(config, name) for name in names}
    about |= {"bytes": len(stream), "scale": SCALE, "nodes": config.plan.cells + 1}
    glsl, none = "\n".join([*lines, GLSL]), np.zeros((0, 4), np.int16)
    return FieldCode(glsl, none, (), False, stream=stream, about=about)
