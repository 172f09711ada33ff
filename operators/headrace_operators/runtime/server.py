"""The operator's own HTTP: /healthz, /readyz and /metrics, on one or two addresses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from headrace_operators.runtime import metrics

Answer = Callable[[], tuple[int, str]]


def split_address(address: str) -> tuple[str, int]:
    """HOST and PORT of `HOST:PORT`; `:8080` is every address.

    Raises:
        ValueError: it is none.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError(f"{address!r} is no address; use HOST:PORT, as 127.0.0.1:8080, or :8080 for every address")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104


class CannotListen(Exception):
    """An address is taken, or not ours to take."""


class Server:
    """Serves until it is closed."""

    def __init__(self, pages: Mapping[str, Mapping[str, Answer]]) -> None:
        self._pages = pages
        self._runners: list[web.AppRunner] = []
        self.ports: dict[str, int] = {}

    async def start(self) -> None:
        """Listen. Pages of equal addresses share one; port 0 takes a free one, which `ports` tells.

        Raises:
            CannotListen: an address is taken.
        """
        for address, answers in self._pages.items():
            app = web.Application()
            for path, answer in answers.items():
                app.router.add_get(path, _handler(answer))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            self._runners.append(runner)
            try:
                await web.TCPSite(runner, *split_address(address)).start()
            except OSError as error:
                raise CannotListen(f"cannot listen on {address}: {error.strerror or error}") from error
            self.ports[address] = runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()


def metrics_page() -> tuple[int, str]:
    """All metrics."""
    return 200, metrics.exposition().decode()


def _handler(answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(_request: web.Request) -> web.Response:
        status, text = answer()
        kind = metrics.CONTENT_TYPE if answer is metrics_page else "text/plain; charset=utf-8"
        return web.Response(status=status, body=text.encode(), headers={"Content-Type": kind})

    return handle
