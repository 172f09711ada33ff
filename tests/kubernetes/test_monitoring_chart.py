"""What the chart makes for monitoring: the rules that Python fills are the rules that helm fills, and a real API server
takes all of it under the Prometheus Operator's own definitions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.monitoring import names, rules
from headrace.monitoring.generate import BOARDS, DASHBOARDS, ROOT
from headrace.monitoring.parameters import Parameters
from headrace_operators.kinds import MODEL_DEPLOYMENT_LABEL, TRAINING_RUN_LABEL
from headrace_operators.ray_pods import METRICS_PORT
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.debian import debian_program
from headrace_testbed.helm import NAMESPACE, Helm, HelmError, Objects
from headrace_testbed.operators import install_prometheus_operator_kinds

KINDS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


def made(helm: Helm, monitoring: Mapping[str, Any] | None = None, **values: Any) -> Objects:
    """What the chart comes to with monitoring on."""
    whole = {"monitoring": {"enabled": True, **(monitoring or {})}, "prerequisites": {"check": False}, **values}
    return helm.template(whole)


def groups(objects: Objects) -> dict[str, Any]:
    """All groups of rules by name."""
    return {group["name"]: group for each in objects.of("PrometheusRule") for group in each["spec"]["groups"]}


def alerts(objects: Objects) -> list[Any]:
    return [rule for group in groups(objects).values() for rule in group["rules"] if "alert" in rule]


def test_without_it_nothing_of_it_is_made(helm: Helm) -> None:
    found = helm.template({})
    assert [each["kind"] for each in found if each["kind"] in KINDS] == []
    assert not [name for name in found.names("ConfigMap") if "dashboard" in name]


def test_helm_fills_the_rules_as_python_does(helm: Helm) -> None:
    filled = yaml.safe_load(rules.text(Parameters(namespace=NAMESPACE)))["groups"]
    with_backup = groups(made(helm, backup={"enabled": True}))
    assert with_backup == {group["name"]: group for group in filled}


def test_parameters_stand_in_expressions_as_they_were_given(helm: Helm) -> None:
    given = {"availabilityObjective": 0.9995, "latencyThresholdSeconds": 2.5, "backupSeconds": 2592000}
    given |= {"queueWindow": "5m", "noProgressSeconds": 86400}
    as_text = {name: str(value) for name, value in given.items()}
    expected = yaml.safe_load(rules.text(Parameters(namespace=NAMESPACE, **as_text)))["groups"]
    found = groups(made(helm, {"rules": {"parameters": given}}, backup={"enabled": True}))
    assert found == {group["name"]: group for group in expected}


@pytest.mark.parametrize(
    ("there", "values"),
    [
        ("operator ray", {}),
        ("operator", {"monitoring": {"ray": {"enabled": False}}}),
        ("ray", {"monitoring": {"operator": {"enabled": False}}, "backup": {"enabled": True}}),
        ("ray", {"operator": {"enabled": False}}),
        ("", {"monitoring": {"ray": {"enabled": False}}, "operator": {"enabled": False}}),
    ],
)
def test_rules_on_what_nobody_scrapes_here_are_left_out(helm: Helm, there: str, values: dict[str, Any]) -> None:
    found = made(helm, **values)
    expected = yaml.safe_load(rules.text(Parameters(namespace=NAMESPACE), there.split()))["groups"]  # type: ignore[arg-type]
    assert groups(found) == {group["name"]: group for group in expected}
    assert all(each["spec"]["groups"] for each in found.of("PrometheusRule"))


def test_a_release_of_one_namespace_judges_what_is_there_and_nothing_else(helm: Helm) -> None:
    found = groups(made(helm, operator={"watchNamespace": "team"}, workspaces=["team"], backup={"enabled": True}))
    expected = yaml.safe_load(rules.text(Parameters(namespace=NAMESPACE, watched="team")))["groups"]
    assert found == {group["name"]: group for group in expected}


def test_promtool_takes_what_helm_makes(helm: Helm, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": list(groups(made(helm, backup={"enabled": True})).values())}))
    command = [debian_program("prometheus", "promtool"), "check", "rules", "--lint-fatal", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_single_alerts_can_be_set_and_left_out(helm: Helm) -> None:
    set_ = {
        "HeadraceMLflowDown": {"for": "20m", "severity": "warning", "labels": {"team": "ml"}},
        "HeadraceTrainingRunQueued": {"enabled": False},
        "HeadraceLatencyBudgetBurns": {"labels": {"severity": "info"}},
    }
    given = {"alerts": set_, "labels": {"cluster": "one"}, "annotations": {"contact": "#ml"}}
    found = alerts(made(helm, {"rules": given | {"runbooks": "https://docs.example.com/runbooks/"}}))
    assert "HeadraceTrainingRunQueued" not in {rule["alert"] for rule in found}
    mlflow = next(rule for rule in found if rule["alert"] == "HeadraceMLflowDown")
    assert mlflow["for"] == "20m"
    assert mlflow["labels"] == {"severity": "warning", "team": "ml", "cluster": "one"}
    assert mlflow["annotations"]["runbook_url"] == "https://docs.example.com/runbooks/HeadraceMLflowDown.md"
    assert {rule["annotations"]["contact"] for rule in found} == {"#ml"}
    latency = [rule["labels"] for rule in found if rule["alert"] == "HeadraceLatencyBudgetBurns"]
    assert [(labels["severity"], labels["window"]) for labels in latency] == [
        ("info", "1h"),
        ("info", "6h"),
        ("info", "1d"),
        ("info", "3d"),
    ]


@pytest.mark.parametrize(
    ("monitoring", "words"),
    [
        ({"rules": {"alerts": {"HeadraceMlflowDown": {}}}}, "'/monitoring/rules/alerts': additional properties"),
        ({"rules": {"alerts": {"HeadraceMLflowDown": {"for": "soon"}}}}, "HeadraceMLflowDown/for"),
        ({"rules": {"parameters": {"availabilityObjective": 99.9}}}, "parameters/availabilityObjective"),
        ({"rules": {"parameters": {"availabilityObjective": 0.93}}}, "parameters/availabilityObjective"),
        ({"rules": {"parameters": {"latencyThresholdSeconds": 0.3}}}, "parameters/latencyThresholdSeconds"),
        ({"rules": {"parameters": {"waiting": 1}}}, "additional properties 'waiting' not allowed"),
        ({"interval": "often"}, "'/monitoring/interval'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(helm: Helm, monitoring: dict[str, Any], words: str) -> None:
    with pytest.raises(HelmError, match=words):
        made(helm, monitoring)


@pytest.mark.parametrize(
    ("part", "kind", "names_of"),
    [
        ("operator", "ServiceMonitor", {"headrace-operator"}),
        ("ray", "PodMonitor", {"headrace-serving", "headrace-training"}),
        ("rules", "PrometheusRule", {"headrace-operators", "headrace-training", "headrace-serving"}),
        ("dashboards", "ConfigMap", {f"{board.uid}-dashboard" for board in BOARDS}),
    ],
)
def test_each_part_can_be_left_out(helm: Helm, part: str, kind: str, names_of: set[str]) -> None:
    with_it, without = made(helm), made(helm, {part: {"enabled": False}})
    assert with_it.names(kind) - without.names(kind) == names_of


def test_the_operator_s_series_keep_the_namespace_of_what_they_tell_of(helm: Helm) -> None:
    objects = made(helm, {"labels": {"release": "prometheus"}})
    monitor = objects.one("ServiceMonitor", "headrace-operator")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    endpoint = monitor["spec"]["endpoints"][0]
    assert endpoint["honorLabels"] is True
    assert {"targetLabel": "job", "replacement": "headrace-operator", "action": "replace"} in endpoint["relabelings"]
    service = objects.one("Service", "headrace-operator")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize(
    ("name", "label", "renamed"),
    [
        ("headrace-serving", MODEL_DEPLOYMENT_LABEL, names.DEPLOYMENT_LABEL),
        ("headrace-training", TRAINING_RUN_LABEL, names.RUN_LABEL),
    ],
)
def test_pods_of_ray_are_found_by_the_labels_that_the_operator_gives_them(
    helm: Helm, name: str, label: str, renamed: str
) -> None:
    spec = made(helm).one("PodMonitor", name)["spec"]
    assert spec["selector"] == {"matchExpressions": [{"key": label, "operator": "Exists"}]}
    assert spec["namespaceSelector"] == {"any": True}
    endpoint = spec["podMetricsEndpoints"][0]
    assert (endpoint["port"], METRICS_PORT) == ("metrics", 8080)
    meta = "__meta_kubernetes_pod_label_" + label.translate(str.maketrans("./-", "___"))
    assert {"sourceLabels": [meta], "targetLabel": renamed, "action": "replace"} in endpoint["relabelings"]


def test_an_operator_of_one_namespace_is_looked_for_there_only(helm: Helm) -> None:
    found = made(helm, operator={"watchNamespace": "team"}, workspaces=["team"])
    monitor = found.one("PodMonitor", "headrace-serving")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["team"]}


def test_dashboards_are_what_is_committed_with_links_to_the_runbooks(helm: Helm) -> None:
    base = "https://docs.example.com/runbooks"
    found = made(helm, {"rules": {"runbooks": base}, "dashboards": {"namespace": "grafana"}})
    for board in BOARDS:
        config_map = found.one("ConfigMap", f"{board.uid}-dashboard", "grafana")
        assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config_map["metadata"]["annotations"] == {"grafana_folder": "Headrace"}
        committed = (ROOT / DASHBOARDS / f"{board.uid}.json").read_text().replace("$(runbooks)", base)
        assert json.loads(config_map["data"][f"{board.uid}.json"]) == json.loads(committed)
        assert "$(" not in config_map["data"][f"{board.uid}.json"]


def test_a_real_api_server_takes_all_of_it(helm: Helm, control_plane: ControlPlane, namespace: str) -> None:
    install_prometheus_operator_kinds(control_plane)
    found = made(helm, backup={"enabled": True})
    ours = [each for each in found if each["kind"] in KINDS or "dashboard" in each["metadata"]["name"]]
    assert len(ours) == 9
    for each in ours:
        each["metadata"]["namespace"] = namespace
        control_plane.api.apply(each, "test")
