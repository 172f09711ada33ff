"""Commands on what is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from headrace.cli.options import Json, Site, Yes
from headrace.cli.output import begin

LOCAL = "local"


def register(app: typer.Typer) -> None:
    """Add these commands to APP."""
    for command in (deploy, deployments, undeploy, predict):
        app.command(command.__name__)(command)


def deploy(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL[@ALIAS|/VERSION]", help="A registered model; alone: its newest version.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The endpoint's name.", show_default="the model's")
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, metavar="N", help="Processes that answer.", show_default="as it is, or 1"),
    ] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="ALIAS", help="Move this alias to the version once it answers.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Serve a registered version.

    It takes the place of what the endpoint serves now, without a failed request.
    """
    from headrace.cli.confirm import confirm
    from headrace.steps.serve_version import carry_out, prepare

    output = begin(context, as_json)
    change = prepare(model, name=name, replicas=replicas, alias=alias)
    confirm(output, change.lines(), yes=yes)
    record = carry_out(change, output.tell)
    output.report(record, lambda: f"{record['endpoint']['url']} answers with version {record['endpoint']['version']}")


def deployments(context: typer.Context, on: Site = LOCAL, as_json: Json = False) -> None:
    """List what is served on this machine, or on a cluster."""
    from headrace.cli.output import table

    output = begin(context, as_json)
    records = _served(on)
    header = ("name", "model", "version", "replicas", "state", "url")
    output.report(
        {"deployments": records},
        lambda: (
            table(header, [[record[key] for key in header] for record in records])
            if records
            else "nothing is served: headrace deploy MODEL@ALIAS"
        ),
    )
    for record in records:
        if record["error"]:
            output.tell(f"{record['name']}: {record['error']}")


def _served(on: str) -> list[dict[str, Any]]:
    if on == LOCAL:
        from headrace.local.deployments import deployments as served

        return served()
    from headrace.steps.cluster_endpoints import cluster_of, endpoints

    return endpoints(cluster_of(on))


def undeploy(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The endpoint.")],
    on: Site = LOCAL,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Serve an endpoint no more."""
    from headrace.base.errors import InvalidInput
    from headrace.cli.confirm import confirm

    output = begin(context, as_json)
    known = {record["name"]: record for record in _served(on)}
    if name not in known:
        where = "" if on == LOCAL else f" --on {on}"
        raise InvalidInput(f"nothing is served as {name!r}", action=f"`headrace deployments{where}` lists what is")
    was = known[name]
    confirm(output, [f"{name}: version {was['version']} of {was['model']} -> nothing ({was['url']})"], yes=yes)
    _end(on, name, output.tell)
    output.report({"name": name, "removed": True}, lambda: f"{name} is served no more")


def _end(on: str, name: str, tell: Callable[[str], None]) -> None:
    if on == LOCAL:
        from headrace.local.deployments import undeploy as end

        end(name, tell=tell)
        return
    from headrace.steps.cluster_endpoints import cluster_of, remove

    remove(cluster_of(on), name)


def predict(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="NAME|MODEL@ALIAS", help="An endpoint (name or URL); with --input a registered model."),
    ],
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help="Pictures, CSV or JSON files to send.")
    ] = None,
    input_path: Annotated[
        str | None, typer.Option("--input", metavar="PATH", help="A folder or table to predict without an endpoint.")
    ] = None,
    output_file: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE.parquet", help="Where to write its predictions.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict files by an endpoint, or a folder without one."""
    from headrace.base.errors import InvalidInput
    from headrace.cli.predict_report import render_batch, render_predictions
    from headrace.steps.predict import predict_batch, predict_endpoint

    output = begin(context, as_json)
    if input_path is None and output_file is None:
        rows = predict_endpoint(target, files or [])
        output.report({"predictions": rows}, lambda: render_predictions(rows))
        return
    if input_path is None or output_file is None or files:
        raise InvalidInput(
            "a batch needs --input and --output, and no FILE",
            action="headrace predict MODEL@ALIAS --input PATH --output FILE.parquet",
            code="usage",
        )
    record = predict_batch(target, input_path, output_file, tell=output.tell)
    output.report(record, lambda: render_batch(record))
