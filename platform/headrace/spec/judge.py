"""What types cannot say: names of the catalog, what suits what, and what must be there together.

Works on the folded record as it is, wrong types included, so that all mistakes come at once; a rule whose own inputs
are broken says nothing, because those have findings of their own. Only the files of a spec's own folder are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from headrace.base.errors import InvalidInput
from headrace.spec.findings import report_errors, report_unknown, shown
from headrace.spec.fold import LOSS_KEYS, MODEL_KEYS, NAMED_KEYS, Folded, task_names
from headrace.spec.gate import parse_check
from headrace.spec.joined import judge_joined
from headrace.spec.learning import judge_learning
from headrace.spec.model import GROUPED_FORMATS, TABLE_FORMATS
from headrace.spec.yaml_reader import Path
from headrace_models import catalog
from headrace_models.catalog import listed
from headrace_models.catalog.cards import Card, ModelCard, TaskCard

Table = Callable[[], Mapping[str, Card]]


def judge(folded: Folded) -> None:
    """Add a finding to FOLDED for each mistake; normalises the arguments of what is right."""
    record = folded.record
    for index, task in enumerate(_list(record.get("tasks"))):
        _named(folded, task, ("tasks", index), "task", catalog.tasks, NAMED_KEYS)
    _tasks(folded)
    _model(folded)
    _data(folded)
    train = _mapping(record.get("train"))
    _named(folded, train.get("optimizer"), ("train", "optimizer"), "optimizer", catalog.optimizers, NAMED_KEYS)
    _named(folded, train.get("schedule"), ("train", "schedule"), "schedule", catalog.schedules, NAMED_KEYS)
    _losses(folded, train)
    _train(folded, train)
    _gate(folded)
    _deploy(folded)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _known_tasks(folded: Folded) -> dict[str, TaskCard]:
    cards = catalog.tasks()
    return {name: cards[name] for name in task_names(folded.record) if name in cards}


def _named(folded: Folded, entry: Any, path: Path, what: str, table: Table, keys: tuple[str, ...]) -> Card | None:
    """Judge the name and the arguments of ENTRY; its card, where the name is known."""
    name = _mapping(entry).get("name")
    if not isinstance(name, str) or not name:
        return None
    cards = table()
    card = cards.get(name)
    if card is None:
        report_unknown(folded, (*path, "name"), what, name, list(cards))
        return None
    args = entry.get("args", {})
    if isinstance(args, dict):
        _arguments(folded, entry, args, path, card, keys)
    return card


def _arguments(
    folded: Folded, entry: dict[str, Any], args: dict[str, Any], path: Path, card: Card, keys: tuple[str, ...]
) -> None:
    try:
        # as strict JSON: "8" is no number, and a list will do for a tuple
        validated = card.args.model_validate_json(json.dumps(args), strict=True)
    except ValidationError as error:
        flat = any(folded.origins.get((*path, "args", key)) for key in args)
        report_errors(folded, error, card.args, (*path, "args"), also=keys if flat else ())
    else:
        entry["args"] = validated.model_dump(mode="json", exclude_unset=True)


def _tasks(folded: Folded) -> None:
    seen: set[str] = set()
    for index, task in enumerate(_list(folded.record.get("tasks"))):
        name = _mapping(task).get("name")
        if isinstance(name, str) and name in seen:
            folded.report(("tasks", index, "name"), f"{shown(name)} a second time", "each task once", "remove one")
        seen.add(str(name))
    known = _known_tasks(folded)
    if len(known) > 1:
        apart = [name for name, card in known.items() if not card.composes]
        joinable = [card.name for card in catalog.tasks().values() if card.composes]
        for name in apart:
            place = task_names(folded.record).index(name)
            action = "make a spec for each task, or join tasks that can be"
            folded.report(("tasks", place, "name"), f"{shown(name)} is one of several", ", ".join(joinable), action)
        if not apart and len(known) == len(_list(folded.record.get("tasks"))):
            judge_joined(folded, known)


def _model(folded: Folded) -> None:
    model = _mapping(folded.record.get("model"))
    name, code = model.get("name"), model.get("code")
    if isinstance(name, str) and (":" in name or code is not None):
        return  # your own: judged with the files (see files.py)
    card = catalog.models().get(name) if isinstance(name, str) else None
    _named(folded, model, ("model",), "model", catalog.models, MODEL_KEYS)
    if card is None:
        return
    names = task_names(folded.record)
    if names and len(_known_tasks(folded)) == len(names) and not card.suits(names):
        folded.report(
            ("model", "name"),
            f"{shown(name)} is made for {card.does}, not for {' and '.join(names)}",
            listed(card.name, [other.name for other in catalog.models().values() if other.suits(names)]),
            "take a model made for the task, or one of your own",
        )
    _proposals(folded, card)
    judge_learning(folded, card)


def _proposals(folded: Folded, model: ModelCard) -> None:
    """A model that looks at regions is given some, and one that finds its own is given none."""
    for index, task in enumerate(_list(folded.record.get("tasks"))):
        given = _mapping(_mapping(task).get("args")).get("proposals", "none")
        if _mapping(task).get("name") in model.tasks and (given != "none") != model.proposals:
            folded.report(
                ("tasks", index, "args", "proposals"),
                f"{shown(given)} with {model.name}, which {'finds no' if model.proposals else 'finds its own'} regions",
                "selective-search" if model.proposals else "none",
                "set proposals: selective-search" if model.proposals else "remove it, or take fast-rcnn or rcnn",
            )


def _data(folded: Folded) -> None:
    data = _mapping(folded.record.get("data"))
    layout = data.get("format")
    for task, card in _known_tasks(folded).items():
        if isinstance(layout, str) and layout not in card.formats:
            folded.report(
                ("data", "format"),
                f"{shown(layout)} is nothing that {task} can read",
                listed(layout, card.formats),
                "take a format that the task reads, or another task",
            )
    if layout in TABLE_FORMATS and data.get("label") is None and "data" in folded.record:
        folded.report(("data", "label"), "missing", "the name of a column", "add `label`: what is to be predicted")
    _split(folded, data)


def _split(folded: Folded, data: Mapping[str, Any]) -> None:
    split = _mapping(data.get("split"))
    path = ("data", "split")
    for strategy in ("group", "time"):
        grouped = strategy == "group" and data.get("format") in GROUPED_FORMATS
        if split.get("strategy") == strategy and data.get(strategy) is None and not grouped:
            folded.report(
                (*path, "strategy"),
                f"{shown(strategy)} without data.{strategy}",
                "random, stratified, hash, or a column named in data",
                f"add `data.{strategy}`, the column to go by",
            )
    _shares(folded, split, path)


def _shares(folded: Folded, split: Mapping[str, Any], path: Path) -> None:
    defaults = {"train": 0.7, "validation": 0.15, "test": 0.15}
    shares = [_number(split.get(key, default)) for key, default in defaults.items()]
    if any(share is None or not 0 <= share <= 1 for share in shares):
        return
    total = sum(share for share in shares if share is not None)
    if abs(total - 1) > 1e-6:
        folded.report(
            path,
            f"train + validation + test = {total:g}",
            "shares that sum to 1",
            "leave one out: it gets what the others leave",
        )
        return
    for key, share in zip(("train", "test"), (shares[0], shares[2]), strict=True):
        if share == 0:
            folded.report((*path, key), "0", "a share above 0", "without it there is nothing to learn from or judge by")


def _losses(folded: Folded, train: Mapping[str, Any]) -> None:
    names = task_names(folded.record)
    known = _known_tasks(folded)
    covered: set[str] = set()
    for index, loss in enumerate(_list(train.get("losses"))):
        path = ("train", "losses", index)
        task = _mapping(loss).get("task")
        card = _named(folded, loss, path, "loss", catalog.losses, LOSS_KEYS)
        if isinstance(task, str):
            covered.add(task)
            if task not in names:
                report_unknown(folded, (*path, "task"), "task of this spec", task, names)
        if card is not None and task in known and card.name not in known[task].losses:
            folded.report(
                (*path, "name"),
                f"{shown(card.name)} does not suit {task}",
                listed(card.name, known[task].losses),
                "take a loss that suits the task",
            )
    if isinstance(train.get("losses"), list):
        for task in known:
            if task not in covered:
                folded.report(("train", "losses"), f"none for {task}", "one for every task", f"add one for {task}")


def _train(folded: Folded, train: Mapping[str, Any]) -> None:
    workers = _mapping(train.get("workers", {"min": 1, "max": 1}))
    least, most = _number(workers.get("min")), _number(workers.get("max"))
    if least is not None and most is not None and least > most:
        folded.report(("train", "workers"), f"min {least:g} above max {most:g}", "min up to max", "swap them")
    batch = _number(train.get("batch_size", 64))
    if batch is not None and most is not None and 1 <= batch < most:
        folded.report(
            ("train", "batch_size"),
            f"{batch:g} for {most:g} workers",
            f"at least {most:g}: it is summed over all workers",
            "raise batch_size or take fewer workers",
        )
    if train.get("compile") is True and train.get("parallel") == "fsdp":
        folded.report(
            ("train", "compile"),
            "true with `parallel: fsdp`",
            "false, or true with `parallel: ddp`",
            "remove one: blocks that are gathered while they run are not compiled",
        )
    watched = _mapping(train.get("early_stop")).get("metric")
    if isinstance(watched, str):
        judge_metric(folded, ("train", "early_stop", "metric"), watched)
    path = ("data", "split", "validation")
    if (
        train.get("early_stop") is not None
        and _mapping(_mapping(folded.record.get("data")).get("split")).get(path[-1]) == 0
    ):
        folded.report(path, "0 with `early_stop`", "a share above 0", "training ends when validation gets no better")


def metric_names(cards: Mapping[str, TaskCard]) -> list[str]:
    """What metrics are called: plainly with one task, `<task>.<metric>` with several."""
    if len(cards) == 1:
        return [metric for card in cards.values() for metric in card.metrics]
    return [f"{name}.{metric}" for name, card in cards.items() for metric in card.metrics]


def judge_metric(folded: Folded, path: Path, metric: str) -> None:
    """Add a finding unless METRIC, written at PATH, is one that the spec's tasks measure."""
    known, names = _known_tasks(folded), task_names(folded.record)
    if known and len(known) == len(names):
        allowed = metric_names(known)
    elif len(names) == 1:  # a task that nobody knows: what no task measures is a mistake all the same
        allowed = list(dict.fromkeys(name for card in catalog.tasks().values() for name in card.metrics))
    else:
        return
    if metric not in allowed:
        report_unknown(folded, path, "metric", metric, allowed)


def _gate(folded: Folded) -> None:
    for index, text in enumerate(_list(folded.record.get("gate"))):
        if not isinstance(text, str):
            continue
        try:
            check = parse_check(text)
        except InvalidInput:
            continue  # the type says so
        judge_metric(folded, ("gate", index), check.metric)
        if check.against_champion and folded.record.get("register") is None:
            folded.report(
                ("gate", index),
                f"{shown(text)} without `register`",
                "a number, or `register` with an alias",
                "add `register`: the champion is the version that its alias names",
            )


def _deploy(folded: Folded) -> None:
    record = folded.record
    if record.get("deploy") is not None and record.get("register") is None:
        folded.report(
            ("deploy",),
            "without `register`",
            "deploy together with register",
            "add `register: {}`: only registered versions are served",
        )
