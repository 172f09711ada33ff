"""Looks at a folder or file and says what it seems to be: what `headrace init` proposes a spec from.

It guesses and says so; the split judges. Works on the base install for image folders, whose pictures are then not
opened; tables and annotated pictures are read with pyarrow.
"""

from __future__ import annotations

import math
from collections import Counter
from importlib import util
from typing import TYPE_CHECKING, Any

from headrace.base.errors import DataInvalid, Finding, MissingExtra
from headrace.data.folder_layout import class_of, is_image, predefined_split, sorted_out
from headrace.data.formats import ID_OF_PLACE, Report, get_format
from headrace.data.source import Source, SourceFile

if TYPE_CHECKING:
    from headrace.data.table_facts import ColumnFacts

TABLES = {"csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz"), "parquet": (".parquet", ".pq")}
SHEETS = (".xml", ".json", "gt.txt")  # what annotations of pictures and videos are written in
TASKS = {"mot": "object-tracking"}  # of layouts of annotations, where it is not detection
LABEL_NAMES = ("label", "target", "class", "category", "y", "species", "outcome")
ID_NAMES = ("id", "uuid", "key")
INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")  # what pandas leaves behind
MOST_OPENED = 5_000  # images decoded to propose max_corrupt
MOST_CLASSES = 20  # a label of whole numbers with more values than this is taken for a number
MOST_ALLOWED = 0.2  # share of broken files up to which max_corrupt is proposed to allow them


def describe_source(address: str) -> dict[str, Any]:
    """What there is at ADDRESS, as plain values.

    Returns:
        `source` (to put into the spec), `format`, `task`, `label` (None for pictures), `samples`, `classes` (name to
        count, of objects where pictures are annotated), `columns` (name to kind), `features` (None for all), `id`,
        `max_corrupt` (None: the default will do), `problems` (a list of Finding).

    Raises:
        DataInvalid: there is nothing that a task of this release can read.
        MissingExtra: it is a table or annotated, and pyarrow, which reads it, is not installed.
    """
    source = Source(address)
    files = source.files()
    counts = {"image-folder": sum(is_image(file.path) for file in files)}
    for name, suffixes in TABLES.items():
        counts[name] = sum((file.path or source.base).lower().endswith(suffixes) for file in files)
    layout = max(counts, key=lambda name: counts[name])
    if not counts[layout]:
        raise DataInvalid(
            f"{address} holds neither images nor tables ({len(files):,} files)",
            action="give a folder of one folder per class with images, a CSV or a Parquet file",
        )
    if layout != "image-folder":
        return _describe_table(source, layout)
    return _describe_annotated(source, files) or _describe_images(source, files)


def _describe_images(source: Source, files: list[SourceFile]) -> dict[str, Any]:
    problems: list[Finding] = []
    images, others = sorted_out(files)
    if found := predefined_split(images):
        action = f"the spec takes {found[0]}/, which Headrace splits; keep the others for `headrace predict`"
        problems.append(Finding("data.source", "split already: " + ", ".join(found), "one folder per class", action))
        source = Source(source.uri(found[0]))
        images, others = sorted_out(source.files())
    if not images:
        action = "put the images into one folder per class: CLASS/NAME.png"
        raise DataInvalid(f"{source.address} has images but no class folders", action=action)
    classes = Counter(class_of(image.path) for image in images)
    empty = [name for name in source.folders() if name not in classes]
    problems += [Finding(f"class {name}", "no image", "", "the split will drop it") for name in empty]
    if len(classes) < 2:
        problems.append(Finding("classes", ", ".join(classes), "two or more", "add a folder for another class"))
    if others:
        problems.append(Finding("other files", f"{len(others):,} ({others[0][0]})", "", "the split will ignore them"))
    bad = _unreadable(source, images)
    problems += [Finding(source.uri(path), reason, "", "the split will leave it out") for path, reason in bad]
    return {
        **_record(source, "image-folder", "image-classification", len(images), problems),
        "classes": dict(sorted(classes.items())),
        "max_corrupt": _allowance(len(bad), min(len(images), MOST_OPENED)),
    }


def _describe_annotated(source: Source, files: list[SourceFile]) -> dict[str, Any]:
    """Pictures with boxes; empty if there are none."""
    sheets = [file.path for file in files if file.path.lower().endswith(SHEETS)]
    if not _can_open() and any("annotations" in path.lower() or path.endswith("gt/gt.txt") for path in sheets):
        raise MissingExtra("train", "looking into annotations of pictures")
    if not sheets or not _can_open():
        return {}
    from headrace.data.describe_annotated import annotated_layout, look_at

    layout = annotated_layout(source, files)
    if layout is None:
        return {}
    found = look_at(source, layout, MOST_OPENED)
    return {
        **_record(source, layout, TASKS.get(layout, "object-detection"), found["samples"], found["problems"]),
        "classes": found["classes"],
        "max_corrupt": _allowance(found["bad"], found["opened"]),
    }


def _can_open() -> bool:
    return all(util.find_spec(name) is not None for name in ("PIL", "numpy", "pyarrow"))


def _unreadable(source: Source, images: list[SourceFile]) -> list[tuple[str, str]]:
    if not _can_open():
        return []
    from headrace.data.image_folder import problem_of

    checked = ((image.path, problem_of(source.read(image.path))) for image in images[:MOST_OPENED])
    return [(path, problem) for path, problem in checked if problem is not None]


def _describe_table(source: Source, layout: str) -> dict[str, Any]:
    if util.find_spec("pyarrow") is None:
        raise MissingExtra("train", f"looking into a {layout} table")
    from headrace.data.table_facts import contradictions, table_facts
    from headrace.data.tables import Table

    table = get_format(layout)
    assert isinstance(table, Table)
    uris = [uri for uri, _ in table.tables(source, Report())]
    facts, samples = table_facts(table, uris)
    by_lower = {name.lower(): name for name in reversed(facts)}
    label = next((by_lower[name] for name in LABEL_NAMES if name in by_lower), list(facts)[-1])
    task, label_missing = _task_for(facts[label])
    identity = next((name for name in facts if name != label and name.lower() in ID_NAMES and facts[name].unique), None)
    problems, left = [], []
    for name, fact in facts.items():
        if name in (label, identity):
            continue
        if name in INDEX_NAMES or fact.empty or fact.kind is None or fact.like_text:
            left.append(name)
            problems.append(
                Finding(f"column {name!r}", fact.summary(), "", "left out of data.features; add it if it helps")
            )
    if label_missing:
        problems.append(
            Finding(f"label {label}", f"{label_missing:,} rows without one", "", "the split will leave them out")
        )
    columns = {name: fact.kind for name, fact in facts.items() if name not in (label, identity, *left) and fact.kind}
    if task == "tabular-classification" and identity is None and (count := contradictions(table, uris, columns, label)):
        identity = ID_OF_PLACE
        given = f"{count:,} rows equal another in all features and have another label"
        problems.append(Finding("data", given, "", f"the spec says id: {ID_OF_PLACE}, so that each row counts"))
    return {
        **_record(source, layout, task, samples, problems),
        "label": label,
        "id": identity,
        "classes": dict(facts[label].values) if task == "tabular-classification" else {},
        "columns": columns,
        "features": list(columns) if left else None,
        "max_corrupt": _allowance(label_missing, samples),
    }


def _task_for(label: ColumnFacts) -> tuple[str, int]:
    whole = label.kind == "number" and label.whole and len(label.values) <= MOST_CLASSES
    task = "tabular-classification" if label.kind != "number" or whole else "tabular-regression"
    return task, label.missing


def _allowance(bad: int, total: int) -> float | None:
    """The max_corrupt that lets BAD of TOTAL pass, where the default would not and it is no more than a nuisance."""
    share = bad / total if total else 0.0
    return math.ceil(share * 100) / 100 if 0.01 < share <= MOST_ALLOWED else None


def _record(source: Source, layout: str, task: str, samples: int, problems: list[Finding]) -> dict[str, Any]:
    return {
        "source": source.address,
        "format": layout,
        "task": task,
        "label": None,
        "id": None,
        "samples": samples,
        "classes": {},
        "columns": {},
        "features": None,
        "max_corrupt": None,
        "problems": problems,
    }
