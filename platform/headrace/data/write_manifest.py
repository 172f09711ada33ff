"""Writes a manifest: Parquet files of bounded size for each split, and at last `split.json`, which makes it one.

    splits/<fingerprint>/split.json                what was split, how, and what was found on the way
    splits/<fingerprint>/train-00000.parquet ...   one row a sample

Columns: `sample_id`, `uri` (or `file#row`), `label` (split.json says its name), `split`, and `content`, the hex digest,
null where it is the sample's id (a digest does not compress; ten million rows twice are 640 MB).
The fingerprint covers the format, the parameters, the source's address and every row, but no time stamp: the same data
at the same place gives the same fingerprint. The address counts because a manifest refers to data and never copies it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.base.errors import DataInvalid, Finding
from headrace.base.jsonfile import sha256_of
from headrace.data import digest
from headrace.data.annotations import names_in
from headrace.data.formats import Report
from headrace.data.rows import Rows
from headrace.data.strategies import SPLITS, Sides

MANIFEST_VERSION = 1
MARKER = "split.json"
ROWS_A_FILE = 1 << 20
MOST_CLASSES = 10_000
COMPRESSION = {"sample_id": "none", "uri": "snappy", "label": "snappy", "split": "snappy", "content": "none"}


class ManifestWriter:
    """Takes batches of rows with their sides and writes them to a local FOLDER; memory does not grow with rows."""

    def __init__(self, folder: Path, report: Report, label_kind: str) -> None:
        self._folder, self._report, self._label_kind = folder, report, label_kind
        self._open: dict[str, pq.ParquetWriter] = {}
        self._digests = {name: hashlib.sha256() for name in ("content", "label", "side", "file", "row", "id")}
        self._schema = _schema_of(label_kind)
        self._repeating = ["split"] if label_kind == "annotation" else ["label", "split"]
        self.files: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
        self.classes: Counter[tuple[str, str]] = Counter()  # (class, split) to samples, or objects of annotated ones
        self.without_objects: Counter[str] = Counter()  # split to annotated samples that hold none
        self._known: set[str] = set()

    def write(self, rows: Rows, sides: Sides) -> None:
        """Write one batch."""
        self._count(rows, sides)
        self._digest(rows, sides)
        for number, split in enumerate(SPLITS):
            places = np.flatnonzero(sides == number)
            if len(places):
                part = rows if len(places) == len(rows) else rows.take(places)
                self._append(split, pa.record_batch(self._columns(part, split), schema=self._schema))

    def close(self) -> None:
        """Finish the open files."""
        for writer in self._open.values():
            writer.close()
        self._open.clear()

    def rows_digest(self) -> str:
        """Hex sha256 over all rows in their order."""
        return sha256_of(
            {name: value.hexdigest() for name, value in self._digests.items()} | {"paths": self._report.paths}
        )

    def counts(self) -> dict[str, int]:
        """Samples by split."""
        return {split: sum(file["rows"] for file in files) for split, files in self.files.items()}

    def _columns(self, rows: Rows, split: str) -> list[pa.Array]:
        content = digest.hexadecimal(rows.content)
        files, at = np.unique(rows.file, return_inverse=True)
        uris = pa.array([self._report.uris[file] for file in files.tolist()], pa.string()).take(pa.array(at))
        if rows.row is not None:
            uris = pc.binary_join_element_wise(uris, pc.cast(pa.array(rows.row), pa.string()), "#")
        splits = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int8)), pa.array([split]))
        if rows.id is None:
            return [content, uris, rows.label, splits, pa.nulls(len(rows), pa.string())]
        return [rows.id, uris, rows.label, splits, content]

    def _append(self, split: str, batch: pa.RecordBatch) -> None:
        files = self.files[split]
        if split not in self._open:
            files.append({"name": f"{split}-{len(files):05d}.parquet", "rows": 0})
            path = self._folder / files[-1]["name"]
            self._open[split] = pq.ParquetWriter(
                path, self._schema, compression=COMPRESSION, use_dictionary=self._repeating, write_statistics=False
            )
        self._open[split].write_batch(batch)
        files[-1]["rows"] += batch.num_rows
        if files[-1]["rows"] >= ROWS_A_FILE:
            self._open.pop(split).close()

    def _count(self, rows: Rows, sides: Sides) -> None:
        if self._label_kind == "number":
            return
        labels, sides = (rows.label, sides) if self._label_kind == "class" else self._objects(rows, sides)
        encoded = labels.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        self._known.update(names)
        if len(self._known) > MOST_CLASSES:
            label = self._report.label
            finding = Finding("data.label", str(label), f"at most {MOST_CLASSES:,} classes", "is it a number or an id?")
            action = "if it is a number: task: tabular-regression; else name another column as data.label"
            raise DataInvalid(f"label {label} has more than {MOST_CLASSES:,} values", action=action, findings=[finding])
        joint = encoded.indices.to_numpy().astype(np.int64) * len(SPLITS) + sides
        counted = np.bincount(joint, minlength=len(names) * len(SPLITS)).reshape(-1, len(SPLITS))
        for code, number in zip(*np.nonzero(counted), strict=True):
            self.classes[names[code], SPLITS[number]] += int(counted[code, number])

    def _objects(self, rows: Rows, sides: Sides) -> tuple[pa.Array, Sides]:
        """The class of every object in annotated ROWS, and its side; counts those that hold none."""
        names = [names_in(text) for text in rows.label.to_pylist()]
        empty = [number for number, found in zip(sides.tolist(), names, strict=True) if not found]
        self.without_objects.update(SPLITS[number] for number in empty)
        flat = pa.array([name for found in names for name in found], pa.string())
        return flat, np.repeat(sides, [len(found) for found in names])

    def _digest(self, rows: Rows, sides: Sides) -> None:
        label = rows.label.to_numpy() if self._label_kind == "number" else digest.of_texts(rows.label)
        parts = {"content": rows.content, "label": label, "side": sides, "file": rows.file}
        if rows.row is not None:
            parts["row"] = rows.row
        if rows.id is not None:
            parts["id"] = digest.of_texts(rows.id)
        for name, values in parts.items():
            self._digests[name].update(np.ascontiguousarray(values).tobytes())


def _schema_of(label_kind: str) -> pa.Schema:
    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("uri", pa.string()),
            ("label", pa.float64() if label_kind == "number" else pa.string()),
            ("split", pa.dictionary(pa.int8(), pa.string())),
            ("content", pa.string()),
        ]
    )


def ordered_classes(names: Sequence[str]) -> list[str]:
    """Class names in their order: as numbers if all are whole numbers, else as text."""
    if all(name.lstrip("-").isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def classes_by_split(classes: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Samples by class and split."""
    names = ordered_classes(sorted({name for name, _ in classes}))
    return {name: {split: classes.get((name, split), 0) for split in SPLITS} for name in names}
