"""What of KubeRay's, Kueue's and the kubelet's objects stays in memory, and what is read of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace_operators.kinds import RAY_JOB, TRAINING_RUN
from headrace_operators.mlflow import MLflow
from headrace_operators.pods import Pod, keep_pod, pod_of
from headrace_operators.runtime.kinds import Key
from headrace_operators.training_run import read
from headrace_operators.training_run.observe import Job, Place
from headrace_operators.training_run.reconciler import TrainingRunReconciler

RUN_UID = "run-uid"
OWNER = {"apiVersion": "headrace.dev/v1alpha1", "kind": "TrainingRun", "name": "digits", "uid": RUN_UID}
LABELS = {"headrace.dev/training-run": "digits", "headrace.dev/attempt": "2", "app.kubernetes.io/name": "kuberay"}


def ray_job(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    whole = {"name": "digits-2", "namespace": "team", "uid": "job-uid", "labels": LABELS, "generation": 2}
    whole |= {"ownerReferences": [{**OWNER, "controller": True}], "managedFields": [{}], "resourceVersion": "7"}
    spec = {"entrypoint": "python", "suspend": True, "rayClusterSpec": {"headGroupSpec": {"template": {}}}}
    return {"metadata": whole | metadata, "spec": spec, "status": status}


def pod(role: str = "head", **status: Any) -> dict[str, Any]:
    labels = {**LABELS, "ray.io/node-type": role}
    metadata = {"name": "p", "namespace": "team", "uid": "u", "labels": labels, "resourceVersion": "3"}
    return {"metadata": metadata, "spec": {"containers": [{}]}, "status": status}


def seen(obj: dict[str, Any]) -> Pod:
    return pod_of(keep_pod(obj))


def waiting(reason: str, **more: Any) -> dict[str, Any]:
    return {"image": "none:1", "state": {"waiting": {"reason": reason, "message": "because", **more}}}


def test_a_ray_job_is_read_from_what_is_kept_of_it() -> None:
    status = {
        "jobDeploymentStatus": "Failed",
        "jobStatus": "FAILED",
        "reason": "AppFailed",
        "message": "x" * 20_000 + "the end",
        "startTime": "2026-11-26T12:00:00Z",
        "rayJobInfo": {"startTime": "2026-11-26T12:01:00Z"},
        "rayClusterStatus": {"conditions": [{"type": "HeadPodReady"}] * 5},
    }
    kept = read.keep_job(ray_job(status))
    job = read.job_of(kept, RUN_UID)
    assert job == read.job_of(ray_job({**status, "message": job.message}), RUN_UID)
    assert (job.attempt, job.owned, job.suspended, job.generation) == (2, True, True, 2)
    assert job.message.endswith("the end")
    assert "entrypoint" not in json.dumps(kept)
    assert len(json.dumps(kept)) < 5000


def test_a_quiet_ray_job_takes_little_memory() -> None:
    quiet = ray_job({"jobDeploymentStatus": "Suspended", "rayClusterStatus": {"x": "y" * 1000}})
    assert len(json.dumps(read.keep_job(quiet))) < 600


def test_a_ray_job_of_another_owner_is_not_ours() -> None:
    assert not read.job_of(ray_job({}), "another").owned
    assert not read.job_of(ray_job({}, ownerReferences=[]), RUN_UID).owned


def test_a_ray_job_that_is_being_deleted_is_known_as_such() -> None:
    going = read.keep_job(ray_job({}, deletionTimestamp="2026-11-26T12:00:00Z"))
    assert read.job_of(going, RUN_UID).terminating


def test_a_ray_job_that_nobody_labelled_has_no_attempt() -> None:
    assert read.job_of(ray_job({}, labels={"headrace.dev/attempt": "two"}), RUN_UID).attempt == 0
    assert read.job_of(ray_job({}, labels=None), RUN_UID) == Job("digits-2", "job-uid", 0, suspended=True, generation=2)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_the_same_trouble_whatever_the_kubelet_is_at(reason: str) -> None:
    assert seen(pod(containerStatuses=[waiting(reason)])).trouble == ("image", "none:1")


def test_a_secret_that_is_missing_is_told_in_the_kubelets_words() -> None:
    status = pod(initContainerStatuses=[waiting("CreateContainerConfigError")])
    assert seen(status).trouble == ("config", "because")


def test_a_crash_is_told_by_its_last_end() -> None:
    last = {"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    crashing = {**waiting("CrashLoopBackOff"), **last}
    assert seen(pod(containerStatuses=[crashing])).trouble == ("crash", "OOMKilled, exit code 137")


def test_a_pod_that_fits_nowhere_is_told_in_the_schedulers_words() -> None:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
    assert seen(pod(conditions=conditions)).trouble == ("unschedulable", "0/3 nodes")


def test_who_takes_a_pod_away_is_known() -> None:
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    assert seen(pod(phase="Running", conditions=conditions)).disruption == "PreemptionByScheduler"


def test_a_pod_that_is_ready_is_alive_and_one_that_failed_is_not() -> None:
    ready = seen(pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}]))
    assert (ready.role, ready.ready, ready.alive) == ("head", True, True)
    ended = {"state": {"terminated": {"reason": "Error", "exitCode": 1}}}
    failed = seen(pod(phase="Failed", containerStatuses=[ended]))
    assert (failed.alive, failed.ended) == (False, "Error, exit code 1")


def test_the_place_in_the_queue_is_that_of_the_current_ray_job() -> None:
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "digits-2", "uid": "job-uid", "controller": True}
    conditions = [
        {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient quota"},
        {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "to make room"},
        {"type": "PodsReady", "status": "False", "reason": "x"},
    ]
    metadata = {"name": "w", "namespace": "team", "uid": "w", "ownerReferences": [owner], "resourceVersion": "1"}
    kept = read.keep_workload({"metadata": metadata, "spec": {"podSets": []}, "status": {"conditions": conditions}})
    assert read.place_of([kept], "digits-2") == Place(waits="insufficient quota", evicted="Preempted: to make room")
    assert read.place_of([kept], "digits-3") is None


def test_pods_that_kuberay_cannot_make_are_told_in_the_api_servers_words() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": "exceeded quota"}
    metadata = {"name": "c", "namespace": "team", "uid": "c", "labels": LABELS, "resourceVersion": "1"}
    kept = read.keep_cluster({"metadata": metadata, "spec": {}, "status": {"conditions": [failure, {"type": "x"}]}})
    assert read.refusal_of([kept], 2) == "exceeded quota"
    assert read.refusal_of([kept], 1) == ""


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("digits-2", [Key("team", "digits")]),
        ("my-run-10", [Key("team", "my-run")]),
        ("digits", []),
        ("digits-x", []),
        ("-1", []),
    ],
)
def test_a_ray_job_concerns_the_run_that_its_name_belongs_to(name: str, keys: list[Key]) -> None:
    (watch,) = (watch for watch in TrainingRunReconciler("i", MLflow({}), 30).watches if watch.kind == RAY_JOB)
    assert list(watch.keys({"metadata": {"name": name, "namespace": "team"}})) == keys


def test_a_workload_concerns_the_run_of_its_ray_job() -> None:
    watch = TrainingRunReconciler("i", MLflow({}), 30).watches[-1]
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "digits-2", "uid": "u", "controller": True}
    metadata = {"name": "rayjob-digits-2-abc", "namespace": "team", "ownerReferences": [owner]}
    assert list(watch.keys({"metadata": metadata})) == [Key("team", "digits")]
    assert list(watch.keys({"metadata": {**metadata, "ownerReferences": [{**owner, "kind": "Job"}]}})) == []


def test_the_reconciler_is_for_training_runs() -> None:
    reconciler = TrainingRunReconciler("i", MLflow({}), 30)
    assert (reconciler.name, reconciler.kind) == ("trainingrun", TRAINING_RUN)
