"""A local folder whose files are read and written by name, each file whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nstr3d.io.atomic import atomic_path


class Folder:
    """A folder of the local file system.

    Names of files are paths relative to the folder, with forward slashes.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(os.path.abspath(path))
        self.url = str(self.path)

    def read(self, name: str, most: int | None = None) -> bytes:
        """The content of a file, at most ``most`` bytes from its start. Raises FileNotFoundError if
        there is none."""
        with open(self.path / name, "rb") as file:
            return file.read(-1 if most is None else most)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file atomically and creates its folders."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_bytes(data)

    def put(self, source: Path, name: str) -> None:
        """Copies the local file ``source`` to ``name`` atomically and creates its folders."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)

    def get(self, name: str, target: Path) -> None:
        """Copies a file to the local path ``target``. Raises FileNotFoundError if there is none."""
        shutil.copyfile(self.path / name, target)

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""
        with suppress(FileNotFoundError, NotADirectoryError):
            (self.path / name).unlink()

    def stamp(self, name: str) -> str:
        """A stamp that changes when the file does. Raises FileNotFoundError if there is none."""
        return local_stamp(self.path / name)

    def stamps(self) -> Iterator[tuple[str, str]]:
        """Names and stamps of all files, in order.

        Files whose name has a part that starts with a dot are skipped.
        """
        for folder, folders, files in os.walk(self.path):
            folders[:] = sorted(part for part in folders if not part.startswith("."))
            for file in sorted(files):
                path = os.path.join(folder, file)
                with suppress(FileNotFoundError):
                    if not file.startswith("."):
                        yield (
                            os.path.relpath(path, self.path).replace(os.sep, "/"),
                            local_stamp(path),
                        )

    def names(self, under: str) -> list[str]:
        """Sorted names of the files directly in the folder ``under``; none if it does not exist.

        Files whose name starts with a dot are skipped, as they may be half written.
        """
        folder = self.path / under
        if not folder.is_dir():
            return []
        entries = (entry for entry in os.scandir(folder) if not entry.name.startswith("."))
        return sorted(entry.name for entry in entries if entry.is_file())


def local_stamp(path: str | os.PathLike[str]) -> str:
    """The size and modification time of a file, as one word; it changes when the file does.

    Raises OSError if the file cannot be found.
    """
    stats = os.stat(path)
    return f"{stats.st_size}-{stats.st_mtime_ns}"
