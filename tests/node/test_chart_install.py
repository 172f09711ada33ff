"""The chart in real pods: `helm test`, keys and passwords that change while requests go on, what it takes when idle."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config

from headrace_testbed.api import Object
from headrace_testbed.footprint import footprints, table, total
from headrace_testbed.helm import NAMESPACE
from headrace_testbed.node import Node
from headrace_testbed.release import START_SECONDS, THEIRS, WORKSPACE, Release
from headrace_testbed.waiting import eventually

# Not the runtime: no Ray cluster is made here.
pytestmark = [pytest.mark.images("operator", "mlflow", *THEIRS), pytest.mark.timeout(1800)]
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
IDLE_SECONDS = 60
# What Kubeflow's documentation names for its own components; ours is to be small beside it.
KUBEFLOW_CPUS, KUBEFLOW_GIBIBYTES = 4.4, 12.3


def pods(node: Node) -> dict[str, Object]:
    """The chart's pods by component; the newest of each."""
    listed = sorted(node.api.list(PODS), key=lambda each: each["metadata"]["creationTimestamp"])
    return {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in listed}


def upgraded(release: Release, **more: Any) -> None:
    """Upgrade with other values, and wait until every pod is the new one and ready."""
    release.helm.upgrade(NAMESPACE, {**release.values(), **more})
    eventually(lambda: settled(release), START_SECONDS, 0.5)


def settled(release: Release) -> bool:
    """Whether every workload has what its newest spec asks for and nothing else."""
    for each in release.workloads():
        status, wanted = each["status"], each["spec"]["replicas"]
        seen = status.get("observedGeneration") == each["metadata"]["generation"]
        if not (seen and status.get("updatedReplicas") == status.get("readyReplicas") == status["replicas"] == wanted):
            return False
    return True


def secret(node: Node, name: str, key: str, namespace: str = NAMESPACE) -> str:
    data = node.api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")["data"]
    return base64.b64decode(data[key]).decode()


@contextlib.contextmanager
def asking(*questions: Callable[[], object]) -> Iterator[list[str]]:
    """Ask QUESTIONS again and again meanwhile; what failed."""
    failures: list[str] = []
    asked = [0] * len(questions)
    over = threading.Event()

    def ask(number: int) -> None:
        while not over.is_set():
            try:
                questions[number]()
                asked[number] += 1
            except Exception as error:
                failures.append(f"{questions[number].__name__}: {error!r}")
            time.sleep(0.05)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(questions))]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(asked))
        yield failures
        before = list(asked)
        eventually(lambda: all(now > then + 3 for now, then in zip(asked, before, strict=True)) or failures)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    print(f"asked {asked}, failed {len(failures)}")


def test_every_pod_is_ready_and_none_was_restarted(node: Node, release: Release) -> None:
    eventually(lambda: not release.unready())  # a busy machine may have kept a probe waiting
    for name, pod in pods(node).items():
        for each in pod["status"].get("containerStatuses", []):
            assert each["restartCount"] == 0, f"{name}: {each['lastState']}"


def test_helm_test_passes_from_inside_the_cluster(release: Release) -> None:
    said = release.helm.run("test", "headrace", "-n", NAMESPACE, "--logs", "--timeout", "5m", timeout=330)
    assert "operator: 1 ready, one acts" in said
    assert "the database is PostgreSQL" in said
    assert "MLflow answers and writes to its database" in said
    assert "s3://headrace can be written to, read and deleted from" in said


def test_the_operator_s_pod_has_asked_what_the_cluster_lacks(node: Node, release: Release) -> None:
    name = pods(node)["operator"]["metadata"]["name"]
    said = node.kubectl("logs", "-n", NAMESPACE, name, "-c", "prerequisites")
    assert "Kueue 0.17 is not there" in said
    assert "KubeRay" not in said


def test_it_takes_little_when_idle(node: Node, release: Release) -> None:
    time.sleep(20)  # what starting took is over
    found = footprints(node, NAMESPACE, IDLE_SECONDS)
    print(f"\n{table(found)}")
    assert set(found) == {"operator", "mlflow", "postgresql", "s3"}
    whole = total(found)
    assert whole.mebibytes / 1024 < KUBEFLOW_GIBIBYTES / 8
    assert whole.cpus < KUBEFLOW_CPUS / 8


def test_keys_and_passwords_change_while_requests_go_on_and_none_is_lost(node: Node, release: Release) -> None:
    mlflow = f"http://{node.forward_service(NAMESPACE, 'headrace-mlflow', 5000)}"
    store = f"http://{node.forward_service(NAMESPACE, 'headrace-s3', 7070)}"
    held = {
        "aws_access_key_id": secret(node, "headrace-store", "AWS_ACCESS_KEY_ID", WORKSPACE),
        "aws_secret_access_key": secret(node, "headrace-store", "AWS_SECRET_ACCESS_KEY", WORKSPACE),
    }
    s3 = boto3.client(
        "s3", endpoint_url=store, region_name="us-east-1", config=Config(retries={"total_max_attempts": 1}), **held
    )

    def reads_mlflow() -> None:
        answer = httpx.post(f"{mlflow}/api/2.0/mlflow/experiments/search", json={"max_results": 1}, timeout=30)
        answer.raise_for_status()

    def writes_to_the_store_with_the_old_key() -> None:
        s3.put_object(Bucket="headrace", Key="rotation", Body=b"x")

    stayed = {name: pods(node)[name]["metadata"]["uid"] for name in ("postgresql", "s3")}
    replaced = pods(node)["mlflow"]["metadata"]["uid"]
    with asking(reads_mlflow, writes_to_the_store_with_the_old_key) as failures:
        values = release.values()
        upgraded(
            release,
            s3={**values["s3"], "keyGeneration": 2},
            postgresql={**values["postgresql"], "passwordGeneration": 2},
        )
    assert not failures
    assert pods(node)["mlflow"]["metadata"]["uid"] != replaced
    assert {name: pods(node)[name]["metadata"]["uid"] for name in stayed} == stayed
    assert secret(node, "headrace-store", "AWS_ACCESS_KEY_ID", WORKSPACE) == "headrace-2"
    said = release.helm.run("test", "headrace", "-n", NAMESPACE, "--logs", timeout=330)
    assert "s3://headrace can be written to, read and deleted from" in said


def test_a_rollback_needs_no_more(node: Node, release: Release) -> None:
    mlflow = f"http://{node.forward_service(NAMESPACE, 'headrace-mlflow', 5000)}"

    def reads_mlflow() -> None:
        answer = httpx.post(f"{mlflow}/api/2.0/mlflow/experiments/search", json={"max_results": 1}, timeout=30)
        answer.raise_for_status()

    with asking(reads_mlflow) as failures:
        release.helm.rollback(NAMESPACE, 1)
        eventually(lambda: settled(release), START_SECONDS, 0.5)
    assert not failures
    assert secret(node, "headrace-store", "AWS_ACCESS_KEY_ID", WORKSPACE) == "headrace-1"
    assert "can be written to" in release.helm.run("test", "headrace", "-n", NAMESPACE, "--logs", timeout=330)


def test_a_second_operator_waits_and_helm_test_sees_that_one_acts(node: Node, release: Release) -> None:
    upgraded(release, operator={"replicas": 2})
    said = release.helm.run("test", "headrace", "-n", NAMESPACE, "--logs", timeout=330)
    assert "operator: 2 ready, one acts" in said
    upgraded(release)
