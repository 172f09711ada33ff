"""What people hand to `predict`, as pieces of named arrays: pictures, folders of them, tables, JSON.

Files are read by the very code that training read its data with. What cannot be read stands in a piece's `errors` and
stops nothing: of a million pictures one is always broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from headrace.base.errors import DataInvalid, HeadraceError, InvalidInput
from headrace.data.ahead import read_ahead
from headrace.data.columns import CATEGORY, NUMBER, features_of
from headrace.data.csv_table import Csv
from headrace.data.folder_layout import is_image
from headrace.data.parquet_table import Parquet
from headrace.data.source import Source, read_uri
from headrace.data.tables import Table
from headrace_models.tasks.base import Arrays, BadInput

PIECE_ROWS = 64
PIECE_BYTES = 8 << 20  # of encoded pictures in one piece: what is in memory, and in one request, at once
JSON_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})
TABLES: tuple[type[Table], ...] = (Csv, Parquet)

Answer = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Row:
    """Where a row came from: `uri` a file, `row` its number there (None for a file that is one sample)."""

    uri: str
    sample_id: str
    row: int | None = None


@dataclass
class Piece:
    """Some rows and their arrays, which hold only the rows that are not in `errors` (by position), in order."""

    rows: list[Row]
    inputs: Arrays
    errors: dict[int, str] = field(default_factory=dict)


@dataclass
class Answered:
    """A piece with its answer: `outputs` hold only the rows that are not in `errors`, in order."""

    rows: list[Row]
    outputs: Arrays
    errors: dict[int, str]


def pieces_of(inputs: Sequence[str], wanted: Mapping[str, str]) -> Iterator[Piece]:
    """The content of INPUTS (files, folders or URLs), piece by piece.

    Args:
        wanted: the model's inputs, name to V2 datatype.

    Raises:
        DataInvalid: an input is not there, or is no file that this model can take.
    """
    for address in inputs:
        source = Source(address)
        if not source.is_file():
            yield from _folder(source, wanted)
            continue
        name = source.base.lower()
        table = _table_of(name)
        if table is not None:
            yield from _table(table, source.base, wanted)
        elif PurePosixPath(name).suffix in JSON_SUFFIXES:
            yield from _json(source.base, wanted)
        else:
            yield from _pictures([(source.base, PurePosixPath(source.base).name)], _picture_input(wanted, source.base))


def answered(pieces: Iterable[Piece], answer: Answer) -> Iterator[Answered]:
    """Each piece with ANSWER's outputs. A refused piece is halved until the rows to blame stand alone."""
    for piece in pieces:
        good = [place for place in range(len(piece.rows)) if place not in piece.errors]
        errors = dict(piece.errors)
        parts = list(_answer(piece.inputs, good, answer, errors)) if good else []
        names = parts[0] if parts else {}
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in names}
        yield Answered(piece.rows, outputs, errors)


def _answer(inputs: Arrays, places: list[int], answer: Answer, errors: dict[int, str]) -> Iterator[Arrays]:
    try:
        yield answer(inputs)
    except (BadInput, InvalidInput) as error:
        if len(places) == 1:
            errors[places[0]] = error.message if isinstance(error, HeadraceError) else str(error)
            return
        half = len(places) // 2
        for part in (slice(None, half), slice(half, None)):
            yield from _answer({name: array[part] for name, array in inputs.items()}, places[part], answer, errors)


# kinds of input


def _table_of(name: str) -> Table | None:
    return next((table() for table in TABLES if name.endswith(table.suffixes)), None)


def _picture_input(wanted: Mapping[str, str], address: str) -> str:
    """The name of the one input that takes files as they are."""
    if len(wanted) == 1 and next(iter(wanted.values())) == "BYTES":
        return next(iter(wanted))
    raise DataInvalid(
        f"{address} is no table, and the model takes the columns {', '.join(wanted)}",
        action="give a CSV, Parquet or JSON file with these columns",
    )


def _folder(source: Source, wanted: Mapping[str, str]) -> Iterator[Piece]:
    """A folder's pictures, or its tables."""
    files = source.files()
    tables = [(table, source.uri(f.path)) for f in files if (table := _table_of(f.path.lower())) is not None]
    pictures = [(source.uri(f.path), f.path) for f in files if is_image(f.path)]
    if pictures and len(wanted) == 1:
        yield from _pictures(pictures, _picture_input(wanted, source.address))
    elif tables:
        for table, uri in tables:
            yield from _table(table, uri, wanted)
    else:
        raise DataInvalid(
            f"{source.address} holds nothing that this model takes ({len(files):,} files)",
            action=f"it takes {', '.join(wanted)}: give pictures, or tables with these columns",
        )


def _pictures(files: Sequence[tuple[str, str]], name: str) -> Iterator[Piece]:
    rows: list[Row] = []
    contents: list[bytes] = []
    errors: dict[int, str] = {}
    uris = [uri for uri, _ in files]
    read = read_ahead(_content_of, uris) if uris and "://" in uris[0] else map(_content_of, uris)
    for (uri, sample_id), content in zip(files, read, strict=True):
        if isinstance(content, DataInvalid):
            errors[len(rows)] = content.message
        else:
            contents.append(content)
        rows.append(Row(uri, sample_id))
        if len(rows) == PIECE_ROWS or sum(map(len, contents)) > PIECE_BYTES:
            yield Piece(rows, {name: _objects(contents)}, errors)
            rows, contents, errors = [], [], {}
    if rows:
        yield Piece(rows, {name: _objects(contents)}, errors)


def _content_of(uri: str) -> bytes | DataInvalid:
    """The bytes at URI, or why there are none."""
    try:
        return read_uri(uri)
    except DataInvalid as error:
        return error


def _kinds(wanted: Mapping[str, str]) -> dict[str, str]:
    return {name: CATEGORY if datatype == "BYTES" else NUMBER for name, datatype in wanted.items()}


def _require_columns(names: Iterable[str], wanted: Mapping[str, str], where: str) -> None:
    present = set(names)
    if missing := [name for name in wanted if name not in present]:
        raise DataInvalid(
            f"{where} has no column {', '.join(map(repr, missing[:5]))}",
            action=f"the model takes the columns {', '.join(wanted)}",
        )


def _table(table: Table, uri: str, wanted: Mapping[str, str]) -> Iterator[Piece]:
    """A CSV or Parquet file; rows with the wrong number of cells or broken ones are errors."""
    _require_columns(table.names(uri), wanted, uri)
    ragged: list[tuple[int, str]] = []
    kinds = _kinds(wanted)
    for numbers, batch in table.read(uri, list(wanted), lambda row, reason: ragged.append((row, reason))):
        yield from _ragged(uri, ragged)
        for start in range(0, batch.num_rows, PIECE_ROWS):
            part = batch.slice(start, PIECE_ROWS)
            errors: dict[int, str] = {}
            columns = features_of(part, kinds, errors)
            keep = [place for place in range(part.num_rows) if place not in errors]
            places = numbers[start : start + PIECE_ROWS].tolist()
            arrays = {name: _column(values, wanted[name])[keep] for name, values in columns.items()}
            yield Piece([Row(uri, f"{uri}#{number}", number) for number in places], arrays, errors)
    yield from _ragged(uri, ragged)


def _ragged(uri: str, found: list[tuple[int, str]]) -> Iterator[Piece]:
    """The rows that the reader skipped so far, as a piece of errors."""
    if found:
        rows = [Row(uri, f"{uri}#{number}", number) for number, _ in found]
        errors = {place: reason for place, (_, reason) in enumerate(found)}
        found.clear()
        yield Piece(rows, {}, errors)


def _column(values: Any, datatype: str) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values.astype(_NUMPY.get(datatype, np.float64))
    return _objects([(text or "").encode() for text in values.to_pylist()])


_NUMPY: dict[str, Any] = {"FP32": np.float32, "FP64": np.float64}


def _json(uri: str, wanted: Mapping[str, str]) -> Iterator[Piece]:
    """A V2 request, a row object, a list of them, or one of them a line."""
    text = read_uri(uri)
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise DataInvalid(
                f"{uri} is not valid JSON: {error}", action="give an object, a list, or JSON lines"
            ) from None
    if isinstance(value, dict) and isinstance(value.get("inputs"), list):
        yield _v2_request(uri, text)
        return
    rows = value if isinstance(value, list) else [value]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataInvalid(f"{uri} holds no rows", action='give [{"column": value, ...}, ...], or a V2 request')
    numbered = iter(enumerate(rows))
    while part := list(islice(numbered, PIECE_ROWS)):
        yield _json_rows(uri, part, wanted)


def _v2_request(uri: str, text: bytes) -> Piece:
    from headrace.serving.errors import RequestError
    from headrace.serving.protocol import decode_request

    try:
        inputs = decode_request(text).inputs
    except RequestError as error:
        raise DataInvalid(f"{uri} is not a V2 request: {error}", action="see the Open Inference Protocol") from None
    count = min((len(array) for array in inputs.values() if array.ndim), default=0)
    return Piece([Row(uri, f"{uri}#{number}", number) for number in range(count)], inputs)


def _json_rows(uri: str, rows: Sequence[tuple[int, Mapping[str, Any]]], wanted: Mapping[str, str]) -> Piece:
    errors: dict[int, str] = {}
    values: dict[str, list[Any]] = {name: [] for name in wanted}
    for place, (_, row) in enumerate(rows):
        try:
            cells = {name: _cell(row, name, datatype) for name, datatype in wanted.items()}
        except ValueError as error:
            errors[place] = str(error)
            continue
        for name, cell in cells.items():
            values[name].append(cell)
    arrays = {
        name: _objects(cells) if wanted[name] == "BYTES" else np.array(cells, _NUMPY.get(wanted[name], np.float64))
        for name, cells in values.items()
    }
    return Piece([Row(uri, f"{uri}#{number}", number) for number, _ in rows], arrays, errors)


def _cell(row: Mapping[str, Any], name: str, datatype: str) -> bytes | float:
    """A cell as the request carries it: missing texts are empty, missing numbers NaN."""
    if name not in row:
        raise ValueError(f"{name} is missing")
    value = row[name]
    if datatype == "BYTES":
        if value is None:
            return b""
        if isinstance(value, bool):
            return b"true" if value else b"false"
        return (str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)).encode()
    try:
        return float("nan") if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {value!r} is not a number") from None


def _objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
