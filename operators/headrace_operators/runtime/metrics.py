"""Every metric of the operator, made and documented in one call, so that none is served that the docs do not name.

`docs/operators/metrics.md` is generated from TABLE by `python -m headrace_operators.metrics_reference`. The
names of the runtime's own metrics are controller-runtime's and client-go's: their dashboards and rules work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True)
class Documented:
    """One line of the table."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


TABLE: dict[str, Documented] = {}
REGISTRY = CollectorRegistry()
_before_scrape: list[Callable[[], None]] = []
disable_created_metrics()  # type: ignore[no-untyped-call]


def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
    """A counter; NAME ends in `_total`."""
    return Counter(_documented(name, "counter", meaning, labels), meaning, labels, registry=REGISTRY)


def gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    """A gauge."""
    return Gauge(_documented(name, "gauge", meaning, labels), meaning, labels, registry=REGISTRY)


def histogram(name: str, meaning: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS) -> Histogram:
    """A histogram; NAME ends in its unit."""
    return Histogram(
        _documented(name, "histogram", meaning, labels), meaning, labels, registry=REGISTRY, buckets=buckets
    )


def before_scrape(refresh: Callable[[], None]) -> None:
    """Call REFRESH before each exposition: for gauges that are counted from a cache when somebody asks."""
    _before_scrape.append(refresh)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    for refresh in _before_scrape:
        refresh()
    return generate_latest(REGISTRY)


def _documented(name: str, type_: str, meaning: str, labels: Sequence[str]) -> str:
    TABLE[name] = Documented(name, type_, tuple(labels), meaning)
    return name


ProcessCollector(registry=REGISTRY)
for _name, _type, _meaning in (
    ("process_cpu_seconds_total", "counter", "CPU time spent, user and system."),
    ("process_resident_memory_bytes", "gauge", "Resident memory (RSS)."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory."),
    ("process_start_time_seconds", "gauge", "When the process began, Unix time."),
    ("process_open_fds", "gauge", "Open file descriptors."),
    ("process_max_fds", "gauge", "Most file descriptors that may be open."),
):
    _documented(_name, _type, _meaning, ())

# What the client does.
REQUESTS = counter(
    "rest_client_requests_total",
    "Requests to the API server, by HTTP status (`<error>`: no answer) and method.",
    ("code", "method"),
)
REQUEST_SECONDS = histogram(
    "rest_client_request_duration_seconds", "Time until the whole answer was there; watches do not count.", ("method",)
)
# What the queues do; `name` is the controller.
DEPTH = gauge("workqueue_depth", "Keys that wait for a worker now.", ("name",))
ADDS = counter("workqueue_adds_total", "Keys added; one that waits already is not counted again.", ("name",))
RETRIES = counter("workqueue_retries_total", "Keys that were added again after a failure, with backoff.", ("name",))
QUEUE_SECONDS = histogram("workqueue_queue_duration_seconds", "Time a key waited for a worker.", ("name",))
WORK_SECONDS = histogram("workqueue_work_duration_seconds", "Time a worker spent on a key.", ("name",))
UNFINISHED = gauge("workqueue_unfinished_work_seconds", "Sum of the ages of the reconciles under way.", ("name",))
LONGEST = gauge(
    "workqueue_longest_running_processor_seconds", "Age of the oldest reconcile under way; one that hangs.", ("name",)
)
# What the controllers do.
RECONCILES = counter(
    "controller_runtime_reconcile_total",
    "Reconciles by result: `success`, `error`, `requeue` (the object changed meanwhile), `requeue_after` (a time).",
    ("controller", "result"),
)
ERRORS = counter("controller_runtime_reconcile_errors_total", "Reconciles that failed.", ("controller",))
RECONCILE_SECONDS = histogram("controller_runtime_reconcile_time_seconds", "Time of a reconcile.", ("controller",))
ACTIVE = gauge("controller_runtime_active_workers", "Workers that reconcile now.", ("controller",))
MAX_ACTIVE = gauge("controller_runtime_max_concurrent_reconciles", "Workers that there are.", ("controller",))
LEADING = gauge("leader_election_master_status", "1 where this replica holds the lease, else 0.", ("name",))
# What the caches hold: ours, controller-runtime has no such metric.
CACHED = gauge("headrace_cache_objects", "Objects in memory.", ("controller", "kind"))
CACHED_BYTES = gauge("headrace_cache_bytes", "Their size in memory, as compact JSON.", ("controller", "kind"))
WATCH_ENDS = counter(
    "headrace_watch_ends_total",
    "Watches that ended: `timeout` (as asked), `gone` (listed anew), `error`.",
    ("kind", "why"),
)
EVENTS = counter(
    "headrace_events_total",
    "Events for objects: `written`, `counted` (again), `dropped` (a storm), `failed`.",
    ("result",),
)
