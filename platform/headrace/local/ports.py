"""Ports that nobody else on this machine uses, also not another Headrace that starts at the same moment.

A Ray head wants some fifteen fixed ports and ranges for its workers and replicas. They are taken as one block below the
range from which the kernel gives ports to clients, so that no outgoing connection can sit on one. While a block is
being taken an abstract Unix socket marks it: the kernel removes the mark with the process.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from headrace.base.errors import Unavailable

BLOCK = 1000
FIRST, LAST = 10_000, 32_000  # the kernel's own range starts at 32,768 as it comes
SERVE_PORTS = range(8000, 8100)
MARK = "headrace"  # begins the name of every mark

_FIXED = (
    "gcs",
    "dashboard",
    "dashboard_agent_http",
    "dashboard_agent_grpc",
    "metrics_export",
    "runtime_env_agent",
    "client_server",
    "node_manager",
    "object_manager",
    "autoscaler_metrics",
    "dashboard_metrics",
    "haproxy_metrics",
    "haproxy_stats",
    "fallback_http",
    "fallback_grpc",
)


@dataclass(frozen=True)
class PortBlock:
    """One head's ports: fixed ones at the start of the block, ranges behind them (both ends inclusive)."""

    first: int

    def port(self, name: str) -> int:
        """One of the fixed ports by name."""
        return self.first + _FIXED.index(name)

    @property
    def replica_http(self) -> tuple[int, int]:
        """Where replicas listen for the ingress."""
        return self.first + 40, self.first + 139

    @property
    def replica_grpc(self) -> tuple[int, int]:
        """As `replica_http`, for gRPC (unused, but its default range is shared by all heads)."""
        return self.first + 140, self.first + 239

    @property
    def workers(self) -> tuple[int, int]:
        """One port for each of Ray's worker processes."""
        return self.first + 240, self.first + BLOCK - 1


def is_free(port: int) -> bool:
    """Whether nobody listens on PORT, on any address."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 bound, never listened on
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
        except OSError:
            if family == socket.AF_INET or _has_ipv6():
                return False
    return True


@cache
def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
            return True
    except OSError:
        return False


def moved(old: int, new: int) -> str:
    """What a person is told when the endpoints' port had to change."""
    return f"port {old} is taken by another program: endpoints are at http://127.0.0.1:{new} from now on"


@contextlib.contextmanager
def reserved(name: str) -> Iterator[bool]:
    """Mark NAME as being taken for the length of the block; yields whether nobody else holds the mark."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mark:
        try:
            mark.bind(f"\0{MARK}-{name}")
        except OSError:
            yield False
            return
        yield True


@contextlib.contextmanager
def free_block(seed: str) -> Iterator[PortBlock]:
    """A block all of whose ports are free, held against other Headraces for the length of the `with` block.

    Args:
        seed: blocks are tried in an order made of it, so that one home usually gets the same one again.

    Raises:
        Unavailable: every block has a port in use.
    """
    firsts = list(range(FIRST, LAST, BLOCK))
    random.Random(seed).shuffle(firsts)
    for first in firsts:
        with reserved(f"ports-{first}") as ours:
            if ours and all(is_free(port) for port in range(first, first + BLOCK)):
                yield PortBlock(first)
                return
    raise Unavailable(
        f"no {BLOCK} consecutive free ports between {FIRST} and {LAST}",
        action="stop programs that listen there: ss -ltnp lists them",
    )


@contextlib.contextmanager
def serve_port(remembered: int | None) -> Iterator[int]:
    """The port of the endpoints: the remembered one if it is free, else the first free one from 8000 on.

    It is held against other Headraces for the length of the `with` block: Serve binds it seconds after it was told.

    Raises:
        Unavailable: all of them are in use.
    """
    for port in _serve_ports(remembered):
        with reserved(f"endpoints-{port}") as ours:
            if ours and is_free(port):
                yield port
                return
    raise _no_serve_port()


def free_serve_port(remembered: int | None) -> int:
    """Which port the endpoints would have now, if nobody else asked for it. Raises as `serve_port`."""
    for port in _serve_ports(remembered):
        if is_free(port):
            return port
    raise _no_serve_port()


def _serve_ports(remembered: int | None) -> list[int]:
    return [*([remembered] if remembered else []), *SERVE_PORTS]


def _no_serve_port() -> Unavailable:
    return Unavailable(
        f"no free port between {SERVE_PORTS.start} and {SERVE_PORTS.stop - 1} for the endpoints",
        action="stop programs that listen there: ss -ltnp lists them",
    )


def wait_until_bound(port: int, seconds: float) -> None:
    """Until somebody listens on PORT of this machine's loopback, or so many seconds are over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
