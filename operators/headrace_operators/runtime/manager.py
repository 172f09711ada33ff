"""The operator as one process: caches first, then the lease, then work; and all of it undone in peace when asked.

A replica that waits for the lease has its caches filled already, so it acts as soon as it holds it. On a stop no more
keys are taken, reconciles under way are finished, the lease is given up last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from headrace_operators.runtime.client import Client
from headrace_operators.runtime.controller import Controller, Reconciler
from headrace_operators.runtime.leader import Elector, LeaseOptions
from headrace_operators.runtime.logs import Log
from headrace_operators.runtime.server import Answer, Server, metrics_page
from headrace_operators.runtime.tasks import cancel

Errand = Callable[[Client], Coroutine[Any, Any, None]]
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Options:
    """How the process runs.

    Args:
        namespace: the only namespace to look at; None for all.
        workers: reconciles of one controller at the same time.
        lease: None acts at once, without a lease: for one replica that nobody starts twice.
        metrics_address, health_address: HOST:PORT, or "" for none.
        stop_seconds: how long reconciles under way may take to finish after a stop.
    """

    namespace: str | None = None
    workers: int = 8
    lease: LeaseOptions | None = None
    metrics_address: str = "127.0.0.1:8080"
    health_address: str = "127.0.0.1:8081"
    stop_seconds: float = 20.0


class Manager:
    """Runs RECONCILERS against the API server, and ERRANDS, which never end, beside them while this replica leads."""

    def __init__(
        self, client: Client, reconcilers: Sequence[Reconciler], options: Options, errands: Sequence[Errand] = ()
    ) -> None:
        self._options = options
        self._errands = errands
        self._log = Log()
        self._elector = Elector(client, options.lease) if options.lease else None
        self._client = client.guarded(self._elector.check) if self._elector else client
        self.controllers = [
            Controller(reconciler, self._client, namespace=options.namespace, workers=options.workers)
            for reconciler in reconcilers
        ]
        self.server = Server(self._pages())

    async def run(self, stop: asyncio.Event) -> None:
        """Run until STOP is set.

        Raises:
            NotLeading: the lease was lost; nothing more was written, and the process must end.
        """
        try:
            await self.server.start()
            await self._run_all(stop)
        finally:
            await self._client.close()
            await self.server.close()

    async def _run_all(self, stop: asyncio.Event) -> None:
        for address, port in self.server.ports.items():
            self._log.info("listening", fields={"address": address, "port": port})
        informers = [asyncio.create_task(informer.run()) for c in self.controllers for informer in c.informers]
        try:
            await self._run(stop, informers)
        finally:
            await cancel(informers)

    async def _run(self, stop: asyncio.Event, informers: list[asyncio.Task[None]]) -> None:
        if not await _unless(stop, self._synced(), informers):
            return
        holding = list(informers)
        if self._elector:
            if not await _unless(stop, self._elector.acquire(), informers):
                return
            holding.append(asyncio.create_task(self._elector.hold()))
        holding += [asyncio.create_task(errand(self._client)) for errand in self._errands]
        work = [asyncio.create_task(controller.run()) for controller in self.controllers]
        try:
            await _unless(stop, asyncio.Event().wait(), [*holding, *work])
            finished = await self._finish(work)
        finally:
            await cancel([*work, *holding])
        if self._elector and finished:  # else a write may be on its way still: the lease ends by itself
            await self._elector.release()

    async def _synced(self) -> None:
        while not all(controller.caches.synced for controller in self.controllers):
            await asyncio.sleep(_LOOK_SECONDS)
        self._log.info("all caches are filled")

    async def _finish(self, work: Sequence[asyncio.Task[None]]) -> bool:
        self._log.info("stopping: no more work is begun")
        for controller in self.controllers:
            controller.queue.stop()
        done, late = await asyncio.wait(work, timeout=self._options.stop_seconds)
        for task in done:
            task.result()
        if late:
            self._log.warning("%d controllers did not finish in %g s", len(late), self._options.stop_seconds)
        return not late

    def _pages(self) -> dict[str, dict[str, Answer]]:
        pages: dict[str, dict[str, Answer]] = {}
        if self._options.health_address:
            pages.setdefault(self._options.health_address, {}).update(
                {"/healthz": lambda: (200, "ok\n"), "/readyz": self._ready}
            )
        if self._options.metrics_address:
            pages.setdefault(self._options.metrics_address, {})["/metrics"] = metrics_page
        return pages

    def _ready(self) -> tuple[int, str]:
        missing = [
            f"{controller.name} has not listed {store.watch.kind.plural} yet\n"
            for controller in self.controllers
            for store in controller.caches.stores.values()
            if not store.synced
        ]
        return (503, "".join(missing)) if missing else (200, "ok\n")


async def _unless(stop: asyncio.Event, wanted: Coroutine[Any, Any, Any], others: Sequence[asyncio.Task[Any]]) -> bool:
    """Await WANTED; False when STOP came first. What ends one of OTHERS, which never end, is raised."""
    stopping, main = asyncio.create_task(stop.wait()), asyncio.create_task(wanted)
    try:
        await asyncio.wait([stopping, main, *others], return_when=asyncio.FIRST_COMPLETED)
        for task in (main, *others):
            if task.done():
                task.result()
        return not stopping.done()
    finally:
        await cancel([stopping, main])
