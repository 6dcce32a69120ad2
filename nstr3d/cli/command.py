"""The command ``nstr3d``: its table of commands, the parsing of their words, and exit codes.

The modules of a command are imported when the command is chosen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from nstr3d.cli.guard import guarded


@dataclass(frozen=True)
class Command:
    """A command: what it does, and the ``module`` of nstr3d.cli that holds its class of ``options``
    and the function ``action`` that takes them."""

    summary: str
    module: str
    options: str
    action: str

    def load(self) -> tuple[type, Callable[[Any], None]]:
        """The class of the options and the action."""
        module = import_module(f"nstr3d.cli.{self.module}")
        return getattr(module, self.options), getattr(module, self.action)


COMMANDS = {
    "fit": Command("fit a mesh, an image or a sound", "fit", "FitMesh", "fit_mesh"),
    "points": Command("fit a surface to a point cloud", "fit", "FitPoints", "fit_points"),
    "render": Command("draw a model or a mesh", "render", "Render", "render_model"),
    "export": Command("write a model as a page, mesh or grid", "export", "Export", "export_model"),
    "view": Command("show models, meshes and lines", "view", "View", "view"),
    "batch": Command("fit every shape of a data set", "batch", "Batch", "fit_batch"),
    "check": Command("what a fit would repair and doubt in a file", "check", "Check", "check"),
}
SIGNAL = Command("fit an image or a sound", "fit", "FitSignal", "fit_signal")  # a kind of fit


def main(args: Sequence[str] | None = None) -> int:
    """Runs ``nstr3d COMMAND ...`` and returns the exit code.

    ``args`` are the words after ``nstr3d``, by default those of the process. Without a word it
    prints help.
    """
    words = list(sys.argv[1:] if args is None else args)
    return guarded(lambda: _run(words))


def _run(words: Sequence[str]) -> None:
    first = words[0] if words else "--help"
    if first in ("-h", "--help"):
        print(overview())
    elif first == "--version":
        print(f"nstr3d {import_module('nstr3d').__version__}")
    elif first == "--completion":
        from nstr3d.cli.words import completion

        options = {name: command.load()[0] for name, command in COMMANDS.items()}
        print(completion(options, *words[1:2] or ("",)))
    elif first in COMMANDS:
        from nstr3d.cli.words import parse

        options, action = _chosen(first, words[1:]).load()
        action(parse(options, f"nstr3d {first}", words[1:]))
    else:
        print(f"error: {_unknown(first)}", file=sys.stderr)
        raise SystemExit(2)


def _chosen(name: str, words: Sequence[str]) -> Command:
    """The command ``name``; the options of fit depend on the kind of the file in ``words``."""
    if name != "fit":
        return COMMANDS[name]
    from nstr3d.cli.words import names_signal

    surface, signal = (command.load()[0] for command in (COMMANDS[name], SIGNAL))
    return SIGNAL if names_signal(words, surface, signal) else COMMANDS[name]


def _unknown(word: str) -> str:
    """A sentence on a first ``word`` that names no command."""
    near = get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    if word.startswith("-"):
        advice = "options stand behind the command"
    elif Path(word).suffix or Path(word).exists():
        advice = f"to fit a file: nstr3d fit {word}"
    else:
        advice = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
    return f"there is no command {word!r}; {advice}{'' if advice.endswith('?') else '.'}"


def overview() -> str:
    """The help of the program: its commands, each with a line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: nstr3d COMMAND ...",
            "",
            "Fit a compact neural field to a shape, a picture or a sound, and look into it.",
            "",
            *lines,
            "",
            "nstr3d COMMAND --help lists the options of a command.",
            "nstr3d --version prints the version.",
            "nstr3d --completion bash (or zsh) prints a script that completes words in the shell.",
        ]
    )
