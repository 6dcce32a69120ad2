"""What a file asks for is compared with its size before memory is taken, and compressed files and
training states are checked field by field."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile.memory import LEVELS, SMALL, fit_of, peaks, write_large
from mutations import contents, file_of, mutate_bytes, replaced
from safetensors.torch import save_file

from nstr3d.fields.baselines.fourier import FourierConfig
from nstr3d.fields.baselines.ngp import NgpConfig
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.closed.cosines import CosineConfig
from nstr3d.fields.closed.positions import unpack
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.model.checkpoint import load, load_training, save
from nstr3d.model.codec import compress, decompress
from nstr3d.model.container import LARGEST_HEADER
from nstr3d.model.tags import encode_config
from nstr3d.training.fit import Fit, FitConfig, fit_steps, training_state
from nstr3d.training.losses import SdfObjective
from nstr3d.training.state import check_state
from nstr3d.types import Samples

MEGABYTE = 1 << 20
pytestmark = pytest.mark.filterwarnings("error")


def header_of(config: Any, dim: int = 3, out_dim: int = 1) -> dict[str, Any]:
    """The header of a file whose config may ask for any size; nothing is built."""
    return {
        "config": encode_config(config),
        "in_dim": dim,
        "out_dim": out_dim,
        "frame": {"centre": [0.0] * dim, "scale": 1.0},
        "bounds": {"lower": [-1.0] * dim, "upper": [1.0] * dim},
        "lipschitz": 1.0,
        "steps": 0,
        "seconds": 0.0,
        "interrupted": False,
        "provenance": {},
    }


def nodes(resolution: int, order: int = 1) -> torch.Tensor:
    return torch.zeros(((resolution + order) ** 3 + 7) // 8, dtype=torch.uint8)


TINY = {"a": torch.zeros(3)}
WIDE = SirenConfig(width=1 << 16, depth=256)
# The headers ask for up to terabytes; the tensors of the files have a few bytes or megabytes.
GREEDY: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]] = {
    "wide layers": (header_of(WIDE), TINY),
    "a wide decoder": (header_of(NstrConfig(LEVELS, hidden=1 << 16)), TINY),
    "many frequencies": (header_of(FourierConfig(1 << 16, 4, 1 << 16)), TINY),
    "a large hash table": (header_of(NgpConfig(table=1 << 31, levels=256, features=256)), TINY),
    "many outputs": (header_of(CosineConfig((4, 4), (2, 2)), 2, 1 << 16), TINY),
    "many nodes": (
        header_of(NstrConfig((LevelConfig(4096, plain=1),))),
        {"levels.0.nodes": nodes(8), "levels.0.table": torch.zeros(2, 1)},
    ),
    "nodes without a table": (
        header_of(NstrConfig((LevelConfig(250, plain=2),))),
        {"levels.0.nodes": ~nodes(250), "levels.0.table": torch.zeros(2, 2)},
    ),
    "many channels": (
        header_of(NstrConfig((LevelConfig(3, plain=4096, sparse=False),))),
        {"levels.0.nodes": nodes(3), "levels.0.table": torch.zeros(64, 2)},
    ),
    "many samples": (
        header_of(CosineConfig((1 << 31, 1 << 31), (2, 2)), 2),
        {"positions": torch.zeros(99, dtype=torch.uint8)},
    ),
    "many positions": (
        header_of(CosineConfig((1 << 20, 512), (2, 2)), 2),
        {"positions": torch.full((4096,), 255, dtype=torch.uint8)},
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets the peak of a process")
def test_hostile_headers_take_no_memory_and_models_twice_their_size(tmp_path: Path) -> None:
    paths = []
    for number, (header, tensors) in enumerate(GREEDY.values()):
        paths.append(tmp_path / f"{number}.safetensors")
        paths[-1].write_bytes(file_of(tensors, header))
    paths.append(tmp_path / "bomb.nstq")
    code = b"NSTQ1" + struct.pack("<BBB2I2Hf3B", 2, 3, 0, 20_000, 20_000, 8, 8, 1.0, 0, 0, 0)
    code += np.eye(4, 3, dtype="<f4").tobytes() + bytes(50_000)
    paths[-1].write_bytes(code + struct.pack("<I", zlib.crc32(code)))
    models = write_large(tmp_path)
    paths += models
    for path, (rise, reason) in zip(paths, peaks(tmp_path, paths), strict=True):
        assert reason.startswith("" if path in models else str(path)), (path, reason)
        assert (path in models) == (reason == "")
        assert rise < 2 * path.stat().st_size + 24 * MEGABYTE, (path, rise, reason)
    small = {path.stem for path in models if path.stat().st_size < 55 * MEGABYTE}
    assert small == {"nstr, sparse"}  # of others three times as much would be too much


@pytest.mark.parametrize("name", GREEDY)
def test_a_greedy_header_is_refused(name: str, tmp_path: Path) -> None:
    header, tensors = GREEDY[name]
    path = tmp_path / "greedy.safetensors"
    path.write_bytes(file_of(tensors, header))
    with pytest.raises(ValueError, match=r"greedy\.safetensors is not a usable nstr3d model: "):
        load(path)


def test_a_long_header_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    save_file({"a": torch.zeros(LARGEST_HEADER)}, path, {"format": "x" * LARGEST_HEADER})
    with pytest.raises(ValueError, match=rf"long\.safetensors .* may take {LARGEST_HEADER:,}"):
        load(path)
    with pytest.raises(ValueError, match=r"^/dev/zero is no regular file"):
        load("/dev/zero")
    path.write_bytes(file_of(TINY, header_of(SMALL), other="x"))
    with pytest.raises(ValueError, match="unknown entry 'other'"):
        load(path)


def test_positions_that_count_more_than_they_hold_are_refused() -> None:
    packed = np.full(64, 255, np.uint8)
    with pytest.raises(ValueError, match="fewer entries than their counts"):
        unpack(packed, 4, 1 << 30)


# ------------------------------------------------------------------------------
# compressed files
HEAD = {
    "dim": 2,
    "channels": 1,
    "smooth": 0,
    "shape": (20, 24),
    "hops": (8, 8),
    "step": 0.01,
    "shrink": (120, 120, 120),
    "offset": (0.5,),
    "colours": (1.0,),
}
WRONG: list[tuple[str, Any, str]] = [
    ("dim", 0, "0 axes"),
    ("dim", 200, "200 axes"),
    ("channels", 0, "channels"),
    ("channels", 255, "ends within its header"),
    ("smooth", 2, "smooth"),
    ("shape", (0, 24), "shape"),
    ("shape", (1 << 31, 1 << 31), "at most"),
    ("shape", (9000, 9000), "cannot hold"),
    ("shape", (20, 44), "does not end"),
    ("hops", (0, 8), "hops"),
    ("hops", (7, 8), "even hop"),
    ("step", 0.0, "step"),
    ("step", -1.0, "step"),
    ("step", math.nan, "step"),
    ("step", math.inf, "step"),
    ("step", 3e38, "amplitudes are not finite"),
    ("offset", (math.nan,), "offset"),
    ("colours", (math.inf,), "colours"),
]


def squeezed(head: dict[str, Any], code: bytes) -> bytes:
    axes = len(head["shape"])
    data = b"NSTQ1" + struct.pack("<BBB", head["dim"], head["channels"], head["smooth"])
    data += struct.pack(f"<{axes}I{axes}H", *head["shape"], *head["hops"])
    data += struct.pack("<f3B", head["step"], *head["shrink"])
    data += struct.pack("<2f", *head["offset"], *head["colours"]) + code
    return data + struct.pack("<I", zlib.crc32(data))


@pytest.fixture(scope="module")
def code() -> bytes:
    """The code of a picture of 20 x 24 samples, with the head of `HEAD`."""
    values = np.random.default_rng(0).random((20, 24, 1)).astype(np.float32)
    data = compress(values, 600, [8])
    head = len(squeezed(HEAD, b"")) - 4
    assert decompress(squeezed(HEAD, data[head:-4])).config.shape == (20, 24)
    return data[head:-4]


@pytest.mark.parametrize(("name", "value", "reason"), WRONG)
def test_a_wrong_entry_of_a_compressed_file_is_refused(name, value, reason, code) -> None:
    with pytest.raises(ValueError, match=rf"^x\.nstq is damaged: .*{reason}.*\.$"):
        decompress(squeezed(HEAD | {name: value}, code), "x.nstq")


def test_every_entry_of_a_compressed_file_has_wrong_values_here() -> None:
    assert {name for name, *_ in WRONG} == HEAD.keys() - {"shrink"}  # any three bytes are valid


def test_mutations_of_a_compressed_file_are_refused_or_finite(code) -> None:
    """With a new checksum, as of one who means harm."""
    generator, data, refused = np.random.default_rng(0), squeezed(HEAD, code), 0
    for _ in range(300):
        changed = mutate_bytes(data[:-4], generator)
        changed += struct.pack("<I", zlib.crc32(changed))
        try:
            field = decompress(changed, "x.nstq")
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match=r"^x\.nstq is .*\.$"):
                decompress(changed, "x.nstq")
        else:
            assert torch.isfinite(field.amplitudes).all()
    assert refused > 250


# ------------------------------------------------------------------------------
# training states
@pytest.fixture(scope="module")
def half() -> tuple[Fit, dict[str, torch.Tensor]]:
    """A fit after 3 of 6 steps, and its training state."""
    fit = fit_of(SMALL)
    points = torch.rand(256, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pool = Samples(points, points.norm(dim=1, keepdim=True) - 0.5)
    config = FitConfig(steps=6, batch=64, pool=256)
    steps = fit_steps(fit.field, pool, SdfObjective(), config)
    progress = next(progress for progress in steps if progress.step == 3)
    return dataclasses.replace(fit, steps=3, interrupted=True), training_state(progress)


def parameters(fit: Fit) -> list[torch.Tensor]:
    return [parameter for group in fit.field.rates() for parameter in group["params"]]


@pytest.mark.parametrize("bad", ["missing", "foreign", "shape", "type", "negative", "not finite"])
def test_a_wrong_tensor_of_a_training_state_is_refused(bad: str, half) -> None:
    fit, state = half
    check_state(parameters(fit), state)
    for name, tensor in state.items():
        if bad in ("negative", "not finite") and (name.endswith("exp_avg") == (bad == "negative")):
            continue  # a first moment may be negative; the others are refused as negative first
        wrong = dict(state)
        if bad == "missing":
            del wrong[name]
        elif bad == "foreign":
            wrong |= {f"{name}.more": tensor}
        elif bad == "shape":
            wrong[name] = tensor[None]
        elif bad == "type":
            wrong[name] = tensor.double() if name == "step" else tensor.long()
        else:
            wrong[name] = torch.full_like(tensor, -1 if bad == "negative" else math.inf)
        with pytest.raises(ValueError, match=f"training state does not fit this field: {name}"):
            check_state(parameters(fit), wrong)


def test_a_training_state_is_under_the_checksum_and_finite(half, tmp_path: Path) -> None:
    fit, state = half
    path = tmp_path / "checkpoint.safetensors"
    save(path, fit, state)
    back, loaded = load_training(path)
    assert (back.steps, loaded.keys()) == (3, state.keys())
    tensors, metadata = contents(path)
    for name in state:
        wrong = copy.deepcopy(tensors)
        raw = wrong[f"training/{name}"].view(-1).view(torch.uint8)
        raw[0] ^= 1
        save_file(wrong, path, metadata)
        with pytest.raises(ValueError, match=r"checkpoint.* its checksum sha256 does not match"):
            load_training(path)
    header = json.loads(metadata["nstr3d"])
    wrong = tensors | {"training/seconds": torch.tensor(math.nan, dtype=torch.float64)}
    path.write_bytes(file_of(wrong, replaced(header, ("steps",), 4)))
    with pytest.raises(ValueError, match="training/seconds holds numbers that are not finite"):
        load_training(path)
