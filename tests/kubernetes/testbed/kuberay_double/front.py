"""The front's double: HTTP servers that answer the status path of fronts that hold no model. It is not the front.

The changes of versions are the real front's own (`headrace.serving.versions`); only Ray Serve, the network between
replicas and the models are played.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from headrace.serving.contract import STATUS_PATH, FrontConfig, FrontStatus, StableVersion
from headrace.serving.versions import Versions


class FrontDouble:
    """The fronts of one namespace's ModelDeployments, behind one loopback port; a context manager.

    `serve` takes what was put to Serve. As Serve's proxy does, one replica after the other answers.

    Args:
        load_seconds: how long a version takes to load.
        broken: versions that cannot be loaded, and the error they fail with.
    """

    def __init__(self, load_seconds: float = 0.05, broken: Mapping[str, str] | None = None) -> None:
        self._load_seconds = load_seconds
        self.broken = dict(broken or {})
        self._fronts: dict[str, list[Versions[str]]] = {}
        self._heads: dict[str, str] = {}
        self._turns: Iterator[int] = itertools.count()
        self._numbers = itertools.count(1)
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> FrontDouble:
        self._server = server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="front-double", daemon=True).start()
        return self

    @property
    def port(self) -> int:
        """Where it answers, on loopback."""
        assert self._server is not None, "use `with FrontDouble(...)`"
        return int(self._server.server_address[1])

    def __exit__(self, *details: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def _load(self, version: StableVersion) -> str:
        time.sleep(self._load_seconds)
        if error := self.broken.get(version.version):
            raise RuntimeError(error)
        return version.version

    def _replica(self, name: str) -> Versions[str]:
        return Versions(f"{name}#front#{next(self._numbers)}", self._load)

    def serve(self, config: Mapping[str, Any], head_uid: str) -> None:
        """Take the Serve configuration of this head: replicas come and go, each is told its `user_config`. Another head
        has other replicas."""
        for application in config["applications"]:
            deployment = application["deployments"][0]
            scaling = deployment.get("autoscaling_config") or {}
            wanted = int(scaling.get("min_replicas") or deployment.get("num_replicas", 1))
            name = application["route_prefix"].strip("/")
            if self._heads.get(name) != head_uid:
                self._fronts[name], self._heads[name] = [], head_uid
            replicas = self._fronts[name][:wanted]
            replicas += [self._replica(application["name"]) for _ in range(wanted - len(replicas))]
            for replica in replicas:
                replica.configure(FrontConfig.from_record(deployment["user_config"]))
            self._fronts[name] = replicas

    def lose(self, name: str, replicas: int) -> None:
        """So many REPLICAS of the deployment NAME die, and nobody makes others."""
        self._fronts[name] = self._fronts[name][replicas:]

    def statuses(self, name: str) -> list[FrontStatus]:
        """What each replica of the deployment NAME answers."""
        return [replica.status() for replica in self._fronts.get(name, ())]

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status code and body for a GET of PATH."""
        replicas = self._fronts.get(path.removesuffix(STATUS_PATH).strip("/")) if path.endswith(STATUS_PATH) else None
        if not replicas:
            return 404, {"error": f"nothing is served at {path}"}
        return 200, replicas[next(self._turns) % len(replicas)].status().to_record()


def _handler(front: FrontDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            code, told = front.answer(self.path)
            body = json.dumps(told).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *details: object) -> None:
            """Nobody reads it."""

    return Handler
