"""What MLflow said of a run is that run's alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from headrace_operators.mlflow import RunReport
from headrace_operators.runtime.cache import Caches, Store, Watch, by_name
from headrace_operators.runtime.kinds import Object
from headrace_operators.training_run.reconciler import TRAINING_RUN, TrainingRunReconciler

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


class MLflow:
    """Knows a run of every id, with a checkpoint."""

    async def find_run(self, _uri: str, run_id: str, **_: Any) -> RunReport:
        return RunReport(f"m-{run_id}", "1", checkpoint_uri=f"s3://bucket/checkpoints/{run_id}", checkpoint_epoch=5)


def run(uid: str, **status: Any) -> Object:
    spec = {
        "tasks": [{"name": "image-classification"}],
        "model": {"name": "mlp"},
        "manifestURI": "s3://bucket/splits/a",
        "store": {"uri": "s3://bucket"},
        "mlflow": {"trackingURI": "http://mlflow:5000"},
    }
    metadata = {"name": "digits", "namespace": "team", "uid": uid, "generation": 1, "resourceVersion": "1"}
    kind = {"apiVersion": "headrace.dev/v1alpha1", "kind": "TrainingRun"}
    return {**kind, "metadata": metadata, "spec": spec, "status": status}


def test_a_run_made_anew_under_a_name_inherits_no_checkpoint() -> None:
    async def statuses() -> list[Any]:
        reconciler = TrainingRunReconciler("image", MLflow(), 30)  # type: ignore[arg-type]
        watches = (Watch(TRAINING_RUN, by_name), *reconciler.watches)
        caches = Caches(TRAINING_RUN, [Store(watch) for watch in watches])
        between = {"attempt": 1, "startTime": "2026-11-26T11:00:00Z", "nextAttemptTime": "2026-11-26T12:01:00Z"}
        found = []
        for obj in (run("old", **between), run("new")):
            for _ in range(2):
                plan = await reconciler.plan(obj, caches, NOW)
                await reconciler.reports.settle()
            found.append((plan.status or {}).get("checkpoint"))
        return found

    old, new = asyncio.run(statuses())
    assert old is not None
    assert new is None
