"""MLflow as the operators use it: over its REST API, to read what runs report and which version an alias names.

The `mlflow` package stays out of the operator (size, memory), and the operator never writes to MLflow.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from headrace.api.reports import PACKAGE_SHA256_TAG, PACKAGE_URI_TAG, RUN_ID_TAG
from headrace_operators.mlflow_rest import NotThere, Rest, Unreachable, shown

__all__ = ["MLflow", "ModelVersion", "NotThere", "RunReport", "Unreachable", "report_of", "shown"]

MOST_METRICS = 64  # what an object's status holds of a run's metrics, the first by name
SYSTEM_METRICS = "system/"  # MLflow's samples of the machine: no results of training
_EXPERIMENTS_PER_PAGE = 500


@dataclass(frozen=True)
class RunReport:
    """What a run's reporter has written so far."""

    mlflow_run_id: str
    experiment_id: str
    attempt: str = ""
    checkpoint_uri: str | None = None
    checkpoint_epoch: int = 0
    package_uri: str | None = None
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVersion:
    """One version of the registry: all that a deployer needs."""

    version: str
    package_uri: str
    package_sha256: str


class MLflow:
    """Reads MLflow servers. One for the whole process: it holds the connections."""

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._rest = Rest(environment, transport=transport)

    async def close(self) -> None:
        """Give the connections back."""
        await self._rest.close()

    async def look(self, tracking_uri: str) -> None:
        """Ask the server for something that needs its database.

        Raises:
            Unreachable: the server cannot be read.
        """
        await self._rest.post(tracking_uri, "experiments/search", {"max_results": 1})

    async def find_run(self, tracking_uri: str, run_id: str, *, mlflow_run_id: str | None = None) -> RunReport | None:
        """What the run RUN_ID has reported, or None where MLflow has no such run yet.

        Args:
            tracking_uri: the server.
            run_id: Headrace's id, found by its tag.
            mlflow_run_id: MLflow's id, if known: one request instead of a search through the experiments.

        Raises:
            Unreachable: the server cannot be read.
        """
        if mlflow_run_id is not None and (known := await self._run(tracking_uri, mlflow_run_id)) is not None:
            return known
        async for experiments in self._experiments(tracking_uri):
            found = await self._rest.post(
                tracking_uri,
                "runs/search",
                {
                    "experiment_ids": experiments,
                    "filter": f"tags.`{RUN_ID_TAG}` = '{run_id}'",
                    "order_by": ["attributes.start_time ASC", "attributes.run_id ASC"],
                    "max_results": 1,
                },
            )
            for run in found.get("runs") or ():
                return report_of(run)
        return None

    async def resolve(
        self, tracking_uri: str, name: str, *, version: str | None = None, alias: str | None = None
    ) -> ModelVersion:
        """The version of the model NAME that has this number, or that this alias points to.

        Raises:
            NotThere: no such model, version or alias, or a version that Headrace did not register.
            Unreachable: the server cannot be read.
        """
        if version is not None:
            path, asked = "model-versions/get", {"name": name, "version": version}
        else:
            path, asked = "registered-models/alias", {"name": name, "alias": alias or ""}
        what = f"model {name!r}, " + (f"version {version}" if version is not None else f"alias {alias!r}")
        found = (await self._rest.get(tracking_uri, path, asked, what)).get("model_version") or {}
        tags = _pairs(found.get("tags"))
        if PACKAGE_URI_TAG not in tags or PACKAGE_SHA256_TAG not in tags:
            raise NotThere(
                f"{what} has no package: its tags {PACKAGE_URI_TAG} and {PACKAGE_SHA256_TAG} are not both set",
                action="name a version that a Headrace run registered",
                code="no-package",
            )
        return ModelVersion(str(found.get("version", "")), tags[PACKAGE_URI_TAG], tags[PACKAGE_SHA256_TAG])

    async def _run(self, tracking_uri: str, mlflow_run_id: str) -> RunReport | None:
        try:
            found = await self._rest.get(tracking_uri, "runs/get", {"run_id": mlflow_run_id}, f"run {mlflow_run_id}")
        except NotThere:
            return None
        run = found.get("run") or {}
        return report_of(run) if (run.get("info") or {}).get("lifecycle_stage", "active") == "active" else None

    async def _experiments(self, tracking_uri: str) -> AsyncIterator[list[str]]:
        token = ""
        while True:
            asked: dict[str, Any] = {"max_results": _EXPERIMENTS_PER_PAGE, "page_token": token}
            page = await self._rest.post(tracking_uri, "experiments/search", asked)
            if experiments := [str(entry["experiment_id"]) for entry in page.get("experiments") or ()]:
                yield experiments
            token = page.get("next_page_token") or ""
            if not token:
                return


def report_of(run: Mapping[str, Any]) -> RunReport:
    """The report of a run as MLflow's REST API gives it."""
    info, data = run.get("info") or {}, run.get("data") or {}
    tags = _pairs(data.get("tags"))
    return RunReport(
        mlflow_run_id=str(info.get("run_id", "")),
        experiment_id=str(info.get("experiment_id", "")),
        attempt=tags.get("headrace.attempt", ""),
        checkpoint_uri=tags.get("headrace.checkpoint_uri") or None,
        checkpoint_epoch=int(_number(tags.get("headrace.checkpoint_epoch"))),
        package_uri=tags.get(PACKAGE_URI_TAG) or None,
        cpu_seconds=_number(tags.get("headrace.cpu_seconds")),
        gpu_seconds=_number(tags.get("headrace.gpu_seconds")),
        metrics=_metrics(data.get("metrics")),
    )


def _metrics(entries: Iterable[Mapping[str, Any]] | None) -> dict[str, float]:
    """Finite numbers only: JSON has no others."""
    found: dict[str, float] = {}
    for entry in sorted(entries or (), key=lambda entry: str(entry.get("key"))):
        name, value = str(entry.get("key")), entry.get("value")
        if not name.startswith(SYSTEM_METRICS) and value is not None and math.isfinite(float(value)):
            found[name] = float(value)
    return dict(list(found.items())[:MOST_METRICS])


def _number(text: str | None) -> float:
    """What a tag says; no number is 0: a tag that somebody edited must not stop a reconcile."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value >= 0 else 0.0


def _pairs(entries: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    return {str(entry["key"]): str(entry.get("value", "")) for entry in entries or ()}
