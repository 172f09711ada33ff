"""A package as an MLflow model: `loader_module` of `mlflow.pyfunc.log_model`, so that no pickle is written.

`mlflow.pyfunc.load_model` and `mlflow models serve` call `_load_pyfunc`; the answers are those of the endpoint, column
by column. mlflow itself is not imported here: `mlflow_columns` says in plain values what its signature must be.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace_models.package.load import LoadedModel, load_package
from headrace_models.tasks.base import Arrays, BadInput, TensorSpec

if TYPE_CHECKING:
    import pandas as pd


class PyfuncModel:
    """What MLflow calls: a table of inputs to a table of outputs."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """One row of outputs for each row of MODEL_INPUT, a DataFrame or a mapping of column to values.

        Encoded pictures are bytes, or base64 text as JSON carries them. `probabilities` holds a list in each row.

        Raises:
            BadInput: a column is missing or cannot be decoded.
        """
        import pandas as pd

        outputs = self.loaded.predict(self._arrays(model_input))
        index = model_input.index if isinstance(model_input, pd.DataFrame) else None
        return pd.DataFrame({name: array.tolist() for name, array in outputs.items()}, index=index)

    def _arrays(self, model_input: Any) -> Arrays:
        specs = self.loaded.signature.inputs
        missing = [spec.name for spec in specs if spec.name not in model_input]
        if missing:
            raise BadInput(f"the column {missing[0]!r} is missing; wanted: {', '.join(spec.name for spec in specs)}")
        return {spec.name: _array(spec, model_input[spec.name]) for spec in specs}


def _array(spec: TensorSpec, values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray) and values.dtype != object and values.ndim > 1:
        return values  # raw pixels: one of the signature's alternatives
    rows = list(values)
    if spec.datatype != "BYTES":
        return np.array([np.nan if _is_missing(value) else value for value in rows], dtype=np.float64)
    array = np.empty(len(rows), dtype=object)
    array[:] = [_encoded(value) if spec.content == "image" else _text(value) for value in rows]
    return array


def _is_missing(value: Any) -> bool:
    return value is None or value != value or type(value).__name__ in ("NAType", "NaTType")


def _text(value: Any) -> Any:
    return None if _is_missing(value) else value


def _encoded(value: Any) -> Any:
    if not isinstance(value, str):
        return bytes(value) if isinstance(value, (bytearray, memoryview)) else value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("a picture given as text must be base64") from None


def _load_pyfunc(data_path: str) -> PyfuncModel:
    """Called by MLflow with the package's folder."""
    return PyfuncModel(load_package(data_path))
