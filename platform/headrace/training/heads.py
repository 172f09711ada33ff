"""Which weights are a model's head: those whose shape depends on the number of classes.

A head for other classes must start anew even where there are as many of them (digits 0 to 4, then 5 to 9): its weights
would fit by shape, and answer with the classes of another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from headrace.base.errors import HeadraceError, InvalidInput
from headrace_models.package import build_model, materialise
from headrace_models.tasks import Task, task_from_record
from headrace_models.tasks.base import Arrays

Record = Mapping[str, Any]
Shape = tuple[int, ...]


def classes_of(task: Record) -> list[str] | None:
    """The classes that the record of a task names, if it names any; those of tasks that are joined are the same."""
    first = task["tasks"][0] if task.get("tasks") else task
    classes = (first.get("schema") or {}).get("classes")
    return None if classes is None else list(classes)


def head_of_others(
    part: Record, task: Task, code: Path | None, example: Arrays, shapes: Mapping[str, Shape], theirs: Record
) -> set[str]:
    """The weights of the model PART's head for TASK, if the record THEIRS of a task has other classes; else none.

    The model, whose weights have SHAPES, is built once more, for one class more; EXAMPLE is a request of one sample.

    Raises:
        InvalidInput: it cannot be built for another number of classes than its own.
    """
    own = task.to_record()
    if classes_of(theirs) in (None, classes_of(own)):
        return set()
    try:
        with torch.random.fork_rng(devices=[]):
            wider = _shapes(part, task_from_record(_with_a_class_more(own)), code, example)
    except Exception as error:  # a user's own code, or a plug-in's, may be made for this number of classes alone
        why = error.message if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
        raise InvalidInput(
            f"{part['name']} cannot be built for one class more: {why}", action="have it take any number of classes"
        ) from error
    return {name for name, shape in shapes.items() if wider.get(name) != shape}


def _with_a_class_more(task: Record) -> dict[str, Any]:
    if "tasks" in task:
        return {**task, "tasks": [_with_a_class_more(each) for each in task["tasks"]]}
    return {**task, "schema": {**task["schema"], "classes": [*task["schema"]["classes"], "one class more"]}}


def _shapes(part: Record, task: Task, code: Path | None, example: Arrays) -> dict[str, Shape]:
    model = build_model(part, task, code)
    materialise(model, task, example)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
