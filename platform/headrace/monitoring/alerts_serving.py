"""Alerts on endpoints by what the operator sees of them; on what their requests say, see `slo.py`."""

from __future__ import annotations

from headrace.monitoring import names
from headrace.monitoring.parameters import WATCHED, placeholder
from headrace.monitoring.rule import Alert, Group, Record

_BY = "max by (namespace, name)"
_WANTED = f"{_BY} ({names.DEPLOYMENT_REPLICAS}{{{WATCHED}}})"
_ANSWERING = f"{_BY} ({names.DEPLOYMENT_ANSWERING}{{{WATCHED}}})"
_SERVING = f"{_BY} ({names.DEPLOYMENT_VERSION}{{{WATCHED}}})"
_ANSWERED = "namespace_name:headrace_deployment_has_answered:max"

# It remembers by reading itself: as long as a deployment is wanted, however long ago it answered last.
HAS_ANSWERED = Record(
    _ANSWERED,
    f"""
    {_SERVING}
    or
    {_BY} (last_over_time({_ANSWERED}{{{WATCHED}}}[{placeholder("downWindow")}]))
    and on (namespace, name) {_WANTED} > 0
    """,
)

DOWN = Alert(
    "HeadraceDeploymentDown",
    "critical",
    f"""
    {_WANTED} > 0
    unless on (namespace, name) {_SERVING}
    and on (namespace, name) {_ANSWERED}
    """,
    "2m",
    "An endpoint that answered answers no more",
    """
    None of the replicas of ModelDeployment {{ $labels.name }} in namespace {{ $labels.namespace }} answers the
    operator; {{ $value }} are wanted. Look: kubectl -n {{ $labels.namespace }} describe modeldeployment {{ $labels.name
    }}
    """,
)
DEGRADED = Alert(
    "HeadraceDeploymentDegraded",
    "warning",
    f"""
    {_ANSWERING} < {_WANTED}
    and on (namespace, name) {_SERVING}
    unless on (namespace, name) {names.DEPLOYMENT_STATE}{{{WATCHED},state=~"failed|refused"}}
    """,
    "10m",
    "Fewer replicas answer than are wanted",
    """
    Too few replicas of ModelDeployment {{ $labels.name }} in namespace {{ $labels.namespace }} answer with the version
    that is wanted: {{ $value }}. Look: kubectl -n {{ $labels.namespace }} describe modeldeployment {{ $labels.name }}
    """,
)
FAILED = Alert(
    "HeadraceDeploymentFailed",
    "warning",
    f'max by (namespace, name, state) ({names.DEPLOYMENT_STATE}{{{WATCHED},state=~"failed|refused"}}) == 1',
    "2m",
    "A version could not be deployed",
    """
    ModelDeployment {{ $labels.name }} in namespace {{ $labels.namespace }} is {{ $labels.state }}: what it asks for is
    not served. The version before, if there was one, goes on answering. Look: kubectl -n {{ $labels.namespace }}
    describe modeldeployment {{ $labels.name }}
    """,
)
STUCK = Alert(
    "HeadraceDeploymentStuck",
    "warning",
    f'{_BY} ({names.DEPLOYMENT_STATE}{{{WATCHED},state=~"pending|progressing"}}) == 1',
    "30m",
    "A change of an endpoint does not come to an end",
    """
    ModelDeployment {{ $labels.name }} in namespace {{ $labels.namespace }} has been on its way for long, and neither
    reached what it asks for nor failed. Look: kubectl -n {{ $labels.namespace }} describe modeldeployment {{
    $labels.name }}
    """,
)
UNMEASURED = Alert(
    "HeadraceDeploymentNotScraped",
    "warning",
    f"""
    {_ANSWERING} > 0
    unless on (namespace, name)
    label_replace(max by (namespace, deployment) ({names.REQUESTS_WAITING}), "name", "$1", "deployment", "(.*)")
    """,
    "10m",
    "An endpoint serves and Prometheus does not see it",
    """
    ModelDeployment {{ $labels.name }} in namespace {{ $labels.namespace }} is served ({{ $value }} replicas), and
    Prometheus has no series of it: no alert on its errors or latency can fire. Look: kubectl get podmonitors -A
    """,
)
OBJECTIVES_BROKEN = Alert(
    "HeadraceMonitorObjectivesBroken",
    "warning",
    f"max by (namespace, name, deployment) ({names.MONITOR_HEALTHY}{{{WATCHED}}}) == 0",
    "1m",
    "A ModelMonitor's objectives are broken",
    """
    ModelMonitor {{ $labels.name }} in namespace {{ $labels.namespace }} says that deployment {{ $labels.deployment }}
    breaks an objective that somebody set for it. Look: kubectl -n {{ $labels.namespace }} describe modelmonitor {{
    $labels.name }}
    """,
)
MONITOR_BLIND = Alert(
    "HeadraceMonitorBlind",
    "warning",
    f"max by (namespace, name, deployment) ({names.MONITOR_PROMETHEUS_UP}{{{WATCHED}}}) == 0",
    "10m",
    "A ModelMonitor cannot measure",
    """
    The Prometheus that ModelMonitor {{ $labels.name }} in namespace {{ $labels.namespace }} names does not answer it:
    deployment {{ $labels.deployment }} is not watched. Look: kubectl -n {{ $labels.namespace }} describe modelmonitor
    {{ $labels.name }}
    """,
)


def groups() -> tuple[Group, ...]:
    """All of them."""
    told = (HAS_ANSWERED, DOWN, DEGRADED, FAILED, STUCK, OBJECTIVES_BROKEN, MONITOR_BLIND)
    return (
        Group("headrace-serving", frozenset(("operator",)), told),
        Group("headrace-serving-scraped", frozenset(("operator", "ray")), (UNMEASURED,)),
    )
