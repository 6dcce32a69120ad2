"""Show models, meshes and lines: ``python apps/view.py model.safetensors --input mesh.obj``;
``--help`` lists the options."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from nstr3d.cli.guard import guarded
from nstr3d.cli.view import View, view


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: view(tyro.cli(View, prog="view.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
