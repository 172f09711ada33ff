"""`headrace predict`: what a model says, as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.cli.output import number, table

MOST_ITEMS = 4  # of a list in a cell


def render_predictions(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a file or row."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    return table(header, [[_cell(row.get(key)) for key in header] for row in rows])


def _cell(value: object) -> object:
    if isinstance(value, (list, tuple)):
        shown = [number(item) if isinstance(item, float) else str(item) for item in value[:MOST_ITEMS]]
        return f"[{', '.join([*shown, *(['...'] if len(value) > MOST_ITEMS else [])])}]"
    return value


def render_batch(record: Mapping[str, Any]) -> str:
    """What a batch came to."""
    version = f"{record['model']} version {record['version']}" if record["model"] else "the model"
    errors = f", {record['errors']:,} of them with an error" if record["errors"] else ""
    return f"{version} predicted {record['rows']:,} rows{errors} in {record['seconds']:.1f} s: {record['output']}"
