"""What monitors measured, as metrics: for alerts that need not know an endpoint's own metrics. Counted when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace.monitoring import names
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Object, key_of
from headrace_operators.runtime.metrics import before_scrape, gauge

_ANSWERED = ("Measured", "NoData")
_OF = ("namespace", "name", "deployment")
HEALTHY = gauge(
    names.MONITOR_HEALTHY, "1 where every objective is kept, 0 where one is broken; absent while unknown.", _OF
)
PROMETHEUS_UP = gauge(
    names.MONITOR_PROMETHEUS_UP,
    "1 where Prometheus answered the newest measurement, also without data; 0 where it did not.",
    _OF,
)
REQUESTS = gauge(names.MONITOR_REQUESTS, "Requests in the window of the newest measurement.", _OF)
ERROR_RATIO = gauge(names.MONITOR_ERROR_RATIO, "Share of them that was answered 5xx.", _OF)
LATENCY = gauge(names.MONITOR_LATENCY, "Their latency, by quantile (0.5, 0.99).", (*_OF, "quantile"))


def count_before_scrape(monitors: Callable[[], Iterable[Object]]) -> None:
    """Set the gauges from MONITORS whenever the metrics are read."""

    def count() -> None:
        for each in (HEALTHY, PROMETHEUS_UP, REQUESTS, ERROR_RATIO, LATENCY):
            each.clear()
        for obj in monitors():
            _show(obj)

    before_scrape(count)


def _show(obj: Object) -> None:
    status, (namespace, name) = obj.get("status") or {}, key_of(obj)
    of = (namespace, name, str((obj.get("spec") or {}).get("deploymentName", "")))
    for each, field in ((REQUESTS, "requests"), (ERROR_RATIO, "errorRatio")):
        if field in status:
            each.labels(*of).set(status[field])
    for quantile, field in (("0.5", "p50Seconds"), ("0.99", "p99Seconds")):
        if field in status:
            LATENCY.labels(*of, quantile).set(status[field])
    healthy = find(status.get("conditions") or (), "Healthy")
    if healthy is not None and healthy["status"] != "Unknown":
        HEALTHY.labels(*of).set(healthy["status"] == "True")
    measured = find(status.get("conditions") or (), "Measured")
    if measured is not None and measured["status"] != "Unknown":
        PROMETHEUS_UP.labels(*of).set(measured["reason"] in _ANSWERED)
