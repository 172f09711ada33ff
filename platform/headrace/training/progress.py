"""What people see while a training goes on: from one worker, and rarely enough not to cost anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from headrace.base import events

INTERVAL_SECONDS = 0.5  # a person cannot read faster; a change of phase is told at once


class Teller:
    """Emits `progress` events, at most two a second, and measures how long each part took.

    Args:
        speaks: whether this worker tells; the others only measure.
        clock: seconds that only go forward.
    """

    def __init__(self, *, speaks: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._speaks = speaks
        self._clock = clock
        self._last = -INTERVAL_SECONDS
        self._phase = ""
        self.seconds: dict[str, float] = {}

    def tell(self, phase: str, **fields: Any) -> None:
        """Tell that PHASE is going on, unless the last event is too recent."""
        if not self._speaks:
            return
        now = self._clock()
        if phase == self._phase and now - self._last < INTERVAL_SECONDS:
            return
        self._phase, self._last = phase, now
        events.emit("progress", step="train", phase=phase, **fields)

    def message(self, text: str) -> None:
        """Tell TEXT, whatever else was told lately."""
        if self._speaks:
            events.emit("message", step="train", text=text)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to part NAME."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - started
