"""The driver of a TrainingRun's attempt, inside its RayJob: `python -m headrace.steps.training_job`.

The operator starts it by the RayJob's entrypoint and tells it everything by the head's environment. KubeRay runs an
entrypoint again, without a word, on a head that it had to replace; so before anything is touched the driver claims its
attempt for (RayCluster, head pod), and ends when another head holds the claim: counting that failure and making the
next attempt is the operator's. From there on it is the train step of any run: what is in the store is not done again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.api.canonical import to_split_part, to_train_part
from headrace.api.reports import ATTEMPT_TAG, FAILURE_LINE, PACKAGE_URI_TAG
from headrace.api.training_run import TrainingRunSpec
from headrace.base.errors import HeadraceError, InvalidInput, NotEnoughResources, Superseded, error_from_record
from headrace.base.jsonfile import sha256_of
from headrace.steps.split import split_once
from headrace.steps.step import AT_RUN, Outcome, Step, run_step
from headrace.steps.train import Run, TrainStep, TrainTools
from headrace.store import Store
from headrace.store.step_files import read_error, read_note

if TYPE_CHECKING:
    from headrace.local.resources import Demand

_REQUIRED = (
    "HEADRACE_TRAINING_RUN",
    "HEADRACE_RUN_ID",
    "HEADRACE_ATTEMPT",
    "HEADRACE_RAY_CLUSTER",
    "HEADRACE_POD_UID",
    "HEADRACE_STORE",
    "MLFLOW_TRACKING_URI",
    "RAY_ADDRESS",
)


@dataclass(frozen=True)
class Job:
    """What the operator told this driver.

    Args:
        spec: the TrainingRun's spec, as it stands in the object.
        attempt: the pair that every write carries, "n.m": the run's own and the TrainingRun's.
        head: who claims the attempt: {"ray_cluster", "head_pod_uid"}.
        ray_address: "HOST:PORT" of the head, as Ray tells the drivers of jobs.
    """

    spec: TrainingRunSpec
    run_id: str
    attempt: str
    head: Mapping[str, str]
    store: Store
    ray_address: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Job:
        """Read it. Raises InvalidInput where something is missing."""
        missing = [name for name in _REQUIRED if not environment.get(name)]
        if missing:
            raise InvalidInput(
                f"not set: {', '.join(missing)}", action="this is what the operator starts; use `headrace run` by hand"
            )
        return cls(
            spec=TrainingRunSpec.model_validate_json(environment["HEADRACE_TRAINING_RUN"]),
            run_id=environment["HEADRACE_RUN_ID"],
            attempt=environment["HEADRACE_ATTEMPT"],
            head={
                "ray_cluster": environment["HEADRACE_RAY_CLUSTER"],
                "head_pod_uid": environment["HEADRACE_POD_UID"],
            },
            store=Store(environment["HEADRACE_STORE"]),
            ray_address=environment["RAY_ADDRESS"],
        )

    @property
    def experiment(self) -> str:
        """The MLflow experiment's name: the spec's, else the run id without its random end."""
        return str(self.spec.experiment or self.run_id.rsplit("-", 1)[0])


def claim(job: Job) -> None:
    """Make this head the one that carries out the attempt.

    Raises:
        Superseded: another head holds the attempt, or a newer attempt owns the run.
    """
    job.store.check_attempt(job.run_id, job.attempt)
    uri = job.store.uri("runs", job.run_id, "claims", f"{job.attempt}.json")
    if not job.store.create_json(uri, dict(job.head)):
        holder = job.store.read_json(uri)
        if holder != dict(job.head):
            raise Superseded(
                f"attempt {job.attempt} of run {job.run_id} began on another head of the cluster ({holder})",
                action="nothing: the operator counts the lost head and makes the next attempt",
            )
    job.store.claim_attempt(job.run_id, job.attempt)


def train(job: Job) -> dict[str, Any]:
    """Split if need be, then train and evaluate; what `result.json` holds. Any other end leaves the process."""

    claim(job)

    def body(step: Step) -> Outcome:
        tools = _Tools(job)
        champion = job.spec.champion_package_uri or ""
        outcome = TrainStep(step, tools.train_tools(), to_train_part(job.spec), _split(job), champion).run()
        tools.tell_package(outcome.values["package_uri"])
        return outcome

    return run_step("train", job.run_id, job.attempt, body)


def _split(job: Job) -> str:
    """The fingerprint of the split to train on."""
    if job.spec.manifest_uri is not None:
        return job.spec.manifest_uri.rstrip("/").rsplit("/", 1)[-1]
    uri = job.store.put_spec(to_split_part(job.spec))
    return str(split_once(Step("split", job.run_id, job.attempt, job.store), uri, AT_RUN).values["fingerprint"])


@dataclass(frozen=True)
class _Champion:
    """The package to beat, which is not looked up in the registry."""

    package_uri: str
    name: str = "champion"
    version: str = ""

    @property
    def package_sha256(self) -> str:
        """Packages are named by their hash."""
        return self.package_uri.rstrip("/").rsplit("/", 1)[-1]


class _Tools:
    """The train step's tools inside a RayJob, and the MLflow run that they opened."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._run: Any = None

    def train_tools(self) -> TrainTools:
        """What `TrainStep` needs."""
        from headrace.training import run_training

        return TrainTools(champion=_Champion, open_run=self._open_run, workers=self._workers, train=run_training)

    def tell_package(self, uri: str) -> None:
        """Tell the operator where the model is."""
        if self._run is not None:
            self._run.set_tags({PACKAGE_URI_TAG: uri})

    def _open_run(self, step: Step, split_fingerprint: str) -> Run:
        from headrace.steps.train_tools import log_facts
        from headrace.tracking import TrackedRun

        origin = read_note(step.store, step.run_id, "origin") or {}
        self._run = TrackedRun.open(
            step.run_id,
            self._job.experiment,
            tags={
                "headrace.spec_sha256": origin.get("spec_sha256") or sha256_of(self._job.spec.to_record()),
                "headrace.split_fingerprint": split_fingerprint,
                ATTEMPT_TAG: step.attempt,
            },
            check=step.check,
        )
        spec = origin.get("spec") or {"name": self._job.experiment, **to_train_part(self._job.spec)}
        source = self._job.spec.data.source if self._job.spec.data else str(self._job.spec.manifest_uri)
        log_facts(self._run, step, split_fingerprint, spec, source)
        return self._run  # type: ignore[no-any-return]

    @contextmanager
    def _workers(self, step: Step, train: Mapping[str, Any]) -> Iterator[tuple[Any, Demand]]:
        """The cluster that this driver is in; its pods were made for this attempt alone."""
        from headrace.local.resources import Demand
        from headrace.training import Connection

        workers = train["workers"]
        demand = Demand(
            int(workers["min"]),
            int(workers["max"]),
            float(train["resources"]["cpus_per_worker"]),
            float(train["gpus_per_worker"]),
        )
        yield Connection(self._job.ray_address, single_machine=False), demand


def permanent(error: HeadraceError) -> bool:
    """Whether the next attempt would fail in the same way, so that trying again helps nobody.

    What a person wrote or brought is wrong in every attempt (the code of a network included); a lack of room, a lost
    service or a killed worker is not.
    """
    if isinstance(error, InvalidInput):
        return not isinstance(error, NotEnoughResources)
    return error.code in ("run-failed", "out-of-memory", "unused-parameters")


def failure_line(error: HeadraceError) -> str:
    """The last line of the log, from which the operator reads what happened."""
    record = {"code": error.code, "message": error.message[:2000], "permanent": permanent(error)}
    return f"{FAILURE_LINE} {json.dumps(record)}"


def main() -> int:
    """Carry out one attempt; the exit code."""
    job = None
    try:
        job = Job.from_environment()
        train(job)
    except HeadraceError as error:
        print(failure_line(error), file=sys.stderr, flush=True)
        return error.exit_code
    except SystemExit as end:
        assert job is not None
        record = read_error(job.store, job.run_id, "train", job.attempt)
        told = error_from_record(record or {"code": "step-lost", "message": f"the driver ended with {end.code}"})
        print(failure_line(told), file=sys.stderr, flush=True)
        return int(end.code or 1) if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
