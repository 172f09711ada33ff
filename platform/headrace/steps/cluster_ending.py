"""What a training on a cluster ended with: its driver's own word in the store, else the operator's.

The driver writes `result.json` or `error.json` as any step does, under the pair of attempts it acted for; so a run ends
with the same facts, errors and exit codes as on a laptop.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from headrace.api.parts import Condition
from headrace.api.training_run import TrainingRunStatus
from headrace.base.errors import Cancelled, RunFailed, Superseded, Unavailable, error_from_record
from headrace.steps.step import Step
from headrace.store.step_files import read_error, read_result

_EXHAUSTED = "RetriesExhausted"  # the reason of a training that may try no more


def outcome(step: Step, namespace: str, name: str, status: TrainingRunStatus) -> dict[str, Any]:
    """What the driver of the TrainingRun NAME in NAMESPACE gave, which ended with STATUS.

    Raises:
        HeadraceError: what it failed with; RunFailed where it left no word.
    """
    ended = condition(status, "Succeeded")
    assert ended is not None
    attempt = f"{step.attempt}.{status.attempt}"
    if ended.status != "True":
        _fail(step, namespace, name, attempt, ended)
    return _result(step, name, attempt)


def condition(status: TrainingRunStatus, type_: str) -> Condition | None:
    """The condition of TYPE_."""
    return next((entry for entry in status.conditions if entry.type == type_), None)


def _result(step: Step, name: str, attempt: str) -> dict[str, Any]:
    found = read_result(step.store, step.run_id, "train", attempt)
    if found is None:
        raise RunFailed(
            f"TrainingRun {name} has succeeded, and its result is not in {step.store.url}",
            action="the site's store and the step's must be one; see the ConfigMap headrace-site",
            code="store-incomplete",
        )
    return found


def _fail(step: Step, namespace: str, name: str, attempt: str, ended: Condition) -> NoReturn:
    record = read_error(step.store, step.run_id, "train", attempt)
    if record is not None and _is_the_end(record, ended):
        last = f" (attempt {attempt.rpartition('.')[2]}, the last one)" if ended.reason == _EXHAUSTED else ""
        error = error_from_record({**record, "message": f"{record.get('message')}{last}"})
        if isinstance(error, Unavailable):
            error.waited_for = True  # by the training; looking again would find the same word
        raise error
    raise RunFailed(
        ended.message,
        action=f"`kubectl -n {namespace} describe trainingrun {name}` tells its story; `headrace resume {step.run_id}` "
        "goes on from the newest checkpoint",
        code=_kebab(ended.reason),
    )


def _is_the_end(record: Mapping[str, Any], ended: Condition) -> bool:
    """Whether RECORD, by the last driver, is what the training ended with: one that was stopped ends with no reason."""
    if ended.reason == _EXHAUSTED:
        return record.get("code") not in (Cancelled.code, Superseded.code)
    return record.get("code") == _kebab(ended.reason)


def _kebab(reason: str) -> str:
    """A reason in CamelCase as one of our codes."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", reason).lower()
