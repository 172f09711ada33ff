"""Commands on runs by the clock of a cluster's Kubeflow."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import Cluster, Json, Set, Spec, Yes
from headrace.cli.output import begin

Name = Annotated[
    str,
    typer.Argument(metavar="SCHEDULE", help="Its name, as `headrace schedules` lists them.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add these commands to APP."""
    for command in (schedule, schedules, pause, unpause, unschedule):
        app.command(command.__name__)(command)


def schedule(
    context: typer.Context,
    spec: Spec,
    cron: Annotated[
        str,
        typer.Option(
            "--cron",
            metavar="EXPR",
            help='When, in UTC: minute, hour, day, month, weekday, as "30 2 * * *"; or six fields, the second first.',
            show_default=False,
        ),
    ],
    on: Cluster,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What it is called.", show_default="the spec's name")
    ] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Run SPEC on a cluster by the clock.

    Each time on the data as it then is, one run at a time; what was missed is not made up for. Each run has an id of
    its own, as any other.
    """
    from headrace.spec import load_spec
    from headrace.spec.targets import require_target
    from headrace_pipelines.kubeflow.cluster import Cluster as Site
    from headrace_pipelines.kubeflow.schedule import schedule as make

    output = begin(context, as_json)
    loaded = load_spec(spec, set_ or (), target=require_target(on))
    record = make(Site.named(on), loaded, cron, name=name, spec_file=spec)
    output.report(record, lambda: f"{record['name']} runs at {record['cron']} on {on}; headrace runs --on {on}")


def schedules(context: typer.Context, on: Cluster, as_json: Json = False) -> None:
    """List what is scheduled on a cluster."""
    from headrace.cli.output import table
    from headrace_pipelines.kubeflow.cluster import Cluster as Site
    from headrace_pipelines.kubeflow.schedule import schedules as known

    output = begin(context, as_json)
    found = known(Site.named(on))
    header = ("name", "cron", "state", "created")
    rows = [[record[key] for key in header] for record in found]
    output.report(
        {"schedules": found},
        lambda: table(header, rows) if rows else f"nothing is scheduled: headrace schedule SPEC --cron EXPR --on {on}",
    )


def pause(context: typer.Context, name: Name, on: Cluster, as_json: Json = False) -> None:
    """Begin no run of a schedule for now."""
    from headrace_pipelines.kubeflow.cluster import Cluster as Site
    from headrace_pipelines.kubeflow.schedule import pause as hold

    output = begin(context, as_json)
    hold(Site.named(on), name)
    output.report({"name": name, "state": "paused"}, lambda: f"{name} is paused: headrace unpause {name} --on {on}")


def unpause(context: typer.Context, name: Name, on: Cluster, as_json: Json = False) -> None:
    """Begin runs of a schedule again."""
    from headrace_pipelines.kubeflow.cluster import Cluster as Site
    from headrace_pipelines.kubeflow.schedule import unpause as release

    output = begin(context, as_json)
    release(Site.named(on), name)
    output.report({"name": name, "state": "active"}, lambda: f"{name} runs again")


def unschedule(context: typer.Context, name: Name, on: Cluster, yes: Yes = False, as_json: Json = False) -> None:
    """End a schedule. Runs that go on are left alone."""
    from headrace.cli.confirm import confirm
    from headrace_pipelines.kubeflow.cluster import Cluster as Site
    from headrace_pipelines.kubeflow.schedule import find_schedule
    from headrace_pipelines.kubeflow.schedule import unschedule as end

    output, site = begin(context, as_json), Site.named(on)
    confirm(output, [f"{name}: {find_schedule(site, name)['cron']} on {on} -> nothing"], yes=yes)
    end(site, name)
    output.report({"name": name, "removed": True}, lambda: f"{name} is scheduled no more")
