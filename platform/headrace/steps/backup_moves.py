"""Where things are after a restore: addresses that begin with an old place begin with the new one.

Only whole addresses are changed, never words inside a text: a value is an address of OLD if it is OLD or goes on with a
slash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.base.errors import InvalidInput

# Columns of MLflow's tables that hold addresses. Of tables of tags every value is looked at.
LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "workspaces": ("default_artifact_root", "trace_archival_location"),
}
TAG_VALUES = ("value", "tag_value")


@dataclass(frozen=True)
class Moves:
    """Old places and their new ones."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Moves:
        """The moves of PAIRS: of two of one old place the first counts, and a longer place goes before a shorter one.

        Two folders of a disk are also known as file:// URLs.
        """
        found: dict[str, str] = {}
        for old, new in pairs:
            old, new = old.rstrip("/"), new.rstrip("/")
            found.setdefault(old, new)
            if old.startswith("/") and new.startswith("/"):
                found.setdefault(f"file://{old}", f"file://{new}")
        changed = {old: new for old, new in found.items() if old and old != new}
        return cls(tuple(sorted(changed.items(), key=lambda pair: -len(pair[0]))))

    def text(self, value: str) -> str:
        """VALUE, moved if it is an address of an old place."""
        for old, new in self.pairs:
            if value == old or value.startswith(f"{old}/"):
                return new + value[len(old) :]
        return value

    def value(self, value: Any) -> Any:
        """A JSON value with every address in it moved."""
        if not self.pairs:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(inner) for key, inner in value.items()}
        return [self.value(inner) for inner in value] if isinstance(value, list) else value

    def columns(self, table: str, columns: Iterable[str]) -> list[int]:
        """The positions in a row of TABLE that are to be looked at."""
        named = LOCATIONS.get(table, TAG_VALUES if table.endswith("tags") else ())
        return [place for place, column in enumerate(columns) if column in named] if self.pairs else []


def parse_pairs(texts: Iterable[str]) -> list[tuple[str, str]]:
    """`OLD=NEW` as people write it. Raises InvalidInput."""
    pairs = []
    for text in texts:
        old, separator, new = text.partition("=")
        if not separator or not old or not new:
            raise InvalidInput(
                f"{text!r} says no two places",
                action="write --map-store OLD=NEW, as --map-store s3://old/store=s3://new/store",
            )
        pairs.append((old, new))
    return pairs
