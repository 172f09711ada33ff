"""Who may reach whom, as rendered. Whether a network enforces it cannot be tried here: the test bed's does not."""

from __future__ import annotations

from typing import Any

from headrace_testbed.helm import Render, template_of


def test_every_pod_of_the_chart_that_listens_has_a_policy(render: Render) -> None:
    policies = [each["spec"]["podSelector"]["matchLabels"] for each in render().of("NetworkPolicy")
                if "matchLabels" in each["spec"]["podSelector"]]  # fmt: skip
    for name, template in render().pod_templates():
        if any("ports" in each for each in template["spec"]["containers"]):
            labels = template["metadata"]["labels"].items()
            assert any(policy.items() <= labels for policy in policies), name


def ports(rule: Any) -> set[int] | None:
    return {each["port"] for each in rule["ports"]} if "ports" in rule else None


def test_only_their_own_kind_reaches_every_port_of_ray_s_pods(render: Render) -> None:
    for name, label in {
        "headrace-endpoints": "headrace.dev/model-deployment",
        "headrace-trainings": "headrace.dev/training-run",
    }.items():
        spec = render(workspaces=["team"]).one("NetworkPolicy", name, "team")["spec"]
        own = {"matchExpressions": [{"key": label, "operator": "Exists"}]}
        assert spec["podSelector"] == own
        unbounded = [rule for rule in spec["ingress"] if ports(rule) is None]
        assert [rule["from"] for rule in unbounded] == [[{"podSelector": own}]]  # of the same namespace


def test_the_fronts_answer_whoever_calls_endpoints_and_nothing_else_does(render: Render) -> None:
    values = {"networkPolicies": {"endpointClients": {"calls": "models"}, "metricsNamespaces": {"name": "monitoring"}}}
    found = render(workspaces=["team"], **values)
    clients = {"namespaceSelector": {"matchLabels": {"calls": "models"}}}
    reached = [
        ports(rule)
        for each in found.of("NetworkPolicy")
        for rule in each["spec"]["ingress"]
        if clients in rule.get("from", [])
    ]
    assert reached == [{8000}]
    scraped = [
        ports(rule)
        for each in found.of("NetworkPolicy")
        for rule in each["spec"]["ingress"]
        if {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}} in rule.get("from", [])
    ]
    assert scraped == [{8080}] * 3


def test_the_operator_and_kuberay_reach_the_fronts(render: Render) -> None:
    spec = render().one("NetworkPolicy", "headrace-endpoints")["spec"]
    kuberay = {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}}
    operator = {
        "app.kubernetes.io/name": "headrace",
        "app.kubernetes.io/instance": "headrace",
        "app.kubernetes.io/component": "operator",
    }
    reached = [(each.get("podSelector"), ports(rule)) for rule in spec["ingress"] for each in rule["from"]]
    assert (kuberay, {8265, 52365, 8000}) in reached
    assert ({"matchLabels": operator}, {8000}) in reached
    labels = template_of(render(), "Deployment", "headrace-operator")["metadata"]["labels"]
    assert operator.items() <= labels.items()


def test_the_database_is_mlflow_s_and_the_backup_s(render: Render) -> None:
    spec = render().one("NetworkPolicy", "headrace-postgresql")["spec"]
    components = {
        each["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in spec["ingress"]
        for each in rule["from"]
    }
    assert components == {"mlflow", "backup", "check"}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in spec


def test_workspaces_and_named_clients_reach_mlflow_and_the_store(render: Render) -> None:
    found = render(workspaces=["a", "b"], networkPolicies={"clients": {"role": "notebooks"}})
    for name, port in {"headrace-mlflow": 5000, "headrace-s3": 7070}.items():
        (rule,) = found.one("NetworkPolicy", name)["spec"]["ingress"]
        assert ports(rule) == {port}
        spaces = {
            "namespaceSelector": {
                "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}]
            }
        }
        assert spaces in rule["from"]
        assert {"namespaceSelector": {"matchLabels": {"role": "notebooks"}}} in rule["from"]


def test_policies_are_a_toggle(render: Render) -> None:
    assert not render(networkPolicies={"enabled": False}).of("NetworkPolicy")
