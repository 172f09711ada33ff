"""CSV as people write it: any of four delimiters, quoted line breaks, a BOM, gzip, cells that say they are empty.

Cells are read as strings and judged over the whole table, because a column that is a number for a million rows and a
word in the next is a word, or a mistake; a reader that guesses from the first block cannot tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from headrace.base.errors import DataInvalid, Finding
from headrace.data import columns as cols
from headrace.data.formats import Report, Request, Tell
from headrace.data.source import scanned
from headrace.data.tables import OnRagged, RowNumbers, Table, unheeded

BLOCK_BYTES = 4 << 20  # read at once: large enough for whole-array work, small enough not to show in memory
HEADER_BYTES = 1 << 20  # in which the first line ends
DELIMITERS = ",;\t|"
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "NULL", "null", "?"]  # "None" can be a class
SETTLED_CELLS = 10_000  # after so many, a column that is mostly words stays a category


class Csv(Table):
    """`*.csv`, `*.tsv` and the same with `.gz`; the first line names the columns."""

    suffixes = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
    cells_are_text = True

    def names(self, uri: str) -> list[str]:
        """See `Table.names`."""
        with scanned(uri) as file, _explained(uri):
            return list(_reader(file, [], lambda _: "skip").schema.names)

    def kinds(self, uris: list[str], roles: cols.Roles, request: Request, report: Report, tell: Tell) -> dict[str, str]:
        """See `Table.kinds`: a number is what is one in at least NUMBER_SHARE of its filled cells."""
        tell("reading the columns")
        numeric: Counter[str] = Counter()
        filled: Counter[str] = Counter()
        words: set[str] = set()
        for uri in uris:
            for _, batch in self.read(uri, list(roles.features), unheeded):
                for name in roles.features:
                    if name in words:
                        continue
                    values, bad = cols.numbers(batch.column(batch.schema.get_field_index(name)))
                    numeric[name] += int(np.count_nonzero(~np.isnan(values)))
                    filled[name] += int(np.count_nonzero(~np.isnan(values) | bad))
                    if filled[name] > SETTLED_CELLS and numeric[name] < filled[name] / 2:
                        words.add(name)
        for name in roles.features:
            if not filled[name]:
                report.notes.append(Finding("data.features", name, "", "left out: it is empty in every row"))
        return {
            name: cols.NUMBER if numeric[name] >= cols.NUMBER_SHARE * filled[name] else cols.CATEGORY
            for name in roles.features
            if filled[name]
        }

    def read(self, uri: str, names: list[str], on_ragged: OnRagged) -> Iterator[tuple[RowNumbers, pa.RecordBatch]]:
        """See `Table.read`. Rows with too few or too many cells are skipped and counted."""
        skipped: list[int] = []

        def ragged(row: Any) -> str:
            number = row.number - 2  # pyarrow counts from 1 and counts the header
            skipped.append(number)
            on_ragged(number, f"{row.actual_columns} cells where the header has {row.expected_columns}")
            return "skip"

        kept = 0
        with scanned(uri) as file, _explained(uri):
            for batch in _reader(file, names, ragged):
                numbers = np.arange(kept, kept + batch.num_rows, dtype=np.int64)
                kept += batch.num_rows
                if skipped:  # the j-th skipped row shifts all rows from its own number minus j on
                    shifts = np.array(skipped) - np.arange(len(skipped))
                    numbers += np.searchsorted(shifts, numbers, side="right")
                if batch.num_rows:
                    yield numbers, batch


def delimiter_of(line: str) -> str:
    """The delimiter that stands most often in a header LINE, quoted names aside."""
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=bare.count)


def _reader(file: Any, names: list[str], ragged: Any) -> Any:
    first = file.read(HEADER_BYTES).split(b"\n", 1)[0].decode("utf-8", "replace")
    file.seek(0)
    convert = pcsv.ConvertOptions(
        include_columns=names or None,
        column_types={name: pa.string() for name in names},
        null_values=MISSING,
        strings_can_be_null=True,
    )
    parse = pcsv.ParseOptions(delimiter=delimiter_of(first), newlines_in_values=True, invalid_row_handler=ragged)
    # One thread: only then does a ragged row know its number.
    return pcsv.open_csv(file, pcsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES), parse, convert)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn pyarrow's errors into ones that name the file."""
    try:
        yield
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            action = "save it as UTF-8 (iconv -f latin1 -t utf-8)"
        else:
            action = "open it in an editor at that place; a lost quotation mark is the usual cause"
        raise DataInvalid(f"{uri} cannot be read as CSV: {error}", action=action) from error
