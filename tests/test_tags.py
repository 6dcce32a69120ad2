"""Tags: every config that a model can hold has a tag, tags of foreign classes cannot collide with
it, and no tag depends on the module of a class."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

from nstr3d import fields
from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.model.tags import (
    FORMER_PATHS,
    TAGS,
    decode_config,
    encode_config,
    option_names,
    tag_of,
)
from nstr3d.training.fit import FitConfig


def foreign(name: str = "Mine", **attributes: Any) -> type:
    """A config class that nstr3d does not know."""
    return dataclasses.make_dataclass(name, [("size", int, 1)], namespace=attributes, frozen=True)


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        yield importlib.import_module(info.name)


def within(hint: Any) -> set[type]:
    """The dataclasses that an annotation names, and the dataclasses in their fields."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return {hint}.union(*(within(inner) for inner in get_type_hints(hint).values()))
    return set().union(*(within(inner) for inner in get_args(hint)))


def test_every_config_of_a_field_has_a_tag() -> None:
    of_fields = {
        kind
        for module in modules(fields)
        for kind in vars(module).values()
        if dataclasses.is_dataclass(kind) and hasattr(kind, "restore")
    }
    assert {NstrConfig, SirenConfig} < of_fields
    assert set().union(*map(within, of_fields)) | {FitConfig} == set(TAGS.values())
    assert len(set(TAGS.values())) == len(TAGS)


def test_former_paths_name_each_class_once() -> None:
    assert set(FORMER_PATHS.values()) <= set(TAGS)
    assert len(set(FORMER_PATHS.values())) == len(FORMER_PATHS)


def test_a_tag_is_short_and_no_path() -> None:
    config = encode_config(NstrConfig())
    assert (config["tag"], config["levels"][0]["tag"]) == ("nstr", "level")
    assert ":" not in "".join(TAGS)


def test_whole_numbers_pass_for_others() -> None:
    data = encode_config(NstrConfig()) | {"sharpness": 50, "hidden": 8}
    data["levels"][0]["sparse"] = 0
    assert decode_config(data).sharpness == 50


def test_options_are_named_by_class_outer_ones_first() -> None:
    names = list(option_names(encode_config(NstrConfig())))
    assert names[:2] == ["NstrConfig.levels", "NstrConfig.hidden"]
    assert (
        names.index("NstrConfig.decoder_rate")
        < names.index("LevelConfig.resolution")
        < names.index("PhaseWaves.radians")
    )


def test_a_config_from_outside_goes_by_its_tag_wherever_its_class_is() -> None:
    data = encode_config(foreign(tag="mine")(3))
    assert data == {"tag": "mine", "size": 3}
    moved = foreign("Moved", tag="mine")
    assert decode_config(data, [moved]) == moved(3)
    with pytest.raises(
        ValueError, match="its config class mine is unknown here; pass it in configs"
    ):
        decode_config(data)


def test_a_config_from_outside_without_a_tag_goes_by_its_path() -> None:
    kind = foreign()
    data = encode_config(kind(3))
    assert data == {"tag": f"{kind.__module__}:Mine", "size": 3}
    assert decode_config(data, [kind]) == kind(3)
    assert decode_config({"class": data["tag"], "size": 3}, [foreign("Other"), kind]) == kind(
        3
    )  # the former key
    tagged = foreign(tag="mine")
    assert decode_config({"class": data["tag"], "size": 3}, [tagged]) == tagged(3)


def test_a_tag_is_not_inherited() -> None:
    class Ours(NstrConfig):
        pass

    class Theirs(foreign(tag="mine")):
        pass

    assert tag_of(Ours).endswith("Ours")
    assert tag_of(Theirs).endswith("Theirs")


@pytest.mark.parametrize("name", TAGS)
def test_a_tag_of_ours_is_refused_to_others(name: str) -> None:
    kind = foreign(tag=name)
    message = (
        f"Mine has the tag {name}, which names {TAGS[name].__name__} of nstr3d; choose another"
    )
    with pytest.raises(ValueError, match=message):
        encode_config(kind())
    with pytest.raises(ValueError, match=message):
        decode_config(encode_config(SirenConfig()), [kind])


def test_two_classes_of_one_tag_are_refused() -> None:
    one, other = foreign(tag="mine"), foreign("Other", tag="mine")
    with pytest.raises(
        ValueError, match=r"Mine and .*Other in configs=\[\.\.\.\] have the same tag mine"
    ):
        decode_config(encode_config(one()), [one, other])
    assert decode_config(encode_config(one()), [one, one, NstrConfig]) == one()


def test_a_tag_that_is_a_field_or_no_string_is_refused() -> None:
    as_field = dataclasses.make_dataclass("Mine", [("tag", str, "mine")], frozen=True)
    for kind in (as_field, foreign(tag=3), foreign(tag=property(lambda self: "mine"))):
        with pytest.raises(
            ValueError,
            match=r"the tag of .*Mine must be a string that is a class attribute, not a field",
        ):
            encode_config(kind())
    formerly = {
        "class": f"{as_field.__module__}:Mine",
        "tag": "other",
    }  # former versions could save this
    assert decode_config(formerly, [as_field]) == as_field("other")
