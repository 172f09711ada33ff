"""Samples by the batch, column by column: what formats give and splitting works on.

Compact on purpose: a file's name is an index and a digest is bytes, so that ten million samples dealt out in memory
are half a gigabyte and not five.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.data.digest import Bytes

FIELDS = ("file", "row", "content", "label", "id", "group", "time")


@dataclass(frozen=True)
class Rows:
    """A batch of usable samples.

    `file` indexes `Report.uris`; `row` counts a table's data rows from 0 (as pandas' `iloc`) and is None where a file
    is one sample. `content` are digests; `label` are strings or float64; `id` and `group` are strings; `time` is a
    number that orders.
    """

    file: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64] | None
    content: Bytes
    label: pa.Array
    id: pa.Array | None = None
    group: pa.Array | None = None
    time: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.file)

    def take(self, places: npt.NDArray[np.intp]) -> Rows:
        """The rows at PLACES, in their order."""

        def of(values: Any) -> Any:
            if values is None or isinstance(values, np.ndarray):
                return None if values is None else values[places]
            return values.take(pa.array(places))

        return Rows(*(of(getattr(self, name)) for name in FIELDS))

    @classmethod
    def joined(cls, batches: Sequence[Rows]) -> Rows:
        """All BATCHES as one; they have the same columns. At least one."""

        def of(pieces: list[Any]) -> Any:
            if pieces[0] is None:
                return None
            return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else pa.concat_arrays(pieces)

        return cls(*(of([getattr(batch, name) for batch in batches]) for name in FIELDS))
