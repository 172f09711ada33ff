"""One MLflow run for one Headrace run, whatever dies in between.

The MLflow run is found by its tag `headrace.run_id`; a restarted step, driver or attempt goes on in it. Every method
may be called twice. Every write first calls the fence that the run was opened with: a superseded attempt cannot write.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from headrace.api.reports import CPU_SECONDS_TAG, GPU_SECONDS_TAG
from headrace.base.errors import InvalidInput
from headrace.base.processes import ProcessRef
from headrace.tracking import facts
from headrace.tracking.calls import Check, call, no_check
from headrace.tracking.connection import tracking_uri

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class LoggedPackage:
    """A package as MLflow's logged model: its `models:/m-...` URI and its id."""

    model_uri: str
    model_id: str


class TrackedRun:
    """A Headrace run's one MLflow run. Made by `open`."""

    def __init__(
        self,
        run_id: str,
        *,
        mlflow_run_id: str,
        experiment_id: str,
        uri: str,
        check: Check,
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.run_id = run_id
        self.mlflow_run_id = mlflow_run_id
        self.experiment_id = experiment_id
        self.tracking_uri = uri
        self._check = check
        self.tags = dict(tags)  # Headrace's own, as earlier attempts left them
        self._test_dataset: tuple[str, str] | None = None

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
            experiment: the experiment's name (the spec's), created if need be.
            tags: `headrace.*` and `mlflow.*` tags; None values are left out.
            check: raises Superseded once a newer attempt owns the run; called before every write.
            uri: the tracking URI; default: this machine's.

        Raises:
            Unavailable: MLflow cannot be reached.
        """
        uri = uri or tracking_uri()
        check()
        ids = call("open_run", uri, run_id=_checked(run_id), experiment=experiment, tags=facts.tags(tags or {}))
        return cls(
            run_id,
            mlflow_run_id=ids["mlflow_run_id"],
            experiment_id=ids["experiment_id"],
            uri=uri,
            check=check,
            tags=ids["tags"],
        )

    def to_record(self) -> dict[str, str]:
        """The `mlflow` part of a run's JSON (DESIGN §5)."""
        return {
            "tracking_uri": self.tracking_uri,
            "experiment_id": self.experiment_id,
            "run_id": self.mlflow_run_id,
        }

    @property
    def reserved_seconds(self) -> tuple[float, float]:
        """CPU and GPU seconds that earlier attempts' workers held."""
        return facts.number(self.tags.get(CPU_SECONDS_TAG)), facts.number(self.tags.get(GPU_SECONDS_TAG))

    # facts of the run

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Set tags; None values are left out."""
        self._write("set_tags", tags=facts.tags(tags))

    def log_params(self, record: Mapping[str, Any]) -> None:
        """Log a spec record as parameters, and whole as the artifact `spec.json`.

        MLflow never changes a parameter: one that has another value by now keeps its first, and the tag
        `headrace.changed_params` holds both.
        """
        self._write("log_params", record=dict(record))

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
        sides = facts.datasets(name, fingerprint, schema=schema, counts=counts, source=source, sample=sample)
        self._write("log_datasets", datasets=[asdict(side) for side in sides])
        self._test_dataset = next(((side.name, side.digest) for side in sides if side.context == "testing"), None)

    # metrics

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log METRICS at STEP; a metric that has a point at STEP is left alone."""
        self._points(metrics, step)

    def log_test_metrics(self, metrics: Mapping[str, float], *, package: LoggedPackage | None = None) -> None:
        """Log the test split's METRICS as `test.<name>`, tied to the logged package and to the test dataset."""
        named = {f"test.{name}": value for name, value in metrics.items()}
        if package is None:
            self._points(named, 0)
        else:
            self._points(named, 0, model_id=package.model_id, dataset=self._test_dataset)

    def _points(self, metrics: Mapping[str, float], step: int, **ties: Any) -> None:
        now = int(time.time() * 1000)
        points = [(key, step, value, now) for key, value in facts.finite(metrics).items()]
        self._write("log_points", points=points, **ties)

    def start_system_metrics(self) -> None:
        """Sample this machine's CPU, memory, disk, network and GPUs while this process lives, until `finish`."""
        self._write("start_system_metrics", owner=ProcessRef.current().to_record())

    def stop_system_metrics(self) -> None:
        """End the sampling, if there is any."""
        call("stop_system_metrics", self.tracking_uri, mlflow_run_id=self.mlflow_run_id)

    # files

    def log_pictures(self, folder: str | Path) -> list[str]:
        """Log every PNG and GIF below FOLDER as the artifact `plots/<file name>`; returns the artifact paths."""
        return list(self._write("log_pictures", folder=str(Path(folder).absolute())))

    def log_text(self, text: str, path: str) -> None:
        """Log TEXT as the artifact PATH."""
        self._write("log_text", text=text, path=path)

    def log_package(self, folder: str | Path, sha256: str, *, name: str = "model") -> LoggedPackage:
        """Log the package in the local FOLDER as an MLflow model that `mlflow models serve` can serve.

        With the package's signature and example, through `headrace_models.package.mlflow_loader`; nothing is pickled.
        The same package is logged once a run.
        """
        return LoggedPackage(
            **self._write(
                "log_package",
                experiment_id=self.experiment_id,
                folder=str(Path(folder).absolute()),
                sha256=sha256,
                model_name=name,
            )
        )

    # the end

    def finish(self, status: Status = "FINISHED") -> None:
        """End the sampling and the run, with STATUS."""
        self._write("finish_run", status=status)

    def _write(self, operation: str, **arguments: Any) -> Any:
        self._check()
        return call(operation, self.tracking_uri, mlflow_run_id=self.mlflow_run_id, **arguments)


def find_run(run_id: str, *, uri: str | None = None) -> dict[str, str] | None:
    """The MLflow run of the Headrace run RUN_ID in any experiment, as TrackedRun.to_record gives it, or None.

    Raises:
        Unavailable: MLflow cannot be reached.
    """
    found: dict[str, str] | None = call("find_run", uri or tracking_uri(), run_id=_checked(run_id))
    return found


def _checked(run_id: str) -> str:
    if not re.fullmatch(r"[\w.-]+", run_id):
        raise InvalidInput(f"{run_id!r} is no run id", action="list the runs with: headrace runs")
    return run_id
