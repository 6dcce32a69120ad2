"""The command ``nstr3d``: its table of commands, the parsing of their words, and exit codes.

The modules of a command are imported when the command is chosen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from nstr3d.cli.guard import guarded
from nstr3d.system import without_collection


@dataclass(frozen=True)
class Command:
    """A command: what it does, the function ``action`` of a module of nstr3d.cli, and the class of
    ``options`` that it takes. Without a class, the action takes the words."""

    summary: str
    action: str
    options: str = ""

    def part(self, name: str) -> Any:
        """The class or function ``name``, "module.name" in nstr3d.cli."""
        module, name = name.split(".")
        with without_collection():
            return getattr(import_module(f"nstr3d.cli.{module}"), name)


@dataclass(frozen=True)
class _NoOptions:
    pass


COMMANDS = {
    "fit": Command("fit a mesh, an image or a sound", "fit.fit_mesh", "fit.FitMesh"),
    "points": Command("fit a surface to a point cloud", "fit.fit_points", "fit.FitPoints"),
    "render": Command("draw a model or a mesh", "render.render_model", "looks.Render"),
    "export": Command(
        "write a model as a page, mesh or grid", "export.export_model", "looks.Export"
    ),
    "view": Command("show models, meshes and lines", "view.view", "looks.View"),
    "combine": Command("join, intersect or cut models", "combine.combine", "combine.Combine"),
    "flow": Command("follow the local frequency of a model", "flow.draw_flow", "flow.Flow"),
    "batch": Command("fit every shape of a data set", "batch.fit_batch", "batch.Batch"),
    "bench": Command("race fields against others, or measure speed", "bench.bench"),
    "info": Command("say what a file or folder of results holds", "info.info", "info.Info"),
    "check": Command("say what a fit would repair in a file", "check.check", "check.Check"),
}
SIGNAL = Command("fit an image or a sound", "fit.fit_signal", "fit.FitSignal")  # a kind of fit


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

        # Of a command that parses its words itself, the name alone is completed.
        options = {
            name: command.part(command.options) if command.options else _NoOptions
            for name, command in COMMANDS.items()
        }
        print(completion(options, *words[1:2] or ("",)))
    elif first in COMMANDS:
        from nstr3d.cli.words import parse

        command, rest = _chosen(first, words[1:]), words[1:]
        if command.options:
            rest = parse(command.part(command.options), f"nstr3d {first}", rest)
        command.part(command.action)(rest)
    else:
        print(f"error: {_unknown(first)}", file=sys.stderr)
        raise SystemExit(2)


def _chosen(name: str, words: Sequence[str]) -> Command:
    """The command ``name``; the options of fit depend on the kind of the file in ``words``."""
    if name != "fit":
        return COMMANDS[name]
    from nstr3d.cli.words import names_signal

    surface, signal = (each.part(each.options) for each in (COMMANDS[name], SIGNAL))
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
