"""Stores of data sets: local folders, and folders behind URLs.

URLs are those that fsspec supports (s3://, gs://, memory:// ...). `Folder` and `Bucket` have the
same methods. Names of files are paths relative to the store, with forward slashes. Files are
written atomically: a reader sees the old file, the new one or none, each complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from nstr3d.io.fileset import discard, replace_set, settle, stage
from nstr3d.io.folder import Folder

# Object stores show an object only when its upload is complete. Elsewhere (sftp://, memory:// ...)
# a file can be read while it is written.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "tos", "r2"}
# protocol to the extra of nstr3d that installs its driver
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}


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
        """Writes a file."""
        with self._whole(name) as path:
            self.fs.pipe_file(path, data)

    def put(self, source: Path, name: str) -> None:
        """Copies the local file ``source`` to ``name``."""
        with self._whole(name) as path:
            self.fs.put_file(str(source), path)

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
        """Sorted names of the files directly in the folder ``under``; none if it does not exist.

        Files whose name starts with a dot are skipped, as they may be half written.
        """
        self.fs.invalidate_cache()
        try:
            entries = self.fs.ls(self._path_of(under), detail=True)
        except FileNotFoundError:
            return []
        files = (info["name"].rstrip("/") for info in entries if info["type"] == "file")
        names = (path.rpartition("/")[2] for path in files)
        return sorted(name for name in names if not name.startswith("."))

    @contextmanager
    def _whole(self, name: str) -> Iterator[str]:
        """The path to write in the block: that of ``name`` in an object store, else a path beside
        it that is renamed to ``name`` after the block."""
        path = self._path_of(name)
        folder, _, last = path.rpartition("/")
        protocol = self.fs.protocol
        if OBJECT_STORES & {*((protocol,) if isinstance(protocol, str) else protocol)}:
            yield path  # has no folders; makedirs would make a bucket of a mistyped name
            return
        self.fs.makedirs(folder, exist_ok=True)
        aside = f"{folder}/.{last}.{uuid4().hex}"
        try:
            yield aside
            _rename(self.fs, aside, path)
        except BaseException:
            with suppress(OSError):
                self.fs.rm_file(aside)
            raise

    def _path_of(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root


Store = Folder | Bucket


def replace_files(
    store: Store, under: str, files: Mapping[str, Path | bytes], names: Iterable[str]
) -> None:
    """Writes ``files``, copies of paths or bytes, into the folder ``under`` of a store, where they
    replace the set ``names``.

    In a local folder all change at once. Behind a URL they change one by one, in order.
    """
    if isinstance(store, Bucket):
        for name, content in files.items():
            if isinstance(content, bytes):
                store.write(f"{under}/{name}", content)
            else:
                store.put(content, f"{under}/{name}")
        for name in set(names) - files.keys():
            store.remove(f"{under}/{name}")
        return
    folder = store.path / under
    folder.mkdir(parents=True, exist_ok=True)
    settle(folder)
    staged = stage(folder)
    try:
        for name, content in files.items():
            if isinstance(content, bytes):
                (staged / name).write_bytes(content)
            else:
                shutil.copyfile(content, staged / name)
        replace_set(folder, staged, names)
    except BaseException:
        discard(staged)
        raise


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


def _rename(fs: Any, old: str, new: str) -> None:
    """Renames a file of an fsspec file system; ``new`` is replaced if it exists."""
    from fsspec import AbstractFileSystem

    if type(fs).mv is AbstractFileSystem.mv:  # a copy of patterns, in which [ and * are special
        fs.cp_file(old, new)
        fs.rm_file(old)
        return
    try:
        fs.mv(old, new)
    except FileExistsError:
        fs.rm_file(new)
        fs.mv(old, new)


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
