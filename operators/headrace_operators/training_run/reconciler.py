"""The TrainingRun operator: gathers what a plan depends on, and has it planned.

What it keeps in memory is never more than a convenience: when a head was first missed, what MLflow said last. A restart
loses it and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from headrace.api.judge import parse
from headrace.api.training_run import TrainingRunSpec, TrainingRunStatus
from headrace.base.errors import SpecInvalid
from headrace_operators.kinds import (
    ATTEMPT_LABEL,
    POD,
    RAY_CLUSTER,
    RAY_JOB,
    TRAINING_RUN,
    TRAINING_RUN_LABEL,
    WORKLOAD,
)
from headrace_operators.mlflow import MLflow
from headrace_operators.pods import Pod, keep_pod, pod_of
from headrace_operators.runtime import metrics
from headrace_operators.runtime.actions import Plan
from headrace_operators.runtime.cache import Caches, Watch, by_label
from headrace_operators.runtime.conditions import condition
from headrace_operators.runtime.kinds import Key, Object, controller_of, key_of
from headrace_operators.training_run.acceptance import findings
from headrace_operators.training_run.measures import Measures
from headrace_operators.training_run.observe import HeadGone, Observed
from headrace_operators.training_run.plan import plan
from headrace_operators.training_run.read import (
    job_of,
    keep_cluster,
    keep_job,
    keep_workload,
    place_of,
    refusal_of,
)
from headrace_operators.training_run.reports import Reports

_UNREADABLE_SECONDS = 300.0


class TrainingRunReconciler:
    """Keeps TrainingRuns right.

    Args:
        runtime_image: of pods whose run names none.
        mlflow: reads what runs report.
        mlflow_interval_seconds: how often a run under way is asked about.
    """

    name = "trainingrun"
    kind = TRAINING_RUN

    def __init__(self, runtime_image: str, mlflow: MLflow, mlflow_interval_seconds: float) -> None:
        self.watches = (
            Watch(RAY_JOB, _run_of_job, keep_job, optional=True),
            Watch(RAY_CLUSTER, by_label(TRAINING_RUN_LABEL), keep_cluster, TRAINING_RUN_LABEL, optional=True),
            Watch(POD, by_label(TRAINING_RUN_LABEL), keep_pod, TRAINING_RUN_LABEL),
            Watch(WORKLOAD, _run_of_workload, keep_workload, optional=True),
        )
        self.reports = Reports(mlflow, mlflow_interval_seconds)
        self._image = runtime_image
        self._measures = Measures()
        self._missed: dict[Key, tuple[str, HeadGone]] = {}
        self._shown = False

    async def plan(self, obj: Object, caches: Caches, now: datetime) -> Plan:
        """What is to be done about a TrainingRun."""
        self._show(caches)
        key = key_of(obj)
        status = TrainingRunStatus.model_validate(obj.get("status") or {})
        self._measures.see(key, status)
        try:
            spec = parse(TrainingRunSpec, obj)
        except SpecInvalid as error:
            return _unreadable(obj, status, error, now)
        seen = self._observe(obj, spec, status, caches, now)
        ask = self.reports.keep_fresh(str(obj["metadata"]["uid"]), seen)
        planned = plan(seen, now)
        again = [seconds for seconds in (planned.again_after_seconds, ask) if seconds is not None]
        return replace(planned, again_after_seconds=min(again, default=None))

    async def close(self) -> None:
        """Give the connections to MLflow back."""
        await self.reports.close()

    def _observe(
        self, run: Object, spec: TrainingRunSpec, status: TrainingRunStatus, caches: Caches, now: datetime
    ) -> Observed:
        key = key_of(run)
        image = spec.pods.image or self._image
        errors, warnings = findings(spec, status, int(run["metadata"].get("generation", 0)), image)
        seen = Observed(
            run=run,
            spec=spec,
            status=status,
            jobs=tuple(job_of(job, run["metadata"]["uid"]) for job in caches.of(RAY_JOB, key)),
            pods=tuple(_pods(caches, key, status.attempt)),
            refused=refusal_of(caches.of(RAY_CLUSTER, key), status.attempt),
            place=place_of(caches.of(WORKLOAD, key), status.ray_job_name) if spec.queue else None,
            reading=self.reports.reading(str(run["metadata"]["uid"])),
            errors=errors,
            warnings=warnings,
            kuberay=not caches.stores[RAY_JOB].missing,
            image=image,
        )
        return replace(seen, head_gone=self._head_gone(key, seen, now))

    def _head_gone(self, key: Key, seen: Observed, now: datetime) -> HeadGone | None:
        """Since when the head that ran the driver is missing, and what was seen of its end."""
        uid = seen.status.head_pod_uid or _unseen_head(seen)
        head = next((pod for pod in seen.pods if pod.uid == uid), None)
        if uid is None or (head is not None and head.alive):
            self._missed.pop(key, None)
            return None
        before_uid, before = self._missed.get(key, ("", None))
        gone = before if before is not None and before_uid == uid else HeadGone(now)
        if head is not None:
            gone = HeadGone(gone.since, head.disruption or gone.disruption, head.ended or gone.words)
        self._missed[key] = (uid, gone)
        return gone

    def _show(self, caches: Caches) -> None:
        """Count phases whenever metrics are read; and forget runs that are gone."""
        if self._shown:
            return
        self._shown = True

        def refresh() -> None:
            known = set(caches.primaries())
            self._measures.show(known)
            self._missed = {key: missed for key, missed in self._missed.items() if key in known}

        metrics.before_scrape(refresh)


def _unseen_head(seen: Observed) -> str | None:
    """In place of the uid of a head that runs the driver and was gone before we ever looked: the operator was away."""
    job, head = seen.job, seen.head
    if job is None or not job.owned or job.deployment != "Running" or (head is not None and head.alive):
        return None
    return f"the head of {job.uid}"


def _pods(caches: Caches, key: Key, attempt: int) -> Iterator[Pod]:
    for obj in caches.of(POD, key):
        if obj["metadata"]["labels"].get(ATTEMPT_LABEL) == str(attempt):
            yield pod_of(obj)


def _run_of_job(obj: Object) -> Iterable[Key]:
    """The run that a RayJob concerns, by its name: one that is not ours may stand in a run's way."""
    return _run_named(key_of(obj))


def _run_of_workload(obj: Object) -> Iterable[Key]:
    """The run whose RayJob a Kueue Workload is for."""
    owner = controller_of(obj)
    if owner is None or owner["kind"] != "RayJob":
        return ()
    return _run_named(Key(key_of(obj).namespace, str(owner["name"])))


def _run_named(job: Key) -> Iterable[Key]:
    name, _, number = job.name.rpartition("-")
    return (Key(job.namespace, name),) if name and number.isdecimal() else ()


def _unreadable(obj: Object, status: TrainingRunStatus, error: SpecInvalid, now: datetime) -> Plan:
    """The status of a run whose spec this version cannot read: an older CRD let it in."""
    generation = int(obj["metadata"].get("generation", 0))
    previous = [entry.to_record() for entry in status.conditions]
    refused = condition(previous, "Accepted", "False", "SpecInvalid", error.message, generation=generation, now=now)
    others = [entry for entry in previous if entry["type"] != "Accepted"]
    record = status.to_record() | {"observedGeneration": generation, "message": error.message[:4096]}
    return Plan(status=record | {"conditions": [refused, *others]}, again_after_seconds=_UNREADABLE_SECONDS)
