"""The JSON Schema that editors complete specs with: short forms, every known name, each argument with its meaning.

It describes what people may write, so it is wider than the canonical form; the loader remains the judge, since a
schema cannot say what must fit together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.spec.gate import GRAMMAR
from headrace.spec.model import RunSpec
from headrace_models import catalog
from headrace_models.catalog.cards import Card

Schema = dict[str, Any]

_GATE_PATTERN = (
    r"^\s*[A-Za-z_][\w.-]*\s*(>=|>|<=|<)\s*([-+]?[0-9.]+([eE][-+]?[0-9]+)?|champion(\s*[-+]\s*[0-9.eE+-]+)?)\s*$"
)


def json_schema() -> Schema:
    """The schema of a run spec as people write it (JSON Schema 2020-12)."""
    canonical = _inlined(RunSpec.model_json_schema(by_alias=True))
    properties = canonical["properties"]
    tasks = properties.pop("tasks")
    task = _named("task", catalog.tasks(), {})
    several = {"type": "array", "items": task, "minItems": 1, "description": "Several tasks of one model."}
    properties["task"] = {**_any(*task["anyOf"], several), "description": tasks["description"]}
    properties["tasks"] = several
    properties["model"] = _model(properties["model"])
    properties["data"] = _data(properties["data"])
    properties["train"] = _train(properties["train"])
    check = {"type": "string", "pattern": _GATE_PATTERN, "description": GRAMMAR}
    properties["gate"] = {**properties["gate"], **_any(check, {"type": "array", "items": check}, {"type": "null"})}
    properties["gate"].pop("type")
    properties["tune"] = _tune(properties["tune"])
    for key in ("register", "deploy"):
        properties[key] = _target(properties[key])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Headrace run spec",
        "description": canonical["description"],
        "type": "object",
        "properties": _ordered(properties),
        "required": ["name", "data", "model"],
        "oneOf": [{"required": ["task"]}, {"required": ["tasks"]}],
        "additionalProperties": False,
        "$defs": _shared(catalog.tasks()),
    }


def _ordered(properties: Mapping[str, Schema]) -> dict[str, Schema]:
    first = ["version", "name", "task", "tasks"]
    return {key: properties[key] for key in [*first, *(key for key in properties if key not in first)]}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _named(kind: str, cards: Mapping[str, Card], beside: Mapping[str, Schema], *more: Schema) -> Schema:
    """A name alone, or a mapping whose other keys depend on the name; BESIDE are keys that all of them take."""
    names = [{"const": card.name, "description": card.summary} for card in cards.values()]
    return _any(*names, *(_card(kind, card, beside) for card in cards.values()), *more)


def _card(kind: str, card: Card, beside: Mapping[str, Schema]) -> Schema:
    arguments = _inlined(card.args.model_json_schema()).get("properties", {})
    nested = {"type": "object", "properties": arguments, "additionalProperties": False}
    return {
        "type": "object",
        "title": f"{kind} {card.name}",
        "properties": {"name": {"const": card.name}, **beside, "args": nested, **arguments},
        "required": ["name"],
        "additionalProperties": False,
    }


def _model(model: Schema) -> Schema:
    beside = {key: model["properties"][key] for key in ("init_from", "freeze")}
    own = {
        "type": "object",
        "title": "a model of your own",
        "properties": {
            "name": {"type": "string", "pattern": ":", "description": '"module:Class" in the folder `code`.'},
            "code": {"type": "string", "description": model["properties"]["code"]["description"]},
            "args": {"type": "object", "description": "What the class is called with."},
            **beside,
        },
        "required": ["name", "code"],
    }
    return {**_named("model", catalog.models(), beside, own), "description": model["description"]}


def _data(data: Schema) -> Schema:
    split = data["properties"]["split"]
    strategy = split["properties"]["strategy"]
    data["properties"]["split"] = {
        **_any({key: strategy[key] for key in ("enum", "description")}, _body(split)),
        "description": split["description"],
    }
    return {**data, "required": ["source"]}


def _train(train: Schema) -> Schema:
    properties = train["properties"]
    for key, table in (("optimizer", catalog.optimizers), ("schedule", catalog.schedules)):
        properties[key] = {**_named(key, table(), {}), "description": properties[key]["description"]}
    losses = properties.pop("losses")
    parts = losses["items"]["properties"]
    loss = _named("loss", catalog.losses(), {key: parts[key] for key in ("task", "weight")})
    properties["loss"] = {**loss, "description": losses["description"]}
    properties["losses"] = {"type": "array", "items": loss, "description": losses["description"]}
    workers = properties["workers"]
    properties["workers"] = {
        **_any({"type": "integer", "minimum": 1}, _body(workers)),
        "description": workers["description"],
    }
    return train


def _tune(part: Schema) -> Schema:
    """`tune`: what is tried as people write it, a list or one range."""
    body = next(branch for branch in part["anyOf"] if branch.get("type") == "object")
    space = body["properties"]["space"]
    values = {"type": "array", "minItems": 1, "description": "One of these."}
    ends = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    ranges = [
        {
            "type": "object",
            "properties": {draw: {**ends, "description": "Smallest and largest value."}},
            "required": [draw],
            "additionalProperties": False,
        }
        for draw in ("uniform", "loguniform", "integers")
    ]
    space = {**space, "additionalProperties": _any(values, *ranges, space["additionalProperties"])}
    body = {**body, "properties": {**body["properties"], "space": space}}
    return {**part, **_any(body, {"type": "null"})}


def _target(part: Schema) -> Schema:
    """`register` and `deploy`: a name alone, or a mapping whose name has a default."""
    body = next(branch for branch in part["anyOf"] if branch.get("type") == "object")
    body = {key: value for key, value in body.items() if key != "required"}
    return {**part, **_any(body["properties"]["name"], body, {"type": "null"})}


def _body(part: Schema) -> Schema:
    return {key: part[key] for key in ("type", "properties", "additionalProperties")}


def _is_choice(definition: Schema) -> bool:
    return "anyOf" in definition or "oneOf" in definition


def _shared(cards: Mapping[str, Card]) -> Schema:
    """The choices that arguments of CARDS refer to, by name."""
    found: Schema = {}
    for card in cards.values():
        definitions = card.args.model_json_schema().get("$defs", {})
        for name, definition in definitions.items():
            if _is_choice(definition):
                found[name] = _inlined({**definition, "$defs": definitions})
    return found


def _inlined(schema: Schema) -> Schema:
    """SCHEMA with every reference written out: editors show what stands in place better than what is referred to.

    Choices of many (`_shared`) stay references: they would be most of the file."""
    definitions = schema.pop("$defs", {})

    def written_out(node: Any) -> Any:
        if isinstance(node, Mapping):
            if "$ref" in node:
                base = definitions[str(node["$ref"]).rsplit("/", 1)[-1]]
                if _is_choice(base):
                    return dict(node)
                node = {**base, **{key: value for key, value in node.items() if key != "$ref"}}
            return {
                key: written_out(value) for key, value in node.items() if key != "title" or not isinstance(value, str)
            }
        if isinstance(node, Sequence) and not isinstance(node, str):
            return [written_out(item) for item in node]
        return node

    result = written_out(schema)
    assert isinstance(result, dict)
    return result
