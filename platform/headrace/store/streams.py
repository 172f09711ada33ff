"""Files that are read and written in pieces, whole or not at all, with their hash taken on the way.

For what is too large for memory: files of a backup, on any filesystem that fsspec knows.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.store.filesystems import open_to_scan, read_whole

PIECE_BYTES = 8 * 1024 * 1024  # in memory at once; an S3 upload's part
MOST_PARTS = 9000  # of one upload; S3 takes 10,000
Beat = Callable[[], None]  # called between pieces: whoever holds a lock renews it


class Hashed:
    """A file that is written to, with the number and the sha256 of the bytes that went through."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        """Write DATA."""
        self._digest.update(data)
        self.bytes += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing: pieces are flushed as they fill."""

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()


@contextmanager
def whole_file(filesystem: fsspec.AbstractFileSystem, path: str, size: int = 0) -> Iterator[IO[bytes]]:
    """A file to write to, which stands at PATH when the block ends well, and nowhere otherwise.

    Where SIZE is known and large, an object store gets larger parts: it takes so many of them and no more.
    """
    if isinstance(filesystem, LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("wb") as file:
                yield file
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return
    remote = filesystem.open(path, "wb", block_size=max(PIECE_BYTES, size // MOST_PARTS + 1))
    try:
        yield remote
    except BaseException:
        with suppress(Exception):
            remote.discard()  # else closing would complete it
        remote.closed = True
        raise
    remote.close()


class ChangedMeanwhile(Exception):
    """A file was written anew while it was read: what was read is of no one state of it."""


def pieces(filesystem: fsspec.AbstractFileSystem, path: str, size: int) -> Iterator[bytes]:
    """The file at PATH, a piece at a time; in one request where SIZE says that it is small.

    Raises:
        ChangedMeanwhile: it is on S3 and was written anew between two pieces.
        FileNotFoundError: there is none.
    """
    if size <= PIECE_BYTES:
        yield read_whole(filesystem, path)
        return
    try:
        with open_to_scan(filesystem, path, ahead_bytes=PIECE_BYTES) as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        if type(error).__name__ == "FileExpired":  # s3fs's word for another ETag than when the file was opened
            raise ChangedMeanwhile(path) from error
        raise


def hash_of(source: Iterable[bytes], beat: Beat) -> tuple[str, int]:
    """The sha256 and the size of what the pieces of SOURCE are together."""
    digest, size = hashlib.sha256(), 0
    for piece in source:
        digest.update(piece)
        size += len(piece)
        beat()
    return digest.hexdigest(), size


def copy(
    source: Iterable[bytes], target: fsspec.AbstractFileSystem, to: str, *, sha256: str, size: int, beat: Beat
) -> bool:
    """Write the pieces of SOURCE at TO as a whole; whether they were what SHA256 says. If not, nothing is at TO."""
    try:
        with whole_file(target, to, size) as file:
            hashed = Hashed(file)
            for piece in source:
                hashed.write(piece)
                beat()
            if hashed.sha256 != sha256:
                raise _OtherBytes
    except _OtherBytes:
        return False
    return True


class _OtherBytes(Exception):
    pass


def write_lines(filesystem: fsspec.AbstractFileSystem, path: str, values: Iterable[Any]) -> tuple[Hashed, int]:
    """Write VALUES at PATH, a line of JSON each, compressed; the hashed file, and how many lines."""
    lines = 0
    with whole_file(filesystem, path) as file:
        hashed = Hashed(file)
        with gzip.GzipFile(filename="", fileobj=hashed, mode="wb", compresslevel=6, mtime=0) as packed:
            for value in values:
                packed.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                lines += 1
    return hashed, lines


def read_lines(filesystem: fsspec.AbstractFileSystem, path: str) -> Iterator[Any]:
    """The values that `write_lines` wrote, as they are asked for."""
    with (
        open_to_scan(filesystem, path, ahead_bytes=PIECE_BYTES) as file,
        gzip.GzipFile(fileobj=file, mode="rb") as packed,
    ):
        for line in packed:
            yield json.loads(line)
