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
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from unittest import mock

from headrace_testbed.s3 import S3Store

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


@dataclass
class Trouble:
    """What becomes of the next `times` requests that `match` (method and path).

    kind: `status` answers CODE with STATUS; `lost` passes the request on and drops the answer; `slow` waits SECONDS
    before it is passed on; `half` sends half of the answer and then nothing.
    """

    kind: str
    times: int = 1
    match: Callable[[str, str], bool] = lambda _method, _path: True
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 0.0


class TroubledStore:
    """A way to SERVER that makes trouble while its block lasts. `requests` are what came, as (method, path), and `sent`
    the bytes that were answered."""

    def __init__(self, server: S3Store) -> None:
        self._server = server
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        self.troubles: list[Trouble] = []
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                store._handle(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """The server's, by this way."""
        return {**self._server.environment, "AWS_ENDPOINT_URL": self.endpoint}

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
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
        self.requests.append((request.command, request.path))
        trouble = next((one for one in self.troubles if one.times and one.match(request.command, request.path)), None)
        if trouble is not None:
            trouble.times -= 1
            if trouble.kind == "status":
                self._answer(request, trouble.status, {}, _ERROR.format(code=trouble.code).encode())
                return
            time.sleep(trouble.seconds)
        status, headers, answer = self._pass_on(request, body)
        if trouble is not None and trouble.kind == "lost":
            self._hang_up(request)
            return
        half = trouble is not None and trouble.kind == "half"
        self._answer(request, status, headers, answer[: len(answer) // 2] if half else answer, length=len(answer))
        if half:
            self._hang_up(request)

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
            self.sent += len(body)
            request.wfile.write(body)

    def _hang_up(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)
