"""Epoch metrics from the training controller to MLflow, without making training wait.

The controller must hear from its workers ten times a second, and MLflow may take seconds or be away. So a thread
writes, and what is reported meanwhile waits in a queue. A step that MLflow has is skipped: a restarted training reports
its last epochs again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headrace.base import events
from headrace.base.errors import HeadraceError, Unavailable
from headrace.tracking import facts
from headrace.tracking.calls import Check, call, no_check

RETRY_SECONDS = (0.5, 1, 2, 5, 10, 30)  # between attempts while MLflow cannot be reached; the last one repeats


@dataclass(frozen=True)
class _Points:
    step: int
    metrics: Mapping[str, float]
    timestamp_ms: int
    tags: Mapping[str, str]


class Reporter:
    """Writes per-epoch metrics of one MLflow run from a thread of its own.

    Args:
        tracking_uri: where the run lives.
        mlflow_run_id: the run.
        check: raises Superseded once a newer attempt owns the run; nothing is written after that.
    """

    def __init__(self, tracking_uri: str, mlflow_run_id: str, *, check: Check = no_check) -> None:
        self._uri = tracking_uri
        self._run_id = mlflow_run_id
        self._check = check
        self._queue: queue.SimpleQueue[_Points | None] = queue.SimpleQueue()
        self._pending = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._error: HeadraceError | None = None
        self._known: set[tuple[str, int]] = set()
        self._thread = threading.Thread(target=self._work, name="headrace-reporter", daemon=True)
        self._thread.start()

    def log_epoch(
        self,
        step: int,
        metrics: Mapping[str, Any],
        timestamp: float | None = None,
        tags: Mapping[str, str | None] | None = None,
    ) -> None:
        """Take METRICS of epoch STEP for writing, and TAGS of the run after them; returns at once and never raises.

        TIMESTAMP is in seconds since 1970, default now.
        """
        moment = int((timestamp or time.time()) * 1000)
        points = _Points(step, facts.finite(metrics), moment, facts.tags(tags or {}))
        with self._changed:
            self._pending += 1
        self._queue.put(points)

    def flush(self, timeout_seconds: float = 60.0) -> None:
        """Wait until all that was taken is written.

        Raises:
            Superseded: a newer attempt owns the run; the rest is not written.
            Unavailable: MLflow could not be reached in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._pending or self._fatal(), timeout_seconds)
            if self._fatal() and self._error is not None:
                raise self._error
            if self._pending:
                raise self._error or Unavailable(
                    f"MLflow did not take the metrics of {self._pending} epochs within {timeout_seconds:.0f} s",
                    action="look at MLflow; the metrics are in the run's log as well",
                )

    def close(self, timeout_seconds: float = 60.0) -> None:
        """`flush`, and end the thread. Raises what `flush` raises."""
        try:
            self.flush(timeout_seconds)
        finally:
            self._closing.set()
            self._queue.put(None)
            self._thread.join(1.0)

    def _fatal(self) -> bool:
        return self._error is not None and not isinstance(self._error, Unavailable)

    # the thread

    def _work(self) -> None:
        waiting: list[_Points] = []
        failures = 0
        self._open()
        while not self._closing.is_set() and not self._fatal():
            waiting += self._take(block=not waiting)
            if not waiting:
                continue
            error = self._attempt(waiting)
            with self._changed:
                self._error = error
                if error is None:
                    self._pending -= len(waiting)
                    waiting, failures = [], 0
                self._changed.notify_all()
            if error is not None:
                if failures == 0:
                    events.emit("message", step="train", text=f"metrics wait: {error.message}")
                self._closing.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1

    def _open(self) -> None:
        """Do what costs seconds before there is anything to write; a failure is met again, and told, then."""
        with suppress(Exception):
            call("log_points", self._uri, mlflow_run_id=self._run_id, points=[])

    def _take(self, *, block: bool) -> list[_Points]:
        taken: list[_Points] = []
        try:
            while True:
                item = self._queue.get(block=block and not taken)
                if item is not None:
                    taken.append(item)
                elif self._closing.is_set():
                    return taken
        except queue.Empty:
            return taken

    def _attempt(self, waiting: list[_Points]) -> HeadraceError | None:
        try:
            self._check()
            self._write(waiting)
        except HeadraceError as error:
            return error
        except Exception as error:
            return HeadraceError(f"MLflow: {type(error).__name__}: {error}", action="see the log", code="mlflow")
        return None

    def _write(self, waiting: list[_Points]) -> None:
        points = {
            (key, item.step): (key, item.step, value, item.timestamp_ms)
            for item in reversed(waiting)  # of two reports of one step the first counts
            for key, value in item.metrics.items()
            if (key, item.step) not in self._known
        }
        if points:
            call("log_points", self._uri, mlflow_run_id=self._run_id, points=list(points.values()))
            self._known |= points.keys()
        tags = {key: value for item in waiting for key, value in item.tags.items()}  # the newest value of each
        if tags:
            call("set_tags", self._uri, mlflow_run_id=self._run_id, tags=tags)
