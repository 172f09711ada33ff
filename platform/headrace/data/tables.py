"""Tables, one row a sample: CSV and Parquet, one file or a folder of files, read as a stream.

A row's content is its features, so a corrected label does not make another sample of it. Rows are named `file#row`,
counted from 0 without the header, as pandas' `iloc` counts them.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.base.errors import DataInvalid
from headrace.data import columns as cols
from headrace.data import digest
from headrace.data.formats import ID_OF_PLACE, Format, Named, Payloads, Report, Request, Tell
from headrace.data.rows import Rows
from headrace.data.source import Source

RowNumbers = npt.NDArray[np.int64]
OnRagged = Callable[[int, str], None]
SECONDS_BETWEEN_TELLS = 2.0


def unheeded(_row: int, _reason: str) -> None:
    """For readers of a table that do not care about its ragged rows."""


class Table(Format):
    """What CSV and Parquet share. Subclasses say how one file is read."""

    suffixes: tuple[str, ...]
    cells_are_text: bool  # whether every cell is read as a string

    @abstractmethod
    def names(self, uri: str) -> list[str]:
        """The column names of one file."""

    @abstractmethod
    def kinds(self, uris: list[str], roles: cols.Roles, request: Request, report: Report, tell: Tell) -> dict[str, str]:
        """The kind of each feature column over all files; what no model reads is left out with a note."""

    @abstractmethod
    def read(self, uri: str, names: list[str], on_ragged: OnRagged) -> Iterator[tuple[RowNumbers, pa.RecordBatch]]:
        """The columns NAMES of one file in batches with their row numbers."""

    def tables(self, source: Source, report: Report) -> list[tuple[str, str]]:
        """URI and relative path of each table of SOURCE; all else is named in REPORT."""
        files = source.files()
        found = []
        for file in files:
            if file.path == "" or file.path.lower().endswith(self.suffixes):
                found.append((source.uri(file.path), file.path))
            else:
                report.ignored.append(Named(source.uri(file.path), f"not {' or '.join(self.suffixes)}"))
        if not found:
            raise DataInvalid(
                f"{source.address} holds no {self.suffixes[0]} file ({len(files):,} files)",
                action="check data.source and data.format",
            )
        return found

    def scan(self, source: Source, request: Request, report: Report, tell: Tell) -> Iterator[Rows]:
        """See `Format.scan`. A sample's content is its features, by name."""
        report.unit = "rows"
        found = self.tables(source, report)
        roles = self.roles([uri for uri, _ in found], request)
        report.label = roles.label
        report.columns = self.kinds([uri for uri, _ in found], roles, request, report, tell)
        told = time.monotonic()
        for uri, path in found:
            index = report.add_file(uri, path)
            for numbers, batch in self.read(uri, _read_names(roles, report.columns), _ragged(report, uri)):
                rows = _convert(batch, numbers, index, roles, request, report)
                report.usable += len(rows)
                if len(rows):
                    yield rows
                if time.monotonic() - told > SECONDS_BETWEEN_TELLS:
                    told = time.monotonic()
                    tell(f"read {report.usable:,} rows")

    def roles(self, uris: list[str], request: Request) -> cols.Roles:
        """The columns' roles, which every file must be able to fill. Raises DataInvalid with all that is wrong."""
        roles = cols.resolve_roles(self.names(uris[0]), request, uris[0])
        findings = [finding for uri in uris[1:] for finding in cols.check_columns(self.names(uri), roles, uri)]
        if findings:
            raise DataInvalid("the tables do not have the same columns", action="see findings", findings=findings)
        return roles

    def payloads(self, uris: pa.Array, contents: pa.Array, columns: Mapping[str, str]) -> Payloads:
        """See `Format.payloads`: a mapping of feature to value."""
        return TablePayloads(self, uris, contents, dict(columns))


_loading = threading.Lock()  # not in the instance, which is pickled


class TablePayloads(Payloads):
    """The features of some rows, held column by column; their files are streamed when the first one is asked for."""

    def __init__(self, table: Table, uris: pa.Array, contents: pa.Array, kinds: dict[str, str]) -> None:
        self._table, self._uris, self._contents, self._kinds = table, uris, contents, kinds
        self._columns: cols.Columns | None = None

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if self._columns is None:
            with _loading:
                if self._columns is None:
                    self._columns = self._load()
        return {name: _value(values, index) for name, values in self._columns.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_columns": None}

    def _load(self) -> cols.Columns:
        pieces: dict[str, list[Any]] = {name: [] for name in self._kinds}
        order = []
        for uri, wanted, places in _by_file(self._uris):
            for columns, taken in self._rows_of(uri, wanted, places):
                order.append(taken)
                for name, values in columns.items():
                    pieces[name].append(values)
        back = np.argsort(np.concatenate(order), kind="stable") if order else np.zeros(0, np.int64)
        return {
            name: _joined(values)[back] if kind == cols.NUMBER else _joined(values).take(pa.array(back))
            for (name, kind), values in zip(self._kinds.items(), pieces.values(), strict=True)
        }

    def _rows_of(self, uri: str, wanted: RowNumbers, places: RowNumbers) -> Iterator[tuple[cols.Columns, RowNumbers]]:
        """The wanted rows (ascending) of one file, batch by batch, with their places in this object."""
        done = 0
        try:
            for numbers, batch in self._table.read(uri, list(self._kinds), unheeded):
                stop = int(np.searchsorted(wanted, numbers[-1], side="right"))
                if stop == done:
                    continue
                asked, taken = wanted[done:stop], places[done:stop]
                at = np.searchsorted(numbers, asked)
                if not np.array_equal(numbers[at], asked):
                    raise _changed(uri)
                columns = cols.features_of(batch.take(pa.array(at)), self._kinds, {})
                told = digest.hexadecimal(digest.of_rows(columns, len(asked)))
                if not told.equals(_plain_take(self._contents, taken)):
                    raise _changed(uri)
                yield columns, taken
                done = stop
                if done == len(wanted):
                    return
        except (KeyError, pa.ArrowException) as error:
            raise _changed(uri) from error
        if done < len(wanted):
            raise _changed(uri)


def _changed(uri: str) -> DataInvalid:
    return DataInvalid(f"{uri} has changed since the split", action="run again: the data is split anew")


def _plain_take(values: pa.Array, places: RowNumbers) -> pa.Array:
    taken = values.take(pa.array(places))
    return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken


def _by_file(uris: pa.Array) -> Iterator[tuple[str, RowNumbers, RowNumbers]]:
    """Each file of `file#row` URIS with its row numbers, ascending, and their places in URIS."""
    if isinstance(uris, pa.ChunkedArray):
        uris = uris.combine_chunks()
    parts = pc.list_flatten(pc.split_pattern(uris, "#", max_splits=1, reverse=True))
    files = parts.take(pa.array(np.arange(0, len(parts), 2))).dictionary_encode()
    rows = pc.cast(parts.take(pa.array(np.arange(1, len(parts), 2))), pa.int64()).to_numpy()
    indices = files.indices.to_numpy()
    for code, uri in enumerate(files.dictionary.to_pylist()):
        places = np.flatnonzero(indices == code)
        places = places[np.argsort(rows[places], kind="stable")]
        yield uri, rows[places], places


def _joined(values: list[Any]) -> Any:
    return np.concatenate(values) if isinstance(values[0], np.ndarray) else pa.concat_arrays(values)


def _value(values: Any, index: int) -> float | str | None:
    if isinstance(values, np.ndarray):
        number = float(values[index])
        return None if number != number else number
    text: str | None = values[index].as_py()
    return text


def _read_names(roles: cols.Roles, kinds: Mapping[str, str]) -> list[str]:
    return [name for name in roles.used() if name not in roles.features or name in kinds]


def _ragged(report: Report, uri: str) -> OnRagged:
    return lambda row, reason: report.leave_out(f"{uri}#{row}", reason)


def _convert(
    batch: pa.RecordBatch, numbers: RowNumbers, file: int, roles: cols.Roles, request: Request, report: Report
) -> Rows:
    """The usable rows of BATCH; the others are left out in REPORT."""
    problems: cols.Problems = {}
    columns = cols.features_of(batch, report.columns, problems)

    def column(name: str) -> pa.Array:
        return batch.column(batch.schema.get_field_index(name))

    def required(name: str) -> pa.Array:
        values = cols.texts(column(name))
        empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True).to_numpy(zero_copy_only=False)
        cols.note_bad(problems, name, column(name), empty, "is empty")
        return values

    identity = required(roles.id) if roles.id else None
    if request.id == ID_OF_PLACE:
        name = report.paths[file] or report.uris[file].rsplit("/", 1)[-1]
        identity = pc.binary_join_element_wise(name, pc.cast(pa.array(numbers), pa.string()), "#")
    group = required(roles.group) if roles.group else None
    when = None
    if roles.time:
        when = cols.moments(column(roles.time))
        cols.note_bad(problems, roles.time, column(roles.time), np.isnan(when), "is neither a number nor an ISO date")
    if request.label_kind == cols.NUMBER:
        targets, _ = cols.numbers(column(roles.label))
        cols.note_bad(problems, roles.label, column(roles.label), np.isnan(targets), "is not a number")
        label = pa.array(targets)
    else:
        label = required(roles.label)
    content = digest.of_rows(columns, batch.num_rows)
    files = np.full(batch.num_rows, file, dtype=np.int32)
    rows = Rows(files, numbers, content, label, identity, group, when)
    if not problems:
        return rows
    for index in sorted(problems):
        report.leave_out(f"{report.uris[file]}#{numbers[index]}", problems[index])
    keep = np.ones(batch.num_rows, dtype=bool)
    keep[list(problems)] = False
    return rows.take(np.flatnonzero(keep))
