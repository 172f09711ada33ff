"""What the chart's pods have, and what workspaces get."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.api.site import Site
from headrace.cluster import rights
from headrace_testbed.helm import NAMESPACE, Render, container, template_of, variables

Values = dict[str, Any]


def test_every_workspace_has_what_steps_need(render: Render) -> None:
    found = render(workspaces=["team-a", "team-b"])
    for space in ("team-a", "team-b"):
        assert found.one("ConfigMap", "headrace-site", space)
        assert found.one("Secret", "headrace-store", space)
        assert found.one("Role", rights.NAME, space)["rules"] == rights.role_rules()
        subjects = found.one("RoleBinding", rights.NAME, space)["subjects"]
        assert {(each["name"], each["namespace"]) for each in subjects} == {
            (name, space) for name in (rights.NAME, "pipeline-runner", "default-editor")
        }
    assert not [each for each in found.of("ConfigMap") if each["metadata"]["name"] == "headrace-site"][2:]


def test_the_release_s_own_namespace_is_the_workspace_unless_told(render: Render) -> None:
    assert render().one("ConfigMap", "headrace-site")["metadata"]["namespace"] == NAMESPACE


@pytest.mark.parametrize("profile", ["small", "standard", "large"])
def test_the_site_is_what_a_step_reads(render: Render, profile: str) -> None:
    pods = {
        "environment": [{"name": "OMP_NUM_THREADS", "value": "2"}],
        "nodeSelector": {"gpu": "yes"},
        "worker": {"cpu": "2", "memory": "40Gi", "gpu": 1},
    }
    site = {"queue": "gpus", "gpusPerWorker": 1, "maxRetries": 5, "ttlSecondsAfterFinished": 86_400, "pods": pods}
    values = {"profile": profile, "site": site}
    told = Site.model_validate_json(render(**values).one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])
    assert told.store.uri == "s3://headrace/store"
    assert told.store.secret_name == "headrace-store"
    assert told.mlflow.tracking_uri == f"http://headrace-mlflow.{NAMESPACE}.svc:5000"
    assert (told.queue, told.gpus_per_worker, told.max_retries) == ("gpus", 1, 5)
    assert told.ttl_seconds_after_finished == 86_400
    assert (told.pods.worker.cpu, told.pods.worker.memory, told.pods.worker.gpu) == ("2", "40Gi", 1)
    assert told.pods.image == "headrace/runtime:0.1.0"
    assert {each.name for each in told.pods.environment} == {"AWS_REGION", "AWS_ENDPOINT_URL", "OMP_NUM_THREADS"}


def test_a_site_that_says_nothing_is_what_steps_take_for_granted(render: Render) -> None:
    told = json.loads(render().one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])
    granted = {name: told.pop(name) for name in ("gpusPerWorker", "maxRetries", "ttlSecondsAfterFinished")}
    site = Site.model_validate(told)
    assert granted == {
        "gpusPerWorker": site.gpus_per_worker,
        "maxRetries": site.max_retries,
        "ttlSecondsAfterFinished": site.ttl_seconds_after_finished,
    }


def test_an_endpoint_that_the_site_s_pods_name_stands_once(render: Render) -> None:
    pods = {"environment": [{"name": "AWS_ENDPOINT_URL", "value": "http://cache:1"}]}
    site = json.loads(render(site={"pods": pods}).one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])
    assert [each["value"] for each in site["pods"]["environment"] if each["name"] == "AWS_ENDPOINT_URL"] == [
        "http://cache:1"
    ]


EVERYTHING: Values = {
    "profile": "standard",
    "monitoring": {"enabled": True},
    "backup": {"enabled": True},
    "mlflow": {"ingress": {"enabled": True, "host": "mlflow.example.com"}},
}
POD: Values = {
    "labels": {"team": "ml"},
    "annotations": {"note": "a"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
}


def test_what_all_pods_have_reaches_every_pod(render: Render) -> None:
    values = {**EVERYTHING, "pods": POD, "global": {"imagePullSecrets": ["registry"]}, "commonLabels": {"cost": "ml"}}
    templates = dict(render(**values).pod_templates())
    assert len(templates) >= 6
    for name, template in templates.items():
        spec, labels = template["spec"], template["metadata"]["labels"]
        assert spec["nodeSelector"] == {"disk": "ssd"}, name
        assert spec["tolerations"] == POD["tolerations"], name
        assert spec["priorityClassName"] == "high", name
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        assert (labels["team"], labels["cost"]) == ("ml", "ml"), name
        assert template["metadata"]["annotations"]["note"] == "a", name
        assert spec["affinity"] == POD["affinity"], name
        for each in [*spec.get("initContainers", []), *spec["containers"]]:
            assert POD["env"][0] in each["env"], f"{name}/{each['name']}"


def test_a_component_s_pod_replaces_what_all_have_key_by_key(render: Render) -> None:
    own = {"nodeSelector": {"zone": "a"}, "tolerations": [], "env": [{"name": "A", "value": "1"}]}
    made = template_of(render(pods=POD, mlflow={"pod": own}), "Deployment", "headrace-mlflow")
    assert made["spec"]["nodeSelector"] == {"disk": "ssd", "zone": "a"}
    assert "tolerations" not in made["spec"]
    for name in ("migrate", "mlflow"):
        assert {"HTTPS_PROXY", "A"} <= set(variables(container(made, name))), name


def test_a_variable_of_a_component_stands_in_place_of_that_of_all(render: Render) -> None:
    own = {"env": [{"name": "HTTPS_PROXY", "value": "http://other:3128"}]}
    made = container(template_of(render(pods=POD, mlflow={"pod": own}), "Deployment", "headrace-mlflow"), "mlflow")
    assert [each["value"] for each in made["env"] if each["name"] == "HTTPS_PROXY"] == ["http://other:3128"]


def test_replicas_spread_over_nodes_unless_told_otherwise(render: Render) -> None:
    spread = template_of(render(), "Deployment", "headrace-operator")["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname"]
    own = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    told = render(pods={"topologySpreadConstraints": own})
    assert template_of(told, "Deployment", "headrace-operator")["spec"]["topologySpreadConstraints"] == own


def test_no_container_may_do_more_than_it_must(render: Render) -> None:
    for name, template in render(**EVERYTHING).pod_templates():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        asks = spec["serviceAccountName"] in ("headrace-operator", "headrace-backup")
        assert spec["automountServiceAccountToken"] is asks, name
        for each in [*spec.get("initContainers", []), *spec["containers"]]:
            security = each["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert each["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in each["resources"]["limits"], name


def test_images_come_from_where_the_values_say(render: Render) -> None:
    digest = "sha256:" + "a" * 64
    images = {"operator": {"tag": "1.2"}, "mlflow": {"digest": digest}}
    found = render(
        images=images, **{"global": {"imageRegistry": "registry.example.com/x", "imagePullPolicy": "Always"}}
    )
    operator = container(template_of(found, "Deployment", "headrace-operator"), "operator")
    assert operator["image"] == "registry.example.com/x/headrace/operator:1.2"
    assert variables(operator)["HEADRACE_OPERATOR_RUNTIME_IMAGE"] == "registry.example.com/x/headrace/runtime:0.1.0"
    assert (
        container(template_of(found, "Deployment", "headrace-mlflow"), "mlflow")["image"]
        == f"registry.example.com/x/headrace/mlflow@{digest}"
    )
    policies = {
        each["imagePullPolicy"]
        for _, template in found.pod_templates()
        for each in [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
    }
    assert policies == {"Always"}


def test_the_checks_use_our_own_images_only(render: Render) -> None:
    checks = [each for each in render().of("Pod") if each["metadata"]["annotations"]["helm.sh/hook"] == "test"]
    assert {each["spec"]["containers"][0]["image"] for each in checks} == {
        "headrace/operator:0.1.0",
        "headrace/mlflow:0.1.0",
    }


def test_labels_and_annotations_of_all_reach_every_object(render: Render) -> None:
    found = render(**EVERYTHING, commonLabels={"cost": "ml"}, commonAnnotations={"owner": "$1 ml"})
    for each in found:
        name = f"{each['kind']}/{each['metadata']['name']}"
        assert each["metadata"]["labels"]["cost"] == "ml", name
        assert each["metadata"]["annotations"]["owner"] == "$1 ml", name


def test_a_pod_s_labels_hold_no_version(render: Render) -> None:
    for name, template in render().pod_templates():
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(template["metadata"]["labels"]), name


def test_selectors_match_their_pods(render: Render) -> None:
    for kind in ("Deployment", "StatefulSet"):
        for each in render().of(kind):
            selector = each["spec"]["selector"]["matchLabels"]
            assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
