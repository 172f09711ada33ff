"""What the chart refuses, before anything is made: wrong values, and clusters that lack something."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_testbed.helm import CHART, Helm, HelmError, Render, container, template_of


def test_helm_lints_it_strictly(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART))


@pytest.mark.parametrize("profile", ["small", "standard", "large"])
def test_helm_lints_every_profile(helm: Helm, profile: str) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), "--set", f"profile={profile}")


def test_no_object_stands_twice(render: Render) -> None:
    seen = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in render(workspaces=["a", "b"])
    ]
    assert len(seen) == len(set(seen))


Values = dict[str, Any]

REFUSED = [
    ({"profile": "tiny"}, "'/profile': value must be one of 'small', 'standard', 'large'"),
    ({"operators": {}}, "additional properties 'operators' not allowed"),
    ({"operator": {"replica": 2}}, "'/operator': additional properties 'replica' not allowed"),
    ({"operator": {"replicas": "two"}}, "'/operator/replicas'"),
    ({"operator": {"workers": 0}}, "'/operator/workers': minimum: got 0, want 1"),
    ({"operator": {"pod": {"tolerations": {}}}}, "'/operator/pod/tolerations': got object, want array"),
    ({"operator": {"resources": {"request": {}}}}, "additional properties 'request' not allowed"),
    ({"mlflow": {"workers": 1.5}}, "'/mlflow/workers'"),
    ({"mlflow": {"external": {"trackingURI": "mlflow:5000"}}}, "'/mlflow/external/trackingURI'"),
    ({"images": {"operator": {"tag": "a b"}}}, "'/images/operator/tag'"),
    ({"images": {"operator": {"digest": "sha256:1"}}}, "'/images/operator/digest'"),
    ({"postgresql": {"persistence": {"size": "ten"}}}, "'/postgresql/persistence/size'"),
    ({"s3": {"bucket": "My_Bucket"}}, "'/s3/bucket'"),
    ({"s3": {"prefix": "/a"}}, "'/s3/prefix'"),
    ({"s3": {"metadata": "none"}}, "'/s3/metadata'"),
    ({"workspaces": ["Team A"]}, "'/workspaces/0'"),
    ({"workspaces": ["a", "a"]}, "'/workspaces'"),
    ({"site": {"pods": {"worker": {"cpus": 2}}}}, "'/site/pods/worker': additional properties 'cpus' not allowed"),
    ({"site": {"gpusPerWorker": -1}}, "'/site/gpusPerWorker'"),
    ({"site": {"ttlSecondsAfterFinished": 0}}, "'/site/ttlSecondsAfterFinished': minimum: got 0, want 3,600"),
    ({"pods": {"nodeSelector": {"gpu": True}}}, "'/pods/nodeSelector/gpu': got boolean, want string"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_a_wrong_value_is_refused_with_its_path(helm: Helm, values: Values, words: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template(values)
    assert words in str(refused.value)


def test_processors_may_be_written_as_a_number(helm: Helm) -> None:
    requests = {"cpu": 0.5, "memory": "1Gi"}
    made = template_of(
        helm.template({"operator": {"resources": {"requests": requests}}}), "Deployment", "headrace-operator"
    )
    assert container(made, "operator")["resources"]["requests"] == requests
    with pytest.raises(HelmError, match="/operator/resources"):
        helm.template({"operator": {"resources": {"requests": {"cpu": -0.5}}}})


TOGETHER = [
    (
        {"operator": {"watchNamespace": "team"}},
        "operator.watchNamespace is team, but runs would run in headrace-system",
    ),
    ({"mlflow": {"enabled": False}}, "mlflow.external.trackingURI is empty and mlflow.enabled is false"),
    ({"postgresql": {"enabled": False}}, "postgresql.existingSecret is empty and postgresql.enabled is false"),
    ({"mlflow": {"ingress": {"enabled": True}}}, "mlflow.ingress.host is empty"),
    ({"s3": {"enabled": False}}, "s3.bucket is headrace, s3.enabled is false and s3.external.endpoint is empty"),
    ({"operator": {"prometheus": {"existingSecret": "token"}}}, "operator.prometheus.url is empty"),
]


@pytest.mark.parametrize(("values", "words"), TOGETHER, ids=[words[:30] for _, words in TOGETHER])
def test_values_that_do_not_go_together_are_refused_with_what_to_do(helm: Helm, values: Values, words: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template(values)
    assert words in str(refused.value)


def test_every_fault_is_told_at_once(helm: Helm) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template({"postgresql": {"enabled": False}, "mlflow": {"ingress": {"enabled": True}}})
    assert all(name in str(refused.value) for name in ("postgresql.existingSecret", "mlflow.ingress.host"))


LIVE = ("--api-versions", "v1/Pod")
KUBERAY = ("--api-versions", "ray.io/v1/RayCronJob")


def test_a_cluster_without_kuberay_is_told_the_command(helm: Helm) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template({}, *LIVE)
    assert "KubeRay 1.6 is missing" in str(refused.value)
    assert "helm install kuberay-operator" in str(refused.value)
    assert "--set prerequisites.check=false" in str(refused.value)
    assert "Prometheus Operator" not in str(refused.value)
    assert "Kueue" not in str(refused.value)


def test_a_kuberay_before_1_6_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmError, match=r"KubeRay 1\.6 is missing: .*definitions older than 1\.6"):
        helm.template({}, *LIVE, "--api-versions", "ray.io/v1/RayJob")


def test_monitoring_needs_the_prometheus_operator(helm: Helm) -> None:
    with pytest.raises(HelmError, match="Prometheus Operator is missing"):
        helm.template({"monitoring": {"enabled": True}}, *LIVE, *KUBERAY)


def test_a_cluster_with_kuberay_is_enough(helm: Helm) -> None:
    assert helm.template({}, *LIVE, *KUBERAY).one("Deployment", "headrace-operator")


def test_the_check_can_be_skipped_and_then_the_pod_does_not_check_either(helm: Helm) -> None:
    found = helm.template({"prerequisites": {"check": False}}, *LIVE)
    assert "initContainers" not in template_of(found, "Deployment", "headrace-operator")["spec"]


def test_the_operator_s_pod_asks_again_for_what_the_values_need(render: Render) -> None:
    asks = container(template_of(render(), "Deployment", "headrace-operator"), "prerequisites")
    assert asks["args"] == ["always"]
    asks = container(
        template_of(render(monitoring={"enabled": True}), "Deployment", "headrace-operator"), "prerequisites"
    )
    assert asks["args"] == ["always", "monitoring"]
