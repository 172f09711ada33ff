"""What is to happen to each run and deployment of a storm, and how each must end: drawn by lot, from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from headrace_testbed.objects import model_deployment
from headrace_testbed.training_runs import training_run
from kuberay_double.script import Behaviour, Script

Object = dict[str, Any]
MODEL, VERSIONS, BROKEN = "digits", 6, "4"  # version 4 cannot be loaded
_PERMANENT = 'HEADRACE_FAILURE {"code": "no-such-column", "message": "the data has no column y", "permanent": true}'


@dataclass(frozen=True)
class Storm:
    """How much of everything, in about how many SECONDS; the same SEED draws the same lots."""

    kills: int
    restarts: int
    runs: int
    deployments: int
    seconds: float
    seed: int


@dataclass(frozen=True)
class RunStory:
    """One TrainingRun: its manifest, and how it must end. `suspended` is when it is suspended for a while."""

    name: str
    manifest: Object
    phase: str
    failures: int
    reason: str
    attempts: int | None  # None: as many as its suspension made
    suspended: float | None = None


@dataclass(frozen=True)
class DeploymentStory:
    """One ModelDeployment: the versions that are asked for one after the other. The last must answer, unless it is the
    broken one: then one before it."""

    name: str
    manifest: Object
    versions: tuple[str, ...]
    replicas: int

    @property
    def may_answer(self) -> tuple[str, ...]:
        """The versions that may answer in the end."""
        return self.versions[:-1] if self.versions[-1] == BROKEN else self.versions[-1:]


@dataclass(frozen=True)
class Plot:
    """The stories of a storm."""

    runs: list[RunStory]
    deployments: list[DeploymentStory]


@dataclass(frozen=True)
class _Kind:
    script: Script
    phase: str
    failures: int
    reason: str
    attempts: int | None
    spec: Object


_QUICK = Behaviour(run_seconds=1.0)
_FAILS = Behaviour("fails", run_seconds=0.5, message="a worker crashed")
_LOSES = Behaviour("loses-head", run_seconds=2.0)


def _kinds() -> dict[str, _Kind]:
    succeeded = ("Succeeded", "Trained")

    def ends(script: Script, failures: int, end: tuple[str, str] = succeeded, **spec: Any) -> _Kind:
        attempts = failures + (end == succeeded)
        return _Kind(script, end[0], failures, end[1], attempts, spec)

    return {
        "succeeds": ends(Script(_QUICK), 0),
        "fails-once": ends(Script(_QUICK, {1: _FAILS}), 1),
        "loses-head": ends(Script(_QUICK, {1: _LOSES}), 1),
        "fails-loses": ends(Script(_QUICK, {1: _FAILS, 2: _LOSES}), 2),
        "gives-up": ends(Script(_FAILS), 2, ("Failed", "RetriesExhausted"), maxRetries=1),
        "no-column": ends(
            Script(Behaviour("fails", run_seconds=0.5, message=_PERMANENT)), 1, ("Failed", "NoSuchColumn")
        ),
        "no-image": ends(
            Script(Behaviour("never-ready")),
            1,
            ("Failed", "RetriesExhausted"),
            maxRetries=0,
            preRunningDeadlineSeconds=10,
        ),
        "suspended": _Kind(Script(Behaviour(run_seconds=3.0)), "Succeeded", 0, "Trained", None, {}),
    }


_WEIGHTS = {"succeeds": 5, "fails-once": 3, "loses-head": 3, "fails-loses": 1}


def plot(storm: Storm, mlflow: str) -> Plot:
    """The plot of STORM; MLflow's server is at this address. Every kind of run is in it."""
    lots = random.Random(storm.seed)
    kinds = _kinds()
    chosen = list(kinds)[: storm.runs]
    chosen += lots.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=storm.runs - len(chosen))
    lots.shuffle(chosen)
    runs = [_run(f"{kind}-{number}", kinds[kind], mlflow, lots) for number, kind in enumerate(chosen)]
    deployments = [_deployment(f"front-{number}", mlflow, lots) for number in range(storm.deployments)]
    return Plot(runs, deployments)


def _run(name: str, kind: _Kind, mlflow: str, lots: random.Random) -> RunStory:
    manifest = training_run(name, mlflow, run_id=f"id-{name}", **kind.spec)
    manifest["spec"]["pods"]["environment"] = [kind.script.to_variable()]
    suspended = lots.uniform(1.0, 4.0) if kind.attempts is None else None
    return RunStory(name, manifest, kind.phase, kind.failures, kind.reason, kind.attempts, suspended)


def _deployment(name: str, mlflow: str, lots: random.Random) -> DeploymentStory:
    versions = tuple(lots.sample([str(number + 1) for number in range(VERSIONS)], k=3))
    if versions[0] == BROKEN:  # nothing would ever answer
        versions = tuple(reversed(versions))
    replicas = lots.choice((1, 1, 2))
    spec: Object = {
        "model": {"name": MODEL, "version": versions[0]},
        "replicas": replicas,
        "mlflow": {"trackingURI": mlflow},
        "pods": {"environment": [Script().to_variable()]},
    }
    return DeploymentStory(name, model_deployment(name, **spec), versions, replicas)
