"""Pods of Ray clusters: what restricted Pod Security and KubeRay ask of every template."""

from __future__ import annotations

import pytest

from headrace.api.parts import Authentication
from headrace.api.pods import EnvironmentVariable, PodResources, PodSettings, Toleration
from headrace.api.quantities import canonical, number, whole
from headrace_operators.ray_pods import Pods, cluster_spec, ray_cpus, reserved_variables, worker_group


def pods(**settings: object) -> Pods:
    return Pods(PodSettings(**settings), "registry/headrace:1", {"headrace.dev/model-deployment": "digits"})


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("1", "1"), ("2000m", "2"), ("1500m", "1500m"), ("0.5", "500m"), ("1.5", "1500m"), ("0", "0"), ("4Gi", "4Gi"),
        ("1024Mi", "1Gi"), ("0.5Gi", "512Mi"), ("1536Mi", "1536Mi"), ("1000M", "1G"), ("1500M", "1500M"),
        ("1.5G", "1500M"),        ("1024", "1024"), ("4096Ki", "4Mi"), ("0.0001", "1m"),
    ],
)  # fmt: skip
def test_a_quantity_is_written_as_kubernetes_itself_writes_it(given: str, written: str) -> None:
    assert canonical(given) == written
    assert given == "0.0001" or number(given) == number(written)


def test_what_is_no_quantity_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match="'4 GB' is no quantity; write a number with a unit, as 500m, 2 or 4Gi"):
        number("4 GB")
    assert (whole("500m"), whole("2.9"), whole("1Ki")) == (0, 2, 1024)


def test_every_template_has_labels_resources_and_what_restricted_pod_security_demands() -> None:
    made = cluster_spec(pods(), Authentication(), head_cpus=1, workers=[worker_group(pods(), "workers", 2)])
    (worker,) = made["workerGroupSpecs"]
    assert worker["scaleStrategy"] == {}
    assert (worker["replicas"], worker["minReplicas"], worker["maxReplicas"]) == (2, 2, 2)
    for template in (made["headGroupSpec"]["template"], worker["template"]):
        assert template["metadata"]["labels"] == {"headrace.dev/model-deployment": "digits"}
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        (container,) = template["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert template["spec"]["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}


def test_who_may_use_the_clusters_ports_is_always_said() -> None:
    def auth(**given: object) -> dict:
        return cluster_spec(pods(), Authentication(**given), head_cpus=0, workers=[])["authOptions"]

    assert auth() == {"mode": "token"}
    assert auth(secret_name="mine") == {"mode": "token", "secretName": "mine"}
    assert auth(mode="none", secret_name="mine") == {"mode": "disabled"}


def test_a_variable_stands_once_and_what_the_operator_fixes_wins_over_the_settings_and_those_over_defaults() -> None:
    settings = PodSettings(environment=[EnvironmentVariable(name=n, value="user") for n in ("A", "B", "B", "C")])
    plan = Pods(settings, "i", {}, ({"name": "A", "value": "ours"},), {"B": "default", "D": "default"}, ("store",))
    (container,) = worker_group(plan, "w", 1)["template"]["spec"]["containers"]
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    always = {"RAY_USAGE_STATS_ENABLED": "0", "HOME": "/tmp", "USER": "headrace"}
    assert values == {"A": "ours", "B": "user", "C": "user", "D": "default"} | always
    assert len(container["env"]) == len(values)
    assert container["envFrom"] == [{"secretRef": {"name": "store"}}]


def test_variables_that_kuberay_would_refuse_are_named() -> None:
    settings = PodSettings(
        environment=[EnvironmentVariable(name=n) for n in ("REDIS_PASSWORD", "MINE", "RAY_AUTH_MODE")]
    )
    assert reserved_variables(settings) == ["RAY_AUTH_MODE", "REDIS_PASSWORD"]


def test_gpus_go_into_the_pod_and_into_ray_under_the_nodes_own_name() -> None:
    plan = pods(worker=PodResources(cpu="2500m", gpu=2), gpu_resource="amd.com/gpu")
    group = worker_group(plan, "workers", 1)
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["amd.com/gpu"] == "2"
    assert group["rayStartParams"]["num-gpus"] == "2"
    assert group["rayStartParams"]["num-cpus"] == "2"
    assert ray_cpus(PodResources(cpu="500m")) == 1


def test_where_pods_may_run_is_passed_on() -> None:
    plan = pods(
        node_selector={"disk": "fast"},
        tolerations=[Toleration(key="gpu", operator="Exists")],
        priority_class_name="high",
        service_account_name="reader",
        image_pull_secrets=["registry"],
    )
    spec = worker_group(plan, "workers", 1)["template"]["spec"]
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert (spec["priorityClassName"], spec["serviceAccountName"]) == ("high", "reader")
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["automountServiceAccountToken"] is False
