"""Commands on runs: each finds the run, here or on a target, and shows, ends or continues it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import Detach, Json, On, Run, Set, Spec, Where
from headrace.cli.output import Output, begin, run_record

if TYPE_CHECKING:
    from headrace.cli.follow import Followed

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
    from headrace.spec import load_spec
    from headrace.spec.targets import require_target
    from headrace_pipelines.sites import start

    output = begin(context, as_json)
    loaded = load_spec(spec, set_ or (), target=require_target(on))
    _go_on(output, start(loaded, on, no_cache=no_cache, spec_file=spec), detach=detach)


def status(context: typer.Context, run: Run, on: Where = None, as_json: Json = False) -> None:
    """Show how a run stands."""
    from headrace.cli.follow import tell_failure
    from headrace.cli.run_report import render_status
    from headrace_pipelines.sites import find_run

    output = begin(context, as_json)
    record = find_run(run, on).status()
    output.report(run_record(record), lambda: render_status(record))
    tell_failure(record)


def logs(
    context: typer.Context,
    run: Run,
    on: Where = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
) -> None:
    """Print the output of a run's processes.

    Of a run on a cluster: its pods' logs by the target's kubeconfig, else Kubeflow's log artifacts by its
    pipeline_root, else what its steps told.
    """
    from headrace.local.runs import LocalRun
    from headrace_pipelines.sites import find_run

    found = find_run(run, on)
    if not isinstance(found, LocalRun):
        from headrace.cli.cluster_logs import print_logs, print_until_over

        (print_until_over if follow else print_logs)(found, begin(context, as_json=False))
        return
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


def cancel(context: typer.Context, run: Run, on: Where = None, as_json: Json = False) -> None:
    """End a run cleanly. It can be resumed."""
    from headrace.cli.run_report import render_end
    from headrace_pipelines.sites import find_run

    output = begin(context, as_json)
    record = find_run(run, on).cancel()
    resumable = f"\nnext  headrace resume {run}" if record["state"] == "cancelled" else ""
    output.report(run_record(record), lambda: render_end(record) + resumable)


def resume(context: typer.Context, run: Run, on: Where = None, detach: Detach = False, as_json: Json = False) -> None:
    """Go on with a run where it was, or follow it."""
    from headrace_pipelines.sites import find_run

    output = begin(context, as_json)
    found = find_run(run, on)
    found.resume()
    _go_on(output, found, detach=detach)


def runs(
    context: typer.Context,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="TARGET",
            help="All runs there, whoever sent them.",
            show_default="those that this machine made or sent",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    from headrace.cli.output import table
    from headrace.cli.run_report import run_row
    from headrace.local.runs import LocalRun
    from headrace.spec.targets import LOCAL
    from headrace_pipelines.sites import list_all

    output = begin(context, as_json)
    records = [
        {
            **run_record(record),
            "target": LOCAL if isinstance(run, LocalRun) else run.cluster.name,  # by the name that it has here
            "created": run.request["created"],
            "name": run.request["name"],
        }
        for run, record in list_all(on, output.tell)
    ]
    header = ("run", "target", "state", "created (UTC)", "metric", "model", "endpoint")
    rows = [run_row(record, record["target"], record["created"]) for record in records]
    output.report({"runs": records}, lambda: table(header, rows) if rows else "no runs yet: headrace run SPEC")


def _go_on(output: Output, run: Followed, *, detach: bool) -> None:
    from headrace.cli.follow import follow
    from headrace.cli.run_report import render_end

    if not detach:
        raise typer.Exit(follow(run, output))
    record = run.status()
    output.report(run_record(record), lambda: f"{render_end(record)}\nnext  headrace status {run.run_id}")
