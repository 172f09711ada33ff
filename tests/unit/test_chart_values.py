"""values.yaml as a tree, and the schema and table that are made of it."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.metadata import version
from typing import Any

import pytest
import yaml

from headrace_operators import chart_reference, prerequisites
from headrace_operators.chart_reference import ROOT, schema_of, schema_text
from headrace_operators.chart_values import Undescribed, Value, read

CHART = ROOT / "charts" / "headrace"


def one(text: str) -> Value:
    (value,) = read(text)
    return value


def test_what_is_committed_is_what_values_yaml_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert chart_reference.main(["--check"]) == 0, capsys.readouterr().err
    assert prerequisites.main(["--check"]) == 0, capsys.readouterr().err


def test_a_comment_above_a_value_is_its_text() -> None:
    value = one("# How many.\n# More than one is many.\nreplicas: 2\n")
    assert (value.path, value.text, value.default) == ("replicas", "How many. More than one is many.", 2)


def test_values_inside_have_their_own_comments() -> None:
    value = one("# A part.\npart:\n  # Whether.\n  enabled: true\n")
    assert [(leaf.path, leaf.text) for leaf in value.leaves()] == [("part.enabled", "Whether.")]


def test_a_comment_that_an_empty_line_parts_from_its_value_is_not_its_text() -> None:
    with pytest.raises(Undescribed, match="replicas has no comment"):
        read("# Of something else.\n\nreplicas: 2\n")


def test_the_schema_follows_the_default_and_knows_no_other_key() -> None:
    part = schema_of(one("# A part.\npart:\n  # Whether.\n  enabled: true\n  # How many.\n  count: 2\n"))
    assert part["additionalProperties"] is False
    assert {name: each["type"] for name, each in part["properties"].items()} == {
        "enabled": "boolean",
        "count": "integer",
    }


def test_at_schema_adds_what_the_default_does_not_say() -> None:
    made = schema_of(one('# How.\n# @schema {"enum": ["a", "b"]}\nhow: a\n'))
    assert made == {"description": "How.", "type": "string", "enum": ["a", "b"]}


@pytest.mark.parametrize("default", ["null", "[]", "{}"])
def test_a_default_that_tells_no_type_needs_a_schema(default: str) -> None:
    with pytest.raises(Undescribed, match="add `# @schema`"):
        schema_of(one(f"# How.\nhow: {default}\n"))


def test_every_object_in_the_whole_schema_says_which_keys_it_takes() -> None:
    def look(schema: Any, path: str) -> None:
        if isinstance(schema, list):
            for number, each in enumerate(schema):
                look(each, f"{path}/{number}")
        if not isinstance(schema, dict):
            return
        if "properties" in schema and isinstance(schema["properties"], dict) and path != "/properties/global":
            assert schema.get("additionalProperties") is False, path
        for key, value in schema.items():
            look(value, f"{path}/{key}")

    look(json.loads(schema_text(read((CHART / "values.yaml").read_text()))), "")


def test_every_value_stands_in_the_table() -> None:
    readme = (CHART / "README.md").read_text()
    for value in read((CHART / "values.yaml").read_text()):
        assert all(f"`{leaf.path}`" in readme for leaf in value.leaves())


def paths_read() -> set[str]:
    """Every path of values that a template or a rule reads: by itself, or through one of the chart's helpers."""
    files = {file: file.read_text() for file in (CHART / "templates").rglob("*.*")}
    whole = "\n".join(files.values())
    found = set()
    for text in files.values():
        for alias, path in re.findall(r"(\$\w+) := (?:\$|\.root)?\.Values\.([\w.]+) -?}}", text):
            text = re.sub(rf"{re.escape(alias)}\.", f".Values.{path}.", text)
        found |= set(re.findall(r"\.Values\.([\w.]+)", text))
    parts = re.findall(r"index \.root\.Values \.component(?: \| default dict)?\)\.(\w+)", whole)
    found |= {f"{name}.{part}" for name in re.findall(r'"component" "(\w+)"', whole) for part in parts}
    for claim in re.findall(r'"persistence" \.Values\.(\w+\.persistence)', whole):
        found |= {f"{claim}.{part}" for part in re.findall(r"[{ ]\.persistence\.(\w+)", whole)}
    found |= {f"images.{name}" for name in re.findall(r'"image" "(\w+)"', whole)}
    rules = "\n".join(file.read_text() for file in (CHART / "files" / "rules").iterdir())
    return found | {f"monitoring.rules.parameters.{name}" for name in re.findall(r"\$\((\w+)\)", rules)}


def test_every_value_is_read_by_a_template() -> None:
    leaves = [leaf.path for value in read((CHART / "values.yaml").read_text()) for leaf in value.leaves()]
    assert set(leaves) - paths_read() == set()


def test_the_chart_s_app_version_is_the_product_s() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version("headrace")


def test_what_the_chart_calls_required_is_known_to_the_template() -> None:
    assert {each.required for each in prerequisites.PREREQUISITES} <= {"always", "monitoring", "never"}


async def nothing(_group_version: str) -> frozenset[str]:
    return frozenset()


def test_one_of_the_kinds_is_enough() -> None:
    async def kinds(group_version: str) -> frozenset[str]:
        return frozenset({"LocalQueue"}) if group_version == "kueue.x-k8s.io/v1beta1" else frozenset()

    lacking = {each.name for each in asyncio.run(prerequisites.missing(kinds))}
    assert not any(name.startswith("Kueue") for name in lacking)
    assert any(name.startswith("KubeRay") for name in lacking)


def test_a_kuberay_before_1_6_counts_as_none() -> None:
    async def kinds(_group_version: str) -> frozenset[str]:
        return frozenset({"RayCluster", "RayJob", "RayService"})

    lacking = asyncio.run(prerequisites.missing(kinds))
    assert "KubeRay 1.6" in {each.name for each in lacking}


def test_what_is_required_is_missing_and_what_is_not_is_not_there() -> None:
    lacking = asyncio.run(prerequisites.missing(nothing))
    lines, required = prerequisites.told(lacking, frozenset({"always"}))
    assert required
    text = "\n".join(lines)
    assert "KubeRay 1.6 is missing" in text
    assert "Prometheus Operator is not there: it reads the ServiceMonitors and rules that monitoring.enabled" in text
    assert "is true" not in text  # who asks is told of needs only, not of values
    assert text.count("  install it: ") == len(prerequisites.PREREQUISITES)
    assert not prerequisites.told(lacking, frozenset())[1]
