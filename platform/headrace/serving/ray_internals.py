"""The two places where a replica of Ray Serve is changed from within, because Serve offers no setting for them.

Both wrap functions that are private to Ray 2.60; `tests/local/test_serving_ray_internals.py` fails by name when an
upgrade moves them, and a replica does not start without them: better none than an open one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from headrace.serving.front import Front

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def keep_internal_grpc_on_loopback() -> None:
    """Make a replica's internal gRPC server, which unpickles what it gets, listen on 127.0.0.1 and nowhere else."""
    from ray.serve._private import replica

    bind = replica.add_port_to_grpc_server

    def bind_on_loopback(server: Any, address: str) -> Any:
        return bind(server, f"127.0.0.1:{address.rsplit(':', 1)[1]}")

    replica.add_port_to_grpc_server = bind_on_loopback


def answer_v2_without_detour() -> None:
    """Let a replica's HTTP server hand V2 requests straight to the front.

    Serve's own way around every request (metadata, a semaphore, a log line, four metrics) costs more than a small
    model's answer, and the front has its own admission and metrics. All else, as health checks, still goes Serve's way.
    Draining is untouched: the HTTP server finishes what is in flight before it ends.
    """
    from ray.serve._private import replica

    start = replica.start_asgi_http_server

    async def start_with_short_way(app: Any, *rest: Any, **options: Any) -> Any:
        return await start(_short_way(app), *rest, **options)

    replica.start_asgi_http_server = start_with_short_way


def _short_way(through_serve: Any) -> Asgi:
    """THROUGH_SERVE (a bound method of Serve's replica), with V2 requests going to the replica's front itself."""
    owner = getattr(through_serve, "__self__", None)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        front = getattr(owner, "_user_callable_asgi_app", None)
        prefix = getattr(owner, "_route_prefix", None)
        if isinstance(front, Front) and prefix and scope.get("path", "").startswith(f"{prefix}/v2/"):
            scope["root_path"] = prefix
            await front(scope, receive, send)
        else:
            await through_serve(scope, receive, send)

    return answer
