"""`headrace init`: from what lies in a folder to a spec of ten lines that trains and serves.

The same folder gives the same spec on every machine: nothing is taken from cores, clocks or chance.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.base import ids
from headrace.base.errors import Finding, InvalidInput
from headrace.spec import load_spec
from headrace.spec.model import GROUPED_FORMATS, TABLE_FORMATS
from headrace_models import catalog

STEPS_WANTED = 600  # optimizer steps after which small models on small data have learned most of what they will
FEWEST_EPOCHS, MOST_EPOCHS = 5, 40
SMALL_DATA = 2_000  # samples below which a batch of 32 leaves enough steps in an epoch
LISTED_CLASSES = 8

_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", ".inf", ".nan"}


@dataclass(frozen=True)
class Proposal:
    """A spec that was written: where, what it says, and what was found on the way."""

    path: Path
    text: str
    found: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"path": str(self.path), "spec": self.text, "found": dict(self.found), "notes": list(self.notes)}


def propose(source: str, path: Path | None = None, *, force: bool = False) -> Proposal:
    """Look at SOURCE and write a spec for it.

    Args:
        source: a folder of pictures in one folder a class or with annotations (VOC, COCO), of videos (MOT), a CSV or
            Parquet file, or an fsspec URL of such.
        path: the spec's file; by default in the working directory, called after SOURCE.
        force: write over a file that is there.

    Raises:
        InvalidInput: the file is there already.
        DataInvalid: nothing in SOURCE can be trained on.
    """
    from headrace.data import describe_source

    stem = source.rstrip("/").rsplit("/", 1)[-1] if "://" in source else Path(os.path.abspath(source)).name  # noqa: PTH100
    name = ids.slug(stem.split(".")[0] or "run")
    path = path or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise InvalidInput(
            f"{path} is there already", action="name another with --output, or overwrite it with --force"
        )
    found = dict(describe_source(source))
    problems: list[Finding] = list(found.pop("problems", ()))
    text = compose(name, found, _seen_from(str(found["source"]), path))
    _write_judged(path, text)
    return Proposal(path, text, found, (summary(found), *(_told(problem) for problem in problems)))


def compose(name: str, found: Mapping[str, Any], source: str) -> str:
    """The spec for what `describe_source` FOUND at SOURCE."""
    task = catalog.tasks()[found["task"]]
    samples = int(found.get("samples") or 0)
    batch_size = 16 if task.label_kind == "annotation" else 32 if samples < SMALL_DATA else 64
    steps = max(1, round(0.7 * samples / batch_size))
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(STEPS_WANTED / steps)))
    best = task.metrics[task.primary_metric] == "max"
    data = {"source": source, "format": found["format"]}
    data |= {key: found[key] for key in ("label", "features", "id", "max_corrupt") if found.get(key) is not None}
    lines = [
        f"# {summary(found)}",
        "version: 1",
        f"name: {name}",
        f"task: {found['task']}",
        f"data: {_flow(data)}",
        f"model: {_flow({'name': task.default_model})}",
        f"train: {_flow({'epochs': epochs, 'batch_size': batch_size, 'optimizer': {'name': 'adam', 'lr': 0.003}})}",
        f"gate: [{task.primary_metric} {'>= champion - 0.01' if best else '<= champion'}]",
        f"register: {_flow({'name': name, 'alias': 'champion'})}",
        f"deploy: {_flow({'name': name})}",
    ]
    return "\n".join(lines) + "\n"


def summary(found: Mapping[str, Any]) -> str:
    """What was FOUND, in one line."""
    count = found.get("samples")
    what = "rows" if found["format"] in TABLE_FORMATS else "frames" if found["format"] in GROUPED_FORMATS else "images"
    told = what if count is None else f"{count:,} {what}"
    classes = found.get("classes") or {}
    if catalog.tasks()[found["task"]].label_kind == "annotation":
        told += f" with {sum(classes.values()):,} objects"
    if classes:
        listed = [f"{name} {number:,}" for name, number in list(classes.items())[:LISTED_CLASSES]]
        rest = ["..."] if len(classes) > LISTED_CLASSES else []
        told += f" in {len(classes)} classes: {', '.join([*listed, *rest])}"
    return " ".join(told.split())


def _told(problem: Finding) -> str:
    return f"note: {problem}"


def _seen_from(source: str, path: Path) -> str:
    """SOURCE as the spec at PATH names it: relative where it lies beside or below the spec."""
    if "://" in source or source.startswith("builtin:"):
        return source
    relative = os.path.relpath(source, path.absolute().parent)
    return os.path.abspath(source) if relative.startswith("..") else f"./{relative}"  # noqa: PTH100


def _write_judged(path: Path, text: str) -> None:
    """Write TEXT at PATH once it has been read back and judged as any spec is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = path.with_name(f".{path.name}.new")
    try:
        trial.write_text(text, encoding="utf-8")
        load_spec(trial)
        trial.replace(path)
    finally:
        trial.unlink(missing_ok=True)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
