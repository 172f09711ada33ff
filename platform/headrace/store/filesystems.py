"""How a filesystem is opened and what its errors mean: the one place that knows how S3 differs from a disk.

s3fs as it comes keeps listings for ever, asks for an object's size before it reads it, makes a bucket that a person
misspelt, and takes minutes to give up on an endpoint that is gone. Everything of Headrace that reads or writes a URL
opens it here. Credentials come by boto's own ways (environment, files, roles) and are never part of a URL or a message.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base.aws import tell_boto_the_region
from headrace.base.errors import HeadraceError, InvalidInput, MissingExtra, Unavailable

S3_PROTOCOLS = ("s3", "s3a")
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0  # without a byte, after which a request is made again
# botocore repeats a request that met a 5xx, a throttle or no connection, waiting up to 1, 2, 4 and 8 seconds: 7.5 s on
# average, in which a server may be started again. s3fs repeats that five times where it was throttled or cut off.
TRIES = 5
CONNECTIONS = 32  # at once to one store; botocore's 10 are fewer than the threads that read samples ahead

_REFUSED = (
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "XAdminUserNotFound",  # versitygw's word for a key that nobody has
)
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
_NO_CREDENTIALS = {
    "CredentialRetrievalError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}


def is_s3(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Whether FILESYSTEM speaks S3."""
    protocols = filesystem.protocol
    return bool(set(S3_PROTOCOLS) & set((protocols,) if isinstance(protocols, str) else protocols))


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of URL, and URL's path on it. Nothing is asked over the network yet.

    Raises:
        MissingExtra: it is S3, and s3fs is not installed.
        InvalidInput: no filesystem is known or installed for URL.
    """
    options: dict[str, Any] = {name: _s3_options() for name in S3_PROTOCOLS if f"{name}://" in url}
    try:
        if options:
            _teach_s3fs()
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        if options:
            raise MissingExtra("cluster", f"S3 ({url})") from error
        raise InvalidInput(f"no filesystem for {url} is installed: {error}", action=_package_for(url)) from error
    except ValueError as error:
        known = "a path, builtin:digits, s3://, gs://, https:// or another fsspec URL"
        raise InvalidInput(f"{url} is no address: {error}", action=f"give {known}") from error
    return filesystem, str(path)


def passing_errors() -> tuple[type[Exception], ...]:
    """What a read from S3 may meet once and not again: cut off, or content and checksum of two states of an object."""
    from aiohttp import ClientPayloadError
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError  # type: ignore[import-untyped]

    return (FlexibleChecksumError, HTTPClientError, ClientPayloadError)


@cache
def _teach_s3fs() -> None:
    """Have s3fs read again what it would give up."""
    from s3fs.core import add_retryable_error  # type: ignore[import-untyped]

    for kind in passing_errors():
        add_retryable_error(kind)


def _s3_options() -> dict[str, Any]:
    config: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "max_pool_connections": CONNECTIONS,
    }
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        config["retries"] = {"mode": os.environ.get("AWS_RETRY_MODE", "standard"), "max_attempts": TRIES}
    options: dict[str, Any] = {"use_listings_cache": False, "config_kwargs": config}
    tell_boto_the_region()
    return options


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
        if _code_of(error) == "NoSuchBucket":
            raise
        return False
    return True


def files_below(filesystem: fsspec.AbstractFileSystem, folder: str) -> dict[str, dict[str, Any]]:
    """Every file below FOLDER by its path relative to it, with what the filesystem says of it, in one listing.

    An object store has no folders; the empty objects that its tools put in their place (`folder/`) are not files.
    """
    if is_s3(filesystem):
        return dict(_objects_below(filesystem, folder))
    root = folder.rstrip("/") + "/"
    found = filesystem.find(folder, detail=True)
    return {str(name).removeprefix(root): info for name, info in found.items() if str(name).startswith(root)}


def _objects_below(filesystem: Any, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `files_below`, a page of a thousand a request; s3fs's own builds a tree of folders besides."""
    bucket, key, _ = filesystem.split_path(folder.rstrip("/"))
    prefix = f"{key}/" if key else ""
    more: dict[str, str] = {}
    while True:
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                yield entry["Key"][len(prefix) :], {"size": entry["Size"], "ETag": entry["ETag"]}
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


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
    if is_s3(filesystem):
        return s3_explanation(error, url, endpoint_of(filesystem))
    return None if isinstance(error, (FileNotFoundError, FileExistsError)) else _unreachable(url, url, error)


def s3_explanation(error: BaseException, url: str, endpoint: str) -> HeadraceError | None:
    """What ERROR of an S3 client means, or None where something is only not there."""
    code = _code_of(error)
    if code == "NoSuchBucket":
        bucket = url.split("://", 1)[-1].split("/", 1)[0]
        return Unavailable(
            f"there is no bucket {bucket} at {endpoint}",
            action=f"correct {url}, or make it: aws s3 mb s3://{bucket}",
            code="store-no-bucket",
        )
    if isinstance(error, (FileNotFoundError, FileExistsError)):
        return None
    names = {type(one).__name__ for one in _causes(error)}
    if names & _NO_CREDENTIALS:
        return Unavailable(
            f"there are no credentials for {url} at {endpoint}: {_first_line(error)}",
            action="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
            code="store-refused",
        )
    if isinstance(error, PermissionError) or code in _REFUSED:
        return Unavailable(
            f"{endpoint} refuses access to {url}: {_first_line(error)}" + (f" ({code})" if code else ""),
            action="check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or the role) and that they may "
            "list the bucket and get, put and delete objects",
            code="store-refused",
        )
    return _unreachable(url, endpoint, error)


def endpoint_of(filesystem: fsspec.AbstractFileSystem | None = None) -> str:
    """Where S3's requests go (those of FILESYSTEM, or by the environment), as it may stand in a message."""
    client = getattr(filesystem, "_s3", None)
    meta = getattr(client, "meta", None)
    url = getattr(meta, "endpoint_url", None) or os.environ.get("AWS_ENDPOINT_URL_S3")
    url = str(url or os.environ.get("AWS_ENDPOINT_URL") or "AWS")
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rsplit('@', 1)[-1]}"


def _unreachable(url: str, endpoint: str, error: BaseException) -> Unavailable:
    if endpoint == url:
        why, action = _named(error), "check the address, the network and its credentials"
    else:
        silent = type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError")
        why = f"nobody answers at {endpoint}" if silent else f"{endpoint} fails: {_named(error)}"
        action = "check the server and AWS_ENDPOINT_URL; a run that ended for this goes on with `headrace resume`"
    return Unavailable(f"{url} cannot be reached: {why}", action=action, code="store-unavailable")


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _code_of(error: BaseException) -> str:
    """S3's own code of an error, "" where it has none."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


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
