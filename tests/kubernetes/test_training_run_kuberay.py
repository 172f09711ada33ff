"""The TrainingRun operator, as a process, beside the real KubeRay 1.6 on a real API server.

No kubelet runs, so pods stay Pending unless a test says in its place that they run; what KubeRay, Pod Security and the
garbage collector do of what we made is all real.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.operators import KubeRayOperator
from headrace_testbed.training_runs import (
    MLflowStandIn,
    OperatorProcess,
    condition,
    events,
    is_so_at_once,
    pods_of,
    ray_jobs,
    say_pods_run,
    training_run,
)
from headrace_testbed.waiting import eventually

Object = dict[str, Any]
RUNS = "/apis/headrace.dev/v1alpha1/namespaces/{}/trainingruns"
JOBS = "/apis/ray.io/v1/namespaces/{}/rayjobs"


@pytest.fixture(scope="module")
def mlflow() -> Iterator[MLflowStandIn]:
    with MLflowStandIn() as server:
        yield server


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, crds: None, kuberay: KubeRayOperator) -> Iterator[OperatorProcess]:
    with OperatorProcess(control_plane, "training_run") as process:
        yield process


@pytest.fixture(scope="module", autouse=True)
def at_rest(control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn) -> str:
    """The namespace of a run that waits for its pods while the other tests go on."""
    name = "training-run-at-rest"
    control_plane.api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    create(control_plane, name, training_run("digits", mlflow.url))
    return name


def create(plane: ControlPlane, namespace: str, run: Object) -> str:
    """Create RUN; its path."""
    plane.api.post(RUNS.format(namespace), run)
    return f"{RUNS.format(namespace)}/{run['metadata']['name']}"


def job(plane: ControlPlane, namespace: str, name: str) -> Object:
    """The RayJob, as soon as it is there."""
    return plane.wait_for(f"{JOBS.format(namespace)}/{name}")


def test_kuberay_makes_the_pods_that_were_asked_for(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, namespace: str
) -> None:
    create(control_plane, namespace, training_run("digits", mlflow.url, workers=2))
    pods = eventually(lambda: found if len(found := pods_of(control_plane, namespace, "digits")) == 3 else None)
    assert sorted(pod["metadata"]["labels"]["ray.io/node-type"] for pod in pods) == ["head", "worker", "worker"]
    for pod in pods:
        assert pod["metadata"]["labels"]["headrace.dev/attempt"] == "1"
        container = pod["spec"]["containers"][0]
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "auth_token"
        assert container["readinessProbe"]["httpGet"]["path"] == "/api/healthz"
        assert container["readinessProbe"]["initialDelaySeconds"] == 2
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Mi"}
        assert not any("serviceaccount" in path for path in mounts)
    head = next(pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head")
    assert "--num-cpus=0" in head["spec"]["containers"][0]["args"][0]
    assert head["spec"]["restartPolicy"] == "Never"


def test_kuberay_leaves_our_fields_alone_and_applying_them_again_conflicts_with_nobody(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, namespace: str
) -> None:
    create(control_plane, namespace, training_run("digits", mlflow.url))
    eventually(lambda: pods_of(control_plane, namespace, "digits"))
    there = job(control_plane, namespace, "digits-1")
    assert there["metadata"]["generation"] == 1
    owned = {
        entry["manager"]: entry["fieldsV1"]
        for entry in there["metadata"]["managedFields"]
        if "subresource" not in entry
    }
    others = {manager: fields for manager, fields in owned.items() if manager != "headrace-operator"}
    assert "f:spec" in owned["headrace-operator"]
    assert all(set(fields) == {"f:metadata"} for fields in others.values()), others
    metadata = {name: there["metadata"][name] for name in ("name", "namespace", "labels", "annotations")}
    again = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": there["spec"]}
    applied = control_plane.api.apply(again, manager="headrace-operator")
    assert applied["metadata"]["generation"] == 1


def test_what_the_run_waits_for_stands_in_its_status_and_events(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, namespace: str
) -> None:
    path = create(control_plane, namespace, training_run("digits", mlflow.url))
    eventually(lambda: "2 of 2 pods fit on no node" in control_plane.api.get(path).get("status", {}).get("message", ""))
    status = control_plane.api.get(path)["status"]
    assert (status["phase"], status["rayJobName"]) == ("Waiting", "digits-1")
    assert condition(control_plane.api.get(path), "Running") == ("False", "Unschedulable")
    assert "the attempt fails at" in status["message"]
    eventually(lambda: {"AttemptCreated", "Waiting"} <= events(control_plane, namespace, "digits"))


def test_everything_goes_with_the_run(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, namespace: str
) -> None:
    path = create(control_plane, namespace, training_run("digits", mlflow.url))
    eventually(lambda: pods_of(control_plane, namespace, "digits"))
    control_plane.api.delete(path)
    eventually(lambda: not ray_jobs(control_plane, namespace))
    eventually(lambda: not pods_of(control_plane, namespace, "digits"))


def test_a_wrong_combination_becomes_a_condition_within_a_second_and_mending_it_recovers(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, namespace: str
) -> None:
    def made(number: int) -> Callable[[], bool]:
        wrong = training_run(f"digits-{number}", mlflow.url)
        wrong["spec"]["train"]["optimizer"] = {"name": "adamant", "args": {}}
        path = create(control_plane, namespace, wrong)
        return lambda: condition(control_plane.api.get(path), "Accepted") == ("False", "SpecInvalid")

    is_so_at_once(made)
    path = f"{RUNS.format(namespace)}/digits-0"
    assert "adamant" in control_plane.api.get(path)["status"]["message"]
    control_plane.api.patch(path, {"spec": {"train": {"optimizer": {"name": "adam"}}}})
    job(control_plane, namespace, "digits-0-1")
    assert condition(control_plane.api.get(path), "Accepted") == ("True", "Valid")


def test_suspending_deletes_the_ray_job_and_going_on_makes_the_next_attempts(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, namespace: str
) -> None:
    path = create(control_plane, namespace, training_run("digits", mlflow.url))
    job(control_plane, namespace, "digits-1")
    control_plane.api.patch(path, {"spec": {"suspend": True}})
    eventually(lambda: not ray_jobs(control_plane, namespace))
    assert condition(control_plane.api.get(path), "Suspended") == ("True", "Asked")
    control_plane.api.patch(path, {"spec": {"suspend": False}})
    job(control_plane, namespace, "digits-2")
    assert control_plane.api.get(path)["status"].get("failures", 0) == 0


def test_a_lost_head_is_counted_once_and_the_next_attempt_goes_on_from_the_newest_checkpoint(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: MLflowStandIn, namespace: str
) -> None:
    path = create(control_plane, namespace, training_run("digits", mlflow.url, run_id="digits-lost"))
    eventually(lambda: len(pods_of(control_plane, namespace, "digits")) == 2)
    say_pods_run(control_plane, namespace, "digits")
    first = eventually(lambda: control_plane.api.get(path)["status"].get("headPodUID"))
    mlflow.report("digits-lost", checkpoint_uri="s3://bucket/checkpoints/7", checkpoint_epoch="7")
    (head,) = (pod for pod in pods_of(control_plane, namespace, "digits") if pod["metadata"]["uid"] == first)
    control_plane.api.delete(f"/api/v1/namespaces/{namespace}/pods/{head['metadata']['name']}")
    eventually(lambda: control_plane.api.get(path)["status"].get("failures") == 1)
    heads = [pod for pod in pods_of(control_plane, namespace, "digits") if "head" in pod["metadata"]["name"]]
    assert [pod for pod in heads if pod["metadata"]["labels"]["headrace.dev/attempt"] == "1"] == []
    second = eventually(lambda: [each for each in ray_jobs(control_plane, namespace) if _number(each) == 2])[0]
    container = second["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert told["HEADRACE_CHECKPOINT_URI"] == "s3://bucket/checkpoints/7"
    assert told["HEADRACE_ATTEMPT"] == "1.2"
    assert told["HEADRACE_MLFLOW_RUN_ID"] == control_plane.api.get(path)["status"]["mlflow"]["runID"]
    status = control_plane.api.get(path)["status"]
    assert (status["failures"], status["attempt"], len(ray_jobs(control_plane, namespace))) == (1, 2, 1)
    assert {"HeadLost", "AttemptFailed"} <= events(control_plane, namespace, "digits")


def test_thirty_drawn_specs_are_refused_by_neither_kuberay(
    control_plane: ControlPlane,
    operator: OperatorProcess,
    kuberay_1_7: ControlPlane,
    mlflow: MLflowStandIn,
    namespace: str,
) -> None:
    draw = random.Random(30)
    for number in range(30):
        run = _drawn(draw, f"r{number}{'x' * draw.randint(0, 37 - len(str(number)))}", mlflow.url)
        create(control_plane, namespace, run)

    def taken_up() -> list[Object] | None:
        """The first attempts: a busy machine is at the second of a run that waits for its pods for ten seconds only."""
        jobs = [each for each in ray_jobs(control_plane, namespace) if _number(each) == 1]
        return (
            jobs
            if len(jobs) == 30 and all((each.get("status") or {}).get("jobDeploymentStatus") for each in jobs)
            else None
        )

    jobs = eventually(taken_up, seconds=240)
    refused = [each["status"] for each in jobs if each["status"]["jobDeploymentStatus"] == "ValidationFailed"]
    assert refused == []
    assert {each["metadata"]["generation"] for each in jobs} == {1}
    for each in jobs:
        metadata = {name: each["metadata"][name] for name in ("name", "labels", "annotations")}
        manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": each["spec"]}
        applied = kuberay_1_7.api.apply(manifest, namespace="default")
        for group in applied["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
            assert group.pop("priority") == 0  # 1.7's own default
        assert applied["spec"] == each["spec"]


def test_a_quiet_minute_writes_nothing(control_plane: ControlPlane, operator: OperatorProcess, at_rest: str) -> None:
    operator.rests_for(at_rest, 60)
    assert condition(control_plane.api.get(f"{RUNS.format(at_rest)}/digits"), "Running")[1] == "Unschedulable"


def _number(job: Object) -> int:
    return int(job["metadata"]["labels"]["headrace.dev/attempt"])


def _drawn(draw: random.Random, name: str, mlflow: str) -> Object:
    """A valid TrainingRun, of all that people may ask for."""
    low = draw.randint(1, 2)
    gpus = draw.choice([0, 0, 1, 4])
    run = training_run(name, mlflow, workers=low)
    spec = run["spec"]
    spec["train"] |= {"workers": {"min": low, "max": low + draw.randint(0, 1)}, "gpusPerWorker": gpus, "batchSize": 64}
    size = draw.choice(["1Gi", "1.5Gi", "2000M", "512Mi"])
    spec["pods"] |= {
        "head": {"cpu": draw.choice(["500m", "1", "1.5"]), "memory": size},
        "worker": {"cpu": draw.choice(["1", "1500m", "2"]), "memory": size, "gpu": gpus},
        "sharedMemory": draw.choice(["100M", "256Mi"]),
        "nodeSelector": draw.choice([{}, {"disk": "ssd"}]),
        "tolerations": draw.choice([[], [{"operator": "Exists"}], [{"key": "gpu", "value": "yes"}]]),
        "environment": draw.choice([[], [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "EMPTY", "value": ""}]]),
        "imagePullSecrets": draw.choice([[], ["registry"]]),
    }
    spec["authentication"] = draw.choice([{}, {"mode": "none"}, {"secretName": "token"}])
    spec["preRunningDeadlineSeconds"] = draw.choice([10, 900, 10**6])
    if draw.random() < 0.5:
        spec["store"]["secretName"] = "bucket-keys"
    if draw.random() < 0.3:
        spec["runID"] = "r-abcd2345"
    return run
