"""Which objects wait to be planned: each at most once, never two workers on one, the failed ones later and later.

The laws are those of client-go's workqueue. A key that is added while it waits is one entry; one that is added while a
worker has it is planned once more when the worker is done. A key may also be given a time; the earliest counts, and it
is forgotten when the key is taken up, for the plan made then says anew when to look again.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Callable

from headrace_operators.runtime import metrics
from headrace_operators.runtime.kinds import Key

_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.005, 300.0
_JITTER = (0.8, 1.2)


class Queue:
    """The queue of one controller, for the one event loop it is used in."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ready: deque[Key] = deque()
        self._dirty: dict[Key, float] = {}  # waits, or is to be planned once more: since when
        self._working: dict[Key, float] = {}
        self._times: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []  # with entries that `_times` no longer knows
        self._failures: dict[Key, int] = {}
        self._stopped = False
        self._wake = asyncio.Event()
        self._adds = metrics.ADDS.labels(name)
        self._retries = metrics.RETRIES.labels(name)
        self._waited = metrics.QUEUE_SECONDS.labels(name)
        self._worked = metrics.WORK_SECONDS.labels(name)
        metrics.DEPTH.labels(name).set_function(self.__len__)
        metrics.UNFINISHED.labels(name).set_function(lambda: sum(self._ages()))
        metrics.LONGEST.labels(name).set_function(lambda: max(self._ages(), default=0.0))

    def __len__(self) -> int:
        """How many wait for a worker now."""
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Plan KEY as soon as a worker is free."""
        if key in self._dirty or self._stopped:
            return
        self._adds.inc()
        self._dirty[key] = self._clock()
        if key not in self._working:
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Plan KEY in so many seconds, or earlier if it is added by then."""
        moment = self._clock() + seconds
        if self._stopped or self._times.get(key, moment + 1) <= moment:
            return
        self._times[key] = moment
        heapq.heappush(self._heap, (moment, key))
        self._wake.set()

    def add_failed(self, key: Key) -> float:
        """Plan KEY again after its backoff, which doubles with each failure; the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._retries.inc()
        seconds = min(_FIRST_RETRY_SECONDS * 2.0 ** min(failures, 30), _LONGEST_RETRY_SECONDS)
        seconds *= random.uniform(*_JITTER)
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: Key) -> None:
        """KEY did not fail: its next backoff begins small again."""
        self._failures.pop(key, None)

    def take(self) -> Key | None:
        """The next key, now the caller's until `done`; None if none is due."""
        self._ripen()
        if not self._ready:
            return None
        key, now = self._ready.popleft(), self._clock()
        self._waited.observe(now - self._dirty.pop(key))
        self._times.pop(key, None)
        self._working[key] = now
        return key

    def done(self, key: Key) -> None:
        """The caller has finished with KEY."""
        self._worked.observe(self._clock() - self._working.pop(key))
        if key in self._dirty:
            self._ready.append(key)
            self._wake.set()

    def due(self) -> float | None:
        """Seconds until a delayed key becomes due; None without one."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None

    async def get(self) -> Key | None:
        """The next key, waited for; None when the queue was stopped."""
        while not self._stopped:
            if (key := self.take()) is not None:
                if self._ready:
                    self._wake.set()  # for the next worker
                return key
            self._wake.clear()
            try:
                async with asyncio.timeout(self.due()):
                    await self._wake.wait()
            except TimeoutError:
                pass
        return None

    def stop(self) -> None:
        """Give out no more keys; those under way are finished by who has them."""
        self._stopped = True
        self._wake.set()

    def _ripen(self) -> None:
        while (seconds := self.due()) is not None and seconds <= 0:
            _, key = heapq.heappop(self._heap)
            del self._times[key]
            self.add(key)

    def _ages(self) -> list[float]:
        now = self._clock()
        return [now - since for since in self._working.values()]
