"""Keeps one store equal to what the API server has: list, then watch from there, for ever.

A list is paged; a watch is renewed every few minutes, goes on from the last version that it saw (a bookmark's too), and
is begun anew by a list only when the API server no longer knows that version (410). Nothing here ends the process: a
missing API server or a missing CRD is waited for, with a line in the log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from headrace_operators.runtime import metrics
from headrace_operators.runtime.cache import Store, version_of
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.errors import ApiError, Gone, NotFound
from headrace_operators.runtime.kinds import Key, Object, key_of
from headrace_operators.runtime.logs import Log

_WATCH_SECONDS = (300, 600)  # each watch draws its length, so that those of many replicas do not end together
_SHORT_SECONDS = 1.0  # a watch that ends sooner without an event has failed, whatever it says
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
_MISSING_KIND_SECONDS = 10.0
_NOT_YET = 504  # our version is one that the API server has not reached: its etcd was restored from a backup


class Informer:
    """Feeds STORE; CHANGED is called with each primary that is to be planned anew."""

    def __init__(
        self, client: Client, store: Store, namespace: str | None, changed: Callable[[Key], None], log: Log
    ) -> None:
        self._client = client
        self._store = store
        self._kind = store.watch.kind
        self._namespace = namespace
        self._changed = changed
        self._log = log
        self._version: str | None = None
        self._failures = 0
        for why in ("timeout", "gone", "error"):  # there from the start: of a counter that begins at 1, none is seen
            metrics.WATCH_ENDS.labels(self._kind.kind, why)

    async def run(self) -> None:
        """Keep the store up to date until cancelled."""
        while True:
            pause = 0.0
            try:
                if self._version is None:
                    self._version = await self._list()
                pause = await self._watch(self._version)
            except Gone as error:
                self._ended("gone")
                self._log.info("listing anew: %s", error, fields=self._fields)
                self._version = None
                pause = self._backoff()
            except NotFound as error:
                self._version = None
                pause = self._missing(error)
            except Exception as error:
                self._ended("error")
                pause = self._backoff()
                known = error if isinstance(error, ApiError) else None
                if known is None or known.status == _NOT_YET:
                    self._version = None
                words = "cannot watch, trying again in %.1f s: %s"
                self._log.warning(words, pause, error, fields=self._fields, exc_info=None if known else error)
            await asyncio.sleep(pause)

    @property
    def _fields(self) -> dict[str, str]:
        return {"kind": self._kind.kind}

    async def _list(self) -> str:
        """Take in the whole list. Only at its end is known what is gone."""
        listed: set[Key] = set()
        version = "0"
        pages = self._client.pages(self._kind, self._namespace, self._store.watch.label_selector)
        async for page in pages:
            for obj in page:
                listed.add(key_of(obj))
                self._take(obj)
            version = str(page.metadata()["resourceVersion"])
            await asyncio.sleep(0)
        for key in [key for key in self._store if key not in listed]:
            self._tell(self._store.drop(key))
        self._store.seen = int(version)
        if not self._store.synced:
            self._log.info("listed %d objects", len(self._store), fields=self._fields)
        self._store.synced, self._store.missing = True, False
        return version

    async def _watch(self, version: str) -> float:
        """Take in what happens after VERSION; how long to wait before going on."""
        clock = asyncio.get_running_loop().time
        started, events = clock(), 0
        seconds = random.randint(*_WATCH_SECONDS)
        watch = self._client.watch(self._kind, self._namespace, version, seconds, self._store.watch.label_selector)
        async for type_, obj in watch:
            events += 1
            self._failures = 0
            self._take_event(type_, obj)
        self._ended("timeout")
        if not events and clock() - started < _SHORT_SECONDS:
            return self._backoff()
        self._failures = 0
        return 0.0

    def _take_event(self, type_: str, obj: Object) -> None:
        version = version_of(obj)
        if type_ != "BOOKMARK" and version > self._store.version(key_of(obj)):  # else we know it already
            if type_ == "DELETED":
                self._tell(self._store.drop(key_of(obj)))
            else:
                self._take(obj)
        self._version = str(version)
        self._store.seen = version

    def _take(self, obj: Object) -> None:
        try:
            self._tell(self._store.put(obj))
        except (LookupError, TypeError, ValueError, AttributeError):
            key = key_of(obj)
            fields = {**self._fields, "namespace": key.namespace, "name": key.name}
            self._log.exception("an object is not as its kind should be, and is left out", fields=fields)

    def _tell(self, primaries: set[Key]) -> None:
        for primary in primaries:
            self._changed(primary)

    def _missing(self, error: NotFound) -> float:
        self._store.missing = True
        if self._store.watch.optional:
            self._store.synced = True
            return _MISSING_KIND_SECONDS
        name = f"{self._kind.plural}.{self._kind.group}" if self._kind.group else self._kind.plural
        self._log.warning(
            "the API server has no %s: install its CRD (%s); looking again in %.0f s",
            name,
            error,
            _MISSING_KIND_SECONDS,
            fields=self._fields,
        )
        return _MISSING_KIND_SECONDS

    def _backoff(self) -> float:
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 30), _LONGEST_PAUSE_SECONDS)
        self._failures += 1
        return pause * random.uniform(0.8, 1.2)

    def _ended(self, why: str) -> None:
        metrics.WATCH_ENDS.labels(self._kind.kind, why).inc()
