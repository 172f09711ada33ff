"""Tasks from what a spec, a manifest or a package says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from headrace_models import catalog
from headrace_models.tasks.base import Schema, Task


def build_task(record: Mapping[str, Any], schema: Schema) -> Task:
    """The task that a spec names (`{"name", "args"}`), for data of that schema, before it has learned anything.

    Raises:
        InvalidInput: no such task, wrong arguments, or a schema that it cannot work on.
    """
    card = catalog.get("task", str(record["name"]))
    args = catalog.arguments(card, record.get("args") or {}, f"tasks.{card.name}.args")
    return cast(Task, card.load()(args, schema))


def task_from_record(record: Mapping[str, Any]) -> Task:
    """The task that `Task.to_record` described, with all it learned."""
    card = catalog.get("task", str(record["name"]))
    args = catalog.arguments(card, record.get("args") or {}, f"tasks.{card.name}.args")
    return cast(Task, card.load()(args, Schema.from_record(record["schema"]), record["preprocessing"]))
