"""Where data comes from: one view of a local folder or file, any fsspec URL, and what is built in.

Everything above this module names files by a path relative to the source and by a URI; only this one knows how a
filesystem lists, opens and stamps them. Works on the base install: a plan fingerprints its source with it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base.errors import DataInvalid, HeadraceError, InvalidInput, MissingExtra, Unavailable
from headrace.base.jsonfile import canonical
from headrace.data import builtin
from headrace.store.filesystems import (
    explanation,
    files_below,
    open_filesystem,
    open_to_pick,
    open_to_scan,
    reached,
    read_whole,
)

fsspec.register_implementation("builtin", builtin.BuiltinFileSystem, clobber=True)

# What filesystems call the thing that changes when a file does, best first.
STAMPS = ("etag", "ETag", "e_tag", "md5Hash", "version_id", "content_md5", "LastModified", "last_modified", "updated")
STAMPS_OF_TIME = ("mtime", "created")
SCAN_BYTES = 8 << 20  # fetched at once of a file on S3 that is read from its beginning


@dataclass(frozen=True)
class SourceFile:
    """One file of a source. `path` is relative to the source, `stamp` an mtime in ns, an etag or a version."""

    path: str
    size: int
    stamp: str


class Source:
    """A folder or a single file, local or remote. Opening it touches nothing; listing and reading do.

    Args:
        address: an absolute path, an fsspec URL or `builtin:NAME`.

    Raises:
        DataInvalid: no filesystem is known for this address.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        name = address.removeprefix("builtin:")
        if name != address:
            address = f"builtin://{name.strip('/')}"
        self.base = address.rstrip("/") or "/"
        self.local = "://" not in address
        self.filesystem: fsspec.AbstractFileSystem
        if self.local:
            self.base = os.path.abspath(Path(address).expanduser())  # noqa: PTH100  (resolve would follow links)
            self.filesystem, self.root = LocalFileSystem(), self.base
        else:
            self.filesystem, self.root = _filesystem_of(self.base)
        self._held: list[SourceFile] | None = None

    def uri(self, path: str) -> str:
        """The URI of the file at PATH: an absolute local path, or a URL."""
        return self.base if path == "" else f"{self.base}/{path}"

    def is_file(self) -> bool:
        """Whether the source is one file (whose relative path is then the empty string)."""
        if self._held is not None:
            return [file.path for file in self._held] == [""]
        with listed(self.address, self.filesystem):
            if self.local:
                return Path(self.root).is_file()
            try:
                return bool(self.filesystem.info(self.root)["type"] == "file")
            except FileNotFoundError as error:
                if explanation(error, self.address, self.filesystem) is not None:
                    raise
                return False

    def files(self) -> list[SourceFile]:
        """Every file in order of its path; hidden ones (`.name`, also as a folder) and `__MACOSX` are not there.

        Raises:
            DataInvalid: there is nothing at this address, or it may not be read.
            Unavailable: its filesystem does not answer.
        """
        if self._held is not None:
            return self._held
        with listed(self.address, self.filesystem):
            found = _walk(self.root) if self.local else self._find()
        return sorted(found, key=lambda file: file.path)

    def hold(self) -> None:
        """List now and go by that listing from now on: what is read is then what the fingerprint is of."""
        self._held = self.files()

    def _find(self) -> list[SourceFile]:
        self.filesystem.invalidate_cache()
        found = files_below(self.filesystem, self.root)
        if not found:
            info = self.filesystem.info(self.root)
            return [] if info["type"] == "directory" else [SourceFile("", int(info.get("size") or 0), _stamp(info))]
        return [SourceFile(p, int(info.get("size") or 0), _stamp(info)) for p, info in found.items() if not _hidden(p)]

    def folders(self) -> list[str]:
        """The names of the folders directly inside, empty ones too where the filesystem has such."""
        with listed(self.address, self.filesystem):
            if self.local:
                names = [entry.name for entry in os.scandir(self.root) if entry.is_dir()]
            else:
                inside = self.filesystem.ls(self.root, detail=True)
                names = [str(i["name"]).rstrip("/").rsplit("/", 1)[-1] for i in inside if i["type"] == "directory"]
        return sorted(name for name in names if not _hidden(name))

    def read(self, path: str) -> bytes:
        """The bytes of the file at PATH."""
        return read_uri(self.uri(path))

    def fingerprint(self) -> str:
        """Hex sha256 of the listing: address, and path, size and stamp of every file."""
        digest = hashlib.sha256(self.base.encode())
        for file in self.files():
            digest.update(canonical([file.path, file.size, file.stamp]).encode())
        return digest.hexdigest()


def fingerprint_source(data: Mapping[str, Any], source: Source | None = None) -> str:
    """What changes when a file of the source does, from a listing alone: no file is read.

    Args:
        data: the spec's `data` part (canonical).
        source: the same source, opened already, with the listing that it holds.

    Raises:
        DataInvalid: there is nothing at the source.
        MissingExtra: the source is built in and scikit-learn, which brings it, is not installed.
        Unavailable: the source's filesystem does not answer.
    """
    source = source or Source(str(data["source"]))
    if source.base.startswith("builtin://"):
        return hashlib.sha256(f"{source.base} {builtin.version(source.root)}".encode()).hexdigest()
    return source.fingerprint()


def read_uri(uri: str) -> bytes:
    """The bytes at URI. Raises DataInvalid where it is gone, Unavailable where its filesystem does not answer."""
    if "://" not in uri:
        with explained(uri, None):
            return Path(uri).read_bytes()
    filesystem, path = _filesystem_of(uri)
    with explained(uri, filesystem):
        return read_whole(filesystem, path)


@contextmanager
def scanned(uri: str) -> Iterator[BinaryIO]:
    """The file at URI, to read it from its beginning; decompressed if its name ends like a compressed one.

    Raises as `read_uri`, also for what happens while it is read in the block.
    """
    filesystem, path = _filesystem_of(uri)
    with (
        explained(uri, filesystem),
        open_to_scan(filesystem, path, ahead_bytes=SCAN_BYTES, compression="infer") as file,
    ):
        yield cast(BinaryIO, file)


@contextmanager
def picked(uri: str) -> Iterator[BinaryIO]:
    """The file at URI, to read pieces of it. Raises as `scanned`."""
    filesystem, path = _filesystem_of(uri)
    with explained(uri, filesystem), open_to_pick(filesystem, path) as file:
        yield cast(BinaryIO, file)


@contextmanager
def explained(address: str, filesystem: fsspec.AbstractFileSystem | None) -> Iterator[None]:
    """Turn what filesystems raise into errors that say what to do."""
    try:
        yield
    except HeadraceError:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        told = explanation(error, address, filesystem) if isinstance(error, FileNotFoundError) else None
        raise told or _unreadable(address, error) from error
    except Exception as error:
        if type(error).__name__ == "FileExpired":  # s3fs's word for another ETag than when the file was opened
            message = f"{address} was changed while it was read"
            raise DataInvalid(message, action="run again when nothing writes to it any more") from error
        told = explanation(error, address, filesystem)
        if told is None and not isinstance(error, OSError):
            raise
        message = f"{address} cannot be reached: {type(error).__name__}: {error}"
        action = "check the address, the network and its credentials"
        raise told or Unavailable(message, action=action) from error


def _unreadable(address: str, error: OSError) -> DataInvalid:
    if isinstance(error, FileNotFoundError):
        return DataInvalid(f"there is nothing at {address}", action="check the path that was given, or data.source")
    return DataInvalid(f"{address} cannot be read: {error}", action="check its permissions")


@contextmanager
def listed(address: str, filesystem: fsspec.AbstractFileSystem) -> Iterator[None]:
    """As `explained`, for the source as a whole: there a refusal is the store's, not one file's."""
    with explained(address, filesystem), reached(address, filesystem):
        yield


def _filesystem_of(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    if "://" not in uri:
        return LocalFileSystem(), uri
    try:
        return open_filesystem(uri)
    except MissingExtra:
        raise
    except InvalidInput as error:
        raise DataInvalid(error.message, action=error.action) from error


def _hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _stamp(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in (*STAMPS, *STAMPS_OF_TIME) if info.get(key)), "")


def _walk(root: str) -> list[SourceFile]:
    if Path(root).is_file():
        status = Path(root).stat()
        return [SourceFile("", status.st_size, str(status.st_mtime_ns))]
    found: list[SourceFile] = []
    seen: set[str] = set()  # real paths, so that links that point upwards end
    folders = [""]
    while folders:
        folder = folders.pop()
        real = os.path.realpath(f"{root}/{folder}")
        if real in seen:
            continue
        seen.add(real)
        for entry in os.scandir(f"{root}/{folder}"):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if _hidden(entry.name):
                continue
            if entry.is_dir():
                folders.append(path)
            elif entry.is_file():  # links to files too; dangling ones are neither
                status = entry.stat()
                found.append(SourceFile(path, status.st_size, str(status.st_mtime_ns)))
            else:
                found.append(SourceFile(path, 0, "not a file"))
    return found
