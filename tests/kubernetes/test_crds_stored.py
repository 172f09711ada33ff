"""What the API server stores of a right object: its defaults, whose field is whose, and what may still change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from headrace.api.canonical import from_run_spec, to_split_part, to_train_part
from headrace.api.judge import judge_training_run, parse
from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.api.model_monitor import ModelMonitorSpec
from headrace.api.training_run import TrainingRunSpec
from headrace.base.jsonfile import sha256_of
from headrace.spec import load_spec
from headrace.spec.parts import step_parts
from headrace_testbed.api import ApiError, Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.documents import documents
from headrace_testbed.objects import MLFLOW, STORE, model_deployment, model_monitor, training_run

pytestmark = pytest.mark.usefixtures("crds")
ROOT = Path(__file__).resolve().parents[2]
SPECS = {"TrainingRun": TrainingRunSpec, "ModelDeployment": ModelDeploymentSpec, "ModelMonitor": ModelMonitorSpec}


def path_of(plane: ControlPlane, manifest: Object, namespace: str) -> str:
    return plane.api.path_of(manifest, namespace)


@pytest.mark.parametrize("file", sorted((ROOT / "examples/kubernetes").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_examples_are_taken(control_plane: ControlPlane, namespace: str, file: Path) -> None:
    applied = control_plane.kubectl(
        "apply", "--server-side", "--validate=strict", "-n", namespace, "-f", str(file), "-o", "yaml"
    )
    stored = yaml.safe_load(applied)
    spec = parse(SPECS[stored["kind"]], stored)
    if isinstance(spec, TrainingRunSpec):
        assert judge_training_run(spec) == ([], [])


@pytest.mark.parametrize("manifest", [training_run(), model_deployment(), model_monitor()], ids=lambda m: m["kind"])
def test_the_defaults_that_are_filled_in_are_the_types_own(
    control_plane: ControlPlane, namespace: str, manifest: Object
) -> None:
    stored = control_plane.api.apply(manifest, namespace=namespace)["spec"]
    spec = SPECS[manifest["kind"]]
    assert parse(spec, {"spec": stored}) == parse(spec, manifest)
    in_full = parse(spec, manifest).to_record()
    missing = {key for key in in_full if key not in stored}
    assert all(in_full[key] in ("", [], {}) for key in missing)


def test_null_is_the_same_as_left_out_when_an_object_is_created(control_plane: ControlPlane, namespace: str) -> None:
    nulls = training_run(
        model={"name": "resnet8", "initFrom": None, "code": None, "args": None},
        train={"clipNorm": None, "earlyStop": None, "workers": None, "epochs": None, "losses": None},
        pods={"serviceAccountName": None, "tolerations": None},
    )
    nulls["spec"]["data"] = None
    posted = control_plane.api.post(path_of(control_plane, nulls, namespace).rpartition("/")[0], nulls)
    plain = control_plane.api.apply(training_run("plain"), namespace=namespace)
    assert posted["spec"] == plain["spec"]


def test_null_for_what_has_no_default_is_refused_when_it_is_applied(
    control_plane: ControlPlane, namespace: str
) -> None:
    assert control_plane.api.apply(training_run(train={"epochs": None}), namespace=namespace)["spec"]["train"]["epochs"]
    with pytest.raises(ApiError, match=r'spec\.train\.clipNorm in body must be of type number: "null"'):
        control_plane.api.apply(training_run(train={"clipNorm": None}), namespace=namespace)


def test_null_is_a_value_among_arguments(control_plane: ControlPlane, namespace: str) -> None:
    args = {"image_size": None, "nested": {"none": None, "list": [None, 1.5]}}
    stored = control_plane.api.apply(training_run(model={"name": "mlp", "args": args}), namespace=namespace)
    assert stored["spec"]["model"]["args"] == args


def test_a_run_spec_comes_back_from_the_api_server_as_it_was(control_plane: ControlPlane, namespace: str) -> None:
    document = {
        "name": "digits",
        "task": {"name": "image-classification", "image_size": None},
        "data": {"source": "builtin:digits", "max_corrupt": 0.0},
        "model": {"name": "resnet8", "width": 8},
        "train": {
            "optimizer": {"name": "momentum", "lr": 1.0, "momentum": 0.5},
            "workers": {"min": 1, "max": 4},
            "gpus_per_worker": 0,
            "clip_norm": 1.0,
            "early_stop": {"metric": "log_loss", "min_delta": 0.0},
            "seed": 2**63 - 1,
        },
    }
    record = load_spec(document).to_record()
    spec = from_run_spec(record, store=STORE, mlflow={"tracking_uri": MLFLOW["trackingURI"]})
    manifest = {**training_run(), "spec": spec.to_record()}
    stored = control_plane.api.apply(manifest, namespace=namespace)
    again = parse(TrainingRunSpec, stored)
    assert sha256_of(to_train_part(again)) == sha256_of(step_parts(record)["train"])
    assert sha256_of(to_split_part(again)) == sha256_of(step_parts(record)["split"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents())
def test_whatever_a_run_spec_says_the_api_server_takes(control_plane: ControlPlane, document: dict[str, Any]) -> None:
    record = load_spec(document).to_record()
    train = record["train"]
    pods = {"worker": {"cpu": str(train["resources"]["cpus_per_worker"]), "gpu": train["gpus_per_worker"]}}
    spec = from_run_spec(record, store=STORE, mlflow={"tracking_uri": MLFLOW["trackingURI"]}, pods=pods)
    manifest = {**training_run(), "spec": spec.to_record()}
    path = "/apis/headrace.dev/v1alpha1/namespaces/default/trainingruns"
    checks = {"dryRun": "All", "fieldValidation": "Strict"}
    stored = control_plane.api.request("POST", path, params=checks, json=manifest)
    again = parse(TrainingRunSpec, stored)
    assert again == spec
    assert to_train_part(again) == step_parts(record)["train"]


def test_two_managers_of_different_fields_do_not_conflict(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.apply(training_run(pods={"environment": [{"name": "A", "value": "1"}]}), "pipeline", namespace=namespace)
    other = {key: training_run()[key] for key in ("apiVersion", "kind", "metadata")}
    other["spec"] = {"maxRetries": 7, "pods": {"environment": [{"name": "B", "value": "2"}]}}
    both = api.apply(other, "platform-team", namespace=namespace)["spec"]
    assert both["maxRetries"] == 7
    assert {each["name"] for each in both["pods"]["environment"]} == {"A", "B"}
    again = api.apply(training_run(), "pipeline", namespace=namespace)["spec"]
    assert [each["name"] for each in again["pods"]["environment"]] == ["B"]
    assert again["maxRetries"] == 7


def condition(type_: str, status: str = "True") -> Object:
    time = "2026-11-26T02:00:00Z"
    return {"type": type_, "status": status, "reason": "Because", "message": "", "lastTransitionTime": time}


def test_conditions_of_two_managers_stand_side_by_side(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.apply(training_run(), namespace=namespace)
    path = path_of(control_plane, training_run(), namespace) + "/status"
    headers = {"content-type": "application/apply-patch+yaml"}
    for manager, type_ in (("one", "Accepted"), ("two", "Audited"), ("one", "Accepted")):
        body = {key: training_run()[key] for key in ("apiVersion", "kind", "metadata")}
        body["status"] = {"conditions": [condition(type_)]}
        stored = api.request("PATCH", path, params={"fieldManager": manager}, content=yaml.dump(body), headers=headers)
    assert [each["type"] for each in stored["status"]["conditions"]] == ["Accepted", "Audited"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"reason": None}, "reason: Required value"),
        ({"status": "yes"}, 'supported values: "True", "False", "Unknown"'),
        ({"lastTransitionTime": "just now"}, "must be of type date-time"),
    ],
)
def test_a_condition_without_its_reason_is_refused(
    control_plane: ControlPlane, namespace: str, wrong: dict[str, Any], words: str
) -> None:
    control_plane.api.apply(training_run(), namespace=namespace)
    path = path_of(control_plane, training_run(), namespace) + "/status"
    entry = {key: value for key, value in (condition("Accepted") | wrong).items() if value is not None}
    with pytest.raises(ApiError, match="Invalid") as refused:
        control_plane.api.patch(path, {"status": {"conditions": [entry]}})
    assert words in refused.value.message


def test_a_status_is_stored_as_it_was_written(control_plane: ControlPlane, namespace: str) -> None:
    """Otherwise an operator that compares what it wants with what is there would write for ever."""
    control_plane.api.apply(training_run(), namespace=namespace)
    path = path_of(control_plane, training_run(), namespace) + "/status"
    status = {"attempt": 1, "metrics": {"loss": 0.25, "accuracy": 1}, "conditions": [condition("Accepted")]}
    assert control_plane.api.patch(path, {"status": status})["status"] == status


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"runID": "other"}, "spec.runID cannot change any more"),
    ({"runAttempt": 2}, "spec.runAttempt cannot change any more"),
    ({"experiment": "other"}, "spec.experiment cannot change any more"),
    ({"tasks": [{"name": "image-classification", "args": {"channels": 3}}]}, "spec.tasks cannot change any more"),
    ({"model": {"args": {"width": 8}}}, "spec.model cannot change any more"),
    ({"train": {"epochs": 20}}, "spec.train cannot change any more"),
    ({"manifestURI": "s3://bucket/headrace/splits/other"}, "spec.manifestURI cannot change any more"),
    ({"championPackageURI": "s3://b/p"}, "spec.championPackageURI cannot change any more"),
    ({"store": {"uri": "s3://other"}}, "spec.store.uri cannot change any more"),
    ({"mlflow": {"trackingURI": "http://other"}}, "spec.mlflow.trackingURI cannot change any more"),
    ({"queue": "team-b"}, "set suspend to true first"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_what_an_attempt_rests_on_cannot_change_once_there_is_one(
    control_plane: ControlPlane, namespace: str, change: dict[str, Any], words: str
) -> None:
    api = control_plane.api
    api.apply(training_run(), namespace=namespace)
    path = path_of(control_plane, training_run(), namespace)
    api.patch(path + "/status", {"status": {"attempt": 1}})
    with pytest.raises(ApiError, match=r"make a new TrainingRun|suspend") as refused:
        api.patch(path, {"spec": change})
    assert words in refused.value.message


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_it_can_be_mended_until_then(
    control_plane: ControlPlane, namespace: str, change: dict[str, Any], words: str
) -> None:
    control_plane.api.apply(training_run(), namespace=namespace)
    path = path_of(control_plane, training_run(), namespace)
    control_plane.api.patch(
        path + "/status", {"status": {"attempt": 0, "conditions": [condition("Accepted", "False")]}}
    )
    assert control_plane.api.patch(path, {"spec": change})["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"suspend": True},
        {"suspend": True, "queue": "team-b"},
        {"maxRetries": 9},
        {"deadlineSeconds": 60},
        {"preRunningDeadlineSeconds": 60},
        {"ttlSecondsAfterFinished": 60},
        {"pods": {"image": "registry/image:2", "worker": {"memory": "8Gi"}}},
        {"store": {"secretName": "other"}},
        {"authentication": {"secretName": "token"}},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_holds_from_the_next_attempt_can_change_at_any_time(
    control_plane: ControlPlane, namespace: str, change: dict[str, Any]
) -> None:
    control_plane.api.apply(training_run(), namespace=namespace)
    path = path_of(control_plane, training_run(), namespace)
    control_plane.api.patch(path + "/status", {"status": {"attempt": 1}})
    assert control_plane.api.patch(path, {"spec": change})["metadata"]["generation"] == 2


def test_applying_the_same_again_changes_nothing_though_numbers_are_spelt_otherwise(
    control_plane: ControlPlane, namespace: str
) -> None:
    manifest = training_run(
        train={"optimizer": {"name": "adam", "args": {"lr": 1.0}}}, tasks=[{"name": "t", "args": {"x": 2.0}}]
    )
    first = control_plane.api.apply(manifest, namespace=namespace)
    control_plane.api.patch(path_of(control_plane, manifest, namespace) + "/status", {"status": {"attempt": 1}})
    again = control_plane.api.apply(manifest, namespace=namespace)
    assert again["metadata"]["generation"] == first["metadata"]["generation"] == 1


def biggest() -> Object:
    """A TrainingRun that is as large as its bounds allow, in all that rules look at."""
    text, name = "x" * 1024, "n" * 256
    args = {f"argument-{number}": "v" * 100 for number in range(20)}
    tasks = [{"name": f"{number:03}{'t' * 253}", "args": args} for number in range(16)]
    url = "s3://" + "u" * 1019
    data = {
        "source": url,
        "format": "csv",
        "label": name,
        "features": [f"{number:04}{'f' * 252}" for number in range(1024)],
        "split": {"strategy": "group"},
        "group": name,
    }
    train = {
        "losses": [{"task": tasks[number % 16]["name"], "name": name, "args": args} for number in range(32)],
        "optimizer": {"name": name, "args": args},
        "workers": {"min": 1, "max": 4096},
        "batchSize": 2**40,
        "earlyStop": {"metric": name},
    }
    pods = {
        "image": "i" * 512,
        "imagePullSecrets": [f"s{number}{'x' * 250}" for number in range(8)],
        "nodeSelector": {f"label-{number}": "v" * 63 for number in range(32)},
        "tolerations": [{"key": "k" * 316, "value": "v" * 253, "effect": "NoExecute", "tolerationSeconds": 1}] * 16,
        "environment": [{"name": f"V{number:03}{'E' * 252}", "value": "v" * 4096} for number in range(64)],
    }
    return training_run(
        "d" * 40,
        runID="d" * 40,
        experiment=text,
        tasks=tasks,
        data=data,
        manifestURI=None,
        championPackageURI=url,
        store={"uri": url, "secretName": "s" * 253},
        mlflow={"trackingURI": "http://" + "m" * 1017},
        model={
            "name": "m" * 120 + ":" + "N" * 120,
            "args": args,
            "code": {"sha256": "a" * 64, "uri": url},
            "freeze": [f"{number:03}{'f' * 253}" for number in range(256)],
        },
        train=train,
        pods=pods,
        queue="q" * 253,
    )


def test_the_largest_object_does_not_exceed_what_its_rules_may_cost(
    control_plane: ControlPlane, namespace: str
) -> None:
    manifest = biggest()
    control_plane.api.apply(manifest, namespace=namespace)
    path = path_of(control_plane, manifest, namespace)
    control_plane.api.patch(path + "/status", {"status": {"attempt": 1}})
    assert control_plane.api.patch(path, {"spec": {"maxRetries": 4}})["metadata"]["generation"] == 2
    with pytest.raises(ApiError, match=r"spec\.model cannot change any more"):
        control_plane.api.patch(path, {"spec": {"model": {"args": {"argument-19": "changed"}}}})
