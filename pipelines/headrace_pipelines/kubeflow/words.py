"""What the steps of one attempt said: read from the store, where each leaves its last word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace.local.records import result_of, steps_told
from headrace.store import Store
from headrace.store.step_files import read_error
from headrace_pipelines.kubeflow.verdict import Words


def words_of(store: Store, run_id: str, steps: Sequence[str], attempts: Sequence[str]) -> Words:
    """The words of STEPS in one attempt, which ATTEMPTS are the spellings of."""
    found = {step: result_of(store, run_id, step, attempts) for step in steps}
    results = {step: result for step, result in found.items() if result is not None}
    errors = {step: error for step in steps if step not in results and (error := _error(store, run_id, step, attempts))}
    return Words(steps, results, errors)


def _error(store: Store, run_id: str, step: str, attempts: Sequence[str]) -> dict[str, Any] | None:
    found = (read_error(store, run_id, step, attempt) for attempt in attempts)
    return next((error for error in found if error is not None), None)


def step_states(words: Words, events: Iterable[Mapping[str, Any]], absent: frozenset[str]) -> list[dict[str, Any]]:
    """The record's `steps`: as the EVENTS tell, and as the last WORDS do, which count more; ABSENT ones are skipped."""
    steps = steps_told(events, absent)
    for step in steps:
        if (result := words.results.get(step["name"])) is not None:
            step.update(state=result.get("state"), seconds=result.get("seconds"))
        elif step["name"] in words.errors:
            step["state"] = "failed"
    return steps
