"""``python -m nstr3d``: the command ``nstr3d`` where the scripts of the environment are not on the
path."""

import sys

from nstr3d.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
