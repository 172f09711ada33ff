"""What the columns of a table are and mean: which is the label, which are features, what is a number, what is broken.

One conversion serves splitting and reading back, so that a row's digest is the same in both, and a table that has
changed since is noticed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.base.errors import DataInvalid, Finding
from headrace.data.formats import ID_OF_PLACE, Request
from headrace_models.catalog.names import listed, nearest

Floats = npt.NDArray[np.float64]
Columns = dict[str, "Floats | pa.Array"]
Problems = dict[int, str]  # row of the batch to what is wrong with it

NUMBER, CATEGORY = "number", "category"
NUMBER_SHARE = 0.9  # a text column is numeric if this share of its filled cells are numbers; the rest are mistakes
NUMBER_TEXT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
NO_VALUE = pa.array(["None", "none", "-", ""])  # further ways to write that a number is missing


@dataclass(frozen=True)
class Roles:
    """Which column is what. All names exist in the table."""

    label: str
    features: tuple[str, ...]
    id: str | None  # None also where a row's place is its id
    group: str | None
    time: str | None

    def used(self) -> list[str]:
        """Every column that is read, each once."""
        return list(dict.fromkeys(filter(None, (*self.features, self.label, self.id, self.group, self.time))))


def resolve_roles(names: Sequence[str], request: Request, where: str) -> Roles:
    """The roles of the columns NAMES of the table WHERE. Raises DataInvalid with every wrong name."""
    findings = [
        Finding(where, f"column {name!r} twice", "each name once", "rename one")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    identity = None if request.id == ID_OF_PLACE else request.id
    asked = [("data.label", request.label), ("data.id", identity)]
    asked += [("data.group", request.group), ("data.time", request.time)]
    asked += [("data.features", name) for name in request.features or ()]
    for place, name in asked:
        if name is not None and name not in names:
            near = nearest(name, names)
            action = f"did you mean {near[0]!r}?" if near else "name a column of the table"
            findings.append(Finding(place, name, listed(name, names), action))
    if request.label is None:
        findings.append(Finding("data.label", "nothing", ", ".join(names), "name the column that is to be predicted"))
    elif request.label in (request.features or ()):
        findings.append(Finding("data.features", request.label, "", "take it out: it is the label"))
    special = {request.label, identity, request.group, request.time}
    features = request.features or tuple(name for name in names if name not in special)
    if not features:
        findings.append(Finding("data.features", "none", "at least one column", "a table needs columns to learn from"))
    if findings or request.label is None:
        raise DataInvalid(f"the columns of {where} do not fit the spec", action="see findings", findings=findings)
    return Roles(request.label, tuple(features), identity, request.group, request.time)


def check_columns(names: Sequence[str], roles: Roles, where: str) -> list[Finding]:
    """What the further table WHERE lacks of the first one's columns."""
    lacking = [name for name in roles.used() if name not in names]
    return [
        Finding(where, f"no column {name!r}", ", ".join(names), "all files need the same columns") for name in lacking
    ]


def kind_of_type(kind: pa.DataType) -> str | None:
    """The kind of a typed column, or None for what no model here reads (times, lists, structures, bytes)."""
    types = pa.types
    if types.is_dictionary(kind):
        return kind_of_type(kind.value_type)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind):
        return NUMBER
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return CATEGORY
    return None


def numbers(values: pa.Array) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """VALUES as float64, NaN for missing, and which of them are something else than a finite number."""
    broken = None
    if kind_of_type(values.type) == CATEGORY:
        values, broken = _numbers_of_texts(_plain(values))
    elif pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.uint8())
    if not pa.types.is_float64(values.type):
        values = pc.cast(_plain(values), pa.float64(), safe=False)
    floats = np.array(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    bad = np.isinf(floats)
    if broken is not None:
        bad |= broken
    floats[bad] = np.nan
    return floats, bad


def _numbers_of_texts(values: pa.Array) -> tuple[pa.Array, npt.NDArray[np.bool_] | None]:
    try:
        return pc.cast(values, pa.float64()), None
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(values)
    absent = pc.is_in(trimmed, value_set=NO_VALUE)
    numeric = pc.fill_null(pc.match_substring_regex(trimmed, NUMBER_TEXT), False)
    parsed = pc.cast(pc.if_else(numeric, trimmed, None), pa.float64())
    broken = pc.and_(pc.invert(numeric), pc.and_(pc.is_valid(trimmed), pc.invert(absent)))
    return parsed, broken.to_numpy(zero_copy_only=False)


def texts(values: pa.Array) -> pa.Array:
    """VALUES as strings; whole floats lose their `.0`, so that a column's type does not change its classes."""
    values = _plain(values)
    if pa.types.is_floating(values.type):
        encoded = values.dictionary_encode()
        spelled = [
            None if v is None or math.isnan(v) else str(int(v)) if v.is_integer() else repr(v)
            for v in encoded.dictionary.to_pylist()
        ]
        return pa.array(spelled, pa.string()).take(encoded.indices)
    return values if pa.types.is_string(values.type) else pc.cast(values, pa.string())


def moments(values: pa.Array) -> Floats:
    """VALUES as numbers that order in time (numbers as they are, dates as seconds since 1970); NaN for all else."""
    values = _plain(values)
    if pa.types.is_temporal(values.type):
        stamps = pc.cast(pc.cast(values, pa.timestamp("us", getattr(values.type, "tz", None)), safe=False), pa.int64())
        return numbers(stamps)[0] / 1e6
    if kind_of_type(values.type) == NUMBER:
        return numbers(values)[0]
    encoded = texts(values).dictionary_encode()
    parsed = np.array([_moment(text) for text in encoded.dictionary.to_pylist()], dtype=np.float64)
    positions = encoded.indices.fill_null(len(parsed)).to_numpy(zero_copy_only=False)
    return np.asarray(np.append(parsed, np.nan)[positions], dtype=np.float64)


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def features_of(batch: pa.RecordBatch, kinds: Mapping[str, str], problems: Problems) -> Columns:
    """The feature columns of BATCH by name: float64 with NaN for missing, or strings. PROBLEMS gets broken cells."""
    columns: Columns = {}
    for name, kind in kinds.items():
        values = batch.column(batch.schema.get_field_index(name))
        if kind == CATEGORY:
            columns[name] = texts(values)
            continue
        columns[name], bad = numbers(values)
        note_bad(problems, name, values, bad, "is not a number")
    return columns


def note_bad(problems: Problems, name: str, values: pa.Array, bad: npt.NDArray[np.bool_], what: str) -> None:
    """Add to PROBLEMS the rows where BAD."""
    for index in np.flatnonzero(bad).tolist():
        given = values[index].as_py()
        problems.setdefault(index, f"{name} is missing" if given is None else f"{name}: {given!r} {what}")


def _plain(values: Any) -> Any:
    """VALUES without dictionary encoding and large or view offsets."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = pc.cast(values, pa.string())
    return values
