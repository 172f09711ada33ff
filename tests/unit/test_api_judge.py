"""What the operator says of an object that the API server let in."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.api.judge import Judgement, judge_training_run, parse
from headrace.api.training_run import TrainingRunSpec
from headrace.base.errors import SpecInvalid


def training_run(**changes: Any) -> dict[str, Any]:
    return {
        "tasks": [{"name": "image-classification"}],
        "model": {"name": "resnet8"},
        "data": {"source": "builtin:digits", "format": "image-folder"},
        "store": {"uri": "s3://bucket/headrace"},
        "mlflow": {"trackingURI": "http://mlflow:5000"},
        **changes,
    }


def judged(**changes: Any) -> Judgement:
    return judge_training_run(parse(TrainingRunSpec, {"spec": training_run(**changes)}))


def test_a_right_one_has_nothing_said_of_it() -> None:
    assert judged() == ([], [])


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        (
            {"train": {"losses": [{"task": "image-classification", "name": "huber"}]}},
            "spec.train.losses[0].name",
            "does not suit image-classification",
        ),
        ({"train": {"optimizer": {"name": "adan"}}}, "spec.train.optimizer.name", "write `adam`"),
        (
            {"train": {"optimizer": {"name": "adam", "args": {"weight_decays": 1}}}},
            "spec.train.optimizer.args.weight_decays",
            "write `weight_decay`",
        ),
        ({"train": {"schedule": {"name": "cosin"}}}, "spec.train.schedule.name", "write `cosine`"),
        ({"model": {"name": "resnet8", "args": {"widht": 8}}}, "spec.model.args.widht", "write `width`"),
        ({"model": {"name": "resnet8", "args": {"width": "8"}}}, "spec.model.args.width", "without quotes"),
        ({"tasks": [{"name": "tabular-regression"}]}, "spec.model.name", "is made for image-classification"),
        ({"train": {"earlyStop": {"metric": "acuracy"}}}, "spec.train.earlyStop.metric", "write `accuracy`"),
        ({"train": {"batchSize": 2, "workers": {"min": 4, "max": 4}}}, "spec.train.batchSize", "raise batchSize"),
        ({"data": {"source": "s3://b/x.csv", "format": "csv", "label": "y"}}, "spec.data.format", "can read"),
        ({"model": {"name": "resnet8", "initFrom": "s3://b/w.pth"}}, "spec.model.initFrom", "as safetensors"),
        ({"model": {"name": "resnet8", "initFrom": "https://b/w.pt"}}, "spec.model.initFrom", "headrace run"),
        ({"data": {"source": "builtin:digit", "format": "image-folder"}}, "spec.data.source", "write `builtin:digits`"),
        (
            {"tasks": [{"name": "image-classification"}, {"name": "tabular-regression"}]},
            "spec.tasks[1].name",
            "make a spec for each task",
        ),
    ],
)
def test_what_only_the_catalog_can_judge_is_an_error_at_its_place(
    changes: dict[str, Any], where: str, words: str
) -> None:
    errors = {finding.where: str(finding) for finding in judged(**changes).errors}
    assert where in errors, errors
    assert words in errors[where]


@pytest.mark.parametrize("uri", ["s3://b/w.safetensors", "s3://b/packages/abc"])
def test_first_weights_that_a_pod_can_read_are_right(uri: str) -> None:
    assert judged(model={"name": "resnet8", "initFrom": uri}) == ([], [])


def test_a_model_that_nobody_here_knows_is_a_warning() -> None:
    errors, warnings = judged(model={"name": "resnet9", "args": {"anything": 1}})
    assert errors == []
    assert [finding.where for finding in warnings] == ["spec.model.name"]
    assert "write `resnet8`, unless a package of the image adds it" in str(warnings[0])


def test_a_task_that_nobody_here_knows_is_a_warning_and_so_is_its_metric() -> None:
    errors, warnings = judged(
        tasks=[{"name": "depth"}],
        model={"name": "depthnet"},
        train={"earlyStop": {"metric": "abs_rel"}, "losses": [{"task": "depth", "name": "mse"}]},
    )
    assert errors == []
    assert {finding.where for finding in warnings} == {
        "spec.tasks[0].name",
        "spec.model.name",
        "spec.train.earlyStop.metric",
    }


def test_own_code_is_neither() -> None:
    code = {"sha256": "a" * 64, "uri": "s3://bucket/code"}
    assert judged(model={"name": "my_model:Net", "code": code, "args": {"depth": 3}}) == ([], [])


def test_gpus_that_stand_idle_are_a_warning() -> None:
    errors, warnings = judged(pods={"worker": {"gpu": 2}}, train={"gpusPerWorker": 1})
    assert errors == []
    assert "raise train.gpusPerWorker to 2" in str(warnings[0])


def test_a_store_inside_a_pod_is_a_warning() -> None:
    assert "ends with the pod" in str(judged(store={"uri": "file:///tmp/store"}).warnings[0])


def test_an_object_of_another_version_is_refused_with_every_mistake() -> None:
    obj = {"kind": "TrainingRun", "metadata": {"name": "digits"}, "spec": training_run(train={"epochs": 0, "epoch": 1})}
    with pytest.raises(SpecInvalid, match=r"TrainingRun digits is not as this version wants it") as raised:
        parse(TrainingRunSpec, obj)
    assert {finding.where for finding in raised.value.findings} == {"spec.train.epochs", "spec.train.epoch"}


def test_python_s_own_spelling_is_refused_in_an_object() -> None:
    with pytest.raises(SpecInvalid, match="write `batchSize`"):
        parse(TrainingRunSpec, {"spec": training_run(train={"batch_size": 8})})
