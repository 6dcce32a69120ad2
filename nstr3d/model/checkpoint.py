"""Model files: one safetensors file of weights whose metadata hold the config, frame and provenance
as JSON, and a checksum.

Reading a file unpickles nothing and imports no name from the file. Before memory is taken for a
field, the header is checked against a schema (`nstr3d.model.schema`) and the shapes of the tensors
against the config. A config is written as its tag and fields (`nstr3d.model.tags`). It is read into
a class of the table of tags or into a class that the caller passes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.model.container import (
    Contents,
    check_contents,
    read_container,
    write_container,
)
from nstr3d.model.header import COLOUR, MAGIC, MALFORMED, TRAINING, TREE, begins_with
from nstr3d.model.header import FORMAT as FORMAT_KEY
from nstr3d.model.header import TEXT as TEXT_KEY
from nstr3d.model.shapeheader import is_shape
from nstr3d.model.tags import (
    OTHER_VERSION,
    TAGS,
    check_config,
    decode_config,
    encode_config,
    option_names,
)
from nstr3d.system import one_line
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame, Lattice, expect

FORMAT = "nstr3d-2"
# Formats that can be read. In nstr3d-1, configs have import paths instead of tags.
READ = "nstr3d-1", FORMAT
# What a header and tensors that do not fit each other raise where a field is made of them.
UNFIT = *MALFORMED, ArithmeticError, RuntimeError


def save(
    path: str | os.PathLike[str], fit: Fit, training: Mapping[str, Tensor] | None = None
) -> None:
    """Writes ``fit`` to one file, atomically. With ``training``, a `training_state`, the run can be
    resumed from the file. A compressed shape may also be written to a .nstq, which holds the shape
    and its place alone.

    Raises OSError if the file cannot be written, and ValueError for a fit that could not be loaded
    again: a weight that is not finite, or a number out of the range of `nstr3d.model.schema`.
    """
    expect(fit, Fit, "fit")
    if Path(path).suffix.lower() == ".nstq":
        _save_compressed(Path(path), fit)
        return
    tensors = weights_of(fit)
    tensors |= {
        TRAINING + name: tensor.detach().cpu().contiguous()
        for name, tensor in (training or {}).items()
    }
    try:
        header = header_of(fit)
    except ValueError as error:
        raise ValueError(f"{path} was not written: {one_line(error)}.") from None
    # The padding makes the file's length independent of the digits of the seconds.
    text = json.dumps(header, allow_nan=False) + " " * (24 - len(json.dumps(fit.seconds)))
    write_container(path, Contents({FORMAT_KEY: FORMAT, TEXT_KEY: text}, tensors))


def _save_compressed(path: Path, fit: Fit) -> None:
    from nstr3d.model.codec import save_compressed
    from nstr3d.model.pyramidcodec import pack_shape

    try:
        data = pack_shape(fit)
    except ValueError:
        raise ValueError(
            f"{path} was not written: .nstq is for compressed shapes without colours, which "
            "fit_mesh makes of bytes or of the preset instant; name a .safetensors."
        ) from None
    save_compressed(path, data)


def weights_of(fit: Fit) -> dict[str, Tensor]:
    """The weights of a fit by name, as they are written."""
    state = dict(fit.field.state_dict())
    if fit.colour_field is not None:
        state |= {COLOUR + name: tensor for name, tensor in fit.colour_field.state_dict().items()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def header_of(fit: Fit) -> dict[str, Any]:
    """The header of a fit, as JSON data. Raises ValueError for a fit that could not be loaded
    again."""
    from nstr3d.model.schema import check_header

    header = {
        "config": encode_config(fit.field.config),
        "in_dim": fit.field.in_dim,
        "out_dim": fit.field.out_dim,
        "frame": dataclasses.asdict(fit.frame),
        "bounds": dataclasses.asdict(fit.bounds),
        "lipschitz": None if fit.lipschitz == math.inf else fit.lipschitz,
        "steps": fit.steps,
        "seconds": fit.seconds,
        "interrupted": fit.interrupted,
        "provenance": dict(fit.provenance),
    }
    check_config(fit.field.config)
    if fit.colour_field is not None:  # absent without colours, so that other versions read the file
        header["colours"] = encode_config(fit.colour_field.config)
        check_config(fit.colour_field.config)
    check_header(header)
    return header


def load(
    path: str | os.PathLike[str], device: torch.device | str = "cpu", configs: Sequence[type] = ()
) -> Fit:
    """The `Fit` that `save` of this or an earlier version wrote, bit for bit, on ``device``.

    A checkpoint and a compressed model (.nstq) are read too. ``configs`` lists config classes from
    outside nstr3d that the file may use. Raises FileNotFoundError, IsADirectoryError, and
    ValueError naming the file and the fault if the file is not safetensors, is truncated or
    changed, is from another program or a newer version, has an entry out of range, or has tensors
    that are not finite or do not fit its config. A compressed
    model needs numba: without it, raises ModuleNotFoundError.
    """
    path = Path(path)
    if is_compressed(path):
        return _load_compressed(path, device)
    return _load(path, device, configs, resumed=False)[0]


def is_compressed(path: Path) -> bool:
    """Whether ``path`` is a compressed model, by its extension or its first bytes."""
    return path.suffix.lower() == ".nstq" or is_shape(path) or begins_with(path, MAGIC)


def _load_compressed(path: Path, device: torch.device | str) -> Fit:
    """The fit of a compressed model: a shape, or a field over the lattice of its samples."""
    from nstr3d.model.codec import load_compressed

    if is_shape(path):
        from nstr3d.model.pyramidcodec import load_shape

        fit = load_shape(path)
        return dataclasses.replace(fit, field=fit.field.to(device))
    field = load_compressed(path).to(device)
    lattice = Lattice(field.config.shape)
    return Fit(field, lattice.frame, lattice.bounds, math.inf)


def load_training(
    path: str | os.PathLike[str], device: torch.device | str = "cpu", configs: Sequence[type] = ()
) -> tuple[Fit, dict[str, Tensor]]:
    """The fit of `load` and the training state in the file (empty for a finished model).

    Raises the errors of `load`, and ValueError if the file has a training state but its config
    lacks an option of this version.
    """
    return _load(Path(path), device, configs, resumed=True)


def _load(
    path: Path, device: torch.device | str, configs: Sequence[type], resumed: bool
) -> tuple[Fit, dict[str, Tensor]]:
    """The fit and the training state; a run that is ``resumed`` needs all options."""
    contents = read_container(path)
    _check_format(path, contents.metadata.get(FORMAT_KEY))
    try:
        check_contents(contents)
        return _decode(contents, device, configs, resumed)
    except UNFIT as error:
        reason = one_line(error)[:400].rstrip(".")
        raise ValueError(f"{path} is not a usable nstr3d model: {reason}.") from error


def _decode(
    contents: Contents, device: torch.device | str, configs: Sequence[type], resumed: bool
) -> tuple[Fit, dict[str, Tensor]]:
    from nstr3d.model.schema import check_header, unique

    weights = {
        name: tensor for name, tensor in contents.tensors.items() if not name.startswith(TRAINING)
    }
    training = {
        name.removeprefix(TRAINING): tensor.clone()
        for name, tensor in contents.tensors.items()
        if name.startswith(TRAINING)
    }
    data = json.loads(contents.metadata.get(TEXT_KEY, ""), object_pairs_hook=unique)
    header, fit = check_header(data), fit_of(data, weights, device, configs)
    held = set(option_names(header.config, configs))
    options = option_names(encode_config(fit.field.config), configs)
    if resumed and training and (lacking := [name for name in options if name not in held]):
        # A finished model does not need the option, but a resumed run with today's default would
        # differ from the run that began.
        raise ValueError(f"it lacks the option {lacking[0]}; go on with {OTHER_VERSION}")
    return fit, training


def fit_of(
    data: Any, weights: Mapping[str, Tensor], device: torch.device | str, configs: Sequence[type]
) -> Fit:
    """The fit whose header is the JSON ``data``. Raises ValueError, with a clause, for an entry out
    of range and for weights that do not fit the config."""
    from nstr3d.model.schema import check_header

    header = check_header(data)
    config = decode_config(header.config, configs)
    own = {name: tensor for name, tensor in weights.items() if not name.startswith(COLOUR)}
    return Fit(
        _rebuild(config, header.in_dim, header.out_dim, own).to(device),
        Frame(header.frame.centre, header.frame.scale),
        Box(header.bounds.lower, header.bounds.upper),
        math.inf if header.lipschitz is None else header.lipschitz,
        header.steps,
        header.seconds,
        header.interrupted,
        header.provenance,
        _colours(header.colours, weights, device, configs),
    )


def _colours(
    data: Any, weights: Mapping[str, Tensor], device: torch.device | str, configs: Sequence[type]
) -> Field | None:
    """The field of colours whose config is the JSON ``data``; None if both are absent."""
    own = {
        name.removeprefix(COLOUR): tensor
        for name, tensor in weights.items()
        if name.startswith(COLOUR)
    }
    if data is None:
        if own:
            raise ValueError(f"tensor {COLOUR}{min(own)} does not belong to it")
        return None
    try:
        return _rebuild(decode_config(data, configs), 3, 3, own).to(device)
    except UNFIT as error:
        raise ValueError(f"its field of colours is no field: {one_line(error)}") from error


def _check_format(path: Path, written: str | None) -> None:
    if written in READ:
        return
    if written == TREE:
        raise ValueError(
            f"{path} is a combination of shapes, not a single fit; read it with "
            "nstr3d.load_sdf, or name one of its models."
        )
    if str(written).startswith("nstr3d-"):
        raise ValueError(
            f"{path} is of the format {str(written)[:60]!r}, which this version of nstr3d does not "
            "know; update nstr3d."
        )
    raise ValueError(
        f"{path} is a safetensors file, but not of nstr3d: its format is {str(written)[:60]!r}, "
        f"not {FORMAT}."
    )


def _rebuild(config: Any, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Field:
    """The field of ``config`` with the weights ``tensors``.

    Its shapes are compared with those of the tensors before memory is taken for its weights. A
    field from outside nstr3d takes its memory first, because its code may need the values.
    """
    if not hasattr(config, "restore"):
        raise ValueError(f"its config is of the type {type(config).__name__}, which no field has")
    ours = type(config) in TAGS.values()
    with torch.device("meta") if ours else nullcontext():
        field: Field = config.restore(in_dim, out_dim, tensors)
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
    if ours:
        weights = {name: tensor.clone() for name, tensor in tensors.items()}
        field.load_state_dict(weights, assign=True)
    else:
        field.load_state_dict(tensors)
    return field
