"""The double as a whole: it runs in a thread of a test, or as a process (`python -m kuberay_double`)."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuberay_double.clusters import ObjectClusters, UnseenClusters
from kuberay_double.front import FrontDouble
from kuberay_double.jobs import Jobs
from kuberay_double.queue import Controller
from kuberay_double.ray import Ray
from kuberay_double.script import Behaviour
from kuberay_double.services import Services
from kuberay_double.wire import Key, Object, Wire, owner_key

_LOG = logging.getLogger("kuberay-double")
_START_SECONDS = 60


@dataclass(frozen=True)
class Intervals:
    """How often KubeRay looks at a dashboard, in seconds. KubeRay's own: 3 for jobs, 2 for services."""

    jobs: float = 0.1
    services: float = 0.1


_ORDINARY, _FAST = Behaviour(), Intervals()


class KubeRayDouble:
    """Plays KubeRay, kubelet and Ray in one NAMESPACE, or everywhere; a context manager.

    Args:
        kubeconfig: whoever it is to the API server; it writes RayJobs, RayServices, RayClusters, Pods and Services.
        default: what jobs and services do whose pods carry no script.
        front: answers for what RayServices serve; without one nobody does.
    """

    def __init__(
        self,
        kubeconfig: Path,
        *,
        namespace: str = "",
        default: Behaviour = _ORDINARY,
        intervals: Intervals = _FAST,
        front: FrontDouble | None = None,
    ) -> None:
        self.ray = Ray()
        self._kubeconfig, self._namespace, self._default = kubeconfig, namespace, default
        self._intervals, self._front = intervals, front
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run_thread, name="kuberay-double", daemon=True)
        self.clusters: ObjectClusters | UnseenClusters | None = None

    # -- in a thread -------------------------------------------------------------------------------------------------

    def __enter__(self) -> KubeRayDouble:
        self._thread.start()
        if not self._ready.wait(_START_SECONDS):
            raise RuntimeError(f"KubeRay's double has not read the API server's objects within {_START_SECONDS} s")
        return self

    def __exit__(self, *details: object) -> None:
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def _run_thread(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.ensure_future(self.run())
            await asyncio.gather(self._task, return_exceptions=True)

        asyncio.run(main())

    def lose_head(self, namespace: str, cluster: str) -> None:
        """End the head pod of the RayCluster, as a node that dies does."""
        assert self._loop is not None, "use `with KubeRayDouble(...)`"
        asyncio.run_coroutine_threadsafe(self._lose_head(Key(namespace, cluster)), self._loop).result(120)

    def end_job(self, namespace: str, name: str) -> None:
        """Let the entrypoint of the RayJob NAME, which is running, end now."""
        assert self._loop is not None, "use `with KubeRayDouble(...)`"
        asyncio.run_coroutine_threadsafe(self._end_job(Key(namespace, name)), self._loop).result(120)

    # -- in an event loop --------------------------------------------------------------------------------------------

    async def _lose_head(self, key: Key) -> float | None:
        assert self.clusters is not None
        if self.clusters.get(key) is not None:
            await self.clusters.lose_head(key)
        return None

    async def _end_job(self, key: Key) -> None:
        job = self._jobs.jobs.get(key)
        assert job is not None, f"{key} is not there"
        self.ray.end(job["status"]["jobId"])
        self._jobs.controller.add(key)

    async def run(self) -> None:
        """Play until cancelled."""
        async with Wire(self._kubeconfig) as wire:
            self.clusters = clusters = ObjectClusters(wire, self.ray, self._default, self._namespace, self._changed)
            self._losses = Controller("lost heads", self._lose_head)
            self._jobs = Jobs(
                wire, self.ray, clusters, self._default, self._intervals.jobs, self._namespace, self._losses.add
            )
            self._services = Services(
                wire, self.ray, clusters, self._default, self._intervals.services, self._namespace, self._front
            )
            caches = (clusters.clusters, clusters.pods, self._jobs.jobs, self._services.services)
            controllers = (
                clusters.controller,
                clusters.kubelet,
                self._losses,
                self._jobs.controller,
                self._services.controller,
                self._services.retiring,
            )
            await _run_all([*caches], [*controllers], self._ready)

    def _changed(self, cluster: Object) -> None:
        """A RayCluster changed: its RayJob or RayService looks at it."""
        if job := owner_key(cluster, "RayJob"):
            self._jobs.controller.add(job)
        elif service := owner_key(cluster, "RayService"):
            self._services.controller.add(service)


class JobsDouble(KubeRayDouble):
    """The same for RayJobs alone and without RayClusters, Pods and Services: for many thousands of jobs."""

    async def run(self) -> None:
        """Play until cancelled."""
        async with Wire(self._kubeconfig) as wire:
            self.clusters = clusters = UnseenClusters(self.ray)
            self._losses = Controller("lost heads", self._lose_head)
            self._jobs = Jobs(
                wire, self.ray, clusters, self._default, self._intervals.jobs, self._namespace, self._losses.add
            )
            await _run_all([self._jobs.jobs], [self._losses, self._jobs.controller], self._ready)


async def _run_all(caches: list[Any], controllers: list[Controller], ready: threading.Event) -> None:
    """Fill the caches, then work."""
    async with asyncio.TaskGroup() as group:
        for cache in caches:
            group.create_task(cache.run())
        for cache in caches:
            await cache.listed.wait()
        ready.set()
        for controller in controllers:
            group.create_task(controller.run())
