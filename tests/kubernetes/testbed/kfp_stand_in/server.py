"""The HTTP server in front of the stand-in's API: it can be lost and come back at the same address."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from kfp_stand_in import calls  # noqa: F401 (registers them)
from kfp_stand_in.answers import Problem
from kfp_stand_in.api import Api, Request, fire
from kfp_stand_in.life import Life
from kfp_stand_in.world import Record, World

PREFIX = "/apis/v2beta1"
Intercept = Callable[[str, str], tuple[int, str, str] | None]


class KubeflowStandIn:
    """Serves WORLD on a loopback port while its block lasts. This is not Kubeflow.

    Args:
        certificate: certificate and key files; then it speaks TLS.
    """

    def __init__(self, world: World | None = None, *, certificate: tuple[str, str] | None = None) -> None:
        self.world = world or World()
        self.api = Api(self.world)
        self.calls: list[tuple[str, str]] = []
        self.intercept: Intercept = lambda method, path: None  # a proxy's answer, instead of the server's
        self._certificate = certificate
        self._port = 0
        self._held = socket.socket()  # never listens: while the server is away nobody else gets its port
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'http' if self._certificate is None else 'https'}://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self._port = int(self._held.getsockname()[1])
        self.come_back()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for life in self.api.lives.values():
            life.terminate()
        self.go_away()
        self._held.close()

    def go_away(self) -> None:
        """Answer nothing: the port is closed. Runs go on, as Argo does without the API server."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def come_back(self) -> None:
        """Answer again."""
        server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        server.daemon_threads = True
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    # what a test asks of the cluster behind it

    def life(self, run_id: str) -> Life:
        """The run that Kubeflow calls RUN_ID."""
        return self.api.lives[run_id]

    def runs(self) -> list[Record]:
        """All runs, oldest first."""
        return list(self.world.runs.values())

    def fire(self, name: str) -> Record | None:
        """Let the time of the schedule NAME come; the run that it makes."""
        with self.world.lock:
            recurring = next(one for one in self.world.recurring.values() if one["display_name"] == name)
            return fire(self.api, recurring)

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body of one answer."""
        parts = urlsplit(target)
        path = parts.path.removeprefix(PREFIX)
        self.calls.append((method, path))
        if (instead := self.intercept(method, path)) is not None:
            return instead[0], instead[1], instead[2].encode()
        try:
            may = self._rights(path, headers.get("authorization", ""))
            request = Request(dict(parse_qsl(parts.query)), *_read(headers.get("content-type", ""), body), may)
            told: Any = self.api.answer(method, path, request)
            with self.world.lock:
                return 200, "application/json", json.dumps(told).encode()
        except Problem as problem:
            return problem.status, "application/json", json.dumps(problem.body).encode()

    def _rights(self, path: str, authorization: str) -> Callable[[str], None]:
        tokens = self.world.tokens
        if tokens is None or path == "/healthz":
            return lambda namespace: None
        token = authorization.removeprefix("Bearer ")
        if not authorization.startswith("Bearer ") or token not in tokens:
            raise Problem(401, "Request header error: there is no user identity header or token")
        roles = tokens[token]

        def may(namespace: str) -> None:
            if "*" not in roles and namespace not in roles:
                group = "pipelines.kubeflow.org"
                raise Problem(403, f"User is not authorized with resource group {group} in namespace {namespace!r}")

        return may


def _read(content_type: str, body: bytes) -> tuple[Record, str]:
    """The JSON, or the uploaded file, of a request."""
    if content_type.startswith("multipart/"):
        message = BytesParser().parsebytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body)
        for part in message.walk():
            if part.get_filename():
                return {}, bytes(part.get_payload(decode=True)).decode()  # type: ignore[arg-type]
        return {}, ""
    return (json.loads(body) if body else {}), ""


def _handler(stand_in: KubeflowStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, kind, told = stand_in.answer(self.command, self.path, headers, body)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(told)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(told)
            self.close_connection = True

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
