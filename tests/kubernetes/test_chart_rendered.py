"""What the chart comes to: every toggle of its values, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from headrace.api.site import Site
from headrace.cluster import rights
from headrace_operators import rbac
from headrace_testbed.helm import CHART, NAMESPACE, Helm, HelmError, Objects

Values = dict[str, Any]
Render = Callable[..., Objects]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def render(helm: Helm) -> Render:
    """The chart with values, each rendered once."""
    known: dict[str, Objects] = {}

    def once(**values: Any) -> Objects:
        key = json.dumps(values, sort_keys=True)
        if key not in known:
            known[key] = helm.template(values)
        return known[key]

    return once


def container(template: Any, name: str) -> Any:
    spec = template["spec"]
    return next(each for each in [*spec.get("initContainers", []), *spec["containers"]] if each["name"] == name)


def variables(of: Any) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in of["env"]}


def template_of(objects: Objects, kind: str, name: str) -> Any:
    return objects.one(kind, name)["spec"]["template"]


def rules(objects: list[Any]) -> list[Any]:
    return [each["rules"] for each in objects]


# -- helm's own opinion -----------------------------------------------------------------------------------------------


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


# -- wrong values -----------------------------------------------------------------------------------------------------

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
    ({"pods": {"nodeSelector": {"gpu": True}}}, "'/pods/nodeSelector/gpu': got boolean, want string"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_a_wrong_value_is_refused_with_its_path(helm: Helm, values: Values, words: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template(values)
    assert words in str(refused.value)


TOGETHER = [
    ({"mlflow": {"enabled": False}}, "mlflow.external.trackingURI is empty and mlflow.enabled is false"),
    ({"postgresql": {"enabled": False}}, "postgresql.existingSecret is empty and postgresql.enabled is false"),
    ({"mlflow": {"ingress": {"enabled": True}}}, "mlflow.ingress.host is empty"),
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


# -- what must be there beforehand ------------------------------------------------------------------------------------

LIVE = ("--api-versions", "v1/Pod")
KUBERAY = ("--api-versions", "ray.io/v1/RayJob")


def test_a_cluster_without_kuberay_is_told_the_command(helm: Helm) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template({}, *LIVE)
    assert "KubeRay 1.6 is missing" in str(refused.value)
    assert "helm install kuberay-operator" in str(refused.value)
    assert "--set prerequisites.check=false" in str(refused.value)
    assert "Prometheus Operator" not in str(refused.value)
    assert "Kueue" not in str(refused.value)


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


# -- toggles ----------------------------------------------------------------------------------------------------------


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
    texts = [file.read_text() for file in (CHART / "templates").rglob("*") if file.is_file()]
    assert not any("apiGroups" in text or "verbs:" in text for text in texts)


def test_an_operator_of_one_namespace_has_no_cluster_role(render: Render) -> None:
    found, expected = render(operator={"watchNamespace": "team"}), rbac.manifests(NAMESPACE, "team")
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
        s3={"enabled": False},
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


# -- workspaces -------------------------------------------------------------------------------------------------------


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
    values = {"profile": profile, "site": {"queue": "gpus", "gpusPerWorker": 1, "maxRetries": 5, "pods": pods}}
    site = Site.model_validate_json(render(**values).one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])
    assert site.store.uri == "s3://headrace/store"
    assert site.store.secret_name == "headrace-store"
    assert site.mlflow.tracking_uri == f"http://headrace-mlflow.{NAMESPACE}.svc:5000"
    assert (site.queue, site.gpus_per_worker, site.max_retries) == ("gpus", 1, 5)
    assert (site.pods.worker.cpu, site.pods.worker.memory, site.pods.worker.gpu) == ("2", "40Gi", 1)
    assert site.pods.image == "headrace/runtime:0.1.0"
    assert {each.name for each in site.pods.environment} == {"AWS_REGION", "AWS_ENDPOINT_URL", "OMP_NUM_THREADS"}


def test_an_endpoint_that_the_site_s_pods_name_stands_once(render: Render) -> None:
    pods = {"environment": [{"name": "AWS_ENDPOINT_URL", "value": "http://cache:1"}]}
    site = json.loads(render(site={"pods": pods}).one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])
    assert [each["value"] for each in site["pods"]["environment"] if each["name"] == "AWS_ENDPOINT_URL"] == [
        "http://cache:1"
    ]


# -- pods -------------------------------------------------------------------------------------------------------------

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


def test_a_component_s_pod_replaces_what_all_have_key_by_key(render: Render) -> None:
    own = {"nodeSelector": {"zone": "a"}, "tolerations": [], "env": [{"name": "A", "value": "1"}]}
    made = template_of(render(pods=POD, mlflow={"pod": own}), "Deployment", "headrace-mlflow")
    assert made["spec"]["nodeSelector"] == {"disk": "ssd", "zone": "a"}
    assert "tolerations" not in made["spec"]
    assert {"HTTPS_PROXY", "A"} <= set(variables(container(made, "mlflow")))


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
        assert spec["automountServiceAccountToken"] is (spec["serviceAccountName"] == "headrace-operator"), name
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
    found = render(**EVERYTHING, commonLabels={"cost": "ml"}, commonAnnotations={"owner": "ml"})
    for each in found:
        if each["kind"] != "CustomResourceDefinition":
            name = f"{each['kind']}/{each['metadata']['name']}"
            assert each["metadata"]["labels"]["cost"] == "ml", name
            assert each["metadata"]["annotations"]["owner"] == "ml", name


# -- NetworkPolicies: rendered right; whether a network enforces them cannot be tried here -----------------------------


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


# -- what restarts ----------------------------------------------------------------------------------------------------


def test_a_pod_s_labels_hold_no_version(render: Render) -> None:
    for name, template in render().pod_templates():
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(template["metadata"]["labels"]), name


def test_selectors_match_their_pods(render: Render) -> None:
    for kind in ("Deployment", "StatefulSet"):
        for each in render().of(kind):
            selector = each["spec"]["selector"]["matchLabels"]
            assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
