"""One reconciler at work: a bounded number of workers that take keys, have them planned and carry the plans out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, Protocol, get_args

from headrace_operators.runtime import metrics
from headrace_operators.runtime.actions import Plan, Tell
from headrace_operators.runtime.cache import Caches, Store, Watch, by_name
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.errors import ApiError, Conflict, NotLeading, Wait
from headrace_operators.runtime.events import Events
from headrace_operators.runtime.executor import Executor
from headrace_operators.runtime.expectations import Expectations
from headrace_operators.runtime.informer import Informer
from headrace_operators.runtime.kinds import Key, Kind, Object
from headrace_operators.runtime.logs import Log, object_fields
from headrace_operators.runtime.queue import Queue
from headrace_operators.runtime.tasks import together

__all__ = ["Controller", "Reconciler", "Wait"]

_UNSEEN_SECONDS = 0.5  # the watch that brings what we wrote wakes the key itself; this is for one that does not
_LONGEST_RECONCILE_SECONDS = 300.0

Result = Literal["success", "error", "requeue", "requeue_after"]


class Reconciler(Protocol):
    """What an operator is made of: what it is for, what it looks at, and what is to be done.

    `plan` must decide by OBJ and CACHES alone wherever it can; what it must ask elsewhere it asks with a time limit. It
    may be called at any time and any number of times: it says what is to be done now, and nothing where all is well.
    """

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        ...

    @property
    def kind(self) -> Kind:
        """The kind of object that it is for: the primaries."""
        ...

    @property
    def watches(self) -> tuple[Watch, ...]:
        """What else it looks at. A watch of its own kind may stand here too, to keep less of it."""
        ...

    async def plan(self, obj: Object, caches: Caches, now: datetime) -> Plan:
        """What is to be done about OBJ; raise `Wait` where something temporary is in the way."""
        ...


class Controller:
    """Runs RECONCILER."""

    def __init__(
        self,
        reconciler: Reconciler,
        client: Client,
        *,
        namespace: str | None,
        workers: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = reconciler.name
        self._reconciler = reconciler
        self._workers = workers
        self._now = now
        self._log = Log(controller=self.name)
        watches = reconciler.watches
        if all(watch.kind != reconciler.kind for watch in watches):
            watches = (Watch(reconciler.kind, by_name), *watches)
        stores = [Store(watch) for watch in watches]
        self.queue = Queue(self.name, clock)
        self.caches = Caches(reconciler.kind, stores)
        self.informers = [Informer(client, store, namespace, self.queue.add, self._log) for store in stores]
        self._expectations = Expectations(self.caches, self._log, clock)
        self._events = Events(client, self._log, clock)
        self._executor = Executor(reconciler.kind, client, self._events, self._expectations, self._log)
        self._show_sizes(stores)

    async def run(self) -> None:
        """Work until the queue is stopped; NotLeading ends it at once."""
        metrics.MAX_ACTIVE.labels(self.name).set(self._workers)
        metrics.ERRORS.labels(self.name)  # there from the start: of a counter that begins at 1, no increase is seen
        for result in get_args(Result):
            metrics.RECONCILES.labels(self.name, result)
        await together(self._work() for _ in range(self._workers))

    async def _work(self) -> None:
        while (key := await self.queue.get()) is not None:
            try:
                with metrics.ACTIVE.labels(self.name).track_inprogress():
                    await self.reconcile(key)
            finally:
                self.queue.done(key)
            await asyncio.sleep(0)  # a plan without a request must not keep the others from running

    async def reconcile(self, key: Key) -> Result:
        """One round for KEY: plan, act, and decide when to look again."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_LONGEST_RECONCILE_SECONDS):
                again = await self._round(key)
            self.queue.forget(key)
            result: Result = "success" if again is None else "requeue_after"
            if again is not None:
                self.queue.add_after(key, again)
        except Wait as wait:
            self._log.debug("waiting %.1f s: %s", wait.seconds, wait.message, fields=object_fields(key))
            self.queue.forget(key)
            self.queue.add_after(key, wait.seconds)
            result = "requeue_after"
        except NotLeading:
            raise
        except Conflict as error:
            result = "requeue"
            self._log.debug("changed meanwhile: %s", error, fields=object_fields(key))
            self.queue.add_failed(key)
        except Exception as error:
            result = "error"
            await self._failed(key, error)
        self._log.debug("reconciled: %s", result, fields=object_fields(key))
        metrics.RECONCILES.labels(self.name, result).inc()
        metrics.RECONCILE_SECONDS.labels(self.name).observe(time.perf_counter() - started)
        return result

    async def _round(self, key: Key) -> float | None:
        obj = self.caches.get(self._reconciler.kind, key)
        if obj is None:
            self._expectations.forget(key)
            return None
        if "deletionTimestamp" in obj["metadata"]:
            return None
        if unseen := self._expectations.unseen(key):
            raise Wait(f"the cache has not seen what we wrote: {unseen}", _UNSEEN_SECONDS)
        plan = await self._reconciler.plan(obj, self.caches, self._now())
        await self._executor.carry_out(obj, plan)
        return plan.again_after_seconds

    async def _failed(self, key: Key, error: Exception) -> None:
        metrics.ERRORS.labels(self.name).inc()
        seconds = self.queue.add_failed(key)
        fields = object_fields(key)
        known = isinstance(error, (ApiError, TimeoutError))
        words = str(error) or type(error).__name__
        self._log.error(
            "failed, trying again in %.1f s: %s", seconds, words, fields=fields, exc_info=None if known else error
        )
        obj = self.caches.get(self._reconciler.kind, key)
        if obj is not None and isinstance(error, ApiError) and not error.temporary:  # a person must mend something
            await self._events.tell(obj, Tell("ReconcileFailed", words, "Warning"))

    def _show_sizes(self, stores: list[Store]) -> None:
        for store in stores:
            kind = store.watch.kind.kind
            metrics.CACHED.labels(self.name, kind).set_function(store.__len__)
            metrics.CACHED_BYTES.labels(self.name, kind).set_function(store.size)
