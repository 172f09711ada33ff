"""What a backup says of itself: its manifest, written last, so that a folder without one is no backup.

Names are UTC times, which sort by age. The manifest holds the hash of every other file of the backup, the list of
files holds the hash of every file that was kept, and the manifest has a hash of its own: damage anywhere is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from headrace.base.errors import InvalidInput
from headrace.base.jsonfile import sha256_of

FORMAT = 1
FILE = "manifest.json"
# Counts that people are told, and the tables that they are of.
TABLES = {
    "runs": "runs",
    "models": "registered_models",
    "versions": "model_versions",
    "aliases": "registered_model_aliases",
}
NAME = re.compile(r"\d{8}T\d{6}Z")


class Part(StrEnum):
    """What a backup may hold."""

    mlflow = "mlflow"
    files = "files"
    resources = "resources"


class Artifacts(StrEnum):
    """Which of the stores' files are kept, beside the index of all of them."""

    registered = "registered"
    all = "all"
    none = "none"


class Existing(StrEnum):
    """What becomes of what is in a target already."""

    refuse = "refuse"
    keep = "keep"
    overwrite = "overwrite"


@dataclass(frozen=True)
class PartFile:
    """One file of the backup itself."""

    bytes: int
    sha256: str
    lines: int


@dataclass(frozen=True)
class Manifest:
    """One whole backup. `roots` are the places that its files come from; `notes` is what a person should know of it."""

    name: str
    headrace: str
    artifacts: Artifacts
    roots: Mapping[str, str]
    mlflow_server: str | None = None
    mlflow: Mapping[str, Any] | None = None  # version, revision, dialect, columns by table
    counts: Mapping[str, int] = field(default_factory=dict)
    kept_bytes: int = 0
    new_bytes: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    parts: Mapping[str, PartFile] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values, with a hash over them."""
        record = {**asdict(self), "artifacts": self.artifacts.value, "notes": list(self.notes), "format": FORMAT}
        return {**record, "sha256": sha256_of(record)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], where: str) -> Manifest:
        """The inverse of `to_record`. Raises InvalidInput for one that was damaged, or of a newer Headrace."""
        known = {key: value for key, value in record.items() if key != "sha256"}
        if known.get("format") != FORMAT:
            raise InvalidInput(
                f"{where} is of format {known.get('format')}, this Headrace reads {FORMAT}",
                action="restore with the Headrace that made it, or a newer one",
                code="backup-newer",
            )
        if record.get("sha256") != sha256_of(known):
            raise damaged(where)
        del known["format"]
        parts = {path: PartFile(**part) for path, part in known.pop("parts").items()}
        words = {"artifacts": Artifacts(known["artifacts"]), "notes": tuple(known["notes"])}
        return cls(**{**known, **words, "parts": parts})

    @property
    def created(self) -> datetime:
        """When it was begun."""
        return datetime.strptime(self.name, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def summary(manifest: Manifest) -> dict[str, Any]:
    """What a report says of a backup."""
    return {
        "name": manifest.name,
        "artifacts": manifest.artifacts.value,
        "counts": dict(manifest.counts),
        "bytes": manifest.kept_bytes,
        "new_bytes": manifest.new_bytes,
        "seconds": manifest.seconds,
        "notes": list(manifest.notes),
    }


def damaged(where: str) -> InvalidInput:
    """The error of a file that is not what was written."""
    return InvalidInput(
        f"{where} is damaged: its bytes are not those that were written",
        action="restore another backup, or this one from a copy; headrace backup --verify makes a new one, and keeps "
        "what is damaged anew",
        code="backup-damaged",
    )


def new_name(now: datetime) -> str:
    """The name of a backup that begins NOW."""
    return now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def to_remove(names: Sequence[str], keep: int) -> list[str]:
    """Of the whole backups NAMES, those that are older than the newest KEEP."""
    return sorted(names)[:-keep] if keep > 0 else []
