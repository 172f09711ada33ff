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

from headrace.monitoring import names

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
    (names.PROCESS_CPU, "counter", "CPU time spent, user and system."),
    (names.PROCESS_MEMORY, "gauge", "Resident memory (RSS)."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory."),
    ("process_start_time_seconds", "gauge", "When the process began, Unix time."),
    ("process_open_fds", "gauge", "Open file descriptors."),
    ("process_max_fds", "gauge", "Most file descriptors that may be open."),
):
    _documented(_name, _type, _meaning, ())

# What the client does.
REQUESTS = counter(
    names.REST_REQUESTS,
    "Requests to the API server, by HTTP status (`<error>`: no answer) and method.",
    ("code", "method"),
)
REQUEST_SECONDS = histogram(
    names.REST_SECONDS, "Time until the whole answer was there; watches do not count.", ("method",)
)
# What the queues do; `name` is the controller.
DEPTH = gauge(names.QUEUE_DEPTH, "Keys that wait for a worker now.", ("name",))
ADDS = counter(names.QUEUE_ADDS, "Keys added; one that waits already is not counted again.", ("name",))
RETRIES = counter(names.QUEUE_RETRIES, "Keys that were added again after a failure, with backoff.", ("name",))
QUEUE_SECONDS = histogram(names.QUEUE_WAIT, "Time a key waited for a worker.", ("name",))
WORK_SECONDS = histogram(names.QUEUE_WORK, "Time a worker spent on a key.", ("name",))
UNFINISHED = gauge(names.QUEUE_UNFINISHED, "Sum of the ages of the reconciles under way.", ("name",))
LONGEST = gauge(names.QUEUE_LONGEST, "Age of the oldest reconcile under way; one that hangs.", ("name",))
# What the controllers do.
RECONCILES = counter(
    names.RECONCILES,
    "Reconciles by result: `success`, `error`, `requeue` (the object changed meanwhile), `requeue_after` (a time).",
    ("controller", "result"),
)
ERRORS = counter(names.RECONCILE_ERRORS, "Reconciles that failed.", ("controller",))
RECONCILE_SECONDS = histogram(names.RECONCILE_SECONDS, "Time of a reconcile.", ("controller",))
ACTIVE = gauge(names.ACTIVE_WORKERS, "Workers that reconcile now.", ("controller",))
MAX_ACTIVE = gauge(names.MAX_WORKERS, "Workers that there are.", ("controller",))
LEADING = gauge(names.LEADING, "1 where this replica holds the lease, else 0.", ("name",))
# What the caches hold: ours, controller-runtime has no such metric.
CACHED = gauge(names.CACHE_OBJECTS, "Objects in memory.", ("controller", "kind"))
CACHED_BYTES = gauge(names.CACHE_BYTES, "Their size in memory, as compact JSON.", ("controller", "kind"))
WATCH_ENDS = counter(
    names.WATCH_ENDS,
    "Watches that ended: `timeout` (as asked), `gone` (listed anew), `error`.",
    ("kind", "why"),
)
EVENTS = counter(
    names.EVENTS,
    "Events for objects: `written`, `counted` (again), `dropped` (a storm), `failed`.",
    ("result",),
)
