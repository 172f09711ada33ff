"""From `helm install` to an answer, in real pods: trainings that are hit while they train, versions that are swapped.

The tests of this module tell one story in their order: the second version is trained while pods are deleted, and then
replaces the first one while clients ask.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from sklearn.datasets import load_digits

from headrace.api.canonical import default_run_id
from headrace_testbed.api import ApiError, Object
from headrace_testbed.node import Node
from headrace_testbed.release import IMAGES, WORKSPACE, Release
from headrace_testbed.training_runs import condition, events, pods_of, ray_jobs
from headrace_testbed.waiting import eventually

pytestmark = [pytest.mark.images(*IMAGES), pytest.mark.timeout(3600)]

RUNS = f"/apis/headrace.dev/v1alpha1/namespaces/{WORKSPACE}/trainingruns"
DEPLOYMENTS = f"/apis/headrace.dev/v1alpha1/namespaces/{WORKSPACE}/modeldeployments"
PODS = f"/api/v1/namespaces/{WORKSPACE}/pods"
EPOCHS = {"first": 8, "second": 150}
WAIT_SECONDS = 1200  # the second training takes 100 on a quiet machine, 200 on a busy one
CLIENTS = 4


def training_run(release: Release, name: str, **train: Any) -> Object:
    """Digits on two workers, as the site of the chart has it."""
    site = release.site()
    learning = {"epochs": EPOCHS[name], "workers": {"min": 2, "max": 2}, "checkpointEveryEpochs": 1, **train}
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name},
        "spec": {
            "experiment": "digits",
            "tasks": [{"name": "image-classification"}],
            "model": {"name": "resnet8"},
            "train": learning,
            "data": {"source": "builtin:digits", "format": "image-folder"},
            "maxRetries": 3,
            **{key: site[key] for key in ("store", "mlflow", "pods", "authentication")},
        },
    }


def seen(node: Node, path: str) -> Object:
    """The object at PATH, with the status that it may not have yet."""
    found = node.api.get(path)
    return {"status": {}, **found}


def ended(node: Node, path: str) -> Object:
    """The TrainingRun at PATH, once it succeeded."""

    def look() -> Object | None:
        run = seen(node, path)
        state, reason = condition(run, "Succeeded")
        if state == "False":
            pytest.fail(f"{reason}: {run['status'].get('message')}")
        return run if state == "True" else None

    return eventually(look, WAIT_SECONDS, 0.5) or {}


def history(mlflow: httpx.Client, run_id: str, metric: str) -> list[Object]:
    """Every point of a curve."""
    answer = mlflow.get("/metrics/get-history", params={"run_id": run_id, "metric_key": metric})
    answer.raise_for_status()
    points: list[Object] = answer.json().get("metrics", [])
    return points


def register(mlflow: httpx.Client, run: Object, model: str) -> str:
    """Make the package of RUN the next version of MODEL, with the tags that deployers read; its number."""
    uri = run["status"]["packageURI"]
    mlflow.post("/registered-models/create", json={"name": model})
    tags = {"headrace.package_uri": uri, "headrace.package_sha256": uri.rstrip("/").rpartition("/")[2]}
    version = mlflow.post(
        "/model-versions/create",
        json={"name": model, "source": uri, "tags": [{"key": key, "value": value} for key, value in tags.items()]},
    )
    version.raise_for_status()
    return str(version.json()["model_version"]["version"])


def deployment(release: Release, version: str) -> Object:
    """An endpoint of one replica."""
    site = release.site()
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "digits"},
        "spec": {
            "model": {"name": "digits", "version": version},
            "replicas": 1,
            **{key: site[key] for key in ("store", "mlflow", "pods", "authentication")},
        },
    }


def answers(node: Node, version: str) -> Object:
    """The ModelDeployment, once every replica answers with VERSION."""

    def look() -> Object | None:
        found = seen(node, f"{DEPLOYMENTS}/digits")
        available = condition(found, "Available")[0] == "True"
        return found if available and found["status"].get("servingVersion") == version else None

    return eventually(look, WAIT_SECONDS, 0.5) or {}


@dataclass
class Clients:
    """Clients that ask without a pause, each one for itself, until they are told to end."""

    address: str
    model: str = "digits"
    asked: itertools.count[int] = field(default_factory=itertools.count)
    failures: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Clients:
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        client = triton.InferenceServerClient(self.address)
        while not self._over.is_set():
            next(self.asked)
            try:
                self.versions.add(ask(client, self.model, digits(1)).get_response()["model_version"])
            except Exception as error:
                self.failures.append(repr(error))
            time.sleep(0.02)


def digits(count: int) -> np.ndarray:
    """COUNT pictures: [count, 8, 8, 1], bytes."""
    return (load_digits().images[:count, :, :, None] * 255 / 16).round().astype(np.uint8)


def ask(client: triton.InferenceServerClient, model: str, pictures: np.ndarray) -> triton.InferResult:
    """What the endpoint says of PICTURES."""
    tensor = triton.InferInput("image", list(pictures.shape), "UINT8")
    tensor.set_data_from_numpy(pictures)
    return client.infer(model, [tensor], outputs=[triton.InferRequestedOutput("probabilities")])


def ready(client: triton.InferenceServerClient, model: str) -> bool:
    """Whether MODEL can be asked; an address that nobody answers at cannot."""
    try:
        return bool(client.is_model_ready(model))
    except (OSError, HTTPException):
        return False


@pytest.fixture(scope="module")
def mlflow(release: Release) -> Iterator[httpx.Client]:
    with release.mlflow() as client:
        yield client


@pytest.fixture(scope="module")
def story() -> dict[str, Any]:
    """What earlier tests of this module left for later ones."""
    return {}


def test_a_training_run_trains_digits_on_two_workers_and_stands_in_mlflow_with_its_curves(
    node: Node, release: Release, mlflow: httpx.Client, story: dict[str, Any]
) -> None:
    node.api.post(RUNS, training_run(release, "first"))
    until(lambda: len(running(node, "first", "worker")) == 2)
    run = ended(node, f"{RUNS}/first")
    status = run["status"]
    assert (status["attempt"], status.get("failures", 0)) == (1, 0)
    found = mlflow.get("/runs/get", params={"run_id": status["mlflow"]["runID"]}).json()["run"]
    assert found["info"]["status"] == "FINISHED"
    curves = {each["key"] for each in found["data"]["metrics"]}
    assert {"train.loss", "validation.accuracy"} <= curves, sorted(curves)
    assert [point["step"] for point in history(mlflow, status["mlflow"]["runID"], "train.loss")] == list(
        range(1, EPOCHS["first"] + 1)
    )
    assert status["metrics"]["test.accuracy"] > 0.8, status["metrics"]
    story["first"] = register(mlflow, run, "digits")


def test_its_version_answers_tritonclient_through_its_service(
    node: Node, release: Release, story: dict[str, Any]
) -> None:
    node.api.post(DEPLOYMENTS, deployment(release, story["first"]))
    answers(node, story["first"])
    address = f"{node.forward_service(WORKSPACE, 'digits-serve-svc', 8000)}/digits"
    client = triton.InferenceServerClient(address, connection_timeout=60, network_timeout=60)
    eventually(lambda: ready(client, "digits"))  # kube-proxy learns of the Service no sooner than we do
    result = ask(client, "digits", digits(100))
    right = result.as_numpy("probabilities").argmax(axis=1) == load_digits().target[:100]
    assert right.mean() > 0.8
    assert result.get_response()["model_version"] == story["first"]
    story["address"] = address
    (endpoint,) = node.api.list(f"{PODS}?labelSelector=headrace.dev/model-deployment=digits")
    said = log(node, endpoint["metadata"]["name"], "serve/replica_*.log")
    assert said, "what the runbooks read of a replica"


def log(node: Node, name: str, which: str) -> str:
    """The end of a log of Ray's in the pod NAME, as our runbooks say."""
    command = f"tail -n 50 /tmp/ray/session_latest/logs/{which}"
    return node.kubectl("exec", "-n", WORKSPACE, name, "--", "sh", "-c", command).strip()


def deleted(node: Node, name: str) -> None:
    """Delete a pod at once, as a lost node would."""
    node.api.delete(f"{PODS}/{name}?gracePeriodSeconds=0")


def running(node: Node, run: str, kind: str) -> list[str]:
    """The names of the running pods of RUN of KIND, head or worker."""
    return [
        str(each["metadata"]["name"])
        for each in pods_of(node, WORKSPACE, run)
        if each["metadata"]["labels"].get("ray.io/node-type") == kind
        and "deletionTimestamp" not in each["metadata"]
        and each["status"].get("phase") == "Running"
    ]


def pod(node: Node, run: str, kind: str) -> str:
    """The name of a running pod of RUN of KIND."""
    return str((eventually(lambda: running(node, run, kind), WAIT_SECONDS) or [""])[0])


def trained_epochs(release: Release, run: Object, attempt: int) -> list[int]:
    """The epochs that ATTEMPT of RUN trained itself, as it has told in the store: what it resumed it does not tell."""
    store, bucket = release.s3(), release.site()["store"]["uri"].removeprefix("s3://").partition("/")
    run_id = default_run_id(run["metadata"]["name"], run["metadata"]["uid"])
    prefix = f"{bucket[2]}/runs/{run_id}/events/train-1.{attempt}"
    found: list[int] = []
    for entry in store.list_objects_v2(Bucket=bucket[0], Prefix=prefix).get("Contents", ()):
        told = store.get_object(Bucket=bucket[0], Key=entry["Key"])["Body"].read().decode().splitlines()
        found += [event["epoch"] for event in map(json.loads, told) if event["type"] == "metrics"]
    return sorted(found)


def epochs(mlflow: httpx.Client, node: Node, run: str) -> int:
    """Epochs of RUN that stand in MLflow."""
    known = (seen(node, f"{RUNS}/{run}")["status"].get("mlflow") or {}).get("runID")
    return len(history(mlflow, known, "train.loss")) if known else 0


def until(look: Callable[[], bool]) -> None:
    eventually(look, WAIT_SECONDS, 0.5)


def test_a_training_whose_worker_and_then_head_is_deleted_succeeds_in_the_same_mlflow_run(
    node: Node, release: Release, mlflow: httpx.Client, story: dict[str, Any]
) -> None:
    node.api.post(RUNS, training_run(release, "second", seed=1))
    until(lambda: epochs(mlflow, node, "second") >= 5)
    before = epochs(mlflow, node, "second")
    assert log(node, pod(node, "second", "head"), "job-driver-*.log"), "what the runbooks read of a driver"
    assert len(running(node, "second", "worker")) == 2
    deleted(node, pod(node, "second", "worker"))
    until(lambda: epochs(mlflow, node, "second") > before + 5)
    assert seen(node, f"{RUNS}/second")["status"]["attempt"] == 1, "a lost worker is no failure of the attempt"
    reached = epochs(mlflow, node, "second")
    began = seen(node, f"{RUNS}/second")["status"]["mlflow"]["runID"]
    deleted(node, pod(node, "second", "head"))
    run = ended(node, f"{RUNS}/second")
    status = run["status"]
    assert (status["attempt"], status["failures"]) == (2, 1)
    assert [job["metadata"]["name"] for job in ray_jobs(node, WORKSPACE) if "second" in job["metadata"]["name"]] == [
        "second-2"
    ]
    assert {"HeadLost", "AttemptFailed"} <= events(node, WORKSPACE, "second")
    assert status["mlflow"]["runID"] == began
    steps = [point["step"] for point in history(mlflow, began, "train.loss")]
    assert steps == list(range(1, EPOCHS["second"] + 1)), "every epoch stands there once"
    assert reached < EPOCHS["second"], "the head was deleted in mid-training"
    anew = trained_epochs(release, run, 2)
    assert anew == list(range(anew[0], EPOCHS["second"] + 1))
    assert anew[0] > reached, "what MLflow has, the newest checkpoint has: it is not trained again"
    story["second"] = register(mlflow, run, "digits")


def test_the_second_version_replaces_the_first_under_load_without_a_failed_request(
    node: Node, release: Release, story: dict[str, Any]
) -> None:
    with Clients(story["address"]) as clients:
        until(lambda: clients.versions == {story["first"]})
        node.api.patch(f"{DEPLOYMENTS}/digits", {"spec": {"model": {"name": "digits", "version": story["second"]}}})
        answers(node, story["second"])
        until(lambda: story["second"] in clients.versions)
    print(f"{next(clients.asked)} requests while the version was replaced")
    assert clients.failures == []
    assert clients.versions == {story["first"], story["second"]}


def test_deleting_them_leaves_no_pod(node: Node, release: Release) -> None:
    node.api.delete(f"{DEPLOYMENTS}/digits")
    for run in EPOCHS:
        node.api.delete(f"{RUNS}/{run}")

    def gone() -> bool:
        return not node.api.list(PODS)

    eventually(gone, WAIT_SECONDS, 0.5)
    with pytest.raises(ApiError, match="not found"):
        node.api.get(f"{RUNS}/first")
