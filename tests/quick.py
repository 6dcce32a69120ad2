"""Fits that are over soon and whose accuracy nobody looks at beyond a few cells."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Options = TypeVar("Options")
QUICK = {"preset": "fast", "pool": 40_000, "samples": 4000, "picture": 32}  # of a MeshJob
# the same on the command line
WORDS = tuple(word for name, value in QUICK.items() for word in (f"--{name}", str(value)))


def changed(options: Options, **changes: Any) -> Options:
    """The dataclass ``options`` with ``changes``, each in the group that has an option of that
    name."""
    assert is_dataclass(options)
    assert not isinstance(options, type)
    groups = {}
    for each in fields(options):
        group = getattr(options, each.name)
        names = {one.name for one in fields(group)} if is_dataclass(group) else set()
        if inner := {name: changes.pop(name) for name in names & changes.keys()}:
            groups[each.name] = replace(group, **inner)  # type: ignore[type-var]
    return replace(options, **groups, **changes)
