"""Answers of other systems, fetched beside the reconcile and not in it: a slow server delays nobody's plan.

A reconciler reads the newest answer and says how old it may be; an older one is fetched anew by a task of its own, one
at a time for each key. What comes back is seen by the next plan.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

SOON_SECONDS = 0.25  # when to look for an answer that is on its way
_MOST_AT_ONCE = 64
_REMEMBER_SECONDS = 3600.0


@dataclass(frozen=True)
class Dated(Generic[V]):
    """An answer, and when it was complete by the clock of its `Background`."""

    value: V
    at: float


class Background(Generic[K, V]):
    """The newest answer for each key.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest: dict[K, Dated[V]] = {}
        self._tried: dict[K, float] = {}
        self._wanted_until: dict[K, float] = {}
        self._swept_at = clock()
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)

    def newest(self, key: K) -> Dated[V] | None:
        """The newest answer for KEY, if there has been one."""
        return self._newest.get(key)

    def keep_fresh(self, key: K, fetch: Callable[[], Awaitable[V]], every_seconds: float) -> float:
        """Fetch anew what is older than EVERY_SECONDS; in how many seconds it is worth looking again."""
        now = self._clock()
        self._wanted_until[key] = now + max(_REMEMBER_SECONDS, 2 * every_seconds)
        self._sweep(now)
        if key not in self._tasks:
            tried = self._tried.get(key)
            left = 0.0 if tried is None else tried + every_seconds - now
            if left > 0:
                return left
            self._tasks[key] = asyncio.get_running_loop().create_task(self._fetch(key, fetch))
        return SOON_SECONDS

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until nothing is under way: for tests."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values())

    def _sweep(self, now: float) -> None:
        """Let go of what nobody has asked for in a long time."""
        if now < self._swept_at + _REMEMBER_SECONDS:
            return
        self._swept_at = now
        for key in [key for key, until in self._wanted_until.items() if until < now and key not in self._tasks]:
            for held in (self._newest, self._tried, self._wanted_until):
                held.pop(key, None)

    async def _fetch(self, key: K, fetch: Callable[[], Awaitable[V]]) -> None:
        try:
            async with self._places:
                value = await fetch()
            self._newest[key] = Dated(value, self._clock())
        except Exception:  # what a server can do wrong is FETCH's to tell; this is a fault of ours
            logger.exception("fetching %s failed", key)
        finally:
            self._tried[key] = self._clock()
            del self._tasks[key]
