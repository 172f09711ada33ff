"""Keys that are due: each once, soon or later, worked at by a fixed number of workers.

Ten thousand jobs that wait for something cost one timer of the event loop each, and no loop of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp

from kuberay_double.wire import Key, Refused

_LOG = logging.getLogger("kuberay-double")
_CONFLICT_SECONDS = 0.02
_ERROR_SECONDS = 0.5
_EARLY_SECONDS = 1e-3  # a loop calls by its clock's resolution too early
_NOBODY_ANSWERED = (aiohttp.ClientError, TimeoutError, OSError)

Reconcile = Callable[[Key], Awaitable[float | None]]


class Controller:
    """Calls RECONCILE for keys that are due. It returns the seconds until it wants to be called again, or None.

    One key is never in two calls at once, and of all the times it is due only the earliest counts.
    """

    def __init__(self, name: str, reconcile: Reconcile, workers: int = 8) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._due: dict[Key, float] = {}
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._working: set[Key] = set()

    def add(self, key: Key, after_seconds: float = 0.0) -> None:
        """KEY is due in so long, unless it is due sooner."""
        loop = asyncio.get_running_loop()
        at = loop.time() + after_seconds
        if at >= self._due.get(key, float("inf")):
            return
        self._due[key] = at
        if after_seconds <= 0:
            self._ready.put_nowait(key)
        else:
            loop.call_at(at, self._ready.put_nowait, key)

    def _is_due(self, key: Key) -> bool:
        return self._due.get(key, float("inf")) <= asyncio.get_running_loop().time() + _EARLY_SECONDS

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            if key in self._working or not self._is_due(key):
                continue  # whoever works at it looks again when done; what is due later has a timer
            self._working.add(key)
            del self._due[key]
            again = await self._once(key)
            self._working.discard(key)
            if again is not None:
                self.add(key, again)
            if self._is_due(key):
                self._ready.put_nowait(key)

    async def _once(self, key: Key) -> float | None:
        try:
            return await self._reconcile(key)
        except Refused as refusal:
            if refusal.status in (404, 409):
                return _CONFLICT_SECONDS
            level = logging.INFO if refusal.status >= 500 else logging.WARNING  # a server that starts refuses all
            _LOG.log(level, "%s %s: %s", self.name, key, refusal)
        except _NOBODY_ANSWERED as error:
            _LOG.info("%s %s: %r", self.name, key, error)
        except Exception:
            _LOG.exception("%s %s", self.name, key)
        return _ERROR_SECONDS

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())
