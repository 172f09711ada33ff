"""Commands that save what Headrace knows, and bring it back."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import Json, On, Yes
from headrace.cli.output import begin
from headrace.steps.backup_manifest import Artifacts, Existing, Part

Include = Annotated[
    list[Part] | None,
    typer.Option(
        "--include",
        metavar="PART",
        help="Only this part: mlflow, files, resources. May be repeated.",
        show_default="all there is",
    ),
]
Namespaces = Annotated[
    list[str] | None,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="A namespace with TrainingRuns and ModelDeployments. May be repeated; makes it a cluster's.",
        show_default="the target's own",
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands to APP."""
    for command in (backup, restore):
        app.command(command.__name__)(command)


def backup(
    context: typer.Context,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A folder or URL (s3://...) for any number of backups.")
    ],
    on: On = "local",
    include: Include = None,
    artifacts: Annotated[
        Artifacts,
        typer.Option(
            "--artifacts",
            metavar="WHICH",
            help="Files that are kept: registered (what versions and endpoints need), all, or none.",
        ),
    ] = Artifacts.registered,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=1, help="Remove all but the newest N there.", show_default="all stay"),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read it again and compare every hash.")] = False,
    namespace: Namespaces = None,
    lease_namespace: Annotated[
        str | None,
        typer.Option(
            "--lease-namespace", metavar="NAME", help="Tell the operator there, for its metric and its alert."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Save MLflow's database, packages and custom resources.

    It is whole or not there: one that was killed does not count.
    """
    from headrace.cli.backup_report import render_backup
    from headrace.steps.backup import backup as make
    from headrace.steps.backup import default_parts
    from headrace.steps.backup_place import end_by_exception, find_place, tell_operator

    output = begin(context, as_json)
    end_by_exception()
    place = find_place(on, namespace or [])
    record = make(
        place,
        destination,
        parts=frozenset(include or default_parts(place)),
        artifacts=artifacts,
        keep=keep,
        verify=verify,
        tell=output.tell,
    )
    if lease_namespace:
        tell_operator(place, lease_namespace, record["uri"])
    output.report(record, lambda: render_backup(record))


def restore(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A backup (DEST/20261126T043000Z), or DEST for its newest.")
    ],
    on: On = "local",
    include: Include = None,
    existing: Annotated[
        Existing,
        typer.Option(
            "--existing",
            metavar="HOW",
            help="Where the target is not empty: refuse; keep what is there and add the rest; or overwrite it.",
        ),
    ] = Existing.refuse,
    move: Annotated[
        list[str] | None,
        typer.Option(
            "--map-store",
            metavar="OLD=NEW",
            help="Addresses that begin with OLD begin with NEW. May be repeated.",
            show_default="from the old store, MLflow and home to the target's",
        ),
    ] = None,
    namespace: Namespaces = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, every hash too; change nothing.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Bring a backup back into an empty cluster or home.

    TrainingRuns that had ended are history and do not run again; those that were under way come back suspended.
    """
    from headrace.cli.backup_report import render_plan, render_restore
    from headrace.cli.confirm import confirm
    from headrace.steps.backup_moves import parse_pairs
    from headrace.steps.backup_place import find_place
    from headrace.steps.backup_verify import find_backup, verify
    from headrace.steps.restore import carry_out, plan

    output = begin(context, as_json)
    pairs, parts = parse_pairs(move or []), frozenset(include) if include else None
    place = find_place(on, namespace or [])
    archive, name = find_backup(source)  # once: the newest may be another a moment later
    verified = verify(archive, name, output.tell) if dry_run else None
    found = plan(place, archive.uri(name), parts=parts, existing=existing, pairs=pairs)
    if dry_run:
        output.report({**found.to_record(), "verified": verified}, lambda: render_plan(found))
        return
    confirm(output, found.lines(), yes=yes)
    record = carry_out(found, output.tell)
    output.report(record, lambda: render_restore(record, local=place.home is not None))
