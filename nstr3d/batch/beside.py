"""Whether a shape has changed since a fit: its file, and the files that it names.

The stamp of a result has a line for the shape's file, and one more, with the name, for each file
that the shape's names. The name is relative to the folder of the shape.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from nstr3d.batch.store import filesystem, is_local, local_path, remote_stamp
from nstr3d.io.folder import local_stamp

MISSING = "-"  # the stamp of a file that is not there


def name_of(companion: Path, path: Path) -> str:
    """The name of the file ``companion`` that the shape's file ``path`` names."""
    return Path(os.path.relpath(companion, path.parent)).as_posix()


def is_below(name: str) -> bool:
    """Whether a file lies in the folder of the shape or below; others are not downloaded."""
    return ".." not in PurePosixPath(name).parts and not os.path.isabs(name)


def stamps(place: str, names: Iterable[str]) -> str:
    """The lines of the stamp of a shape at ``place`` (a path or a URL) for the files ``names``."""
    return "".join(f"\n{_stamp(place, name)} {name}" for name in names)


def is_current(known: str, stamp: str, place: str) -> bool:
    """Whether the stamp ``known`` of a result is that of the shape at ``place`` today. ``stamp`` is
    today's of the shape's own file."""
    own, *others = known.split("\n")
    if own != stamp:
        return False
    pairs = [line.partition(" ")[::2] for line in others]
    return all(_stamp(place, name) == then for then, name in pairs)


def _stamp(place: str, name: str) -> str:
    try:
        if is_local(place):
            return local_stamp(Path(local_path(place)).parent / name)
        if not is_below(name):
            return MISSING
        fs, remote = filesystem(place)
        return remote_stamp(fs.info(f"{remote.rpartition('/')[0]}/{name}")).replace(" ", "")
    except (OSError, ValueError):
        return MISSING
