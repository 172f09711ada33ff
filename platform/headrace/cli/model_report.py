"""`headrace models`: the catalog in a person's words, each model with a spec that is ready to run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.base.errors import InvalidInput
from headrace.cli.output import table
from headrace.spec.model import TABLE_FORMATS
from headrace_models import catalog
from headrace_models.catalog.cards import ModelCard, TaskCard

PLACES = {"csv": "./table.csv", "parquet": "./table.parquet", "mot": "./videos"}  # others are pictures


def models_record() -> list[dict[str, Any]]:
    """Every model, shortly."""
    return [
        {
            "name": card.name,
            "tasks": list(card.tasks),
            "parameters": card.parameters,
            "summary": card.summary,
            "source": card.source,
            "expect": card.metric or None,
        }
        for card in catalog.models().values()
    ]


def render_models(records: Sequence[Mapping[str, Any]]) -> str:
    """The list of models: the size is the published one, the metric what its small size reaches."""
    rows = [
        (
            record["name"],
            ", ".join(record["tasks"]),
            None if record["parameters"] is None else f"{record['parameters']:,}",
            _first(record["source"], ",;"),
            _first(record["expect"] or "", ";"),
        )
        for record in records
    ]
    header = ("model", "tasks", "parameters", "source", "reaches")
    own = 'your own: model: {name: "my_model:Net", code: ./src}'
    return "\n".join([table(header, rows), "", own, "more: headrace models NAME"])


def _first(text: str, ends: str) -> str | None:
    """TEXT up to the first of the signs ENDS."""
    return re.split(f"[{ends}]", text)[0] or None


def model_record(name: str) -> dict[str, Any]:
    """All that is known of the model NAME. Raises InvalidInput with the nearest names."""
    card = catalog.get("model", name)
    if not isinstance(card, ModelCard):
        raise InvalidInput(f"{name} is no model", action="headrace models")
    tasks = {name: task for name, task in catalog.tasks().items() if name in card.tasks}
    known = [tasks[name] for name in card.tasks if name in tasks]
    return {
        "name": card.name,
        "summary": card.summary,
        "source": card.source,
        "expect": card.metric or None,
        "parameters": card.parameters,
        "package": " ".join(next(iter(catalog.plugins_of((), card.name).items()), ())) or None,
        "learns": card.learns,
        "tasks": list(card.tasks),
        "unknown_tasks": [name for name in card.tasks if name not in tasks],
        "shapes": {task.name: {"inputs": task.inputs, "outputs": task.outputs} for task in known},
        "arguments": _arguments(card),
        "small": dict(card.debug),
        "spec": _spec(card, known),
        "also": [_place(task, card) for task in known[1:] if not card.together],
    }


def _arguments(card: ModelCard) -> list[dict[str, Any]]:
    properties = card.args.model_json_schema().get("properties", {})
    return [
        {
            "name": name,
            "type": _type(schema),
            "default": schema.get("default"),
            "bounds": _bounds(schema),
            "description": schema.get("description", ""),
        }
        for name, schema in properties.items()
    ]


BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def _bounds(schema: Mapping[str, Any]) -> str:
    """Between what numbers the argument lies, in words."""
    branches = [schema, *schema.get("anyOf", ())]
    return ", ".join(
        f"{words} {branch[name]:g}" for branch in branches for name, words in BOUNDS.items() if name in branch
    )


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(branch) for branch in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("const", schema.get("type", "any")))


def _spec(card: ModelCard, known: Sequence[TaskCard]) -> str | None:
    """A spec for the first of its KNOWN tasks, or for all together; None where a task that it needs is not there."""
    if not known or (card.together and len(known) < len(card.tasks)):
        return None
    task = known[-1] if card.together else known[0]  # what is joined reads the formats of the last
    place = _place(task, card)
    named = f"[{', '.join(card.tasks)}]" if card.together else place["task"]
    return "\n".join(
        [
            f"name: {card.name}",
            f"task: {named}",
            f"data: {place['data']}",
            f"model: {{name: {card.name}}}",
            f"train: {{epochs: 10, batch_size: {16 if task.label_kind == 'annotation' else 64}}}",
            f"register: {{name: {card.name}}}",
            f"deploy: {{name: {card.name}}}",
        ]
    )


def _place(task: TaskCard, card: ModelCard) -> dict[str, str]:
    """What a spec says as `task` and `data` for TASK with the model of CARD."""
    name = task.default_format or task.formats[0]
    label = ", label: LABEL" if name in TABLE_FORMATS else ""
    return {
        "task": f"{{name: {task.name}, proposals: selective-search}}" if card.proposals else task.name,
        "data": f"{{source: {PLACES.get(name, './pictures')}, format: {name}{label}}}",
    }


def render_model(record: Mapping[str, Any]) -> str:
    """One model with its arguments and a spec for it."""
    told = [f"{record['name']}: {record['summary']}"]
    for title, value in (("source", record["source"]), ("expect", record["expect"]), ("package", record["package"])):
        if value:
            told.append(f"{title}: {value}")
    if record["parameters"]:
        told.append(f"parameters: {record['parameters']:,}")
    if record["learns"] == "statistics":
        told.append("learns from statistics: optimizer, schedule and loss mean nothing to it (docs/training.md)")
    told += ["", "shapes"]
    told += [f"  {task}: {shapes['inputs']} -> {shapes['outputs']}" for task, shapes in record["shapes"].items()]
    told += [f"  {task}: of a package that is not installed" for task in record["unknown_tasks"]]
    told += ["", "arguments"]
    for argument in record["arguments"]:
        bounds = f" ({argument['bounds']})" if argument["bounds"] else ""
        told.append(f"  {argument['name']}: {argument['type']}{bounds} = {json.dumps(argument['default'])}")
        told.append(f"      {argument['description']}")
    if record["small"]:
        told += [
            "",
            "a small size, for a first try on a CPU",
            f"  model: {_flow(record['name'], record['small'])}",
        ]
    if record["spec"]:
        told += ["", "spec", *(f"  {line}" for line in record["spec"].splitlines())]
    for place in record["also"]:
        told += ["", "or", *(f"  {key}: {value}" for key, value in place.items())]
    return "\n".join(told)


def _flow(name: str, args: Mapping[str, Any]) -> str:
    """A model with its arguments as a YAML mapping on one line."""
    return "{" + ", ".join([f"name: {name}", *(f"{key}: {json.dumps(value)}" for key, value in args.items())]) + "}"
