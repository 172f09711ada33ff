"""The run spec: read, overridden, judged whole, and brought to the one canonical form that everything else uses.

Names are imported when they are used: a step that only needs the gate's arithmetic does not import pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.spec.load import load_spec
    from headrace.spec.model import RunSpec

__all__ = ["RunSpec", "load_spec"]

_HOMES = {"RunSpec": "model", "load_spec": "load"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
