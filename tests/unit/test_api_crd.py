"""The resource definitions, as they are generated from the types."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from headrace.api import crd
from headrace.api.judge import parse
from headrace.api.parts import Condition, Part, Status
from headrace.api.rules import list_map, matching, rule, rules
from headrace.api.structural import spec_schema, status_schema
from headrace.api.training_run import TrainingRunStatus

Schema = dict[str, Any]
SCHEMAS = {
    resource.kind: crd.definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for resource in crd.RESOURCES
}


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema inside of SCHEMA, itself included, by its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


EVERY = [(kind, path, node) for kind, schema in SCHEMAS.items() for path, node in nodes(schema)]
IN_SPEC = [(path, node) for _, path, node in EVERY if path.startswith(".spec")]


def test_what_is_committed_is_what_the_types_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--check"]) == 0, capsys.readouterr().err


def test_drift_is_named_by_its_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(crd, "MADE", "# other words\n")
    assert crd.main(["--check"]) == 1
    assert "headrace.dev_trainingruns.yaml does not match the code: run 'make generate'" in capsys.readouterr().err


def test_every_schema_is_structural() -> None:
    for kind, path, node in EVERY:
        assert {"$ref", "anyOf", "allOf", "oneOf", "title", "nullable"}.isdisjoint(node), (kind, path)
        assert isinstance(node["type"], str), (kind, path)
        unknown = {key for key in node if key.startswith("x-") and not key.startswith("x-kubernetes-")}
        assert not unknown, (kind, path)


def test_every_field_is_described() -> None:
    undescribed = [
        (kind, path)
        for kind, path, node in EVERY
        if path and not path.endswith("[]") and path != ".metadata" and not node.get("description")
    ]
    assert undescribed == []


def test_everything_that_people_write_is_bounded() -> None:
    for path, node in IN_SPEC:
        if node["type"] == "string" and "enum" not in node:
            assert "maxLength" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_a_status_has_no_defaults() -> None:
    assert [(kind, path) for kind, path, node in EVERY if path.startswith(".status") and "default" in node] == []


def test_arguments_are_kept_as_they_are() -> None:
    kept = [path for path, node in IN_SPEC if node.get("x-kubernetes-preserve-unknown-fields")]
    assert kept == [
        ".spec.tasks[].args",
        ".spec.model.args",
        ".spec.train.optimizer.args",
        ".spec.train.losses[].args",
        ".spec.train.schedule.args",
    ]


def test_every_rule_says_what_to_do() -> None:
    for kind, path, node in EVERY:
        for entry in node.get("x-kubernetes-validations", ()):
            assert len(entry["message"].split()) > 5, (kind, path, entry)
            assert ": " in entry["message"] or ";" in entry["message"], (kind, path, entry)
            assert "\n" not in entry.get("messageExpression", "")


@pytest.mark.parametrize("resource", crd.RESOURCES, ids=lambda resource: resource.kind)
def test_the_example_is_right(resource: crd.Resource) -> None:
    obj = yaml.safe_load((crd.ROOT / resource.example).read_text(encoding="utf-8"))
    assert obj["kind"] == resource.kind
    assert parse(resource.spec, obj).to_record()  # type: ignore[type-var]


# the generator, on parts of its own


class Inner(Part):
    """What is inside."""

    size: int = Field(default=1, ge=1, lt=9, description="How large.")
    share: float | None = Field(default=None, gt=0, description="How much.")


class Outer(Part):
    """What is outside."""

    name: str = Field(min_length=1, max_length=9, pattern="^a", json_schema_extra=matching("^a", "${self} is no a"))
    plain: str = Field(default="", max_length=9, pattern="^b?$", description="Plain.")
    mode: Literal["one", "two"] = Field(default="one", description="Which.")
    inner: Inner = Field(default=Inner(), description="In full.")
    maybe: Inner | None = Field(default=None, description="Perhaps.")
    many: tuple[Inner, ...] = Field(default=(), max_length=3, description="Many.", json_schema_extra=list_map("size"))
    anything: dict[str, Any] = Field(default={}, description="Anything.")
    labels: dict[str, str] = Field(default={}, max_length=2, description="Labels.")


def test_a_part_becomes_one_type_a_field() -> None:
    schema = spec_schema(Outer)
    assert schema["required"] == ["name"]
    fields = schema["properties"]
    assert fields["inner"]["properties"]["size"] == {
        "description": "How large. Default 1.",
        "type": "integer",
        "format": "int64",
        "default": 1,
        "minimum": 1,
        "maximum": 9,
        "exclusiveMaximum": True,
    }
    assert fields["inner"]["properties"]["share"] == {
        "description": "How much.",
        "type": "number",
        "format": "double",
        "minimum": 0,
        "exclusiveMinimum": True,
    }
    assert fields["mode"]["enum"] == ["one", "two"]
    assert fields["many"]["x-kubernetes-list-map-keys"] == ["size"]
    assert fields["many"]["items"]["description"] == "What is inside."
    assert fields["anything"]["x-kubernetes-preserve-unknown-fields"] is True
    assert fields["labels"]["additionalProperties"] == {"type": "string"}


def test_a_default_is_written_in_full_and_only_where_it_says_something() -> None:
    fields = spec_schema(Outer)["properties"]
    assert fields["inner"]["default"] == {"size": 1}
    assert {"plain", "maybe", "many", "anything", "labels"}.isdisjoint(
        name for name, field in fields.items() if "default" in field
    )
    assert "default" not in status_schema(Outer)["properties"]["mode"]


def test_a_pattern_that_has_a_sentence_is_told_by_it_alone() -> None:
    fields = spec_schema(Outer)["properties"]
    assert "pattern" not in fields["name"]
    assert fields["name"]["x-kubernetes-validations"] == [
        {"rule": "self.matches(r'^a')", "messageExpression": "self + ' is no a'", "message": "... is no a"}
    ]
    assert fields["plain"]["pattern"] == "^b?$"


def test_words_with_quotes_stay_words_in_a_message() -> None:
    entry = rules(rule("true", "it's ${self.a}: don't"))["x-kubernetes-validations"]
    assert entry == [
        {"rule": "true", "messageExpression": r"'it\'s ' + self.a + ': don\'t'", "message": "it's ...: don't"}
    ]


# records


def test_a_record_is_spelt_as_the_api_server_spells_it() -> None:
    status = TrainingRunStatus(metrics={"accuracy": 1.0, "loss": 0.25, "diverged": math.nan, "large": 1e300})
    assert status.to_record()["metrics"] == {"accuracy": 1, "loss": 0.25, "large": 1e300}
    assert isinstance(status.to_record()["metrics"]["accuracy"], int)


def test_what_a_newer_operator_wrote_in_a_status_is_left_alone() -> None:
    entry = {"type": "A", "status": "True", "reason": "B", "lastTransitionTime": "2026-01-01T00:00:00Z", "new": 1}
    assert Condition.model_validate(entry).type == "A"
    assert issubclass(Condition, Status)
