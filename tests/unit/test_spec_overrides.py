"""`--set KEY=VALUE` takes the place of what the file says, and is judged with it."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.base.errors import Finding, SpecInvalid
from headrace.spec import load_spec

SPEC: dict[str, Any] = {
    "name": "digits",
    "task": "image-classification",
    "data": {"source": "builtin:digits"},
    "model": "resnet8",
    "train": {"epochs": 8, "optimizer": "adam", "workers": 2, "losses": [{"name": "focal"}]},
    "gate": ["accuracy >= 0.9"],
    "register": "digits",
}


def record(*overrides: str) -> dict[str, Any]:
    return load_spec(SPEC, overrides).to_record()


def findings(*overrides: str) -> list[Finding]:
    with pytest.raises(SpecInvalid) as caught:
        load_spec(SPEC, overrides)
    return list(caught.value.findings)


def test_values_are_yaml() -> None:
    got = record("train.epochs=2", "train.clip_norm=1e-1", "gate=['accuracy > 0.5', macro_f1 > 0]", "register=null")
    assert got["train"]["epochs"] == 2
    assert got["train"]["clip_norm"] == 0.1
    assert got["gate"] == ["accuracy > 0.5", "macro_f1 > 0"]
    assert got["register"] is None


def test_an_equals_sign_in_the_value_stays() -> None:
    assert record("gate=accuracy >= 0.5")["gate"] == ["accuracy >= 0.5"]


def test_later_overrides_win() -> None:
    assert record("train.epochs=2", "train.epochs=3")["train"]["epochs"] == 3


def test_a_key_below_a_short_form_keeps_the_rest_of_it() -> None:
    got = record("train.optimizer.lr=0.1", "train.workers.min=1", "model.args.width=8", "register.alias=staging")
    assert got["train"]["optimizer"] == {"name": "adam", "args": {"lr": 0.1}}
    assert got["train"]["workers"] == {"min": 1, "max": 2}
    assert got["model"]["args"] == {"width": 8}
    assert got["register"] == {"name": "digits", "alias": "staging"}


def test_items_of_lists_are_reached_by_number() -> None:
    assert record("gate[0]=macro_f1 > 0", "train.losses.0.weight=2")["gate"] == ["macro_f1 > 0"]
    assert record("train.losses[0].weight=2")["train"]["losses"][0]["weight"] == 2.0


def test_one_loss_takes_the_place_of_many() -> None:
    assert [loss["name"] for loss in record("train.loss=hinge")["train"]["losses"]] == ["hinge"]


def test_parts_that_the_file_lacks_are_made() -> None:
    assert record("deploy.replicas=2")["deploy"]["replicas"] == 2
    assert record("data.split.seed=7")["data"]["split"]["seed"] == 7


@pytest.mark.parametrize(
    ("override", "where", "action"),
    [
        ("train.epoch=3", "--set train.epoch", "write `epochs`"),
        ("trian.epochs=3", "--set trian", "write `train`"),
        ("train.epochs=many", "--set train.epochs", "write a number"),
        ("train.optimizer.learning_rat=3", "--set train.optimizer.learning_rat", "remove it"),
        ("train.epochs", "--set train.epochs", "write a key of the spec"),
        ("=3", "--set =3", "write a key of the spec"),
        ("train.epochs={", "--set train.epochs={", "put texts"),
        ("train.epochs.x=3", "--set train.epochs.x=3", "set the whole of it instead"),
        ("gate[4]=accuracy > 0", "--set gate[4]=accuracy > 0", "set the whole of it instead"),
        ("gate.first=accuracy > 0", "--set gate.first=accuracy > 0", "set the whole of it instead"),
    ],
)
def test_a_wrong_override_is_a_finding_that_names_it(override: str, where: str, action: str) -> None:
    (found,) = findings(override)
    assert found.where == where
    assert action in found.action


def test_every_wrong_override_is_told() -> None:
    assert len(findings("train.epoch=3", "nonsense", "train.batch_size=-1")) == 3
