"""Replaces a set of files in a folder at once: a reader sees all old files or all new ones.

The new files wait in a hidden folder. The old files are linked there too, and each visible file
becomes a symbolic link through the link `CURRENT`, which names the set that is shown. One rename
of `CURRENT` changes the set. Then files take the place of the links. If the process dies on the
way, the links show one set, whole; `settle` of the next run puts files in their place.

Where the file system has no links, files are moved one by one. If the process dies on that way,
`settle` moves those that remain.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

WORK = ".nstr3d-set"  # the hidden folder
CURRENT = "current"  # in WORK, a link to the folder of the set that is shown
MOVING = "moving"  # in WORK, a file that lists the moves


def stage(folder: Path) -> Path:
    """A new hidden folder in ``folder``, into which a set is written before `replace_set`."""
    staged = folder / WORK / f"new-{secrets.token_hex(4)}"
    staged.mkdir(parents=True)
    return staged


def discard(staged: Path) -> None:
    """Removes the folder ``staged``, made by `stage`, with what it holds."""
    shutil.rmtree(staged, ignore_errors=True)
    with suppress(OSError):  # it holds the set of another run
        staged.parent.rmdir()


def replace_set(folder: Path, staged: Path, names: Iterable[str]) -> None:
    """Moves the files of ``staged``, a folder made by `stage`, to ``folder``, all at once.

    ``names`` are the files of the old set; those that the new set lacks disappear at the same
    moment. Raises OSError, and leaves the old set, if the file system refuses a step.
    """
    old = {name for name in names if os.path.lexists(folder / name)}
    every = sorted({*old, *os.listdir(staged)})
    try:
        try:
            _link(folder, every)
        except (OSError, NotImplementedError):
            settle(folder, keep=staged)
            _move(folder, staged, every)
        else:
            _point(folder / WORK / CURRENT, staged.name)
    finally:
        settle(folder, keep=staged)


def settle(folder: Path, keep: Path | None = None) -> None:
    """Puts files in the place of links that `replace_set` has left, and removes the hidden folder,
    except the folder ``keep`` in it if that still holds files."""
    work = folder / WORK
    if work.is_symlink():  # not ours, and what it points at is not to be removed
        work.unlink()
    if not os.path.lexists(work):
        return
    if (work / MOVING).exists():
        _finish_moves(folder)
    if (work / CURRENT).is_symlink():
        shown = os.readlink(work / CURRENT)
        target = work / (shown if _is_plain(shown) and not (work / shown).is_symlink() else "none")
        for entry in list(os.scandir(folder)):
            if entry.is_symlink() and os.readlink(entry.path) == _through(entry.name):
                if os.path.lexists(target / entry.name):
                    os.replace(target / entry.name, entry.path)
                else:
                    os.unlink(entry.path)
        (work / CURRENT).unlink()
    for entry in list(os.scandir(work)):
        if keep is not None and entry.name == keep.name and os.listdir(entry.path):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
    with suppress(OSError):  # it holds ``keep``
        work.rmdir()


def _is_plain(name: object) -> bool:
    """Whether ``name`` names an entry of a folder: a folder may come from anyone."""
    return isinstance(name, str) and name not in ("", ".", "..") and os.path.basename(name) == name


def _plan(mark: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads(mark.read_text(encoding="utf-8"))
        names = [plan["staged"], *plan["new"], *plan["gone"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    fine = all(map(_is_plain, names)) and not (mark.parent / plan["staged"]).is_symlink()
    return plan if fine else None


def _link(folder: Path, names: Iterable[str]) -> None:
    """Makes each file of ``names`` a link through `CURRENT`, which shows the old set."""
    work, old = folder / WORK, folder / WORK / f"old-{secrets.token_hex(4)}"
    old.mkdir()
    for name in names:
        visible = folder / name
        if visible.is_symlink():  # a link of the user's, perhaps relative to the folder
            os.symlink(os.path.realpath(visible), old / name)
        elif visible.exists():
            try:
                os.link(visible, old / name)
            except OSError:
                shutil.copy2(visible, old / name)
    _point(work / CURRENT, old.name)
    for name in names:
        _point(folder / name, _through(name), work)


def _point(place: Path, target: str, work: Path | None = None) -> None:
    """Puts a symbolic link to ``target`` at ``place`` in one step; ``work`` is a folder for it."""
    link = (work or place.parent) / f"link-{secrets.token_hex(4)}"
    os.symlink(target, link)
    os.replace(link, place)


def _through(name: str) -> str:
    """The target of the visible link ``name``."""
    return f"{WORK}/{CURRENT}/{name}"


def _move(folder: Path, staged: Path, names: Iterable[str]) -> None:
    new = os.listdir(staged)
    plan = {"staged": staged.name, "new": new, "gone": sorted(set(names) - set(new))}
    mark = folder / WORK / MOVING
    mark.with_name("mark").write_text(json.dumps(plan), encoding="utf-8")
    os.replace(mark.with_name("mark"), mark)
    _finish_moves(folder)


def _finish_moves(folder: Path) -> None:
    """Moves the files that `MOVING` names and that are not moved yet. A plan that is damaged, or
    that names anything outside ``folder``, is removed."""
    mark = folder / WORK / MOVING
    plan = _plan(mark)
    if plan is None:
        mark.unlink()
        return
    staged = folder / WORK / plan["staged"]
    for name in plan["new"]:
        if (staged / name).exists():
            os.replace(staged / name, folder / name)
    for name in plan["gone"]:
        (folder / name).unlink(missing_ok=True)
    mark.unlink()
