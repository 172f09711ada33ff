"""Steps on a cluster, as processes with the environment and the rights of their pods.

Real: the API server, the operator, MLflow's server, the S3 store, the steps. Played: KubeRay and the fronts (its
double), and what the driver of a training leaves in the store. Whole trainings in pods are the node tier's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.base.errors import DataInvalid
from headrace.cluster import LEASE, MODEL_DEPLOYMENT, TRAINING_RUN, connect
from headrace.cluster.rights import RIGHTS
from headrace.cluster.watching import Watcher
from headrace.spec import load_spec
from headrace.spec.parts import step_parts
from headrace.steps.cluster_alias import lease_name
from headrace.store.step_files import ask_to_cancel, step_uri
from headrace_chaos.storm import Field, field_of
from headrace_testbed.api import ApiError, Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.mlflow_server import MLflowServer
from headrace_testbed.s3 import S3Store
from headrace_testbed.step_pods import SECONDS, StepPod, Workspace, failure
from headrace_testbed.waiting import eventually
from kuberay_double import Behaviour, Script

pytestmark = pytest.mark.timeout(1200)
SPACE = "steps"
RUNS = f"/apis/headrace.dev/v1alpha1/namespaces/{SPACE}/trainingruns"
DEPLOYMENTS = f"/apis/headrace.dev/v1alpha1/namespaces/{SPACE}/modeldeployments"
JOBS = f"/apis/ray.io/v1/namespaces/{SPACE}/rayjobs"
LONG = Script(Behaviour("runs-on"))
PHASES = ["Pending", "Waiting", "Running", "Succeeded"]
Start = Callable[..., StepPod]


@pytest.fixture(scope="module")
def field(played_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """The operator at work in a namespace with KubeRay's double, and a real MLflow."""
    with suppress(ApiError):
        played_plane.api.post("/api/v1/namespaces", {"metadata": {"name": SPACE}})
    with (
        MLflowServer(tmp_path_factory.mktemp("mlflow")) as mlflow,
        field_of(played_plane, SPACE, mlflow) as field,
    ):
        field.operator.start()
        yield field
    played_plane.api.delete(f"/api/v1/namespaces/{SPACE}")


@pytest.fixture(scope="module")
def workspace(field: Field, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with S3Store(tmp_path_factory.mktemp("s3")) as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        store = f"{s3.make_bucket('runs')}/headrace"
        yield Workspace(field.plane, SPACE, tmp_path_factory.mktemp("workspace"), field.mlflow, store)


@pytest.fixture
def begin(workspace: Workspace) -> Iterator[Start]:
    """Starts steps, and ends those that are left."""
    pods: list[StepPod] = []

    def start(step: str, *arguments: Any, **options: Any) -> StepPod:
        pods.append(getattr(workspace, step)(*arguments, **options))
        return pods[-1]

    yield start
    for pod in pods:
        pod.close()


def part(epochs: int) -> Object:
    """What a train step reads; another one for each test, so that none finds what another trained."""
    spec = {"name": "digits", "task": "image-classification", "data": {"source": "builtin:digits"}}
    found = step_parts(load_spec({**spec, "model": {"name": "resnet8"}, "train": {"epochs": epochs}}).to_record())
    train = found["train"]
    assert train is not None
    return train


def status(field: Field, run: str) -> Object:
    """The status of the only TrainingRun of RUN."""
    (found,) = field.plane.api.list(RUNS, labelSelector=f"headrace.dev/run-id={run}")
    told: Object = found.get("status") or {}
    return told


def phase(field: Field, run: str, *wanted: str) -> Callable[[], bool]:
    return lambda: status(field, run).get("phase") in wanted


# train


def test_a_train_step_is_one_training_run_and_gives_what_its_driver_gave(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    run = "digits-aaaaaaaa"
    trained = workspace.driven(run)
    pod = begin("train", part(1), run=run)
    result = pod.result()
    assert (result["package_sha256"], result["metrics"]) == (trained["package_sha256"], {"accuracy": 0.9})
    assert (result["attempt"], result["state"]) == ("1", "succeeded")
    assert status(field, run)["phase"] == "Succeeded"
    phases = [event["phase"] for event in pod.told("training")]
    assert phases == sorted(phases, key=PHASES.index), "whichever of them it was in time to see"
    assert phases[-1] == "Succeeded"


def test_a_step_whose_pod_is_killed_goes_on_in_the_next_one(workspace: Workspace, field: Field, begin: Start) -> None:
    run = "digits-bbbbbbbb"
    workspace.driven(run)
    first = begin("train", part(2), run=run, script=LONG)
    eventually(lambda: first.said("Running"), SECONDS)
    first.lose()
    second = begin("train", part(2), run=run, script=LONG)
    eventually(lambda: second.said("which is there"), SECONDS)
    field.double.end_job(SPACE, f"{run}-1-1")
    assert second.result()["metrics"] == {"accuracy": 0.9}
    assert status(field, run)["attempt"] == 1
    assert [job["metadata"]["name"] for job in field.plane.api.list(JOBS) if run in job["metadata"]["name"]] == [
        f"{run}-1-1"
    ]


def test_why_a_training_failed_is_the_step_s_error(workspace: Workspace, begin: Start) -> None:
    run = "digits-cccccccc"
    record = DataInvalid("3 files cannot be read", action="mend them").to_record()
    workspace.store.write_json(step_uri(workspace.store, run, "train", "1.1", "error.json"), record)
    message = failure("data-invalid", "3 files cannot be read", permanent=True)
    pod = begin("train", part(3), run=run, script=Script(Behaviour("fails", message=message)))
    assert pod.error() == record
    assert pod.end() == 2


def test_a_driver_that_left_no_word_is_told_of_by_the_operator(workspace: Workspace, begin: Start) -> None:
    message = failure("out-of-memory", "a worker needed more memory", permanent=True)
    pod = begin("train", part(4), run="digits-dddddddd", script=Script(Behaviour("fails", message=message)))
    error = pod.error()
    assert error["code"] == "out-of-memory"
    assert "a worker needed more memory" in error["message"]
    assert pod.end() == 1


def test_a_cancelled_run_frees_its_pods_and_a_moved_pod_frees_none(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    run = "digits-eeeeeeee"
    moved = begin("train", part(5), run=run, script=LONG)
    eventually(lambda: moved.said("Running"), SECONDS)
    moved.terminate()
    assert moved.end() == 130
    assert status(field, run)["phase"] == "Running"
    cancelled = begin("train", part(5), run=run, script=LONG)
    eventually(lambda: cancelled.said("which is there"), SECONDS)
    ask_to_cancel(workspace.store, run, "1")
    cancelled.terminate()
    assert cancelled.error()["code"] == "cancelled"
    eventually(phase(field, run, "Suspended"), SECONDS)
    eventually(lambda: f"{run}-1-1" not in [job["metadata"]["name"] for job in field.plane.api.list(JOBS)], SECONDS)


def test_a_training_that_nobody_comes_back_to_rests_until_a_step_does(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    run = "digits-ffffffff"
    script = Script(Behaviour(run_seconds=1.0), {1: Behaviour("runs-on")})
    lost = begin("train", part(6), run=run, script=script)
    eventually(lambda: lost.said("Running"), SECONDS)
    lost.lose()
    past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    annotations = {"headrace.dev/held-until": past}
    field.plane.api.patch(f"{RUNS}/{run}-1", {"metadata": {"annotations": annotations}})
    eventually(phase(field, run, "Suspended"), SECONDS)
    workspace.driven(run, "1.2")
    assert begin("train", part(6), run=run, script=script).result()["state"] == "succeeded"
    assert (status(field, run)["attempt"], status(field, run)["failures"]) == (2, 0)


def test_an_api_server_that_is_restarted_is_waited_for(workspace: Workspace, field: Field, begin: Start) -> None:
    run = "digits-gggggggg"
    workspace.driven(run)
    pod = begin("train", part(7), run=run, script=LONG)
    eventually(lambda: pod.said("Running"), SECONDS)
    field.plane.restart_apiserver()
    field.double.end_job(SPACE, f"{run}-1-1")
    assert pod.result()["state"] == "succeeded"


def test_a_newer_attempt_of_the_run_takes_the_training_over(workspace: Workspace, field: Field, begin: Start) -> None:
    run = "digits-hhhhhhhh"
    old = begin("train", part(8), run=run, script=LONG)
    eventually(lambda: old.said("Running"), SECONDS)
    workspace.driven(run, "2.1")
    new = begin("train", part(8), run=run, attempt="2")
    assert old.error()["code"] == "superseded"
    assert new.result()["attempt"] == "2"
    assert [found["metadata"]["name"] for found in field.plane.api.list(RUNS) if run in found["metadata"]["name"]] == [
        f"{run}-2"
    ]


# register and deploy


def registered(workspace: Workspace, begin: Start, run: str, model: str, *gate: str) -> Object:
    return begin("register", run, workspace.driven(run), model, *gate).result()


def deployments(field: Field) -> list[str]:
    """The names of all ModelDeployments."""
    return [found["metadata"]["name"] for found in field.plane.api.list(DEPLOYMENTS)]


def champion(field: Field, model: str) -> str:
    """The version that MODEL's alias names, "" for none."""
    return field.mlflow.aliased(model, "champion")


def test_a_version_is_registered_and_served_and_then_the_alias_moves(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    first = registered(workspace, begin, "one-aaaaaaaa", "one", "accuracy >= 0.5")
    assert first["model"] == {"name": "one", "version": "1", "alias": None, "uri": "models:/one/1"}
    assert champion(field, "one") == ""
    result = begin("deploy", "one-aaaaaaaa", first, "one").result()
    assert result["endpoint"] == {
        "url": f"http://one-serve-svc.{SPACE}.svc:8000/one",
        "model": "one",
        "version": "1",
    }
    assert [each.stable for each in field.front.statuses("one")] == ["1"]
    assert champion(field, "one") == "1"


def test_a_version_that_cannot_be_loaded_leaves_endpoint_and_alias_as_they_were(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    first = registered(workspace, begin, "two-aaaaaaaa", "two")
    begin("deploy", "two-aaaaaaaa", first, "two").result()
    field.front.broken["2"] = "model.safetensors is not the file that was packed"
    try:
        second = registered(workspace, begin, "two-bbbbbbbb", "two", "accuracy >= champion")
        error = begin("deploy", "two-bbbbbbbb", second, "two").error()
    finally:
        del field.front.broken["2"]
    assert error["code"] == "deploy-failed"
    assert "model.safetensors is not the file that was packed" in error["message"]
    assert champion(field, "two") == "1"
    eventually(lambda: [each.stable for each in field.front.statuses("two")] == ["1"])
    assert field.plane.api.get(f"{DEPLOYMENTS}/two")["spec"]["model"]["version"] == "1"


def test_a_first_version_that_cannot_be_loaded_leaves_no_endpoint(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    first = registered(workspace, begin, "three-aaaaaaaa", "three")
    field.front.broken["1"] = "it is damaged"
    try:
        error = begin("deploy", "three-aaaaaaaa", first, "three").error()
    finally:
        del field.front.broken["1"]
    assert "it is damaged" in error["message"]
    assert "three" not in deployments(field)
    assert champion(field, "three") == ""


def test_a_deploy_step_whose_pod_is_killed_goes_on_in_the_next_one(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    first = registered(workspace, begin, "four-aaaaaaaa", "four")
    lost = begin("deploy", "four-aaaaaaaa", first, "four")
    path = f"{DEPLOYMENTS}/four"
    eventually(lambda: "four" in deployments(field), SECONDS)
    lost.lose()
    generation = field.plane.api.get(path)["metadata"]["generation"]
    begin("deploy", "four-aaaaaaaa", first, "four").result()
    assert champion(field, "four") == "1"
    assert field.plane.api.get(path)["metadata"]["generation"] == generation


def test_of_two_runs_one_judges_when_the_other_has_moved_the_alias(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    first = registered(workspace, begin, "five-aaaaaaaa", "five")
    waiting = begin("register", "five-bbbbbbbb", workspace.driven("five-bbbbbbbb"), "five", "accuracy >= champion")
    eventually(lambda: waiting.said("waiting for run five-aaaaaaaa"), SECONDS)
    begin("deploy", "five-aaaaaaaa", first, "five").result()
    assert champion(field, "five") == "1"
    result = waiting.result()
    assert (result["model"]["version"], result["judged_against"]) == ("2", {"version": "1"})


def test_an_alias_that_somebody_moved_since_the_gate_is_not_moved(
    workspace: Workspace, field: Field, begin: Start
) -> None:
    earlier = registered(workspace, begin, "six-aaaaaaaa", "six")
    begin("deploy", "six-aaaaaaaa", earlier, "six").result()
    judged = {**workspace.driven("six-bbbbbbbb"), "champion": _as_champion(workspace, "six-aaaaaaaa", "six")}
    second = begin("register", "six-bbbbbbbb", judged, "six", "accuracy >= champion").result()
    assert second["judged_against"] == {"version": "1"}
    field.mlflow.register_version("six", "3")
    field.mlflow.alias("six", "champion", "3")
    error = begin("deploy", "six-bbbbbbbb", second, "six").error()
    assert error["code"] == "champion-changed"
    assert champion(field, "six") == "3"
    assert [each.stable for each in field.front.statuses("six")] == ["1"]


def _as_champion(workspace: Workspace, run: str, model: str) -> Object:
    uri, sha256 = workspace.package(run)
    return {"name": model, "version": "1", "package_uri": uri, "package_sha256": sha256, "error": None}


# what they may do


def test_steps_use_every_right_that_they_have_and_miss_none(workspace: Workspace, field: Field, begin: Start) -> None:
    """Of all that the tests above have asked; and of a watch of each kind whose version the server has forgotten, which
    nobody can make a step meet."""
    cluster = connect(str(workspace.kubeconfig))
    for kind, name in (
        (TRAINING_RUN, "digits-aaaaaaaa-1"),
        (MODEL_DEPLOYMENT, "one"),
        (LEASE, lease_name("one@champion")),
    ):
        found = cluster.get(kind, name)
        assert found is not None
        forgotten = {**found, "metadata": {**found["metadata"], "resourceVersion": "1"}}
        with Watcher(cluster._transport, kind, SPACE, name, forgotten) as watcher:
            assert watcher.next(120.0) is not forgotten
    granted = {(right.group, right.resource, verb) for right in RIGHTS for verb in right.verbs}

    def all_used() -> bool:
        done, forbidden = asked(field.plane, workspace.user)
        assert forbidden == set()
        assert done <= granted
        assert granted - done == set()
        return True

    eventually(all_used, 120)


def asked(plane: ControlPlane, user: str) -> tuple[set[tuple[str, str, str]], set[tuple[str, str, str]]]:
    """What was asked as USER, and what of it was only ever forbidden.

    An API server that has just been restarted forbids what it allows a moment later, when it has read the roles.
    """
    allowed, forbidden = set(), set()
    for event in plane.audited(user):
        where = event.get("objectRef")
        if where is None:
            continue
        group, resource = where.get("apiGroup", ""), where["resource"]
        code = event.get("responseStatus", {}).get("code")
        (forbidden if code == 403 else allowed).add((group, resource, event["verb"]))
        if event["verb"] == "patch" and code == 201:  # an apply that creates needs both rights
            allowed.add((group, resource, "create"))
    return allowed, forbidden - allowed
