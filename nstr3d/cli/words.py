"""Parsing of a command line: how tyro fills jobs' dataclasses, and which of them ``nstr3d fit``
uses for the kind of file that is to be fitted."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from nstr3d.cli.guard import Refused
from nstr3d.signals.kinds import kind_of

PORTS = (0, 65535)
SHELLS = ("bash", "zsh")
T = TypeVar("T")
# Options whose name or names on the command line are not those of the field.
SHORT = {"out": tyro.conf.arg(aliases=("-o",)), "compute_path": tyro.conf.arg(name="path")}
MAY_BE_EMPTY = "--where", "--title"
# A job's options on the command line: without prefixes, in help too; those without a default are
# positional.
Options = Annotated[
    tyro.conf.OmitArgPrefixes[tyro.conf.PositionalRequiredArgs[T]], tyro.conf.arg(name="")
]


def parse(options: type[T], prog: str, args: Sequence[str] | None = None) -> T:
    """The ``options`` filled from ``args``, by default the words of the command line. Raises
    `Refused` for values out of range, and SystemExit for unknown words."""
    return tyro.cli(
        options,
        prog=prog,
        description=inspect.getdoc(options),
        args=_filled(prog, args),
        registry=_registry(),
        config=(tyro.conf.FlagCreatePairsOff,),  # a flag has the form that changes its default
    )


def completion(commands: dict[str, type], shell: str) -> str:
    """The script that completes the words of the ``commands`` of nstr3d in ``shell``. Raises
    ValueError for a shell without completion."""
    if shell not in SHELLS:
        raise ValueError(f"--completion is one of {', '.join(SHELLS)}, not {shell}.")
    script = io.StringIO()
    with redirect_stdout(script), suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            dict(commands), prog="nstr3d", args=["--tyro-print-completion", shell]
        )
    return script.getvalue()


def _filled(prog: str, args: Sequence[str] | None) -> Sequence[str]:
    """The words of the command line, which stand behind the name ``prog``. Raises `Refused` for an
    empty one, which as a path would mean the current folder."""
    words = list(sys.argv[1:] if args is None else args)
    for before, word in zip([prog.split()[-1], *words], words):
        option, _, value = word.partition("=") if word.startswith("--") else (before, "", word)
        if not value and (not word or "=" in word) and option not in MAY_BE_EMPTY:
            raise Refused(
                ValueError(f"The value after {option} is empty; give one, or leave it out.")
            )
    return words


def _registry() -> ConstructorRegistry:
    registry, asked = ConstructorRegistry(), []

    @registry.primitive_rule
    def whole(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda words: _whole(words[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    @registry.primitive_rule
    def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        # tyro's own rule also takes the word None, which is what leaving the option out means.
        kinds = [kind for kind in get_args(info.type) if kind is not type(None)]
        if get_origin(info.type) not in (Union, UnionType) or len(kinds) != 1:
            return None
        inner = PrimitiveTypeInfo.make(kinds[0], info.markers)
        spec = ConstructorRegistry.get_primitive_spec(inner)
        if not isinstance(spec, PrimitiveConstructorSpec):
            return None
        return replace(
            spec,
            is_instance=lambda value: value is None or spec.is_instance(value),
            str_from_instance=lambda value: (
                ["none"] if value is None else spec.str_from_instance(value)
            ),
        )

    @registry.struct_rule
    def refuse(info: StructTypeInfo) -> StructConstructorSpec | None:
        if asked or not is_dataclass(info.type):
            return None
        asked.append(info)  # switches this rule off, so that tyro's own rules answer
        spec = ConstructorRegistry.get_struct_spec(info)
        asked.pop()
        if not isinstance(spec, StructConstructorSpec):
            return None

        def instantiate(**values: Any) -> Any:
            try:
                return spec.instantiate(**values)
            except ValueError as error:
                raise Refused(error) from error

        options = []
        for each in spec.fields:
            text = _one_paragraph(each.helptext)
            options.append(replace(each, type=_with_short(each.name, each.type), helptext=text))
        return replace(spec, instantiate=instantiate, fields=tuple(options))

    return registry


def _with_short(name: str, kind: Any) -> Any:
    """The type of the option ``name``, with its names on the command line if it has others."""
    return Annotated[kind, SHORT[name]] if name in SHORT else kind


def _one_paragraph(text: str | Callable[[], str | None] | None) -> Callable[[], str | None]:
    """The help ``text`` without the line breaks of the docstring, at which tyro would break."""

    def joined() -> str | None:
        found = text() if callable(text) else text
        return None if found is None else " ".join(found.split())

    return joined


def _whole(word: str) -> int:
    """A whole number, which may be written as 1e5. Raises ValueError for another word."""
    try:
        return int(word)
    except ValueError:
        number = float(word)
        if not number.is_integer():
            raise ValueError(f"{word} is no whole number") from None
        return int(number)


def names_signal(words: Sequence[str], *classes: type) -> bool:
    """Whether the file to fit, which ``words`` name, is an image or a sound.

    The words may hold options of any of ``classes``; an option's value is not a file to fit.
    """
    kinds = {kind_of(Path(path)) for path in _positionals(words, classes)}
    return not kinds <= {"mesh"}


def _positionals(words: Sequence[str], classes: Sequence[type]) -> Sequence[str]:
    """The words that are neither an option nor an option's value.

    A mistake in the words, such as an option without its value, may add other words. These decide
    only which command's options the error message shows.
    """
    options = {name: flag for each in classes for name, flag in _options(each)}
    lenient = make_dataclass(
        "Words",
        [
            ("paths", tyro.conf.Positional[tuple[str, ...]]),
            *(
                (name, bool if flag else _with_short(name, str), field(default=not flag and ""))
                for name, flag in options.items()
            ),
        ],
    )  # every value is text, so that a mistaken value is reported by the options' own class
    known = [word for word in words if word not in ("-h", "--help")]
    try:
        parsed, unknown = tyro.cli(
            lenient,
            args=known,
            return_unknown_args=True,
            console_outputs=False,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit:
        return words
    return parsed.paths or unknown


def _options(options: type) -> Iterator[tuple[str, bool]]:
    """The name of each option of a dataclass and its nested ones, and whether it is a flag."""
    types = get_type_hints(options)
    for each in fields(options):
        if is_dataclass(types[each.name]):
            yield from _options(types[each.name])
        elif each.default is not MISSING:
            yield each.name, types[each.name] is bool
