"""The ModelMonitor operator: measures each endpoint once an interval, and writes what came of it.

A measurement is written once an interval even if nothing else changed: that is what the object is for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from headrace.api.model_monitor import ModelMonitorSpec
from headrace_operators.background import Background
from headrace_operators.kinds import MODEL_DEPLOYMENT, MODEL_MONITOR
from headrace_operators.model_monitor import metrics
from headrace_operators.model_monitor.plan import Observed, accepted, plan
from headrace_operators.model_monitor.prometheus import Measurement, Prometheus
from headrace_operators.model_monitor.queries import queries
from headrace_operators.runtime.actions import Plan
from headrace_operators.runtime.cache import Caches, Watch
from headrace_operators.runtime.kinds import Key, Object, key_of

_Asked = tuple[Key, str, int]  # the monitor, which one of that name, and the generation of its spec


class ModelMonitorReconciler:
    """See the module.

    Args:
        prometheus: whom to ask.
        clock: seconds that only go forward.
        now: the moment of a measurement.
    """

    name = "modelmonitor"
    kind = MODEL_MONITOR

    def __init__(
        self,
        prometheus: Prometheus,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.watches = (Watch(MODEL_DEPLOYMENT, self._monitors_of, _keep_nothing),)
        self._prometheus = prometheus
        self._now = now
        self._measured: Background[_Asked, Measurement] = Background(clock)
        self._watching: dict[Key, Key] = {}  # the monitor: its deployment
        self._caches: Caches | None = None
        metrics.count_before_scrape(self._monitors)

    async def plan(self, obj: Object, caches: Caches, now: datetime) -> Plan:
        """What to tell of the ModelMonitor OBJ."""
        self._caches = caches
        spec, _ = accepted(obj)
        if spec is None:
            return plan(Observed(obj, deployment_there=False), now)
        key = key_of(obj)
        deployment = self._watching[key] = Key(key.namespace, spec.deployment_name)
        if caches.get(MODEL_DEPLOYMENT, deployment) is None:
            return plan(Observed(obj, deployment_there=False), now)
        asked = (key, str(obj["metadata"]["uid"]), int(obj["metadata"].get("generation") or 0))
        again = self._measured.keep_fresh(asked, lambda: self._measure(deployment, spec), spec.interval_seconds)
        newest = self._measured.newest(asked)
        measurement = newest.value if newest is not None else None
        made = plan(Observed(obj, deployment_there=True, measurement=measurement), now)
        return replace(made, again_after_seconds=again)

    async def close(self) -> None:
        """End what is under way."""
        await self._measured.close()
        await self._prometheus.close()

    async def settle(self) -> None:
        """Wait for the measurements that are under way: for tests."""
        await self._measured.settle()

    async def _measure(self, deployment: Key, spec: ModelMonitorSpec) -> Measurement:
        asked = queries(deployment.namespace, deployment.name, spec.window_seconds)
        return await self._prometheus.measure(spec.prometheus.url, asked, self._now())

    def _monitors_of(self, deployment: Object) -> Iterable[Key]:
        """The monitors that are known to look at a deployment: one that appears wakes them."""
        key = key_of(deployment)
        return [monitor for monitor, of in self._watching.items() if of == key]

    def _monitors(self) -> Iterator[Object]:
        """All there are; also the moment to forget what is gone."""
        caches = self._caches
        if caches is None:
            return
        found = [obj for key in sorted(caches.primaries()) if (obj := caches.get(MODEL_MONITOR, key)) is not None]
        known = {key_of(obj) for obj in found}
        for gone in self._watching.keys() - known:
            del self._watching[gone]
        yield from found


def _keep_nothing(obj: Object) -> Object:
    """That it is there is all that matters."""
    metadata = obj["metadata"]
    return {"metadata": {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata}}
