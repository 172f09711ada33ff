"""How much a replica takes in before it says "later": a bounded number of requests and of bytes.

Without a bound an overloaded server answers everybody too late; with one it answers most in time and tells the rest
when to come again.
"""

from __future__ import annotations

import math
from types import TracebackType

from headrace.serving.errors import RequestError
from headrace.serving.settings import FrontSettings


class Admission:
    """The requests inside one replica. Used from one event loop only."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self.requests = 0
        self.held_bytes = 0

    def enter(self, seconds_each: float = 0.0) -> Admitted:
        """Admit one request, to be left by the `with` block's end.

        Args:
            seconds_each: what one request takes at present, from which Retry-After is foreseen.

        Raises:
            RequestError: 503 with Retry-After where there is no room.
        """
        if self.requests >= self._settings.max_requests:
            raise busy(math.ceil(self.requests * seconds_each))
        self.requests += 1
        return Admitted(self)

    def room_for(self, size: int) -> bool:
        """Whether SIZE more bytes may be held; a replica that holds none takes any body within the limit."""
        return not self.held_bytes or self.held_bytes + size <= self._settings.max_held_bytes


class Admitted:
    """One request's share, given back when it is answered."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = 0

    def hold(self, size: int) -> None:
        """Count SIZE more bytes. Raises RequestError (503) where there is no room for them."""
        if not self._admission.room_for(size):
            raise busy(1)
        self._held += size
        self._admission.held_bytes += size

    def __enter__(self) -> Admitted:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._admission.requests -= 1
        self._admission.held_bytes -= self._held


def busy(seconds: int) -> RequestError:
    """The 503 of a replica that has no room."""
    wait = max(1, seconds)
    return RequestError(503, "the server has no room for more requests; try again later", retry_after_seconds=wait)
