"""Commands on this machine: what Headrace runs here, what it lacks, and what it no longer needs."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import Json, Yes
from headrace.cli.output import begin


def register(app: typer.Typer) -> None:
    """Add these commands to APP."""
    for command in (ui, up, down, doctor, gc):
        app.command(command.__name__)(command)


def ui(
    context: typer.Context,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = True,
    as_json: Json = False,
) -> None:
    """Open MLflow's pages on this machine's runs and models.

    They stay up until `headrace down`.
    """
    from headrace.tracking import ui as pages

    output = begin(context, as_json)
    found = pages.start(output.tell)
    output.report({"url": found.url}, lambda: f"MLflow's UI: {found.url}")
    if browser and not as_json:
        from headrace.cli.browser import open_page

        open_page(found.url)


def up(context: typer.Context, as_json: Json = False) -> None:
    """Start the Ray head and bring back every endpoint."""
    from headrace.cli.machine_report import render_up
    from headrace.steps.machine import up as start

    output = begin(context, as_json)
    record = start(output.tell)
    output.report(record, lambda: render_up(record))


def down(context: typer.Context, yes: Yes = False, as_json: Json = False) -> None:
    """Stop all that Headrace started here, and nothing else."""
    from headrace.cli.confirm import confirm
    from headrace.cli.machine_report import render_down
    from headrace.steps.machine import down as stop
    from headrace.steps.machine import standing

    output = begin(context, as_json)
    here = standing()
    if change := here.lines():
        confirm(output, change, yes=yes)
    record = stop(here, output.tell)
    output.report(record, lambda: render_down(record))


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Say what this machine lacks, and the command that mends it."""
    from headrace.cli.machine_report import render_doctor
    from headrace.steps.doctor import examine

    output = begin(context, as_json)
    checks = examine()
    healthy = not any(check.state == "broken" for check in checks)
    output.report(
        {"healthy": healthy, "checks": [check.to_record() for check in checks]}, lambda: render_doctor(checks)
    )
    if not healthy:
        raise typer.Exit(1)


def gc(
    context: typer.Context,
    forget_days: Annotated[
        float | None,
        typer.Option("--forget-runs", metavar="DAYS", min=0, help="Forget runs that ended longer ago, too."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it; without this it is only listed.")] = False,
    as_json: Json = False,
) -> None:
    """List what nothing refers to any more; --yes removes it."""
    from headrace.cli.machine_report import render_garbage
    from headrace.steps.gc import find, remove

    output = begin(context, as_json)
    found = find(forget_days=forget_days)
    if yes:
        remove(found.garbage)
    record = {
        "removed": yes,
        "bytes": found.bytes,
        "items": [item.to_record() for item in found.garbage],
        "left_out": list(found.left_out),
    }
    output.report(record, lambda: render_garbage(found, removed=yes))
