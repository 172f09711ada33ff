"""HTTP to the API server: pooled connections, deadlines, patience where it asks for it, typed errors, metrics.

A leader's writes have a transport of their own, whose sockets ask a guard before they hand any bytes to the kernel: a
process that was stopped wherever it was, and goes on when another leads, sends nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import aiohttp

from headrace_operators.runtime import metrics
from headrace_operators.runtime.connection import Connection
from headrace_operators.runtime.errors import ApiError, Busy, NotLeading, Unreachable, api_error

Guard = Callable[[], None]

_TIMEOUT_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 150.0  # the API server sends a bookmark a minute: a watch that is silent for longer is dead
_UNAUTHORIZED = 401
_PATIENCE = 5  # times that a request is sent again because the API server said 429
_LONGEST_PATIENCE_SECONDS = 10.0
# Bytes that nobody acknowledged for so long are dropped with their connection, also those of a connection that we have
# closed: a write must not arrive after our lease has ended (renewDeadline 10 + 4 < leaseDuration 15).
_UNACKNOWLEDGED_SECONDS = 4.0


class Transport:
    """Requests to one API server, which GUARD may forbid. It is to be closed."""

    def __init__(self, connection: Connection, user_agent: str, guard: Guard | None = None) -> None:
        self._connection = connection
        self._user_agent = user_agent
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None

    def guarded(self, guard: Guard) -> Transport:
        """Another one to the same API server, which sends nothing that GUARD forbids."""
        return Transport(self._connection, self._user_agent, guard)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> bytes:
        """The body of a successful answer.

        Raises:
            ApiError: any other answer, or none.
            NotLeading: the guard raised it.
        """
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        renewed = False
        for attempt in range(_PATIENCE + 1):
            if self._guard is not None:
                self._guard()
            try:
                return await self._once(method, path, query, data, content_type, timeout_seconds)
            except Busy as error:
                if attempt == _PATIENCE:
                    raise
                await asyncio.sleep(_patience(error, attempt))
            except ApiError as error:  # nothing was carried out: our token was replaced, or the API server's CA
                if renewed or not _is_stranger(error):
                    raise
                renewed = True
                self._connection.renew()
        raise AssertionError("unreachable")

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        content_type: str,
        timeout_seconds: float,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=_CONNECT_SECONDS)
        started = time.perf_counter()
        with _as_unreachable(method, path, timeout_seconds):
            async with self._opened().request(
                method,
                self._connection.url + path,
                params=query,
                data=data,
                headers=await self._headers(content_type if data is not None else None),
                timeout=timeout,
            ) as response:
                raw = await response.read()
        metrics.REQUESTS.labels(str(response.status), method).inc()
        metrics.REQUEST_SECONDS.labels(method).observe(time.perf_counter() - started)
        if response.status >= 300:
            raise _error(response, raw)
        return raw

    @contextlib.asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of a watch, as they come; it ends when the API server ends it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        with _as_unreachable("GET", path, _SILENCE_SECONDS):
            async with self._opened().get(
                self._connection.url + path, params=query, headers=await self._headers(None), timeout=timeout
            ) as response:
                metrics.REQUESTS.labels(str(response.status), "GET").inc()
                if response.status >= 300:
                    if response.status == _UNAUTHORIZED:
                        self._connection.renew()  # whoever watches asks again
                    raise _error(response, await response.read())
                yield _lines(response.content)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if content_type:
            headers["Content-Type"] = content_type
        if authorization := await self._connection.authorization():
            headers["Authorization"] = authorization
        return headers

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,  # the workers are bounded; a lease must never queue behind them
                ssl=self._connection.tls or False,
                keepalive_timeout=60,
                socket_factory=partial(_socket, self._guard),
            )
            # Answers come as they are: to compress a list costs the API server more than a cluster's network gives.
            headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity"}
            self._session = aiohttp.ClientSession(connector=connector, headers=headers)
        return self._session


class _GuardedSocket(socket.socket):
    """Asks its guard before every bytes that it hands to the kernel."""

    guard: Guard | None = None

    def send(self, data: Any, flags: int = 0) -> int:
        self._ask()
        return super().send(data, flags)

    def sendmsg(self, buffers: Any, *rest: Any) -> int:
        self._ask()
        return super().sendmsg(buffers, *rest)

    def _ask(self) -> None:
        try:
            if self.guard is not None:
                self.guard()
        except NotLeading as error:
            raise ConnectionAbortedError(f"not sent: {error}") from error


def _socket(guard: Guard | None, address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices within seconds that the other side is gone."""
    made = _GuardedSocket(*address[:3])
    made.guard = guard
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_UNACKNOWLEDGED_SECONDS * 1000))
    return made


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of CONTENT, however long: a reader's own limit is shorter than objects may be."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


@contextlib.contextmanager
def _as_unreachable(method: str, path: str, timeout_seconds: float) -> Any:
    try:
        yield
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        metrics.REQUESTS.labels("<error>", method).inc()
        words = f"no answer in {timeout_seconds:g} s" if isinstance(error, TimeoutError) else str(error)
        raise Unreachable(0, "Unreachable", f"{method} {path}: {words or type(error).__name__}") from error


def _is_stranger(error: ApiError) -> bool:
    """Whether the API server does not know us, or we do not know it."""
    return error.status == _UNAUTHORIZED or isinstance(error.__cause__, aiohttp.ClientConnectorCertificateError)


def _error(response: aiohttp.ClientResponse, raw: bytes) -> ApiError:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"reason": response.reason, "message": raw[:300].decode(errors="replace").strip()}
    try:
        retry_after: float | None = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        retry_after = None
    return api_error(response.status, body, retry_after)


def _patience(error: Busy, attempt: int) -> float:
    asked = error.retry_after_seconds if error.retry_after_seconds is not None else 0.1 * 2**attempt
    return min(asked, _LONGEST_PATIENCE_SECONDS) * random.uniform(1.0, 1.2)
