"""One MLflow run for one Headrace run, whatever dies in between.

The MLflow run is found by its tag `headrace.run_id`; a restarted step, driver or attempt goes on in it. Everything here
may be done twice: what is there already is left alone. Every write first calls the fence it was opened with, so that a
superseded attempt cannot write.
"""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.base.locks import file_lock
from headrace.tracking import facts
from headrace.tracking.connection import (
    Check,
    artifact_root,
    client,
    is_server,
    lock_path,
    me,
    no_check,
    tracking_uri,
    translated,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

RUN_ID_TAG = "headrace.run_id"
SYSTEM_METRICS_SECONDS = 5.0  # between two samples: short runs get some points, a day gets 17,000 rows a metric

Status = Literal["FINISHED", "FAILED", "KILLED"]


class TrackedRun:
    """A Headrace run's one MLflow run. Made by `open`."""

    def __init__(self, run_id: str, run: Run, client: MlflowClient, uri: str, check: Check) -> None:
        self.run_id = run_id
        self.mlflow_run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.tracking_uri = uri
        self._client = client
        self._check = check
        self._monitor: SystemMetricsMonitor | None = None
        self._test_dataset: facts.DatasetFacts | None = None

    @classmethod
    def open(
        cls,
        run_id: str,
        experiment: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        check: Check = no_check,
        uri: str | None = None,
    ) -> TrackedRun:
        """Find the MLflow run of RUN_ID in EXPERIMENT, or create it; either way it is RUNNING afterwards.

        Args:
            run_id: the Headrace run; also the MLflow run's name.
            experiment: the experiment's name, created if need be.
            tags: `headrace.*` and `mlflow.*` tags; None values are left out.
            check: raises Superseded once a newer attempt owns the run.
            uri: the tracking URI; default: this machine's.

        Raises:
            Unavailable: MLflow cannot be reached.
        """
        uri = uri or tracking_uri()
        mlflow = client(uri)
        wanted = {RUN_ID_TAG: run_id, **_default_tags(), **{k: v for k, v in (tags or {}).items() if v is not None}}
        wanted = {facts.key_of(key): facts.shorten(str(value), facts.LONGEST_TAG) for key, value in wanted.items()}
        with translated(uri), file_lock(lock_path(f"mlflow-run-{run_id}"), holder=me()):
            experiment_id = _experiment(mlflow, experiment, uri)
            found = _find(mlflow, experiment_id, run_id)
            check()
            if found is None:
                found = mlflow.create_run(experiment_id, run_name=run_id, tags=wanted)
                if is_server(uri):  # the lock is this machine's only: of two runs made at once the older one counts
                    found = _settle(mlflow, experiment_id, run_id, found)
            else:
                _resume(mlflow, found, wanted)
        return cls(run_id, found, mlflow, uri, check)

    # facts of the run

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Set tags; None values are left out."""
        from mlflow.entities import RunTag

        self._check()
        listed = [
            RunTag(facts.key_of(k), facts.shorten(str(v), facts.LONGEST_TAG)) for k, v in tags.items() if v is not None
        ]
        with translated(self.tracking_uri):
            for batch in facts.batches(listed, facts.PARAMS_PER_BATCH):
                self._client.log_batch(self.mlflow_run_id, tags=batch)

    def log_params(self, record: Mapping[str, Any]) -> None:
        """Log a spec record as parameters, and whole as the artifact `spec.json`.

        MLflow never changes a parameter. One that has another value by now keeps the first, and the tag
        `headrace.changed_params` holds both.
        """
        from mlflow.entities import Param

        self._check()
        wanted = facts.params(record)
        with translated(self.tracking_uri):
            there = dict(self._client.get_run(self.mlflow_run_id).data.params)
            new = [Param(key, value) for key, value in wanted.items() if key not in there]
            for batch in facts.batches(new, facts.PARAMS_PER_BATCH):
                self._client.log_batch(self.mlflow_run_id, params=batch)
            self._client.log_dict(self.mlflow_run_id, dict(record), "spec.json")
        if differing := facts.changed(there, wanted):
            self.set_tags({"headrace.changed_params": json.dumps(differing, ensure_ascii=False, sort_keys=True)})

    def log_dataset(
        self,
        name: str,
        fingerprint: str,
        schema: Mapping[str, Any],
        counts: Mapping[str, Any],
        source: str,
        *,
        sample: str = "image",
    ) -> None:
        """Log a split as dataset inputs, one for each side that has samples.

        Args:
            name: the dataset's name, usually the spec's.
            fingerprint: the split's; its first 36 characters are the digest.
            schema: a Schema record.
            counts: for each of train, validation, test: a number of samples, or numbers by class.
            source: where the data came from, as the spec has it.
            sample: what a sample is where there are no columns.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self._check()
        sides = facts.datasets(name, fingerprint, schema=schema, counts=counts, source=source, sample=sample)
        self._test_dataset = next((side for side in sides if side.context == "testing"), None)
        inputs = [
            DatasetInput(
                Dataset(side.name, side.digest, side.source_type, side.source, side.schema, side.profile),
                [InputTag("mlflow.data.context", side.context)],
            )
            for side in sides
        ]
        with translated(self.tracking_uri):
            self._client.log_inputs(self.mlflow_run_id, datasets=inputs)

    # metrics

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log METRICS at STEP; those that have a point at STEP are left alone."""
        self._log(metrics, step=step)

    def log_test_metrics(self, metrics: Mapping[str, float], *, model_id: str | None = None, step: int = 0) -> None:
        """Log the test split's METRICS as `test.<name>`, tied to the logged model and the test dataset, if any."""
        self._log({f"test.{name}": value for name, value in metrics.items()}, step=step, model_id=model_id)

    def _log(self, metrics: Mapping[str, float], *, step: int, model_id: str | None = None) -> None:
        from mlflow.entities import Metric

        self._check()
        now = int(time.time() * 1000)
        dataset = self._test_dataset if model_id else None
        with translated(self.tracking_uri):
            missing = {
                key: value
                for key, value in facts.finite(metrics).items()
                if step not in logged_steps(self._client, self.mlflow_run_id, key)
            }
            points = [
                Metric(
                    key,
                    value,
                    now,
                    step,
                    model_id=model_id,
                    dataset_name=dataset.name if dataset else None,
                    dataset_digest=dataset.digest if dataset else None,
                )
                for key, value in missing.items()
            ]
            for batch in facts.batches(points, facts.METRICS_PER_BATCH):
                self._client.log_batch(self.mlflow_run_id, metrics=batch)

    def start_system_metrics(self) -> None:
        """Sample this machine's CPU, memory, disk, network and GPUs until `finish` (MLflow's `system/*` metrics).

        A resumed run goes on after its last sample.
        """
        if self._monitor is not None:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self.mlflow_run_id,
            sampling_interval=SYSTEM_METRICS_SECONDS,
            resume_logging=True,
            tracking_uri=self.tracking_uri,
        )
        self._monitor.start()

    def stop_system_metrics(self) -> None:
        """End the sampling, if there is any."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    # files

    def log_pictures(self, folder: str | Path) -> list[str]:
        """Log every PNG below FOLDER as `plots/<file name>`; returns the artifact paths."""
        self._check()
        pictures = sorted(Path(folder).rglob("*.png"))
        with translated(self.tracking_uri):
            for picture in pictures:
                self._client.log_artifact(self.mlflow_run_id, str(picture), "plots")
        return [f"plots/{picture.name}" for picture in pictures]

    def log_text(self, text: str, path: str) -> None:
        """Log TEXT as the artifact PATH."""
        self._check()
        with translated(self.tracking_uri):
            self._client.log_text(self.mlflow_run_id, text, path)

    def log_package(self, folder: str | Path, sha256: str) -> Any:
        """Log the package in FOLDER as an MLflow model; see `headrace.tracking.models.log_package`."""
        from headrace.tracking.models import log_package

        return log_package(self, Path(folder), sha256)

    # the end

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run with STATUS."""
        self.stop_system_metrics()
        self._check()
        with translated(self.tracking_uri):
            self._client.set_terminated(self.mlflow_run_id, status)

    # for the other modules of this package

    @property
    def mlflow(self) -> MlflowClient:
        """The client."""
        return self._client

    def fence(self) -> None:
        """Raise Superseded if a newer attempt owns the run."""
        self._check()


def logged_steps(mlflow: MlflowClient, mlflow_run_id: str, key: str) -> set[int]:
    """The steps at which the run has a point of the metric KEY."""
    return {point.step for point in mlflow.get_metric_history(mlflow_run_id, key)}


def _default_tags() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "headrace"}
    with suppress(OSError, KeyError):  # a container may have no name for its user
        tags["mlflow.user"] = getpass.getuser()
    with suppress(PackageNotFoundError):
        tags["headrace.version"] = version("headrace")
    return tags


def _experiment(mlflow: MlflowClient, name: str, uri: str) -> str:
    """The id of the experiment NAME, created, or taken back from the bin, if need be."""
    from mlflow.exceptions import MlflowException

    with file_lock(lock_path("mlflow-experiments"), holder=me()):
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            root = artifact_root(uri)
            try:
                return str(mlflow.create_experiment(name, artifact_location=root and f"{root}/{_safe(name)}"))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = mlflow.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            mlflow.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def _safe(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "-" for character in name)


def _find(mlflow: MlflowClient, experiment_id: str, run_id: str) -> Run | None:
    """The oldest live MLflow run of RUN_ID."""
    found = mlflow.search_runs(
        [experiment_id],
        filter_string=f"tags.`{RUN_ID_TAG}` = '{run_id}'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        max_results=1,
    )
    return found[0] if found else None


def _settle(mlflow: MlflowClient, experiment_id: str, run_id: str, made: Run) -> Run:
    """Of runs that two machines made at once all keep the oldest; whoever made another deletes it."""
    kept = _find(mlflow, experiment_id, run_id) or made
    if kept.info.run_id != made.info.run_id:
        mlflow.delete_run(made.info.run_id)
    return kept


def _resume(mlflow: MlflowClient, run: Run, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    mlflow.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    if run.info.status != "RUNNING":
        mlflow.update_run(run.info.run_id, status="RUNNING")


def find_run(run_id: str, *, uri: str | None = None) -> dict[str, str] | None:
    """The MLflow run of the Headrace run RUN_ID in any experiment: its ids and tracking URI, or None.

    Raises:
        Unavailable: MLflow cannot be reached.
    """
    uri = uri or tracking_uri()
    mlflow = client(uri)
    with translated(uri):
        for page in _pages_of_experiments(mlflow):
            found = mlflow.search_runs(page, filter_string=f"tags.`{RUN_ID_TAG}` = '{run_id}'", max_results=1)
            if found:
                info = found[0].info
                return {"tracking_uri": uri, "experiment_id": info.experiment_id, "run_id": info.run_id}
    return None


def _pages_of_experiments(mlflow: MlflowClient) -> Any:
    token: str | None = None
    while True:
        page = mlflow.search_experiments(max_results=500, page_token=token)
        if page:
            yield [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            return
