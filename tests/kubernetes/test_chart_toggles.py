"""What every toggle of the chart's values comes to."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer.main
import yaml

from headrace.cli.main import app
from headrace_operators import rbac
from headrace_testbed.helm import CHART, NAMESPACE, Objects, Render, container, template_of, variables


def test_crds_are_kept_and_can_be_left_out(render: Render) -> None:
    definitions = render().of("CustomResourceDefinition")
    assert {each["metadata"]["annotations"]["helm.sh/resource-policy"] for each in definitions} == {"keep"}
    assert len(definitions) == 3
    assert not render(crds={"enabled": False}).of("CustomResourceDefinition")


def test_crds_are_those_of_the_code(render: Render) -> None:
    for file in (CHART / "files" / "crds").iterdir():
        made = yaml.safe_load(file.read_text())
        assert render().one("CustomResourceDefinition", made["metadata"]["name"])["spec"] == made["spec"]


def test_the_operator_has_the_rights_of_the_table_and_no_second_list(render: Render) -> None:
    found, expected = render(), rbac.manifests(NAMESPACE)
    for each in expected:
        made = found.one(each["kind"], each["metadata"]["name"])
        assert {key: made.get(key) for key in ("rules", "roleRef", "subjects")} == {
            key: each.get(key) for key in ("rules", "roleRef", "subjects")
        }
    lists = {file.parent.name for file in (CHART / "templates").rglob("*.*") if "verbs:" in file.read_text()}
    assert lists <= {"backup"}  # whose rights are its own


def test_an_operator_of_one_namespace_has_no_cluster_role(render: Render) -> None:
    found = render(operator={"watchNamespace": "team"}, workspaces=["team"])
    expected = rbac.manifests(NAMESPACE, "team")
    assert not found.of("ClusterRole")
    assert not found.of("ClusterRoleBinding")
    role = found.one("Role", "headrace-operator")
    assert (role["metadata"]["namespace"], role["rules"]) == ("team", expected[1]["rules"])
    assert found.one("RoleBinding", "headrace-operator")["roleRef"] == expected[2]["roleRef"]
    env = variables(container(template_of(found, "Deployment", "headrace-operator"), "operator"))
    assert env["HEADRACE_OPERATOR_NAMESPACE"] == "team"


def test_without_the_operator_nothing_of_it_is_left(render: Render) -> None:
    left = [
        each["kind"]
        for each in render(operator={"enabled": False})
        if each["metadata"]["name"].startswith("headrace-operator")
    ]
    assert left == []


def test_profiles_say_how_many_and_values_win(render: Render) -> None:
    def replicas(objects: Objects) -> tuple[int, int]:
        return tuple(
            objects.one("Deployment", f"headrace-{name}")["spec"]["replicas"] for name in ("operator", "mlflow")
        )

    assert replicas(render()) == (1, 1)
    assert replicas(render(profile="standard")) == (2, 2)
    assert replicas(render(profile="large")) == (2, 3)
    assert replicas(render(profile="large", operator={"replicas": 1}, mlflow={"replicas": 0})) == (1, 0)


def test_budgets_are_there_where_there_are_several_pods(render: Render) -> None:
    assert render().names("PodDisruptionBudget") == set()
    assert render(profile="standard").names("PodDisruptionBudget") == {"headrace-operator", "headrace-mlflow"}
    assert not render(profile="standard", podDisruptionBudgets={"enabled": False}).of("PodDisruptionBudget")


def test_resources_of_a_component_replace_the_profile_s(render: Render) -> None:
    own = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    made = template_of(render(operator={"resources": own}), "Deployment", "headrace-operator")
    assert container(made, "operator")["resources"] == own


def test_small_asks_for_less_than_a_processor_and_a_gibibyte(render: Render) -> None:
    requests = [
        each["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
        for kind in ("Deployment", "StatefulSet")
        for each in render().of(kind)
    ]
    assert sum(int(each["cpu"].removesuffix("m")) for each in requests) <= 1000
    assert sum(int(each["memory"].removesuffix("Mi")) for each in requests) <= 1024


def test_mlflow_serves_no_artifacts_and_knows_its_names(render: Render) -> None:
    server = container(template_of(render(), "Deployment", "headrace-mlflow"), "mlflow")
    assert "--no-serve-artifacts" in server["args"]
    assert "--default-artifact-root=s3://headrace/mlflow" in server["args"]
    hosts = next(each for each in server["args"] if each.startswith("--allowed-hosts=")).split("=")[1].split(",")
    assert {"headrace-mlflow", f"headrace-mlflow.{NAMESPACE}.svc", f"headrace-mlflow.{NAMESPACE}.svc:*"} <= set(hosts)
    assert "*" not in hosts
    assert variables(server)["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_an_ingress_is_an_allowed_host(render: Render) -> None:
    found = render(mlflow={"ingress": {"enabled": True, "host": "mlflow.example.com", "tlsSecret": "tls"}})
    assert found.one("Ingress", "headrace-mlflow")["spec"]["tls"] == [
        {"hosts": ["mlflow.example.com"], "secretName": "tls"}
    ]
    arguments = container(template_of(found, "Deployment", "headrace-mlflow"), "mlflow")["args"]
    assert any("mlflow.example.com,mlflow.example.com:*" in each for each in arguments)
    assert not render().of("Ingress")


def test_an_mlflow_of_yours_replaces_ours_and_its_database(render: Render) -> None:
    external = {"enabled": False, "external": {"trackingURI": "https://mlflow.example.com", "existingSecret": "login"}}
    found = render(mlflow=external)
    assert found.names("Deployment") == {"headrace-operator"}
    assert "headrace-postgresql" not in found.names("StatefulSet")
    operator = container(template_of(found, "Deployment", "headrace-operator"), "operator")
    assert variables(operator)["MLFLOW_TRACKING_URI"] == "https://mlflow.example.com"
    assert operator["envFrom"] == [{"secretRef": {"name": "login"}}]
    site = json.loads(found.one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])
    assert site["mlflow"] == {"trackingURI": "https://mlflow.example.com", "secretName": "headrace-mlflow"}


def test_a_database_of_yours_replaces_ours(render: Render) -> None:
    found = render(postgresql={"enabled": False, "existingSecret": "database"})
    assert not any("postgresql" in each["metadata"]["name"] for each in found)
    server = container(template_of(found, "Deployment", "headrace-mlflow"), "mlflow")
    assert variables(server)["MLFLOW_BACKEND_STORE_URI"] == {"secretKeyRef": {"name": "database", "key": "uri"}}


def test_a_store_of_yours_replaces_ours(render: Render) -> None:
    external = {"endpoint": "https://s3.example.com", "existingSecret": "keys"}
    found = render(s3={"enabled": False, "bucket": "models", "prefix": "team", "external": external})
    assert "headrace-s3" not in found.names("StatefulSet")
    assert found.one("ConfigMap", "headrace-site")["data"]["HEADRACE_STORE"] == "s3://models/team/store"
    env = variables(container(template_of(found, "Deployment", "headrace-mlflow"), "mlflow"))
    assert env["AWS_ENDPOINT_URL"] == "https://s3.example.com"
    assert env["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "keys", "key": "AWS_ACCESS_KEY_ID"}}


def test_pods_may_get_their_rights_to_the_store_from_the_cloud(render: Render) -> None:
    found = render(
        s3={"enabled": False, "bucket": "models"},
        mlflow={"serviceAccountAnnotations": {"example.com/role": "mlflow"}},
        steps={"serviceAccountAnnotations": {"example.com/role": "steps"}},
    )
    env = variables(container(template_of(found, "Deployment", "headrace-mlflow"), "mlflow"))
    assert "AWS_ACCESS_KEY_ID" not in env
    assert env["AWS_EC2_METADATA_DISABLED"] == "false"
    accounts = {name: found.one("ServiceAccount", f"headrace-{name}") for name in ("mlflow", "steps")}
    assert {name: each["metadata"]["annotations"]["example.com/role"] for name, each in accounts.items()} == {
        "mlflow": "mlflow",
        "steps": "steps",
    }
    assert "secretName" not in json.loads(found.one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])["store"]


@pytest.mark.parametrize("part", ["postgresql", "s3"])
def test_volumes_outlive_the_release_or_die_with_the_pod(render: Render, part: str) -> None:
    kept = render().one("StatefulSet", f"headrace-{part}")["spec"]
    assert kept["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert kept["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    brief = render(**{part: {"persistence": {"enabled": False}}}).one("StatefulSet", f"headrace-{part}")["spec"]
    assert "volumeClaimTemplates" not in brief
    assert {"name": "data", "emptyDir": {}} in brief["template"]["spec"]["volumes"]


def test_a_storage_class_is_asked_for(render: Render) -> None:
    found = render(s3={"persistence": {"storageClass": "fast", "size": "1Ti"}}).one("StatefulSet", "headrace-s3")
    claim = found["spec"]["volumeClaimTemplates"][0]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "1Ti")


def test_the_sidecar_is_a_toggle(render: Render) -> None:
    def arguments(**values: Any) -> list[str]:
        return container(template_of(render(**values), "StatefulSet", "headrace-s3"), "s3")["args"]

    assert "--sidecar=/data/metadata" not in arguments()
    assert "--sidecar=/data/metadata" in arguments(s3={"metadata": "sidecar"})


def test_what_the_operator_is_told_by_its_values(render: Render) -> None:
    values = {"workers": 3, "mlflowIntervalSeconds": 7, "logLevel": "debug", "logFormat": "text"}
    prometheus = {"url": "https://prometheus.example.com", "existingSecret": "token"}
    made = container(
        template_of(render(operator={**values, "prometheus": prometheus}), "Deployment", "headrace-operator"),
        "operator",
    )
    told = {key.removeprefix("HEADRACE_OPERATOR_"): value for key, value in variables(made).items()}
    assert {key: told[key] for key in ("WORKERS", "MLFLOW_INTERVAL_SECONDS", "LOG_LEVEL", "LOG_FORMAT")} == {
        "WORKERS": "3",
        "MLFLOW_INTERVAL_SECONDS": "7",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "text",
    }
    assert told["PROMETHEUS_URL"] == "https://prometheus.example.com"
    assert made["envFrom"] == [{"secretRef": {"name": "token"}}]


def test_the_operator_knows_every_variable_that_the_chart_sets(render: Render) -> None:
    made = container(template_of(render(), "Deployment", "headrace-operator"), "operator")
    command: Any = typer.main.get_command(app)
    known = {name for each in command.commands["operator"].params for name in _names(each.envvar)}
    own = {name for name in variables(made) if name.startswith("HEADRACE_OPERATOR_")}
    assert own - known == set()


def _names(variable: str | list[str] | None) -> list[str]:
    return [variable] if isinstance(variable, str) else list(variable or [])


def test_web_sites_are_let_in_by_name(render: Render) -> None:
    def arguments(**values: Any) -> list[str]:
        return container(template_of(render(**values), "Deployment", "headrace-mlflow"), "mlflow")["args"]

    sites = ["https://a.example.com", "https://b.example.com"]
    assert f"--cors-allowed-origins={','.join(sites)}" in arguments(mlflow={"corsAllowedOrigins": sites})
    assert not [each for each in arguments() if each.startswith("--cors")]


def test_an_ingress_has_its_class_and_annotations(render: Render) -> None:
    own = {"enabled": True, "host": "mlflow.example.com", "className": "nginx", "annotations": {"a": "b"}}
    made = render(mlflow={"ingress": own}).one("Ingress", "headrace-mlflow")
    assert made["spec"]["ingressClassName"] == "nginx"
    assert made["metadata"]["annotations"] == {"a": "b"}


def test_postgresql_runs_as_the_user_that_its_image_names(render: Render) -> None:
    made = template_of(render(postgresql={"userID": 70}), "StatefulSet", "headrace-postgresql")["spec"]
    assert {made["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {70}


def test_the_steps_role_is_bound_to_the_accounts_that_are_named(render: Render) -> None:
    found = render(workspaces=["team"], steps={"serviceAccounts": ["mine"]})
    subjects = found.one("RoleBinding", "headrace-steps", "team")["subjects"]
    assert [each["name"] for each in subjects] == ["headrace-steps", "mine"]


def test_who_may_use_rays_ports_is_told_to_steps(render: Render) -> None:
    def mode(**values: Any) -> str:
        site = json.loads(render(**values).one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])
        return str(site["authentication"]["mode"])

    assert mode() == "token"
    assert mode(site={"authentication": "none"}) == "none"


def test_kuberay_s_pods_are_known_by_the_labels_that_are_named(render: Render) -> None:
    own = {"app.kubernetes.io/component": None, "app": "kuberay"}
    for name in ("headrace-trainings", "headrace-endpoints"):
        rules = render(networkPolicies={"kuberay": own}).one("NetworkPolicy", name)["spec"]["ingress"]
        selectors = [each.get("podSelector") for rule in rules for each in rule["from"]]
        assert {"matchLabels": {"app": "kuberay"}} in selectors


def test_no_password_is_made_that_nobody_uses(render: Render) -> None:
    assert set(render().one("Secret", "headrace-postgresql")["data"]) == {"secret-1", "secret-2", "roles.sql"}
