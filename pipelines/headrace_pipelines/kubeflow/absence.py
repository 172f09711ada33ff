"""A server that does not answer while a run is followed: told once, and forgiven for a while, as the run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.base.errors import HeadraceError, InvalidInput, Unavailable
from headrace_pipelines.kubeflow.watch import Event

LOST_SECONDS = 600.0  # a server that is away for longer is not waited for
UNKNOWN_TOKEN_SECONDS = 60.0  # for whoever renews a token's file


class Absence:
    """Whether something is away, and since when.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    def met(self, error: HeadraceError) -> list[Event]:
        """What to tell of ERROR. Raises it where it has lasted too long, or is nothing that passes."""
        unauthorized = isinstance(error, InvalidInput) and error.code == "kubeflow-unauthorized"
        if not unauthorized and not isinstance(error, Unavailable):
            raise error
        now = self._clock()
        first, self._since = self._since is None, now if self._since is None else self._since
        if now - self._since > (UNKNOWN_TOKEN_SECONDS if unauthorized else LOST_SECONDS):
            raise error
        text = f"{error.message}; the run goes on, trying again"
        return [{"type": "message", "step": None, "text": text}] if first else []

    def over(self) -> list[Event]:
        """What to tell now that all answer."""
        was, self._since = self._since, None
        return [] if was is None else [{"type": "message", "step": None, "text": "all answers again"}]
