"""Meshes as MJCF, the scene format of the simulator MuJoCo (https://mujoco.readthedocs.io)."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

import numpy as np

from nstr3d.types import Mesh

MODEL = """<mujoco model={name}>
  <asset>
    <mesh name={name} inertia="exact" vertex="{vertices}" face="{faces}"/>
  </asset>
  <worldbody>
    <body name={name} pos="{place}">
      <freejoint/>
      <geom name={name} type="sdf" mesh={name}/>
    </body>
  </worldbody>
</mujoco>
"""


def encode_mjcf(mesh: Mesh, name: str) -> bytes:
    """An MJCF model of a free rigid body with the shape of a closed ``mesh``.

    The geom has the type ``sdf``: from version 3.3.5 on, MuJoCo samples the signed distance of the
    mesh in an octree, so that holes and hollows take part in collisions. Lengths keep their units,
    which MuJoCo takes for metres, and the density is MuJoCo's default. The body stands where the
    mesh does. Vertices are relative to the middle of the mesh, since MuJoCo reads them in single
    precision.
    """
    middle = mesh.bounds.centre
    return MODEL.format(
        name=quoteattr(name),
        vertices=_numbers(mesh.vertices - middle, "%.7g"),
        faces=_numbers(mesh.faces, "%d"),
        place=_numbers(middle, "%.17g"),
    ).encode()


def _numbers(values: np.ndarray, form: str) -> str:
    return " ".join(form % value for value in values.ravel().tolist())
