"""The word that each step of a run leaves behind, one folder an attempt: `result.json` or `error.json`, written last.

A step that left neither did not end by itself, whatever its exit code says. Paths carry the attempt, so nothing that an
earlier attempt wrote is ever taken for the present one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.store.store import Store

STEPS = ("split", "train", "register", "deploy")


def step_uri(store: Store, run_id: str, step: str, attempt: str, file: str) -> str:
    """Where FILE of one attempt of STEP lies."""
    return store.uri("runs", run_id, "steps", step, attempt, file)


def result_uri(store: Store, run_id: str, step: str, attempt: str) -> str:
    """Where STEP says what it did."""
    return step_uri(store, run_id, step, attempt, "result.json")


def read_result(store: Store, run_id: str, step: str, attempt: str) -> dict[str, Any] | None:
    """What STEP did in ATTEMPT, or None while it has not ended well."""
    found = store.read_json(result_uri(store, run_id, step, attempt))
    return found if isinstance(found, dict) else None


def read_error(store: Store, run_id: str, step: str, attempt: str) -> dict[str, Any] | None:
    """Why STEP failed in ATTEMPT, as `HeadraceError.to_record` says it, or None."""
    found = store.read_json(step_uri(store, run_id, step, attempt, "error.json"))
    return found if isinstance(found, dict) else None


def write_note(store: Store, run_id: str, name: str, value: Mapping[str, Any]) -> str:
    """Write a fact of a run that is known before its step ends (`mlflow`, `gate`, `options`); returns its URI."""
    return store.write_json(store.uri("runs", run_id, f"{name}.json"), dict(value))


def read_note(store: Store, run_id: str, name: str) -> dict[str, Any] | None:
    """The fact NAME of a run, or None."""
    found = store.read_json(store.uri("runs", run_id, f"{name}.json"))
    return found if isinstance(found, dict) else None


def forget_error(store: Store, run_id: str, step: str, attempt: str) -> None:
    """Take back what an earlier process of the same attempt said when it failed: another one goes on with it."""
    store.remove(step_uri(store, run_id, step, attempt, "error.json"))


def ask_to_cancel(store: Store, run_id: str, attempt: str) -> None:
    """Say that somebody wants ATTEMPT of a run to end, before its processes are told to.

    A process on a cluster is told to end in the same way when its pod is moved; this is how it knows the difference.
    """
    write_note(store, run_id, "cancel", {"attempt": attempt.split(".")[0]})


def is_cancelled(store: Store, run_id: str, attempt: str) -> bool:
    """Whether somebody wants ATTEMPT of a run to end."""
    return (read_note(store, run_id, "cancel") or {}).get("attempt") == attempt.split(".")[0]
