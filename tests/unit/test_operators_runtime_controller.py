"""A controller against an API server of plain dicts: what a plan does, in which order, and when none may be made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from headrace_operators.runtime import metrics
from headrace_operators.runtime.actions import Action, Apply, Create, Delete, Plan, Tell
from headrace_operators.runtime.cache import Caches, Watch, by_controller
from headrace_operators.runtime.controller import Controller, Wait
from headrace_operators.runtime.errors import AlreadyExists, Conflict, Invalid, NotFound, NotLeading, Unreachable
from headrace_operators.runtime.kinds import Key, Kind, key_of, owner_reference

RUN = Kind("headrace.dev", "v1alpha1", "TrainingRun", "trainingruns")
JOB = Kind("ray.io", "v1", "RayJob", "rayjobs")
KEY = Key("n", "run")


class Api:
    """Objects by kind and key. `calls` tells what was asked of it; what stands in `fails` is raised once."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, Key], dict[str, Any]] = {}
        self.calls: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.version = 100

    def _called(self, verb: str, kind: Kind, key: Key) -> None:
        name = key.name if kind.kind != "Event" else ""
        self.calls.append(f"{verb} {kind.kind} {name}".strip())
        if error := self.fails.pop(f"{verb} {kind.kind}", None):
            raise error

    def _keep(self, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        metadata = {"uid": f"uid-{self.version}", **obj["metadata"], "resourceVersion": str(self.version)}
        kept = {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        self.objects[kind.kind, key_of(kept)] = kept
        return kept

    async def get(self, kind: Kind, key: Key) -> dict[str, Any]:
        self._called("get", kind, key)
        return self.objects[kind.kind, key]

    async def create(self, kind: Kind, manifest: Any) -> dict[str, Any]:
        key = key_of(manifest)
        self._called("create", kind, key)
        if (kind.kind, key) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", f"{key} already exists")
        return self._keep(kind, manifest)

    async def apply(self, kind: Kind, manifest: Any, *, force: bool = False) -> dict[str, Any]:
        self._called("force" if force else "apply", kind, key_of(manifest))
        return self._keep(kind, {**self.objects.get((kind.kind, key_of(manifest)), {}), **manifest})

    async def merge(self, kind: Kind, key: Key, change: Any) -> dict[str, Any]:
        self._called("merge", kind, key)
        return self._keep(kind, {**self.objects[kind.kind, key], **change})

    async def delete(self, kind: Kind, key: Key, uid: str) -> dict[str, Any]:
        self._called("delete", kind, key)
        there = self.objects.get((kind.kind, key))
        if there is None:
            raise NotFound(404, "NotFound", "gone")
        if there["metadata"]["uid"] != uid:
            raise Conflict(409, "Conflict", "another uid")
        return self.objects.pop((kind.kind, key))

    async def patch_status(self, kind: Kind, key: Key, status: Any, resource_version: str) -> dict[str, Any]:
        self._called("status", kind, key)
        there = self.objects[kind.kind, key]
        if there["metadata"]["resourceVersion"] != resource_version:
            raise Conflict(409, "Conflict", "the object has been modified")
        return self._keep(kind, {**there, "status": dict(status)})


class Reconciler:
    name = "trainingrun"
    kind = RUN
    watches = (Watch(JOB, by_controller(RUN)),)

    def __init__(self) -> None:
        self.answer: Plan | Exception = Plan()
        self.planned: list[dict[str, Any]] = []

    async def plan(self, obj: Any, caches: Caches, now: datetime) -> Plan:
        self.planned.append(obj)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Bed:
    """A controller whose caches are told by `see`, as an informer would."""

    def __init__(self) -> None:
        self.api, self.reconciler, self.now = Api(), Reconciler(), 1000.0
        client: Any = self.api
        self.controller = Controller(self.reconciler, client, namespace=None, workers=2, clock=lambda: self.now)
        self.api._keep(RUN, {"metadata": {"name": "run", "namespace": "n"}, "spec": {}})
        self.see(RUN, KEY)

    def see(self, kind: Kind, key: Key) -> None:
        """The watch tells of the object as the API server has it now."""
        store, obj = self.controller.caches.stores[kind], self.api.objects.get((kind.kind, key))
        if obj is None:
            store.drop(key)
        else:
            store.put(obj)
        store.seen = self.api.version

    def reconcile(self) -> str:
        return asyncio.run(self.controller.reconcile(KEY))

    @property
    def run(self) -> dict[str, Any]:
        return self.api.objects["TrainingRun", KEY]

    def job(self, name: str = "run-1") -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": "n", "ownerReferences": [owner_reference(self.run)]},
            "spec": {},
        }


@pytest.fixture
def bed() -> Bed:
    return Bed()


def metric(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, {"controller": "trainingrun", **labels}) or 0.0


def test_actions_are_carried_out_in_their_order_and_the_status_is_written_last(bed: Bed) -> None:
    actions: tuple[Action, ...] = (Apply(JOB, bed.job("b")), Create(JOB, bed.job("a")), Tell("Started", "it started"))
    bed.reconciler.answer = Plan(actions, {"phase": "Running"})
    assert bed.reconcile() == "success"
    assert bed.api.calls == ["apply RayJob b", "create RayJob a", "create Event", "status TrainingRun run"]
    assert bed.run["status"] == {"phase": "Running"}


def test_an_action_that_fails_ends_the_plan_and_the_status_is_not_written(bed: Bed) -> None:
    bed.api.fails["create RayJob"] = Unreachable(503, "ServiceUnavailable", "no")
    bed.reconciler.answer = Plan((Create(JOB, bed.job()), Apply(JOB, bed.job("b"))), {"phase": "Running"})
    assert bed.reconcile() == "error"
    assert bed.api.calls == ["create RayJob run-1"]


def test_a_status_that_is_as_wanted_is_not_written(bed: Bed) -> None:
    bed.api._keep(RUN, {**bed.run, "status": {"phase": "Running", "list": [1, 2]}})
    bed.see(RUN, KEY)
    bed.reconciler.answer = Plan(status={"phase": "Running", "list": (1, 2)})
    assert bed.reconcile() == "success"
    assert bed.api.calls == []


def test_an_empty_status_is_as_good_as_none(bed: Bed) -> None:
    bed.reconciler.answer = Plan(status={})
    bed.reconcile()
    assert bed.api.calls == []


def test_after_a_write_of_the_status_nothing_is_planned_until_the_cache_has_it(bed: Bed) -> None:
    bed.reconciler.answer = Plan(status={"attempt": 1})
    bed.reconcile()
    assert bed.reconcile() == "requeue_after"
    assert len(bed.reconciler.planned) == 1
    bed.see(RUN, KEY)
    assert bed.reconcile() == "success"
    assert bed.reconciler.planned[1]["status"] == {"attempt": 1}


def test_after_a_create_nothing_is_planned_until_the_cache_has_it(bed: Bed) -> None:
    bed.reconciler.answer = Plan((Create(JOB, bed.job()),))
    bed.reconcile()
    assert bed.reconcile() == "requeue_after"
    bed.see(JOB, Key("n", "run-1"))
    bed.reconciler.answer = Plan()
    assert bed.reconcile() == "success"
    assert len(bed.reconciler.planned) == 2


def test_after_a_delete_nothing_is_planned_until_the_cache_has_lost_it_or_sees_it_going(bed: Bed) -> None:
    for seen_going in (False, True):
        job = bed.api._keep(JOB, bed.job())
        bed.see(JOB, key_of(job))
        bed.reconciler.answer = Plan((Delete(JOB, "n", "run-1", job["metadata"]["uid"]),))
        assert bed.reconcile() == "success"
        assert bed.reconcile() == "requeue_after"
        if seen_going:
            bed.api._keep(JOB, {**job, "metadata": {**job["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
        bed.see(JOB, key_of(job))
        bed.reconciler.answer = Plan()
        assert bed.reconcile() == "success"


def test_a_watch_that_never_tells_of_a_write_holds_its_key_up_for_a_minute_at_most(bed: Bed) -> None:
    bed.reconciler.answer = Plan(status={"attempt": 1})
    bed.reconcile()
    bed.now += 59
    assert bed.reconcile() == "requeue_after"
    bed.now += 2
    bed.reconciler.answer = Plan()
    assert bed.reconcile() == "success"


def test_a_status_made_from_an_old_object_is_refused_and_tried_again_without_an_error(bed: Bed) -> None:
    errors = metric("controller_runtime_reconcile_errors_total")
    bed.api._keep(RUN, {**bed.run, "spec": {"suspend": True}})  # the cache does not know yet
    bed.reconciler.answer = Plan(status={"phase": "Running"})
    assert bed.reconcile() == "requeue"
    assert "status" not in bed.run
    assert metric("controller_runtime_reconcile_errors_total") == errors
    bed.see(RUN, KEY)
    assert bed.reconcile() == "success"
    assert bed.run["status"] == {"phase": "Running"}


def test_a_created_object_that_is_there_already_and_ours_is_as_good(bed: Bed) -> None:
    bed.api._keep(JOB, bed.job())
    bed.reconciler.answer = Plan((Create(JOB, bed.job()),), {"attempt": 1})
    assert bed.reconcile() == "success"
    assert bed.run["status"] == {"attempt": 1}


def test_a_name_that_another_owns_is_an_error_that_a_person_can_read(bed: Bed) -> None:
    theirs = bed.job()
    theirs["metadata"]["ownerReferences"][0]["uid"] = "another"
    bed.api._keep(JOB, theirs)
    bed.reconciler.answer = Plan((Create(JOB, bed.job()),), {"attempt": 1})
    assert bed.reconcile() == "error"
    assert "status" not in bed.run
    (event,) = [obj for (kind, _), obj in bed.api.objects.items() if kind == "Event"]
    assert event["reason"] == "ReconcileFailed"
    assert "RayJob n/run-1 is there and belongs to TrainingRun run (uid another)" in event["message"]


def test_a_name_whose_object_is_still_going_is_waited_for(bed: Bed) -> None:
    job = bed.api._keep(JOB, bed.job())
    job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    bed.reconciler.answer = Plan((Create(JOB, bed.job()),), {"attempt": 1})
    assert bed.reconcile() == "requeue_after"
    assert "status" not in bed.run


def test_deleting_what_is_gone_or_replaced_is_no_error(bed: Bed) -> None:
    bed.reconciler.answer = Plan((Delete(JOB, "n", "run-1", "old"),))
    assert bed.reconcile() == "success"
    bed.api._keep(JOB, bed.job())
    assert bed.reconcile() == "success"
    assert ("RayJob", Key("n", "run-1")) in bed.api.objects


def test_an_event_that_cannot_be_written_does_not_hold_up_the_rest(bed: Bed) -> None:
    bed.api.fails["create Event"] = Unreachable(0, "Unreachable", "refused")
    bed.reconciler.answer = Plan((Tell("A", "a"), Create(JOB, bed.job())), {"attempt": 1})
    assert bed.reconcile() == "success"
    assert bed.run["status"] == {"attempt": 1}


def test_a_refused_object_is_told_to_the_person_and_tried_again_later_and_later(bed: Bed) -> None:
    bed.reconciler.answer = Plan((Create(JOB, bed.job()),))
    for _ in range(3):
        bed.api.fails["create RayJob"] = Invalid(422, "Invalid", "spec.x is wrong")
        assert bed.reconcile() == "error"
    events = [obj for (kind, _), obj in bed.api.objects.items() if kind == "Event"]
    assert [(event["reason"], event["count"]) for event in events] == [("ReconcileFailed", 3)]
    assert bed.controller.queue.due() is not None


def test_a_deleted_or_going_object_is_not_planned_for(bed: Bed) -> None:
    bed.run["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    bed.see(RUN, KEY)
    assert bed.reconcile() == "success"
    del bed.api.objects["TrainingRun", KEY]
    bed.see(RUN, KEY)
    assert bed.reconcile() == "success"
    assert bed.reconciler.planned == []


def test_waiting_counts_as_no_error_and_comes_back_in_time(bed: Bed) -> None:
    bed.reconciler.answer = Wait("the front does not answer", 7.0)
    assert bed.reconcile() == "requeue_after"
    assert bed.controller.queue.due() == 7.0
    bed.reconciler.answer = Plan(again_after_seconds=3.0)
    assert bed.reconcile() == "requeue_after"
    assert bed.controller.queue.due() == 3.0


def test_an_unforeseen_error_is_counted_logged_with_its_object_and_retried(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    before = metric("controller_runtime_reconcile_total", result="error")
    bed.reconciler.answer = ZeroDivisionError("oh")
    assert bed.reconcile() == "error"
    assert metric("controller_runtime_reconcile_total", result="error") == before + 1
    record: Any = next(record for record in caplog.records if record.levelname == "ERROR")
    assert record.fields == {"controller": "trainingrun", "namespace": "n", "name": "run"}
    assert "ZeroDivisionError" in caplog.text
    assert bed.api.calls == []


def test_losing_the_lease_ends_the_controller_at_once(bed: Bed) -> None:
    bed.api.fails["create RayJob"] = NotLeading("the lease was renewed 11 s ago")
    bed.reconciler.answer = Plan((Create(JOB, bed.job()),), {"attempt": 1})
    bed.controller.queue.add(KEY)
    with pytest.raises(NotLeading):
        asyncio.run(bed.controller.run())
    assert "status" not in bed.run


def test_no_more_reconciles_run_at_once_than_there_are_workers_and_never_two_of_one_key(
    in_virtual_time: Callable[..., Any],
) -> None:
    running: list[str] = []
    most: list[int] = []

    class Slow(Reconciler):
        async def plan(self, obj: Any, caches: Caches, now: datetime) -> Plan:
            name = obj["metadata"]["name"]
            assert name not in running
            running.append(name)
            most.append(len(running))
            await asyncio.sleep(1)
            running.remove(name)
            return Plan()

    async def work() -> float:
        loop = asyncio.get_running_loop()
        client: Any = Api()
        controller = Controller(Slow(), client, namespace=None, workers=3, clock=loop.time)
        for n in range(9):
            obj = client._keep(RUN, {"metadata": {"name": f"run-{n}", "namespace": "n"}, "spec": {}})
            controller.caches.stores[RUN].put(obj)
            controller.queue.add(key_of(obj))
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(0.5)
        controller.queue.add(Key("n", "run-0"))
        await asyncio.sleep(10)
        controller.queue.stop()
        await task
        return max(most)

    assert in_virtual_time(work()) == 3
    assert len(most) == 10
