"""Parquet tables. Their columns have types, so nothing is guessed: a string is a category, whatever it spells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.base.errors import DataInvalid, Finding
from headrace.data import columns as cols
from headrace.data.formats import Report, Request, Tell
from headrace.data.source import picked
from headrace.data.tables import OnRagged, RowNumbers, Table

BATCH_ROWS = 1 << 16
BUFFER_BYTES = 1 << 20  # read ahead in each column, so that a huge row group is not read whole
REMOTE_BUFFER_BYTES = 4 << 20  # the same where each read is a request


class Parquet(Table):
    """`*.parquet` and `*.pq`."""

    suffixes = (".parquet", ".pq")
    cells_are_text = False

    def names(self, uri: str) -> list[str]:
        """See `Table.names`."""
        return list(_schema(uri).names)

    def kinds(self, uris: list[str], roles: cols.Roles, request: Request, report: Report, tell: Tell) -> dict[str, str]:
        """See `Table.kinds`: from the schemas, which must agree."""
        first = _schema(uris[0])
        kinds: dict[str, str] = {}
        findings: list[Finding] = []
        for name in roles.features:
            kind = cols.kind_of_type(first.field(name).type)
            if kind is not None:
                kinds[name] = kind
                continue
            action = "convert it to a number or a string" if request.features else "left out: no model reads its type"
            finding = Finding("data.features", f"{name} ({first.field(name).type})", "numbers and strings", action)
            (findings if request.features else report.notes).append(finding)
        for uri in uris[1:]:
            schema = _schema(uri)
            for name, kind in kinds.items():
                if cols.kind_of_type(schema.field(name).type) != kind:
                    given = f"column {name} is {schema.field(name).type}"
                    findings.append(
                        Finding(uri, given, f"{first.field(name).type} as in {uris[0]}", "convert one of them")
                    )
        if not kinds and not findings:
            findings.append(Finding("data.features", ", ".join(roles.features), "numbers and strings", "convert them"))
        if findings:
            raise DataInvalid("the tables' columns cannot be read", action="see findings", findings=findings)
        return kinds

    def read(self, uri: str, names: list[str], on_ragged: OnRagged) -> Iterator[tuple[RowNumbers, pa.RecordBatch]]:
        """See `Table.read`."""
        start = 0
        with picked(uri) as raw, _whole(uri):
            file = _file(uri, raw)
            for group in range(file.num_row_groups):  # one by one: over all of them the reader keeps what it has read
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=names):
                    yield np.arange(start, start + batch.num_rows, dtype=np.int64), batch
                    start += batch.num_rows


def _schema(uri: str) -> pa.Schema:
    with picked(uri) as raw, _whole(uri):
        schema: pa.Schema = _file(uri, raw).schema_arrow
        return schema


def _file(uri: str, raw: object) -> pq.ParquetFile:
    return pq.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER_BYTES if "://" not in uri else REMOTE_BUFFER_BYTES)


@contextmanager
def _whole(uri: str) -> Iterator[None]:
    """Turn what pyarrow says of a damaged file into an error that names the file."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise  # of the disk or the network; pyarrow's own have no number
        raise DataInvalid(f"{uri} is not a whole Parquet file: {error}", action="write it again") from error
