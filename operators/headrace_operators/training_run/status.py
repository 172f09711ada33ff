"""The status that a plan leaves: what it says is a function of what was seen, so that a quiet minute writes nothing.

Times are those of changes, never of looks; numbers are the ones that were reported; messages hold no countdown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from headrace.api.training_run import Checkpoint, MLflowRun, Phase, TrainingRunStatus
from headrace_operators.runtime.actions import Action
from headrace_operators.runtime.conditions import Truth, condition
from headrace_operators.training_run.observe import Observed, Reading

NOT_ENDED = ("Unknown", "NotEnded", "it goes on")
_LONGEST_MESSAGE = 4096


@dataclass(frozen=True)
class Step:
    """What a plan comes to.

    Args:
        phase, message: what people see first.
        running: reason and message of the condition Running; it is True exactly in the phase Running.
        changes: fields of the status that change.
        actions: what to do.
        again: seconds until another look is needed without a change.
        succeeded: status, reason and message of the condition Succeeded.
        suspended: the condition Suspended.
    """

    phase: Phase
    message: str
    running: tuple[str, str]
    changes: Mapping[str, Any] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    again: float | None = None
    succeeded: tuple[Truth, str, str] = NOT_ENDED  # type: ignore[assignment]
    suspended: bool = False


def status_of(seen: Observed, step: Step, now: datetime) -> dict[str, Any]:
    """The whole status after STEP."""
    fields = {**_reported(seen.status, seen.reading), **step.changes}
    record = seen.status.model_copy(update=fields).to_record()
    record["observedGeneration"] = seen.generation
    record["phase"] = step.phase
    record["message"] = step.message[:_LONGEST_MESSAGE]
    record["conditions"] = _conditions(seen, step, now)
    return record


def _conditions(seen: Observed, step: Step, now: datetime) -> list[dict[str, Any]]:
    previous = [entry.to_record() for entry in seen.status.conditions]

    def make(type_: str, status: Truth, reason: str, message: str) -> dict[str, Any]:
        return condition(previous, type_, status, reason, message, generation=seen.generation, now=now)

    mlflow = _mlflow(seen.reading) or _before(seen.status, "MLflowReachable", "NotAskedYet", "nothing has run yet")
    why = "spec.suspend is true" if seen.spec.suspend else step.message
    reason = "Asked" if seen.spec.suspend else "NotWaitedFor"
    suspension = ("True", reason, why) if step.suspended else ("False", "NotAsked", "")
    return [
        make("Accepted", *_accepted(seen)),
        make("Running", "True" if step.phase == "Running" else "False", *step.running),
        make("Suspended", *suspension),  # type: ignore[arg-type]
        make("MLflowReachable", *mlflow),
        make("Succeeded", *step.succeeded),
    ]


def _accepted(seen: Observed) -> tuple[Truth, str, str]:
    if seen.errors:
        return "False", "SpecInvalid", "; ".join(seen.errors)
    return "True", "Valid", "; ".join(("the spec can be carried out", *seen.warnings))


def _mlflow(reading: Reading | None) -> tuple[Truth, str, str] | None:
    if reading is None:
        return None
    if reading.error:
        return "False", "Unreachable", reading.error
    if reading.report is None:
        return "True", "NoRunYet", "MLflow answers; it has no run of this id yet"
    return "True", "Read", "MLflow answers"


def _before(status: TrainingRunStatus, type_: str, reason: str, message: str) -> tuple[Truth, str, str]:
    """What was said before, or that nothing is known."""
    found = next((entry for entry in status.conditions if entry.type == type_), None)
    return ("Unknown", reason, message) if found is None else (found.status, found.reason, found.message)


def _reported(status: TrainingRunStatus, reading: Reading | None) -> dict[str, Any]:
    """What MLflow says of the run. What was known stays known: a report is only ever newer."""
    report = reading.report if reading is not None else None
    if report is None:
        return {}
    fields: dict[str, Any] = {
        "mlflow": MLflowRun(run_id=report.mlflow_run_id, experiment_id=report.experiment_id),
        "metrics": dict(report.metrics) or status.metrics,
        "cpu_seconds": max(status.cpu_seconds, report.cpu_seconds),
        "gpu_seconds": max(status.gpu_seconds, report.gpu_seconds),
    }
    if report.checkpoint_uri:
        fields["checkpoint"] = Checkpoint(uri=report.checkpoint_uri, epoch=report.checkpoint_epoch)
    if report.package_uri:
        fields["package_uri"] = report.package_uri
    return fields
