"""Where words go: reports to stdout, all else to stderr; with --json exactly one JSON object on stdout, nothing more.

Libraries print as they like, so in JSON mode file descriptor 1 itself is turned to stderr until the object is written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

import typer

SCHEMA_VERSION = 1

RUN_RECORD: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "run_id": None,
    "state": "failed",
    "steps": None,
    "mlflow": None,
    "model": None,
    "metrics": None,
    "gate": None,
    "endpoint": None,
    "error": None,
    "findings": None,
}


def run_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run's RECORD with its keys in the order of the contract."""
    return {**RUN_RECORD, **record}


class Output:
    """One command's standard streams: for people until `begin_json`."""

    def __init__(self) -> None:
        self.as_json = False
        self.reported = False  # whether the command's result has been said
        self._descriptor: int | None = None

    def begin_json(self) -> None:
        """From now on stdout is for the one JSON object only."""
        if not self.as_json:
            self.as_json = True
            sys.stdout.flush()
            self._descriptor = os.dup(1)
            os.dup2(2, 1)
            sys.stdout = sys.stderr

    @property
    def people(self) -> TextIO:
        """Where a person reads what goes on."""
        return sys.stderr if self.as_json else sys.stdout

    def report(self, record: dict[str, Any], render: Callable[[], str]) -> None:
        """Say the command's result: RECORD for a program, what RENDER gives for a person."""
        self.reported = True
        if self.as_json:
            self.write_json(record)
        else:
            self.line(render())

    def write_json(self, record: dict[str, Any]) -> None:
        """Write the one JSON object of this command."""
        assert self._descriptor is not None
        self.reported = True
        text = json.dumps({"schema_version": SCHEMA_VERSION, **record}, indent=2, ensure_ascii=False, default=str)
        with os.fdopen(self._descriptor, "w", encoding="utf-8") as stream:
            stream.write(text + "\n")
        self._descriptor = None

    def line(self, text: str) -> None:
        """A line for whoever reads."""
        print(text, file=self.people, flush=True)

    def tell(self, text: str) -> None:
        """A line on what is going on, beside the result."""
        print(text, file=sys.stderr, flush=True)


def begin(context: typer.Context, as_json: bool) -> Output:
    """The output of the command that CONTEXT runs."""
    output: Output = context.obj
    if as_json:
        output.begin_json()
    return output


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """ROWS under HEADER in aligned columns; numbers to the right, None as a dash."""
    body = [["-" if cell is None else _cell(cell) for cell in row] for row in rows]
    numeric = [all(row[i] == "-" or _is_number(row[i]) for row in body) for i in range(len(header))]
    widths = [
        max(len(header[i]), *(len(row[i]) for row in body)) if body else len(header[i]) for i in range(len(header))
    ]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ).rstrip()

    return "\n".join([line([title.upper() for title in header]), *(line(row) for row in body)])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return str(value)


def number(value: float) -> str:
    """A metric as people read it: four significant digits."""
    return f"{value:.4g}"


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace(",", "").lstrip("-").isdigit()


def size(count: float | None) -> str:
    """COUNT bytes with a unit."""
    if count is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def seconds(value: float | None) -> str:
    """A length of time as people read it."""
    if value is None:
        return ""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
