"""The real operator, scraped by a real Prometheus with the rules that the chart ships: each alert by its own fault.

KubeRay and the fronts are doubles here; MLflow is real, and what is done to the operator, to MLflow and to the objects
is what happens to them in a night. What fronts serve is `tests/local/test_monitoring_serving.py`'s.
"""

from __future__ import annotations

import base64
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.monitoring.parameters import Parameters
from headrace_chaos.storm import ACCOUNT, Field, field_of
from headrace_chaos.story import BROKEN
from headrace_testbed.api import ApiError
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.mlflow_server import START_SECONDS, MLflowServer
from headrace_testbed.model_deployments import model_deployment
from headrace_testbed.monitoring import Watch, asks_pods, has_data, questions, recordings, with_everything_chosen
from headrace_testbed.processes import free_port
from headrace_testbed.replica import Replica
from headrace_testbed.stand_in import Reply, StandIn, json_reply
from headrace_testbed.training_runs import training_run
from headrace_testbed.waiting import eventually
from kuberay_double import Behaviour, Script
from kuberay_double.scenarios import ray_job

Object = dict[str, Any]
SPACE = "watched"
OURS = f"/apis/headrace.dev/v1alpha1/namespaces/{SPACE}"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SPACE}/leases"
PERMANENT = 'HEADRACE_FAILURE {"code": "invalid-input", "message": "no such column", "permanent": true}'
ORDINARY = Script()
IMPATIENT = Parameters(
    namespace=SPACE,
    waitingSeconds="5",
    queuedSeconds="5",
    noProgressSeconds="10",
    queueDepth="30",
    queueWindow="4s",
    backupSeconds="20",
)
# What the fronts of two deployments would serve; a quarter of the requests to one fails.
OF_FRONTS: list[Object] = [
    {"record": "ray_headrace_requests_waiting", "labels": {"namespace": SPACE, "deployment": name}, "expr": "vector(0)"}
    for name in ("digits", "lame", "lost")
]
OF_FRONTS += [
    {
        "record": "ray_headrace_requests_total",
        "labels": {"namespace": SPACE, "deployment": "digits", "code": code},
        "expr": f"time() * {rate}",
    }
    for code, rate in (("200", 30), ("500", 10))
]


class Kubelet:
    """Starts the operator again when it has ended, as a kubelet would: on a busy machine it may lose its lease."""

    def __init__(self, operator: Replica) -> None:
        self._operator = operator
        self._on, self._over = threading.Event(), threading.Event()
        self._hand = threading.Lock()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Kubelet:
        self.allow()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._operator.kill()

    def allow(self) -> None:
        """There is to be an operator."""
        self._on.set()

    def forbid(self) -> None:
        """There is to be none, as on a node that is gone."""
        with self._hand:
            self._on.clear()
        self._operator.kill()

    def replace(self) -> None:
        """Let there be another one, as in a rollout: the one before gives its lease up."""
        with self._hand:
            self._operator.stop(60)

    def _look(self) -> None:
        while not self._over.wait(0.3):
            with self._hand:
                if self._on.is_set() and not self._operator.running:
                    self._operator.start()


@dataclass
class World:
    """What the tests act on."""

    plane: ControlPlane
    field: Field
    mlflow: MLflowServer
    kubelet: Kubelet
    watch: Watch

    def run(self, name: str, script: Script = ORDINARY, **spec: Any) -> None:
        """A TrainingRun whose MLflow run has reported once."""
        self.mlflow.start_run(f"id-{name}", attempt="1.1", cpu_seconds="120", gpu_seconds="60")
        made = training_run(name, self.mlflow.url, run_id=f"id-{name}", **spec)
        made["spec"]["pods"]["environment"] = [script.to_variable()]
        self.plane.api.post(f"{OURS}/trainingruns", made)

    def deploy(self, name: str, version: str = "7", script: Script = ORDINARY, **spec: Any) -> None:
        """A ModelDeployment of a version."""
        made = model_deployment(name, self.mlflow.url, **spec)
        made["spec"]["model"] = {"name": "digits", "version": version}
        made["spec"]["pods"]["environment"] = [script.to_variable()]
        self.plane.api.post(f"{OURS}/modeldeployments", made)

    def monitor(self, name: str, url: str) -> None:
        """A ModelMonitor of the endpoint `digits`."""
        spec = {"deploymentName": "digits", "prometheus": {"url": url}, "intervalSeconds": 5, "windowSeconds": 15}
        spec["objectives"] = {"maxErrorRatio": 0.05}
        body = {"apiVersion": "headrace.dev/v1alpha1", "kind": "ModelMonitor", "metadata": {"name": name}, "spec": spec}
        self.plane.api.post(f"{OURS}/modelmonitors", body)

    def answers(self, name: str, replicas: int) -> None:
        """Wait until so many replicas of a deployment answer."""

        def look() -> bool:
            status = self.plane.api.get(f"{OURS}/modeldeployments/{name}").get("status") or {}
            return status.get("answeringReplicas") == replicas

        eventually(look)


def backup_lease(age: timedelta) -> Object:
    """What `headrace backup` leaves."""
    renewed = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "headrace-backup", "renewTime": renewed}
    return {"metadata": {"name": "headrace-backup", "namespace": SPACE}, "spec": spec}


@pytest.fixture(scope="module")
def world(played_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    port = free_port()
    scrape = {
        "job_name": "headrace-operator",
        "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": SPACE, "pod": "operator-1"}}],
    }
    played_plane.api.post("/api/v1/namespaces", {"metadata": {"name": SPACE}})
    with (
        Watch(tmp_path_factory.mktemp("watch"), [scrape], IMPATIENT, OF_FRONTS) as watch,
        MLflowServer(tmp_path_factory.mktemp("mlflow")) as mlflow,
        field_of(played_plane, SPACE, mlflow) as field,
    ):
        mlflow.register("digits", 7)
        played_plane.api.post(LEASES, backup_lease(timedelta(hours=-3)))  # stays young enough for all of the tests
        kubeconfig = played_plane.kubeconfig_for_service_account(SPACE, ACCOUNT)
        flags = ["--namespace", SPACE, "--lease-namespace", SPACE, "--kubeconfig", str(kubeconfig)]
        flags += ["--health-address", "", "--metrics-address", f"127.0.0.1:{port}", "--mlflow-interval-seconds", "1"]
        flags += ["--workers", "1"]
        command = [Path(sys.executable).parent / "headrace", "operator", *flags]
        log = played_plane.folder / "watched.log"
        operator = Replica("headrace-operator", command, log, {"MLFLOW_TRACKING_URI": mlflow.url})
        with Kubelet(operator) as kubelet:
            yield World(played_plane, field, mlflow, kubelet, watch)


@pytest.fixture(scope="module")
def quiet(world: World) -> World:
    """An ordinary evening: a run that has ended well and an endpoint that answers."""
    world.run("ends-well", Script(Behaviour(run_seconds=1.0)))
    world.deploy("digits")
    world.answers("digits", 1)
    path = f"{OURS}/trainingruns/ends-well"
    eventually(lambda: world.plane.api.get(path)["status"]["phase"] == "Succeeded")
    return world


def test_nothing_fires_while_all_is_well(quiet: World) -> None:
    eventually(lambda: has_data(quiet.watch, "headrace_mlflow_up == 1"))
    eventually(lambda: has_data(quiet.watch, "headrace_backup_last_success_timestamp_seconds"))

    def nothing_fires_for_a_while() -> bool:
        """A reading of the operator's metrics that takes a busy machine more than a second is one that failed."""
        for _ in range(10):
            told = [alert["labels"] for alert in quiet.watch.ask("alerts")["alerts"] if alert["state"] == "firing"]
            assert [alert for alert in told if alert["alertname"] != "HeadraceAvailabilityBudgetBurns"] == []
            time.sleep(0.5)
        return True

    eventually(nothing_fires_for_a_while)


@pytest.fixture(scope="module")
def troubled(quiet: World) -> World:
    """Later: a run whose image is not there, one in a queue that nobody serves, one that trains and says nothing."""
    quiet.run("no-image", Script(Behaviour("never-ready")))
    quiet.run("in-queue", queue="lab")
    quiet.run("silent", Script(Behaviour("runs-on")))
    return quiet


def test_runs_that_wait_for_pods_or_stand_in_a_queue_are_told_apart(troubled: World) -> None:
    of = {"namespace": SPACE, "name": "no-image", "reason": "ImagePullFailed"}
    troubled.watch.wait_until_it_fires("HeadraceTrainingRunWaiting", **of)
    queued = troubled.watch.wait_until_it_fires("HeadraceTrainingRunQueued", namespace=SPACE, name="in-queue")
    assert queued["labels"]["severity"] == "info"
    assert not troubled.watch.firing("HeadraceTrainingRunWaiting", name="in-queue")


def test_a_run_that_reports_nothing_new_is_told_until_it_does(troubled: World) -> None:
    of = {"namespace": SPACE, "name": "silent"}
    troubled.watch.wait_until_it_fires("HeadraceTrainingRunNoProgress", **of)
    mlflow_run, epochs = _mlflow_run(troubled, "id-silent"), itertools.count(1)

    def reports_and_is_heard() -> bool:
        """Ten seconds after a report it is silent again."""
        epoch = str(next(epochs))
        troubled.mlflow.tag_run(mlflow_run, checkpoint_uri=f"s3://bucket/{epoch}", checkpoint_epoch=epoch)
        return not troubled.watch.firing("HeadraceTrainingRunNoProgress", **of)

    eventually(reports_and_is_heard, pause_seconds=1)


def _mlflow_run(world: World, run_id: str) -> str:
    asked = {"experiment_ids": ["0"], "filter": f"tags.`headrace.run_id` = '{run_id}'"}
    return str(world.mlflow.post("/runs/search", asked)["runs"][0]["info"]["run_id"])


def test_every_question_to_the_operator_has_an_answer(troubled: World) -> None:
    asked = {panel: query for panel, query in questions().items() if not asks_pods(query)}
    assert len(asked) > 25

    def all_answered() -> bool:
        assert [panel for panel, query in asked.items() if not has_data(troubled.watch, query)] == []
        return True

    eventually(all_answered)


def test_what_is_recorded_of_the_operator_has_data(quiet: World) -> None:
    recorded = [name for name, made_of in recordings().items() if not asks_pods(made_of)]
    assert "namespace_name:headrace_workqueue_depth:sum" in recorded
    for name in recorded:
        eventually(lambda name=name: has_data(quiet.watch, with_everything_chosen(name)))


def test_attempts_that_fail_one_after_the_other_are_told(quiet: World) -> None:
    for number in range(4):
        quiet.run(f"fails-{number}", Script(Behaviour("fails", message=PERMANENT)))
    alert = quiet.watch.wait_until_it_fires("HeadraceTrainingRunsFailing", namespace=SPACE)
    assert "attempts of TrainingRuns in namespace watched failed" in alert["annotations"]["description"]


def test_a_guard_that_refuses_what_the_operator_makes_is_told(quiet: World) -> None:
    policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    rules = [{"apiGroups": ["ray.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["rayjobs"]}]
    refuses = [{"expression": "object.metadata.name != 'refused-1'", "message": "this team may not train"}]
    spec = {"matchConstraints": {"resourceRules": rules}, "validations": refuses, "failurePolicy": "Fail"}
    quiet.plane.api.post(policies, {"metadata": {"name": "guard"}, "spec": spec})
    binding = {"policyName": "guard", "validationActions": ["Deny"]}
    path = policies.replace("policies", "policybindings")
    quiet.plane.api.post(path, {"metadata": {"name": "guard"}, "spec": binding})
    try:
        eventually(lambda: _is_refused(quiet, "refused-1"))
        quiet.run("refused")
        quiet.watch.wait_until_it_fires("HeadraceReconcileErrors", controller="trainingrun")
    finally:
        quiet.plane.api.delete(f"{path}/guard")
        quiet.plane.api.delete(f"{policies}/guard")


def _is_refused(world: World, name: str) -> bool:
    """Whether the API server knows already that it is to refuse a RayJob of this name."""
    path, body = f"/apis/ray.io/v1/namespaces/{SPACE}/rayjobs", {**ray_job(), "metadata": {"name": name}}
    try:
        world.plane.api.request("POST", path, params={"dryRun": "All"}, json=body)
    except ApiError as error:
        return "this team may not train" in error.message
    return False


def test_endpoints_that_lose_replicas_cannot_load_or_do_not_come_up_are_told(quiet: World) -> None:
    quiet.deploy("lame", replicas=2)
    quiet.deploy("lost", replicas=2)
    quiet.deploy("broken", BROKEN)
    quiet.deploy("never", script=Script(Behaviour(pods_seconds=3600)))
    for name in ("lame", "lost"):
        quiet.answers(name, 2)
    quiet.watch.wait_until_it_fires("HeadraceDeploymentFailed", namespace=SPACE, name="broken", state="failed")
    quiet.watch.wait_until_it_fires("HeadraceDeploymentStuck", namespace=SPACE, name="never")
    answered = 'namespace_name:headrace_deployment_has_answered:max{name="lost"}'
    eventually(lambda: has_data(quiet.watch, answered))  # without that it is no endpoint that has gone down
    quiet.field.front.lose("lame", 1)
    quiet.field.front.lose("lost", 2)
    degraded = quiet.watch.wait_until_it_fires("HeadraceDeploymentDegraded", namespace=SPACE, name="lame")
    assert degraded["annotations"]["description"].startswith("Too few replicas of ModelDeployment lame ")
    down = quiet.watch.wait_until_it_fires("HeadraceDeploymentDown", namespace=SPACE, name="lost")
    assert down["labels"]["severity"] == "critical"
    eventually(lambda: {alert["labels"]["name"] for alert in quiet.watch.firing("HeadraceDeploymentDown")} == {"lost"})


def test_an_endpoint_that_nobody_scrapes_is_told(quiet: World) -> None:
    quiet.deploy("unseen")
    quiet.answers("unseen", 1)
    quiet.watch.wait_until_it_fires("HeadraceDeploymentNotScraped", namespace=SPACE, name="unseen")
    assert not quiet.watch.firing("HeadraceDeploymentNotScraped", name="digits")


def test_a_monitor_whose_objectives_break_and_one_that_sees_nothing_are_told_apart(quiet: World) -> None:
    quiet.monitor("strict", quiet.watch.url)
    quiet.monitor("blind", "http://127.0.0.1:9")
    broken = quiet.watch.wait_until_it_fires("HeadraceMonitorObjectivesBroken", namespace=SPACE, name="strict")
    assert broken["labels"]["deployment"] == "digits"
    quiet.watch.wait_until_it_fires("HeadraceMonitorBlind", namespace=SPACE, name="blind")
    assert not quiet.watch.firing("HeadraceMonitorBlind", name="strict")


class SlowGuard(StandIn):
    """A webhook that thinks a while about each status of a TrainingRun before it lets it pass."""

    SECONDS = 0.2

    def reply(self, path: str, asked: Object) -> Reply:
        """See `StandIn.reply`."""
        time.sleep(self.SECONDS)
        answer = {"uid": asked["request"]["uid"], "allowed": True}
        return json_reply({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})


@contextmanager
def slow_guard(plane: ControlPlane) -> Iterator[None]:
    """The API server is slow to take statuses of TrainingRuns: the operator's only worker does five in a second."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    rule = {"apiGroups": ["headrace.dev"], "apiVersions": ["*"], "operations": ["UPDATE"]}
    with SlowGuard(plane.pki.server("slow-guard")) as guard:
        called = {"url": guard.url, "caBundle": base64.b64encode(plane.pki.ca_file.read_bytes()).decode()}
        hook = {"name": "slow.headrace.test", "clientConfig": called, "sideEffects": "None", "failurePolicy": "Ignore"}
        hook |= {"rules": [{**rule, "resources": ["trainingruns/status"]}], "admissionReviewVersions": ["v1"]}
        plane.api.post(path, {"metadata": {"name": "slow"}, "webhooks": [hook]})
        try:
            yield
        finally:
            plane.api.delete(f"{path}/slow")


def test_more_work_than_the_operator_does_is_told_until_it_is_done(quiet: World) -> None:
    """It has one worker here, each run takes it a write, and each write takes long."""
    told = threading.Event()

    def more_comes() -> int:
        for number in itertools.count(1):
            made = training_run(f"many-{number}", quiet.mlflow.url, suspend=True)
            quiet.plane.api.post(f"{OURS}/trainingruns", made)
            if told.wait(0.02):
                break
        return number

    with slow_guard(quiet.plane), ThreadPoolExecutor(1) as hand:
        made = hand.submit(more_comes)
        try:
            quiet.watch.wait_until_it_fires("HeadraceWorkQueueGrowing", name="trainingrun")
        finally:
            told.set()
    print(f"after {made.result()} runs")
    quiet.watch.wait_until_it_is_over("HeadraceWorkQueueGrowing", name="trainingrun")


def test_mlflow_that_is_stopped_is_told_though_nothing_changes(quiet: World) -> None:
    elsewhere = model_deployment("elsewhere", "http://127.0.0.1:9")
    quiet.plane.api.post(f"{OURS}/modeldeployments", elsewhere)
    quiet.watch.wait_until_it_fires("HeadraceMLflowOfObjectsDown", server="http://127.0.0.1:9")
    assert not quiet.watch.firing("HeadraceMLflowDown")
    quiet.mlflow.daemon.kill()
    quiet.watch.wait_until_it_fires("HeadraceMLflowDown", server=quiet.mlflow.url)
    quiet.mlflow.daemon.start()
    quiet.watch.wait_until_it_is_over("HeadraceMLflowDown", START_SECONDS)


def test_an_operator_that_is_killed_leaves_no_leader_and_its_endpoints_are_not_called_down(quiet: World) -> None:
    quiet.kubelet.forbid()
    alert = quiet.watch.wait_until_it_fires("HeadraceOperatorWithoutLeader")
    assert alert["labels"] | {"severity": "critical", "namespace": SPACE} == alert["labels"]
    assert not quiet.watch.firing("HeadraceDeploymentDown", name="digits")
    quiet.plane.api.delete(f"{LEASES}/headrace-backup")
    quiet.kubelet.allow()
    quiet.watch.wait_until_it_is_over("HeadraceOperatorWithoutLeader")


def test_a_backup_that_never_was_and_one_that_is_too_old_are_told(quiet: World) -> None:
    quiet.watch.wait_until_it_fires("HeadraceBackupMissing")
    quiet.plane.api.post(LEASES, backup_lease(timedelta(days=2)))
    quiet.kubelet.replace()  # else it is looked at once a minute
    alert = quiet.watch.wait_until_it_fires("HeadraceBackupTooOld")
    assert "ended 2d 0h" in alert["annotations"]["description"]
    eventually(lambda: not quiet.watch.firing("HeadraceBackupMissing"))
