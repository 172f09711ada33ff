"""Plays a storm: three hands act at once, one that kills the operator, one that restarts the API server, one that asks
for runs, deployments and changes. Then the operator is left alone until all has settled."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from headrace_chaos.story import BROKEN, MODEL, VERSIONS, DeploymentStory, Plot, RunStory, Storm, plot
from headrace_testbed.api import ApiError
from headrace_testbed.control_plane import START_SECONDS, ControlPlane
from headrace_testbed.mlflow_server import MLflowServer
from headrace_testbed.ours import install_rbac
from headrace_testbed.processes import Daemon
from kuberay_double import FrontDouble, KubeRayDouble

Object = dict[str, Any]
ACCOUNT = "headrace-operator"
BROKEN_WORDS = "the package has no file model.safetensors"
_OURS = "/apis/headrace.dev/v1alpha1/namespaces/{}/{}"
_ENVIRONMENT = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
_ENDED = ("Succeeded", "Failed")
_AWAY_SECONDS = 2.0 * START_SECONDS  # an API server that is killed and started again
_SETTLED_SECONDS = 400.0  # 80 on a quiet machine
_CALM_SECONDS = 5.0  # after the last write that anybody waited for


@dataclass
class Field:
    """Where a storm plays, and what it did there."""

    plane: ControlPlane
    namespace: str
    mlflow: MLflowServer
    front: FrontDouble
    double: KubeRayDouble
    operator: Daemon
    killed: int = 0
    crashes: list[str] = field(default_factory=list)  # when the API server was killed, as its audit log writes times
    began: float = field(default_factory=time.time)
    lasted_seconds: float = 0.0
    settled_seconds: float = 0.0

    @property
    def user(self) -> str:
        """Who the operator is to the API server."""
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"

    def path(self, plural: str, name: str = "") -> str:
        """Path of one of our kinds."""
        return "/".join(part for part in (_OURS.format(self.namespace, plural), name) if part)


@contextlib.contextmanager
def field_of(plane: ControlPlane, namespace: str, mlflow: MLflowServer) -> Iterator[Field]:
    """The operator, with the rights it ships with, KubeRay's double and the front's, at work in NAMESPACE.

    The operator acts alone: what two replicas with a Lease do is another test's matter.
    """
    install_rbac(plane, namespace)
    kubeconfig = plane.kubeconfig_for_service_account(namespace, ACCOUNT)
    with (
        FrontDouble(broken={BROKEN: BROKEN_WORDS}) as front,
        KubeRayDouble(plane.kubeconfig, namespace=namespace, front=front) as double,
    ):
        operator = Daemon(
            "operator", _command(kubeconfig, namespace), plane.folder / f"{namespace}-operator.log", _ENVIRONMENT
        )
        try:
            yield Field(plane, namespace, mlflow, front, double, operator)
        finally:
            operator.kill()


def _command(kubeconfig: Path, namespace: str) -> list[str | Path]:
    flags = ["--namespace", namespace, "--kubeconfig", str(kubeconfig), "--no-leader-election"]
    flags += ["--metrics-address", "", "--health-address", "", "--mlflow-interval-seconds", "2"]
    return [Path(sys.executable).parent / "headrace", "operator", *flags]


def play(field: Field, storm: Storm) -> Plot:
    """Play STORM until all its runs have ended and all its deployments have settled, or far too much time is over."""
    story = plot(storm, field.mlflow.url)
    field.mlflow.register(MODEL, VERSIONS)
    for run in story.runs:
        uri = f"s3://bucket/headrace/runs/id-{run.name}/checkpoints/1"
        field.mlflow.start_run(f"id-{run.name}", checkpoint_uri=uri, checkpoint_epoch="1", attempt="1.1")
    field.operator.start()
    field.began = began = time.time()
    with ThreadPoolExecutor(3) as pool:
        hands = [pool.submit(_kill, field, storm), pool.submit(_restart, field, storm)]
        hands.append(pool.submit(_ask, field, storm, story))
        for hand in hands:
            hand.result()
    field.lasted_seconds = time.time() - began
    _settle(field, story)
    field.settled_seconds = time.time() - began - field.lasted_seconds
    return story


# -- the hands ---------------------------------------------------------------------------------------------------------


def _kill(field: Field, storm: Storm) -> None:
    """Kill the operator at random moments, those of its start included, and start it again at once."""
    lots = random.Random(storm.seed + 1)
    for _ in range(storm.kills):
        time.sleep(lots.expovariate(storm.kills / storm.seconds))
        field.operator.kill()
        field.killed += 1
        field.operator.start()


def _restart(field: Field, storm: Storm) -> None:
    """Kill the API server and start it again; etcd keeps what it knew."""
    for _ in range(storm.restarts):
        time.sleep(storm.seconds / (storm.restarts + 1))
        field.crashes.append(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
        field.plane.restart_apiserver()


def _ask(field: Field, storm: Storm, story: Plot) -> None:
    """Ask for everything, in the first two thirds of the storm, whatever the API server does meanwhile."""
    lots = random.Random(storm.seed + 2)
    acts: list[tuple[float, Callable[[], None]]] = []
    window = storm.seconds * 2 / 3
    for run in story.runs:
        acts += _acts_of_run(field, run, lots.uniform(0, window))
    for deployment in story.deployments:
        acts += _acts_of_deployment(field, deployment, sorted(lots.uniform(0, window) for _ in deployment.versions))
    began = time.monotonic()
    for at, act in sorted(acts, key=lambda each: each[0]):
        time.sleep(max(0.0, began + at - time.monotonic()))
        _until_done(act)


def _acts_of_run(field: Field, run: RunStory, at: float) -> Iterator[tuple[float, Callable[[], None]]]:
    runs = field.path("trainingruns")
    yield at, lambda: _create(field, runs, run.manifest)
    if run.suspended is not None:
        path = f"{runs}/{run.name}"
        yield at + run.suspended, lambda: _patch(field, path, {"spec": {"suspend": True}})
        yield at + run.suspended + 6, lambda: _patch(field, path, {"spec": {"suspend": False}})


def _acts_of_deployment(
    field: Field, deployment: DeploymentStory, times: list[float]
) -> Iterator[tuple[float, Callable[[], None]]]:
    deployments = field.path("modeldeployments")
    yield times[0], lambda: _create(field, deployments, deployment.manifest)
    for at, version in zip(times[1:], deployment.versions[1:], strict=True):
        body = {"spec": {"model": {"version": version}}}
        yield at, lambda body=body: _patch(field, f"{deployments}/{deployment.name}", body)  # type: ignore[misc]


def _create(field: Field, path: str, manifest: Object) -> None:
    try:
        field.plane.api.post(path, manifest)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


def _patch(field: Field, path: str, body: Object) -> None:
    field.plane.api.patch(path, body)


def _until_done(act: Callable[[], None]) -> None:
    deadline = time.monotonic() + _AWAY_SECONDS
    while time.monotonic() < deadline:
        try:
            return act()
        except (httpx.TransportError, ApiError) as error:  # it is being restarted
            if isinstance(error, ApiError) and error.status < 500 and error.status != 429 and error.status != 403:
                raise
            time.sleep(0.2)
    raise AssertionError(f"the API server did not come back within {_AWAY_SECONDS:.0f} s")


# -- the calm after it -------------------------------------------------------------------------------------------------


def _settle(field: Field, story: Plot) -> None:
    """Wait until every run has ended and every deployment has proven or given up its version, and nothing is left to
    clean up."""
    deadline = time.monotonic() + _SETTLED_SECONDS
    while time.monotonic() < deadline:
        runs = field.plane.api.list(field.path("trainingruns"))
        deployments = field.plane.api.list(field.path("modeldeployments"))
        ended = sum((run.get("status") or {}).get("phase") in _ENDED for run in runs)
        if ended == len(story.runs) and all(_is_settled(each) for each in deployments):
            break
        time.sleep(0.5)
    time.sleep(_CALM_SECONDS)


def _is_settled(deployment: Object) -> bool:
    status = deployment.get("status") or {}
    going = next((each for each in status.get("conditions") or () if each["type"] == "Progressing"), None)
    observed = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return observed and going is not None and going["status"] == "False"
