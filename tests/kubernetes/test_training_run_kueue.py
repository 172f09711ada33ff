"""TrainingRuns in a queue: the real Kueue lets them go two at a time, and the operator leaves that to Kueue.

Kueue, KubeRay and the API server are real. No kubelet runs, so the test says in KubeRay's place that a job has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.operators import Kueue
from headrace_testbed.training_runs import (
    MLflowStandIn,
    OperatorProcess,
    condition,
    finish,
    ray_jobs,
    training_run,
)
from headrace_testbed.waiting import eventually

Object = dict[str, Any]
RUNS = "/apis/headrace.dev/v1alpha1/namespaces/{}/trainingruns"
QUEUES = "/apis/kueue.x-k8s.io/v1beta1"


@pytest.fixture(scope="module")
def mlflow() -> Iterator[MLflowStandIn]:
    with MLflowStandIn() as server:
        yield server


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, crds: None, kueue: Kueue) -> Iterator[OperatorProcess]:
    with OperatorProcess(control_plane, "training_run") as process:
        yield process


@pytest.fixture
def queue(control_plane: ControlPlane, namespace: str, kueue: Kueue) -> str:
    """A LocalQueue with room for two runs of a head and a worker of one CPU each."""
    name = namespace[-30:].strip("-")
    flavor = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ResourceFlavor", "metadata": {"name": name}}
    room = [{"name": "cpu", "nominalQuota": "4"}, {"name": "memory", "nominalQuota": "100Gi"}]
    groups = [{"coveredResources": ["cpu", "memory"], "flavors": [{"name": name, "resources": room}]}]
    control_plane.api.post(f"{QUEUES}/resourceflavors", flavor)
    cluster_queue = {"metadata": {"name": name}, "spec": {"namespaceSelector": {}, "resourceGroups": groups}}
    control_plane.api.post(f"{QUEUES}/clusterqueues", _of("ClusterQueue", cluster_queue))
    local_queue = {"metadata": {"name": "gpus"}, "spec": {"clusterQueue": name}}
    control_plane.api.post(f"{QUEUES}/namespaces/{namespace}/localqueues", _of("LocalQueue", local_queue))
    return name


def _of(kind: str, obj: Object) -> Object:
    return {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": kind, **obj}


def create(plane: ControlPlane, namespace: str, name: str, mlflow: MLflowStandIn, **spec: Any) -> str:
    """Create a TrainingRun in the queue; its path."""
    plane.api.post(RUNS.format(namespace), training_run(name, mlflow.url, queue="gpus", **spec))
    return f"{RUNS.format(namespace)}/{name}"


def let_go(plane: ControlPlane, namespace: str) -> list[str]:
    """RayJobs that the queue has let go and that have not ended."""
    return [
        job["metadata"]["name"]
        for job in ray_jobs(plane, namespace)
        if not job["spec"].get("suspend") and job.get("status", {}).get("jobDeploymentStatus") != "Complete"
    ]


def test_ten_runs_go_two_at_a_time_and_all_succeed(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, queue: str, namespace: str
) -> None:
    paths = [create(control_plane, namespace, f"r{number}", mlflow) for number in range(10)]
    eventually(lambda: len(ray_jobs(control_plane, namespace)) == 10)
    eventually(lambda: _waiting_for_quota(control_plane, paths) == 8)
    ended = 0
    while ended < 10:
        going = eventually(lambda: let_go(control_plane, namespace))
        assert len(going) <= 2
        finish(control_plane, namespace, going[0])
        ended += 1
    for path in paths:
        eventually(lambda path=path: condition(control_plane.api.get(path), "Succeeded") == ("True", "Trained"))
        status = control_plane.api.get(path)["status"]
        assert (status["attempt"], status.get("failures", 0)) == (1, 0)
    changed = [event for event in operator.writes(namespace) if event["objectRef"]["resource"] == "rayjobs"]
    assert [event["verb"] for event in changed] == ["create"] * 10


def _waiting_for_quota(plane: ControlPlane, paths: list[str]) -> int:
    """How many runs say that they wait for it, in Kueue's words."""
    found = [plane.api.get(path) for path in paths]
    messages = [obj["status"]["message"] for obj in found if condition(obj, "Running")[1] == "WaitsForQuota"]
    return sum("insufficient unused quota for cpu" in message for message in messages)


def test_the_time_in_the_queue_does_not_count_against_the_pre_running_deadline(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, queue: str, namespace: str
) -> None:
    control_plane.api.patch(f"{QUEUES}/clusterqueues/{queue}", {"spec": {"stopPolicy": "Hold"}})
    path = create(control_plane, namespace, "late", mlflow, preRunningDeadlineSeconds=10, maxRetries=0)
    eventually(lambda: condition(control_plane.api.get(path), "Running")[1] in ("Queued", "WaitsForQuota"))
    first = eventually(lambda: ray_jobs(control_plane, namespace)[0].get("status", {}).get("startTime"))
    _outlast(control_plane, path, 12)
    control_plane.api.patch(f"{QUEUES}/clusterqueues/{queue}", {"spec": {"stopPolicy": "None"}})
    eventually(lambda: let_go(control_plane, namespace) == ["late-1"])
    began = eventually(lambda: _start_time(control_plane, namespace, first))
    eventually(lambda: condition(control_plane.api.get(path), "Succeeded")[0] == "False")
    run = control_plane.api.get(path)
    assert condition(run, "Running") == ("False", "PreRunningDeadlineExceeded")
    waited = datetime.fromisoformat(run["status"]["completionTime"]) - datetime.fromisoformat(began)
    assert waited >= timedelta(seconds=10)


def _start_time(plane: ControlPlane, namespace: str, first: str) -> str:
    """When KubeRay let the only RayJob begin, once that is another time than FIRST."""
    found = ray_jobs(plane, namespace)[0].get("status", {}).get("startTime", "")
    return "" if found == first else str(found)


def _outlast(plane: ControlPlane, path: str, seconds: float) -> None:
    """Look for SECONDS that the run only waits."""
    with pytest.raises(AssertionError):
        eventually(lambda: plane.api.get(path)["status"]["phase"] != "Waiting", seconds=seconds)
