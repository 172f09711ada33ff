"""Leader election on a scripted Lease, in virtual time: one leader at most, whatever happens to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_operators.runtime.errors import AlreadyExists, Conflict, NotFound, NotLeading, Unreachable
from headrace_operators.runtime.kinds import Key, Kind
from headrace_operators.runtime.leader import Elector, LeaseOptions

Virtual = Callable[..., Any]


class LeaseServer:
    """One Lease."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0

    def keep(self, manifest: Any) -> dict[str, Any]:
        self.version += 1
        metadata = {**manifest["metadata"], "resourceVersion": str(self.version)}
        self.lease = {**manifest, "metadata": metadata, "spec": dict(manifest["spec"])}
        return self.lease

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        return dict(self.lease["spec"])


class Line:
    """A replica's line to the Lease. CUT says at which times it does not answer."""

    def __init__(self, server: LeaseServer, cut: list[tuple[float, float]] | None = None) -> None:
        self._server = server
        self.cut = cut or []
        self.requests = 0

    async def _reach(self) -> None:
        self.requests += 1
        await asyncio.sleep(0.01)
        now = asyncio.get_running_loop().time()
        for start, end in self.cut:
            if start <= now < end:
                await asyncio.sleep(min(30.0, end - now))
                raise Unreachable(0, "Unreachable", "cut off")

    async def get(self, kind: Kind, key: Key) -> dict[str, Any]:
        await self._reach()
        if self._server.lease is None:
            raise NotFound(404, "NotFound", "no lease")
        return self._server.lease

    async def create(self, kind: Kind, manifest: Any) -> dict[str, Any]:
        await self._reach()
        if self._server.lease is not None:
            raise AlreadyExists(409, "AlreadyExists", "there is one")
        return self._server.keep(manifest)

    async def replace(self, kind: Kind, manifest: Any) -> dict[str, Any]:
        await self._reach()
        if self._server.lease is None:
            raise NotFound(404, "NotFound", "no lease")
        if self._server.lease["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "modified")
        return self._server.keep(manifest)


def elector(line: Any, name: str) -> Elector:
    return Elector(line, LeaseOptions("n", "lease", name), asyncio.get_running_loop().time)


def may_write(candidate: Elector) -> bool:
    try:
        candidate.check()
    except NotLeading:
        return False
    return True


def test_the_first_takes_it_and_the_second_waits(in_virtual_time: Virtual) -> None:
    async def work() -> None:
        server = LeaseServer()
        a, b = elector(Line(server), "a"), elector(Line(server), "b")
        assert not may_write(a)
        await a.acquire()
        waiting, holding = asyncio.create_task(b.acquire()), asyncio.create_task(a.hold())
        await asyncio.sleep(600)
        assert (may_write(a), may_write(b), waiting.done(), holding.done()) == (True, False, False, False)
        assert server.spec["holderIdentity"] == "a"
        assert server.spec["leaseTransitions"] == 0
        waiting.cancel()
        holding.cancel()

    in_virtual_time(work())


def test_a_leader_that_was_killed_is_followed_within_twenty_seconds(in_virtual_time: Virtual) -> None:
    async def work() -> float:
        server, loop = LeaseServer(), asyncio.get_running_loop()
        a, b = elector(Line(server), "a"), elector(Line(server), "b")
        await a.acquire()
        holding = asyncio.create_task(a.hold())
        waiting = asyncio.create_task(b.acquire())
        await asyncio.sleep(31.9)
        holding.cancel()
        killed = loop.time()
        await waiting
        assert server.spec["leaseTransitions"] == 1
        return loop.time() - killed

    for _ in range(20):
        assert 12.5 <= in_virtual_time(work()) <= 20


def test_a_leader_that_ends_in_peace_is_followed_at_the_next_look(in_virtual_time: Virtual) -> None:
    async def work() -> float:
        server, loop = LeaseServer(), asyncio.get_running_loop()
        a, b = elector(Line(server), "a"), elector(Line(server), "b")
        await a.acquire()
        waiting = asyncio.create_task(b.acquire())
        await asyncio.sleep(5)
        await a.release()
        assert not may_write(a)
        released = loop.time()
        await waiting
        return loop.time() - released

    assert in_virtual_time(work()) <= 2.5


def test_a_leader_that_was_stopped_and_goes_on_may_write_nothing(in_virtual_time: Virtual) -> None:
    async def work() -> None:
        server, loop = LeaseServer(), asyncio.get_running_loop()
        a, b = elector(Line(server), "a"), elector(Line(server), "b")
        await a.acquire()
        waiting = asyncio.create_task(b.acquire())
        await asyncio.sleep(5)  # A is stopped from now on: nothing of it runs
        await waiting
        assert not may_write(a)
        assert may_write(b)
        with pytest.raises(NotLeading):
            await a.hold()
        assert loop.time() < 30
        assert server.spec["holderIdentity"] == "b"

    in_virtual_time(work())


def test_a_leader_that_is_cut_off_gives_up_before_another_can_take_it(in_virtual_time: Virtual) -> None:
    async def work() -> tuple[float, float]:
        server, loop = LeaseServer(), asyncio.get_running_loop()
        a, b = elector(Line(server, [(20, 1e9)]), "a"), elector(Line(server), "b")
        await a.acquire()
        waiting = asyncio.create_task(b.acquire())
        with pytest.raises(NotLeading):
            await a.hold()
        gave_up = loop.time()
        await waiting
        return gave_up, loop.time()

    gave_up, taken = in_virtual_time(work())
    assert gave_up < taken
    assert 28 <= gave_up <= 36
    assert 33 <= taken <= 40


def test_a_short_outage_is_lived_through(in_virtual_time: Virtual) -> None:
    async def work() -> None:
        server = LeaseServer()
        a = elector(Line(server, [(20, 26)]), "a")
        await a.acquire()
        holding = asyncio.create_task(a.hold())
        await asyncio.sleep(100)
        assert may_write(a)
        holding.cancel()

    in_virtual_time(work())


def test_who_finds_the_lease_taken_by_another_ends_at_once(in_virtual_time: Virtual) -> None:
    async def work() -> float:
        server, loop = LeaseServer(), asyncio.get_running_loop()
        a = elector(Line(server), "a")
        await a.acquire()
        server.keep({"metadata": {"name": "lease"}, "spec": {"holderIdentity": "b", "leaseDurationSeconds": 15}})
        with pytest.raises(NotLeading, match="b holds the lease"):
            await a.hold()
        await a.release()
        assert server.spec["holderIdentity"] == "b"
        return loop.time()

    assert in_virtual_time(work()) < 5


def test_a_lease_of_another_machine_is_waited_for_by_our_clock_not_by_its(in_virtual_time: Virtual) -> None:
    async def work() -> float:
        server = LeaseServer()
        spec = {"holderIdentity": "b", "leaseDurationSeconds": 15, "renewTime": "1999-01-01T00:00:00.000000Z"}
        server.keep({"metadata": {"name": "lease"}, "spec": spec})
        await elector(Line(server), "a").acquire()
        return asyncio.get_running_loop().time()

    assert in_virtual_time(work()) >= 15


def test_a_renewal_is_one_request(in_virtual_time: Virtual) -> None:
    async def work() -> int:
        line = Line(LeaseServer())
        a = elector(line, "a")
        await a.acquire()
        before, holding = line.requests, asyncio.create_task(a.hold())
        await asyncio.sleep(60)
        holding.cancel()
        return line.requests - before

    assert 29 <= in_virtual_time(work()) <= 30


outages = st.lists(
    st.tuples(st.floats(0, 200), st.floats(0.1, 60)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=6
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cut_a=outages, cut_b=outages, cut_c=outages)
def test_whoever_is_cut_off_whenever_there_are_never_two_who_may_write(
    in_virtual_time: Virtual, cut_a: Any, cut_b: Any, cut_c: Any
) -> None:
    async def work() -> None:
        server = LeaseServer()
        current: dict[str, Elector] = {}

        async def replica(name: str, cut: Any) -> None:
            generation = 0
            while True:  # as the kubelet starts it again
                current[name] = elector(Line(server, cut), f"{name}{generation}")
                generation += 1
                try:
                    await current[name].acquire()
                    await current[name].hold()
                except NotLeading:
                    await asyncio.sleep(1)

        names = [("a", cut_a), ("b", cut_b), ("c", cut_c)]
        replicas = [asyncio.create_task(replica(name, cut)) for name, cut in names]
        for _ in range(1200):
            await asyncio.sleep(0.25)
            assert sum(may_write(candidate) for candidate in current.values()) <= 1
        for task in replicas:
            task.cancel()

    in_virtual_time(work())
