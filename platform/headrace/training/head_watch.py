"""Whether the Ray head that a training runs on is still there.

Ray's own client notices a dead head late or by ending its process, so the caller looks for itself: at the head's
process, where it is on this machine, and at its port.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from headrace.base.errors import Unavailable
from headrace.training.request import Connection

INTERVAL_SECONDS = 1.0
REFUSALS = 3  # in a row: a head that is merely busy still takes connections


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError:
        return False
    return True


class HeadWatch:
    """Watches one head. The clock and the probe are the caller's in tests."""

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Callable[[], float] = time.monotonic,
        answers: Callable[[str, int], bool] = _answers,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._answers = answers
        self._next = clock()
        self._refused = 0

    def gone(self) -> bool:
        """Whether the head is dead; looks at most once a second, and so costs nothing to ask."""
        leader = self._connection.leader
        if leader is not None and not leader.alive():
            return True
        if self._refused < REFUSALS and self._clock() >= self._next:
            self._next = self._clock() + INTERVAL_SECONDS
            host, _, port = self._connection.address.rpartition(":")
            if host and port.isdigit():
                self._refused = 0 if self._answers(host, int(port)) else self._refused + 1
        return self._refused >= REFUSALS

    def error(self) -> Unavailable:
        """What to raise when it is gone."""
        return Unavailable(
            f"the Ray head at {self._connection.address} died while training was going on",
            action="resume the run: that starts a head and goes on from the newest checkpoint"
            + (f"; the head's logs are in {self._connection.log_dir}" if self._connection.log_dir else ""),
            code="ray-head-died",
            log=self._connection.log_dir,
        )
