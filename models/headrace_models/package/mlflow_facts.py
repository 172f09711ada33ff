"""A signature as the columns of a table, for MLflow's page of a model. This module needs neither torch nor mlflow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from headrace_models.tasks.base import Signature, TensorSpec


class Column(TypedDict):
    """One column: `type` is an MLflow data type (binary, string, double), `array` marks a list of them in each row."""

    name: str
    type: str
    array: bool


def mlflow_columns(signature: Signature) -> dict[str, list[Column]]:
    """The columns of `inputs` and `outputs` that the package's pyfunc takes and gives."""
    return {"inputs": _columns(signature.inputs), "outputs": _columns(signature.outputs)}


def _columns(specs: Iterable[TensorSpec]) -> list[Column]:
    return [{"name": spec.name, "type": _type(spec), "array": len(spec.shape) > 1} for spec in specs]


def _type(spec: TensorSpec) -> str:
    if spec.datatype == "BYTES":
        return "string" if spec.content == "text" else "binary"
    return "double"
