"""Data: sources, formats, splitting, manifests and what a worker reads of them.

Names are imported when they are used: a plan on the base install fingerprints a source without pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.base.errors import MissingExtra
from headrace.base.late import late_names

if TYPE_CHECKING:
    from headrace.data.describe import describe_source
    from headrace.data.manifest import Manifest, Shard
    from headrace.data.source import fingerprint_source
    from headrace.data.split import SplitResult, split_data
    from headrace.data.verdicts import classes_table, findings_of

_late = late_names(
    __name__,
    {
        "Manifest": "manifest",
        "Shard": "manifest",
        "SplitResult": "split",
        "classes_table": "verdicts",
        "describe_source": "describe",
        "findings_of": "verdicts",
        "fingerprint_source": "source",
        "split_data": "split",
    },
)

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
    try:
        return _late(name)
    except ModuleNotFoundError as error:
        if error.name in ("numpy", "pyarrow"):
            raise MissingExtra("train", "reading and splitting data") from error
        raise
