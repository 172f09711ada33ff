"""What a training writes to MLflow, the operator reads: both ends held to a real MLflow server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from headrace.api import reports
from headrace.base.jsonfile import write_json
from headrace.tracking import Reporter, TrackedRun, registry, service, ui
from headrace_operators.mlflow import MLflow, NotThere
from headrace_testbed.processes import free_port

T = TypeVar("T")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server of this module's own, which is the tracking store meanwhile."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(place))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_json(place / "mlflow" / "ui.json", {"port": free_port()})
        address = ui.start().address
        patch.setenv("MLFLOW_TRACKING_URI", address)
        try:
            yield address
        finally:
            patch.delenv("MLFLOW_TRACKING_URI")
            ui.stop()
            service.stop()


def ask(call: Callable[[MLflow], Awaitable[T]]) -> T:
    async def run() -> T:
        mlflow = MLflow({})
        try:
            return await call(mlflow)
        finally:
            await mlflow.close()

    return asyncio.run(run())


def test_what_a_run_reports_is_read(server: str) -> None:
    run = TrackedRun.open("digits-aaaa2222", "digits")
    run.set_tags(
        {
            reports.ATTEMPT_TAG: "1.2",
            reports.CHECKPOINT_URI_TAG: "s3://bucket/checkpoints/4",
            reports.CHECKPOINT_EPOCH_TAG: "4",
            reports.PACKAGE_URI_TAG: "s3://bucket/packages/p",
            reports.CPU_SECONDS_TAG: "12.5",
            reports.GPU_SECONDS_TAG: "0",
        }
    )
    reporter = Reporter(run.tracking_uri, run.mlflow_run_id)
    for epoch in (0, 1):
        reporter.log_epoch(epoch, {"train.loss": 1.0 / (epoch + 1), "train.nothing": float("nan")})
    reporter.close()
    found = ask(lambda mlflow: mlflow.find_run(server, "digits-aaaa2222"))
    assert found is not None
    assert (found.mlflow_run_id, found.attempt, found.checkpoint_epoch) == (run.mlflow_run_id, "1.2", 4)
    assert (found.checkpoint_uri, found.package_uri) == ("s3://bucket/checkpoints/4", "s3://bucket/packages/p")
    assert (found.cpu_seconds, found.gpu_seconds, found.metrics["train.loss"]) == (12.5, 0.0, 0.5)
    assert "train.nothing" not in found.metrics
    assert found == ask(lambda mlflow: mlflow.find_run(server, "digits-aaaa2222", mlflow_run_id=found.mlflow_run_id))


def test_a_run_that_is_not_there_is_none(server: str) -> None:
    assert ask(lambda mlflow: mlflow.find_run(server, "other-aaaa2222")) is None
    assert ask(lambda mlflow: mlflow.find_run(server, "other-aaaa2222", mlflow_run_id="0" * 32)) is None


def test_versions_are_found_by_number_and_alias_and_missing_ones_are_named(server: str) -> None:
    made = registry.register("digits", package_uri="s3://bucket/packages/p", package_sha256="ab" * 32)
    registry.set_alias("digits", "champion", made.version)
    by_alias = ask(lambda mlflow: mlflow.resolve(server, "digits", alias="champion"))
    assert by_alias == ask(lambda mlflow: mlflow.resolve(server, "digits", version=made.version))
    assert (by_alias.version, by_alias.package_uri) == (made.version, "s3://bucket/packages/p")
    for missing in ({"alias": "shadow"}, {"version": "99"}):
        with pytest.raises(NotThere, match="MLflow has no model 'digits'"):
            ask(lambda mlflow, missing=missing: mlflow.resolve(server, "digits", **missing))
    with pytest.raises(NotThere, match="MLflow has no model 'nothing'"):
        ask(lambda mlflow: mlflow.resolve(server, "nothing", alias="champion"))
