"""Writes that depend on what is there: of several writers at most one succeeds, on a disk and on S3 alike.

On S3 they are PUTs with `If-None-Match: *` and `If-Match: <etag>`, which AWS, MinIO and versitygw answer with 412 where
the condition does not hold. A server that ignores them cannot hold a store; `proves_conditions` finds that out. On a
disk a file is linked into place, and replaced under a lock beside it. Other object stores create as fsspec has it, and
compare before they write: enough for one machine, not for two that race.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base.errors import Unavailable
from headrace.base.locks import file_lock
from headrace.store.filesystems import read_whole
from headrace.store.s3 import endpoint_of, is_s3, passing_errors

_WRITER = "headrace-writer"  # metadata of an object: the draw of whoever wrote it
_CONFLICT_TRIES = 5  # S3 says 409 where two conditional writes met; neither was judged yet
_CONFLICT_SECONDS = 0.05  # before the next try, up to twice as long each time: those that met must not meet again

_READ_WAITS_SECONDS = (0.02, 0.1, 0.5)

Found = tuple[bytes, str] | None  # what is there, and what names this very state of it


def create(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write DATA at PATH unless something is there; whether it was written. Readers see all of it or nothing."""
    if is_s3(filesystem):
        return _put(filesystem, path, data, {"IfNoneMatch": "*"})
    if isinstance(filesystem, LocalFileSystem):
        return _link(Path(path), data)
    try:
        filesystem.pipe_file(path, data, mode="create")
    except FileExistsError:
        return False
    return True


def read(filesystem: fsspec.AbstractFileSystem, path: str) -> Found:
    """What is at PATH and the state's name, for `replace`; None where nothing is."""
    try:
        if is_s3(filesystem):
            return _get(filesystem, path)
        data = read_whole(filesystem, path)
        return data, data.hex()
    except FileNotFoundError:
        return None


def replace(filesystem: fsspec.AbstractFileSystem, path: str, data: bytes, found: Found) -> bool:
    """Write DATA at PATH if what is there is still FOUND (from `read`); whether it was written."""
    if found is None:
        return create(filesystem, path, data)
    if is_s3(filesystem):
        return _put(filesystem, path, data, {"IfMatch": found[1]})
    if not isinstance(filesystem, LocalFileSystem):
        if read(filesystem, path) != found:
            return False
        filesystem.pipe_file(path, data)
        return True
    with file_lock(f"{path}.lock", holder=f"process {os.getpid()}, writing {path}"):
        if read(filesystem, path) != found:
            return False
        temporary = _temporary(Path(path), data)
        temporary.replace(path)
        return True


def proves_conditions(filesystem: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether the server behind FILESYSTEM keeps conditions, tried at the free PATH, which is free again afterwards."""
    first = create(filesystem, path, b"1")
    try:
        again = create(filesystem, path, b"2")
        found = read(filesystem, path)
        swapped = replace(filesystem, path, b"3", found)
        late = replace(filesystem, path, b"4", found)
    finally:
        filesystem.rm_file(path)
    return (first, again, swapped, late) == (True, False, True, False)


# S3


def _put(filesystem: Any, path: str, data: bytes, condition: dict[str, str]) -> bool:
    """PUT on a CONDITION; whether it held.

    A PUT whose answer was lost is sent again, and is then refused because of itself: so whoever is refused looks
    whether it was the writer.
    """
    bucket, key, _ = filesystem.split_path(path)
    draw = secrets.token_hex(8)
    _require_conditions(filesystem, condition)
    for tries_left in reversed(range(_CONFLICT_TRIES)):
        try:
            filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=data, Metadata={_WRITER: draw}, **condition)
            return True
        except FileNotFoundError:  # If-Match where nothing is any more
            if _status(None, filesystem, bucket, key) is None and "IfMatch" in condition:
                return False
            raise
        except OSError as error:
            status = _http_status(error)
            if status not in (409, 412):
                raise
            if status == 412 or not tries_left:
                return _status(draw, filesystem, bucket, key) is True
            time.sleep(random.uniform(0.5, 1.0) * _CONFLICT_SECONDS * 2 ** (_CONFLICT_TRIES - 1 - tries_left))
    raise AssertionError("unreachable")


def _status(draw: str | None, filesystem: Any, bucket: str, key: str) -> bool | None:
    """Whether the object was written with DRAW; None where there is none."""
    try:
        answer = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return None
    return draw is not None and answer.get("Metadata", {}).get(_WRITER) == draw


def _http_status(error: BaseException) -> int:
    response = getattr(error.__cause__, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _require_conditions(filesystem: Any, condition: dict[str, str]) -> None:
    """Raise Unavailable where the installed botocore knows no such condition: s3fs would leave it out in silence."""
    filesystem.connect()
    known = filesystem.s3.meta.service_model.operation_model("PutObject").input_shape.members
    missing = [name for name in condition if name not in known]
    if missing:
        raise Unavailable(
            f"the installed botocore cannot write to {endpoint_of(filesystem)} on a condition ({', '.join(missing)})",
            action="pip install --upgrade 'headrace[cluster]'",
            code="store-too-old",
        )


def _get(filesystem: Any, path: str) -> Found:
    """Content and ETag of one state of an object.

    A gateway over a disk may answer in the middle of a write with the content of one state and the ETag of another. The
    ETag of what we write is its MD5, unless the server encrypts: so a pair that does not fit is asked for again, and
    taken if it stays.
    """
    from fsspec.asyn import sync

    bucket, key, _ = filesystem.split_path(path)

    async def get() -> tuple[bytes, str]:
        answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key)
        async with answer["Body"] as stream:
            return bytes(await stream.read()), str(answer["ETag"])

    for wait_seconds in (*_READ_WAITS_SECONDS, None):
        try:
            data, tag = sync(filesystem.loop, get)
        except Exception as error:
            if wait_seconds is None or not isinstance(error, passing_errors()):
                raise
        else:
            if wait_seconds is None or tag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest():
                return data, tag
        time.sleep(wait_seconds)
    raise AssertionError("unreachable")


# a disk


def _link(path: Path, data: bytes) -> bool:
    temporary = _temporary(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a filesystem without links: the file is seen before it is whole, for the length of one write
        return _exclusively(path, data)
    finally:
        temporary.unlink()
    return True


def _exclusively(path: Path, data: bytes) -> bool:
    try:
        with open(path, "xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _temporary(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.write_bytes(data)
    return temporary
