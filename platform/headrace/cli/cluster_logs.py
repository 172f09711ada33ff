"""The output of a run on a cluster: what its pods printed where that can be had from here, else what its steps told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.cli.output import Output
from headrace.cli.progress import RunView

if TYPE_CHECKING:
    from headrace_pipelines.kubeflow.run import ClusterRun


def print_logs(run: ClusterRun, output: Output) -> None:
    """Print what there is."""
    there = False
    for text in run.logs(output.tell):
        there = True
        output.line(text.rstrip("\n"))
    if there:
        return
    output.tell("no pod and no log artifact can be read from here; this is what the steps told (docs/kubeflow.md)")
    view = RunView()
    for event in run.events():
        if (line := view.take(event)) is not None:
            output.line(f"{time.strftime('%H:%M:%S', time.localtime(float(event.get('time') or 0)))}  {line}")


def print_until_over(run: ClusterRun, output: Output) -> None:
    """Print what the steps tell until the run has ended, then what its pods printed."""
    view = RunView()
    for event in run.follow():
        if (line := view.take(event)) is not None:
            output.line(f"{time.strftime('%H:%M:%S')}  {line}")
    for text in run.logs(output.tell):
        output.line(text.rstrip("\n"))
