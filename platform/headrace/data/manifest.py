"""Reads a split that was made: its summary, and for each worker the rows of its own share and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.base.errors import DataInvalid
from headrace.data.ahead import read_ahead
from headrace.data.annotations import LABEL
from headrace.data.formats import Payloads, get_format
from headrace.data.strategies import SPLITS
from headrace.data.write_manifest import MARKER
from headrace.store.filesystems import open_to_scan, reached
from headrace.store.store import Store
from headrace_models.tasks.base import Sample, Schema

COLUMNS = ["sample_id", "uri", "label", "content"]
SCAN_BYTES = 16 << 20  # fetched at once from S3: a manifest file of 100,000 samples


class Manifest:
    """The split FINGERPRINT in STORE.

    Raises:
        DataInvalid: there is no such split, or it is not whole.
    """

    def __init__(self, store: Store, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._store = store
        self._uri = store.uri("splits", fingerprint)
        summary = store.read_json(f"{self._uri}/{MARKER}")
        if summary is None:
            raise DataInvalid(f"there is no split {fingerprint} in {store.url}", action="run again: it is made anew")
        self.summary: dict[str, Any] = summary
        self.schema = Schema.from_record(summary["schema"])

    def count(self, split: str) -> int:
        """Samples in SPLIT ("train", "validation" or "test")."""
        return int(self.summary["counts"][split])

    def shard(self, split: str, rank: int, world: int) -> Shard:
        """Every WORLDth sample of SPLIT from the RANKth on: together the shards are the split, none overlap.

        Shards of one split differ by at most one sample. Payloads are read when they are asked for.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        rows = self._rows(split, COLUMNS, rank, world)
        layout = get_format(self.summary["format"])
        contents = pc.coalesce(rows.column("content"), rows.column("sample_id"))
        payloads = layout.payloads(rows.column("uri"), contents, self.schema.columns)
        return Shard(rows, payloads, self.schema)

    def sample_ids(self, split: str) -> list[str]:
        """The ids of SPLIT in the manifest's order; equal samples share one."""
        ids: list[str] = self._rows(split, ["sample_id"], 0, 1).column("sample_id").to_pylist()
        return ids

    def _rows(self, split: str, names: list[str], rank: int, world: int) -> pa.Table:
        pieces = list(self._batches(split, names, rank, world))
        if pieces:
            return pa.Table.from_batches(pieces).combine_chunks()
        return pa.table({name: pa.array([], pa.string()) for name in names})

    def _batches(self, split: str, names: list[str], rank: int, world: int) -> Iterator[pa.RecordBatch]:
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}: {', '.join(SPLITS)}")
        start = 0
        for file in self.summary["files"][split]:
            uri, filesystem = f"{self._uri}/{file['name']}", self._store.filesystem
            path = self._store.path(uri)
            try:
                with reached(uri, filesystem), open_to_scan(filesystem, path, ahead_bytes=SCAN_BYTES) as raw:
                    for batch in pq.ParquetFile(raw).iter_batches(columns=names):
                        own = np.arange((rank - start) % world, batch.num_rows, world)
                        start += batch.num_rows
                        yield batch.take(pa.array(own))
            except (FileNotFoundError, pa.ArrowInvalid) as error:
                action = f"remove {self._uri} and run again: it is made anew"
                raise DataInvalid(f"the manifest file {path} is gone or broken", action=action) from error


class Shard(Sequence[Sample]):
    """A worker's share of a split. Pickles without the payloads it has read."""

    def __init__(self, rows: pa.Table, payloads: Payloads, schema: Schema) -> None:
        self._rows, self._payloads, self._schema = rows, payloads, schema

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def __getitem__(self, index: Any) -> Any:
        """The sample at INDEX, with its payload (or a list of them, for a slice).

        Raises:
            DataInvalid: its data is gone or has changed since the split.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return Sample(self.sample_id(index), self._payloads[index], self._labels(index))

    def _labels(self, index: int) -> dict[str, Any]:
        name = self._schema.label
        if name is None:
            return {}
        value = self.label(index)
        return {name: self._payloads.annotation(index, value, self._schema.classes) if name == LABEL else value}

    def __iter__(self) -> Iterator[Sample]:
        return self.samples(range(len(self)))

    def samples(self, indices: Iterable[int]) -> Iterator[Sample]:
        """The samples at INDICES in their order; distant payloads are read ahead. Raises as `__getitem__`."""
        return read_ahead(self.__getitem__, indices) if self._payloads.distant else map(self.__getitem__, indices)

    def sample_id(self, index: int) -> str:
        """The id of the sample at INDEX, without reading its payload."""
        return str(self._rows.column("sample_id")[index].as_py())

    def uri(self, index: int) -> str:
        """Where the sample at INDEX lies."""
        return str(self._rows.column("uri")[index].as_py())

    def label(self, index: int) -> Any:
        """The label of the sample at INDEX as the manifest has it (annotations as text), without its payload."""
        return self._rows.column("label")[index].as_py()

    def labels(self) -> list[Any]:
        """The label of every sample as the manifest has it (annotations as text), without reading payloads."""
        found: list[Any] = self._rows.column("label").to_pylist()
        return found
