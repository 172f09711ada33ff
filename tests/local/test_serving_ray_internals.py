"""What `headrace.serving.ray_internals` relies on in Ray, so that an upgrade that changes it fails here by name."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from ray.serve._private import replica

from headrace.serving import ray_internals
from headrace.serving.front import Front
from headrace.serving.measures import Measures
from headrace.serving.settings import FrontSettings
from headrace.serving.versions import Versions


def test_a_replica_binds_its_internal_server_through_the_wrapped_function(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'add_port_to_grpc_server(self._server, "[::]:0")' in inspect.getsource(replica.Replica._on_initialized)
    bound: list[str] = []
    monkeypatch.setattr(replica, "add_port_to_grpc_server", lambda server, address: bound.append(address))
    ray_internals.keep_internal_grpc_on_loopback()
    replica.add_port_to_grpc_server(None, "[::]:0")
    assert bound == ["127.0.0.1:0"]


def test_a_replica_starts_its_http_server_through_the_wrapped_function() -> None:
    source = inspect.getsource(replica.Replica._maybe_start_direct_ingress_servers)
    assert "start_asgi_http_server(\n                    self._direct_ingress_asgi," in source
    initialised = inspect.getsource(replica.Replica)
    assert "self._user_callable_asgi_app" in initialised
    assert "self._route_prefix" in initialised


def test_v2_goes_straight_to_the_front_and_all_else_through_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    class Owner:
        _route_prefix = "/digits"
        _user_callable_asgi_app: Any = None
        seen: list[str] = []

        async def through_serve(self, scope: Any, receive: Any, send: Any) -> None:
            self.seen.append(scope["path"])

    started: list[Any] = []

    async def start(app: Any, options: str, *, event_loop: str) -> str:
        started.append(app)
        return options + event_loop

    monkeypatch.setattr(replica, "start_asgi_http_server", start)
    ray_internals.answer_v2_without_detour()
    owner = Owner()
    settings = FrontSettings()
    front = Front(Versions("r", lambda version: None), settings, Measures())  # type: ignore[arg-type,return-value]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask(path: str) -> None:
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        await started[0](scope, None, send)

    async def run() -> None:
        assert await replica.start_asgi_http_server(owner.through_serve, "a", event_loop="b") == "ab"
        await ask("/digits/v2/health/live")  # before the front is there
        owner._user_callable_asgi_app = front
        for path in ("/digits/v2/health/live", "/-/healthz", "/digits/headrace/v1/status", "/digits2/v2/health/live"):
            await ask(path)

    asyncio.run(run())
    assert owner.seen == [
        "/digits/v2/health/live",
        "/-/healthz",
        "/digits/headrace/v1/status",
        "/digits2/v2/health/live",
    ]
    assert sent[0]["status"] == 200
