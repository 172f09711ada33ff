"""The seam between how data is laid out and everything else: one class a format, found by its name.

A format turns a source into batches of rows (who a sample is, its label, where it lies) and later reads the payloads of
chosen rows. Splitting, manifests and shards know nothing of folders, tables or annotations beyond this module.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.base.errors import DataInvalid, Finding
from headrace.data.source import Source
from headrace_models.catalog import tasks

if TYPE_CHECKING:
    from headrace.data.rows import Rows

Tell = Callable[[str], None]

FORMATS: Mapping[str, str] = {
    "image-folder": "headrace.data.image_folder:ImageFolder",
    "voc": "headrace.data.voc:Voc",
    "coco": "headrace.data.coco:Coco",
    "mot": "headrace.data.mot:Mot",
    "csv": "headrace.data.csv_table:Csv",
    "parquet": "headrace.data.parquet_table:Parquet",
}
TABLES = ("csv", "parquet")
ANNOTATED = ("voc", "coco", "mot")  # pictures with boxes
AWAITED = ("text-lines", "audio-manifest")  # known to the spec, not readable in this release

ID_OF_PLACE = "file#row"  # as data.id: every row of a table is a sample of its own, whatever it holds
MOST_NAMED = 10_000  # rows of tables named one by one; files are all named


@dataclass(frozen=True)
class Request:
    """What of the source is asked for: the spec's `data` without source and split, and what the task's label is."""

    format: str
    label: str | None
    features: tuple[str, ...] | None
    id: str | None
    group: str | None
    time: str | None
    label_kind: str  # "class", "number" or "annotation"
    one_class: bool = False  # of annotated pictures, those whose objects are all of one class
    masks: bool = False  # annotations with a mask each

    @classmethod
    def of(cls, part: Mapping[str, Any]) -> Request:
        """From the canonical split part. Raises DataInvalid for tasks whose labels do not go together."""
        features = part.get("features")
        cards = [card for name, card in tasks().items() if name in {task["name"] for task in part["tasks"]}]
        kinds = {card.label_kind for card in cards} or {"class"}
        if len(kinds) > 1 and kinds != {"class", "annotation"}:
            given = ", ".join(f"{card.name} a {card.label_kind}" for card in cards)
            raise DataInvalid(f"the tasks want different labels: {given}", action="run them one by one")
        return cls(
            format=str(part["format"]),
            label=part.get("label"),
            features=None if features is None else tuple(features),
            id=part.get("id"),
            group=part.get("group"),
            time=part.get("time"),
            label_kind="annotation" if "annotation" in kinds else next(iter(kinds)),
            one_class="class" in kinds,
            masks=any(card.masks for card in cards),
        )


@dataclass(frozen=True)
class Named:
    """A file, row or folder by its URI, with the reason it is named for."""

    uri: str
    reason: str


@dataclass(frozen=True)
class Problem:
    """Something wrong within a sample that is kept: with a box, by its file and its place there, or with the whole."""

    uri: str
    reason: str
    action: str  # what was done about it: "dropped", "clipped", ...


@dataclass
class Report:
    """What a scan learns besides rows. Complete once the batches are used up."""

    uris: list[str] = field(default_factory=list)  # of files
    paths: list[str] = field(default_factory=list)  # the same relative to the source: what a fingerprint may depend on
    label: str | None = None  # the label column's name
    columns: dict[str, str] = field(default_factory=dict)  # feature columns and their kinds
    unit: str = "files"
    usable: int = 0
    corrupt: int = 0
    left_out: list[Named] = field(default_factory=list)  # the corrupt ones, up to MOST_NAMED for rows
    ignored: list[Named] = field(default_factory=list)  # not data: other files
    dropped_classes: list[str] = field(default_factory=list)  # class folders without a usable sample
    notes: list[Finding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # up to MOST_NAMED
    problem_counts: Counter[str] = field(default_factory=Counter)  # all of them, by action

    def add_file(self, uri: str, path: str) -> int:
        """Take in a file; returns its index."""
        self.uris.append(uri)
        self.paths.append(path)
        return len(self.uris) - 1

    def leave_out(self, uri: str, reason: str) -> None:
        """Count a corrupt sample, and name it while there is room."""
        self.corrupt += 1
        if self.unit == "files" or len(self.left_out) < MOST_NAMED:
            self.left_out.append(Named(uri, reason))

    def note_problem(self, uri: str, reason: str, action: str) -> None:
        """Count a problem within a sample, and name it while there is room."""
        self.problem_counts[action] += 1
        if len(self.problems) < MOST_NAMED:
            self.problems.append(Problem(uri, reason, action))


class Payloads(ABC):
    """The contents of some samples, by their index. `distant`: each is a request of its own to a place far away."""

    distant = False

    @abstractmethod
    def __getitem__(self, index: int) -> bytes | Mapping[str, Any]:
        """Raises DataInvalid if the data is gone or has changed since the split."""

    def annotation(self, index: int, text: str, classes: Sequence[str]) -> dict[str, Any]:
        """The annotation of the sample at INDEX for tasks, from the manifest's TEXT; CLASSES are the schema's.

        See `headrace.data.annotations` for what it holds. Raises as `__getitem__`.
        """
        found: dict[str, Any] = json.loads(text)
        return found


class Format(ABC):
    """One layout of data. Instances hold no state of their own."""

    @abstractmethod
    def scan(self, source: Source, request: Request, report: Report, tell: Tell) -> Iterator[Rows]:
        """Every usable sample in the order of the sorted listing, in batches; fills REPORT on the way.

        Raises:
            DataInvalid: nothing there fits the format or the request; every mistake is in `findings`.
        """

    @abstractmethod
    def payloads(self, uris: Sequence[str], contents: Sequence[str], columns: Mapping[str, str]) -> Payloads:
        """The payloads of the samples at URIS, whose hex digests were CONTENTS, read no sooner than needed.

        COLUMNS are the schema's feature columns and kinds.
        """


def get_format(name: str) -> Format:
    """The format called NAME. Raises DataInvalid for one that this release cannot read."""
    if name not in FORMATS:
        state = "is not readable in this release" if name in AWAITED else "is no format"
        allowed = ", ".join(FORMATS)
        finding = Finding("data.format", name, allowed, "use one of these")
        raise DataInvalid(f"data format {name} {state}", action=f"use one of {allowed}", findings=[finding])
    module, _, attribute = FORMATS[name].partition(":")
    made = getattr(import_module(module), attribute)()
    assert isinstance(made, Format)
    return made
