"""A run from the command line to an endpoint on a cluster: what joins the parts, with the parts as real as can be.

Real: the API server, the operator, MLflow's server, the S3 store, the compiled pipeline's own commands as processes
with no more of an environment than it asks for. Played: Kubeflow (its stand-in), KubeRay and the fronts (its double),
and what the driver of a training leaves in the store.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headrace.spec import load_spec
from headrace.store.step_files import read_result
from headrace_chaos.storm import Field, field_of
from headrace_pipelines.kubeflow import following
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.run import ClusterRun, submit
from headrace_testbed import step_pods
from headrace_testbed.api import ApiError
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.mlflow_server import MLflowServer
from headrace_testbed.s3 import S3Store
from headrace_testbed.step_pods import Workspace
from headrace_testbed.waiting import eventually
from kfp_stand_in import Beats, KubeflowStandIn, Programs, World
from kfp_stand_in.bed import write_spec, write_targets
from kuberay_double import Behaviour, Script

SPACE = "kubeflow-runs"
RUNS = f"/apis/headrace.dev/v1alpha1/namespaces/{SPACE}/trainingruns"
DEPLOYMENTS = f"/apis/headrace.dev/v1alpha1/namespaces/{SPACE}/modeldeployments"
Send = Callable[..., ClusterRun]


@pytest.fixture(scope="module")
def field(played_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """The operator at work in a namespace with KubeRay's double, and a real MLflow."""
    with suppress(ApiError):
        played_plane.api.post("/api/v1/namespaces", {"metadata": {"name": SPACE}})
    with MLflowServer(tmp_path_factory.mktemp("mlflow")) as mlflow, field_of(played_plane, SPACE, mlflow) as field:
        field.operator.start()
        yield field
    played_plane.api.delete(f"/api/v1/namespaces/{SPACE}")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with S3Store(tmp_path_factory.mktemp("s3")) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture(scope="module")
def workspace(field: Field, s3: S3Store, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    url = f"{s3.make_bucket('runs')}/headrace"
    return Workspace(field.plane, SPACE, tmp_path_factory.mktemp("workspace"), field.mlflow, url)


@pytest.fixture
def stand_in(workspace: Workspace, s3: S3Store, tmp_path: Path) -> Iterator[KubeflowStandIn]:
    """Kubeflow's stand-in over the workspace: its ConfigMap and its Secret are all that steps know of it."""
    base = {"HOME": str(tmp_path), "HEADRACE_HOME": str(tmp_path / "pod"), "KUBECONFIG": str(workspace.kubeconfig)}
    world = World(work=Programs(tmp_path, base), beats=Beats(scale=0.01))
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    world.secrets["headrace-store"] = {key: s3.environment[key] for key in keys}
    world.config_maps["headrace-site"] = {
        "HEADRACE_STORE": workspace.store.url,
        "MLFLOW_TRACKING_URI": workspace.mlflow.url,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_REGION": s3.environment["AWS_REGION"],
    }
    with KubeflowStandIn(world) as server:
        yield server


@pytest.fixture
def send(workspace: Workspace, stand_in: KubeflowStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Sends a run whose TrainingRun KubeRay's double treats as a script says."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADRACE_STORE", workspace.store.url)  # as the target sets it, and taken back
    monkeypatch.setattr(following, "POLL_SECONDS", 0.2)
    write_targets(tmp_path / "home", stand_in, tmp_path)
    path = tmp_path / "home" / "targets.yaml"
    path.write_text(path.read_text().replace(f"store: {tmp_path}", f"store: {workspace.store.url}"))

    def go(behaviour: Behaviour, **changes: Any) -> ClusterRun:
        site = workspace.site(Script(behaviour)).to_json()
        stand_in.world.config_maps["headrace-site"]["HEADRACE_SITE"] = site
        run = submit(Cluster.named("kubeflow"), load_spec(write_spec(tmp_path, **changes)))
        threading.Thread(target=_drive, args=(run, workspace, monkeypatch), daemon=True).start()
        return run

    return go


def _drive(run: ClusterRun, workspace: Workspace, patch: pytest.MonkeyPatch) -> None:
    """Leave what the driver of RUN's training leaves, of the split that the run made."""
    found: list[Any] = []

    def split() -> bool:
        found.append(read_result(workspace.store, run.run_id, "split", "1"))
        return found[-1] is not None

    eventually(split, 300)
    patch.setattr(step_pods, "SPLIT", found[-1]["fingerprint"])
    workspace.driven(run.run_id)


def logs(stand_in: KubeflowStandIn) -> str:
    programs = stand_in.world.work
    assert isinstance(programs, Programs)
    return "\n".join(f"== {name}\n{text[-3000:]}" for (_, name), text in programs.logs.items())


def test_a_run_trains_by_the_operator_and_serves_though_its_pod_is_moved_meanwhile(
    stand_in: KubeflowStandIn, field: Field, send: Send
) -> None:
    run = send(Behaviour("runs-on"), name="whole", register="whole", deploy="whole")
    moved = ended = False
    for event in run.follow():
        if not moved and event["type"] == "training" and event.get("phase") == "Running":
            stand_in.life(stand_in.runs()[0]["run_id"]).lose_pod()
            moved = True
        if not ended and "which is there" in (event.get("text") or ""):  # so says the next pod
            field.double.end_job(SPACE, f"{run.run_id}-1-1")
            ended = True
    record = run.status()
    assert record["state"] == "succeeded", logs(stand_in)
    assert (moved, ended) == (True, True)
    assert {step["name"]: step["state"] for step in record["steps"]} == dict.fromkeys(
        ("split", "train", "register", "deploy"), "succeeded"
    )
    assert record["metrics"] == {"accuracy": 0.9}
    assert record["model"]["alias"] == "champion"
    assert record["endpoint"]["url"] == f"http://whole-serve-svc.{SPACE}.svc:8000/whole"
    (training,) = field.plane.api.list(RUNS, labelSelector=f"headrace.dev/run-id={run.run_id}")
    assert (training["metadata"]["name"], training["status"]["attempt"]) == (f"{run.run_id}-1", 1)
    deployment = field.plane.api.get(f"{DEPLOYMENTS}/whole")
    assert deployment["metadata"]["annotations"]["headrace.dev/run-id"] == run.run_id
    assert field.mlflow.aliased("whole", "champion") == record["model"]["version"]
    print(record["kubeflow"], file=sys.stderr)


def test_a_run_that_is_cancelled_frees_the_pods_of_its_training(
    stand_in: KubeflowStandIn, field: Field, send: Send
) -> None:
    run = send(Behaviour("runs-on"), name="cut", register="cut", deploy=None)

    def phase() -> str:
        found = field.plane.api.list(RUNS, labelSelector=f"headrace.dev/run-id={run.run_id}")
        return str(found[0].get("status", {}).get("phase")) if found else ""

    eventually(lambda: phase() == "Running", 300)
    assert run.cancel()["state"] == "cancelled", logs(stand_in)
    eventually(lambda: phase() == "Suspended", 300)
