"""Splits data: scan, deal out, look for leaks, and publish a manifest that is either whole or not there.

Hash splits stream: a batch is scanned, dealt out and written before the next is read. The other strategies must see all
samples first; they hold about 60 bytes of each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.base.errors import DataInvalid, Finding
from headrace.base.jsonfile import sha256_of, write_json
from headrace.data import digest, strategies, verdicts
from headrace.data.annotations import names_in
from headrace.data.formats import ANNOTATED, TABLES, Format, Report, Request, Tell, get_format
from headrace.data.leaks import EqualsFinder
from headrace.data.rows import Rows
from headrace.data.source import Source, fingerprint_source
from headrace.data.strategies import Fractions, Sides
from headrace.data.write_manifest import MANIFEST_VERSION, MARKER, ManifestWriter, classes_by_split
from headrace.spec.model import GROUPED_FORMATS
from headrace.store.store import Store
from headrace_models.tasks.base import Schema

ROWS_A_CHUNK = 1 << 18


@dataclass(frozen=True)
class SplitResult:
    """A published split. `summary` is its split.json; `findings` are worth telling, none of them stops a run."""

    fingerprint: str
    uri: str
    summary: dict[str, Any]
    findings: tuple[Finding, ...]


def split_data(part: Mapping[str, Any], *, store: Store, source_fingerprint: str, tell: Tell) -> SplitResult:
    """Split what the spec's data part describes and write the manifest into STORE.

    Args:
        part: the canonical split part: the spec's `data` with `tasks`.
        store: where `splits/<fingerprint>/` is written.
        source_fingerprint: of the source when the run started; empty to take it now.
        tell: is told of progress, one line at a time.

    Raises:
        DataInvalid: the data cannot be split as asked; every bad file, row and column is in `findings`.
        Unavailable: the source's filesystem does not answer.
    """
    request = Request.of(part)
    label_kind = request.label_kind
    _check_request(part, request)
    layout = get_format(request.format)
    source = Source(str(part["source"]))
    source.hold()
    now = fingerprint_source(part, source)
    before = _same(part, source_fingerprint or now, now)
    report = Report()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-split-")))
        writer = stack.enter_context(closing(ManifestWriter(folder, report, label_kind)))
        equals = stack.enter_context(EqualsFinder())
        group_sides = stack.enter_context(EqualsFinder())
        for rows, sides in _dealt(part, request, layout, source, report, tell):
            equals.add(rows.content, _label_marks(rows, label_kind), rows.file, rows.row)
            if rows.group is not None:
                _note_groups(group_sides, rows, sides)
            writer.write(rows, sides)
        writer.close()
        verdicts.check_corrupt(report, float(part["max_corrupt"]))
        tell("looking for equal samples")
        found = equals.find()
        verdicts.check_equals(report, found, request)
        verdicts.check_groups(report, group_sides.find(), part["split"]["strategy"])
        verdicts.check_classes(report, writer.classes, label_kind)
        _same(part, before, fingerprint_source(part))
        summary = _summary(part, request, report, writer, source)
        summary["source_fingerprint"] = before
        summary["duplicates"] = verdicts.duplicates_record(report, found)
        verdicts.check_counts(report, summary)
        summary["notes"] = [asdict(note) for note in report.notes]
        write_json(folder / MARKER, summary)
        uri = store.put_folder(folder, store.uri("splits", summary["fingerprint"]), marker=MARKER)
    return SplitResult(summary["fingerprint"], uri, summary, verdicts.findings_of(summary))


def _check_request(part: Mapping[str, Any], request: Request) -> None:
    """Raise DataInvalid for a strategy that lacks its column or fractions that are not a whole."""
    split, findings = part["split"], []
    for strategy, column in (("group", request.group), ("time", request.time)):
        grouped = strategy == "group" and request.format in GROUPED_FORMATS
        if split["strategy"] == strategy and column is None and not grouped:
            action = f"name the column: data.{strategy}" if request.format in TABLES else "use another strategy"
            findings.append(Finding(f"data.{strategy}", "nothing", "a column's name", action))
    fractions = _fractions(part)
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0 or fractions[0] == 0:
        given = " + ".join(f"{f:g}" for f in fractions)
        findings.append(Finding("data.split", given, "fractions that sum to 1, train above 0", "correct them"))
    if findings:
        raise DataInvalid("the data cannot be split as asked", action="see findings", findings=findings)


def _fractions(part: Mapping[str, Any]) -> Fractions:
    split = part["split"]
    return float(split["train"]), float(split["validation"]), float(split["test"])


def _same(part: Mapping[str, Any], before: str, now: str) -> str:
    if now != before:
        message = f"{part['source']} changed while the run was starting or splitting"
        raise DataInvalid(message, action="run again when nothing writes to it any more")
    return before


def _dealt(
    part: Mapping[str, Any], request: Request, layout: Format, source: Source, report: Report, tell: Tell
) -> Iterator[tuple[Rows, Sides]]:
    """Every usable sample with its side, in batches, in the order in which the manifest keeps them."""
    split, fractions, seed = part["split"], _fractions(part), int(part["split"]["seed"])
    batches = layout.scan(source, request, report, tell)
    if split["strategy"] == "hash":
        for rows in batches:
            keys = rows.content if rows.id is None else digest.of_texts(rows.id)
            yield rows, strategies.by_hash(keys, fractions, seed)
        return
    held = list(batches)
    verdicts.check_corrupt(report, float(part["max_corrupt"]))
    rows = Rows.joined(held)
    held.clear()
    tell(f"dealing out {len(rows):,} samples")
    sides = _sides(split["strategy"], rows, request, fractions, seed)
    # Shuffled, so that every worker's share of a split has all classes and any piece of it is a fair sample.
    order = np.random.default_rng([abs(seed), 1]).permutation(len(rows))
    for start in range(0, len(order), ROWS_A_CHUNK):
        places = order[start : start + ROWS_A_CHUNK]
        yield rows.take(places), sides[places]


def _sides(strategy: str, rows: Rows, request: Request, fractions: Fractions, seed: int) -> Sides:
    keys = rows.content if rows.id is None else digest.of_texts(rows.id)
    contents = digest.codes(keys)
    if strategy == "group":
        groups = digest.codes(digest.of_texts(rows.group))
        return strategies.at_random(strategies.joined_units(contents, groups), fractions, seed)
    if strategy == "time":
        assert rows.time is not None
        return strategies.by_time(contents, rows.time, fractions)
    if strategy == "random":
        return strategies.at_random(contents, fractions, seed)
    return strategies.stratified(contents, _strata(rows, request.label_kind), fractions, seed)


def _strata(rows: Rows, label_kind: str) -> npt.NDArray[np.int64]:
    if label_kind == "number":
        return strategies.quantiles(rows.label.to_numpy())
    if label_kind == "annotation":
        return strategies.rarest([names_in(text) for text in rows.label.to_pylist()])
    encoded = rows.label.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    rank = np.empty(len(names), dtype=np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return np.asarray(rank[encoded.indices.to_numpy()])


def _label_marks(rows: Rows, label_kind: str) -> digest.Words:
    """One number per label. Labels that are numbers may differ between equal samples: that is noise, not a mistake."""
    if label_kind == "number":
        return np.zeros(len(rows), dtype=np.uint64)
    return digest.words(digest.of_texts(rows.label), 0)


def _note_groups(finder: EqualsFinder, rows: Rows, sides: Sides) -> None:
    """Take in each group of the batch once per side."""
    groups = digest.of_texts(rows.group)
    _, first = np.unique(digest.codes(groups) * 3 + sides, return_index=True)
    finder.add(
        groups[first], sides[first].astype(np.uint64), rows.file[first], None if rows.row is None else rows.row[first]
    )


def _summary(
    part: Mapping[str, Any], request: Request, report: Report, writer: ManifestWriter, source: Source
) -> dict[str, Any]:
    classes = classes_by_split(writer.classes)
    schema = Schema(report.label, tuple(classes), report.columns).to_record()
    parameters = {**part["split"], **{key: part.get(key) for key in ("label", "features", "id", "group", "time")}}
    identity = {
        "manifest_version": MANIFEST_VERSION,
        "source": source.base,
        "format": request.format,
        "label_kind": request.label_kind,
        "parameters": parameters,
        "schema": schema,
    }
    counts = writer.counts()
    return {
        **identity,
        "fingerprint": sha256_of({**identity, "rows": writer.rows_digest()}),
        "max_corrupt": part["max_corrupt"],
        "samples": sum(counts.values()),
        "counts": counts,
        "classes": classes,
        "files": writer.files,
        "left_out": {"count": report.corrupt, "files": [asdict(named) for named in report.left_out]},
        "ignored": {
            "count": len(report.ignored),
            "files": [asdict(n) for n in report.ignored[: verdicts.MOST_IGNORED]],
        },
        "dropped_classes": report.dropped_classes,
        **({"annotations": _annotations(report, writer)} if request.format in ANNOTATED else {}),
    }


def _annotations(report: Report, writer: ManifestWriter) -> dict[str, Any]:
    """What only annotated pictures have: how many hold no object, and what is wrong within pictures that are kept."""
    return {
        "without_objects": {split: writer.without_objects[split] for split in strategies.SPLITS},
        "problems": {
            "count": sum(report.problem_counts.values()),
            "actions": dict(report.problem_counts),
            "named": [asdict(problem) for problem in report.problems],
        },
    }
