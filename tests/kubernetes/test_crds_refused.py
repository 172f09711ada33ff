"""What the API server refuses before anything is stored, each with a sentence that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from headrace_testbed.api import ApiError, Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.objects import model_deployment, model_monitor, training_run

pytestmark = pytest.mark.usefixtures("crds")

DATA = {"source": "builtin:digits", "format": "image-folder"}
CODE = {"sha256": "a" * 64, "uri": "s3://bucket/headrace/code/a.tar"}


def from_data(**data: Any) -> Object:
    return training_run(manifestURI=None, data=DATA | data)


def pods(**settings: Any) -> Object:
    return training_run(pods=settings)


REFUSED: list[tuple[Object, str, str]] = [
    # of a TrainingRun: its name and its parts
    (training_run("9digits"), "metadata.name", "a letter first, at most 40"),
    (training_run("d" * 41), "metadata.name", "at most 40 characters"),
    (training_run("digits.v2"), "metadata.name", "take a shorter or plainer one"),
    (training_run(manifestURI=None), "spec", "give manifestURI (a split that was made) or data"),
    (training_run(data=DATA), "spec", "keep manifestURI to train on that split, or data to make a new one"),
    (training_run(store=None), "spec.store", "Required value"),
    (training_run(tasks=[]), "spec.tasks", "at least 1 items"),
    (training_run(tasks=[{"name": "a"}, {"name": "a"}]), "spec.tasks[1]", "Duplicate value"),
    (training_run(runID="Digits 1"), "spec.runID", "Digits 1 can be no run: write small letters"),
    (training_run(store={"uri": "/srv/store"}), "spec.store.uri", "/srv/store is no URL: begin with where it lies"),
    (training_run(mlflow={"trackingURI": "mlflow:5000"}), "spec.mlflow.trackingURI", "begin with http:// or https://"),
    (training_run(store={"uri": "s3://b", "secretName": "My Secret"}), "spec.store.secretName", "write small letters"),
    (training_run(queue="Team A"), "spec.queue", "Team A can be the name of no object"),
    (training_run(maxRetries=101), "spec.maxRetries", "less than or equal to 100"),
    (training_run(preRunningDeadlineSeconds=1), "spec.preRunningDeadlineSeconds", "greater than or equal to 10"),
    (training_run(suspend="yes"), "spec.suspend", "must be of type boolean"),
    # its data
    (from_data(source="./pictures"), "spec.data.source", "./pictures is a place on somebody's machine"),
    (from_data(source="/data/pictures"), "spec.data.source", "copy the data to a bucket and name that"),
    (from_data(source="file:///data/pictures"), "spec.data.source", "or take builtin:digits"),
    (from_data(format="jpeg"), "spec.data.format", 'supported values: "image-folder", "voc"'),
    (from_data(source="s3://b/t.csv", format="csv"), "spec.data.label", "format csv needs label: name the column"),
    (from_data(source="s3://b/t", format="parquet"), "spec.data.label", "format parquet needs label"),
    (from_data(split={"strategy": "group"}), "spec.data.split.strategy", "name it in data.group"),
    (from_data(split={"strategy": "time"}), "spec.data.split.strategy", "name it in data.time"),
    (from_data(split={"train": 0.8}), "spec.data.split", "do not add up to 1: write shares that do"),
    (from_data(split={"train": 0.85, "test": 0}), "spec.data.split.test", "leave something to judge the model by"),
    (from_data(split={"train": 1.5}), "spec.data.split.train", "less than or equal to 1"),
    (from_data(features=[]), "spec.data.features", "at least 1 items"),
    # its model
    (training_run(model={"name": "my_model:Net"}), "spec.model.name", "there is no code: add code"),
    (training_run(model={"name": "resnet8", "code": CODE}), "spec.model.name", "as module:Class, or remove code"),
    (training_run(model={"name": "m:N", "code": CODE | {"sha256": "abc"}}), "spec.model.code.sha256", "no SHA-256"),
    (training_run(model={"name": "resnet8", "initFrom": "./w.safetensors"}), "spec.model.initFrom", "is no URL"),
    (training_run(model={"name": "resnet8", "initFrom": "file:///w"}), "spec.model.initFrom", "pods cannot read"),
    # its training
    (training_run(train={"workers": {"min": 4}}), "spec.train.workers", "min is above max"),
    (training_run(train={"batchSize": 2, "workers": {"max": 4}}), "spec.train.batchSize", "raise batchSize"),
    (training_run(train={"epochs": 0}), "spec.train.epochs", "greater than or equal to 1"),
    (training_run(train={"precision": "float8"}), "spec.train.precision", 'supported values: "float32", "bfloat16"'),
    (training_run(train={"parallel": "dp"}), "spec.train.parallel", "ddp"),
    (training_run(train={"emaDecay": 1}), "spec.train.emaDecay", "less than 1"),
    (
        training_run(train={"losses": [{"task": "ocr", "name": "ctc"}]}),
        "spec.train.losses",
        "a loss names a task that is not in tasks: write the name of one of them",
    ),
    (training_run(train={"gpusPerWorker": 1}), "spec.train.gpusPerWorker", "raise pods.worker.gpu, or lower"),
    (
        training_run(train={"resources": {"cpusPerWorker": 2}}),
        "spec.pods.worker.cpu",
        "pods.worker.cpu is 1, less than train.resources.cpusPerWorker asks for: raise pods.worker.cpu",
    ),
    # its pods
    (pods(worker={"cpu": "500m"}), "spec.pods.worker.cpu", "pods.worker.cpu is 500m, less than"),
    (pods(worker={"cpu": "two"}), "spec.pods.worker.cpu", "two is no quantity: write a number and a unit"),
    (pods(worker={"cpu": "0"}), "spec.pods.worker.cpu", "cpu is 0: write what the pod needs, as 2 or 500m"),
    (pods(head={"memory": "3"}), "spec.pods.head.memory", "memory is 3, which no Ray pod can start with"),
    (pods(head={"memory": "3 GB"}), "spec.pods.head.memory", "3 GB is no quantity"),
    (pods(sharedMemory="8Gi"), "spec.pods.sharedMemory", "raise worker.memory or lower sharedMemory"),
    (pods(sharedMemory="1"), "spec.pods.sharedMemory", "Ray needs at least 64Mi"),
    (pods(imagePullPolicy="Sometimes"), "spec.pods.imagePullPolicy", 'supported values: "Always"'),
    (pods(gpuResource="gpu"), "spec.pods.gpuResource", "write it as nvidia.com/gpu"),
    (pods(environment=[{"name": "2nd"}]), "spec.pods.environment[0].name", "no digit first"),
    (
        pods(environment=[{"name": "MLFLOW_TRACKING_URI", "value": "x"}]),
        "spec.pods.environment[0].name",
        "MLFLOW_TRACKING_URI is set by the operator: remove it",
    ),
    (pods(environment=[{"name": "A"}, {"name": "A"}]), "spec.pods.environment[1]", "Duplicate value"),
    (
        pods(tolerations=[{"key": "gpu", "operator": "Exists", "value": "x"}]),
        "spec.pods.tolerations[0]",
        "remove value",
    ),
    (pods(tolerations=[{"value": "x"}]), "spec.pods.tolerations[0]", "without a key operator must be Exists"),
    (
        pods(tolerations=[{"key": "gpu", "tolerationSeconds": 5, "effect": "NoSchedule"}]),
        "spec.pods.tolerations[0]",
        "tolerationSeconds is for the effect NoExecute only",
    ),
    (
        training_run(authentication={"mode": "none", "secretName": "ray"}),
        "spec.authentication.secretName",
        "mode none asks nobody for a token: remove secretName",
    ),
    # of a ModelDeployment
    (model_deployment("1digits"), "metadata.name", "a letter first, at most 40 characters"),
    (model_deployment("d" * 41), "metadata.name", "at most 40 characters"),
    (model_deployment(model={"name": "digits"}), "spec.model", "neither version nor alias is given: add version"),
    (
        model_deployment(model={"name": "digits", "version": "3", "alias": "champion"}),
        "spec.model",
        "keep version to stay with it, or alias to follow it",
    ),
    (model_deployment(model={"name": "digits", "version": "v3"}), "spec.model.version", "v3 is no version"),
    (model_deployment(model={"name": "digits", "version": 3}), "spec.model.version", "must be of type string"),
    (model_deployment(model={"name": "digits", "alias": "latest"}), "spec.model.alias", "latest is no alias in MLflow"),
    (model_deployment(model={"name": "digits", "alias": "v1"}), "spec.model.alias", "v1 is no alias in MLflow"),
    (model_deployment(model={"name": "digits", "alias": "1st"}), "spec.model.alias", "1st can be no alias"),
    (
        model_deployment(autoscaling={"minReplicas": 3, "maxReplicas": 2}),
        "spec.autoscaling",
        "is above maxReplicas: raise maxReplicas, or lower minReplicas",
    ),
    (model_deployment(replicas=0), "spec.replicas", "greater than or equal to 1"),
    (model_deployment(resources={"gpus": 1.5}), "spec.resources.gpus", "write a whole number, or a share below 1"),
    (model_deployment(gcsFaultTolerance={"redisAddress": "redis"}), "spec.gcsFaultTolerance.redisAddress", "HOST:PORT"),
    # of a ModelMonitor
    (model_monitor(windowSeconds=30), "spec.windowSeconds", "raise windowSeconds, or lower intervalSeconds"),
    (model_monitor(intervalSeconds=600), "spec.windowSeconds", "is shorter than intervalSeconds"),
    (
        model_monitor(objectives={"maxP50Seconds": 2, "maxP99Seconds": 1}),
        "spec.objectives.maxP50Seconds",
        "swap them, or leave one out",
    ),
    (model_monitor(objectives={"maxErrorRatio": 5}), "spec.objectives.maxErrorRatio", "less than or equal to 1"),
    (model_monitor(prometheus={"url": "prometheus:9090"}), "spec.prometheus.url", "begin with http:// or https://"),
    (model_monitor(deploymentName="My_Endpoint"), "spec.deploymentName", "can be no ModelDeployment"),
]


@pytest.mark.parametrize(("manifest", "place", "words"), REFUSED)
def test_it_is_refused_at_its_place_with_a_sentence(
    control_plane: ControlPlane, manifest: Object, place: str, words: str
) -> None:
    with pytest.raises(ApiError) as refused:
        control_plane.api.post(control_plane.api.path_of(manifest).rpartition("/")[0], manifest)
    assert refused.value.reason == "Invalid"
    assert words in refused.value.message
    if place != "metadata.name":  # a rule over the whole object cannot point there
        assert f"{place}: " in refused.value.message


UNKNOWN = [
    (training_run(train={"batch_size": 8}), 'unknown field "spec.train.batch_size"'),
    (training_run(evaluat=["s3://b/p"]), 'unknown field "spec.evaluat"'),
    (model_deployment(scaling={}), 'unknown field "spec.scaling"'),
    (model_monitor(prometheus={"url": "http://p", "secretName": "x"}), 'unknown field "spec.prometheus.secretName"'),
]


@pytest.mark.parametrize(("manifest", "words"), UNKNOWN)
def test_a_field_that_nobody_knows_is_refused_where_asked_for(
    control_plane: ControlPlane, manifest: Object, words: str
) -> None:
    path = control_plane.api.path_of(manifest).rpartition("/")[0]
    with pytest.raises(ApiError, match="strict decoding error") as refused:
        control_plane.api.request("POST", path, params={"fieldValidation": "Strict"}, json=manifest)
    assert words in refused.value.message
