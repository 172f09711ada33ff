"""Events of an object, as `kubectl describe` shows them: equal ones are counted, and a storm is cut off.

An Event is told once; the same again within ten minutes raises its count. Each object may cause 25 writes at once and
one every five minutes after that, as in client-go. An Event that cannot be written is logged and lost: it must never
keep the work from going on.
"""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from headrace_operators.runtime import metrics
from headrace_operators.runtime.actions import Tell
from headrace_operators.runtime.client import MANAGER, Client
from headrace_operators.runtime.conditions import rfc3339
from headrace_operators.runtime.errors import ApiError, NotFound
from headrace_operators.runtime.kinds import Key, Kind, Object, key_of
from headrace_operators.runtime.logs import Log, object_fields

EVENT = Kind("", "v1", "Event", "events")
_WINDOW_SECONDS = 600.0
_BURST, _REFILL_SECONDS = 25.0, 300.0
_REMEMBERED = 4096  # events, and objects with a bucket
_LONGEST_MESSAGE = 1024


@dataclass(frozen=True)
class _Told:
    key: Key
    count: int
    last: float


@dataclass(frozen=True)
class _Bucket:
    tokens: float
    at: float


class Events:
    """Writes the Events of one controller."""

    def __init__(self, client: Client, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._source = {"component": MANAGER, "host": socket.gethostname()}
        self._log = log
        self._clock = clock
        self._told: OrderedDict[tuple[str, str, str, str], _Told] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    async def tell(self, about: Object, tell: Tell) -> None:
        """Write or count one Event about an object."""
        uid = str(about["metadata"]["uid"])
        if not self._may(uid):
            metrics.EVENTS.labels("dropped").inc()
            return
        try:
            await self._write(about, tell, (uid, tell.type, tell.reason, tell.message))
        except ApiError as error:
            metrics.EVENTS.labels("failed").inc()
            fields = object_fields(key_of(about))
            self._log.warning("cannot write the event %s: %s", tell.reason, error, fields=fields)

    async def _write(self, about: Object, tell: Tell, same: tuple[str, str, str, str]) -> None:
        now, told = self._clock(), self._told.get(same)
        if told is not None and now - told.last < _WINDOW_SECONDS:
            counted = replace(told, count=told.count + 1, last=now)
            change = {"count": counted.count, "lastTimestamp": rfc3339(datetime.now(UTC))}
            try:
                await self._client.merge(EVENT, told.key, change)
            except NotFound:  # the API server keeps Events for an hour
                pass
            else:
                self._remember(same, counted)
                metrics.EVENTS.labels("counted").inc()
                return
        manifest = self._manifest(about, tell)
        await self._client.create(EVENT, manifest)
        self._remember(same, _Told(key_of(manifest), 1, now))
        metrics.EVENTS.labels("written").inc()

    def _manifest(self, about: Object, tell: Tell) -> dict[str, Any]:
        metadata, moment = about["metadata"], rfc3339(datetime.now(UTC))
        namespace = metadata.get("namespace") or "default"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": f"{metadata['name'][:200]}.{time.time_ns():x}"},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": tell.type,
            "reason": tell.reason,
            "message": tell.message[:_LONGEST_MESSAGE],
            "source": self._source,
            "reportingComponent": MANAGER,
            "reportingInstance": self._source["host"],
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }

    def _may(self, uid: str) -> bool:
        now = self._clock()
        bucket = self._buckets.pop(uid, _Bucket(_BURST, now))
        tokens = min(_BURST, bucket.tokens + (now - bucket.at) / _REFILL_SECONDS)
        self._buckets[uid] = _Bucket(tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return tokens >= 1

    def _remember(self, same: tuple[str, str, str, str], told: _Told) -> None:
        self._told.pop(same, None)
        self._told[same] = told
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
