"""Writes the chart's values.schema.json and the table in its README.md from values.yaml; `--check` says what drifted.

Run in a checkout by `make generate` and `make check`, as `python -m headrace_operators.chart_reference`. The schema is
strict: a key that the chart does not know is refused with its path, before anything is installed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.api.pods import PodSettings
from headrace.base.generated import write_or_check
from headrace.monitoring import runbooks
from headrace_operators.chart_values import Undescribed, Value, read

ROOT = Path(__file__).resolve().parents[2]
CHART = Path("charts/headrace")
BEGIN, END = "<!-- values: made by `make generate` from values.yaml -->\n", "<!-- end of values -->\n"

Schema = dict[str, Any]

_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
_QUANTITIES: Schema = {"type": "object", "additionalProperties": {"$ref": "#/$defs/quantity"}}


def _closed(**properties: Schema) -> Schema:
    """An object of these properties and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


DEFINITIONS: Mapping[str, Schema] = {
    "name": {"type": "string", "pattern": f"^{_NAME}$"},
    "nameOrEmpty": {"type": "string", "pattern": f"^({_NAME})?$"},
    "addressOrEmpty": {"type": "string", "pattern": "^(https?://[^/].*)?$"},
    "quantity": {
        "type": ["string", "number"],
        "minimum": 0,
        "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$",
    },
    "strings": _STRINGS,
    "image": _closed(
        repository={"type": "string", "pattern": "^[a-z0-9][a-z0-9._/:-]*$"},
        tag={"type": "string", "pattern": r"^([\w][\w.-]{0,127})?$"},
        digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    ),
    "resources": {
        "anyOf": [
            {"type": "null"},
            _closed(requests=_QUANTITIES, limits=_QUANTITIES, claims=_OBJECTS),
        ]
    },
    "variable": {
        **_closed(name={"type": "string", "minLength": 1}, value={"type": "string"}, valueFrom={"type": "object"}),
        "required": ["name"],
    },
    "pod": _closed(
        labels=_STRINGS,
        annotations=_STRINGS,
        nodeSelector=_STRINGS,
        tolerations=_OBJECTS,
        affinity={"type": "object"},
        topologySpreadConstraints=_OBJECTS,
        priorityClassName={"$ref": "#/$defs/nameOrEmpty"},
        env={"type": "array", "items": {"$ref": "#/$defs/variable"}},
    ),
    "alert": _closed(
        enabled={"type": "boolean"},
        severity={"type": "string", "minLength": 1},
        labels=_STRINGS,
        **{"for": {"type": "string", "pattern": "^[0-9]+(s|m|h|d)$"}},
    ),
    "alerts": _closed(**{name: {"$ref": "#/$defs/alert"} for name in runbooks.pages()}),
}


def definitions() -> Schema:
    """Types that values share; `rayPods` is what the custom resources' own type says."""
    pods = _plain(PodSettings.model_json_schema(by_alias=True, ref_template="#/$defs/{model}"))
    inner = pods.pop("$defs", {})
    return {**DEFINITIONS, "rayPods": pods, **inner}


def _plain(schema: Any) -> Any:
    """SCHEMA without what only Kubernetes or pydantic reads: the API server's rules, titles, defaults."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not key.startswith("x-") and key != "default"}
    return {
        key: {name: _plain(inner) for name, inner in value.items()} if key == "properties" else _plain(value)
        for key, value in kept.items()
        if key != "title" or isinstance(value, dict)
    }


def schema_of(value: Value) -> Schema:
    """The schema of one value and of those in it.

    Raises:
        Undescribed: its default does not tell its type, and no `@schema` does.
    """
    own: Schema = {"description": value.text}
    if value.children:
        own |= {"type": "object", "additionalProperties": False}
        return own | value.schema | {"properties": {each.name: schema_of(each) for each in value.children}}
    if "$ref" in value.schema or "type" in value.schema:
        return own | value.schema
    return own | {"type": _type_of(value)} | value.schema


def _type_of(value: Value) -> str:
    for kind, name in ((bool, "boolean"), (int, "integer"), (str, "string")):
        if isinstance(value.default, kind):
            return name
    if isinstance(value.default, list) and "items" in value.schema:
        return "array"
    raise Undescribed(f"{value.path} is {value.default!r} in values.yaml: add `# @schema` with its type")


def schema_text(values: tuple[Value, ...]) -> str:
    """values.schema.json."""
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart headrace; made by `make generate` from values.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": {each.name: schema_of(each) for each in values},
        "$defs": definitions(),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def readme_text(values: tuple[Value, ...], now: str) -> str:
    """README.md as it stands NOW, with the table of VALUES."""
    before, _, rest = now.partition(BEGIN)
    after = rest.partition(END)[2]
    return before + BEGIN + "\n".join(_tables(values)) + "\n" + END + after


def _tables(values: tuple[Value, ...]) -> Iterator[str]:
    yield from ("", "| value | default | what it does |", "|---|---|---|")
    for top in values:
        if top.children:
            yield f"| **{top.name}** | | {_cell(top.text)} |"
        for leaf in top.leaves():
            yield f"| `{leaf.path}` | `{_cell(json.dumps(leaf.default))}` | {_cell(leaf.text)} |"
    yield ""


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def files() -> dict[Path, str]:
    """What is made: path below the checkout, text."""
    values = read((ROOT / CHART / "values.yaml").read_text(encoding="utf-8"))
    readme = CHART / "README.md"
    return {
        CHART / "values.schema.json": schema_text(values),
        readme: readme_text(values, (ROOT / readme).read_text(encoding="utf-8")),
    }


def main(arguments: list[str]) -> int:
    """Write them, or with --check compare them; 1 where one has drifted or a value is not described."""
    try:
        return write_or_check(ROOT, files(), arguments)
    except Undescribed as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
