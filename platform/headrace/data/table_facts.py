"""What the columns of a table look like, from one pass over it with bounded memory: for `headrace init` to guess by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headrace.data import columns as cols
from headrace.data import digest
from headrace.data.leaks import EqualsFinder
from headrace.data.tables import Table, unheeded

MOST_VALUES = 20_000  # distinct values of a column that are told apart
FEW_VALUES = 100  # a text column with more, over half of them distinct, is free text or a name


@dataclass
class ColumnFacts:
    """One column. `kind` is None for types that no model here reads."""

    kind: str | None
    rows: int = 0
    missing: int = 0
    numeric: int = 0
    whole: bool = True
    values: Counter[str] = field(default_factory=Counter)
    more: bool = False  # more distinct values than are told apart

    @property
    def unique(self) -> bool:
        """Whether no value comes twice, as far as was looked."""
        return not self.more and len(self.values) == self.rows

    @property
    def empty(self) -> bool:
        """Whether every cell is."""
        return self.rows == self.missing

    @property
    def like_text(self) -> bool:
        """Whether it is words that hardly repeat: a name or free text, of no use to a table's model."""
        return self.kind == cols.CATEGORY and len(self.values) > max(FEW_VALUES, (self.rows - self.missing) / 2)

    def summary(self) -> str:
        """One phrase for a person."""
        if self.empty:
            return "empty"
        if self.kind is None:
            return "of a type that no model reads"
        return f"{len(self.values):,}{'+' if self.more else ''} different values in {self.rows:,} rows"

    def add(self, values: Any) -> None:
        """Take in a batch of the column."""
        self.rows += len(values)
        self.missing += values.null_count
        if self.kind is None:
            return
        floats, _ = cols.numbers(values)
        finite = floats[~np.isnan(floats)]
        self.numeric += len(finite)
        self.whole = self.whole and bool((finite == np.rint(finite)).all())
        if not self.more:
            counted = cols.texts(values).drop_null().value_counts()
            self.values.update(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
            self.more = len(self.values) > MOST_VALUES


def contradictions(table: Table, uris: list[str], kinds: dict[str, str], label: str) -> int:
    """Rows that equal an earlier one in the columns KINDS and have another LABEL."""
    with EqualsFinder() as finder:
        for file, uri in enumerate(uris):
            for numbers, batch in table.read(uri, [*kinds, label], unheeded):
                keys = digest.of_rows(cols.features_of(batch, kinds, {}), batch.num_rows)
                labels = cols.texts(batch.column(batch.schema.get_field_index(label)))
                kept = np.flatnonzero(labels.is_valid().to_numpy(zero_copy_only=False))
                marks = digest.words(digest.of_texts(labels), 0)
                files = np.full(batch.num_rows, file, dtype=np.int32)
                finder.add(keys[kept], marks[kept], files[kept], numbers[kept])
        return finder.find().conflicts


def table_facts(table: Table, uris: list[str]) -> tuple[dict[str, ColumnFacts], int]:
    """Facts by column name in the table's order, and the number of rows (ragged ones not counted)."""
    facts: dict[str, ColumnFacts] = {}
    names = table.names(uris[0])
    rows = 0
    for uri in uris:
        for _, batch in table.read(uri, names, unheeded):
            rows += batch.num_rows
            for name in names:
                values = batch.column(batch.schema.get_field_index(name))
                facts.setdefault(name, ColumnFacts(cols.kind_of_type(values.type))).add(values)
    for fact in facts.values():
        filled = fact.rows - fact.missing
        typed_as_text = fact.kind == cols.CATEGORY and table.cells_are_text
        if typed_as_text and filled and fact.numeric >= cols.NUMBER_SHARE * filled:
            fact.kind = cols.NUMBER
    return facts or {name: ColumnFacts(cols.CATEGORY) for name in names}, rows
