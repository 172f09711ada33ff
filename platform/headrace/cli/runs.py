"""Commands on runs: each finds the run's files and shows, ends or continues what they tell of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import Detach, Json, On, Run, Set, Spec
from headrace.cli.output import Output, begin, run_record

if TYPE_CHECKING:
    from headrace.local.runs import LocalRun

FOLLOW_SECONDS = 0.2  # between looks at a log that is being written


def register(app: typer.Typer) -> None:
    """Add these commands to APP."""
    for command in (run, status, logs, cancel, resume, runs):
        app.command(command.__name__)(command)


def run(
    context: typer.Context,
    spec: Spec,
    on: On = "local",
    set_: Set = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Look nothing up: split and train anew.")] = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Split, train, register and deploy as SPEC says.

    Shows how it goes. Ctrl-C cancels the run, which can be resumed; a killed `headrace run` leaves the run going.
    """
    from headrace.local.ray_head import find_head
    from headrace.local.resources import check_resources
    from headrace.local.runs import LocalRun, create_run, start_runner
    from headrace.spec import load_spec
    from headrace.spec.targets import require_target

    output = begin(context, as_json)
    loaded = load_spec(spec, set_ or (), target=require_target(on))
    check_resources(loaded.to_record(), find_head())  # at once, before a runner has imported anything
    run_id = create_run(loaded, no_cache=no_cache, spec_file=spec)
    start_runner(run_id)
    _go_on(output, LocalRun(run_id), detach=detach)


def status(context: typer.Context, run: Run, as_json: Json = False) -> None:
    """Show how a run stands."""
    from headrace.cli.follow import tell_failure
    from headrace.cli.run_report import render_status
    from headrace.local.runs import LocalRun

    output = begin(context, as_json)
    record = LocalRun(run).status()
    output.report(run_record(record), lambda: render_status(record))
    tell_failure(record)


def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
) -> None:
    """Print the output of a run's processes."""
    from headrace.local.runs import LocalRun

    found = LocalRun(run)
    path = found.folder / "log"
    position = 0
    while True:
        over = not follow or found.exit_code() is not None
        if path.exists():
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(position)
                typer.echo(file.read(), nl=False)
                position = file.tell()
        if over:
            return
        time.sleep(FOLLOW_SECONDS)


def cancel(context: typer.Context, run: Run, as_json: Json = False) -> None:
    """End a run cleanly. It can be resumed."""
    from headrace.cli.run_report import render_end
    from headrace.local.runs import LocalRun

    output = begin(context, as_json)
    record = LocalRun(run).cancel()
    resumable = f"\nnext  headrace resume {run}" if record["state"] == "cancelled" else ""
    output.report(run_record(record), lambda: render_end(record) + resumable)


def resume(context: typer.Context, run: Run, detach: Detach = False, as_json: Json = False) -> None:
    """Go on with a run where it was, or follow it."""
    from headrace.local.runs import LocalRun

    output = begin(context, as_json)
    found = LocalRun(run)
    found.resume()
    _go_on(output, found, detach=detach)


def runs(context: typer.Context, as_json: Json = False) -> None:
    """List the runs of this machine, newest first."""
    from headrace.cli.output import table
    from headrace.cli.run_report import run_row
    from headrace.local.runs import list_runs

    output = begin(context, as_json)
    found = [(run.status(), run.request["created"], run.request["name"]) for run in list_runs()]
    records = [{**run_record(record), "created": created, "name": name} for record, created, name in found]
    header = ("run", "state", "created (UTC)", "metric", "model", "endpoint")
    output.report(
        {"runs": records},
        lambda: (
            table(header, [run_row(record, created) for record, created, _ in found])
            if found
            else "no runs yet: headrace run SPEC"
        ),
    )


def _go_on(output: Output, run: LocalRun, *, detach: bool) -> None:
    from headrace.cli.follow import follow
    from headrace.cli.run_report import render_end

    if not detach:
        raise typer.Exit(follow(run, output))
    record = run.status()
    output.report(run_record(record), lambda: f"{render_end(record)}\nnext  headrace status {run.run_id}")
