"""The tags of config classes in files: one short string for each class.

An encoded config is JSON data, ``{"tag": "siren", "width": 256, ...}``, and so are nested configs.
Decoding imports no name from a file. For a config class from outside nstr3d, the tag is its own
class attribute ``tag``, a string that is not a dataclass field, or, without this attribute, its
import path ``module:Class``. The reader of such a file passes the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nstr3d.fields.baselines.finer import FinerConfig
from nstr3d.fields.baselines.fourier import FourierConfig
from nstr3d.fields.baselines.ngp import NgpConfig
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.closed.codedpyramid import CodedConfig
from nstr3d.fields.closed.cosines import CosineConfig
from nstr3d.fields.closed.pyramid import PyramidConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig, TransportConfig
from nstr3d.fields.start.linear import LinearStartConfig
from nstr3d.fields.start.placement import PlacementConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.training.fit import FitConfig

TAG = "tag"  # the key of a config's tag
CLASS = (
    "class"  # the key of the class's import path, which the format nstr3d-1 has instead of the tag
)
# A class may move or be renamed, but its tag must stay, so that old files remain readable.
TAGS: dict[str, type] = {
    "nstr": NstrConfig,
    "level": LevelConfig,
    "amplitude-waves": AmplitudeWaves,
    "complex-waves": ComplexWaves,
    "phase-waves": PhaseWaves,
    "transport": TransportConfig,
    "placement": PlacementConfig,
    "linear-start": LinearStartConfig,
    "siren": SirenConfig,
    "finer": FinerConfig,
    "fourier": FourierConfig,
    "ngp": NgpConfig,
    "cosines": CosineConfig,
    "pyramid": PyramidConfig,
    "coded-pyramid": CodedConfig,
    "training": FitConfig,
}
# The import paths in files of the format nstr3d-1. They must stay the same when modules move.
FORMER_PATHS: dict[str, str] = {
    "nstr3d.fields.nstr:NstrConfig": "nstr",
    "nstr3d.fields.spectrum:LevelConfig": "level",
    "nstr3d.fields.waves:AmplitudeWaves": "amplitude-waves",
    "nstr3d.fields.waves:ComplexWaves": "complex-waves",
    "nstr3d.fields.waves:PhaseWaves": "phase-waves",
    "nstr3d.fields.nstr:TransportConfig": "transport",
    "nstr3d.fields.placement:PlacementConfig": "placement",
    "nstr3d.fields.linear:LinearStartConfig": "linear-start",
    "nstr3d.fields.siren:SirenConfig": "siren",
    "nstr3d.fields.finer:FinerConfig": "finer",
    "nstr3d.fields.fourier:FourierConfig": "fourier",
    "nstr3d.fields.ngp:NgpConfig": "ngp",
    "nstr3d.fields.cosines:CosineConfig": "cosines",
    "nstr3d.fit:FitConfig": "training",
}
OTHER_VERSION = "the version of nstr3d that wrote it, or fit anew"


def encode_config(value: Any) -> Any:
    """A config as JSON data: a dataclass becomes a dict of tag and fields, a tuple becomes a list.

    Raises TypeError for a value of a type that a config may not hold, and the ValueError of
    `tag_of`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: encode_config(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
        return {TAG: tag_of(type(value)), **fields}
    if isinstance(value, tuple):
        return [encode_config(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        "a config may hold dataclasses, tuples, numbers, strings and None, not "
        f"{type(value).__name__}"
    )


def decode_config(data: Any, configs: Sequence[type] = ()) -> Any:
    """The inverse of `encode_config`, which also reads the format nstr3d-1.

    Raises ValueError for a class that is neither in the tables nor in ``configs``, for an option
    that the class does not have, and, for nstr3d's own classes, for a value that is not of the
    option's type or not in its range (`nstr3d.model.schema`).
    """
    if isinstance(data, list):
        return tuple(decode_config(item, configs) for item in data)
    if not isinstance(data, dict):
        return data
    kind = _class_of(data, configs)
    values = {name: decode_config(item, configs) for name, item in _items(data)}
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - fields.keys()):
        raise ValueError(
            f"it has the option {kind.__name__}.{unknown[0]}, which is unknown here; use "
            f"{OTHER_VERSION}"
        )
    if kind in TAGS.values():  # a class from outside has to check its own values
        from nstr3d.model.schema import check_options

        check_options(kind, tag_of(kind), values)
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"its config {kind.__name__}: {error}") from error


def check_config(config: Any) -> None:
    """Raises ValueError for an option of nstr3d's own classes in ``config`` that `decode_config`
    would refuse."""
    if isinstance(config, tuple):
        for item in config:
            check_config(item)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for value in values.values():
        check_config(value)
    if type(config) in TAGS.values():
        from nstr3d.model.schema import check_options

        check_options(type(config), tag_of(type(config)), values)


def tag_of(kind: type) -> str:
    """The tag of a config class.

    Raises ValueError for a class from outside nstr3d whose tag is not a string, is a dataclass
    field, or is in `TAGS`.
    """
    for tag, listed in TAGS.items():
        if listed is kind:
            return tag
    own_tag = vars(kind).get(TAG, _path_of(kind))  # an inherited tag is the tag of another class
    if not isinstance(own_tag, str) or TAG in {field.name for field in dataclasses.fields(kind)}:
        raise ValueError(
            f"the tag of {_path_of(kind)} must be a string that is a class attribute, not a field "
            "of the dataclass"
        )
    if own_tag in TAGS:
        raise ValueError(
            f"{_path_of(kind)} has the tag {own_tag}, which names {TAGS[own_tag].__name__} of "
            "nstr3d; choose another"
        )
    return own_tag


def option_names(data: Any, configs: Sequence[type] = ()) -> Iterator[str]:
    """The names ``Class.option`` of all options in an encoded config. The options of a config
    precede the options of its nested configs."""
    if isinstance(data, dict):
        kind = _class_of(data, configs)
        yield from (f"{kind.__name__}.{name}" for name, _ in _items(data))
    for inner in (
        data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    ):
        yield from option_names(inner, configs)


def _class_of(data: Mapping[str, Any], configs: Sequence[type]) -> type:
    """The class that an encoded config names."""
    former = CLASS in data  # no option can have this name, which is a keyword of Python
    name, known = (data[CLASS], _by_path(configs)) if former else (data.get(TAG), _by_tag(configs))
    if not isinstance(name, str) or name not in known:
        raise ValueError(
            f"its config class {name} is unknown here; pass it in configs=[...] or use the "
            "version that wrote it"
        )
    return known[name]


def _by_path(configs: Sequence[type]) -> dict[str, type]:
    return {path: TAGS[tag] for path, tag in FORMER_PATHS.items()} | {
        _path_of(kind): kind for kind in configs
    }


def _by_tag(configs: Sequence[type]) -> dict[str, type]:
    known = dict(TAGS)
    for kind in configs:
        tag = tag_of(kind)
        if known.setdefault(tag, kind) is not kind:
            raise ValueError(
                f"{_path_of(known[tag])} and {_path_of(kind)} in configs=[...] have the same tag "
                f"{tag}"
            )
    return known


def _items(data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The names and values of the options of an encoded config."""
    key = CLASS if CLASS in data else TAG
    return [(name, item) for name, item in data.items() if name != key]


def _path_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
