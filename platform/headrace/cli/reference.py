"""Writes docs/reference from the code: the spec, the command line, the JSON Schema; `--check` says what has drifted.

Run by `make generate` and `make check` in a checkout: `python -m headrace.cli.reference [--check]`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from headrace.base.generated import write_or_check
from headrace.spec.gate import GRAMMAR
from headrace.spec.json_schema import json_schema
from headrace.spec.model import RunSpec
from headrace_models import catalog
from headrace_models.catalog.augment_steps import STEPS, Automatic
from headrace_models.catalog.cards import Arguments, Card, ModelCard, TaskCard

ROOT = Path(__file__).resolve().parents[3]
WIDTH = 100
STEPS_NAMED = "steps of augmentation"
MADE = "<!-- Made by `make generate` from the code. Do not edit. -->"


def files() -> dict[str, str]:
    """Every generated file by name."""
    return {
        "spec.md": spec_reference(),
        "cli.md": cli_reference(),
        "spec.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
    }


# the spec


def spec_reference() -> str:
    """The reference of the run spec."""
    schema = RunSpec.model_json_schema(by_alias=True)
    told = [
        MADE,
        "",
        "# The run spec",
        "",
        "One YAML file describes a model's life. `headrace schema` prints a JSON Schema for editors to complete with;",
        "every mistake in a file is reported in one go; `--set KEY=VALUE` changes a value for one run.",
        "",
        "Short forms: `task: NAME` for `tasks: [{name: NAME}]`; a bare name for `model`, `optimizer`, `schedule`,",
        "`loss`, `register` and `deploy`; their arguments may stand beside `name` or below `args`; `workers: 2` for",
        "`{min: 2, max: 2}`; `split: hash` for `{strategy: hash}`; of the three shares of a split those left out get",
        "what the others leave; in `tune.space` a list for `{draw: choice, values: [...]}` and",
        "`{uniform: [LOW, HIGH]}` for `{draw: uniform, values: [LOW, HIGH]}`.",
        "",
        f"A check of the gate is `{GRAMMAR}`.",
        "With one task a metric is called `accuracy`, with several `<task>.accuracy`. While there is no champion a",
        "check against it passes and says so.",
        "",
        *_part("Top level", schema, schema),
    ]
    for title, name in (
        ("data", "Data"),
        ("data.split", "Split"),
        ("model", "Model"),
        ("train", "Train"),
        ("train.losses[]", "Loss"),
        ("train.workers", "Workers"),
        ("train.early_stop", "EarlyStop"),
        ("train.resources", "TrainResources"),
        ("tune", "Tune"),
        ("tune.space.PLACE", "Domain"),
        ("register", "Register"),
        ("deploy", "Deploy"),
        ("deploy.resources", "DeployResources"),
    ):
        told += _part(title, schema["$defs"][name], schema)
    told += ["# What can be named", ""]
    told += _cards("Tasks", catalog.tasks())
    told += _cards("Models", catalog.models())
    told += _cards("Optimizers", catalog.optimizers())
    told += _cards("Schedules", catalog.schedules())
    told += _cards("Losses", catalog.losses())
    told += _cards("Activations", catalog.activations())
    told += _steps()
    return "\n".join(told).rstrip() + "\n"


def _part(title: str, part: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}" if title != "Top level" else "## The file"
    yield ""
    yield part["description"].splitlines()[0]
    yield ""
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    needed = set(part.get("required", ()))
    for key, node in part["properties"].items():
        default = "required" if key in needed else f"`{_yaml(node.get('default'))}`"
        if _is_part(node, schema) and key not in needed:
            default = ""
        meaning = _escaped(node.get("description", ""))
        yield f"| `{key}` | {_escaped(_type(node, schema))} | {default} | {meaning} |"
    yield ""


def _is_part(node: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    reference = node.get("$ref")
    return reference is not None and schema["$defs"][reference.rsplit("/", 1)[-1]].get("type") == "object"


def _type(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if reference := node.get("$ref"):
        name = reference.rsplit("/", 1)[-1]
        if name == "JsonValue":
            return "any value"
        return "name, or {name, args}" if name == "Named" else f"{name}, see below"
    if branches := node.get("anyOf") or node.get("oneOf"):
        return " or ".join(_type(branch, schema) for branch in branches)
    if choices := node.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices)
    if "const" in node:
        return f"`{node['const']}`"
    if node.get("type") == "array":
        inner = [_type(item, schema) for item in node.get("prefixItems", [node.get("items", {})])]
        return f"list of {' and '.join(inner)}"
    bounds = " ".join(
        f"{sign} {node[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in node
    )
    return f"{node.get('type', 'any')} {bounds}".strip()


def _yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _cards(title: str, cards: Mapping[str, Card]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    for card in cards.values():
        source = f" ({card.source})" if card.source else ""
        yield f"- **`{card.name}`** {card.summary}{source}"
        yield from _facts(card)
        yield from _arguments(card.args)
    yield ""


def _facts(card: Card) -> Iterator[str]:
    if isinstance(card, TaskCard):
        metrics = ", ".join(f"`{name}`" for name in card.metrics)
        yield f"  - metrics {metrics}; losses {', '.join(card.losses)}; formats {', '.join(card.formats)}"
    if isinstance(card, ModelCard):
        size = f"; {card.parameters:,} parameters at the source's own shape" if card.parameters else ""
        learns = "; learns from statistics, without gradients" if card.learns == "statistics" else ""
        yield f"  - for {', '.join(card.tasks)}{learns}{size}{f'; {card.metric}' if card.metric else ''}"


def _arguments(args: type[Arguments]) -> Iterator[str]:
    schema = args.model_json_schema()
    parts = schema.get("$defs", {})
    needed = set(schema.get("required", ()))
    for name, node in schema.get("properties", {}).items():
        default = "required" if name in needed else f"default `{_yaml(node.get('default'))}`"
        kind = _type(node, schema)
        for part, inner in parts.items():
            named = "{" + ", ".join(inner["properties"]) + "}" if "properties" in inner else STEPS_NAMED
            kind = kind.replace(f"{part}, see below", named)
        yield f"  - `{name}`: {kind}, {default}. {node.get('description', '')}".rstrip()


def _steps() -> Iterator[str]:
    """The steps of `task.augment`."""
    yield "## Steps of augmentation"
    yield ""
    yield "What `task.augment` may list, each by its name or as `{name: ..., and its own arguments}`. The last"
    yield f"{len(get_args(Automatic))} move pixels without telling where: they are for `image-classification` alone."
    yield ""
    for step in STEPS:
        yield f"- **`{step.model_fields['name'].default}`** {(step.__doc__ or '').splitlines()[0]}"
        yield from (line for line in _arguments(step) if not line.startswith("  - `name`"))
    yield ""


# the command line


def cli_reference() -> str:
    """The reference of the command line, in its own words."""
    import typer.main

    from headrace.cli.main import app

    group: Any = typer.main.get_command(app)
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = group.make_context("headrace", [], resilient_parsing=True, **settings)
    told = [MADE, "", "# The command line", "", *_block(group.get_help(context)), "## JSON", "", *_json_words()]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = command.make_context(name, [], parent=context, resilient_parsing=True, **settings)
        told += [f"## headrace {name}", "", *_block(command.get_help(inner))]
    return "\n".join(told).rstrip() + "\n"


def _json_words() -> Iterator[str]:
    yield "With `--json` stdout has exactly one JSON object, also on failure; all else goes to stderr. `run`, `status`,"
    yield "`resume` and `cancel` print a run's record; absent parts are null:"
    yield ""
    yield "```"
    yield '{"schema_version": 1, "run_id", "state": "queued|running|succeeded|failed|refused|cancelled",'
    yield ' "steps": [{"name", "state": "pending|running|succeeded|cached|failed|skipped", "seconds"}],'
    yield ' "mlflow": {"tracking_uri", "experiment_id", "run_id"}, "model": {"name", "version", "alias", "uri"},'
    yield ' "metrics": {...}, "gate": {"passed", "checks": [{"check", "value", "passed"}]},'
    yield ' "endpoint": {"url", "model", "version"},'
    yield ' "error": {"code", "step", "message", "action", "log"},'
    yield ' "findings": [{"where", "given", "allowed", "action"}]}'
    yield "```"
    yield ""
    yield "The others print an object of their own with `schema_version`, and `error` and `findings` where they failed."
    yield ""


def _block(text: str) -> Iterator[str]:
    yield "```"
    yield from (line.rstrip() for line in text.strip().splitlines())
    yield "```"
    yield ""


def main(arguments: list[str]) -> int:
    """Write the files, or with --check compare them; 1 where something has drifted."""
    return write_or_check(ROOT, {f"docs/reference/{name}": text for name, text in files().items()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
