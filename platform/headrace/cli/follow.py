"""Following a run: a live table for people, plain lines for pipes, and Ctrl-C that cancels it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from headrace.base.errors import HeadraceError
from headrace.cli.output import Output, run_record
from headrace.cli.progress import RunView
from headrace.cli.run_report import render_end


class Followed(Protocol):
    """A run, here or on a cluster."""

    run_id: str

    def follow(self) -> Iterator[Mapping[str, Any]]:
        """What it tells until it has ended."""

    def status(self) -> dict[str, Any]:
        """Its record."""

    def exit_code(self) -> int | None:
        """The exit code that it ended with."""

    def cancel(self) -> dict[str, Any]:
        """End it."""


class Screen(Protocol):
    """Where what happens is shown."""

    def line(self, text: str) -> None:
        """Something that happened, in one line."""


class Lines:
    """Plain lines, for pipes and files."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def line(self, text: str) -> None:
        """Print it."""
        self._output.line(f"{time.strftime('%H:%M:%S')}  {text}")


class Table:
    """The live table says it all; single lines would only scroll it away."""

    def line(self, text: str) -> None:
        """Say nothing."""


@contextmanager
def screen(output: Output, view: RunView, title: str) -> Iterator[Screen]:
    """Draw VIEW for the length of the block: alive on a terminal, as lines elsewhere."""
    if not output.people.isatty():
        yield Lines(output)
        return
    from headrace.cli.live import live_table

    with live_table(view, title, output.people):
        yield Table()


def follow(run: Followed, output: Output) -> int:
    """Show RUN until it has ended and report it; its exit code. Ctrl-C cancels the run, a second one only this."""
    try:
        return _follow(run, output)
    except HeadraceError as error:  # its server is away: the run goes on, and whoever waits for the JSON gets its id
        return _report_lost(run, output, error)


def _follow(run: Followed, output: Output) -> int:
    view = RunView()
    try:
        with screen(output, view, run.run_id) as shown:
            for event in run.follow():
                line = view.take(event)
                if line is not None:
                    shown.line(line)
    except KeyboardInterrupt:
        output.tell(f"cancelling {run.run_id} (Ctrl-C again leaves it to end by itself) ...")
        try:
            run.cancel()
        except KeyboardInterrupt:
            output.tell(f"left alone; `headrace status {run.run_id}` shows how it ended")
            return 130
    record = run.status()
    output.report(run_record(record), lambda: render_end(record))
    tell_failure(record)
    code = run.exit_code()
    return 1 if code is None else code


def _report_lost(run: Followed, output: Output, error: HeadraceError) -> int:
    from headrace.cli.failure import error_record

    record = run_record({"run_id": run.run_id, "state": "running", **error_record(error, None)})
    output.report(record, lambda: f"run {run.run_id} can be followed no more; headrace status {run.run_id} tells")
    tell_failure(record)
    return error.exit_code


def tell_failure(record: dict[str, Any]) -> None:
    """On stderr: why the run did not succeed."""
    from headrace.cli.failure import lines

    if record.get("error"):
        for line in lines(record):
            print(line, file=sys.stderr, flush=True)
