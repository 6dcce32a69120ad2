"""Which options ``nstr3d fit`` takes: those of the kind of file that is to be fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import get_type_hints

import tyro

from nstr3d.signals.signal import kind_of


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
