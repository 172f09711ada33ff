"""Runs that nobody submitted: Kubeflow starts them by its clock, so their steps find out who they are.

What such a run is asked for lies in the store under its own hash; its id is made of Kubeflow's own id of the run, so
that every step and every retried pod comes to the same one. The first step to come writes the run down.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from headrace.base import ids
from headrace.base.errors import RunFailed
from headrace.steps.patience import patiently
from headrace.steps.prepare import write_run_notes
from headrace.store import Store

FIRST_ATTEMPT = "1"


def run_of(run_id: str, request: str, job_id: str) -> str:
    """RUN_ID, or where it is empty the id of the scheduled run that Kubeflow calls JOB_ID.

    Args:
        request: URI of what the run is asked for, as `request_record` makes it.

    Raises:
        RunFailed: the request is not in the store.
    """
    if run_id:
        return run_id
    return patiently(lambda: _found_out(request, job_id, Store()), lambda text: print(text, flush=True))


def _found_out(request: str, job_id: str, store: Store) -> str:
    asked = store.read_json(request)
    if not isinstance(asked, dict):
        raise RunFailed(
            f"{request} is not in the store {store.url}",
            action="schedule the spec again; the target's store and the site's must be one",
            code="store-incomplete",
        )
    derived = ids.derived_run_id(asked["name"], job_id)
    _write_down(derived, asked, job_id, store)
    return derived


def run_uri(store: Store, run_id: str) -> str:
    """Where a run on a cluster is written down."""
    return store.uri("runs", run_id, "run.json")


def _write_down(run_id: str, asked: dict[str, Any], job_id: str, store: Store) -> None:
    record = {
        **asked,
        "run_id": run_id,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "kubeflow_run_id": job_id,
    }
    if store.current_attempt(run_id) is None:
        store.claim_attempt(run_id, FIRST_ATTEMPT)
    if store.exists(run_uri(store, run_id)):
        return
    write_run_notes(record, store)
    store.create_json(run_uri(store, run_id), record)
