"""Data: sources, formats, splitting, manifests and what a worker reads of them.

Names are imported when they are used: a plan on the base install fingerprints a source without pyarrow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.base.errors import MissingExtra

if TYPE_CHECKING:
    from headrace.data.describe import describe_source
    from headrace.data.manifest import Manifest, Shard
    from headrace.data.source import fingerprint_source
    from headrace.data.split import SplitResult, split_data
    from headrace.data.verdicts import classes_table, findings_of

_HOMES = {
    "Manifest": "manifest",
    "Shard": "manifest",
    "SplitResult": "split",
    "classes_table": "verdicts",
    "describe_source": "describe",
    "findings_of": "verdicts",
    "fingerprint_source": "source",
    "split_data": "split",
}

__all__ = [
    "Manifest",
    "Shard",
    "SplitResult",
    "classes_table",
    "describe_source",
    "findings_of",
    "fingerprint_source",
    "split_data",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in ("numpy", "pyarrow"):
            raise MissingExtra("train", "reading and splitting data") from error
        raise
