"""A small HTTP server in the test's own process, for what stands in for another system: a registry, an exporter."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Reply(NamedTuple):
    """What is answered."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"


def json_reply(value: Any, status: int = 200) -> Reply:
    """VALUE as JSON."""
    return Reply(json.dumps(value).encode(), status)


class StandIn:
    """Serves on a loopback port of its own, while its block lasts, what `reply` says; with a CERTIFICATE and its key by
    TLS."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(stand_in.reply(self.path, {}))

            def do_POST(self) -> None:
                self._say(stand_in.reply(self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))

            def _say(self, reply: Reply) -> None:
                self.send_response(reply.status)
                self.send_header("content-type", reply.content_type)
                self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'http' if certificate is None else 'https'}://{self.address}"

    def reply(self, path: str, asked: dict[str, Any]) -> Reply:
        """What is answered at PATH, to the JSON ASKED if it was a POST."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
