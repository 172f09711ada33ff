"""Alerts on the operator and on what stands behind it: the API server, MLflow, the backup."""

from __future__ import annotations

from headrace.monitoring import names
from headrace.monitoring.parameters import placeholder
from headrace.monitoring.rule import Alert, Group, Record

JOB = "headrace-operator"  # what our ServiceMonitor calls it
LEASE = "headrace-operator"
DEPTH = "namespace_name:headrace_workqueue_depth:sum"
OURS = f'job="{JOB}",namespace="{placeholder("namespace")}"'

NO_LEADER = Alert(
    "HeadraceOperatorWithoutLeader",
    "critical",
    f'absent({names.LEADING}{{{OURS},name="{LEASE}"}} == 1)',
    "2m",
    "No replica of the operator holds the lease",
    # Of a comparison absent() tells no labels, and those that a rule adds are no $labels: the names stand in the text.
    f"""
    No replica of the operator in namespace {placeholder("namespace")} holds the Lease {LEASE}: no TrainingRun begins or
    is tried again, no ModelDeployment changes. What is served goes on being served, and what trains goes on training.
    Look: kubectl -n {placeholder("namespace")} get pods,leases
    """,
    {"namespace": placeholder("namespace"), "lease": LEASE},
)
RECONCILE_ERRORS = Alert(
    "HeadraceReconcileErrors",
    "warning",
    f"sum by (namespace, controller) (increase({names.RECONCILE_ERRORS}{{{OURS}}}[15m])) >= 3",
    "5m",
    "The operator fails to reconcile objects",
    """
    {{ $value | printf "%.0f" }} reconciles of the {{ $labels.controller }} controller failed in the last 15 minutes;
    each is tried again, at last every 5 minutes. Look: kubectl -n {{ $labels.namespace }} logs --tail=-1
    -l app.kubernetes.io/component=operator | grep failed
    """,
)
_DEPTH = f'{DEPTH}{{namespace="{placeholder("namespace")}"}}'
QUEUE_GROWS = Alert(
    "HeadraceWorkQueueGrowing",
    "warning",
    f"""
    min_over_time({_DEPTH}[{placeholder("queueWindow")}]) > {placeholder("queueDepth")}
    and
    {_DEPTH} >= {_DEPTH} offset {placeholder("queueWindow")}
    """,
    "1m",
    "More work comes to the operator than it does",
    f"""
    For {placeholder("queueWindow")} at no time fewer than {{{{ $value | printf "%.0f" }}}} objects have waited for a
    worker of the {{{{ $labels.name }}}} controller, and there are not fewer now: changes are taken up late. Look at the
    dashboard Headrace / Operators: is the API server slow, or is there more to do?
    """,
)
MLFLOW_DOWN = Alert(
    "HeadraceMLflowDown",
    "critical",
    f'min by (namespace, server) ({names.MLFLOW_UP}{{{OURS},own="true"}}) == 0',
    "5m",
    "The installation's MLflow server does not answer the operator",
    """
    MLflow at {{ $labels.server }} does not answer the operator, or refuses it. Running trainings wait with their
    reports, new runs and registrations fail, aliases are not followed. What is served goes on being served. Look:
    kubectl get pods -A -l app.kubernetes.io/component=mlflow
    """,
)
MLFLOW_OF_OBJECTS_DOWN = Alert(
    "HeadraceMLflowOfObjectsDown",
    "warning",
    f'min by (namespace, server) ({names.MLFLOW_UP}{{{OURS},own="false"}}) == 0',
    "20m",  # longer than the operator remembers a server: one that was asked once is not told
    "An MLflow server that objects name does not answer the operator",
    """
    MLflow at {{ $labels.server }}, which TrainingRuns or ModelDeployments name and which is not the operator's own,
    does not answer the operator, or refuses it: those wait. Look: kubectl get trainingruns,modeldeployments -A -o yaml
    | grep trackingURI
    """,
)
BACKUP_OLD = Alert(
    "HeadraceBackupTooOld",
    "warning",
    f"time() - (max by (namespace, lease) ({names.BACKUP_SUCCESS}{{{OURS}}}) > 0) > {placeholder('backupSeconds')}",
    "10m",
    "The last good backup is too old",
    """
    The last good backup ended {{ $value | humanizeDuration }} ago, says Lease {{ $labels.lease }}. Look: kubectl -n {{
    $labels.namespace }} get cronjobs,jobs
    """,
)
_BACKUP_WAIT = f"{placeholder('backupSeconds')}s"
BACKUP_MISSING = Alert(
    "HeadraceBackupMissing",
    "warning",
    # Only the replica that leads tells of it: a `for` of a day would begin anew whenever there is none for a moment.
    f"""
    max by (namespace, lease) (max_over_time({names.BACKUP_SUCCESS}{{{OURS}}}[{_BACKUP_WAIT}])) == 0
    and
    min by (namespace, lease) (min_over_time({names.BACKUP_SUCCESS}{{{OURS}}}[1d] offset {_BACKUP_WAIT})) == 0
    """,
    "10m",
    "There has never been a good backup",
    """
    There is no Lease {{ $labels.lease }}: since the operator could have seen one, no backup has ended well. Look:
    kubectl -n {{ $labels.namespace }} get cronjobs,jobs
    """,
)


def groups() -> tuple[Group, ...]:
    """The operator's; the backup's are a group of their own, as an installation may have none."""
    depth = f"sum by (namespace, name) ({names.QUEUE_DEPTH}{{{OURS}}})"
    operator = (Record(DEPTH, depth), NO_LEADER, RECONCILE_ERRORS, QUEUE_GROWS, MLFLOW_DOWN, MLFLOW_OF_OBJECTS_DOWN)
    return (
        Group("headrace-operator", frozenset(("operator",)), operator),
        Group("headrace-backup", frozenset(("operator", "backup")), (BACKUP_OLD, BACKUP_MISSING)),
    )
