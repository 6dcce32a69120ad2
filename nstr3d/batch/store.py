"""Where a data set lies: a folder here, or one behind a URL that fsspec knows (s3://, gs://,
memory:// ...).

Both kinds answer alike. Names are relative, with forward slashes. A file appears whole or not at
all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from nstr3d.io.atomic import atomic_path

# protocol: our extra that brings its driver
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}


class Folder:
    """A data set in a local folder."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(os.path.abspath(path))
        self.url = str(self.path)

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, folders included, atomically."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_bytes(data)

    def put(self, source: Path, name: str) -> None:
        """Copies the local file ``source`` to ``name``, atomically."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)

    def get(self, name: str, target: Path) -> None:
        """Copies a file to the local path ``target``. Raises FileNotFoundError."""
        shutil.copyfile(self.path / name, target)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with suppress(FileNotFoundError, NotADirectoryError):
            (self.path / name).unlink()

    def stamp(self, name: str) -> str:
        """What changes when the file does. Raises FileNotFoundError."""
        return local_stamp(self.path / name)

    def stamps(self) -> Iterator[tuple[str, str]]:
        """Name and stamp of every file whose path has no part that starts with a dot, in order."""
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
        """The files directly in a folder, in order; none where there is no such folder."""
        folder = self.path / under
        return (
            sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
            if folder.is_dir()
            else []
        )


class Bucket:
    """A data set behind a URL. Raises ValueError for an unknown protocol, ModuleNotFoundError where
    its driver is missing."""

    def __init__(self, url: str):
        self.fs, self.root = filesystem(url)
        self.url = url

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        return self.fs.cat_file(self._at(name))

    def write(self, name: str, data: bytes) -> None:
        """Writes a file; object stores show it when it is complete."""
        self.fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(self._at(name), data)

    def put(self, source: Path, name: str) -> None:
        """Copies the local file ``source`` to ``name``."""
        self.fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
        self.fs.put_file(str(source), self._at(name))

    def get(self, name: str, target: Path) -> None:
        """Copies a file to the local path ``target``. Raises FileNotFoundError."""
        self.fs.get_file(self._at(name), str(target))

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self._at(name))

    def stamp(self, name: str) -> str:
        """What changes when the file does. Raises FileNotFoundError."""
        return remote_stamp(self.fs.info(self._at(name)))

    def stamps(self) -> Iterator[tuple[str, str]]:
        """Name and stamp of every file whose path has no part that starts with a dot, in order."""
        self.fs.invalidate_cache()
        for path, info in sorted(self.fs.find(self.root, detail=True).items()):
            name = path[len(self.root) :].lstrip("/")
            if not any(part.startswith(".") for part in name.split("/")):
                yield name, remote_stamp(info)

    def names(self, under: str) -> list[str]:
        """The files directly in a folder, in order; none where there is no such folder."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self._at(under), detail=True)
        except FileNotFoundError:
            return []
        return sorted(
            info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "file"
        )

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root


Store = Folder | Bucket


def open_store(place: str) -> Store:
    """The store at a local path or a URL; ``file://`` is local."""
    return Folder(local_path(place)) if is_local(place) else Bucket(place)


def is_local(place: str) -> bool:
    """Whether ``place`` is a path here, not a URL of elsewhere."""
    return place.startswith("file://") or ("://" not in place and "::" not in place)


def local_path(place: str) -> str:
    """The local path that ``place`` names, which `is_local`."""
    return place.removeprefix("file://")


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for ``url`` and the path in it. Raises ValueError or ModuleNotFoundError
    with one sentence."""
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        protocol = url.partition("://")[0]
        needed = f"pip install nstr3d[{EXTRAS[protocol]}]" if protocol in EXTRAS else str(error)
        raise ModuleNotFoundError(
            f"Reaching {protocol}:// needs its fsspec driver: {needed}."
        ) from error
    except ValueError as error:
        raise ValueError(f"{url}: {error}; paths and URLs that fsspec knows work.") from error
    return fs, path.rstrip("/")


def local_stamp(path: str | os.PathLike[str]) -> str:
    """Changes when the file does: its size and time of change."""
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns}"


def remote_stamp(info: Mapping[str, Any]) -> str:
    """Changes when the object does: its size and, of what its store knows, its checksum or else its
    time of change."""
    known = (
        info.get(name)
        for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")
    )
    value = next((value for value in known if value is not None), "")
    return f"{info.get('size')}-{value.timestamp() if isinstance(value, datetime) else value}"
