"""Draw the streamlines of a model's local frequency: ``python apps/flow.py model.safetensors``;
``--help`` lists the options."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nstr3d.cli.flow import Flow, draw_flow
from nstr3d.cli.guard import guarded
from nstr3d.cli.words import parse


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: draw_flow(parse(Flow, "flow.py", args)))


if __name__ == "__main__":
    sys.exit(main())
