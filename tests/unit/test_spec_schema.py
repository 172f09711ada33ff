"""The JSON Schema accepts what people may write, and knows every name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headrace.spec.json_schema import json_schema
from headrace.spec.yaml_reader import read_yaml
from headrace_models import catalog

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
# Of run specs. Those of Kubernetes' objects are held to their definitions (test_crds_stored.py), that of the plug-in's
# task to the schema of a machine that has the plug-in (tests/local/test_third_party_package.py).
EXAMPLES = [
    path
    for path in sorted((Path(__file__).parents[2] / "examples").glob("**/*.yaml"))
    if path.parent.name not in ("kubernetes", "plug_in")
]

SHORT: dict[str, Any] = {
    "name": "x",
    "task": "image-classification",
    "data": {"source": "builtin:digits"},
    "model": "resnet8",
}


def errors(**changes: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors({**SHORT, **changes})]


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid(path: Path) -> None:
    assert list(VALIDATOR.iter_errors(read_yaml(path.read_text()).value)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"task": {"name": "image-classification", "channels": 1}},
        {"model": {"name": "resnet8", "args": {"width": 8}}},
        {"model": {"name": "resnet8", "width": 8, "freeze": ["a"]}},
        {"model": {"name": "mine:Net", "code": "./src", "depth": 3}},
        {"train": {"optimizer": {"name": "adam", "lr": 0.1}, "schedule": "cosine", "workers": 2}},
        {"train": {"workers": {"min": 1, "max": 4}, "loss": "focal"}},
        {"train": {"losses": [{"name": "focal", "weight": 2, "task": "image-classification"}]}},
        {"gate": "accuracy >= 0.9"},
        {"gate": ["accuracy >= champion - 0.01"]},
        {"register": "x", "deploy": {"replicas": 2}},
        {"register": {}, "deploy": None},
        {"data": {"source": "x", "split": "hash"}},
        {"tune": {"search": "grid", "space": {"train.optimizer.lr": [0.1, 0.2], "train.clip_norm": [None, 1.0]}}},
        {"tune": {"samples": 3, "space": {"train.batch_size": {"integers": [8, 16]}}}},
        {"tune": {"space": {"train.optimizer.args.lr": {"draw": "uniform", "values": [0.1, 0.2]}}}},
        {"data": {"source": "x", "split": {"train": 0.8}}},
    ],
)
def test_short_and_long_forms_are_accepted(changes: dict[str, Any]) -> None:
    assert errors(**changes) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "resnt8"},
        {"model": {"name": "resnet8", "widht": 8}},
        {"model": {"name": "mine:Net"}},
        {"train": {"epoch": 3}},
        {"train": {"optimizer": {"name": "adam", "momentum": 1}}},
        {"gate": ["accuracy => 3"]},
        {"tune": {"samples": 3}},
        {"tune": {"space": {"train.batch_size": {"intgers": [8, 16]}}}},
        {"tune": {"space": {"train.ema_decay": {"uniform": [0.9]}}}},
        {"tasks": ["image-classification"]},
        {"data": {}},
    ],
)
def test_mistakes_are_marked(changes: dict[str, Any]) -> None:
    assert errors(**changes)


def test_every_known_name_is_offered() -> None:
    def offered(schema: dict[str, Any]) -> set[str]:
        return {branch["const"] for branch in schema["anyOf"] if "const" in branch}

    train = SCHEMA["properties"]["train"]["properties"]
    assert offered(SCHEMA["properties"]["task"]) == set(catalog.tasks())
    assert offered(SCHEMA["properties"]["model"]) == set(catalog.models())
    assert offered(train["optimizer"]) == set(catalog.optimizers())
    assert offered(train["schedule"]) == set(catalog.schedules())
    assert offered(train["loss"]) == set(catalog.losses())


def test_every_setting_has_a_description() -> None:
    def undescribed(properties: dict[str, Any], path: str) -> list[str]:
        missing = []
        for key, node in properties.items():
            if "description" not in node:
                missing.append(f"{path}{key}")
            if "properties" in node:
                missing += undescribed(node["properties"], f"{path}{key}.")
        return missing

    assert undescribed(SCHEMA["properties"], "") == []
