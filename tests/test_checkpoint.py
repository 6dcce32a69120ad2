"""Models on disk: round trips are exact to the bit, and every other file gives a one-sentence
error."""

import dataclasses
import importlib
import json
import math
import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nstr3d.fields.base import Field
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig, TransportConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.model.checkpoint import FORMAT, load, load_training, save
from nstr3d.model.tags import decode_config, encode_config
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame

PLAIN = LevelConfig(3, plain=2)
CONFIGS = {
    "plain": NstrConfig(levels=(PLAIN,)),
    "dense": NstrConfig(levels=(LevelConfig(3, plain=2, sparse=False),)),
    "amplitude": NstrConfig(levels=(PLAIN, LevelConfig(4, waves=AmplitudeWaves(3)))),
    "complex": NstrConfig(levels=(LevelConfig(4, waves=ComplexWaves(3, band=(0.25, 0.75))),)),
    "phase": NstrConfig(
        levels=(LevelConfig(4, plain=1, waves=PhaseWaves(3, radians=4.0)),), hidden=5, sharpness=3.5
    ),
    "learned": NstrConfig(levels=(LevelConfig(4, waves=PhaseWaves(3, learned=True)),)),
    "identity decoder": NstrConfig(levels=(PLAIN,), hidden=0),
    "transport": NstrConfig(levels=(PLAIN, PLAIN), transport=TransportConfig(hidden=6)),
    "transport of S": NstrConfig(
        levels=(PLAIN,), transport=TransportConfig(hidden=6, position=False)
    ),
    "no transport": NstrConfig(
        levels=(PLAIN,), transport=TransportConfig(hidden=0), table_rate=0.125
    ),
}


@dataclasses.dataclass(frozen=True)
class PlaneConfig:
    """A config that nstr3d does not know."""

    bias: bool = True

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: object = None,
        generator: torch.Generator | None = None,
    ) -> "Plane":
        return Plane(self, in_dim, out_dim)

    def restore(self, in_dim: int, out_dim: int, tensors: object) -> "Plane":
        return Plane(self, in_dim, out_dim)


class Plane(Field):
    def __init__(self, config: PlaneConfig, in_dim: int, out_dim: int):
        super().__init__()
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        self.layer = nn.Linear(in_dim, out_dim, bias=config.bias)

    def forward(self, points: Tensor) -> Tensor:
        return self.layer(points)

    def rates(self) -> list[dict]:
        return [{"params": list(self.parameters()), "lr": 0.1}]


def points() -> Tensor:
    return torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1


def fitted(
    config: NstrConfig | PlaneConfig = CONFIGS["phase"], out_dim: int = 1, **changes: Any
) -> Fit:
    """A fit with numbers that have no short decimal form, and with sparse levels stored near a few
    points."""
    near = np.random.default_rng(0).uniform(-0.4, 0.4, (5, 3))
    field = config.build(3, out_dim, near=near, generator=torch.Generator().manual_seed(0))
    frame, bounds = (
        Frame((1 / 3, 1e9 / 7, -math.pi), 0.1),
        Box((-1 / 3, -2.0, -math.e), (0.7, 1 / 7, 3.0)),
    )
    provenance = {
        "source": "mesh.obj",
        "unicode": "näher",
        "numbers": [1, 2.5],
        "nested": {"a": None, "b": True},
    }
    return dataclasses.replace(
        Fit(field, frame, bounds, math.sqrt(2), 123, 4.5 / 7, True, provenance), **changes
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.nstr"
    save(path, fitted())
    return path


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        names = file.keys()  # .keys() is needed: the file has no __iter__
        return {name: file.get_tensor(name) for name in names}, file.metadata()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    fit, path = fitted(CONFIGS[name]), tmp_path / "model.nstr"
    save(path, fit)
    back = load(path)
    assert isinstance(back.field, Nstr)
    assert back.field.config == CONFIGS[name]
    ours, theirs = fit.field.state_dict(), back.field.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert torch.equal(fit.field(points()), back.field(points()))
    assert [p.shape for p in back.field.parameters()] == [p.shape for p in fit.field.parameters()]


def test_everything_else_comes_back_too(model: Path) -> None:
    fit, back = fitted(), load(model)
    for field in dataclasses.fields(Fit):
        if field.name != "field":
            assert getattr(back, field.name) == getattr(fit, field.name), field.name
    np.testing.assert_array_equal(back.sdf()(points()).detach(), fit.sdf()(points()).detach())


def test_a_fit_without_a_lipschitz_bound_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "colours.nstr"
    save(path, fitted(out_dim=3, lipschitz=math.inf))
    back = load(path)
    assert back.lipschitz == math.inf
    assert back.field.out_dim == 3


def test_equal_fits_give_equal_files(model: Path, tmp_path: Path) -> None:
    again = load(model)
    for number in range(6):  # the library orders the metadata at random
        save(tmp_path / f"{number}.safetensors", again)
        assert (tmp_path / f"{number}.safetensors").read_bytes() == model.read_bytes()


def test_loading_leaves_global_randomness_alone(model: Path) -> None:
    before = torch.get_rng_state()
    load(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_file_is_safetensors_and_nothing_is_unpickled(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = model.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert header["__metadata__"]["format"] == FORMAT
    assert {"levels.0.table", "levels.0.nodes"} <= header.keys()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", forbidden)
    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    load(model)


def test_a_training_state_travels_along_and_a_finished_model_has_none(
    model: Path, tmp_path: Path
) -> None:
    assert load_training(model)[1] == {}
    state = {
        "step": torch.tensor(7),
        "adam.0.exp_avg": torch.rand(3, 2, generator=torch.Generator().manual_seed(0)),
    }
    save(tmp_path / "half.nstr", fitted(), state)
    back, restored = load_training(tmp_path / "half.nstr")
    assert restored.keys() == state.keys()
    assert all(torch.equal(restored[name], state[name]) for name in state)
    assert torch.equal(back.field(points()), fitted().field(points()))
    assert torch.equal(load(tmp_path / "half.nstr").field(points()), fitted().field(points()))


def test_a_config_from_outside_comes_back_when_it_is_passed(tmp_path: Path) -> None:
    path, fit = tmp_path / "plane.nstr", fitted(PlaneConfig(bias=False))
    save(path, fit)
    back = load(path, configs=[PlaneConfig])
    assert isinstance(back.field, Plane)
    assert back.field.config == PlaneConfig(bias=False)
    assert torch.equal(back.field(points()), fit.field(points()))
    with pytest.raises(
        ValueError, match=r"plane\.nstr .*PlaneConfig is unknown here; pass it in configs"
    ):
        load(path)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_survive_json(name: str) -> None:
    assert decode_config(json.loads(json.dumps(encode_config(CONFIGS[name])))) == CONFIGS[name]


@pytest.mark.parametrize(
    "value", [{"a": 1}, [1], object(), NstrConfig, np.float32(1), torch.zeros(1)]
)
def test_a_config_of_anything_else_cannot_be_written(value: object) -> None:
    with pytest.raises(TypeError, match="a config may hold"):
        encode_config(value)


Damage = Callable[[dict[str, Tensor], dict[str, Any]], object]


def move(header: dict[str, Any], **changes: Any) -> None:
    header["config"].update(changes)


DAMAGE: dict[str, tuple[Damage, str]] = {
    "missing tensor": (
        lambda tensors, _: tensors.pop("levels.0.table"),
        r"tensor levels\.0\.table is missing",
    ),
    "missing nodes": (
        lambda tensors, _: tensors.pop("levels.0.nodes"),
        r"tensor levels\.0\.nodes is missing",
    ),
    "foreign tensor": (
        lambda tensors, _: tensors.update(extra=torch.zeros(2)),
        "tensor extra does not belong to it",
    ),
    "wrong shape": (
        lambda tensors, _: tensors.update({"levels.0.table": torch.zeros(4, 2)}),
        r"tensor levels\.0\.table is \(4, 2\) where its config and its nodes need",
    ),
    "wrong dtype": (
        lambda tensors, _: tensors.update({"levels.0.omega": tensors["levels.0.omega"].double()}),
        r"tensor levels\.0\.omega is \(3, 3\) torch\.float64",
    ),
    "other resolution": (
        lambda _, header: header["config"]["levels"][0].update(resolution=9),
        "node bitmap holds",
    ),
    "other hidden": (
        lambda _, header: move(header, hidden=6),
        r"tensor decoder\.hidden\.weight is \(5, 4\)",
    ),
    "unknown config class": (
        lambda _, header: move(header, **{"class": "somewhere:Thing"}),
        "somewhere:Thing is unknown here",
    ),
    "a class of ours that is none": (
        lambda _, header: move(header, **{"class": "nstr3d.fields.nstr:Gone"}),
        "nstr:Gone is unknown here",
    ),
    "a module of ours that is none": (
        lambda _, header: move(header, **{"class": "nstr3d.fields.gone:Gone"}),
        "gone:Gone is unknown here",
    ),
    "a function in place of a class": (
        lambda _, header: move(header, **{"class": "nstr3d.fields.spectrum:stored_nodes"}),
        "stored_nodes is unknown here",
    ),
    "a config that builds no field": (
        lambda _, header: header.update(config=header["config"]["levels"][0]),
        "not a usable nstr3d model",
    ),
    "an unknown tag": (
        lambda _, header: move(header, tag="nstr-9"),
        "its config class nstr-9 is unknown here; pass it in configs",
    ),
    "an import path for a tag": (
        lambda _, header: move(header, tag="nstr3d.fields.nstr:NstrConfig"),
        "nstr:NstrConfig is unknown here",
    ),
    "a number for a tag": (
        lambda _, header: move(header, tag=3),
        "its config class 3 is unknown here",
    ),
    "a list for a tag": (lambda _, header: move(header, tag=["nstr"]), "is unknown here"),
    "a config for a tag": (lambda _, header: move(header, tag={"tag": "nstr"}), "is unknown here"),
    "no tag": (
        lambda _, header: header["config"].pop("tag"),
        "its config class None is unknown here",
    ),
    "no tag within": (
        lambda _, header: header["config"]["levels"][0].pop("tag"),
        "its config class None is unknown here",
    ),
    "two names": (
        lambda _, header: move(header, **{"class": "nstr3d.fields.nstr:NstrConfig"}),
        r"option NstrConfig\.tag",
    ),
    "a line break in a name": (
        lambda _, header: move(header, tag="a\nb"),
        "its config class a b is unknown here",
    ),
    "a tag of other options": (
        lambda _, header: move(header, tag="siren"),
        r"option SirenConfig\.\w+, which is unknown here",
    ),
    "a config of no field": (
        lambda _, header: header.update(config={"tag": "training"}),
        "its config is of the type FitConfig, which no field has",
    ),
    "a number for a config": (
        lambda _, header: header.update(config=3),
        "its config is of the type int, which no field has",
    ),
    "a list for a config": (
        lambda _, header: header.update(config=[header["config"]]),
        "of the type tuple",
    ),
    "a field for a level": (
        lambda _, header: move(header, levels=[{"tag": "siren"}]),
        r"its option NstrConfig\.levels is not of the type tuple\[LevelConfig, \.\.\.\]",
    ),
    "a number for levels": (
        lambda _, header: move(header, levels=5),
        r"option NstrConfig\.levels is not of the type",
    ),
    "a level for waves": (
        lambda _, header: header["config"]["levels"][0].update(
            waves={"tag": "level", "resolution": 2, "plain": 1}
        ),
        r"option LevelConfig\.waves is not of the type",
    ),
    "a config for a number": (
        lambda _, header: move(header, hidden={"tag": "siren"}),
        r"\.hidden is not of the type int",
    ),
    "text for a rate": (
        lambda _, header: move(header, table_rate="fast"),
        r"NstrConfig\.table_rate is not of the type float",
    ),
    "a start for a placement": (
        lambda _, header: move(header, placement={"tag": "linear-start"}),
        r"option NstrConfig\.placement is not of the type PlacementConfig \| None",
    ),
    "a band of three": (
        lambda _, header: header["config"]["placement"].update(band=[0.1, 0.2, 0.3]),
        r"option PlacementConfig\.band is not of the type tuple\[float, float\]",
    ),
    "a config of a newer version": (lambda _, header: move(header, novelty=3), "novelty"),
    "a config that does not hold": (
        lambda _, header: move(header, levels=[]),
        "needs at least one level",
    ),
    "no frame": (lambda _, header: header.pop("frame"), "its header lacks 'frame'"),
    "no config": (lambda _, header: header.pop("config"), "its header lacks 'config'"),
}


def one_sentence(error: BaseException, path: Path) -> None:
    text = str(error)
    assert str(path) in text
    assert "\n" not in text
    assert text.endswith(".")
    assert not text.endswith("..")


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model_says_what_is_wrong_and_where(name: str, model: Path) -> None:
    damage, message = DAMAGE[name]
    tensors, metadata = contents(model)
    header = json.loads(metadata["nstr3d"])
    damage(tensors, header)
    save_file(tensors, model, {"format": FORMAT, "nstr3d": json.dumps(header)})
    with pytest.raises(ValueError, match=message) as caught:
        load(model)
    one_sentence(caught.value, model)


NAMES = [{"tag": "trap:Config"}, {"class": "trap:Config"}, {"class": "nstr3d.fields.trap:Config"}]
NAMES += [
    {key: name}
    for key in ("tag", "class")
    for name in ("os:system", "nstr3d.checkpoint:save", "nstr3d.fields.nstr:Nstr")
]


@pytest.mark.parametrize("place", ["at the top", "within"])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: " ".join(*name.items()))
def test_nothing_that_a_file_names_is_imported(
    name: dict[str, str], place: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text(
        "import dataclasses\n\n\n@dataclasses.dataclass\nclass Config:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    load(model)
    tensors, metadata = contents(model)
    header = json.loads(metadata["nstr3d"])
    if place == "within":
        move(header, start=name)
    else:
        header["config"] = name
    save_file(tensors, model, {"format": FORMAT, "nstr3d": json.dumps(header)})
    before = set(sys.modules)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("something was imported")

    monkeypatch.setattr(importlib, "import_module", forbidden)
    with pytest.raises(
        ValueError, match=f"its config class {next(iter(name.values()))} is unknown here"
    ) as caught:
        load(model)
    one_sentence(caught.value, model)
    assert set(sys.modules) == before


@pytest.mark.parametrize("depth", [300, 100_000])
def test_a_header_that_is_nested_too_deeply_is_refused(depth: int, model: Path) -> None:
    tensors, metadata = contents(model)
    deep = "[" * depth + "]" * depth
    text = metadata["nstr3d"].replace('"hidden": 5', f'"hidden": {deep}')
    assert deep in text
    save_file(tensors, model, {"format": FORMAT, "nstr3d": text})
    with pytest.raises(ValueError, match="not a usable nstr3d model") as caught:
        load(model)
    one_sentence(caught.value, model)


@pytest.mark.parametrize("name", ["nstr3d-3", "nstr3d-10", "nstr3d-next"])
def test_a_newer_format_asks_for_a_newer_version(name: str, model: Path) -> None:
    tensors, metadata = contents(model)
    save_file(tensors, model, metadata | {"format": name})
    with pytest.raises(
        ValueError, match=f"of the format '{name}', which this version .* update nstr3d"
    ) as caught:
        load(model)
    one_sentence(caught.value, model)


@pytest.mark.parametrize("header", [None, "", "{", "[]", "3"])
def test_a_header_that_is_no_header_raises(header: str | None, model: Path) -> None:
    tensors, _ = contents(model)
    save_file(tensors, model, {"format": FORMAT} | ({} if header is None else {"nstr3d": header}))
    with pytest.raises(ValueError, match="not a usable nstr3d model") as caught:
        load(model)
    one_sentence(caught.value, model)


def test_who_may_read_a_file_may_read_a_model(model: Path) -> None:
    other = model.with_name("other")
    other.touch()
    assert model.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_raises(keep: int, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:keep])
    with pytest.raises(ValueError, match="truncated or not a safetensors file") as caught:
        load(model)
    one_sentence(caught.value, model)


def test_a_file_of_another_kind_raises(tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_text("v 0 0 0\n" * 100)
    with pytest.raises(ValueError, match="not a safetensors file") as caught:
        load(path)
    one_sentence(caught.value, path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_model_of_another_program_raises(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, path, metadata)
    with pytest.raises(ValueError, match="not of nstr3d") as caught:
        load(path)
    one_sentence(caught.value, path)


def test_a_folder_and_a_missing_file_raise(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder") as folder:
        load(tmp_path)
    one_sentence(folder.value, tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist") as missing:
        load(tmp_path / "gone.nstr")
    one_sentence(missing.value, tmp_path / "gone.nstr")


def test_what_cannot_be_written_leaves_the_old_file(model: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(TypeError):
        save(model, fitted(provenance={"mesh": object()}))
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == ["model.nstr"]


def test_a_write_that_the_system_refuses_is_an_os_error(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limit of file sizes")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path / "model.safetensors", fitted())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_written_that_the_next_run_would_not_know(tmp_path: Path) -> None:
    """A run that is killed leaves what it was writing. Names are seen while files are written."""
    fit = fitted(NstrConfig((LevelConfig(48, plain=8, sparse=False),)))
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.update(os.listdir(tmp_path))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(20):
            save(tmp_path / "model.safetensors", fit)
    finally:
        done.set()
        watcher.join()
    assert "model.safetensors" in seen
    assert {name for name in seen if not name.startswith((".model.", "model."))} == set()


def test_the_file_is_as_long_whatever_the_fit_took(tmp_path: Path) -> None:
    sizes = set()
    for seconds in (0.0, 5.0, 12.25, 1 / 3, 1234567.890123456):
        save(tmp_path / "model.safetensors", fitted(seconds=seconds))
        sizes.add((tmp_path / "model.safetensors").stat().st_size)
        assert load(tmp_path / "model.safetensors").seconds == seconds
    assert len(sizes) == 1
