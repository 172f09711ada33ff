"""What an evaluation must hold to count as one: every metric of the tasks' cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.spec.judge import metric_names
from headrace_models import catalog


def is_whole(evaluation: Any, tasks: Sequence[str]) -> bool:
    """Whether EVALUATION, as the store has it, holds all that TASKS, by their names, measure.

    One of an older version lacks the metrics that a card got since. Of an empty test split there are none, and of a
    task that is not installed here nobody can say.
    """
    if not isinstance(evaluation, Mapping):
        return False
    metrics, cards = evaluation.get("metrics") or {}, catalog.tasks()
    known = {name: cards[name] for name in tasks if name in cards}
    return not metrics or len(known) < len(tasks) or all(name in metrics for name in metric_names(known))
