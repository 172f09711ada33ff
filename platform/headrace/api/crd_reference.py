"""The reference of the custom resources, written from their definitions, so that it says what the API server does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]

_RULES = "x-kubernetes-validations"

_INTRODUCTION = """\
<!-- Made by `make generate` from the code. Do not edit. -->

# Custom resources

Everything of the group `headrace.dev`, version `v1alpha1`. `kubectl explain trainingrun.spec.train` says the same in a
terminal; `kubectl get headrace` lists them all. They take the run spec's canonical form only, in camelCase: the short
forms of a run spec are for people, and `headrace run` writes them out.

- The API server refuses what the types and the rules below do not allow, with the rule's sentence; the operator says in
  the condition `Accepted` what only the catalog can tell (`args`, which loss suits which task).
- A field without a default may be left out. null is the same as left out when an object is created; server-side apply
  refuses it. Below `args` null is a value, which `kubectl apply` leaves out unless it is called with `--server-side`.
- The rules need Kubernetes 1.29 or newer.
- Labels, names and units are Kubernetes' own: `500m` is half a core, `4Gi` are 4 · 2³⁰ bytes.
"""


def reference(definitions: Mapping[str, Schema], examples: Mapping[str, Path]) -> str:
    """The page in Markdown.

    Args:
        definitions: each CustomResourceDefinition by kind.
        examples: an object of each kind, in YAML.
    """
    told = [_INTRODUCTION]
    for kind, definition in definitions.items():
        told += _resource(kind, definition["spec"], examples[kind].read_text(encoding="utf-8"))
    return "\n".join(told).rstrip() + "\n"


def _resource(kind: str, spec: Schema, example: str) -> Iterator[str]:
    version = spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    yield f"## {kind}"
    yield ""
    yield f"{schema['description']} Short name `{spec['names']['shortNames'][0]}`."
    yield ""
    yield "```yaml"
    yield example.rstrip()
    yield "```"
    yield ""
    yield from _rules({_RULES: [e for e in schema.get(_RULES, ()) if "oldSelf" not in e["rule"]]})
    yield from _transitions(schema)
    yield from _part("spec", schema["properties"]["spec"])
    yield from _part("status", schema["properties"]["status"])
    columns = ", ".join(
        f"{column['name']}{' (`-o wide`)' if column.get('priority') else ''}"
        for column in version["additionalPrinterColumns"]
    )
    yield f"`kubectl get {spec['names']['plural']}` shows: {columns}."
    if "scale" in version["subresources"]:
        yield f"`kubectl scale {spec['names']['shortNames'][0]}/NAME --replicas=N` sets `spec.replicas`."
    yield ""


def _part(path: str, schema: Schema) -> Iterator[str]:
    """The table of an object's fields, its rules, then the objects inside of it."""
    yield f"### {path}"
    yield ""
    yield schema["description"]
    yield ""
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in schema["properties"].items():
        needed = name in schema.get("required", ())
        meaning = " ".join([_escaped(field.get("description", "")), *_sentences(field)])
        yield f"| `{name}` | {_escaped(_type(field))} | {_default(field, needed)} | {meaning} |"
    yield ""
    yield from _rules(schema)
    for name, field in schema["properties"].items():
        if "properties" in field:
            yield from _part(f"{path}.{name}", field)
        elif "properties" in field.get("items", {}):
            yield from _part(f"{path}.{name}[]", field["items"])


def _rules(schema: Schema) -> Iterator[str]:
    entries = schema.get(_RULES, ())
    if entries:
        yield "Refused, and what the API server says then:"
        yield ""
        for entry in entries:
            yield f"- “{_escaped(entry['message'])}”, unless `{entry['rule']}`"
        yield ""


def _transitions(schema: Schema) -> Iterator[str]:
    entries = [entry for entry in schema.get(_RULES, ()) if "oldSelf" in entry["rule"]]
    if entries:
        yield "Refused of a change, once the first attempt was made:"
        yield ""
        yield from (f"- “{_escaped(entry['message'])}”" for entry in entries)
        yield ""


def _sentences(field: Schema) -> Iterator[str]:
    """The rules of a field that is no object, in words."""
    if "properties" not in field:
        for entry in field.get(_RULES, ()):
            if not re.fullmatch(
                r"self\.matches\(r'[^']*'\)", entry["rule"]
            ):  # spelling: the sentence comes when it is wrong
                yield f"Refused: “{_escaped(entry['message'])}”."


def _default(field: Schema, needed: bool) -> str:
    if needed:
        return "required"
    if "default" not in field or "properties" in field:
        return ""
    return f"`{json.dumps(field['default'], ensure_ascii=False)}`"


def _type(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if field["type"] == "array":
        return f"list of {_type(field['items'])}{_bounds(field, 'Items')}{_merged(field)}"
    if "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}{_bounds(field, 'Properties')}"
    if field["type"] == "object":
        return "object" if "properties" in field else "object of anything"
    if field.get("format") == "date-time":
        return "time"
    return f"{field['type']}{_range(field)}{_bounds(field, 'Length')}"


def _merged(field: Schema) -> str:
    keys = field.get("x-kubernetes-list-map-keys")
    if keys:
        return f", one of each `{', '.join(keys)}`"
    return ", each once" if field["x-kubernetes-list-type"] == "set" else ""


def _range(field: Schema) -> str:
    low = ">" if field.get("exclusiveMinimum") else "≥"
    high = "<" if field.get("exclusiveMaximum") else "≤"
    bounds = [f"{sign} {field[key]:g}" for key, sign in (("minimum", low), ("maximum", high)) if key in field]
    return f" {', '.join(bounds)}" if bounds else ""


def _bounds(field: Schema, what: str) -> str:
    most = field.get(f"max{what}")
    return f", at most {most}" if most is not None else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
