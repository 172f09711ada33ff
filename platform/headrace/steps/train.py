"""The train step: a trained and measured model, of which only that is done anew which is not in the store.

A training is looked up by what it reads, an evaluation by package and split. So a changed epoch count trains again, a
new champion costs an evaluation, and a resumed run goes on in the same MLflow run from its newest checkpoint.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headrace.base import events
from headrace.base.errors import Cancelled, HeadraceError
from headrace.base.jsonfile import read_json
from headrace.steps.keys import evaluation_uri
from headrace.steps.step import Artifact, Outcome, Step, describe, run_step, site_here, uri_of
from headrace.steps.trained import MARKER, Trained, Version, find_champion
from headrace.store.step_files import read_note, write_note

if TYPE_CHECKING:
    from headrace.local.resources import Demand
    from headrace.store import Store
    from headrace.training import TrainingResult

INIT_TAG = "headrace.init_from"


class Run(Protocol):
    """The MLflow run of this training, as `headrace.tracking.TrackedRun` is."""

    mlflow_run_id: str

    @property
    def reserved_seconds(self) -> tuple[float, float]:
        """CPU and GPU seconds that earlier attempts' workers held."""

    def to_record(self) -> dict[str, str]:
        """The record's `mlflow` part."""

    def log_test_metrics(self, metrics: Mapping[str, float], *, package: Any = None) -> None:
        """Log the test split's metrics."""

    def log_pictures(self, folder: str | Path) -> list[str]:
        """Log the pictures in a folder."""

    def log_package(self, folder: str | Path, sha256: str) -> Any:
        """Log the package as a model."""

    def log_text(self, text: str, path: str) -> None:
        """Log a text as an artifact."""

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Set tags."""

    def finish(self, status: Any = ...) -> None:
        """End it."""


@dataclass(frozen=True)
class TrainTools:
    """What the step needs of the rest of the platform.

    champion: the version that a reference names, or None.
    open_run: the MLflow run of a step, made or found, with the facts of the spec.
    workers: the connection to a Ray head and the number of workers that it has room for, held for a block.
    train: `headrace.training.run_training`.
    """

    champion: Callable[[str], Version | None]
    open_run: Callable[[Step, str], Run]
    workers: Callable[[Step, Mapping[str, Any]], AbstractContextManager[tuple[Any, Demand]]]
    train: Callable[..., TrainingResult]


def train(
    train_spec: str,
    split_fingerprint: str,
    champion: str,
    run_id: str,
    attempt: str,
    model: Artifact | None = None,
    metrics: Any = None,
) -> str:
    """Train and evaluate; returns the URI of the step's result.

    Args:
        train_spec: URI of the canonical JSON.
        champion: reference of the version to measure beside the new one ("digits@champion"), "" for none.
        model: Kubeflow's output artifact of the package.
        metrics: Kubeflow's output artifact of the test metrics.
    """

    def body(step: Step) -> Outcome:
        outcome = _train_here(step, step.part(train_spec), split_fingerprint, champion)
        values = outcome.values
        describe(model, values["package_uri"], sha256=values["package_sha256"], mlflow_model=values.get("model_uri"))
        describe(metrics, values["evaluation_uri"], **values["metrics"])
        return outcome

    return uri_of(run_step("train", run_id, attempt, body))


def _train_here(step: Step, part: Mapping[str, Any], split_fingerprint: str, champion: str) -> Outcome:
    site = site_here()
    if site is not None:
        from headrace.steps.cluster_train import cluster_train

        return cluster_train(step, part, split_fingerprint, champion, site)
    from headrace.steps.train_tools import local_tools, local_tune_tools

    if part.get("tune") is not None:
        from headrace.steps.tune import TuneStep

        return TuneStep(step, local_tools(), local_tune_tools(), part, split_fingerprint, champion).run()
    return TrainStep(step, local_tools(), part, split_fingerprint, champion).run()


class TrainStep(Trained):
    """One train step: `run` looks up, does what is missing, and gives the facts."""

    def __init__(
        self, step: Step, tools: TrainTools, part: Mapping[str, Any], split_fingerprint: str, champion: str
    ) -> None:
        super().__init__(step, part, split_fingerprint)
        self.tools = tools
        self.champion_reference = champion
        self.parts: dict[str, float] = {}  # seconds by what they were spent on

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.parts[name] = round(time.monotonic() - began, 3)

    def run(self) -> Outcome:
        """The step's body."""
        known = self.known()
        if known is None:
            self.require_watched()
        champion = find_champion(self.step, self.tools.champion, self.champion_reference)
        missing = self.unmeasured(known, champion)
        if known is not None and not missing:
            known = self._tracked(known)
            return Outcome(self.values(known, champion, self.parts), "cached", "this was trained before")
        champion_uris = [uri for uri in missing if known is None or uri != known["package_uri"]]
        if known is None:
            known, errors = self._train(champion_uris)
        else:
            self.step.message("this was trained before; only the test split is measured")
            errors = self._call(champion_uris, train_needed=False, package_uri=known["package_uri"]).evaluation_errors
            known = self._tracked(known)
        if champion is not None and champion["package_uri"] in errors:
            champion["error"] = errors[champion["package_uri"]]
        return Outcome(self.values(known, champion, self.parts))

    # what is missing

    def _train(self, champions: Sequence[str]) -> tuple[dict[str, Any], Mapping[str, str]]:
        with self._timed("open_mlflow_run"):
            run = self.tools.open_run(self.step, self.split_fingerprint)
        write_note(self.step.store, self.step.run_id, "mlflow", run.to_record())
        try:
            result, facts = self.fit(champions, run)
            known = {
                **facts,
                "package_uri": result.package_uri,
                "package_sha256": result.package_sha256,
                "epochs_done": result.epochs_done,
                "best_epoch": result.best_epoch,
                "mlflow": run.to_record(),
                "model_uri": None,
                "model_id": None,
            }
            self.step.remember(self.key, known)
            with self._timed("log_model"):
                known = self._log_model(run, known)
        except BaseException as error:
            with suppress(HeadraceError):
                run.finish("KILLED" if isinstance(error, (KeyboardInterrupt, Cancelled)) else "FAILED")
            raise
        return known, result.evaluation_errors

    def fit(self, champions: Sequence[str], run: Run) -> tuple[TrainingResult, dict[str, Any]]:
        """The trained model, measured beside the packages CHAMPIONS, and what else is to be told of how it came."""
        return self._call(champions, train_needed=True, run=run), {}

    def _call(
        self,
        champions: Sequence[str],
        *,
        train_needed: bool,
        package_uri: str | None = None,
        run: Run | None = None,
        part: Mapping[str, Any] | None = None,
        checkpoints_uri: str | None = None,
    ) -> TrainingResult:
        part = part or self.part
        step = self.step
        mlflow: dict[str, Any] = {}
        if run is not None:
            mlflow = {"tracking_uri": run.to_record()["tracking_uri"], "mlflow_run_id": run.mlflow_run_id}
            mlflow["reserved_seconds"] = run.reserved_seconds
        began = time.monotonic()
        with self.tools.workers(step, part["train"]) as (connection, demand):
            self.parts["head_and_turn"] = round(time.monotonic() - began, 3)
            step.check()
            result = self.tools.train(
                training_request(
                    step,
                    part,
                    self.split_fingerprint,
                    demand,
                    checkpoints_uri=checkpoints_uri,
                    train_needed=train_needed,
                    package_uri=package_uri,
                    evaluate=tuple(champions),
                    **mlflow,
                ),
                connection=connection,
            )
        self.parts.update(result.seconds)
        return result

    # MLflow

    def _tracked(self, known: dict[str, Any]) -> dict[str, Any]:
        """KNOWN with its logged model; a run that was killed between training and logging has none yet."""
        if known["model_uri"] is not None or known.get("run_id") != self.step.run_id:
            return known
        run = self.tools.open_run(self.step, self.split_fingerprint)
        return self._log_model(run, known)

    def _log_model(self, run: Run, known: dict[str, Any]) -> dict[str, Any]:
        store, sha256 = self.step.store, known["package_sha256"]
        evaluation = self.required_evaluation(sha256)
        with local_folder(store, known["package_uri"]) as folder:
            logged = run.log_package(folder, sha256)
            _log_init(run, folder)
        run.log_test_metrics(evaluation["metrics"], package=logged)
        plots = evaluation_uri(store.uri, sha256, self.split_fingerprint).removesuffix(".json")
        if store.exists(plots):
            with local_folder(store, plots) as folder:
                run.log_pictures(folder)
        run.finish("FINISHED")
        known = {**known, "model_uri": logged.model_uri, "model_id": logged.model_id}
        self.step.remember(self.key, known)
        return known


def _log_init(run: Run, package: Path) -> None:
    """Log what the PACKAGE says was taken of `model.init_from`: a tag in one line, and all names as a file."""
    taken = ((read_json(package / MARKER) or {}).get("provenance") or {}).get("init_from")
    if taken:
        run.set_tags({INIT_TAG: taken["told"]})
        run.log_text(json.dumps(taken, indent=2), "init_from.json")


def training_request(
    step: Step,
    part: Mapping[str, Any],
    split_fingerprint: str,
    demand: Demand,
    *,
    checkpoints_uri: str | None = None,
    **rest: Any,
) -> Any:
    """The request for this step's training or evaluation; its checkpoints are the run's, unless said otherwise."""
    from headrace.training import TrainingRequest

    origin = read_note(step.store, step.run_id, "origin") or {}
    return TrainingRequest(
        run_id=step.run_id,
        attempt=step.attempt,
        train=part,
        split_fingerprint=split_fingerprint,
        store_url=step.store.url,
        checkpoints_uri=checkpoints_uri or step.store.uri("runs", step.run_id, "checkpoints"),
        provenance={
            "run_id": step.run_id,
            "split_fingerprint": split_fingerprint,
            **{key: origin.get(key) for key in ("spec_sha256", "spec_version", "git")},
        },
        events_path=os.environ.get(events.VARIABLE),
        workers=(demand.least, demand.most),
        gpus_per_worker=int(demand.gpus_per_worker),
        cpus_per_worker=int(demand.cpus_per_worker),
        **rest,
    )


@contextmanager
def local_folder(store: Store, uri: str) -> Iterator[Path]:
    """A folder of the store as a local one for a block: itself on a laptop, a copy of the same name elsewhere."""
    if store.local:
        yield Path(store.path(uri))
        return
    with tempfile.TemporaryDirectory(prefix="headrace-") as copy:
        yield store.get_folder(uri, Path(copy) / uri.rstrip("/").rsplit("/", 1)[-1])
