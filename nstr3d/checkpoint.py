"""Models on disk: one safetensors file of weights, with the config, frame and provenance as JSON in its metadata.

Nothing is pickled. A config is written as its class and fields, and read back only into dataclasses of `nstr3d.fields` or
those that the caller passes.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.fit import Fit
from nstr3d.io import atomic_path
from nstr3d.types import Box, Frame

FORMAT = "nstr3d-1"
OTHER_VERSION = "the version of nstr3d that wrote it, or fit anew"
TRAINING = "training/"  # prefix of the optimiser's tensors in a checkpoint that can be resumed


def save(path: str | os.PathLike[str], fit: Fit, training: Mapping[str, Tensor] | None = None) -> None:
    """Writes ``fit`` to one file, atomically; with ``training`` (a `training_state`) the run can be resumed from it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in fit.field.state_dict().items()}
    tensors |= {TRAINING + name: tensor.detach().cpu().contiguous() for name, tensor in (training or {}).items()}
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
    # Padded, so that a run that took other seconds to the same weights makes a file of the same length.
    text = json.dumps(header, allow_nan=False) + " " * (24 - len(json.dumps(fit.seconds)))
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, {"format": FORMAT, "nstr3d": text})
        except SafetensorError as error:  # it wraps what the system says, a full disk for instance
            raise OSError(str(error)) from error


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu", configs: Sequence[type] = ()) -> Fit:
    """The `Fit` that `save` wrote, bit for bit, on ``device``; ``configs`` lists config classes from outside nstr3d.

    Raises FileNotFoundError or IsADirectoryError, and ValueError naming the file and what is wrong with it: not
    safetensors, truncated, from another program, or with tensors that do not fit its config.
    """
    return load_training(path, device, configs)[0]


def load_training(
    path: str | os.PathLike[str], device: torch.device | str = "cpu", configs: Sequence[type] = ()
) -> tuple[Fit, dict[str, Tensor]]:
    """`load`, with the training state that the file holds (empty for a finished model)."""
    text, tensors = _read(Path(path))
    training = {name.removeprefix(TRAINING): tensors.pop(name) for name in list(tensors) if name.startswith(TRAINING)}
    try:
        header = json.loads(text)
        field = _rebuild(header, tensors, configs).to(device)
        held = set(_options(header["config"]))
        if training and (lacking := [name for name in _options(encode_config(field.config)) if name not in held]):
            # A finished model goes without it; a run that went on with today's default would not be the same run.
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
        reason = f"its header lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise ValueError(f"{path} is not a usable nstr3d model: {reason}.") from error
    return fit, training


def encode_config(value: Any) -> Any:
    """A config as JSON data: a dataclass becomes its class's import path and its fields, a tuple a list."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: encode_config(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": f"{type(value).__module__}:{type(value).__qualname__}", **fields}
    if isinstance(value, tuple):
        return [encode_config(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a config may hold dataclasses, tuples, numbers, strings and None, not {type(value).__name__}")


def decode_config(data: Any, configs: Sequence[type] = ()) -> Any:
    """The inverse of `encode_config`. Raises ValueError for a class that is neither ours nor in ``configs``, and for an option
    that its class does not have."""
    if isinstance(data, list):
        return tuple(decode_config(item, configs) for item in data)
    if not isinstance(data, dict):
        return data
    values = {name: decode_config(item, configs) for name, item in data.items() if name != "class"}
    kind = _config_class(data.get("class"), configs)
    if unknown := sorted(values.keys() - {field.name for field in dataclasses.fields(kind)}):
        raise ValueError(f"it has the option {kind.__name__}.{unknown[0]}, which is unknown here; use {OTHER_VERSION}")
    return kind(**values)


def _options(data: Any) -> Iterator[str]:
    """The names of all options in an encoded config, a config's own before those inside them."""
    if isinstance(data, dict):
        yield from (f"{str(data.get('class')).rpartition(':')[2]}.{name}" for name in data if name != "class")
    for inner in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _options(inner)


def _config_class(path: Any, configs: Sequence[type]) -> type:
    for config in configs:
        if path == f"{config.__module__}:{config.__qualname__}":
            return config
    module, _, name = str(path).partition(":")
    if module.startswith("nstr3d.fields."):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError:
            found = None
        if isinstance(found, type) and dataclasses.is_dataclass(found):
            return found
    raise ValueError(f"its config class {path} is unknown here; pass it in configs=[...] or use the version that wrote it")


def _read(path: Path) -> tuple[str, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the model file inside it.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; fit a model first.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a model: it is truncated or not a safetensors file ({error}).") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a safetensors file, but not of nstr3d: its format is {metadata.get('format')}, not {FORMAT}."
        )
    return metadata.get("nstr3d", ""), tensors


def _rebuild(header: Mapping[str, Any], tensors: dict[str, Tensor], configs: Sequence[type]) -> Field:
    field: Field = decode_config(header["config"], configs).restore(header["in_dim"], header["out_dim"], tensors)
    expected = field.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ValueError(f"tensor {missing[0]} is missing")
    if foreign := sorted(tensors.keys() - expected.keys()):
        raise ValueError(f"tensor {foreign[0]} does not belong to it")
    for name, tensor in expected.items():
        given = tensors[name]
        if given.shape != tensor.shape or given.dtype != tensor.dtype:
            needed = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(f"tensor {name} is {tuple(given.shape)} {given.dtype} where its config needs {needed}")
    field.load_state_dict(tensors)
    return field
