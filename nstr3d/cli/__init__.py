"""The command line: `main` runs the command ``nstr3d``."""

from nstr3d.cli.command import main

__all__ = ["main"]
