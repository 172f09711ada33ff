"""Alerts on trainings: those that do not begin, that stand still, and that fail one after the other."""

from __future__ import annotations

from headrace.monitoring import names
from headrace.monitoring.parameters import placeholder
from headrace.monitoring.rule import Alert, Group

IN_QUEUE = "Queued|NotQueued|WaitsForQuota"  # reasons of waiting that are Kueue's
MISTAKEN = "SpecInvalid"  # whoever wrote it was told at once

_WAITED = f"time() - max by (namespace, name, reason) ({names.TRAINING_WAITING_SINCE}{{REASONS}})"

WAITING = Alert(
    "HeadraceTrainingRunWaiting",
    "warning",
    f"{_WAITED} > {placeholder('waitingSeconds')}".replace("REASONS", f'reason!~"{IN_QUEUE}|{MISTAKEN}"'),
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
    f"{_WAITED} > {placeholder('queuedSeconds')}".replace("REASONS", f'reason=~"{IN_QUEUE}"'),
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
    f"time() - max by (namespace, name) ({names.TRAINING_PROGRESS}) > {placeholder('noProgressSeconds')}",
    "1m",
    "A TrainingRun runs and reports nothing new",
    """
    TrainingRun {{ $labels.name }} in namespace {{ $labels.namespace }} has reported no new metric and no checkpoint for
    {{ $value | humanizeDuration }}, and holds its pods. Look: kubectl -n {{ $labels.namespace }} logs -l
    headrace.dev/training-run={{ $labels.name }} --tail 50
    """,
)
_ENDED = f"sum by (namespace) (increase({names.TRAINING_ATTEMPTS}{{RESULT}}[1h]))"
_FAILED = _ENDED.replace("RESULT", 'result="failed"')
FAILING = Alert(
    "HeadraceTrainingRunsFailing",
    "warning",
    f"""
    {_FAILED} >= {placeholder("failingAttempts")}
    and
    {_FAILED} > 0.5 * {_ENDED.replace("{RESULT}", "")}
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
    return (Group("headrace-training", (WAITING, QUEUED, NO_PROGRESS, FAILING)),)
