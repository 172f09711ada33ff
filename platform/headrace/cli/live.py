"""The live table of a run: steps with their times, epoch progress, the metrics as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from headrace.cli.output import number, seconds
from headrace.cli.progress import RunView, StepView

MARKS = {
    "pending": ("·", "dim"),
    "succeeded": ("✓", "green"),
    "cached": ("=", "cyan"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
}
REFRESH_PER_SECOND = 8
MOST_FINDINGS = 8


@contextmanager
def live_table(view: RunView, title: str, stream: TextIO) -> Iterator[None]:
    """Keep VIEW drawn on STREAM for the length of the block; the last picture stays."""
    console = Console(file=stream, highlight=False)
    spinner = Spinner("dots", style="bold")
    with Live(
        get_renderable=lambda: render(view, title, time.time(), spinner),
        console=console,
        refresh_per_second=REFRESH_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def render(view: RunView, title: str, now: float, spinner: Spinner) -> RenderableType:
    """The picture of VIEW at NOW (seconds since 1970)."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=1)
    grid.add_column(width=9)
    grid.add_column(justify="right", width=9)
    grid.add_column(overflow="ellipsis", no_wrap=True)
    for step in view.steps.values():
        mark: RenderableType = spinner
        if step.state in MARKS:
            sign, style = MARKS[step.state]
            mark = Text(sign, style=style)
        style = "dim" if step.state in {"pending", "skipped"} else ""
        grid.add_row(mark, Text(step.name, style=style), seconds(step.elapsed(now)), _detail(view, step))
    note = Text(f"  {view.note}", style="dim")
    parts: list[RenderableType] = [Text(title, style="bold").append_text(note), grid]
    if view.metrics:
        values = "  ".join(f"{name} {number(value)}" for name, value in view.metrics.items())
        parts.append(Text(f"   epoch {view.metrics_epoch}  {values}", style="dim", overflow="ellipsis", no_wrap=True))
    parts += [Text(f"   {finding}", style="yellow") for finding in view.findings[:MOST_FINDINGS]]
    if (more := len(view.findings) - MOST_FINDINGS) > 0:
        parts.append(Text(f"   ... and {more} more: headrace logs names them", style="yellow"))
    return Group(*parts)


def _detail(view: RunView, step: StepView) -> RenderableType:
    if step.state == "running" and step.name == "train" and view.epochs and not step.waiting:
        bar = Table.grid(padding=(0, 1))
        label = f"epoch {view.epoch}/{view.epochs}  {view.phase}"
        bar.add_row(ProgressBar(total=1.0, completed=view.share, width=24), Text(label))
        return bar
    style = "yellow" if step.waiting else "red" if step.state == "failed" else "dim"
    return Text(step.text if step.state != "cached" else step.text or "cached", style=style)
