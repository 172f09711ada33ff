"""Why a run on Kubeflow does not start, or ended without a word: its pods on a real API server tell.

Kubeflow's API is the stand-in; the pods are objects in the API server in the states that a kubelet gave them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.spec import load_spec
from headrace_pipelines.kubeflow import following
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.run import ClusterRun, submit
from headrace_testbed.control_plane import ControlPlane
from kfp_stand_in import Beats, Failed, KubeflowStandIn, Script, World
from kfp_stand_in.bed import IMAGE, Steps, forget_sites, write_spec, write_targets
from kfp_stand_in.script import Play

pytestmark = pytest.mark.timeout(600)
Begin = Callable[..., ClusterRun]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowStandIn]:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(following, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(following, "PODS_SECONDS", 0.2)
    with KubeflowStandIn(World(beats=Beats(scale=0.005), multi_user=True)) as server:
        yield server


@pytest.fixture
def begin(
    control_plane: ControlPlane,
    namespace: str,
    stand_in: KubeflowStandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Begin:
    """Sends a run to a target whose kubeconfig shows NAMESPACE."""
    forget_sites(monkeypatch)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))

    def send(train: Play | None = None, **kubeflow: Any) -> ClusterRun:
        steps = Steps(str(tmp_path / "store"))
        stand_in.world.work = Script(**steps.plays(**({} if train is None else {"train": train})))
        write_targets(tmp_path / "home", stand_in, tmp_path / "store", namespace=namespace, **kubeflow)
        path = tmp_path / "home" / "targets.yaml"
        targets = yaml.safe_load(path.read_text())
        targets["kubeflow"]["kubeconfig"] = str(control_plane.kubeconfig)
        path.write_text(yaml.safe_dump(targets))
        return submit(Cluster.named("kubeflow"), load_spec(write_spec(tmp_path)))

    return send


def make_pod(control_plane: ControlPlane, namespace: str, run: str, status: dict[str, Any]) -> None:
    """A pod as Kubeflow makes it for RUN, in the state STATUS."""
    security = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "headrace-impl", "labels": {"pipeline/runid": run}},
        "spec": {"containers": [{"name": "main", "image": IMAGE, "securityContext": security}]},
    }
    control_plane.api.post(f"/api/v1/namespaces/{namespace}/pods", pod)
    control_plane.api.patch(f"/api/v1/namespaces/{namespace}/pods/headrace-impl/status", {"status": status})


def container(**state: Any) -> dict[str, Any]:
    return {"name": "main", "image": IMAGE, "imageID": "", "ready": False, "restartCount": 0, "state": state}


def test_the_reason_of_a_missing_image_is_told_while_it_is_waited_for_and_when_that_is_over(
    control_plane: ControlPlane,
    namespace: str,
    stand_in: KubeflowStandIn,
    begin: Begin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in.world.missing_images = {IMAGE}
    run = begin(start_deadline_seconds=240)
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    status = {"phase": "Pending", "containerStatuses": [container(waiting=waiting)]}
    make_pod(control_plane, namespace, stand_in.runs()[0]["run_id"], status)
    told = False
    for event in run.follow():
        if f"the image {IMAGE} cannot be pulled (ImagePullBackOff)" in (event.get("text") or ""):
            told = told or event["type"] == "waiting"
            monkeypatch.setattr(ClusterRun, "start_deadline_seconds", 1)  # that is over
    assert told
    error = run.status()["error"]
    assert error["code"] == "step-not-started"
    assert "headrace-impl: the image" in error["message"]


def test_a_pod_that_was_killed_for_its_memory_says_so_for_its_step(
    control_plane: ControlPlane, namespace: str, begin: Begin
) -> None:
    def killed(task: Any) -> None:
        ended = {"reason": "OOMKilled", "exitCode": 137}
        status = {"phase": "Failed", "containerStatuses": [container(terminated=ended)]}
        make_pod(control_plane, namespace, task.run_id, status)
        raise Failed(137)

    run = begin(killed)
    deadline = time.monotonic() + 240
    while run.exit_code() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    error = run.status()["error"]
    assert (error["code"], error["step"]) == ("out-of-memory", "train")
    assert "OOMKilled" in error["message"]


def test_a_cluster_that_does_not_let_us_look_hides_no_other_word(
    control_plane: ControlPlane, namespace: str, begin: Begin
) -> None:
    def silent(_: Any) -> None:
        raise Failed(1)

    run = begin(silent)
    nobody = control_plane.kubeconfig_for_service_account(namespace, "default")
    target = run.cluster.target.model_copy(update={"kubeconfig": str(nobody)})
    run = ClusterRun(run.run_id, Cluster("kubeflow", target))
    deadline = time.monotonic() + 240
    while run.exit_code() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run.status()["error"]["code"] == "step-lost"
