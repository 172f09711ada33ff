"""Pydantic's errors in a person's words: where, what was given, what is allowed, what to do.

What is allowed is read from the JSON Schema of the very type that refused, so that it cannot say anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headrace.base.ids import LONGEST_NAME, slug
from headrace.spec.fold import Folded
from headrace.spec.gate import GRAMMAR, CheckInvalid
from headrace.spec.model import ALIAS_PATTERN, ENDPOINT_PATTERN, LABEL_PATTERN
from headrace.spec.yaml_reader import Path
from headrace_models.catalog import listed, nearest

_PATTERNS = {
    LABEL_PATTERN: "small letters, digits and `-`, a letter first, at most 63",
    ENDPOINT_PATTERN: f"small letters, digits and `-`, a letter first, at most {LONGEST_NAME}",
    ALIAS_PATTERN: "letters, digits, `_` and `-`, a letter first, but not `latest` or `v1`",
}
_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_ACTIONS = {
    "greater_than": "write a larger one",
    "greater_than_equal": "write a larger one",
    "less_than": "write a smaller one",
    "less_than_equal": "write a smaller one",
    "string_too_short": "write something, or leave the key out",
    "too_short": "add an item, or leave the key out",
    "finite_number": "write a finite number",
}
_ALSO = {"tasks": ("task",), "losses": ("loss",)}  # keys people may write instead


def shown(value: Any) -> str:
    """VALUE as it is quoted in a finding: short, on one line."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def instead(name: str, names: Iterable[str], otherwise: str) -> str:
    """What to do about an unknown NAME."""
    near = nearest(name, names)
    return f"write `{near[0]}`" if near else otherwise


def report_unknown(folded: Folded, path: Path, what: str, name: str, names: Sequence[str]) -> None:
    """Add the finding of a NAME that the catalog does not have."""
    allowed = listed(name, names)
    folded.report(path, f"no {what} {shown(name)}", allowed, instead(name, names, f"take one of these {what} names"))


def report_errors(
    folded: Folded,
    error: ValidationError,
    model: type[BaseModel],
    path: Path = (),
    also: Sequence[str] = (),
) -> None:
    """Add a finding for each error of ERROR, which MODEL raised for what lies at PATH.

    ALSO names keys that may stand beside MODEL's own at its top (those of the thing whose arguments these are).
    """
    schema = _schema(model)
    # of a union's errors the first is told: that of a type says more than that of a fixed word
    for detail in sorted(error.errors(include_url=False), key=lambda detail: detail["type"] == "literal_error"):
        node, location = _walk(schema, detail["loc"])
        if detail["type"] == "extra_forbidden":
            extra = (*path, *location, detail["loc"][-1])
            _report_extra(folded, extra, node, detail, also if len(detail["loc"]) == 1 else ())
        elif detail["type"] == "unknown_name":
            _report_name(folded, (*path, *location), detail)
        else:
            _report_value(folded, (*path, *location), node, detail)


def _report_extra(
    folded: Folded, path: Path, node: Mapping[str, Any], detail: ErrorDetails, also: Sequence[str]
) -> None:
    name = str(path[-1])
    names = [name for branch in _either(node) or (node,) for name in branch.get("properties", {})] + list(also)
    names = [spelling for key in names for spelling in (*_ALSO.get(key, ()), key)]
    allowed = listed(name, names) or "nothing"
    folded.report(path, f"unknown key, with {shown(detail['input'])}", allowed, instead(name, names, "remove it"))


def _report_name(folded: Folded, path: Path, detail: ErrorDetails) -> None:
    value, told = detail["input"], detail.get("ctx", {})
    action = f"write `{told['nearest']}`" if told.get("nearest") else "take one of these"
    folded.report(path, shown(value), str(told["allowed"]), action)


def _report_value(folded: Folded, path: Path, node: Mapping[str, Any], detail: ErrorDetails) -> None:
    value = detail["input"]
    allowed = allowed_by(node)
    if detail["type"] == "missing":
        folded.report(path, "missing", allowed, f"add `{path[-1]}`")
        return
    choices = [str(choice) for branch in _either(node) or (node,) for choice in branch.get("enum", ())]
    if "enum" in node and isinstance(value, str):
        folded.report(path, shown(value), listed(value, choices), instead(value, choices, "take one of these"))
        return
    cause = detail.get("ctx", {}).get("error")
    if detail["type"] == "value_error" and cause is not None:
        if isinstance(cause, CheckInvalid):
            folded.report(path, shown(value), GRAMMAR, cause.action)
        else:  # other validators say one sentence
            folded.report(path, shown(value), allowed, str(cause))
        return
    otherwise = _action(detail["type"], value, node)
    action = instead(value, choices, otherwise) if isinstance(value, str) else otherwise
    folded.report(path, shown(value), allowed, action)


def _action(kind: str, value: Any, node: Mapping[str, Any]) -> str:
    types = {node.get("type")} | {branch.get("type") for branch in _either(node)}
    if "boolean" in types and isinstance(value, str):
        return "write true or false"
    if types & {"integer", "number"} and isinstance(value, str):
        return "write the number without quotes" if _is_numeric(value) else "write a number"
    if types == {"string"} and not isinstance(value, (str, dict, list)) and value is not None:
        return f'put it in quotes: "{value}"'
    if "array" in types and not isinstance(value, list):
        return f"write a list: [{value if isinstance(value, str) else shown(value)}]"
    if types == {"object"}:
        return "write `key: value` lines below it"
    if "const" in node:
        return f"write {node['const']}"
    if node.get("pattern") in {LABEL_PATTERN, ENDPOINT_PATTERN} and isinstance(value, str):
        return f"write `{slug(value, LONGEST_NAME)}`"
    return _ACTIONS.get(kind, "write a value that is allowed")


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def allowed_by(node: Mapping[str, Any]) -> str:
    """What a JSON Schema allows, in words."""
    if branches := _either(node):
        words = [allowed_by(branch) for branch in branches if branch.get("type") != "null"]
        return " or ".join(dict.fromkeys(word for word in words if word))
    if "enum" in node:
        return ", ".join(str(choice) for choice in node["enum"])
    if "const" in node:
        return str(node["const"])
    kind = node.get("type", "")
    if kind == "object":
        names = [spelling for key in node.get("properties", {}) for spelling in _ALSO.get(key, (key,))]
        return f"a mapping with {', '.join(names)}" if names else "a mapping"
    if node.get("pattern") in _PATTERNS:
        return _PATTERNS[node["pattern"]]
    if kind == "array" and (items := allowed_by(node.get("items", {}))):
        return f"a list, of each item: {items}"
    return f"{_KINDS.get(kind, '')}{_range(node)}"


def _range(node: Mapping[str, Any]) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    bounds = [
        f"{word} {node[key]:g}"
        for key, word in (
            ("minimum", "of at least"),
            ("exclusiveMinimum", "above"),
            ("exclusiveMaximum", "below"),
            ("maximum", "of at most"),
        )
        if key in node
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _walk(schema: Mapping[str, Any], location: Sequence[str | int]) -> tuple[Mapping[str, Any], Path]:
    """The schema at LOCATION and the part of LOCATION that it knows (pydantic adds names of union members)."""
    node = _resolved(schema, schema)
    path: Path = ()
    for part in location:
        branches = _branches(node, schema)
        inner = next((found for branch in branches if (found := _step(branch, part)) is not None), None)
        if inner is None:  # the name of a union's member: what follows is the member's own
            node = next((branch for branch in branches if _name_of(branch) == part), node)
            continue
        node = _resolved(inner, schema)
        path = (*path, part)
    return node if not _either(node) else {**node, "anyOf": _branches(node, schema)}, path


def _either(node: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The members of a union, none for what is none."""
    either: Sequence[Mapping[str, Any]] = node.get("anyOf") or node.get("oneOf") or ()
    return either


def _name_of(node: Mapping[str, Any]) -> Any:
    return node.get("properties", {}).get("name", {}).get("const")


def _branches(node: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The members of a union, and of those in it; NODE itself where it is none."""
    found = [_resolved(branch, schema) for branch in _either(node) or (node,)]
    return [inner for each in found for inner in (_branches(each, schema) if _either(each) else [each])]


def _step(node: Mapping[str, Any], part: str | int) -> Mapping[str, Any] | None:
    if isinstance(part, int):
        prefixed: list[Mapping[str, Any]] = node.get("prefixItems", [])
        found = prefixed[part] if part < len(prefixed) else node.get("items")
    else:
        found = node.get("properties", {}).get(part, node.get("additionalProperties"))
    return found if isinstance(found, Mapping) else None


def _resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        node = schema["$defs"][name]
    return node
