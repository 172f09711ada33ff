"""What happens to an S3 store in real life, on purpose: throttled, broken, slow, gone in mid-answer, or counted.

A proxy that passes requests on byte by byte (their signatures name the host they were sent to, which stays) and spoils
those that a test has asked for.
"""

from __future__ import annotations

import http.client
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from unittest import mock

from headrace_testbed.s3 import S3Store

FOREVER = 1_000_000  # times: until the test sets them to 0
_BUCKETS = itertools.count(1)
_HOP = {"connection", "transfer-encoding", "keep-alive"}
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>'


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """VARIABLES as the only ones that speak of S3, for this process and whatever it starts; clients are made anew."""
    from s3fs import S3FileSystem

    with mock.patch.dict(os.environ, variables):
        for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_S3_")) and name not in variables]:
            del os.environ[name]
        S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            S3FileSystem.clear_instance_cache()


def new_bucket(server: S3Store) -> str:
    """The URI of a fresh bucket."""
    return server.make_bucket(f"bucket-{next(_BUCKETS)}-{os.getpid()}")


@contextmanager
def without_pauses() -> Iterator[list[float]]:
    """Within the block nobody in this process waits before a request is made again: how long it would have waited."""
    from aiobotocore.endpoint import AioEndpoint

    pauses: list[float] = []

    async def noted(_: Any, seconds: float) -> None:
        pauses.append(seconds)

    with mock.patch.object(AioEndpoint, "_sleep", noted):
        yield pauses


Match = Callable[[str, str], bool]  # of a request's method and path


def _any(_method: str, _path: str) -> bool:
    return True


@dataclass
class Trouble:
    """What becomes of the next `times` requests that `match`, beginning with the `nth` that `begins` matches.

    What begins by itself, in the middle of what is troubled, cannot come too late on a busy machine.

    kind: `status` answers CODE with STATUS; `lost` passes the request on and drops the answer; `slow` waits SECONDS
    before it is passed on; `half` sends half of the answer and then nothing; `held` neither passes on nor answers until
    the trouble is over, and hangs up then.
    times: whoever makes the trouble ends it by setting them to 0.
    taken: how many requests have met it.
    """

    kind: str
    times: int = 1
    match: Match = _any
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 0.0
    begins: Match = _any
    nth: int = 1
    taken: int = 0
    _seen: int = field(default=0, repr=False)

    @property
    def left(self) -> int:
        """How many more requests will meet it."""
        return max(0, self.times - self.taken)

    def meets(self, method: str, path: str) -> bool:
        """Whether this request, which is seen once, meets it. Only under the way's lock."""
        if self._seen < self.nth:
            self._seen += self.begins(method, path)
        return self._seen >= self.nth and self.left > 0 and self.match(method, path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with the five of the library a burst of connections waits a second for the next SYN


class TroubledStore:
    """A way to SERVER that makes trouble while its block lasts. `requests` are what came, as (method, path), and `sent`
    the bytes that were answered."""

    def __init__(self, server: S3Store) -> None:
        self._server = server
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        self.troubles: list[Trouble] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else a body waits until its headers were acknowledged

            def _any(self) -> None:
                store._handle(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any

            def log_message(self, *_: Any) -> None:
                pass

        self._http = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """The server's, by this way."""
        return {**self._server.environment, "AWS_ENDPOINT_URL": self.endpoint}

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._http.shutdown()
        self._http.server_close()

    def make(self, trouble: Trouble) -> Trouble:
        """Make TROUBLE from now on, until its times are over."""
        self.troubles.append(trouble)
        return trouble

    def count(self, method: str) -> int:
        """How many requests of METHOD came."""
        return sum(found == method for found, _ in self.requests)

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        trouble = self._met(request.command, request.path)
        if trouble is not None:
            if trouble.kind == "status":
                self._answer(request, trouble.status, {}, _ERROR.format(code=trouble.code).encode())
                return
            if trouble.kind == "held":
                while trouble.times and not self._closed.wait(0.02):
                    pass
                self._hang_up(request)
                return
            if self._closed.wait(trouble.seconds):
                self._hang_up(request)
                return
        status, headers, answer = self._pass_on(request, body)
        if trouble is not None and trouble.kind == "lost":
            self._hang_up(request)
            return
        half = trouble is not None and trouble.kind == "half"
        self._answer(request, status, headers, answer[: len(answer) // 2] if half else answer, length=len(answer))
        if half:
            self._hang_up(request)

    def _met(self, method: str, path: str) -> Trouble | None:
        """The trouble that a request has run into, with which it is counted."""
        with self._lock:
            self.requests.append((method, path))
            met = [one for one in self.troubles if one.meets(method, path)]
            if not met:
                return None
            met[0].taken += 1
            return met[0]

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._server.endpoint.split("//")[1], timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() != "expect":
                connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        data = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        connection.close()
        return answer.status, kept, data

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        length: int | None = None,
    ) -> None:
        request.send_response_only(status)
        named = {name.lower() for name in headers}
        for name, value in headers.items():
            request.send_header(name, value)
        if "content-length" not in named:
            request.send_header("content-length", str(len(body) if length is None else length))
        request.end_headers()
        if request.command != "HEAD":
            with self._lock:
                self.sent += len(body)
            request.wfile.write(body)

    def _hang_up(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        with suppress(OSError):  # the client may have gone before
            request.connection.shutdown(socket.SHUT_RDWR)
