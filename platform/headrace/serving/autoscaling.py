"""How many replicas a front gets, by the requests that are inside them.

Serve counts what passes through its own way around a request; V2 requests take a shorter one (ADR 0008) and would never
be seen. So each replica reports how many were inside on average, and this policy stands in for Serve's own. Serve still
keeps the bounds and the delays. No ray: Serve copies the policy's code into its controller.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

POLICY = "headrace.serving.autoscaling:by_requests_inside"
REQUESTS_INSIDE = "headrace_requests_inside"


@dataclass(frozen=True)
class ReplicaRange:
    """Between how many replicas Serve may choose, and the requests inside one replica at once that it aims at."""

    least: int
    most: int
    target_requests: float = 2.0

    def to_record(self) -> dict[str, Any]:
        """As it stands in a deployment's `autoscaling_config`.

        A replica reports every two seconds and ten of them count, so that a burst is answered within about a quarter of
        a minute; replicas go after five minutes without need, as a model may take a minute to load again.
        """
        return {
            "min_replicas": self.least,
            "max_replicas": self.most,
            "target_ongoing_requests": self.target_requests,
            "metrics_interval_s": 2,
            "look_back_period_s": 10,
            "upscale_delay_s": 5,
            "downscale_delay_s": 300,
            "policy": {"policy_function": POLICY},
        }


def by_requests_inside(context: Any) -> tuple[float, dict[str, Any]]:
    """Serve's custom policy: as many replicas as take the present requests, each its target (fractions are rounded up).

    Args:
        context: `ray.serve.config.AutoscalingContext`. A replica that has not reported yet counts as idle.
    """
    reported = (context.aggregated_metrics or {}).get(REQUESTS_INSIDE) or {}
    return sum(reported.values()) / context.config.get_target_ongoing_requests(), {}


class MeanInside:
    """Requests inside a replica on average since it was last asked, by Little's law: seconds spent inside per second.

    The number at one moment would say little: a batch comes and goes within milliseconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at = clock()
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """A request was inside for so long."""
        self._seconds += seconds

    def take(self) -> float:
        """The mean since the last call."""
        now = self._clock()
        elapsed, seconds = now - self._asked_at, self._seconds
        self._asked_at, self._seconds = now, 0.0
        return seconds / elapsed if elapsed > 0 else 0.0
