"""``python -m nstr3d`` runs the command ``nstr3d`` when the environment's scripts are not on the
PATH."""

import sys

from nstr3d.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
