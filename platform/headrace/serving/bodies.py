"""Bodies of requests and answers: read within a limit, decompressed within the same limit, compressed when asked.

A body with a length is refused by the ingress before a byte of it is read; a chunked one has no length, and a
compressed one can grow a thousandfold, so both are counted here while they come.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from headrace.serving.errors import RequestError, bad_request

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

COMPRESS_FROM_BYTES = 1024  # below this the headers weigh more than what compression saves
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's wbits: gzip's wrapper, zlib's wrapper
_RAW_DEFLATE = -15


class Disconnected(Exception):
    """The client went away before its request was whole."""


def too_large(limit: int) -> RequestError:
    """The 413 of a body over LIMIT bytes."""
    return RequestError(413, f"the request body is larger than the limit of {limit} bytes")


def declared_length(headers: Mapping[bytes, bytes], limit: int) -> int | None:
    """The Content-Length, or None for a chunked body. Raises RequestError (413, 400)."""
    text = headers.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit():
        raise bad_request("the Content-Length header is not a number")
    length = int(text)
    if length > limit:
        raise too_large(limit)
    return length


async def read_body(receive: Receive, limit: int, hold: Callable[[int], None]) -> bytes:
    """Read a request's body, at most LIMIT bytes.

    Args:
        receive: ASGI's.
        limit: bytes.
        hold: told of every piece's size before the next is asked for; may raise to refuse the rest.

    Raises:
        RequestError: 413 over the limit, or what HOLD raises.
        Disconnected: the client went away.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece = message.get("body", b"")
        if piece:
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            hold(len(piece))
            pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def decompress(data: bytes, encoding: str, limit: int) -> bytes:
    """DATA without its Content-Encoding, at most LIMIT bytes. Raises RequestError (400, 413, 415)."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return data
    if name not in _WINDOWS:
        raise RequestError(415, f"Content-Encoding {encoding!r} is not supported; use gzip, deflate or none")
    try:
        return _inflate(data, _WINDOWS[name], limit)
    except zlib.error:
        if name == "deflate":  # some clients send deflate without zlib's wrapper
            try:
                return _inflate(data, _RAW_DEFLATE, limit)
            except zlib.error:
                pass
        raise bad_request(f"the body is not valid {name}, as its Content-Encoding says") from None


def _inflate(data: bytes, window: int, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    rest = data
    while rest:
        stream = zlib.decompressobj(window)
        piece = stream.decompress(rest, limit - size + 1)
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        if not stream.eof:
            raise zlib.error("the stream ends early")
        pieces.append(piece)
        rest = stream.unused_data  # gzip allows several members one after the other
    return b"".join(pieces)


def accepted_encoding(header: str) -> str | None:
    """What of gzip and deflate an Accept-Encoding header prefers, or None."""
    if not header:
        return None
    weights: dict[str, float] = {}
    for part in header.split(","):
        name, _, parameters = part.partition(";")
        weight = parameters.strip().removeprefix("q=")
        try:
            weights[name.strip().lower()] = float(weight) if weight else 1.0
        except ValueError:
            weights[name.strip().lower()] = 0.0
    offered = {name: weights.get(name, weights.get("*", 0.0)) for name in ("gzip", "deflate")}
    best = max(offered, key=lambda name: offered[name])
    return best if offered[best] > 0 else None


def compress(data: bytes, encoding: str) -> bytes:
    """DATA in gzip or deflate, at the fastest level: an answer is sent once."""
    return gzip.compress(data, compresslevel=1, mtime=0) if encoding == "gzip" else zlib.compress(data, 1)
