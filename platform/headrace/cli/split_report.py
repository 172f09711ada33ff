"""`headrace split`: a table of classes by split, and what was found on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.base.errors import Finding
from headrace.cli.output import table

HEADER = ("class", "train", "validation", "test")
MOST_FINDINGS = 20


def render_split(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], findings: Sequence[Finding]) -> str:
    """The split as a table, its fingerprint, and the first findings."""
    told = [table(HEADER, [[row.get(key, 0) for key in HEADER] for row in rows]), ""]
    told.append(f"{summary['samples']:,} samples, split {summary['fingerprint'][:12]}")
    told += [f"note: {finding}" for finding in findings[:MOST_FINDINGS]]
    if len(findings) > MOST_FINDINGS:
        told.append(f"... and {len(findings) - MOST_FINDINGS} more (--json has all)")
    return "\n".join(told)
