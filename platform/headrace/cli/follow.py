"""Following a run: a live table for people, plain lines for pipes, and Ctrl-C that cancels it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from headrace.cli.output import Output, run_record
from headrace.cli.progress import RunView
from headrace.cli.run_report import render_end

if TYPE_CHECKING:
    from headrace.local.runs import LocalRun


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


def follow(run: LocalRun, output: Output) -> int:
    """Show RUN until it has ended and report it; its exit code. Ctrl-C cancels the run, a second one only this."""
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


def tell_failure(record: dict[str, Any]) -> None:
    """On stderr: why the run did not succeed."""
    from headrace.cli.failure import lines

    if record.get("error"):
        for line in lines(record):
            print(line, file=sys.stderr, flush=True)
