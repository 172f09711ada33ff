"""Metrics of training runs, counted from what is stored in their status.

A transition is counted when it is seen in an object, not when it is planned: a plan may be made twice, what it stored
is seen once. So a restart of the operator counts nothing again; it only forgets what happened while it was away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, get_args

from headrace.api.training_run import Phase, TrainingRunStatus
from headrace_operators.runtime import metrics
from headrace_operators.runtime.conditions import parse_time
from headrace_operators.runtime.kinds import Key

_WAIT_SECONDS = (1, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)

RUNS = metrics.gauge("headrace_training_runs", "TrainingRuns by phase.", ("phase",))
QUEUE_WAIT = metrics.histogram(
    "headrace_training_queue_wait_seconds",
    "From the making of an attempt to the start of its driver: the queue, the scheduler, images, Ray.",
    buckets=_WAIT_SECONDS,
)
ATTEMPTS = metrics.counter(
    "headrace_training_attempts_total",
    "Attempts that are over: `succeeded`, `failed`, `interrupted` (preempted, evicted), `suspended`.",
    ("result",),
)
CPU_SECONDS = metrics.counter("headrace_training_cpu_seconds_total", "CPU seconds that workers reserved.")
GPU_SECONDS = metrics.counter("headrace_training_gpu_seconds_total", "GPU seconds that workers reserved.")


class Summary(NamedTuple):
    """What of a status is counted."""

    phase: str = "Pending"
    attempt: int = 0
    under_way: bool = False
    failures: int = 0
    waited_seconds: float | None = None
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0


def summary(status: TrainingRunStatus) -> Summary:
    """What of STATUS is counted."""
    waited = None
    if status.job_start_time and status.attempt_start_time:
        started, made = parse_time(status.job_start_time), parse_time(status.attempt_start_time)
        waited = max(0.0, (started - made).total_seconds())
    return Summary(
        status.phase,
        status.attempt,
        status.ray_job_name is not None and status.completion_time is None,
        status.failures,
        waited,
        status.cpu_seconds,
        status.gpu_seconds,
    )


def result(before: Summary, after: Summary) -> str | None:
    """How the attempt of BEFORE ended, if it did."""
    if not before.under_way or (after.under_way and after.attempt == before.attempt):
        return None
    if after.phase == "Succeeded":
        return "succeeded"
    if after.phase == "Failed" or after.failures > before.failures:
        return "failed"
    return "suspended" if after.phase == "Suspended" else "interrupted"


class Measures:
    """Counts what happens to runs; one for each reconciler."""

    def __init__(self) -> None:
        self._last: dict[Key, Summary] = {}

    def see(self, key: Key, status: TrainingRunStatus) -> None:
        """Count what has happened to KEY's run since it was seen last."""
        after = summary(status)
        before = self._last.get(key)
        self._last[key] = after
        if before is None or before == after:
            return
        if (how := result(before, after)) is not None:
            ATTEMPTS.labels(how).inc()
        if before.waited_seconds is None and after.waited_seconds is not None:
            QUEUE_WAIT.observe(after.waited_seconds)
        CPU_SECONDS.inc(max(0.0, after.cpu_seconds - before.cpu_seconds))
        GPU_SECONDS.inc(max(0.0, after.gpu_seconds - before.gpu_seconds))

    def show(self, known: Iterable[Key]) -> None:
        """Set the gauge: by phase, of the runs that are KNOWN; the others are forgotten."""
        there = set(known)
        self._last = {key: last for key, last in self._last.items() if key in there}
        phases = Counter(last.phase for last in self._last.values())
        for phase in get_args(Phase):
            RUNS.labels(phase).set(phases[phase])
