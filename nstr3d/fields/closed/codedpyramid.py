"""A field on a grid that is saved as the code from which the grid was decoded.

The grid of a compressed shape takes up to 68 MB, its code some kilobytes. Files of any kind that
hold the field therefore hold the code (`nstr3d.kernels.pyramidwalk`), which is decoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.closed.pyramid import Pyramid, PyramidConfig
from nstr3d.fields.vicinity import Near
from nstr3d.kernels.available import need_numba
from nstr3d.kernels.pyramidwalk import Plan, decode

CODED = "Compressed shapes"  # the feature that needs numba
STEP = (1e-6, 1.0)  # range of the quantisation step
CODE = "code"  # the name of the only tensor that is saved


@dataclass(frozen=True)
class CodedConfig:
    """The grids of a coded pyramid, see `nstr3d.kernels.pyramidwalk.Plan`, and the quantisation
    ``step`` in the unit box. Raises ValueError for grids out of range."""

    root: int
    depth: int
    whole: int
    reach: int
    finest: int
    step: float

    def __post_init__(self):
        if fault := self.plan.fault:
            raise ValueError(f"{fault[0].upper()}{fault[1:]}.")
        if not STEP[0] <= self.step <= STEP[1]:
            raise ValueError(f"The step of a coded pyramid is {STEP[0]} to {STEP[1]}.")

    @property
    def plan(self) -> Plan:
        """The grids."""
        return Plan(self.root, self.depth, self.whole, self.reach, self.finest)

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: Near | None = None,
        generator: torch.Generator | None = None,
    ) -> CodedPyramid:
        """Raises ValueError: the field is made from a code (`coded`)."""
        raise ValueError("A coded pyramid is decoded from its code, not built.")

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> CodedPyramid:
        """The field whose code is among the saved ``tensors``. Raises ValueError for a code that
        does not hold the grid, and ModuleNotFoundError if numba is missing."""
        code = tensors.get(CODE)
        if code is None or code.dtype != torch.uint8 or code.ndim != 1:
            raise ValueError(f"tensor {CODE} is missing or holds no bytes")
        if (in_dim, out_dim) != (3, 1):
            raise ValueError(
                f"a grid maps three dimensions to one value, not {in_dim} to {out_dim}"
            )
        with torch.device("cpu"):
            return coded(self, code.numpy())


class CodedPyramid(Pyramid):
    """A `Pyramid` with the ``code (m,)`` uint8 that it was decoded from. It is not to be trained.

    Its state is the code alone.
    """

    def __init__(self, config: CodedConfig, nodes: Tensor, code: np.ndarray):
        super().__init__(PyramidConfig(config.plan.cells), 3, 1, nodes)
        self.config, self.code = config, code
        self.nodes.requires_grad_(False)

    @property
    def plain(self) -> Pyramid:
        """The field without its code, on the same nodes."""
        return Pyramid(PyramidConfig(self.config.plan.cells), 3, 1, self.nodes)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.nodes.requires_grad:
            raise ValueError(
                "The nodes of a compressed shape were to be trained, and its code does not hold "
                "what they learn; save the field as its property plain."
            )
        destination[prefix + CODE] = torch.from_numpy(self.code)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        code = state_dict.get(prefix + CODE)
        if code is None or not np.array_equal(code.cpu().numpy(), self.code):
            error_msgs.append("a coded pyramid holds one code; restore another from its config")


def coded(config: CodedConfig, code: np.ndarray, nodes: np.ndarray | None = None) -> CodedPyramid:
    """The field of ``code (m,)`` uint8; ``nodes (n, n, n)`` float32 are its nodes if they are
    known. Raises ValueError, with a clause, for a code that does not hold the grid, and
    ModuleNotFoundError if numba is missing."""
    need_numba(CODED)
    if nodes is None:
        nodes = decode(config.plan, config.step, code)
    return CodedPyramid(config, torch.from_numpy(nodes), code)
