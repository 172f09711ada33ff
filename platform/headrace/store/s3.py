"""What S3 is to Headrace: how its client is set up, and what its errors mean for people.

Credentials come by boto's own ways (environment, files, roles) and are never part of a URL or a message.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import fsspec

from headrace.base.aws import tell_boto_the_region
from headrace.base.errors import HeadraceError, Unavailable

S3_PROTOCOLS = ("s3", "s3a")
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0  # without a byte, after which a request is made again
# botocore repeats a request that met a 5xx, a throttle or no connection, waiting up to 1, 2, 4, 8 and 16 seconds: half
# of that on average, in which a server may be started again. s3fs repeats that five times if throttled or cut off.
REPEATS = 5  # after the first try: what botocore's Config calls max_attempts, unlike the variable
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


def passing_errors() -> tuple[type[Exception], ...]:
    """What a read from S3 may meet once and not again: cut off, or content and checksum of two states of an object."""
    from aiohttp import ClientPayloadError
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError  # type: ignore[import-untyped]

    return (FlexibleChecksumError, HTTPClientError, ClientPayloadError)


@cache
def teach_s3fs() -> None:
    """Have s3fs read again what it would give up, and its client say no more than is worth saying."""
    from s3fs.core import add_retryable_error  # type: ignore[import-untyped]

    for kind in passing_errors():
        add_retryable_error(kind)
    for name in (
        "aiobotocore",
        "botocore",
    ):  # at INFO each process says where its credentials and its endpoint come from
        logger = logging.getLogger(name)
        logger.setLevel(logger.level or logging.WARNING)


def client_options() -> dict[str, Any]:
    """What s3fs is opened with: no listing is kept, and an endpoint that is gone is given up within seconds."""
    config: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "max_pool_connections": CONNECTIONS,
    }
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        config["retries"] = {"mode": os.environ.get("AWS_RETRY_MODE", "standard"), "max_attempts": REPEATS}
    options: dict[str, Any] = {"use_listings_cache": False, "config_kwargs": config}
    tell_boto_the_region()
    return options


def objects_below(filesystem: Any, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
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


def s3_explanation(error: BaseException, url: str, endpoint: str) -> HeadraceError | None:
    """What ERROR of an S3 client means, or None where something is only not there."""
    code = code_of(error)
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
    return unreachable(url, endpoint, error)


def endpoint_of(filesystem: fsspec.AbstractFileSystem | None = None) -> str:
    """Where S3's requests go (those of FILESYSTEM, or by the environment), as it may stand in a message."""
    client = getattr(filesystem, "_s3", None)
    meta = getattr(client, "meta", None)
    url = getattr(meta, "endpoint_url", None) or os.environ.get("AWS_ENDPOINT_URL_S3")
    url = str(url or os.environ.get("AWS_ENDPOINT_URL") or "AWS")
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rsplit('@', 1)[-1]}"


def unreachable(url: str, endpoint: str, error: BaseException) -> Unavailable:
    """URL does not answer, or only with ERROR; ENDPOINT is URL itself where it has no other."""
    if endpoint == url:
        why, action = _named(error), "check the address, the network and its credentials"
    else:
        silent = type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError")
        why = f"nobody answers at {endpoint}" if silent else f"{endpoint} fails: {_named(error)}"
        action = "check the server and AWS_ENDPOINT_URL; a run that ended for this goes on with `headrace resume`"
    return Unavailable(f"{url} cannot be reached: {why}", action=action, code="store-unavailable")


def _named(error: BaseException) -> str:
    """S3's own word for ERROR, else its type, and its sentence."""
    return f"{code_of(error) or type(error).__name__}: {_first_line(error)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def code_of(error: BaseException) -> str:
    """S3's own code of an error, "" where it has none."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _first_line(error: BaseException) -> str:
    text = str((isinstance(error, OSError) and error.strerror) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
