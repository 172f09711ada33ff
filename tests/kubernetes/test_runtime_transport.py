"""The transport against HTTP servers that behave badly: patience, deadlines, broken answers, and the leader's guard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from headrace_operators.runtime.client import Client
from headrace_operators.runtime.connection import Connection
from headrace_operators.runtime.errors import Busy, NotLeading, Unreachable
from headrace_operators.runtime.kinds import Kind
from headrace_operators.runtime.transport import Transport

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KIND = Kind("", "v1", "ConfigMap", "configmaps")
MANIFEST = {"metadata": {"namespace": "n", "name": "m"}}


async def nobody() -> None:
    return None


def serve(handler: Handler, work: Callable[[Transport], Awaitable[None]]) -> None:
    """Run WORK against a server that answers everything by HANDLER."""

    async def run() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        transport = Transport(Connection(f"http://127.0.0.1:{runner.addresses[0][1]}", None, nobody, "n"), "test/1")
        try:
            await work(transport)
        finally:
            await transport.close()
            await runner.cleanup()

    asyncio.run(run())


def test_a_server_that_asks_for_patience_gets_it() -> None:
    asked: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(time.monotonic())
        if len(asked) < 3:
            return web.json_response({"reason": "TooManyRequests"}, status=429, headers={"Retry-After": "1"})
        return web.json_response({"user_agent": request.headers["User-Agent"], "sent": await request.json()})

    async def work(transport: Transport) -> None:
        answer = await Client(transport).request("POST", "/x", body={"a": 1})
        assert answer == {"user_agent": "test/1", "sent": {"a": 1}}

    serve(handler, work)
    assert asked[1] - asked[0] >= 1
    assert asked[2] - asked[1] >= 1


def test_patience_has_an_end() -> None:
    asked: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(time.monotonic())
        return web.json_response({"reason": "TooManyRequests"}, status=429, headers={"Retry-After": "0"})

    async def work(transport: Transport) -> None:
        with pytest.raises(Busy):
            await transport.send("GET", "/x")

    serve(handler, work)
    assert len(asked) == 6


def test_a_server_that_does_not_answer_in_time_is_unreachable() -> None:
    given_up = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await given_up.wait()
        return web.Response()

    async def work(transport: Transport) -> None:
        with pytest.raises(Unreachable, match=r"no answer in 0\.2 s"):
            await transport.send("GET", "/x", timeout_seconds=0.2)
        given_up.set()

    serve(handler, work)


def test_nobody_listening_is_unreachable() -> None:
    async def work() -> None:
        transport = Transport(Connection("http://127.0.0.1:1", None, nobody, "n"), "test")
        with pytest.raises(Unreachable, match="GET /x"):
            await transport.send("GET", "/x")
        await transport.close()

    asyncio.run(work())


def test_a_page_of_a_proxy_in_between_is_an_error_with_its_words() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=502, text="<h1>Bad gateway</h1>")

    async def work(transport: Transport) -> None:
        with pytest.raises(Unreachable, match="Bad gateway"):
            await transport.send("GET", "/x")

    serve(handler, work)


def test_a_success_that_is_no_json_is_unreachable() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="<h1>Log in</h1>")

    async def work(transport: Transport) -> None:
        with pytest.raises(Unreachable, match="Log in"):
            await Client(transport).request("GET", "/x")

    serve(handler, work)


def test_a_watch_takes_lines_of_any_length_in_any_pieces() -> None:
    long = "x" * 1_000_000

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (
            b'{"type":"ADDED","obj',
            b'ect":{"a":"' + long.encode(),
            b'"}}\n{"type":"ADDED","object":{"a":"b"}}\n',
        ):
            await response.write(piece)
            await asyncio.sleep(0.05)
        return response

    async def work(transport: Transport) -> None:
        events = [event async for event in Client(transport).watch(KIND, None, "1", 5)]
        assert events == [("ADDED", {"a": long}), ("ADDED", {"a": "b"})]

    serve(handler, work)


def test_a_watch_whose_connection_breaks_is_unreachable() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"type":"ADDED","object":{"a":"b"}}\n{"type":')
        assert request.transport is not None
        request.transport.abort()
        return response

    async def work(transport: Transport) -> None:
        events = []

        async def read() -> None:
            async for event in Client(transport).watch(KIND, None, "1", 5):
                events.append(event)  # noqa: PERF401

        with pytest.raises(Unreachable):
            await read()
        assert events == [("ADDED", {"a": "b"})]

    serve(handler, work)


def test_a_guard_forbids_writes_and_never_reads_whatever_connections_there_are() -> None:
    asked: list[str] = []
    leading = True

    def guard() -> None:
        if not leading:
            raise NotLeading("no longer")

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.json_response({"metadata": {"name": "m"}})

    async def work(transport: Transport) -> None:
        nonlocal leading
        client = Client(transport).guarded(guard)
        await client.create(KIND, MANIFEST)  # over a new connection
        await client.apply(KIND, MANIFEST)  # over the same
        await client.request("GET", "/x")
        leading = False
        await client.request("GET", "/x")
        for write in (client.create, client.apply, client.replace):
            with pytest.raises(NotLeading):
                await write(KIND, MANIFEST)
        await Client(transport).create(KIND, MANIFEST)  # one without a guard: the lease itself
        await client.close()

    serve(handler, work)
    assert asked == ["POST", "PATCH", "GET", "GET", "POST"]


@pytest.mark.parametrize("before", [1, 2])
def test_a_process_that_loses_the_lease_after_it_was_asked_still_hands_no_byte_to_the_kernel(before: int) -> None:
    asked: list[str] = []
    answers = iter([True] * before)

    def guard() -> None:  # asked when the request begins, and again by the socket
        if not next(answers, False):
            raise NotLeading("no longer")

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.json_response({"metadata": {"name": "m"}})

    async def work(transport: Transport) -> None:
        client = Client(transport).guarded(guard)
        if before == 2:
            await client.create(KIND, MANIFEST)
        with pytest.raises(Unreachable if before == 1 else NotLeading, match="no longer"):
            await client.create(KIND, MANIFEST)
        await client.close()

    serve(handler, work)
    assert asked == ["POST"] * (before - 1)


def test_a_guard_that_falls_while_the_server_asks_for_patience_stops_the_next_try() -> None:
    tries: list[str] = []

    def guard() -> None:
        if tries:
            raise NotLeading("no longer")

    async def handler(request: web.Request) -> web.Response:
        tries.append(request.method)
        return web.json_response({}, status=429, headers={"Retry-After": "0"})

    async def work(transport: Transport) -> None:
        client = Client(transport).guarded(guard)
        with pytest.raises(NotLeading):
            await client.create(KIND, MANIFEST)
        await client.close()

    serve(handler, work)
    assert tries == ["POST"]
