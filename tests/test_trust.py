"""Model files from elsewhere: each is refused in one sentence that names the path and the field, or
is the model that was saved; and no file takes more memory than its size allows."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from mutations import contents, file_of, mutate_bytes, mutate_header, mutate_tensors, replaced

from nstr3d.fields.base import Field
from nstr3d.fields.baselines.ngp import NgpConfig
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.closed.codedpyramid import CodedConfig
from nstr3d.fields.closed.cosines import CosineConfig
from nstr3d.fields.closed.pyramid import PyramidConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig, TransportConfig
from nstr3d.fields.waves import PhaseWaves
from nstr3d.model.checkpoint import load, save
from nstr3d.model.container import LARGEST_TEXT
from nstr3d.model.pyramidsearch import Maker, Target
from nstr3d.model.schema import RANGES, BoxSchema, FrameSchema, Header
from nstr3d.model.tags import TAGS, decode_config, encode_config
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame

LEVELS = (
    LevelConfig(3, plain=2, sparse=False),
    LevelConfig(4, plain=1, waves=PhaseWaves(2), order=2),
)
FIELDS = {
    "nstr": NstrConfig(LEVELS, hidden=5, transport=TransportConfig(hidden=3)),
    "siren": SirenConfig(width=6, depth=2),
    "ngp": NgpConfig(table=40, levels=3, coarsest=2, finest=8, width=5),
    "cosines": CosineConfig((12, 16), (4, 4)),
    "pyramid": PyramidConfig(5),
    "coded-pyramid": CodedConfig(4, 2, 1, 16, 5, 2.0**-9),
}


def coded_ball(config: CodedConfig) -> Field:
    """A compressed ball."""
    box = Box((-0.5,) * 3, (0.5,) * 3)
    surface = 0.5 * np.vstack([np.eye(3), -np.eye(3)])
    distance = lambda at: np.linalg.norm(at, axis=1) - 0.5  # noqa: E731
    maker = Maker(Target(distance, surface, box, Frame.identity()))
    return maker.fit(maker.coded(config.plan, config.step, 10_000)).field


def made(name: str = "nstr") -> Fit:
    """A fit whose numbers differ from each other."""
    config = FIELDS[name]
    dim = 2 if name == "cosines" else 3
    near = np.random.default_rng(0).uniform(-0.4, 0.4, (5, dim))
    generator = torch.Generator().manual_seed(0)
    if name == "coded-pyramid":
        field = coded_ball(config)
    else:
        field = config.build(dim, 1, near=near, generator=generator)
    if name == "cosines":
        with torch.no_grad():
            field.amplitudes.normal_(generator=generator)
    box = Box((-1.5, -2.5, -3.5)[:dim], (0.5, 1.5, 2.5)[:dim])
    frame = Frame((0.25, 0.75, -0.125)[:dim], 0.1)
    return Fit(field, frame, box, 1.5, 123, 4.5 / 7, True, {"input": "a.ply", "steps": [1, 2.5]})


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A saved model of each field."""
    folder = tmp_path_factory.mktemp("models")
    for name in FIELDS:
        save(folder / f"{name}.safetensors", made(name))
    return {name: folder / f"{name}.safetensors" for name in FIELDS}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile.safetensors"


def refusal(path: Path) -> str:
    """The one sentence with which the file at ``path`` is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(str(path)), text
    assert text.endswith("."), text
    assert "\n" not in text
    assert len(text) < len(str(path)) + 600
    return text


def header_of(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    tensors, metadata = contents(path)
    return tensors, json.loads(metadata["nstr3d"])


# ------------------------------------------------------------------------------
# the header
NUMBERS: tuple[Any, ...] = (math.nan, math.inf, "1", None, True, [], {})
WRONG: dict[str, tuple[Any, ...]] = {
    "in_dim": (0, -1, 9, 2.5, 1 << 40, *NUMBERS),
    "out_dim": (0, -1, (1 << 16) + 1, 10**40, *NUMBERS),
    "lipschitz": (0, -1.0, -0.0, math.nan, math.inf, "1", True, []),
    "steps": (-1, 1.5, 1 << 60, *NUMBERS),
    "seconds": (-1e-9, 10**400, *NUMBERS),
    "interrupted": (0, 1, "true", None, []),
    "provenance": (None, [], "x", 3),
    "frame": (None, [], 3, {"centre": [0, 0, 0]}),
    "frame.centre": (
        [],
        [0.0, 0.0],
        [0.0] * 4,
        [0.0] * 9,
        [0.0, 0.0, math.nan],
        ["0"] * 3,
        None,
        3,
    ),
    "frame.scale": (0, -0.5, 1e-320, 1e200, *NUMBERS),
    "bounds": (None, [], 3, {"lower": [0.0] * 3, "upper": [-1.0] * 3}),
    "bounds.lower": ([9.0, 0.0, 0.0], [0.0, 0.0], [0.0, 0.0, -math.inf], None, "0"),
    "bounds.upper": ([-9.0, 0.0, 0.0], [0.0, 0.0], [0.0, 0.0, math.inf], None, "0"),
    "colours": (3, "nstr", [], {}, {"tag": "training"}, {"tag": "level", "resolution": 2}),
    "config": (None, 3, "nstr", [], {}, {"tag": "training"}, {"tag": "level", "resolution": 2}),
}


def test_every_entry_of_the_header_has_wrong_values_here() -> None:
    names = set(Header.model_fields)
    for part, schema in (("frame", FrameSchema), ("bounds", BoxSchema)):
        names |= {f"{part}.{name}" for name in schema.model_fields}
    assert set(WRONG) == names


@pytest.mark.parametrize("entry", WRONG)
def test_a_wrong_entry_of_the_header_is_refused(entry: str, files, path: Path) -> None:
    tensors, header = header_of(files["nstr"])
    place = tuple(entry.split("."))
    for value in WRONG[entry]:
        path.write_bytes(file_of(tensors, replaced(header, place, value)))
        assert place[0] in refusal(path), value
    without = replaced(header, place, None)
    inner = without if len(place) == 1 else without[place[0]]
    del inner[place[-1]]
    path.write_bytes(file_of(tensors, without))
    if entry == "colours":  # which most shapes do not have
        assert load(path).colour_field is None
    else:
        assert f"lacks '{entry}'" in refusal(path)
    path.write_bytes(file_of(tensors, replaced(header, (*place[:-1], "other"), 3)))
    assert "other" in refusal(path)


def test_an_entry_that_occurs_twice_and_numbers_that_are_none_are_refused(files, path) -> None:
    tensors, header = header_of(files["siren"])
    text = json.dumps(header)
    for found, twisted, reason in (
        ('"steps": 123', '"steps": 123, "steps": 7', "occurs twice"),
        ('"steps": 123', f'"steps": {"9" * 5000}', "steps|digits"),
        ('"steps": 123', '"steps": 123 123', "delimiter"),
    ):
        assert found in text
        path.write_bytes(file_of(tensors, {}, nstr3d=text.replace(found, twisted)))
        assert any(word in refusal(path) for word in reason.split("|"))


# ------------------------------------------------------------------------------
# the options of configs
BUILT: dict[str, Any] = {
    "level": LEVELS[0],
    "phase-waves": PhaseWaves(2),
    **{tag: TAGS[tag](2) for tag in ("amplitude-waves", "complex-waves")},
    **{tag: TAGS[tag]() for tag in ("transport", "placement", "linear-start", "training")},
    **{tag: TAGS[tag]() for tag in ("finer", "fourier")},
    **FIELDS,
}


def numeric(hint: Any) -> bool:
    return hint in (int, float) or any(numeric(inner) for inner in get_args(hint))


@pytest.mark.parametrize("tag", TAGS)
def test_every_numeric_option_has_a_range_and_its_ends_hold(tag: str) -> None:
    hints = get_type_hints(TAGS[tag])
    names = [field.name for field in dataclasses.fields(TAGS[tag])]
    assert set(RANGES.get(tag, {})) == {name for name in names if numeric(hints[name])}
    encoded = encode_config(BUILT[tag])
    assert decode_config(encoded) == BUILT[tag]
    for name, (low, high) in RANGES.get(tag, {}).items():
        for wrong in (low - max(1, abs(low)), high * 2 + 1, math.nan, math.inf, "1", [[1]], {}):
            value = wrong
            if isinstance(encoded[name], list) and isinstance(wrong, int | float):
                value = [wrong] * len(encoded[name])
            with pytest.raises(ValueError, match=f"option {TAGS[tag].__name__}.{name} is |class"):
                decode_config(encoded | {name: value})


def test_what_could_not_be_loaded_is_not_saved(path: Path) -> None:
    fit = made("siren")
    for wrong, reason in (
        (dataclasses.replace(fit, frame=Frame((0.0, 0.0, 0.0), 0.0)), "scale"),
        (dataclasses.replace(fit, bounds=Box((1.0, 1.0, 1.0), (0.0, 2.0, 2.0))), "lower"),
        (dataclasses.replace(fit, lipschitz=math.nan), "lipschitz"),
        (dataclasses.replace(fit, lipschitz=-1.0), "lipschitz"),
        (dataclasses.replace(fit, steps=-1), "steps"),
        (dataclasses.replace(fit, provenance={"a": "x" * LARGEST_TEXT}), "shorten the provenance"),
        (dataclasses.replace(fit, field=SirenConfig(width=4, rate=1e9).build(3, 1)), "rate"),
    ):
        with pytest.raises(ValueError, match=f"{path.name} was not written: .*{reason}"):
            save(path, wrong)
    with torch.no_grad():
        next(fit.field.parameters())[0] = math.nan
    with pytest.raises(ValueError, match=r"was not written: its tensor layers\.0.* not finite"):
        save(path, fit)
    assert not path.exists()


# ------------------------------------------------------------------------------
# tensors, checksum
@pytest.mark.parametrize("name", FIELDS)
def test_one_changed_byte_in_any_tensor_or_in_the_header_is_refused(name, files, path) -> None:
    raw = files[name].read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    assert len(header.pop("__metadata__")["sha256"]) == 64
    for tensor in header.values():
        at = start + tensor["data_offsets"][0]
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        assert "checksum sha256 does not match" in refusal(path)
    changed = raw.replace(b"123", b"124", 1)
    assert changed != raw
    path.write_bytes(changed)
    assert "checksum sha256 does not match" in refusal(path)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_refused(bad: float, files, path: Path) -> None:
    for file in files.values():
        tensors, header = header_of(file)
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                wrong = tensor.clone()
                wrong.view(-1)[-1] = bad
                path.write_bytes(file_of(tensors | {name: wrong}, header))
                assert f"{name} holds numbers that are not finite" in refusal(path)


def test_a_file_without_a_checksum_loads(files, path: Path) -> None:
    for name, file in files.items():
        path.write_bytes(file_of(*header_of(file)))
        assert_same(load(path), made(name))


def assert_same(fit: Fit, other: Fit) -> None:
    for field in dataclasses.fields(Fit):
        if field.name != "field":
            assert getattr(fit, field.name) == getattr(other, field.name), field.name
    assert fit.field.config == other.field.config
    ours, theirs = fit.field.state_dict(), other.field.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_500_mutations_are_refused_or_load_the_same_model(files, path: Path) -> None:
    """Changes of the bytes of a file with a checksum; and of files without one: a header with other
    valid numbers is another model, and what loads is what the header says."""
    generator, refused = np.random.default_rng(0), 0
    models = {name: (file.read_bytes(), *header_of(file)) for name, file in files.items()}
    for turn in range(500):
        name = list(models)[turn % len(models)]
        raw, tensors, header = models[name]
        kind = turn // len(models) % 3
        path.write_bytes(
            mutate_bytes(raw, generator)
            if kind == 0
            else (mutate_tensors if kind == 1 else mutate_header)(tensors, header, generator)
        )
        try:
            fit = load(path)
        except ValueError:
            refusal(path)
            refused += 1
            continue
        if kind < 2:
            assert_same(fit, made(name))
        else:
            text = json.loads(contents(path)[1]["nstr3d"])
            assert decode_config(text["config"]) == fit.field.config
            assert (text["steps"], text["seconds"]) == (fit.steps, fit.seconds)
            assert list(fit.frame.centre) == list(map(float, text["frame"]["centre"]))
            assert list(fit.bounds.upper) == list(map(float, text["bounds"]["upper"]))
    assert refused > 400
