"""Tasks joined in one network: what they say of the picture must be one, and each must be able to have it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from headrace.spec.findings import shown
from headrace.spec.fold import Folded
from headrace_models.catalog.cards import TaskCard
from headrace_models.catalog.picture_arguments import SHARED


def judge_joined(folded: Folded, cards: Mapping[str, TaskCard]) -> None:
    """Add a finding for each thing that a task of FOLDED, whose tasks' CARDS all compose, says of the picture and that
    another one says otherwise or cannot have."""
    for key in SHARED:
        first: tuple[str, Any] | None = None
        for index, task in enumerate(folded.record["tasks"]):
            args = task.get("args")
            value = args.get(key) if isinstance(args, dict) else None
            meant = None if value in (None, "none") else _meant(cards[task["name"]], key, value)
            if meant is None:
                continue
            path, action = ("tasks", index, "args", key), "say it once, or the same: they see the same picture"
            for name in (name for name, card in cards.items() if _meant(card, key, value) is None):
                folded.report(path, f"{shown(value)}, which {name} cannot have", f"what {name} can have too", action)
            if first is not None and meant != first[1]:
                folded.report(path, shown(value), f"what {first[0]} says", action)
            first = first or (task["name"], meant)


def _meant(card: TaskCard, key: str, value: Any) -> Any:
    """VALUE as CARD's argument KEY, or None where it can have no such value."""
    try:
        return getattr(card.args.model_validate_json(json.dumps({key: value}), strict=True), key, value)
    except ValidationError as error:
        return None if any(item["loc"][:1] == (key,) for item in error.errors()) else value
