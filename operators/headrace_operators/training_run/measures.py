"""Metrics of training runs, counted from what is stored in their status.

A transition is counted when it is seen in an object, not when it is planned: a plan may be made twice, what it stored
is seen once. So a restart of the operator counts nothing again; it only forgets what happened while it was away.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from heapq import nsmallest
from typing import Literal, NamedTuple, get_args

from headrace.api.training_run import Phase, TrainingRunStatus
from headrace.monitoring import names
from headrace_operators.runtime import metrics
from headrace_operators.runtime.conditions import parse_time
from headrace_operators.runtime.kinds import Key

_WAIT_SECONDS = (1, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)

Result = Literal["succeeded", "failed", "interrupted", "suspended"]
_SHOWN = 50  # runs that are shown by name, those that are worst off: thousands of runs are not thousands of series

RUNS = metrics.gauge(names.TRAINING_RUNS, "TrainingRuns by phase.", ("namespace", "phase"))
WAITING_SINCE = metrics.gauge(
    names.TRAINING_WAITING_SINCE,
    f"Since when (Unix time) a run waits, and why: of the {_SHOWN} that wait longest in queues, the {_SHOWN} whose "
    f"spec is wrong, and the {_SHOWN} that wait for anything else.",
    ("namespace", "name", "reason"),
)
PROGRESS = metrics.gauge(
    names.TRAINING_PROGRESS,
    "When (Unix time) a run that trains was last seen to report something new to MLflow, not before this process "
    f"began: of the {_SHOWN} that have been silent longest; absent while MLflow cannot be read.",
    ("namespace", "name"),
)
QUEUE_WAIT = metrics.histogram(
    names.TRAINING_QUEUE_WAIT,
    "From the making of an attempt to the start of its driver: the queue, the scheduler, images, Ray.",
    ("namespace",),
    buckets=_WAIT_SECONDS,
)
ATTEMPTS = metrics.counter(
    names.TRAINING_ATTEMPTS,
    "Attempts that are over: `succeeded`, `failed`, `interrupted` (preempted, evicted), `suspended`.",
    ("namespace", "result"),
)
CPU_SECONDS = metrics.counter(names.TRAINING_CPU_SECONDS, "CPU seconds that workers reserved.", ("namespace",))
GPU_SECONDS = metrics.counter(names.TRAINING_GPU_SECONDS, "GPU seconds that workers reserved.", ("namespace",))


class Summary(NamedTuple):
    """What of a status is counted."""

    phase: str = "Pending"
    attempt: int = 0
    under_way: bool = False
    failures: int = 0
    waited_seconds: float | None = None
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    waiting: tuple[float, str] | None = None  # since when, and why
    reported: int | None = None  # what a run that trains has reported, as one number; None where that is not known


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
        _waiting(status),
        _reported(status),
    )


def _waiting(status: TrainingRunStatus) -> tuple[float, str] | None:
    """Since when the run has not trained, and why; None where it trains, has ended, or rests because somebody asked."""
    if status.completion_time is not None or status.phase == "Suspended":
        return None
    running = next((entry for entry in status.conditions if entry.type == "Running"), None)
    if running is None or running.status == "True":
        return None
    return parse_time(running.last_transition_time).timestamp(), running.reason


def _reported(status: TrainingRunStatus) -> int | None:
    read = next((entry.status for entry in status.conditions if entry.type == "MLflowReachable"), "Unknown")
    if status.phase != "Running" or read == "False":
        return None
    epoch = status.checkpoint.epoch if status.checkpoint is not None else 0
    return hash((status.attempt, epoch, status.cpu_seconds, *sorted(status.metrics.items())))


def result(before: Summary, after: Summary) -> Result | None:
    """How the attempt of BEFORE ended, if it did."""
    if not before.under_way or (after.under_way and after.attempt == before.attempt):
        return None
    if after.phase == "Succeeded":
        return "succeeded"
    if after.phase == "Failed" or after.failures > before.failures:
        return "failed"
    return "suspended" if after.phase == "Suspended" else "interrupted"


def _kind(reason: str) -> tuple[str, ...]:
    """The reasons that count as one with REASON."""
    return next((kind for kind in (names.IN_QUEUE, names.MISTAKEN) if reason in kind), ())


class Measures:
    """Counts what happens to runs; one for each reconciler.

    Args:
        now: the time, in seconds since 1970.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._last: dict[Key, Summary] = {}
        self._progress: dict[Key, float] = {}  # of those that train: when they were last seen to report something new

    def see(self, key: Key, status: TrainingRunStatus) -> None:
        """Count what has happened to KEY's run since it was seen last."""
        after = summary(status)
        before = self._last.get(key)
        self._last[key] = after
        if before is None:
            _begin(key.namespace)
        if before is None or before.reported != after.reported:
            self._note_progress(key, after)
        if before is not None and before != after:
            _count(key.namespace, before, after)

    def show(self, known: Iterable[Key]) -> None:
        """Set the gauges: of the runs that are KNOWN; the others are forgotten."""
        there = set(known)
        self._last = {key: last for key, last in self._last.items() if key in there}
        self._progress = {key: at for key, at in self._progress.items() if key in there}
        self._show_phases()
        self._show_waiting()
        PROGRESS.clear()
        for at, key in nsmallest(_SHOWN, [(at, key) for key, at in self._progress.items()]):
            PROGRESS.labels(key.namespace, key.name).set(at)

    def _note_progress(self, key: Key, after: Summary) -> None:
        if after.reported is None:
            self._progress.pop(key, None)
        else:
            self._progress[key] = self._now()

    def _show_waiting(self) -> None:
        """Each kind of waiting by itself: hundreds in a queue hide none that no node fits."""
        kinds: dict[tuple[str, ...], list[tuple[tuple[float, str], Key]]] = defaultdict(list)
        for key, last in self._last.items():
            if last.waiting is not None:
                kinds[_kind(last.waiting[1])].append((last.waiting, key))
        WAITING_SINCE.clear()
        for waiting in kinds.values():
            for (since, reason), key in nsmallest(_SHOWN, waiting):
                WAITING_SINCE.labels(key.namespace, key.name, reason).set(since)

    def _show_phases(self) -> None:
        RUNS.clear()
        phases = Counter((key.namespace, last.phase) for key, last in self._last.items())
        for namespace in {namespace for namespace, _ in phases}:
            for phase in get_args(Phase):
                RUNS.labels(namespace, phase).set(phases[namespace, phase])


def _begin(namespace: str) -> None:
    """Let the counters of NAMESPACE begin at 0: of one that begins at 1, Prometheus sees no increase."""
    for result_ in get_args(Result):
        ATTEMPTS.labels(namespace, result_)
    for metric in (CPU_SECONDS, GPU_SECONDS, QUEUE_WAIT):
        metric.labels(namespace)


def _count(namespace: str, before: Summary, after: Summary) -> None:
    if (how := result(before, after)) is not None:
        ATTEMPTS.labels(namespace, how).inc()
    if before.waited_seconds is None and after.waited_seconds is not None:
        QUEUE_WAIT.labels(namespace).observe(after.waited_seconds)
    CPU_SECONDS.labels(namespace).inc(max(0.0, after.cpu_seconds - before.cpu_seconds))
    GPU_SECONDS.labels(namespace).inc(max(0.0, after.gpu_seconds - before.gpu_seconds))
