"""What the steps of one attempt said: read from the store, where each leaves its last word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace.base.errors import Cancelled
from headrace.local.records import steps_told
from headrace.store import Store
from headrace.store.step_files import is_cancelled, read_error, read_result
from headrace_pipelines.kubeflow.verdict import Words


def words_of(store: Store, run_id: str, steps: Sequence[str], attempt: str) -> Words:
    """The words of STEPS in ATTEMPT.

    A step whose pod is moved says that it was cancelled, as it is told to end in the same way. That is a word of its
    own only where somebody wanted the run to end.
    """
    found = {step: read_result(store, run_id, step, attempt) for step in steps}
    results = {step: result for step, result in found.items() if result is not None}
    said = {step: read_error(store, run_id, step, attempt) for step in steps if step not in results}
    errors = {step: error for step, error in said.items() if error is not None}
    if any(_is_cancellation(error) for error in errors.values()) and not is_cancelled(store, run_id, attempt):
        errors = {step: error for step, error in errors.items() if not _is_cancellation(error)}
    return Words(steps, results, errors)


def _is_cancellation(error: Mapping[str, Any]) -> bool:
    return error.get("type") == Cancelled.__name__


def step_states(words: Words, events: Iterable[Mapping[str, Any]], absent: frozenset[str]) -> list[dict[str, Any]]:
    """The record's `steps`: as the EVENTS tell, and as the last WORDS do, which count more; ABSENT ones are skipped."""
    steps = steps_told(events, absent)
    for step in steps:
        if (result := words.results.get(step["name"])) is not None:
            step.update(state=result.get("state"), seconds=result.get("seconds"))
        elif step["name"] in words.errors:
            step["state"] = "failed"
    return steps
