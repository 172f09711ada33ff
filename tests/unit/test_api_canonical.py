"""A TrainingRun says what the run spec says, and the same again on the way back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.canonical import default_run_id, from_run_spec, from_train_part, to_split_part, to_train_part
from headrace.api.judge import parse
from headrace.api.training_run import TrainingRunSpec
from headrace.base.ids import is_run_id
from headrace.base.jsonfile import sha256_of
from headrace.spec import load_spec
from headrace.spec.parts import step_parts
from headrace_testbed.documents import documents

REST = {"store": {"uri": "s3://bucket/headrace"}, "mlflow": {"tracking_uri": "http://mlflow:5000"}}
SPLIT = {"manifest_uri": "s3://bucket/headrace/splits/abc"}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def through_the_api_server(spec: TrainingRunSpec) -> TrainingRunSpec:
    """What comes back of it: JSON in which whole floats have become integers, as Go writes them."""

    def as_go_writes(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_go_writes(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [as_go_writes(inner) for inner in value]
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        return int(value) if whole else value

    return parse(TrainingRunSpec, {"spec": as_go_writes(json.loads(json.dumps(spec.to_record())))})


@settings(max_examples=150, deadline=None)
@given(documents())
def test_a_run_spec_comes_back_from_a_training_run_as_it_was(document: dict[str, Any]) -> None:
    record = load_spec(document).to_record()
    parts = step_parts(record)
    spec = through_the_api_server(from_run_spec(record, **REST))
    assert sha256_of(to_train_part(spec)) == sha256_of(parts["train"])
    assert sha256_of(to_split_part(spec)) == sha256_of(parts["split"])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1), json_values, max_size=4))
def test_the_arguments_of_own_code_come_back_as_they_were_nulls_included(args: dict[str, Any]) -> None:
    part = step_parts(plain())["train"]
    assert part is not None
    code = {"sha256": "0" * 64, "uri": f"s3://bucket/headrace/code/{'0' * 64}.tar"}
    part["model"] |= {"name": "my_model:Net", "args": args, "code": code}
    spec = parse(TrainingRunSpec, {"spec": from_train_part(part, **REST, **SPLIT).to_record()})
    assert to_train_part(spec) == {**part, "train": {**part["train"], "gpus_per_worker": 0}}


def plain(**train: Any) -> dict[str, Any]:
    document = {
        "name": "digits",
        "task": "image-classification",
        "data": {"source": "builtin:digits"},
        "model": "resnet8",
        "train": train,
    }
    return load_spec(document).to_record()


def test_the_number_of_gpus_that_auto_means_is_the_cluster_s() -> None:
    spec = from_run_spec(plain(), gpus_per_worker=1, **REST)
    assert spec.train.gpus_per_worker == 1
    assert from_run_spec(plain(gpus_per_worker=4), gpus_per_worker=1, **REST).train.gpus_per_worker == 4


def test_with_a_split_the_data_is_left_out() -> None:
    spec = from_run_spec(plain(), **REST, **SPLIT)
    assert spec.data is None
    assert spec.manifest_uri == SPLIT["manifest_uri"]
    assert to_split_part(spec) is None


def test_own_code_goes_by_its_hash_and_its_place_in_the_store() -> None:
    record = plain()
    record["model"] |= {"name": "my_model:Net", "code": "/home/me/src"}
    code = {"sha256": "a" * 64, "uri": "s3://bucket/code"}
    assert from_run_spec(record, code=code, **REST).to_record()["model"]["code"] == code
    with pytest.raises(ValueError, match="needs the code's URI"):
        from_run_spec(record, **REST)


def test_losses_that_nobody_wrote_are_the_task_s_own() -> None:
    spec = parse(
        TrainingRunSpec,
        {
            "spec": {
                "tasks": [{"name": "image-classification"}],
                "model": {"name": "resnet8"},
                "manifestURI": "s3://bucket/splits/a",
                "store": {"uri": "s3://bucket"},
                "mlflow": {"trackingURI": "http://mlflow:5000"},
            }
        },
    )
    expected = [{"name": "cross-entropy", "args": {}, "task": "image-classification", "weight": 1.0}]
    assert to_train_part(spec)["train"]["losses"] == expected


def test_a_run_id_that_nobody_gave_belongs_to_one_object() -> None:
    first, again = default_run_id("digits", "uid-1"), default_run_id("digits", "uid-2")
    assert first == default_run_id("digits", "uid-1")
    assert first != again
    assert is_run_id(first)
    assert len(default_run_id("d" * 40, "uid-1")) <= 33
