"""A model that learns from statistics: what of `train` means nothing to it is told at its place."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from headrace.api.canonical import from_run_spec, to_train_part
from headrace.api.judge import judge_training_run, parse
from headrace.api.training_run import TrainingRunSpec
from headrace.base.errors import InvalidInput, SpecInvalid
from headrace.cli.model_report import model_record, render_model
from headrace.spec import load_spec
from headrace.spec.learning import require_statistics_settings
from headrace.spec.model import Train
from headrace.steps.lr_find import find_lr


def spec(model: Any = "nearest-neighbours", **parts: Any) -> dict[str, Any]:
    data = {"source": "builtin:digits"}
    return {"name": "count", "task": "image-classification", "data": data, "model": model, **parts}


GRADIENTS: list[tuple[dict[str, Any], str, str]] = [
    ({"optimizer": "sgd"}, "train.optimizer", '"sgd"'),
    ({"optimizer": {"name": "adam", "lr": 0.01}}, "train.optimizer", '"adam" with lr 0.01'),
    ({"schedule": "cosine"}, "train.schedule", '"cosine"'),
    ({"loss": "focal"}, "train.loss", '"focal"'),
    ({"losses": [{"name": "cross-entropy", "weight": 2.0}]}, "train.losses", '"cross-entropy"'),
    ({"parallel": "fsdp"}, "train.parallel", '"fsdp"'),
    ({"precision": "bfloat16"}, "train.precision", '"bfloat16"'),
    ({"compile": True}, "train.compile", "true"),
    ({"sync_batch_norm": True}, "train.sync_batch_norm", "true"),
    ({"accumulate_steps": 2}, "train.accumulate_steps", "2"),
    ({"clip_norm": 1.0}, "train.clip_norm", "1.0"),
    ({"ema_decay": 0.9}, "train.ema_decay", "0.9"),
]


@pytest.mark.parametrize(("train", "where", "given"), GRADIENTS)
def test_each_setting_of_gradients_is_told_with_what_to_do(train: dict[str, Any], where: str, given: str) -> None:
    with pytest.raises(SpecInvalid) as raised:
        load_spec(spec(train=train))
    (finding,) = raised.value.findings
    assert (finding.where, finding.given) == (where, given)
    assert finding.allowed == "nothing: nearest-neighbours learns from statistics, and without gradients"
    assert finding.action == "remove it, or take a model that learns by gradients"
    assert load_spec(spec("resnet8", train=train)).model.name == "resnet8"


def test_all_of_them_are_told_at_once_and_frozen_weights_too() -> None:
    train = {"optimizer": "sgd", "clip_norm": 1.0, "ema_decay": 0.9}
    with pytest.raises(SpecInvalid) as raised:
        load_spec(spec({"name": "nearest-neighbours", "freeze": ["layer1."]}, train=train))
    wheres = {finding.where for finding in raised.value.findings}
    assert wheres == {"model.freeze", "train.optimizer", "train.clip_norm", "train.ema_decay"}


def test_what_it_would_begin_with_is_refused_since_nothing_of_it_is_left() -> None:
    with pytest.raises(SpecInvalid) as raised:
        load_spec(spec({"name": "nearest-neighbours", "init_from": "digits@champion"}))
    (finding,) = raised.value.findings
    assert (finding.where, finding.action) == ("model.init_from", "remove it")
    assert "in its only epoch" in finding.allowed
    assert load_spec(spec({"name": "resnet8", "init_from": "digits@champion"})).model.init_from == "digits@champion"


def test_defaults_disturb_nobody_in_any_spelling() -> None:
    plain = load_spec(spec())
    written = {
        "optimizer": "adam",
        "schedule": {"name": "constant", "args": {}},
        "loss": {"name": "cross-entropy", "weight": 1.0},
        "parallel": "ddp",
        "clip_norm": None,
        "compile": False,
    }
    assert load_spec(spec(train=written)).sha256 == plain.sha256
    assert load_spec(plain.to_record()).sha256 == plain.sha256


def test_what_is_not_of_gradients_stays_allowed() -> None:
    train = {"epochs": 3, "batch_size": 8, "workers": 2, "seed": 1, "early_stop": {"patience": 2}, "max_failures": 0}
    assert load_spec(spec(train=train)).train.epochs == 3


def test_its_arguments_can_be_searched_and_a_learning_rate_cannot() -> None:
    space = {"model.k": [1, 5], "model.weights": ["uniform", "distance"], "train.batch_size": [32, 64]}
    assert load_spec(spec(tune={"search": "grid", "space": space})).tune is not None
    with pytest.raises(SpecInvalid) as raised:
        load_spec(spec(tune={"space": {"train.optimizer.lr": {"loguniform": [1e-4, 1e-1]}}}))
    (finding,) = raised.value.findings
    assert finding.where == "tune.space.train.optimizer.lr"
    assert "learns from statistics" in finding.allowed


def test_a_training_run_of_the_cluster_is_judged_alike_and_makes_the_same_part() -> None:
    cluster = {"store": {"uri": "s3://bucket/headrace"}, "mlflow": {"trackingURI": "http://mlflow:5000"}}
    record = load_spec(spec()).to_record()
    train_run = from_run_spec(record, **cluster)
    assert judge_training_run(train_run) == ([], [])
    assert to_train_part(train_run)["train"] == {**record["train"], "gpus_per_worker": 0}
    obj = train_run.model_dump(mode="json", by_alias=True, exclude_none=True)
    obj["train"]["clipNorm"] = 1.0
    (finding,) = judge_training_run(parse(TrainingRunSpec, {"spec": obj})).errors
    assert finding.where == "spec.train.clipNorm"


def test_a_model_of_ones_own_is_judged_by_the_same_rule_when_it_is_built() -> None:
    tasks, train = ["image-classification"], Train().model_dump(mode="json")
    train["losses"] = [{"task": tasks[0], "name": "cross-entropy", "args": {}, "weight": 1.0}]
    require_statistics_settings(tasks, train, "Mixture")
    with pytest.raises(SpecInvalid, match=r"Mixture learns from statistics.*train\.ema_decay: 0\.5") as raised:
        require_statistics_settings(tasks, {**train, "ema_decay": 0.5}, "Mixture")
    assert [finding.where for finding in raised.value.findings] == ["train.ema_decay"]


def test_the_catalog_says_how_it_learns_with_a_spec_that_is_ready() -> None:
    record = model_record("nearest-neighbours")
    assert record["learns"] == "statistics"
    assert "learns from statistics: optimizer, schedule and loss mean nothing to it" in render_model(record)
    ready = {**yaml.safe_load(record["spec"]), "data": {"source": "builtin:digits"}}
    assert load_spec(ready).model.name == "nearest-neighbours"
    assert model_record("resnet8")["learns"] == "gradients"
    assert "learns from statistics" not in render_model(model_record("resnet8"))


def test_it_has_no_learning_rate_to_find() -> None:
    with pytest.raises(InvalidInput, match="nearest-neighbours learns from statistics: it has no learning rate"):
        find_lr(load_spec(spec()), 1e-4, 1.0, 10, print)
