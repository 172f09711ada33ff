"""The train step's tools on a laptop: this machine's MLflow, Ray head and training driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace.api.reports import ATTEMPT_TAG
from headrace.base.jsonfile import sha256_of
from headrace.steps.step import Step
from headrace.steps.train import Run, TrainTools
from headrace.steps.tune import TrialRun, TuneTools
from headrace.store.step_files import read_note

if TYPE_CHECKING:
    from headrace.local.resources import Demand


def local_tools() -> TrainTools:
    """What `TrainStep` needs, on this machine."""
    from headrace.tracking.registry import resolve

    return TrainTools(champion=resolve, open_run=open_run, workers=local_workers, train=_train)


def local_tune_tools() -> TuneTools:
    """What `TuneStep` needs besides."""
    from headrace.training import run_search

    return TuneTools(search=run_search, open_trial=open_trial)


def open_trial(step: Step, parent: Run, number: int, part: Mapping[str, Any], overrides: Mapping[str, Any]) -> TrialRun:
    """The MLflow run of trial NUMBER, nested in PARENT, with the PART that it trains as its parameters."""
    from headrace.tracking import TrackedRun

    origin = read_note(step.store, step.run_id, "origin") or {}
    run = TrackedRun.open(
        f"{step.run_id}-trial-{number:03d}",
        (origin.get("spec") or {}).get("name", step.run_id),
        tags={
            "mlflow.parentRunId": parent.mlflow_run_id,
            "headrace.parent_run_id": step.run_id,
            **{f"headrace.tune.{place}": str(value) for place, value in overrides.items()},
        },
        check=step.check,
    )
    run.log_params(part)
    return run


def _train(request: Any, *, connection: Any) -> Any:
    from headrace.training import run_training

    return run_training(request, connection=connection)


def open_run(step: Step, split_fingerprint: str) -> Run:
    """The MLflow run of STEP's run, with what is known before training starts."""
    from headrace.tracking import TrackedRun

    origin = read_note(step.store, step.run_id, "origin") or {}
    spec: dict[str, Any] = origin.get("spec") or {}
    git = origin.get("git") or {}
    name = spec.get("name", step.run_id)
    run = TrackedRun.open(
        step.run_id,
        name,
        tags={
            "headrace.spec_sha256": origin.get("spec_sha256") or sha256_of(spec),
            "headrace.split_fingerprint": split_fingerprint,
            ATTEMPT_TAG: step.attempt,
            "headrace.git_dirty": str(git["dirty"]).lower() if git else None,
            "mlflow.source.git.commit": git.get("commit"),
        },
        check=step.check,
    )
    log_facts(run, step, split_fingerprint, spec, spec.get("data", {}).get("source", ""))
    return run


def log_facts(run: Any, step: Step, split_fingerprint: str, record: Mapping[str, Any], source: str) -> None:
    """Log what is known of a training before it starts: RECORD as parameters, the split of SOURCE as the dataset."""
    from headrace.data import Manifest

    if record:
        run.log_params(record)
    manifest = Manifest(step.store, split_fingerprint)
    name = str(record.get("name", step.run_id))
    run.log_dataset(name, split_fingerprint, manifest.schema.to_record(), _counts(manifest), source)
    run.start_system_metrics()


def _counts(manifest: Any) -> dict[str, int]:
    return {side: manifest.count(side) for side in ("train", "validation", "test")}


@contextmanager
def local_workers(step: Step, train: Mapping[str, Any]) -> Iterator[tuple[Any, Demand]]:
    """This machine's Ray head, and as many of its CPUs and GPUs as the `train` record asks for, in one's turn."""
    from dataclasses import replace

    from headrace.local.ray_head import ensure_head, head_environment, require_same_s3
    from headrace.local.resources import check_demand, claim, for_training
    from headrace.training import Connection

    head = ensure_head(step.message)
    origin = read_note(step.store, step.run_id, "origin") or {}
    require_same_s3(head, step.store.url, (origin.get("spec") or {}).get("data", {}).get("source"))
    free = for_training(head)
    demand = check_demand(train, free)
    connection = Connection(head.address, head_environment(head), str(head.log_dir), head.leader)
    with claim(demand, free, holder=f"run {step.run_id}", on_wait=step.waiting) as workers:
        yield connection, replace(demand, most=workers)
