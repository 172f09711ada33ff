"""Pydantic's JSON Schema as the structural schema that the API server takes.

Structural means: each field has one type, and nothing is referred to. An optional field is one that may be left out; it
is not nullable, so that one form only is stored: the API server drops a null, or refuses it. Defaults that say nothing
("", [], null) are not written, so that objects stay short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from headrace.api.rules import PATTERN_IS_TOLD

Schema = dict[str, Any]

_KEPT = (
    *("description", "type", "format", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
)
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_RULES = "x-kubernetes-validations"
_FORMATS = {"integer": "int64", "number": "double"}


def spec_schema(part: type[BaseModel]) -> Schema:
    """The schema of a part that people write, with defaults."""
    return _Writer(part.model_json_schema(by_alias=True).get("$defs", {}), with_defaults=True).of(_top(part))


def status_schema(part: type[BaseModel]) -> Schema:
    """The schema of a part that operators write: without defaults, or what they wrote would come back changed."""
    return _Writer(part.model_json_schema(by_alias=True).get("$defs", {}), with_defaults=False).of(_top(part))


def _top(part: type[BaseModel]) -> Schema:
    schema = part.model_json_schema(by_alias=True)
    schema.pop("$defs", None)
    return schema


class _Writer:
    """One schema on its way; DEFINITIONS are what its references mean."""

    def __init__(self, definitions: Mapping[str, Schema], *, with_defaults: bool) -> None:
        self.definitions = definitions
        self.with_defaults = with_defaults

    def of(self, node: Schema) -> Schema:
        """The structural form of NODE."""
        node = self._plain(node)
        found = {key: node[key] for key in _KEPT if key in node}
        if "description" in found:
            found["description"] = " ".join(found["description"].split())
        if PATTERN_IS_TOLD in node:
            found.pop("pattern", None)
        found |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
        found.setdefault("format", _FORMATS.get(node["type"]))
        if found["format"] is None:
            del found["format"]
        for bound in ("Minimum", "Maximum"):  # OpenAPI 3.0 has a flag beside the bound
            if f"exclusive{bound}" in found:
                found |= {bound.lower(): found[f"exclusive{bound}"], f"exclusive{bound}": True}
        if node["type"] == "array":
            found["items"] = self.of(node["items"])
            found.setdefault("x-kubernetes-list-type", "atomic")
        if node["type"] == "object":
            self._object(node, found)
        return _in_order(found)

    def _object(self, node: Schema, found: Schema) -> None:
        if "properties" in node:
            found["properties"] = {name: self._property(inner) for name, inner in node["properties"].items()}
            if node.get("required"):
                found["required"] = node["required"]
        elif isinstance(node.get("additionalProperties"), dict):
            found["additionalProperties"] = self.of(node["additionalProperties"])
        else:
            found["x-kubernetes-preserve-unknown-fields"] = True

    def _property(self, node: Schema) -> Schema:
        found = self.of(node)
        if self.with_defaults and "default" in node:
            default = self._default(self._plain(node), node["default"])
            if default not in _NOTHING or (default == {} and "properties" in found):
                found |= {"default": default, "description": _with_default(found, default)}
        return _in_order(found)

    def _default(self, node: Schema, value: Any) -> Any:
        """VALUE without what says nothing. Defaults inside of it are written out: the rules judge a default alone."""
        if not isinstance(value, dict) or "properties" not in node:
            return value
        inner = {name: self._plain(part) for name, part in node["properties"].items()}
        values = {name: self._default(inner[name], part) for name, part in value.items()}
        return {name: part for name, part in values.items() if part not in _NOTHING}

    def _plain(self, node: Schema) -> Schema:
        """NODE with its reference, or its one branch that is not null, in its place."""
        if "anyOf" in node:
            (branch,) = (branch for branch in node["anyOf"] if branch.get("type") != "null")
            node = self._together(branch, {key: value for key, value in node.items() if key != "anyOf"})
        if "$ref" in node:
            meant = self.definitions[node["$ref"].rsplit("/", 1)[-1]]
            node = self._together(meant, {key: value for key, value in node.items() if key != "$ref"})
        return node

    @staticmethod
    def _together(inner: Schema, outer: Schema) -> Schema:
        both = inner.get(_RULES, []) + outer.get(_RULES, [])
        return {**inner, **outer, **({_RULES: both} if both else {})}


def _with_default(schema: Schema, default: Any) -> str:
    """The description with the default in it, which `kubectl explain` does not show."""
    text: str = schema["description"]
    if isinstance(default, dict) or "efault" in text:
        return text
    return f"{text} Default {default if isinstance(default, str) else json.dumps(default)}."


def _in_order(schema: Schema) -> Schema:
    """Keys as a reader wants them: what it is, what is in it, the rules last."""
    first = ("description", "type", "format", "default", "enum")
    last = ("required", "properties", "additionalProperties", "items", "x-kubernetes-validations")
    middle = [key for key in schema if key not in first and key not in last]
    return {key: schema[key] for key in (*first, *middle, *last) if key in schema}
