"""Named arrays as JSON: how a package keeps its example request. BYTES are base64, for they may hold a picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from headrace_models.tasks.base import Arrays


def to_record(arrays: Arrays) -> dict[str, Any]:
    """ARRAYS as plain JSON values."""
    return {name: _one(array) for name, array in arrays.items()}


def _one(array: np.ndarray) -> dict[str, Any]:
    if array.dtype == object:
        values = [v if isinstance(v, bytes) else str(v).encode() for v in array.ravel()]
        data: list[Any] = [base64.b64encode(value).decode() for value in values]
        return {"dtype": "bytes", "shape": list(array.shape), "data": data}
    data = [None if value != value else value for value in array.ravel().tolist()]  # JSON has no NaN
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def from_record(record: Mapping[str, Any]) -> Arrays:
    """The inverse of `to_record`."""
    arrays: Arrays = {}
    for name, part in record.items():
        if part["dtype"] == "bytes":
            array = np.empty(len(part["data"]), dtype=object)
            array[:] = [base64.b64decode(text) for text in part["data"]]
        else:
            array = np.array([np.nan if v is None else v for v in part["data"]], dtype=part["dtype"])
        arrays[name] = array.reshape(part["shape"])
    return arrays
