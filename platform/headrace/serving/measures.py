"""What a front tells Prometheus, by version. Ray's metrics agent serves it, on a laptop and on a cluster alike.

Exported by Ray with the prefix `ray_`:
    headrace_requests_total{deployment,version,code}       answers of infer requests
    headrace_request_seconds{deployment,version}           from the body being whole to the answer being ready
    headrace_batch_rows{deployment,version}                rows that were computed together
    headrace_batch_seconds{deployment,version}             what computing them took
    headrace_requests_waiting{deployment}                  inside the replica: waiting or being computed
    headrace_version_loads_total{deployment,version,result} loaded | failed

Recording costs a lock and a list per request; the metrics themselves are written once a second.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from typing import Any

from headrace.monitoring import names

SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
ROWS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
FLUSH_SECONDS = 1.0


class Measures:
    """Keeps nothing: for tests, and the base of what does. `version` is empty where none answered."""

    def request(self, version: str, status: int, seconds: float) -> None:
        """An infer request was answered."""

    def batch(self, version: str, rows: int, seconds: float) -> None:
        """A batch was computed."""

    def load(self, version: str, result: str) -> None:
        """A version was loaded, or not."""

    def flush(self, waiting: int) -> None:
        """Write what was gathered, and how many requests are inside."""


class RayMeasures(Measures):
    """Written through `ray.util.metrics`."""

    def __init__(self, deployment: str) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        own = {"deployment": deployment}

        def made(kind: Any, name: str, description: str, labels: tuple[str, ...], **rest: Any) -> Any:
            metric = kind(
                name.removeprefix(names.RAY_PREFIX), description=description, tag_keys=("deployment", *labels), **rest
            )
            metric.set_default_tags(own)
            return metric

        by_version = ("version",)
        timed: dict[str, Any] = {"boundaries": SECONDS}
        self._requests = made(Counter, names.REQUESTS, "Answers of infer requests.", ("version", "code"))
        self._request_seconds = made(Histogram, names.REQUEST_SECONDS, "Seconds to an answer.", by_version, **timed)
        self._batch_rows = made(Histogram, names.BATCH_ROWS, "Rows computed together.", by_version, boundaries=ROWS)
        self._batch_seconds = made(Histogram, names.BATCH_SECONDS, "Seconds a batch took.", by_version, **timed)
        self._waiting = made(Gauge, names.REQUESTS_WAITING, "Requests inside the replica.", ())
        self._loads = made(Counter, names.VERSION_LOADS, "Versions loaded, or not.", ("version", "result"))
        self._lock = threading.Lock()
        self._answers: Tally[tuple[str, int]] = Tally()
        self._answer_seconds: list[tuple[str, float]] = []
        self._batches: list[tuple[str, int, float]] = []

    def request(self, version: str, status: int, seconds: float) -> None:  # noqa: D102 the base's
        with self._lock:
            self._answers[version, status] += 1
            self._answer_seconds.append((version, seconds))

    def batch(self, version: str, rows: int, seconds: float) -> None:  # noqa: D102 the base's
        with self._lock:
            self._batches.append((version, rows, seconds))

    def load(self, version: str, result: str) -> None:  # noqa: D102 the base's
        self._loads.inc(1, tags={"version": version, "result": result})

    def flush(self, waiting: int) -> None:  # noqa: D102 the base's
        with self._lock:
            answers, self._answers = self._answers, Tally()
            seconds, self._answer_seconds = self._answer_seconds, []
            batches, self._batches = self._batches, []
        self._waiting.set(waiting)
        for (version, status), count in answers.items():
            self._requests.inc(count, tags={"version": version, "code": str(status)})
        for version, value in seconds:
            self._request_seconds.observe(value, tags={"version": version})
        for version, rows, value in batches:
            self._batch_rows.observe(rows, tags={"version": version})
            self._batch_seconds.observe(value, tags={"version": version})
