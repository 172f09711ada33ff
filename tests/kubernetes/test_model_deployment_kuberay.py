"""The ModelDeployment operator, as a process, beside the real KubeRay 1.6 on a real API server.

No kubelet runs, so pods stay Pending and nothing answers; what KubeRay, Pod Security and the garbage collector do of
what we made is all real. Which version truly answers is shown in `test_model_deployment_front.py`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.model_deployments import (
    DEPLOYMENTS,
    SERVICES,
    RegistryStandIn,
    create,
    events,
    model_deployment,
    pods_of,
    service,
)
from headrace_testbed.operators import KubeRayOperator
from headrace_testbed.training_runs import OperatorProcess, condition, is_so_at_once
from headrace_testbed.waiting import eventually

Object = dict[str, Any]
DRAWN = 30


@pytest.fixture(scope="module")
def mlflow() -> Iterator[RegistryStandIn]:
    with RegistryStandIn() as server:
        yield server


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, crds: None, kuberay: KubeRayOperator) -> Iterator[OperatorProcess]:
    with OperatorProcess(control_plane, "model_deployment") as process:
        yield process


@pytest.fixture(scope="module", autouse=True)
def at_rest(control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn) -> str:
    """The namespace of a deployment that waits for its pods while the other tests go on."""
    name = "model-deployment-at-rest"
    control_plane.api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    create(control_plane, name, model_deployment("digits", mlflow.url))
    return name


def test_kuberay_makes_the_pods_that_were_asked_for(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    create(control_plane, namespace, model_deployment("digits", mlflow.url, replicas=2))
    pods = eventually(lambda: found if len(found := pods_of(control_plane, namespace, "digits")) == 2 else None)
    by_type = {pod["metadata"]["labels"]["ray.io/node-type"]: pod for pod in pods}
    assert sorted(by_type) == ["head", "worker"]
    for pod in pods:
        container = pod["spec"]["containers"][0]
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "auth_token"
        assert environment["RAY_SERVE_ENABLE_HA_PROXY"]["value"] == "1"
        assert environment["HEADRACE_STORE"]["value"] == "s3://models"
        assert container["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Mi"}
        assert not any("serviceaccount" in path for path in mounts)
    probe = by_type["worker"]["spec"]["containers"][0]["readinessProbe"]
    assert (probe["httpGet"]["path"], probe["httpGet"]["port"]) == ("/-/healthz", 8000)
    assert "exec" not in probe


def test_kuberay_leaves_our_fields_alone_and_a_second_apply_makes_no_generation(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    create(control_plane, namespace, model_deployment("digits", mlflow.url, replicas=2))
    eventually(lambda: len(pods_of(control_plane, namespace, "digits")) == 2)
    time.sleep(5)  # two of KubeRay's rounds
    there = service(control_plane, namespace, "digits")
    assert there["metadata"]["generation"] == 1
    owned = {
        entry["manager"]: entry["fieldsV1"]
        for entry in there["metadata"]["managedFields"]
        if "subresource" not in entry
    }
    others = {manager: fields for manager, fields in owned.items() if manager != "headrace-operator"}
    assert "f:spec" in owned["headrace-operator"]
    assert all("f:spec" not in fields for fields in others.values()), others
    metadata = {
        key: there["metadata"][key] for key in ("name", "namespace", "labels", "annotations", "ownerReferences")
    }
    again = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": metadata, "spec": there["spec"]}
    applied = control_plane.api.apply(again, manager="headrace-operator")
    assert applied["metadata"]["generation"] == 1


def test_a_moved_alias_is_an_edit_in_place(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    mlflow.aliases["moving"] = "7"
    model = {"name": "digits", "alias": "moving"}
    path = create(control_plane, namespace, model_deployment("digits", mlflow.url, model=model))
    eventually(lambda: pods_of(control_plane, namespace, "digits"))
    before = service(control_plane, namespace, "digits")
    clusters = f"/apis/ray.io/v1/namespaces/{namespace}/rayclusters"
    (cluster,) = control_plane.api.list(clusters)
    mlflow.aliases["moving"] = "8"
    started = time.monotonic()
    eventually(lambda: control_plane.api.get(path)["status"].get("wantedVersion") == "8")
    print(f"a moved alias is in the RayService after {time.monotonic() - started:.1f} s (asked every second here)")
    after = service(control_plane, namespace, "digits")
    assert after["spec"]["rayClusterConfig"] == before["spec"]["rayClusterConfig"]
    stable = json.loads(after["spec"]["serveConfigV2"])["applications"][0]["deployments"][0]["user_config"]["stable"]
    assert stable == {"version": "8", "package_uri": "s3://models/8", "sha256": "8" * 64}
    time.sleep(5)
    assert [each["metadata"]["uid"] for each in control_plane.api.list(clusters)] == [cluster["metadata"]["uid"]]
    assert "version 8 replaces version 7" in events(control_plane, namespace, "digits")["Deploying"]


def test_what_is_waited_for_stands_in_status_and_events(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    path = create(control_plane, namespace, model_deployment("digits", mlflow.url))
    eventually(lambda: condition(control_plane.api.get(path), "Available") == ("False", "NoEndpoints"))
    eventually(lambda: condition(control_plane.api.get(path), "Progressing") == ("True", "WaitingForPods"))
    status = control_plane.api.get(path)["status"]
    assert "the head's pod fits on no node" in status["message"]
    assert status["url"] == f"http://digits-serve-svc.{namespace}.svc:8000/digits"
    assert "servingVersion" not in status, "nothing answers, so none is named"
    assert {"Deploying", "WaitingForPods"} <= set(events(control_plane, namespace, "digits"))


def test_pods_that_a_quota_refuses_are_told_in_the_api_servers_words(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    control_plane.api.post(quotas, quota)
    eventually(lambda: control_plane.api.get(f"{quotas}/none").get("status", {}).get("hard"))
    path = create(control_plane, namespace, model_deployment("digits", mlflow.url))
    eventually(lambda: condition(control_plane.api.get(path), "Progressing") == ("True", "WaitingForPods"))
    assert "pods cannot be made" in control_plane.api.get(path)["status"]["message"]
    assert "exceeded quota: none" in control_plane.api.get(path)["status"]["message"]
    control_plane.api.delete(f"{quotas}/none")
    eventually(lambda: pods_of(control_plane, namespace, "digits"))


def test_a_wrong_combination_becomes_a_condition_within_a_second_and_mending_it_recovers(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    def made(number: int) -> Callable[[], bool]:
        wrong = model_deployment(f"digits-{number}", mlflow.url, replicas=9, workers=1)
        path = create(control_plane, namespace, wrong)
        return lambda: condition(control_plane.api.get(path), "Accepted") == ("False", "InvalidSpec")

    is_so_at_once(made)
    path = f"{DEPLOYMENTS.format(namespace)}/digits-0"
    assert "9 replicas of 1 CPU do not fit" in control_plane.api.get(path)["status"]["message"]
    control_plane.api.patch(path, {"spec": {"replicas": 2}})
    service(control_plane, namespace, "digits-0")
    eventually(lambda: condition(control_plane.api.get(path), "Accepted") == ("True", "Accepted"))


def test_an_alias_that_is_not_there_is_told_and_setting_it_recovers(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    model = {"name": "digits", "alias": "later"}
    path = create(control_plane, namespace, model_deployment("digits", mlflow.url, model=model))
    eventually(lambda: condition(control_plane.api.get(path), "Resolved") == ("False", "NotFound"))
    mlflow.aliases["later"] = "3"
    service(control_plane, namespace, "digits")
    eventually(lambda: control_plane.api.get(path)["status"].get("wantedVersion") == "3")


def test_what_somebody_changed_in_the_rayservice_is_set_right(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    create(control_plane, namespace, model_deployment("digits", mlflow.url))
    service(control_plane, namespace, "digits")
    path = f"{SERVICES.format(namespace)}/digits"
    wanted = control_plane.api.get(path)["spec"]["serveConfigV2"]
    control_plane.api.patch(path, {"spec": {"serveConfigV2": "applications: []"}})
    eventually(lambda: control_plane.api.get(path)["spec"]["serveConfigV2"] == wanted)


def test_a_deployment_made_anew_under_its_old_name_gets_a_rayservice_of_its_own(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    path = create(control_plane, namespace, model_deployment("digits", mlflow.url))
    before = service(control_plane, namespace, "digits")["metadata"]["uid"]
    control_plane.api.delete(path)
    create(control_plane, namespace, model_deployment("digits", mlflow.url))
    uid = control_plane.api.get(path)["metadata"]["uid"]

    def anew() -> bool:
        there = [each["metadata"] for each in control_plane.api.list(SERVICES.format(namespace))]
        return [(each["uid"] != before, each["ownerReferences"][0]["uid"]) for each in there] == [(True, uid)]

    eventually(anew)


def test_a_rayservice_of_the_same_name_that_is_somebody_elses_is_left_alone(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    theirs = {"rayClusterConfig": {"headGroupSpec": {"rayStartParams": {}, "template": {"spec": {"containers": []}}}}}
    body = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "digits"}, "spec": theirs}
    made = control_plane.api.post(SERVICES.format(namespace), body)
    path = create(control_plane, namespace, model_deployment("digits", mlflow.url))
    eventually(lambda: condition(control_plane.api.get(path), "Progressing") == ("False", "NameTaken"))
    there = service(control_plane, namespace, "digits")
    assert (there["spec"], there["metadata"].get("ownerReferences")) == (made["spec"], None)
    control_plane.api.delete(f"{SERVICES.format(namespace)}/digits")
    eventually(lambda: service(control_plane, namespace, "digits")["metadata"].get("ownerReferences"))


def test_everything_goes_with_the_deployment(
    control_plane: ControlPlane, operator: OperatorProcess, mlflow: RegistryStandIn, namespace: str
) -> None:
    path = create(control_plane, namespace, model_deployment("digits", mlflow.url))
    eventually(lambda: pods_of(control_plane, namespace, "digits"))
    control_plane.api.delete(path)
    eventually(lambda: not control_plane.api.list(SERVICES.format(namespace)))
    eventually(lambda: not pods_of(control_plane, namespace, "digits"))


def test_thirty_drawn_specs_are_refused_by_neither_kuberay(
    control_plane: ControlPlane,
    operator: OperatorProcess,
    kuberay_1_7: ControlPlane,
    mlflow: RegistryStandIn,
    namespace: str,
) -> None:
    draw = random.Random(7)
    for number in range(DRAWN):
        name = f"d{number}{'x' * draw.randint(0, 38 - len(str(number)))}"
        create(control_plane, namespace, _drawn(draw, name, mlflow.url))

    def taken_up() -> list[Object] | None:
        services = control_plane.api.list(SERVICES.format(namespace))
        seen = [each for each in services if (each.get("status") or {}).get("conditions")]
        return services if len(seen) == DRAWN else None

    services = eventually(taken_up, 240)
    conditions = [entry for each in services for entry in each["status"]["conditions"]]
    assert [entry for entry in conditions if entry["reason"] == "ValidationFailed"] == []
    assert {each["metadata"]["generation"] for each in services} == {1}
    for each in services:
        metadata = {name: each["metadata"][name] for name in ("name", "labels", "annotations")}
        manifest = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": metadata, "spec": each["spec"]}
        kept = kuberay_1_7.api.apply(manifest, namespace="default")["spec"]
        assert _within(each["spec"], kept), "1.7 adds defaults of its own and changes nothing"


def test_when_all_is_quiet_nothing_is_written(
    control_plane: ControlPlane, operator: OperatorProcess, at_rest: str
) -> None:
    operator.rests_for(at_rest, 20)
    found = control_plane.api.get(f"{DEPLOYMENTS.format(at_rest)}/digits")
    assert condition(found, "Progressing") == ("True", "WaitingForPods")


def _within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole)


def _drawn(draw: random.Random, name: str, mlflow: str) -> Object:
    """A valid ModelDeployment, of all that people may ask for."""
    memory = draw.choice(["1Gi", "1.5Gi", "2000M"])
    gpus = draw.choice([0, 0, 1, 4])
    spec: Object = {
        "model": draw.choice([{"name": "digits", "alias": "champion"}, {"name": "a/b c", "version": "12"}]),
        "resources": draw.choice(
            [{}, {"cpus": 0}, {"cpus": 0.25}, {"cpus": 0.5, "gpus": 0.5 if gpus else 0}, {"memoryBytes": 10**8}]
        ),
        "pods": {
            "head": {"cpu": draw.choice(["500m", "1", "1.5"]), "memory": memory, "gpu": gpus},
            "worker": {"cpu": draw.choice(["1", "2.5"]), "memory": memory, "gpu": gpus},
            "sharedMemory": draw.choice(["100M", "256Mi", "0.25Gi"]),
            "nodeSelector": draw.choice([{}, {"disk": "ssd"}]),
            "tolerations": draw.choice([[], [{"operator": "Exists"}], [{"key": "gpu", "value": "yes"}]]),
            "environment": draw.choice(
                [[], [{"name": "HEADRACE_SERVE_MAX_DELAY_MS", "value": "2"}, {"name": "EMPTY"}]]
            ),
            "imagePullSecrets": draw.choice([[], ["registry"]]),
        },
        "authentication": draw.choice([{}, {"mode": "none"}, {"secretName": "token"}]),
        "store": draw.choice([{"uri": "s3://models"}, {"uri": "s3://models", "secretName": "bucket-keys"}]),
    }
    spec |= draw.choice([{}, {"replicas": 2}, {"autoscaling": {"maxReplicas": 3}}, {"workers": 1}])
    if draw.random() < 0.3:
        redis: Object = {"redisAddress": "redis:6379"}
        spec["gcsFaultTolerance"] = redis | draw.choice([{}, {"passwordSecretName": "redis"}])
    return model_deployment(name, mlflow, **spec)
