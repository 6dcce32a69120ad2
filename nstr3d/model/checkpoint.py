"""Model files: one safetensors file of weights whose metadata hold the config, frame and provenance
as JSON.

Reading a file unpickles nothing and imports no name from the file. A config is written as its tag
and fields (`nstr3d.model.tags`). It is read into a class of the table of tags or into a class that
the caller passes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.io.atomic import atomic_path
from nstr3d.model.tags import OTHER_VERSION, decode_config, encode_config, option_names
from nstr3d.system import one_line
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame

FORMAT = "nstr3d-2"
# Formats that can be read. In nstr3d-1, configs have import paths instead of tags.
READ = "nstr3d-1", FORMAT
TRAINING = "training/"  # prefix of the optimiser's tensors in a resumable checkpoint


def save(
    path: str | os.PathLike[str], fit: Fit, training: Mapping[str, Tensor] | None = None
) -> None:
    """Writes ``fit`` to one file, atomically. With ``training``, a `training_state`, the run can be
    resumed from the file. Raises OSError if the file cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in fit.field.state_dict().items()
    }
    tensors |= {
        TRAINING + name: tensor.detach().cpu().contiguous()
        for name, tensor in (training or {}).items()
    }
    header = {
        "config": encode_config(fit.field.config),
        "in_dim": fit.field.in_dim,
        "out_dim": fit.field.out_dim,
        "frame": dataclasses.asdict(fit.frame),
        "bounds": dataclasses.asdict(fit.bounds),
        "lipschitz": fit.lipschitz if math.isfinite(fit.lipschitz) else None,
        "steps": fit.steps,
        "seconds": fit.seconds,
        "interrupted": fit.interrupted,
        "provenance": dict(fit.provenance),
    }
    # The padding makes the file's length independent of the digits of the seconds.
    text = json.dumps(header, allow_nan=False) + " " * (24 - len(json.dumps(fit.seconds)))
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, {"format": FORMAT, "nstr3d": text})
        except SafetensorError as error:  # wraps errors of the system, such as a full disk
            raise OSError(str(error)) from error


def load(
    path: str | os.PathLike[str], device: torch.device | str = "cpu", configs: Sequence[type] = ()
) -> Fit:
    """The `Fit` that `save` of this or an earlier version wrote, bit for bit, on ``device``.

    ``configs`` lists config classes from outside nstr3d that the file may use. Raises
    FileNotFoundError, IsADirectoryError, and ValueError naming the file and the fault if the file
    is not safetensors, is truncated, is from another program or a newer version, or has tensors
    that do not fit its config.
    """
    return load_training(path, device, configs)[0]


def load_training(
    path: str | os.PathLike[str], device: torch.device | str = "cpu", configs: Sequence[type] = ()
) -> tuple[Fit, dict[str, Tensor]]:
    """The fit of `load` and the training state in the file (empty for a finished model).

    Raises the errors of `load`, and ValueError if the file has a training state but its config
    lacks an option of this version.
    """
    text, tensors = _read(Path(path))
    training = {
        name.removeprefix(TRAINING): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(TRAINING)
    }
    try:
        header = json.loads(text)
        field = _rebuild(header, tensors, configs).to(device)
        held = set(option_names(header["config"], configs))
        options = option_names(encode_config(field.config), configs)
        if training and (lacking := [name for name in options if name not in held]):
            # A finished model does not need the option, but a resumed run with today's default
            # would differ from the run that began.
            raise ValueError(f"it lacks the option {lacking[0]}; go on with {OTHER_VERSION}")
        frame, bounds = header["frame"], header["bounds"]
        fit = Fit(
            field,
            Frame(tuple(frame["centre"]), frame["scale"]),
            Box(tuple(bounds["lower"]), tuple(bounds["upper"])),
            math.inf if header["lipschitz"] is None else header["lipschitz"],
            header["steps"],
            header["seconds"],
            header["interrupted"],
            header["provenance"],
        )
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (
            f"its header lacks {error}"
            if isinstance(error, KeyError)
            else one_line(error).rstrip(".")
        )
        raise ValueError(f"{path} is not a usable nstr3d model: {reason}.") from error
    return fit, training


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the model file inside it.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; fit a model first.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()  # the file cannot be iterated over: it has no __iter__
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a model: it is truncated or not a safetensors file ({error})."
        ) from error
    written = metadata.get("format")
    if written not in READ:
        if str(written).startswith("nstr3d-"):
            raise ValueError(
                f"{path} is of the format {written!r}, which this version of nstr3d does not "
                "know; update nstr3d."
            )
        raise ValueError(
            f"{path} is a safetensors file, but not of nstr3d: its format is {written!r}, not "
            f"{FORMAT}."
        )
    return metadata.get("nstr3d", ""), tensors


def _rebuild(
    header: Mapping[str, Any], tensors: dict[str, Tensor], configs: Sequence[type]
) -> Field:
    config = decode_config(header["config"], configs)
    if not hasattr(config, "restore"):
        raise ValueError(f"its config is of the type {type(config).__name__}, which no field has")
    field: Field = config.restore(header["in_dim"], header["out_dim"], tensors)
    expected = field.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ValueError(f"tensor {missing[0]} is missing")
    if foreign := sorted(tensors.keys() - expected.keys()):
        raise ValueError(f"tensor {foreign[0]} does not belong to it")
    for name, tensor in expected.items():
        stored = tensors[name]
        if stored.shape != tensor.shape or stored.dtype != tensor.dtype:
            needed = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(
                f"tensor {name} is {tuple(stored.shape)} {stored.dtype} where its config needs "
                f"{needed}"
            )
    field.load_state_dict(tensors)
    return field
