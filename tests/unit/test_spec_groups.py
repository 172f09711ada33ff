"""Settings of single parameter groups in a spec: judged with the rest, before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.base.errors import SpecInvalid
from headrace.spec import load_spec


def spec(**optimizer: Any) -> dict[str, Any]:
    return {
        "name": "digits",
        "task": "image-classification",
        "data": {"source": "builtin:digits"},
        "model": "resnet8",
        "train": {"optimizer": {"name": "adamw", **optimizer}},
    }


def test_groups_stand_beside_the_optimizers_other_arguments() -> None:
    groups = [{"match": "head.", "lr": 0.01}, {"match": "*.bias", "weight_decay": 0}]
    loaded = load_spec(spec(lr=0.001, groups=groups, layer_decay=0.5))
    assert loaded.train.optimizer.args["groups"] == groups
    assert load_spec(loaded.to_record()) == loaded


@pytest.mark.parametrize(
    ("groups", "where", "action"),
    [
        ([{"match": "head.", "weight_deacy": 0.1}], "train.optimizer.groups[0].weight_deacy", "write `weight_decay`"),
        ([{"match": "head.", "lr": -1}], "train.optimizer.groups[0].lr", ""),
        ([{"lr": 0.1}], "train.optimizer.groups[0].match", "add `match`"),
        ([{"match": "head."}], "train.optimizer.groups[0]", "give lr, weight_decay, or both"),
    ],
)
def test_a_mistake_in_a_group_is_told_at_its_place(groups: list[Any], where: str, action: str) -> None:
    with pytest.raises(SpecInvalid) as raised:
        load_spec(spec(groups=groups))
    found = {finding.where: finding for finding in raised.value.findings}
    assert where in found
    assert action in found[where].action
