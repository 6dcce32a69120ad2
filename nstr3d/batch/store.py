"""Stores of data sets: local folders, and folders behind URLs.

URLs are those that fsspec supports (s3://, gs://, memory:// ...). `Folder` and `Bucket` have the
same methods. Names of files are paths relative to the store, with forward slashes. Files are
written atomically: a reader sees a complete file or none.
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

# protocol to the extra of nstr3d that installs its driver
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}


class Folder:
    """A data set in a local folder."""

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
        """Sorted names of the files directly in the folder ``under``; none if it does not exist."""
        folder = self.path / under
        return (
            sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
            if folder.is_dir()
            else []
        )


class Bucket:
    """A data set behind a URL.

    Raises ValueError for an unknown protocol and ModuleNotFoundError if its driver is missing.
    """

    def __init__(self, url: str):
        self.fs, self.root = filesystem(url)
        self.url = url

    def read(self, name: str, most: int | None = None) -> bytes:
        """The content of a file, at most ``most`` bytes from its start. Raises FileNotFoundError if
        there is none."""
        return self.fs.cat_file(self._path_of(name), end=most)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file; an object store shows it only when it is complete."""
        self.fs.makedirs(self._path_of(name).rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(self._path_of(name), data)

    def put(self, source: Path, name: str) -> None:
        """Copies the local file ``source`` to ``name``."""
        self.fs.makedirs(self._path_of(name).rpartition("/")[0], exist_ok=True)
        self.fs.put_file(str(source), self._path_of(name))

    def get(self, name: str, target: Path) -> None:
        """Copies a file to the local path ``target``. Raises FileNotFoundError if there is none."""
        self.fs.get_file(self._path_of(name), str(target))

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self._path_of(name))

    def stamp(self, name: str) -> str:
        """A stamp that changes when the file does. Raises FileNotFoundError if there is none."""
        return remote_stamp(self.fs.info(self._path_of(name)))

    def stamps(self) -> Iterator[tuple[str, str]]:
        """Names and stamps of all files, in order.

        Files whose name has a part that starts with a dot are skipped.
        """
        self.fs.invalidate_cache()
        for path, info in sorted(self.fs.find(self.root, detail=True).items()):
            name = path[len(self.root) :].lstrip("/")
            if not any(part.startswith(".") for part in name.split("/")):
                yield name, remote_stamp(info)

    def names(self, under: str) -> list[str]:
        """Sorted names of the files directly in the folder ``under``; none if it does not exist."""
        self.fs.invalidate_cache()
        try:
            entries = self.fs.ls(self._path_of(under), detail=True)
        except FileNotFoundError:
            return []
        return sorted(
            info["name"].rstrip("/").rpartition("/")[2]
            for info in entries
            if info["type"] == "file"
        )

    def _path_of(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root


Store = Folder | Bucket


def open_store(place: str) -> Store:
    """The store at ``place``, a local path or a URL; ``file://`` is local.

    Raises the errors of `Bucket`.
    """
    return Folder(local_path(place)) if is_local(place) else Bucket(place)


def is_local(place: str) -> bool:
    """Whether ``place`` is a local path or a ``file://`` URL."""
    return place.startswith("file://") or ("://" not in place and "::" not in place)


def local_path(place: str) -> str:
    """The local path of a ``place`` for which `is_local` holds."""
    return place.removeprefix("file://")


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of ``url`` and the path in it.

    Raises ValueError for an unknown protocol and ModuleNotFoundError if its driver is missing.
    """
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        protocol = url.partition("://")[0]
        needed = f"pip install nstr3d[{EXTRAS[protocol]}]" if protocol in EXTRAS else str(error)
        raise ModuleNotFoundError(
            f"URLs with {protocol}:// need an fsspec driver: {needed}."
        ) from error
    except ValueError as error:
        raise ValueError(f"{url}: {error}; use a path or a URL that fsspec supports.") from error
    return fs, path.rstrip("/")


def local_stamp(path: str | os.PathLike[str]) -> str:
    """The size and modification time of a file, as one word; it changes when the file does.

    Raises OSError if the file cannot be found.
    """
    stats = os.stat(path)
    return f"{stats.st_size}-{stats.st_mtime_ns}"


def remote_stamp(info: Mapping[str, Any]) -> str:
    """The size and a version of an object, as one word; it changes when the object does.

    ``info`` is fsspec's description of the object. The version is the checksum, or the modification
    time if the store gives no checksum.
    """
    versions = (
        info.get(name)
        for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")
    )
    value = next((value for value in versions if value is not None), "")
    return f"{info.get('size')}-{value.timestamp() if isinstance(value, datetime) else value}"
