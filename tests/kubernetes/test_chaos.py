"""However often the operator is killed and the API server restarted: one RayJob an attempt, honest counts, right ends.

This is the short storm, always the same one; `make chaos` plays the long one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from headrace_chaos.storm import Field, field_of, play
from headrace_chaos.story import Storm
from headrace_chaos.verdict import ruling, table
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.mlflow_server import MLflowServer
from headrace_testbed.training_runs import training_run
from headrace_testbed.waiting import eventually
from kuberay_double import Behaviour, Script

pytestmark = pytest.mark.timeout(1200)
Object = dict[str, Any]
_NUMBERS = itertools.count(1)
SHORT = Storm(kills=12, restarts=2, runs=20, deployments=4, seconds=30, seed=5)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    with MLflowServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def field(played_plane: ControlPlane, mlflow: MLflowServer) -> Iterator[Field]:
    """The operator under test, not started, in a namespace of the test's own."""
    namespace = f"chaos-{next(_NUMBERS)}"
    played_plane.api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    with field_of(played_plane, namespace, mlflow) as made:
        yield made


def test_a_storm_leaves_one_rayjob_an_attempt_honest_counts_and_right_ends(field: Field):
    story = play(field, SHORT)
    ending, wrong = ruling(field, story)
    print(table(field, story, ending))
    assert not wrong, "\n".join([f"{len(wrong)} are wrong; the operator's log is {field.operator.log}", *wrong])


# -- a head that is lost in mid-training -------------------------------------------------------------------------------

MID_TRAINING = Script(Behaviour(run_seconds=0.5), {1: Behaviour("runs-on")})


def _train(field: Field, name: str) -> str:
    """A run whose first attempt is in mid-training, with a checkpoint of its fourth epoch; its run in MLflow."""
    manifest = training_run(name, field.mlflow.url, run_id=f"id-{name}", workers=2)
    manifest["spec"]["pods"]["environment"] = [MID_TRAINING.to_variable()]
    field.operator.start()
    field.plane.api.post(field.path("trainingruns"), manifest)
    mlflow_run = field.mlflow.start_run(
        f"id-{name}", attempt="1.1", checkpoint_uri=_checkpoint(4), checkpoint_epoch="4"
    )
    eventually(lambda: _status(field, name).get("phase") == "Running")
    return mlflow_run


def _checkpoint(epoch: int) -> str:
    return f"s3://bucket/headrace/runs/id/checkpoints/{epoch}"


def _status(field: Field, name: str) -> Object:
    return field.plane.api.get(field.path("trainingruns", name)).get("status") or {}


def _ray_job(field: Field, name: str) -> Object:
    return field.plane.wait_for(f"/apis/ray.io/v1/namespaces/{field.namespace}/rayjobs/{name}")


def _lose_head(field: Field, name: str) -> None:
    field.double.lose_head(field.namespace, _ray_job(field, f"{name}-1")["status"]["rayClusterName"])


def _shows_one_loss(field: Field, name: str, mlflow_run: str) -> None:
    """The next attempt goes on from the newest checkpoint in the same MLflow run, and the loss is counted once."""
    eventually(lambda: _status(field, name).get("attempt") == 2)
    head = _ray_job(field, f"{name}-2")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    environment = {each["name"]: each.get("value") for each in head["env"]}
    assert environment["HEADRACE_CHECKPOINT_URI"] == _checkpoint(5)
    assert environment["HEADRACE_MLFLOW_RUN_ID"] == mlflow_run
    assert environment["HEADRACE_ATTEMPT"] == "1.2"
    status = eventually(lambda: found if (found := _status(field, name)).get("completionTime") else None)
    assert (status["phase"], status["failures"], status["attempt"]) == ("Succeeded", 1, 2)
    assert status["mlflow"]["runID"] == mlflow_run
    lost = [each for each in events(field, name) if each["reason"] == "HeadLost"]
    assert [each.get("count") or each.get("series", {}).get("count", 1) for each in lost] == [1]


def events(field: Field, name: str) -> list[Object]:
    """The Events of a TrainingRun."""
    path = f"/apis/events.k8s.io/v1/namespaces/{field.namespace}/events"
    return [each for each in field.plane.api.list(path) if each["regarding"].get("name") == name]


def test_a_head_lost_in_mid_training_is_one_failure_and_the_next_attempt_goes_on(field: Field):
    mlflow_run = _train(field, "digits")
    eventually(lambda: _status(field, "digits").get("checkpoint", {}).get("epoch") == 4)
    field.mlflow.tag_run(mlflow_run, checkpoint_uri=_checkpoint(5), checkpoint_epoch="5")
    _lose_head(field, "digits")
    _shows_one_loss(field, "digits", mlflow_run)


def test_a_head_lost_while_the_operator_is_dead_is_one_failure_too(field: Field):
    mlflow_run = _train(field, "letters")
    field.operator.kill()
    field.mlflow.tag_run(mlflow_run, checkpoint_uri=_checkpoint(5), checkpoint_epoch="5")
    _lose_head(field, "letters")
    field.operator.start()
    _shows_one_loss(field, "letters", mlflow_run)
