"""How a filesystem is opened and what its errors mean: the one place that knows how S3 differs from a disk.

s3fs as it comes keeps listings for ever, asks for an object's size before it reads it, makes a bucket that a person
misspelt, and takes minutes to give up on an endpoint that is gone. Everything of Headrace that reads or writes a URL
opens it here.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base.errors import HeadraceError, InvalidInput, MissingExtra
from headrace.store.s3 import (
    S3_PROTOCOLS,
    client_options,
    code_of,
    endpoint_of,
    is_s3,
    objects_below,
    s3_explanation,
    teach_s3fs,
    unreachable,
)

_OF_THIS_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_TRANSPORTS = {
    "adlfs",
    "aiobotocore",
    "aiohttp",
    "azure",
    "boto3",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "s3fs",
    "urllib3",
}


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of URL, and URL's path on it. Nothing is asked over the network yet.

    Raises:
        MissingExtra: it is S3, and s3fs is not installed.
        InvalidInput: no filesystem is known or installed for URL.
    """
    options: dict[str, Any] = {name: client_options() for name in S3_PROTOCOLS if f"{name}://" in url}
    try:
        if options:
            teach_s3fs()
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        if options:
            raise MissingExtra("cluster", f"S3 ({url})") from error
        raise InvalidInput(f"no filesystem for {url} is installed: {error}", action=_package_for(url)) from error
    except ValueError as error:
        known = "a path, builtin:digits, s3://, gs://, https:// or another fsspec URL"
        raise InvalidInput(f"{url} is no address: {error}", action=f"give {known}") from error
    return filesystem, str(path)


def _package_for(url: str) -> str:
    known = {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "http": "aiohttp"}
    protocol = url.split("://", 1)[0].split("::")[-1]
    return f"pip install {known.get(protocol.removesuffix('s') if protocol == 'https' else protocol, 'its package')}"


def read_whole(filesystem: fsspec.AbstractFileSystem, path: str) -> bytes:
    """The bytes at PATH, in one request. Raises FileNotFoundError."""
    one_request = {"max_concurrency": 1} if is_s3(filesystem) else {}
    return cast(bytes, filesystem.cat_file(path, **one_request))


def open_to_scan(filesystem: fsspec.AbstractFileSystem, path: str, *, ahead_bytes: int, **rest: Any) -> Any:
    """The file at PATH for reading from its beginning on, AHEAD_BYTES fetched at once from S3."""
    return filesystem.open(path, "rb", **({"block_size": ahead_bytes} if is_s3(filesystem) else {}), **rest)


def open_to_pick(filesystem: fsspec.AbstractFileSystem, path: str) -> Any:
    """The file at PATH for reading pieces here and there: nothing is fetched that is not asked for."""
    return filesystem.open(path, "rb", **({"cache_type": "none"} if is_s3(filesystem) else {}))


def is_there(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether there is a file or folder at PATH."""
    if isinstance(filesystem, LocalFileSystem):
        return bool(filesystem.exists(path))
    try:
        filesystem.info(path)
    except FileNotFoundError as error:
        if code_of(error) == "NoSuchBucket":
            raise
        return False
    return True


def files_below(filesystem: fsspec.AbstractFileSystem, folder: str) -> dict[str, dict[str, Any]]:
    """Every file below FOLDER by its path relative to it, with what the filesystem says of it, in one listing.

    An object store has no folders; the empty objects that its tools put in their place (`folder/`) are not files.
    """
    if is_s3(filesystem):
        return dict(objects_below(filesystem, folder))
    root = folder.rstrip("/") + "/"
    found = filesystem.find(folder, detail=True)
    return {str(name).removeprefix(root): info for name, info in found.items() if str(name).startswith(root)}


# errors


@contextmanager
def reached(url: str, filesystem: fsspec.AbstractFileSystem) -> Iterator[None]:
    """Turn a store's refusals and silences inside the block into Unavailable, which names URL and its endpoint.

    What is simply not there stays FileNotFoundError, and what a local disk raises is left alone.
    """
    try:
        yield
    except Exception as error:
        told = explanation(error, url, filesystem)
        if told is None:
            raise
        raise told from error


def explanation(
    error: BaseException, url: str, filesystem: fsspec.AbstractFileSystem | None = None
) -> HeadraceError | None:
    """What ERROR of FILESYSTEM at URL means for people, or None where it says so itself."""
    if isinstance(error, HeadraceError) or filesystem is None or isinstance(filesystem, LocalFileSystem):
        return None
    if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _TRANSPORTS:
        return None
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_THIS_MACHINE):
        return None
    if is_s3(filesystem):
        return s3_explanation(error, url, endpoint_of(filesystem))
    return None if isinstance(error, (FileNotFoundError, FileExistsError)) else unreachable(url, url, error)


def get_within(filesystem: fsspec.AbstractFileSystem, remote: str, local: str, seconds: float) -> None:
    """Copy the file REMOTE to LOCAL. Raises TimeoutError where that takes more than SECONDS, however it trickles."""
    from fsspec.asyn import AsyncFileSystem, sync
    from fsspec.exceptions import FSTimeoutError

    if not isinstance(filesystem, AsyncFileSystem):
        filesystem.get_file(remote, local)
        return
    try:
        sync(filesystem.loop, filesystem._get_file, remote, local, timeout=seconds)
    except FSTimeoutError as error:
        raise TimeoutError(f"{remote} did not arrive within {seconds:.0f} s") from error
