"""The whole process against an API server of plain values, in virtual time: its start, its stop, its two replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import pytest

from headrace_operators.runtime.actions import Create, Plan
from headrace_operators.runtime.cache import Caches, Watch
from headrace_operators.runtime.client import Page
from headrace_operators.runtime.errors import Conflict, NotFound, NotLeading
from headrace_operators.runtime.kinds import Key, Kind, key_of
from headrace_operators.runtime.leader import LEASE, LeaseOptions
from headrace_operators.runtime.manager import Manager, Options

RUN = Kind("headrace.dev", "v1alpha1", "TrainingRun", "trainingruns")
JOB = Kind("ray.io", "v1", "RayJob", "rayjobs")
Virtual = Callable[..., Any]


class Api:
    """One TrainingRun, one Lease; what was created, by whom, when. Every request takes 10 ms."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 10
        self.created: list[tuple[str, str]] = []

    def client(self, replica: str) -> Any:
        return ApiClient(self, replica, None)


class ApiClient:
    def __init__(self, api: Api, replica: str, guard: Callable[[], None] | None) -> None:
        self._api, self._replica, self._guard = api, replica, guard

    def guarded(self, guard: Callable[[], None]) -> ApiClient:
        return ApiClient(self._api, self._replica, guard)

    async def close(self) -> None:
        pass

    async def _write(self) -> None:
        await asyncio.sleep(0.01)
        if self._guard:
            self._guard()
        self._api.version += 1

    async def pages(self, kind: Kind, namespace: Any, selector: str) -> AsyncIterator[Page]:
        await asyncio.sleep(0.01)
        item = '{"metadata":{"name":"run","namespace":"n","uid":"u","resourceVersion":"5"}}' if kind == RUN else ""
        yield Page(f'{{"items":[{item}],"metadata":{{"resourceVersion":"10"}}}}'.encode())

    async def watch(self, *_: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    async def get(self, kind: Kind, key: Key) -> Any:
        await asyncio.sleep(0.01)
        if self._api.lease is None:
            raise NotFound(404, "NotFound", "none")
        return self._api.lease

    async def create(self, kind: Kind, manifest: Any) -> Any:
        await self._write()
        kept = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(self._api.version)}}
        if kind == LEASE:
            self._api.lease = kept
        else:
            self._api.created.append((self._replica, key_of(manifest).name))
        return kept

    async def replace(self, kind: Kind, manifest: Any) -> Any:
        assert self._api.lease is not None
        if manifest["metadata"]["resourceVersion"] != self._api.lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "modified")
        return await self.create(kind, manifest)


class Reconciler:
    name = "trainingrun"
    kind = RUN
    watches: tuple[Watch, ...] = ()

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.plans = seconds, 0

    async def plan(self, obj: Any, caches: Caches, now: datetime) -> Plan:
        self.plans += 1
        await asyncio.sleep(self.seconds)
        manifest = {"metadata": {"name": f"job-{self.plans}", "namespace": "n"}}
        return Plan((Create(JOB, manifest),), again_after_seconds=1.0)


def manager(api: Api, name: str, reconciler: Reconciler, **options: Any) -> Manager:
    lease = LeaseOptions("n", "lease", name)
    return Manager(
        api.client(name), [reconciler], Options(lease=lease, metrics_address="", health_address="", **options)
    )


def test_a_stop_lets_reconciles_finish_and_gives_the_lease_up_last(in_virtual_time: Virtual) -> None:
    async def work() -> None:
        api, slow, stop = Api(), Reconciler(seconds=5), asyncio.Event()
        running = asyncio.create_task(manager(api, "a", slow).run(stop))
        await asyncio.sleep(3)
        assert (slow.plans, api.created) == (1, [])
        stop.set()
        await running
        assert api.created == [("a", "job-1")]
        assert slow.plans == 1
        assert api.lease is not None
        assert api.lease["spec"]["holderIdentity"] == ""
        assert asyncio.get_running_loop().time() < 6

    in_virtual_time(work())


def test_a_reconcile_that_does_not_finish_in_time_is_ended_and_the_lease_ends_by_itself(
    in_virtual_time: Virtual,
) -> None:
    async def work() -> None:
        api, stuck, stop = Api(), Reconciler(seconds=250), asyncio.Event()
        running = asyncio.create_task(manager(api, "a", stuck, stop_seconds=20).run(stop))
        await asyncio.sleep(3)
        stop.set()
        await running
        assert 22 < asyncio.get_running_loop().time() < 24
        assert api.created == []
        assert api.lease is not None
        assert api.lease["spec"]["holderIdentity"] == "a"

    in_virtual_time(work())


def test_a_replica_without_the_lease_fills_its_caches_and_does_nothing_until_it_leads(in_virtual_time: Virtual) -> None:
    async def work() -> None:
        api, first, second, stop = Api(), Reconciler(), Reconciler(), asyncio.Event()
        running = [asyncio.create_task(manager(api, "a", first).run(stop))]
        await asyncio.sleep(2)
        standby = manager(api, "b", second)
        other = asyncio.Event()
        running.append(asyncio.create_task(standby.run(other)))
        await asyncio.sleep(60)
        assert standby.controllers[0].caches.synced
        assert second.plans == 0
        assert {replica for replica, _ in api.created} == {"a"}
        stop.set()
        await running[0]
        before = len(api.created)
        await asyncio.sleep(3)
        assert second.plans > 0
        assert {replica for replica, _ in api.created[before:]} == {"b"}
        other.set()
        await running[1]

    in_virtual_time(work())


def test_losing_the_lease_ends_the_process_in_the_middle_of_its_work(in_virtual_time: Virtual) -> None:
    async def work() -> None:
        api, stop = Api(), asyncio.Event()
        running = asyncio.create_task(manager(api, "a", Reconciler()).run(stop))
        await asyncio.sleep(10)
        assert api.lease is not None
        taken = {**api.lease["spec"], "holderIdentity": "b"}
        await api.client("b").create(LEASE, {"metadata": {"namespace": "n", "name": "lease"}, "spec": taken})
        with pytest.raises(NotLeading):
            await running
        written = len(api.created)
        await asyncio.sleep(60)
        assert len(api.created) == written
        assert api.lease["spec"]["holderIdentity"] == "b"

    in_virtual_time(work())


def test_a_stop_while_it_waits_for_the_lease_ends_it_at_once(in_virtual_time: Virtual) -> None:
    async def work() -> None:
        api, stop = Api(), asyncio.Event()
        spec = {"holderIdentity": "b", "leaseDurationSeconds": 3600}
        await api.client("b").create(LEASE, {"metadata": {"namespace": "n", "name": "lease"}, "spec": spec})
        reconciler = Reconciler()
        running = asyncio.create_task(manager(api, "a", reconciler).run(stop))
        await asyncio.sleep(20)
        stop.set()
        await running
        assert reconciler.plans == 0
        assert asyncio.get_running_loop().time() < 21

    in_virtual_time(work())


def test_errands_are_run_by_the_replica_that_leads_and_end_with_it(in_virtual_time: Virtual) -> None:
    ran: list[str] = []

    def errand(name: str) -> Callable[[Any], Any]:
        async def run(_: Any) -> None:
            ran.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                ran.append(f"{name} ends")

        return run

    async def work() -> None:
        api, stop = Api(), asyncio.Event()
        running = []
        for name in ("a", "b"):
            options = Options(lease=LeaseOptions("n", "lease", name), metrics_address="", health_address="")
            running.append(
                asyncio.create_task(Manager(api.client(name), [Reconciler()], options, [errand(name)]).run(stop))
            )
            await asyncio.sleep(1)
        assert ran == ["a"]
        stop.set()
        await asyncio.gather(*running)
        assert ran == ["a", "a ends"]

    in_virtual_time(work())
