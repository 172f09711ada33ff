"""Each step gets what it reads and no more."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.base.jsonfile import sha256_of
from headrace.spec import load_spec
from headrace.spec.parts import step_parts

SPEC: dict[str, Any] = {
    "name": "digits",
    "task": "image-classification",
    "data": {"source": "builtin:digits"},
    "model": "resnet8",
    "gate": "accuracy > 0.5",
    "register": {},
    "deploy": {},
}


def parts(*overrides: str) -> dict[str, Any]:
    return step_parts(load_spec(SPEC, overrides).to_record())


def changed(*overrides: str) -> set[str]:
    before, after = parts(), parts(*overrides)
    return {step for step in before if sha256_of(before[step]) != sha256_of(after[step])}


@pytest.mark.parametrize(
    ("override", "steps"),
    [
        ("train.epochs=3", {"train"}),
        ("model=resnet20", {"train"}),
        ("data.split.seed=3", {"split"}),
        ("gate=accuracy > 0.9", {"register"}),
        ("deploy.replicas=2", {"deploy"}),
        ("task={name: image-classification, channels: 1}", {"split", "train", "register"}),
    ],
)
def test_a_change_reaches_only_the_steps_that_read_it(override: str, steps: set[str]) -> None:
    assert changed(override) == steps


def test_the_parts_have_these_keys() -> None:
    got = parts()
    assert set(got) == {"split", "train", "register", "deploy"}
    assert got["split"]["source"] == "builtin:digits"
    assert got["split"]["tasks"] == [{"name": "image-classification", "args": {}}]
    assert set(got["train"]) == {"tasks", "model", "train"}
    assert got["register"]["register"] == {"name": "digits", "alias": "champion"}
    assert got["deploy"]["name"] == "digits"


def test_a_run_that_neither_gates_nor_registers_has_no_such_part() -> None:
    got = parts("gate=[]", "register=null", "deploy=null")
    assert got["register"] is None
    assert got["deploy"] is None
    assert parts("register=null", "deploy=null")["register"]["register"] is None


def test_no_path_of_this_machine_enters_the_training_part() -> None:
    record = load_spec(SPEC).to_record()
    record["model"]["code"] = "/home/me/src"
    got = step_parts(record, "/store/code/abc.tar", "abc")
    assert got["train"] is not None
    assert got["train"]["model"]["code"] == {"sha256": "abc", "uri": "/store/code/abc.tar"}
    with pytest.raises(ValueError, match="URI and hash"):
        step_parts(record)
