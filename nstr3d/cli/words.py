"""From the words of a command line to options: how jobs' dataclasses are read by tyro, and which of
them ``nstr3d fit`` takes for the kind of file that is to be fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructTypeInfo,
)

from nstr3d.signals.signal import kind_of

T = TypeVar("T")
# A job's options on the command line: no prefixes, and what has no default needs no flag.
Options = tyro.conf.OmitArgPrefixes[tyro.conf.PositionalRequiredArgs[T]]


class Refused(Exception):
    """Options that a dataclass refused, for the ``reason`` that it gave.

    tyro would catch the ValueError itself and exit with its own message and code.
    """

    def __init__(self, reason: ValueError):
        super().__init__(*reason.args)


def parse(options: type[T], prog: str, args: Sequence[str] | None = None) -> T:
    """The options that ``args`` say, the command line's words by default. Raises `Refused` for
    values out of range, and SystemExit for words that are none of the options."""
    return tyro.cli(options, prog=prog, args=args, registry=_registry())


def parse_command(commands: Mapping[str, type], prog: str, args: Sequence[str]) -> Any:
    """`parse` for a first word that names one of the ``commands``."""
    return tyro.extras.subcommand_cli_from_dict(
        dict(commands), prog=prog, args=args, registry=_registry()
    )


def _registry() -> ConstructorRegistry:
    registry, asked = ConstructorRegistry(), []

    @registry.struct_rule
    def refuse(info: StructTypeInfo) -> StructConstructorSpec | None:
        if asked or not is_dataclass(info.type):
            return None
        asked.append(info)  # so that the rules that tyro has itself answer now
        spec = ConstructorRegistry.get_struct_spec(info)
        asked.pop()
        if not isinstance(spec, StructConstructorSpec):
            return None

        def instantiate(**values: Any) -> Any:
            try:
                return spec.instantiate(**values)
            except ValueError as error:
                raise Refused(error) from error

        return replace(spec, instantiate=instantiate)

    return registry


def names_signal(words: Sequence[str], *classes: type) -> bool:
    """Whether the file that ``words`` name is an image or a sound, where words are read as those of
    any of the options ``classes``: the value of an option is no file to fit."""
    kinds = {kind_of(Path(path)) for path in _positionals(words, classes)}
    return not kinds <= {"mesh"}


def _positionals(words: Sequence[str], classes: Sequence[type]) -> Sequence[str]:
    """The words that are no option and no option's value. A mistake in the words, such as an option
    without its value, may add others: they decide only whose options the error message shows."""
    options = {name: flag for each in classes for name, flag in _options(each)}
    lenient = make_dataclass(
        "Words",
        [
            ("paths", tyro.conf.Positional[tuple[str, ...]]),
            *(
                (name, bool if flag else str, field(default=not flag and ""))
                for name, flag in options.items()
            ),
        ],
    )  # every value is text, so that a mistaken value is left to the options' own class
    known = [word for word in words if word not in ("-h", "--help")]
    try:
        parsed, unknown = tyro.cli(
            lenient, args=known, return_unknown_args=True, console_outputs=False
        )
    except SystemExit:
        return words
    return parsed.paths or unknown


def _options(options: type) -> Iterator[tuple[str, bool]]:
    """Names of the options in a dataclass and in those nested in it, and whether each is a flag."""
    types = get_type_hints(options)
    for each in fields(options):
        if is_dataclass(types[each.name]):
            yield from _options(types[each.name])
        elif each.default is not MISSING:
            yield each.name, types[each.name] is bool
