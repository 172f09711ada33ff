"""Alerts on trainings: those that do not begin, that stand still, and that fail one after the other."""

from __future__ import annotations

from headrace.monitoring import names
from headrace.monitoring.parameters import WATCHED, placeholder
from headrace.monitoring.rule import Alert, Group

IN_QUEUE = f'reason=~"{"|".join(names.IN_QUEUE)}"'
ON_ITS_WAY = f'reason!~"{"|".join((*names.IN_QUEUE, *names.MISTAKEN))}"'  # neither in a queue nor mistaken


def _waited(for_what: str) -> str:
    since = f"{names.TRAINING_WAITING_SINCE}{{{WATCHED},{for_what}}}"
    return f"time() - max by (namespace, name, reason) ({since})"


WAITING = Alert(
    "HeadraceTrainingRunWaiting",
    "warning",
    f"{_waited(ON_ITS_WAY)} > {placeholder('waitingSeconds')}",
    "1m",
    "A TrainingRun does not begin",
    """
    TrainingRun {{ $labels.name }} in namespace {{ $labels.namespace }} has waited for {{ $value | humanizeDuration }}:
    {{ $labels.reason }}. Look: kubectl -n {{ $labels.namespace }} describe trainingrun {{ $labels.name }}
    """,
)
QUEUED = Alert(
    "HeadraceTrainingRunQueued",
    "info",
    f"{_waited(IN_QUEUE)} > {placeholder('queuedSeconds')}",
    "1m",
    "A TrainingRun has been in its queue for long",
    """
    TrainingRun {{ $labels.name }} in namespace {{ $labels.namespace }} has been in its queue for {{ $value |
    humanizeDuration }}: {{ $labels.reason }}. Look: kubectl -n {{ $labels.namespace }} get workloads,localqueues
    """,
)
NO_PROGRESS = Alert(
    "HeadraceTrainingRunNoProgress",
    "warning",
    f"time() - max by (namespace, name) ({names.TRAINING_PROGRESS}{{{WATCHED}}}) > {placeholder('noProgressSeconds')}",
    "1m",
    "A TrainingRun runs and reports nothing new",
    """
    TrainingRun {{ $labels.name }} in namespace {{ $labels.namespace }} has reported no new metric and no checkpoint for
    {{ $value | humanizeDuration }}, and holds its pods. Look: kubectl -n {{ $labels.namespace }} describe
    trainingrun {{ $labels.name }}
    """,
)
_ENDED = f"sum by (namespace) (increase({names.TRAINING_ATTEMPTS}{{{WATCHED}}}[1h]))"
_FAILED = _ENDED.replace(WATCHED, f'{WATCHED},result="failed"')
FAILING = Alert(
    "HeadraceTrainingRunsFailing",
    "warning",
    f"""
    {_FAILED} >= {placeholder("failingAttempts")}
    and
    {_FAILED} > 0.5 * {_ENDED}
    """,
    "5m",
    "Most attempts to train fail",
    """
    {{ $value | printf "%.0f" }} attempts of TrainingRuns in namespace {{ $labels.namespace }} failed in the last hour,
    more than all others together. Look: kubectl -n {{ $labels.namespace }} get trainingruns
    """,
)


def groups() -> tuple[Group, ...]:
    """All of them."""
    return (Group("headrace-training", frozenset(("operator",)), (WAITING, QUEUED, NO_PROGRESS, FAILING)),)
