"""Short forms to the one canonical form, remembering where everything was written.

Folding never judges: what has the wrong type stays as it is and is judged with the rest, so that one bad value hides
no other. A mistake found in the canonical form is told at the place where the person wrote it (`train.loss`, not
`train.losses[0].name`): that is what `Folded.origin` is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.base.errors import Finding
from headrace.spec.model import GROUPED_FORMATS
from headrace.spec.yaml_reader import Path, written
from headrace_models import catalog

MODEL_KEYS = ("name", "args", "code", "init_from", "freeze")
LOSS_KEYS = ("task", "name", "args", "weight")
NAMED_KEYS = ("name", "args")


@dataclass
class Folded:
    """A spec on its way to the canonical form."""

    record: dict[str, Any]
    origins: dict[Path, Path] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def origin(self, path: Path) -> Path:
        """Where the person wrote what lies at PATH of the canonical form."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]] + path[length:]
        return path

    def where(self, path: Path) -> str:
        """`origin` as it is spoken of."""
        return written(self.origin(path))

    def report(self, path: Path, given: str, allowed: str, action: str) -> None:
        """Add a mistake found at PATH of the canonical form."""
        self.findings.append(Finding(self.where(path), given, allowed, action))


def fold(document: Mapping[str, Any]) -> Folded:
    """DOCUMENT with every short form widened and every default that depends on other parts filled in."""
    folded = Folded(dict(document))
    record = folded.record
    _one_or_many(folded, record, (), "task", "tasks")
    if isinstance(record.get("tasks"), list):
        record["tasks"] = [_named(folded, entry, ("tasks", i)) for i, entry in enumerate(record["tasks"])]
    if "model" in record:
        record["model"] = _named(folded, record["model"], ("model",), MODEL_KEYS)
    _fold_data(folded)
    _fold_train(folded)
    _fold_tune(folded)
    if isinstance(record.get("gate"), str):
        record["gate"] = [record["gate"]]
        folded.origins["gate", 0] = ("gate",)
    for key in ("gate", "version", "tune"):
        if record.get(key, 0) is None:  # `gate:` with nothing after it
            del record[key]
    _fold_target(folded, "register")
    _fold_target(folded, "deploy")
    return folded


def task_names(record: Mapping[str, Any]) -> list[str]:
    """The names of the folded record's tasks, as far as they are texts."""
    tasks = record.get("tasks")
    entries = tasks if isinstance(tasks, list) else []
    return [entry["name"] for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)]


def _one_or_many(folded: Folded, part: dict[str, Any], path: Path, one: str, many: str) -> None:
    if one not in part:
        return
    single = part.pop(one)
    if many in part:
        folded.report((*path, one), f"both `{one}` and `{many}`", "one of them", f"move it into `{many}`")
        return
    if single is not None:
        part[many] = single if isinstance(single, list) else [single]
        folded.origins[(*path, many)] = (*path, one)
        if not isinstance(single, list):
            folded.origins[(*path, many, 0)] = (*path, one)


def _named(folded: Folded, value: Any, path: Path, keys: tuple[str, ...] = NAMED_KEYS) -> Any:
    """A bare name or a mapping with flat arguments as `{name, args, ...}`."""
    if isinstance(value, str):
        folded.origins[(*path, "name")] = folded.origin(path)
        return {"name": value, "args": {}}
    if not isinstance(value, Mapping):
        return value
    result = {key: value[key] for key in value if key in keys}
    flat = {key: value[key] for key in value if key not in keys}
    args = result.get("args")
    if args is not None and not isinstance(args, Mapping):
        return result
    for key in flat:
        if args and key in args:
            folded.report((*path, key), "written here and in `args`", "once", "remove one")
        folded.origins[(*path, "args", key)] = (*folded.origin(path), key)
    result["args"] = {**(args or {}), **flat}
    return result


def _fold_data(folded: Folded) -> None:
    data = folded.record.get("data")
    if not isinstance(data, Mapping):
        return
    data = folded.record["data"] = dict(data)
    if "format" not in data:
        formats = {_format(task) for task in task_names(folded.record)}
        if len(formats) == 1 and (only := formats.pop()):
            data["format"] = only
    split = data.get("split", {})
    if isinstance(split, str):
        folded.origins["data", "split", "strategy"] = ("data", "split")
        split = {"strategy": split}
    if split is None:
        split = {}
    if not isinstance(split, Mapping):
        return
    split = data["split"] = dict(split)
    if "strategy" not in split and data.get("format") in GROUPED_FORMATS:
        split["strategy"] = "group"
    if "strategy" not in split and (data.get("group") or data.get("time")):
        split["strategy"] = "group" if data.get("group") else "time"
    _share_out(split)


def _format(task: str) -> str:
    """The format that TASK's data has if nothing is said; nothing where it must be."""
    card = catalog.tasks().get(task)
    if card is None:
        return ""
    return card.formats[0] if len(card.formats) == 1 else card.default_format


def _share_out(split: dict[str, Any]) -> None:
    """Give the shares that were not written what the written ones leave, evenly."""
    given = {key: split[key] for key in ("train", "validation", "test") if key in split}
    if not given or len(given) == 3 or not all(_is_number(share) for share in given.values()):
        return
    missing = [key for key in ("train", "validation", "test") if key not in given]
    left = max(0.0, 1.0 - sum(given.values()))
    for key in missing:
        split[key] = round(left / len(missing), 12)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fold_train(folded: Folded) -> None:
    train = folded.record.get("train")
    if train is None:
        train = {}
    if not isinstance(train, Mapping):
        return
    train = folded.record["train"] = dict(train)
    for key in ("optimizer", "schedule"):
        if key in train:
            train[key] = _named(folded, train[key], ("train", key))
    workers = train.get("workers")
    if _is_number(workers):
        train["workers"] = {"min": workers, "max": workers}
        folded.origins["train", "workers", "min"] = folded.origins["train", "workers", "max"] = ("train", "workers")
    elif isinstance(workers, Mapping) and len(workers) == 1 and set(workers) <= {"min", "max"}:
        bound = next(iter(workers.values()))
        train["workers"] = {"min": 1, "max": bound} if "max" in workers else {"min": bound, "max": bound}
    _fold_losses(folded, train)


def _fold_losses(folded: Folded, train: dict[str, Any]) -> None:
    _one_or_many(folded, train, ("train",), "loss", "losses")
    names = task_names(folded.record)
    if train.get("losses") is None:
        cards = [(name, catalog.tasks().get(name)) for name in names]
        train["losses"] = [{"task": name, "name": card.losses[0]} for name, card in cards if card and card.losses]
        return
    if not isinstance(train["losses"], list):
        return
    losses = []
    for index, entry in enumerate(train["losses"]):
        loss = _named(folded, entry, ("train", "losses", index), LOSS_KEYS)
        if isinstance(loss, dict) and "task" not in loss and len(names) == 1:
            loss["task"] = names[0]
        losses.append(loss)
    train["losses"] = losses


_SHORT = {"model": MODEL_KEYS, "train.optimizer": NAMED_KEYS, "train.schedule": NAMED_KEYS}


def _fold_tune(folded: Folded) -> None:
    """`tune.space`: places as they are in the canonical form, and domains as `{draw, values}`."""
    tune = folded.record.get("tune")
    if not isinstance(tune, Mapping):
        return
    tune = folded.record["tune"] = dict(tune)
    if not isinstance(tune.get("space"), Mapping):
        return
    space: dict[str, Any] = {}
    for written_key, value in tune["space"].items():
        key = _unabridged(str(written_key))
        path = ("tune", "space", key)
        folded.origins[path] = ("tune", "space", written_key)
        if key in space:
            folded.report(path, f"{key} a second time", "each place once", "remove one")
        space[key] = _domain(folded, value, path)
    tune["space"] = space


def _unabridged(key: str) -> str:
    """KEY with the `args` that people leave out."""
    for prefix, own in _SHORT.items():
        rest = key.removeprefix(f"{prefix}.")
        if rest != key and rest.split(".")[0] not in own:
            return f"{prefix}.args.{rest}"
    return key


def _domain(folded: Folded, value: Any, path: Path) -> Any:
    origin = folded.origin(path)
    if isinstance(value, list):
        folded.origins[(*path, "draw")] = folded.origins[(*path, "values")] = origin
        return {"draw": "choice", "values": value}
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    ((draw, values),) = value.items()
    folded.origins[(*path, "draw")] = folded.origins[(*path, "values")] = (*origin, draw)
    if draw in ("uniform", "loguniform") and isinstance(values, list):
        values = [float(number) if _is_number(number) else number for number in values]
    return {"draw": draw, "values": values}


def _fold_target(folded: Folded, key: str) -> None:
    """`register` and `deploy`: a bare name, or a mapping whose name defaults to the spec's."""
    part = folded.record.get(key)
    if isinstance(part, str):
        folded.origins[key, "name"] = (key,)
        folded.record[key] = {"name": part}
    elif isinstance(part, Mapping) and "name" not in part and "name" in folded.record:
        folded.record[key] = {**part, "name": folded.record["name"]}
        folded.origins[key, "name"] = ("name",)
