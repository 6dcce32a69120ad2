"""The command line: `main` is the command ``nstr3d``."""

from nstr3d.cli.command import main

__all__ = ["main"]
