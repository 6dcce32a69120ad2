"""What an ONNX file says about itself, read without torch and without evaluating it."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nstr3d.system import one_line


def onnx_header(path: Path) -> dict[str, Any]:
    """The ``inputs`` and ``outputs`` of the network at ``path``, name to shape, its number of
    ``parameters``, its ``producer``, and what nstr3d noted: ``bounds``, ``lipschitz`` and
    ``origin``, None in files of other programs.

    Raises ModuleNotFoundError without the package onnx, OSError, and ValueError for other content.
    """
    if find_spec("onnx") is None:
        raise ModuleNotFoundError("ONNX files need onnx: pip install 'nstr3d[export]'")
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
        noted = {entry.key: entry.value for entry in model.metadata_props}
        ours = noted.get("producer") == "nstr3d"
        about = {
            name: json.loads(noted[name]) if ours else None
            for name in ("bounds", "lipschitz", "origin")
        }
    except OSError:
        raise
    except Exception as error:  # protobuf's errors have no common class
        raise ValueError(f"{path} is no usable ONNX model: {one_line(error)}.") from error
    if not model.graph.output:
        raise ValueError(f"{path} is no usable ONNX model: it has no output.")
    sizes = [tensor.dims for tensor in model.graph.initializer]
    return {
        "producer": "nstr3d" if ours else model.producer_name,
        "inputs": {each.name: _shape(each) for each in model.graph.input},
        "outputs": {each.name: _shape(each) for each in model.graph.output},
        "parameters": sum(math.prod(each) for each in sizes),
        **about,
    }


def _shape(value: Any) -> list[str]:
    return [each.dim_param or str(each.dim_value) for each in value.type.tensor_type.shape.dim]
