"""Sending a run, and what the store keeps of it so that any machine can look at it by its id.

    runs/<run id>/run.json             what was asked for, and the pipeline's arguments
    runs/<run id>/sent/<n>.json        attempt n was claimed by one sender, who sends it there as `<run id>-<n>`
    runs/<run id>/kubeflow/<n>.json    and there it has this id
    runs/<run id>/given-up/<n>.json    why attempt n is ended by whoever follows it, though nobody cancels it
    runs/<run id>/ended/<n>.json       the record and the exit code of an attempt that has ended

This machine's home only remembers on which target a run is. Everything is written before Kubeflow is told and under
names that follow from the run, so a command that is killed in between leaves nothing that a second one cannot finish.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base import ids
from headrace.base.errors import InvalidInput
from headrace.base.home import run_folder
from headrace.base.jsonfile import read_json, write_json
from headrace.local.runs import git_state
from headrace.steps.prepare import prepare
from headrace.steps.scheduled import FIRST_ATTEMPT, run_uri
from headrace.store import Store
from headrace.store.step_files import is_cancelled
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.ir import check_arguments, ir_for

if TYPE_CHECKING:
    from headrace.spec import RunSpec

UNKNOWN_RUN = "unknown-run"
TARGET_FILE = "target.json"  # in the run's folder of the home


def write_down(
    cluster: Cluster, spec: RunSpec, *, no_cache: bool = False, spec_file: str | os.PathLike[str] | None = None
) -> str:
    """Write down a run of SPEC, ready to be sent; its id.

    Raises:
        Unavailable: Kubeflow, or the store, cannot be reached.
        Refused: Kubeflow does not take the pipeline.
    """
    from headrace.tracking.registry import resolve

    ir = ir_for(cluster.target.image)
    cluster.kubeflow.version_of(ir)  # asked first: with no Kubeflow nothing is written anywhere
    request = request_of(cluster, spec, no_cache=no_cache, spec_file=spec_file)
    run_id = request["run_id"] = ids.new_run_id(spec.name)
    arguments = prepare(request, cluster.store, FIRST_ATTEMPT, resolve)
    check_arguments(ir, arguments)
    cluster.store.write_json(run_uri(cluster.store, run_id), {**request, "arguments": arguments})
    remember(run_id, cluster.name)
    return run_id


def request_of(
    cluster: Cluster, spec: RunSpec, *, no_cache: bool, spec_file: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """What a run of SPEC is asked for, but its id."""
    folder = None if spec_file is None else Path(spec_file).absolute().parent
    return {
        "name": spec.name,
        "target": cluster.name,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "headrace": version("headrace"),
        "spec": spec.to_record(),
        "git": None if folder is None else git_state(folder),
        "no_cache": no_cache,
        "queue": cluster.target.queue,
        "kubeflow": cluster.address,
    }


def claim(cluster: Cluster, run_id: str, attempt: int) -> bool:
    """Whether ATTEMPT of the run is this process's to send; of several that ask one is told so.

    Raises:
        Superseded: a newer attempt was sent meanwhile.
    """
    record = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "kubeflow": cluster.address}
    mine = cluster.store.create_json(sent_uri(cluster.store, run_id, attempt), record)
    if mine:
        cluster.store.claim_attempt(run_id, str(attempt))
    return mine


def send(cluster: Cluster, run_id: str, attempt: int) -> str:
    """Send the claimed ATTEMPT of a run that is written down; Kubeflow's id of it."""
    store, request = cluster.store, read_request(cluster.store, run_id)
    ir = ir_for(cluster.target.image)
    arguments = {**request["arguments"], "run_id": run_id, "attempt": str(attempt), "request": ""}
    check_arguments(ir, arguments)
    pipeline, pipeline_version = cluster.kubeflow.version_of(ir)
    made = cluster.kubeflow.create_run(
        kubeflow_name(run_id, attempt),
        experiment=cluster.kubeflow.experiment(request["name"]),
        pipeline=pipeline,
        version=pipeline_version,
        arguments=arguments,
    )
    identity = str(made["run_id"])
    store.write_json(kubeflow_uri(store, run_id, attempt), {"run_id": identity})
    if is_cancelled(store, run_id, str(attempt)):  # while it was being sent: who cancelled it saw nothing to end yet
        cluster.kubeflow.terminate(identity)
    return identity


def kubeflow_name(run_id: str, attempt: int) -> str:
    """What Kubeflow shows an attempt as."""
    return f"{run_id}-{attempt}"


def kubeflow_id(cluster: Cluster, run_id: str, attempt: int) -> str | None:
    """Kubeflow's id of ATTEMPT; None where it never came there."""
    store = cluster.store
    known = store.read_json(kubeflow_uri(store, run_id, attempt))
    if known is not None:
        return str(known["run_id"])
    if attempt == int(FIRST_ATTEMPT) and (scheduled := read_request(store, run_id).get("kubeflow_run_id")):
        return str(scheduled)
    found = cluster.kubeflow.find_run(None, kubeflow_name(run_id, attempt))
    if found is None:
        return None
    store.write_json(kubeflow_uri(store, run_id, attempt), {"run_id": found["run_id"]})
    return str(found["run_id"])


def read_request(store: Store, run_id: str) -> dict[str, Any]:
    """What was asked for. Raises InvalidInput where the store knows no such run."""
    found = store.read_json(run_uri(store, run_id))
    if not isinstance(found, dict):
        raise InvalidInput(
            f"there is no run {run_id} in the store {store.url}",
            action="`headrace runs --on TARGET` lists them",
            code=UNKNOWN_RUN,
        )
    return found


def sent_attempts(store: Store, run_id: str) -> list[int]:
    """The attempts that were sent, oldest first; the first one of a scheduled run was sent by Kubeflow itself."""
    names = (name.removesuffix(".json") for name in store.names(store.uri("runs", run_id, "sent")))
    return sorted({int(FIRST_ATTEMPT), *(int(name) for name in names if name.isdigit())})


def sent_uri(store: Store, run_id: str, attempt: int) -> str:
    """Where a sender says that it is the one."""
    return store.uri("runs", run_id, "sent", f"{attempt}.json")


def kubeflow_uri(store: Store, run_id: str, attempt: int) -> str:
    """Where Kubeflow's id of an attempt is."""
    return store.uri("runs", run_id, "kubeflow", f"{attempt}.json")


def given_up_uri(store: Store, run_id: str, attempt: int) -> str:
    """Where a follower that ends an attempt says why, before Kubeflow is told: to Kubeflow it is a cancellation."""
    return store.uri("runs", run_id, "given-up", f"{attempt}.json")


def ended_uri(store: Store, run_id: str, attempt: int) -> str:
    """Where the end of an attempt is written by whoever saw it first."""
    return store.uri("runs", run_id, "ended", f"{attempt}.json")


def remember(run_id: str, target: str) -> None:
    """Note on this machine that the run is on TARGET."""
    folder = run_folder(run_id)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_json(folder / TARGET_FILE, {"target": target})


def remembered(run_id: str) -> str | None:
    """The target of a run that this machine sent or looked at; None for others."""
    found: Any = read_json(run_folder(run_id) / TARGET_FILE)
    return str(found["target"]) if isinstance(found, Mapping) else None
