"""Tasks from what a spec, a manifest or a package says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def build_tasks(records: Sequence[Mapping[str, Any]], schema: Schema) -> Task:
    """The task that a spec's RECORDS make: the only one, or one that joins them. Raises as `build_task`."""
    if len(records) == 1:
        return build_task(records[0], schema)
    from headrace_models.tasks.multi_task import MultiTask

    return MultiTask([build_task(record, schema) for record in records])


def task_from_record(record: Mapping[str, Any]) -> Task:
    """The task that `Task.to_record` described, with all it learned."""
    if "tasks" in record:
        from headrace_models.tasks.multi_task import MultiTask

        return MultiTask([task_from_record(part) for part in record["tasks"]])
    card = catalog.get("task", str(record["name"]))
    args = catalog.arguments(card, record.get("args") or {}, f"tasks.{card.name}.args")
    return cast(Task, card.load()(args, Schema.from_record(record["schema"]), record["preprocessing"]))
