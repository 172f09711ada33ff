"""What MLflow said of a run is that run's alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from headrace.api.training_run import TrainingRunSpec, TrainingRunStatus
from headrace_operators.mlflow import RunReport, Unreachable
from headrace_operators.runtime.cache import Caches, Store, Watch, by_name
from headrace_operators.runtime.kinds import Object
from headrace_operators.training_run.observe import Job, Observed
from headrace_operators.training_run.reconciler import TRAINING_RUN, TrainingRunReconciler
from headrace_operators.training_run.reports import Reports

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


class MLflow:
    """Knows a run of every id, with a checkpoint."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def find_run(self, _uri: str, run_id: str, *, mlflow_run_id: str | None = None) -> RunReport:
        self.asked.append(mlflow_run_id)
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


def seen(deployment: str = "Running", **status: Any) -> Observed:
    obj = run("uid")
    under_way = {"attempt": 1, "rayJobName": "digits-1", **status}
    jobs = (Job("digits-1", "j", 1, deployment=deployment),)
    spec = TrainingRunSpec.model_validate(obj["spec"])
    return Observed(run=obj, spec=spec, status=TrainingRunStatus.model_validate(under_way), jobs=jobs)


def test_a_run_under_way_is_asked_about_once_in_an_interval() -> None:
    async def asked() -> tuple[list[Any], float | None]:
        mlflow = MLflow()
        reports = Reports(mlflow, 30, clock=lambda: 100.0)  # type: ignore[arg-type]
        for _ in range(20):
            again = reports.keep_fresh("uid", seen(mlflow={"runID": "m1"}))
            await reports.settle()
        return mlflow.asked, again

    requests, again = asyncio.run(asked())
    assert requests == ["m1"]
    assert again == 30


@pytest.mark.parametrize(
    "quiet",
    [
        seen("Initializing"),
        seen(attempt=0, rayJobName=None),
        seen("Complete", completionTime="2026-11-26T12:00:00Z"),
    ],
)
def test_mlflow_is_not_asked_about_runs_that_do_not_run(quiet: Observed) -> None:
    mlflow = MLflow()
    assert Reports(mlflow, 30).keep_fresh("uid", quiet) is None  # type: ignore[arg-type]
    assert mlflow.asked == []


def test_an_mlflow_that_never_answers_keeps_no_plan_waiting(in_virtual_time: Callable[..., Any]) -> None:
    class Silent(MLflow):
        async def find_run(self, *_: Any, **__: Any) -> RunReport:
            await asyncio.Event().wait()
            raise AssertionError

        async def close(self) -> None:
            pass

    async def plan() -> Any:
        reports = Reports(Silent(), 30)  # type: ignore[arg-type]
        async with asyncio.timeout(1):
            again = reports.keep_fresh("uid", seen())
            await asyncio.sleep(0)
        reading = reports.reading("uid")
        await reports.close()
        return again, reading

    assert in_virtual_time(plan()) == (0.25, None)


def test_an_mlflow_that_is_down_is_a_reading_that_says_so() -> None:
    class Down(MLflow):
        async def find_run(self, *_: Any, **__: Any) -> RunReport:
            raise Unreachable("no answer")

    async def reading() -> Any:
        reports = Reports(Down(), 30)  # type: ignore[arg-type]
        reports.keep_fresh("uid", seen())
        await reports.settle()
        return reports.reading("uid")

    found = asyncio.run(reading())
    assert (found.report, found.error) == (None, "no answer")


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
