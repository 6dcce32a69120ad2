"""Options of short fits, for tests that need an accuracy of a few cells only."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Options = TypeVar("Options")
QUICK = {"preset": "fast", "pool": 40_000, "samples": 4000, "picture": 32}  # options of a MeshJob
# The same options on the command line.
WORDS = tuple(word for name, value in QUICK.items() for word in (f"--{name}", str(value)))


def changed(options: Options, **changes: Any) -> Options:
    """A copy of the dataclass ``options`` with ``changes``, each in the group that has an option of
    its name."""
    assert is_dataclass(options)
    assert not isinstance(options, type)
    groups = {}
    for each in fields(options):
        group = getattr(options, each.name)
        names = {one.name for one in fields(group)} if is_dataclass(group) else set()
        if inner := {name: changes.pop(name) for name in names & changes.keys()}:
            groups[each.name] = replace(group, **inner)  # type: ignore[type-var]
    return replace(options, **groups, **changes)
