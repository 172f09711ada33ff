"""The chart's life in a real API server: refused where something is missing, installed, upgraded, rolled back, removed.

No kubelet runs, so its pods stay Pending; that they are made at all shows that restricted Pod Security takes them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.api.training_run import TrainingRunSpec
from headrace_operators.model_deployment.rayservice import ray_cluster
from headrace_operators.training_run.rayjob import Attempt, ray_job
from headrace_testbed.api import ApiError, Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.helm import CHART, NAMESPACE, Helm, HelmError
from headrace_testbed.objects import model_deployment, training_run
from headrace_testbed.processes import Daemon, free_port
from headrace_testbed.waiting import eventually
from kuberay_double.install import install_kuberay_kinds

PREVIOUS = Path(__file__).parent / "charts" / "headrace-0.1.0.tgz"
TEAM = "team"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane of its own, at first without KubeRay: a release has cluster-wide objects."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-testbed-chart-"))
    with ControlPlane(folder) as started:
        for name in (NAMESPACE, TEAM):
            labels = {"metadata": {"name": name, "labels": RESTRICTED}}
            started.api.post("/api/v1/namespaces", labels)
            started.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
        yield started
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def without_kuberay(plane: ControlPlane) -> str:
    """What helm says to a cluster that has no KubeRay."""
    with pytest.raises(HelmError) as refused:
        Helm(plane.folder, plane.kubeconfig).install(NAMESPACE)
    return str(refused.value)


@pytest.fixture(scope="module")
def asked_without_kuberay(plane: ControlPlane) -> subprocess.CompletedProcess[str]:
    """What the operator's init container says there."""
    return prerequisites(plane.kubeconfig, "always")


def prerequisites(kubeconfig: Path, *needs: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace_operators.prerequisites", *needs]
    env = {"PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def helm(plane: ControlPlane, without_kuberay: str, asked_without_kuberay: object) -> Helm:
    """helm with a cluster that has KubeRay's kinds."""
    install_kuberay_kinds(plane)
    return Helm(plane.folder, plane.kubeconfig)


@pytest.fixture
def release(plane: ControlPlane, helm: Helm) -> Iterator[Helm]:
    """The chart, installed; and gone afterwards, with what it keeps."""
    helm.install(NAMESPACE, {"workspaces": [TEAM]})
    yield helm
    remove(plane, helm)


def remove(plane: ControlPlane, helm: Helm) -> None:
    with contextlib.suppress(HelmError):
        helm.uninstall(NAMESPACE)
    eventually(lambda: without_claims(plane))


def without_claims(plane: ControlPlane) -> bool:
    """Whether no claim is left, after another try: one that was deleted before its finalizer went is on its way."""
    claims = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
    for claim in plane.api.list(claims):
        for step in (lambda path: plane.api.patch(path, {"metadata": {"finalizers": None}}), plane.api.delete):
            with contextlib.suppress(ApiError):
                step(f"{claims}/{claim['metadata']['name']}")
    return not plane.api.list(claims)


def there(plane: ControlPlane, path: str) -> bool:
    try:
        return bool(plane.api.get(path))
    except ApiError as error:
        if error.status != 404:
            raise
        return False


def secret(plane: ControlPlane, name: str, namespace: str = NAMESPACE) -> dict[str, str]:
    data = plane.api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def workload(plane: ControlPlane, kind: str, name: str) -> Object:
    return plane.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/{name}")


def generations(plane: ControlPlane) -> dict[str, int]:
    """How often each workload's spec was changed."""
    kinds = {"operator": "deployments", "mlflow": "deployments", "postgresql": "statefulsets", "s3": "statefulsets"}
    return {name: workload(plane, kind, f"headrace-{name}")["metadata"]["generation"] for name, kind in kinds.items()}


def pods(plane: ControlPlane) -> set[str]:
    """Components that have a pod."""
    label = "app.kubernetes.io/component"
    return {each["metadata"]["labels"].get(label) for each in plane.api.list(f"/api/v1/namespaces/{NAMESPACE}/pods")}


# -- before -----------------------------------------------------------------------------------------------------------


def test_a_cluster_without_kuberay_is_told_what_is_missing_and_how_to_install_it(without_kuberay: str) -> None:
    assert "KubeRay 1.6 is missing: trainings and endpoints run on Ray" in without_kuberay
    assert "helm install kuberay-operator kuberay-operator --repo" in without_kuberay


def test_the_operator_s_pod_says_the_same_and_does_not_start(
    asked_without_kuberay: subprocess.CompletedProcess[str],
) -> None:
    assert asked_without_kuberay.returncode == 4
    assert "KubeRay 1.6 is missing" in asked_without_kuberay.stdout
    assert "helm install kuberay-operator" in asked_without_kuberay.stdout
    assert "Kueue 0.17 is not there: trainings that name a queue wait in it" in asked_without_kuberay.stdout


def test_a_workspace_that_is_not_there_is_named(helm: Helm) -> None:
    with pytest.raises(HelmError, match=r"there is no namespace nowhere\. Make it: kubectl create namespace nowhere"):
        helm.install(NAMESPACE, {"workspaces": ["nowhere"]})


MLFLOW = {"enabled": False, "external": {"trackingURI": "https://mlflow.example.com", "existingSecret": "theirs"}}
STORE = {"enabled": False, "external": {"endpoint": "https://s3.example.com", "existingSecret": "theirs"}}
VAULT = {"enabled": True, "destination": "s3://vault/x", "s3": {"existingSecret": "theirs"}}
NAMED: list[tuple[dict[str, Any], str, str]] = [  # values, the value that names a Secret, what it must have
    ({"postgresql": {"enabled": False, "existingSecret": "theirs"}}, "postgresql.existingSecret", "uri"),
    (
        {"mlflow": MLFLOW},
        "mlflow.external.existingSecret",
        "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    ),
    ({"s3": STORE}, "s3.external.existingSecret", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ({"backup": VAULT}, "backup.s3.existingSecret", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (
        {"operator": {"prometheus": {"url": "https://prometheus.example.com", "existingSecret": "theirs"}}},
        "operator.prometheus.existingSecret",
        "HEADRACE_OPERATOR_PROMETHEUS_TOKEN",
    ),
]


@pytest.mark.parametrize(("values", "value", "keys"), NAMED, ids=[value for _, value, _ in NAMED])
def test_a_secret_that_is_not_there_or_lacks_its_keys_is_named_with_the_command(
    plane: ControlPlane, helm: Helm, values: dict[str, Any], value: str, keys: str
) -> None:
    with pytest.raises(HelmError) as refused:
        helm.install(NAMESPACE, values)
    command = "--from-literal=" + keys.partition(",")[0].replace(" and ", "=... --from-literal=") + "=..."
    assert f"{value} is theirs, but there is no such Secret" in str(refused.value)
    assert f"kubectl create secret generic theirs -n {NAMESPACE} {command}" in str(refused.value)
    place = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    plane.api.post(place, {"metadata": {"name": "theirs"}, "stringData": {"url": "", "AWS_ACCESS_KEY_ID": "me"}})
    try:
        with pytest.raises(HelmError, match=f"{value} is theirs, .* must have {keys}; it has AWS_ACCESS_KEY_ID, url"):
            helm.install(NAMESPACE, values)
    finally:
        plane.api.delete(f"{place}/theirs")


def test_all_that_is_not_there_is_told_at_once(helm: Helm) -> None:
    backup = {**VAULT, "namespaces": ["gone"], "destination": "/backups", "existingClaim": "disk"}
    with pytest.raises(HelmError) as refused:
        helm.install(NAMESPACE, {"s3": STORE, "backup": backup})
    told = str(refused.value)
    assert "s3.external.existingSecret is theirs" in told
    assert "backup.s3.existingSecret is theirs" in told
    assert f"backup.existingClaim is disk, but there is no such PersistentVolumeClaim in {NAMESPACE}" in told
    assert "backup.namespaces: there is no namespace gone" in told


# -- what is made is right --------------------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "profile": "standard",
    "backup": {"enabled": True},
    "workspaces": [TEAM, NAMESPACE],
    "networkPolicies": {"clients": {"role": "notebooks"}},
    "mlflow": {"ingress": {"enabled": True, "host": "mlflow.example.com", "tlsSecret": "tls"}},
}


def a_pod(template: Object) -> Object:
    """TEMPLATE as a pod that can be tried alone: with the accounts and volumes that come beside it."""
    spec = {**template["spec"], "serviceAccountName": "default"}
    volumes = list(spec.get("volumes", []))
    wanted = {mount["name"] for each in spec["containers"] for mount in each.get("volumeMounts", [])}
    volumes += [{"name": name, "emptyDir": {}} for name in wanted - {each["name"] for each in volumes}]
    metadata = {**template.get("metadata", {}), "name": "tried", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, "volumes": volumes}}


def tried(plane: ControlPlane, manifest: Object) -> Object:
    """What the API server would make of MANIFEST; unknown fields are refused."""
    path = plane.api.path_of(manifest, NAMESPACE).rpartition("/")[0]
    return plane.api.request("POST", path, params={"dryRun": "All", "fieldValidation": "Strict"}, json=manifest)


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"profile": "large", "s3": {"metadata": "sidecar"}}])
def test_the_api_server_takes_every_object_strictly(plane: ControlPlane, helm: Helm, values: dict[str, Any]) -> None:
    for each in helm.template(values, "--api-versions", "ray.io/v1/RayCronJob"):
        assert tried(plane, a_pod(each) if each["kind"] == "Pod" else each)


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_restricted_pod_security_takes_every_pod(plane: ControlPlane, helm: Helm, values: dict[str, Any]) -> None:
    templates = dict(helm.template(values).pod_templates())
    assert {"Deployment/headrace-operator", "StatefulSet/headrace-s3", "Pod/headrace-test-tracking"} <= set(templates)
    for template in templates.values():
        assert tried(plane, a_pod(template))


def test_restricted_pod_security_takes_every_pod_that_the_operators_ask_for(plane: ControlPlane) -> None:
    run = training_run()
    run["metadata"] |= {"namespace": TEAM, "uid": "1"}
    job = ray_job(run, TrainingRunSpec.model_validate(run["spec"]), Attempt(1, "headrace/runtime:0.1.0"))
    deployment = ModelDeploymentSpec.model_validate({**model_deployment()["spec"], "workers": 1})
    clusters = job["spec"]["rayClusterSpec"], ray_cluster("digits", deployment, "headrace/runtime:0.1.0")
    groups = [group for cluster in clusters for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    templates = [group["template"] for group in groups]
    assert len(templates) == 4
    for template in templates:
        assert tried(plane, a_pod(template))
    with pytest.raises(ApiError, match="violates PodSecurity"):  # the namespace is restricted indeed
        tried(plane, a_pod({"spec": {"containers": [{"name": "a", "image": "a"}]}}))


# -- its life ---------------------------------------------------------------------------------------------------------


def test_an_installation_makes_a_pod_of_every_part(plane: ControlPlane, release: Helm) -> None:
    eventually(lambda: {"operator", "mlflow", "postgresql", "s3"} <= pods(plane))
    assert release.revisions(NAMESPACE)[-1]["status"] == "deployed"


def test_the_operator_works_with_the_release_s_rights_and_helm_test_sees_it(
    plane: ControlPlane, release: Helm, tmp_path: Path
) -> None:
    kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "headrace-operator")
    assert prerequisites(kubeconfig, "always").returncode == 0
    assert prerequisites(kubeconfig, "always", "monitoring").returncode == 4
    metrics, health = free_port(), free_port()
    flags = [f"--metrics-address=127.0.0.1:{metrics}", f"--health-address=127.0.0.1:{health}"]
    command = [sys.executable, "-m", "headrace.cli.main", "operator", f"--kubeconfig={kubeconfig}", *flags]
    daemon = Daemon("operator", [*command, f"--lease-namespace={NAMESPACE}"], tmp_path / "log")
    env = {"OPERATOR_SERVICE": "127.0.0.1", "METRICS_PORT": str(metrics), "HEALTH_PORT": str(health)}
    check = [sys.executable, str(CHART / "files" / "checks" / "check_operator.py")]

    def tested(replicas: str, patience: str) -> subprocess.CompletedProcess[str]:
        told = {**env, "OPERATOR_REPLICAS": replicas, "PATIENCE_SECONDS": patience}
        return subprocess.run(check, env=told, capture_output=True, text=True, check=False)

    assert "a replica of 127.0.0.1 does not answer" in tested("1", "0").stderr
    daemon.start()
    try:
        done = tested("1", "180")
        assert done.stdout == "operator: 1 ready, one acts\n", done.stderr + daemon.log_end()
        eventually(lambda: "1 of 2 replicas are ready" in tested("2", "0").stderr)
        assert "is forbidden" not in daemon.log.read_text()
    finally:
        daemon.stop()


def test_notes_say_what_comes_next_and_what_was_not_found(plane: ControlPlane, helm: Helm) -> None:
    notes = helm.install(NAMESPACE, {"workspaces": [TEAM]}).partition("NOTES:")[2]
    remove(plane, helm)
    own = helm.install(NAMESPACE).partition("NOTES:")[2]
    remove(plane, helm)
    assert "their steps may write its Leases" in own
    assert "their steps may write its Leases" not in notes
    assert f"helm test headrace --namespace {NAMESPACE}" in notes
    assert "headrace run" in notes
    assert "Kueue 0.17 was not found" in notes
    assert "DEFAULT_REQUEUE_TIME" in notes
    assert "KubeRay 1.6 was not found" not in notes


ELSEWHERE: dict[str, Any] = {
    "s3": {**STORE, "bucket": "models", "prefix": "team"},
    "mlflow": MLFLOW,
    "global": {"imagePullSecrets": ["registry"]},
    "site": {"gpusPerWorker": 1, "queue": "gpus", "pods": {"worker": {"cpu": "2", "memory": "4Gi"}}},
}


@pytest.mark.parametrize("values", [{}, ELSEWHERE], ids=["small", "elsewhere"])
def test_the_notes_first_run_is_one_that_the_cluster_takes_and_has_what_the_site_says(
    plane: ControlPlane, helm: Helm, values: dict[str, Any]
) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN")
    place = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    plane.api.post(place, {"metadata": {"name": "theirs"}, "stringData": dict.fromkeys(names, "x")})
    try:
        notes = helm.install(NAMESPACE, {"workspaces": [TEAM], **values})
        site = json.loads(helm.manifest(NAMESPACE).one("ConfigMap", "headrace-site")["data"]["HEADRACE_SITE"])
        run = yaml.safe_load(notes.partition(f"kubectl apply -n {TEAM} -f - <<'EOF'\n")[2].partition("EOF\n")[0])
        run["metadata"]["namespace"] = TEAM
        assert tried(plane, run)
        spec = TrainingRunSpec.model_validate(run["spec"])
        gpus = site["pods"]["worker"]["gpu"] = site.pop("gpusPerWorker")
        assert (spec.train.gpus_per_worker, spec.pods.worker.gpu) == (gpus, gpus)
        assert site.items() <= run["spec"].items()
        pods = [spec.pods.head, *[spec.pods.worker] * spec.train.workers.max]
        if not values:  # what `small` is for
            assert sum(int(each.memory.removesuffix("Gi")) for each in pods) <= 4
            assert [each.cpu for each in pods] == ["500m", "1"]
    finally:
        remove(plane, helm)
        plane.api.delete(f"{place}/theirs")


def test_notes_warn_of_what_is_lost_and_of_who_is_turned_away(helm: Helm) -> None:
    def notes(**values: Any) -> str:
        return helm.run("install", "headrace", str(CHART), "-n", NAMESPACE, "--dry-run=client", values=values)

    brief = {"persistence": {"enabled": False}}
    assert "are lost with the database's pod" in notes(postgresql=brief)
    assert "are lost with the database's pod" not in notes(
        postgresql=brief, mlflow={"enabled": False, "external": {"trackingURI": "https://mlflow.example.com"}}
    )
    ingress = {"ingress": {"enabled": True, "host": "mlflow.example.com"}}
    told = "--set 'networkPolicies.clients.kubernetes\\.io/metadata\\.name=ingress-nginx'"
    assert told in notes(mlflow=ingress)
    assert told not in notes(mlflow=ingress, networkPolicies={"clients": {"name": "ingress-nginx"}})
    assert told not in notes()


def test_an_upgrade_from_the_chart_before_keeps_what_it_made(plane: ControlPlane, helm: Helm) -> None:
    helm.install(NAMESPACE, {"workspaces": [TEAM]}, chart=PREVIOUS)
    try:
        plane.api.apply(training_run(), namespace=TEAM)
        names = ("headrace-postgresql", "headrace-s3")
        before = {name: secret(plane, name) for name in names}
        helm.upgrade(NAMESPACE, {"workspaces": [TEAM]})
        for name in names:
            kept = {key: value for key, value in before[name].items() if key.startswith("secret-")}
            assert kept.items() <= secret(plane, name).items()
        assert [each["chart"] for each in helm.revisions(NAMESPACE)] == ["headrace-0.1.0", "headrace-0.2.0"]
        assert there(plane, f"/apis/headrace.dev/v1alpha1/namespaces/{TEAM}/trainingruns/digits")
    finally:
        remove(plane, helm)


def test_a_rollback_to_the_chart_before_brings_back_what_it_made_and_nothing_of_the_newer(
    plane: ControlPlane, helm: Helm
) -> None:
    values = {"workspaces": [TEAM], "profile": "standard", "backup": {"enabled": True}}
    helm.install(NAMESPACE, {"workspaces": [TEAM]}, chart=PREVIOUS)
    try:
        plane.api.apply(training_run(), namespace=TEAM)
        places = [("headrace-postgresql", NAMESPACE), ("headrace-s3", NAMESPACE), ("headrace-store", TEAM)]
        before = {place: secret(plane, *place) for place in places}
        older = {plane.api.path_of(each): each for each in helm.manifest(NAMESPACE)}
        definitions = {path: plane.api.get(path)["spec"] for path in older if "customresourcedefinitions" in path}
        helm.upgrade(NAMESPACE, values)
        newer = {plane.api.path_of(each): each for each in helm.manifest(NAMESPACE)}
        assert all(there(plane, path) for path in newer)
        helm.rollback(NAMESPACE, 1)
        assert {place: secret(plane, *place) for place in places} == before
        assert len(definitions) == 3
        assert {path: plane.api.get(path)["spec"] for path in definitions} == definitions
        assert there(plane, f"/apis/headrace.dev/v1alpha1/namespaces/{TEAM}/trainingruns/digits")
        assert [path for path in older if not there(plane, path)] == []
        gone = newer.keys() - older.keys()
        assert any("networkpolicies" in path for path in gone)  # which 0.1.0 did not have
        assert [path for path in gone if there(plane, path)] == []
        helm.upgrade(NAMESPACE, values)  # and forward again
        assert all(there(plane, path) for path in newer)
    finally:
        remove(plane, helm)


def test_a_larger_volume_is_asked_for_as_the_docs_say(plane: ControlPlane, release: Helm) -> None:
    claim = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/data-headrace-s3-0"
    pod = f"/api/v1/namespaces/{NAMESPACE}/pods/headrace-s3-0"
    eventually(lambda: there(plane, claim) and there(plane, pod))
    uid = plane.api.get(claim)["metadata"]["uid"]
    stays = plane.api.get(pod)["metadata"]["uid"]
    larger = {"workspaces": [TEAM], "s3": {"persistence": {"size": "100Gi"}}}
    with pytest.raises(HelmError, match="updates to statefulset spec for fields other than"):
        release.upgrade(NAMESPACE, larger)
    sets = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/headrace-s3"
    plane.api.delete(sets, {"propagationPolicy": "Orphan"})  # kubectl delete statefulset --cascade=orphan
    eventually(lambda: not there(plane, sets))
    release.upgrade(NAMESPACE, larger)
    asked = workload(plane, "statefulsets", "headrace-s3")["spec"]["volumeClaimTemplates"][0]["spec"]
    assert asked["resources"]["requests"]["storage"] == "100Gi"
    assert plane.api.get(claim)["metadata"]["uid"] == uid
    assert plane.api.get(pod)["metadata"]["uid"] == stays


def test_an_upgrade_that_changes_nothing_restarts_nothing(plane: ControlPlane, release: Helm) -> None:
    before, keys = generations(plane), secret(plane, "headrace-store", TEAM)
    release.upgrade(NAMESPACE, {"workspaces": [TEAM]})
    assert generations(plane) == before
    assert secret(plane, "headrace-store", TEAM) == keys


def test_a_new_key_restarts_mlflow_alone_and_was_known_to_the_store_before(plane: ControlPlane, release: Helm) -> None:
    before, known = generations(plane), secret(plane, "headrace-s3")
    release.upgrade(NAMESPACE, {"workspaces": [TEAM], "s3": {"keyGeneration": 2}})
    assert generations(plane) == {**before, "mlflow": before["mlflow"] + 1}
    now = secret(plane, "headrace-store", TEAM)
    assert (now["AWS_ACCESS_KEY_ID"], now["AWS_SECRET_ACCESS_KEY"]) == ("headrace-2", known["secret-2"])
    accounts = secret(plane, "headrace-s3")["users.json"]
    assert all(f'"headrace-{number}"' in accounts for number in (1, 2, 3))
    assert known["secret-1"] in accounts


def test_a_new_password_restarts_mlflow_alone(plane: ControlPlane, release: Helm) -> None:
    before, known = generations(plane), secret(plane, "headrace-postgresql")
    release.upgrade(NAMESPACE, {"workspaces": [TEAM], "postgresql": {"passwordGeneration": 2}})
    assert generations(plane) == {**before, "mlflow": before["mlflow"] + 1}
    assert f"mlflow_2:{known['secret-2']}@" in secret(plane, "headrace-postgresql-client")["uri"]


def test_a_generation_that_the_server_does_not_know_yet_is_refused(plane: ControlPlane, release: Helm) -> None:
    with pytest.raises(HelmError) as refused:
        release.upgrade(NAMESPACE, {"workspaces": [TEAM], "s3": {"keyGeneration": 3}})
    assert "s3.keyGeneration is 3" in str(refused.value)
    assert "change it by one at a time" in str(refused.value)


def test_a_rollback_brings_back_values_and_keys(plane: ControlPlane, release: Helm) -> None:
    first = secret(plane, "headrace-store", TEAM)
    release.upgrade(NAMESPACE, {"profile": "standard", "workspaces": [TEAM], "s3": {"keyGeneration": 2}})
    assert workload(plane, "deployments", "headrace-operator")["spec"]["replicas"] == 2
    release.rollback(NAMESPACE, 1)
    assert workload(plane, "deployments", "headrace-operator")["spec"]["replicas"] == 1
    assert secret(plane, "headrace-store", TEAM) == first
    budgets = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/headrace-operator"
    assert not there(plane, budgets)


def test_removal_keeps_definitions_objects_and_volumes(plane: ControlPlane, release: Helm) -> None:
    for each in (training_run(), model_deployment()):
        plane.api.apply(each, namespace=TEAM)
    claims = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
    eventually(lambda: len(plane.api.list(claims)) == 2)
    release.uninstall(NAMESPACE)
    ours = f"/apis/headrace.dev/v1alpha1/namespaces/{TEAM}"
    assert there(plane, f"{ours}/trainingruns/digits")
    assert there(plane, f"{ours}/modeldeployments/digits")
    assert {each["metadata"]["name"] for each in plane.api.list(claims)} == {
        "data-headrace-postgresql-0",
        "data-headrace-s3-0",
    }
    assert not there(plane, f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/headrace-operator")
    assert not there(plane, "/apis/rbac.authorization.k8s.io/v1/clusterroles/headrace-operator")


def test_it_can_be_installed_again_over_what_removal_kept(plane: ControlPlane, release: Helm) -> None:
    plane.api.apply(training_run(), namespace=TEAM)
    release.uninstall(NAMESPACE)
    release.install(NAMESPACE, {"workspaces": [TEAM]})
    assert there(plane, f"/apis/headrace.dev/v1alpha1/namespaces/{TEAM}/trainingruns/digits")


# -- what others made -------------------------------------------------------------------------------------------------


def test_keys_of_your_store_are_copied_into_workspaces_and_their_change_restarts_mlflow(
    plane: ControlPlane, helm: Helm
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "bWU=", "AWS_SECRET_ACCESS_KEY": "c2VjcmV0", "notes": "b3VycyBhbG9uZQ=="}
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": NAMESPACE},
        "data": keys,
    }
    plane.api.apply(manifest)
    external = {"endpoint": "https://s3.example.com", "existingSecret": "keys"}
    helm.install(NAMESPACE, {"workspaces": [TEAM], "s3": {"enabled": False, "external": external}})
    try:
        assert secret(plane, "headrace-store", TEAM) == {
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": "https://s3.example.com",  # what `kubectl apply` makes knows nothing else of the store
            "AWS_REGION": "us-east-1",
        }
        before = workload(plane, "deployments", "headrace-mlflow")["metadata"]["generation"]
        plane.api.apply({**manifest, "data": {**keys, "AWS_SECRET_ACCESS_KEY": "bmV3"}})
        helm.upgrade(NAMESPACE, {"workspaces": [TEAM], "s3": {"enabled": False, "external": external}})
        assert secret(plane, "headrace-store", TEAM)["AWS_SECRET_ACCESS_KEY"] == "new"
        assert workload(plane, "deployments", "headrace-mlflow")["metadata"]["generation"] == before + 1
    finally:
        remove(plane, helm)


def test_only_the_login_of_your_mlflow_is_copied_into_workspaces(plane: ControlPlane, helm: Helm) -> None:
    login = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"}
    place = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    plane.api.post(place, {"metadata": {"name": "theirs"}, "stringData": {**login, "admin": "ours alone"}})
    try:
        helm.install(NAMESPACE, {"workspaces": [TEAM], "mlflow": MLFLOW})
        assert secret(plane, "headrace-mlflow", TEAM) == login
    finally:
        remove(plane, helm)
        plane.api.delete(f"{place}/theirs")


def test_a_secret_that_somebody_else_made_in_a_workspace_stays_theirs(plane: ControlPlane, helm: Helm) -> None:
    place = f"/api/v1/namespaces/{TEAM}/secrets"
    plane.api.post(place, {"metadata": {"name": "headrace-store"}, "stringData": {"AWS_ACCESS_KEY_ID": "theirs"}})
    try:
        helm.install(NAMESPACE, {"workspaces": [TEAM]})
        assert secret(plane, "headrace-store", TEAM) == {"AWS_ACCESS_KEY_ID": "theirs"}
    finally:
        remove(plane, helm)
        plane.api.delete(f"{place}/headrace-store")
