"""What is done to MLflow runs, as functions of plain values that `headrace.tracking.calls` calls by name.

Everything here may be done twice: what is there already is left alone.
"""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.api.reports import RUN_ID_TAG
from headrace.base.locks import file_lock
from headrace.base.processes import ProcessRef
from headrace.tracking import facts, system_metrics
from headrace.tracking.connection import artifact_root, is_server, lock_path, me

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI shows training, not prompts


def ping(mlflow: MlflowClient, _uri: str) -> None:
    """Read something, to know that the store answers."""
    mlflow.search_experiments(max_results=1)


def open_run(
    mlflow: MlflowClient, uri: str, *, run_id: str, experiment: str, tags: Mapping[str, str]
) -> dict[str, Any]:
    """Find the MLflow run of RUN_ID in EXPERIMENT, or create it; it is RUNNING afterwards."""
    wanted = facts.tags({RUN_ID_TAG: run_id, **_default_tags(), **tags})
    with file_lock(lock_path(f"mlflow-run-{run_id}"), holder=me()):
        experiment_id = _experiment(mlflow, experiment, uri)
        found = _find(mlflow, experiment_id, run_id)
        created = found is None
        if found is None:
            found = mlflow.create_run(experiment_id, run_name=run_id, tags=wanted)
            if is_server(uri):  # the lock is this machine's only
                found = _settle(mlflow, experiment_id, run_id, found)
        else:
            _resume(mlflow, found, wanted)
    before = {} if created else {key: value for key, value in found.data.tags.items() if key.startswith("headrace.")}
    return {"mlflow_run_id": found.info.run_id, "experiment_id": experiment_id, "created": created, "tags": before}


def find_run(mlflow: MlflowClient, uri: str, *, run_id: str) -> dict[str, str] | None:
    """The MLflow run of RUN_ID in any experiment, or None."""
    for experiments in _experiment_ids(mlflow):
        query = f"tags.`{RUN_ID_TAG}` = '{run_id}'"
        found = mlflow.search_runs(experiments, filter_string=query, max_results=1)
        if found:
            info = found[0].info
            return {"tracking_uri": uri, "experiment_id": info.experiment_id, "run_id": info.run_id}
    return None


def set_tags(mlflow: MlflowClient, _uri: str, *, mlflow_run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    from mlflow.entities import RunTag

    listed = [RunTag(key, value) for key, value in facts.tags(tags).items()]
    for batch in facts.batches(listed, facts.PARAMS_PER_BATCH):
        mlflow.log_batch(mlflow_run_id, tags=batch)


def log_params(mlflow: MlflowClient, uri: str, *, mlflow_run_id: str, record: Mapping[str, Any]) -> None:
    """Log a spec record as parameters, and whole as the artifact `spec.json`."""
    from mlflow.entities import Param

    wanted = facts.params(record)
    there = dict(mlflow.get_run(mlflow_run_id).data.params)
    new = [Param(key, value) for key, value in wanted.items() if key not in there]
    for batch in facts.batches(new, facts.PARAMS_PER_BATCH):
        mlflow.log_batch(mlflow_run_id, params=batch)
    mlflow.log_dict(mlflow_run_id, dict(record), "spec.json")
    if differing := facts.changed(there, wanted):
        text = json.dumps(differing, ensure_ascii=False, sort_keys=True)
        set_tags(mlflow, uri, mlflow_run_id=mlflow_run_id, tags={"headrace.changed_params": text})


def log_datasets(mlflow: MlflowClient, _uri: str, *, mlflow_run_id: str, datasets: Sequence[Mapping[str, str]]) -> None:
    """Log dataset inputs (DatasetFacts as mappings)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(side["name"], side["digest"], side["source_type"], side["source"], side["schema"], side["profile"]),
            [InputTag("mlflow.data.context", side["context"])],
        )
        for side in datasets
    ]
    mlflow.log_inputs(mlflow_run_id, datasets=inputs)


def log_points(
    mlflow: MlflowClient,
    _uri: str,
    *,
    mlflow_run_id: str,
    points: Sequence[tuple[str, int, float, int]],
    model_id: str | None = None,
    dataset: tuple[str, str] | None = None,
) -> int:
    """Log metric points (key, step, value, milliseconds) except at steps where their metric has one; how many were new.

    MODEL_ID ties them to a logged model, DATASET (name, digest) to one of the run's inputs.
    """
    from mlflow.entities import Metric

    there = {
        key: {point.step for point in mlflow.get_metric_history(mlflow_run_id, key)}
        for key in {key for key, *_ in points}
    }
    new: dict[tuple[str, int], Metric] = {}
    name, digest = dataset or (None, None)
    for key, step, value, milliseconds in points:
        if step not in there[key]:
            metric = Metric(key, value, milliseconds, step, model_id=model_id, dataset_name=name, dataset_digest=digest)
            new.setdefault((key, step), metric)
    for batch in facts.batches(list(new.values()), facts.METRICS_PER_BATCH):
        mlflow.log_batch(mlflow_run_id, metrics=batch)
    return len(new)


def log_pictures(mlflow: MlflowClient, _uri: str, *, mlflow_run_id: str, folder: str) -> list[str]:
    """Log every PNG and GIF below FOLDER as `plots/<file name>`."""
    pictures = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".png", ".gif"))
    for picture in pictures:
        mlflow.log_artifact(mlflow_run_id, str(picture), "plots")
    return [f"plots/{picture.name}" for picture in pictures]


def log_text(mlflow: MlflowClient, _uri: str, *, mlflow_run_id: str, text: str, path: str) -> None:
    """Log TEXT as the artifact PATH."""
    mlflow.log_text(mlflow_run_id, text, path)


def start_system_metrics(_mlflow: MlflowClient, uri: str, *, mlflow_run_id: str, owner: dict[str, Any]) -> None:
    """Sample the machine for a run until `stop_system_metrics`, or until the process OWNER is gone."""
    process = ProcessRef.from_record(owner)
    if process is not None:
        system_metrics.start(uri, mlflow_run_id, process)


def stop_system_metrics(_mlflow: MlflowClient, _uri: str, *, mlflow_run_id: str) -> None:
    """End the sampling for a run, if there is any."""
    system_metrics.stop(mlflow_run_id)


def finish_run(mlflow: MlflowClient, _uri: str, *, mlflow_run_id: str, status: str) -> None:
    """End the sampling and the run."""
    system_metrics.stop(mlflow_run_id)
    mlflow.set_terminated(mlflow_run_id, status, end_time=int(time.time() * 1000))


def _default_tags() -> dict[str, str]:
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
            location = None if root is None else f"{root}/{facts.folder_name(name)}"
            try:
                return str(mlflow.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
            except MlflowException as error:
                found = mlflow.get_experiment_by_name(name)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            mlflow.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


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


def _experiment_ids(mlflow: MlflowClient) -> Iterator[list[str]]:
    token: str | None = None
    while True:
        page = mlflow.search_experiments(max_results=500, page_token=token)
        if page:
            yield [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            return
