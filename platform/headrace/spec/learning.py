"""What of a spec means nothing to a model that learns from statistics: nothing descends, so nothing has a rate.

Only what differs from its default is a mistake, since the canonical form writes every default out. A model of one's own
shows how it learns only when it is built: `require_statistics_settings` then says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.base.errors import SpecInvalid
from headrace.spec.findings import shown
from headrace.spec.fold import Folded, task_names
from headrace.spec.model import Model, Named, Train
from headrace.spec.yaml_reader import Path
from headrace_models import catalog
from headrace_models.catalog.cards import ModelCard

_GRADIENTS = (
    "optimizer",
    "schedule",
    "parallel",
    "precision",
    "compile",
    "sync_batch_norm",
    "accumulate_steps",
    "clip_norm",
    "ema_decay",
)


def judge_learning(folded: Folded, model: ModelCard) -> None:
    """Add a finding to FOLDED for each setting that MODEL, by its card, has no use for."""
    if model.learns == "statistics":
        _report(folded, model.name)
    if model.begins_anew and isinstance(part := folded.record.get("model"), Mapping) and part.get("init_from"):
        allowed = f"nothing: {model.name} sets all that it learns in its only epoch"
        folded.report(("model", "init_from"), shown(part["init_from"]), allowed, "remove it")


def require_statistics_settings(
    tasks: Sequence[str], train: Mapping[str, Any], model: str, part: Mapping[str, Any] | None = None
) -> None:
    """Raise SpecInvalid if canonical parts of a spec hold what a MODEL that learns from statistics has no use for.

    Args:
        tasks: the names of the tasks.
        train: the part `train`.
        model: its name, for the message.
        part: the part `model`.
    """
    record = {"tasks": [{"name": name} for name in tasks], "train": dict(train), "model": dict(part or {})}
    folded = Folded(record)
    _report(folded, model)
    if folded.findings:
        raise SpecInvalid(
            f"{model} learns from statistics, and the spec says how gradients are used: {folded.findings[0]}",
            action="mend the spec and run again",
            findings=folded.findings,
        )


def _report(folded: Folded, model: str) -> None:
    allowed = f"nothing: {model} learns from statistics, and without gradients"
    for path, value in _idle(folded.record):
        folded.report(path, _given(value), allowed, "remove it, or take a model that learns by gradients")


def _idle(record: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """The places of RECORD where something else than the default is said to no effect, and what."""
    train = record["train"] if isinstance(record.get("train"), Mapping) else {}
    model = record["model"] if isinstance(record.get("model"), Mapping) else {}
    for name in _GRADIENTS:
        default = Train.model_fields[name].default
        default = default.model_dump() if isinstance(default, Named) else default
        if (value := train.get(name, default)) != default:
            yield ("train", name), value
    losses = train.get("losses")
    if isinstance(losses, list) and list(map(_whole, losses)) != _usual_losses(record):
        yield ("train", "losses"), losses
    if (freeze := model.get("freeze")) not in (None, [], Model.model_fields["freeze"].default):
        yield ("model", "freeze"), freeze


def _whole(loss: Any) -> Any:
    """LOSS with what may be left out of it."""
    return {"args": {}, "weight": 1.0, **loss} if isinstance(loss, Mapping) else loss


def _usual_losses(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    cards = catalog.tasks()
    known = [cards[name] for name in task_names(record) if name in cards]
    return [{"task": card.name, "name": card.losses[0], "args": {}, "weight": 1.0} for card in known if card.losses]


def _given(value: Any) -> str:
    """VALUE in few words."""
    if isinstance(value, list):
        return ", ".join(_given(entry) for entry in value)
    if isinstance(value, Mapping) and "name" in value:
        args = ", ".join(f"{name} {shown(arg)}" for name, arg in (value.get("args") or {}).items())
        return f"{shown(value['name'])}{f' with {args}' if args else ''}"
    return shown(value)
