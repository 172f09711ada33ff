"""Commands on specs: nothing here starts a run or changes what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.options import Json, Set, Spec
from headrace.cli.output import begin


def register(app: typer.Typer) -> None:
    """Add these commands to APP."""
    for command in (init, plan, split, lr_find, models, schema, compile_):
        app.command(command.__name__.rstrip("_").replace("_", "-"))(command)


def init(
    context: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="A folder of one folder a class with pictures; or a CSV or Parquet file."
        ),
    ],
    output_file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it.", show_default="FOLDER's name + .yaml"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a ten-line spec from what is found in FOLDER."""
    from headrace.steps.init import propose

    output = begin(context, as_json)
    proposal = propose(folder, output_file, force=force)
    lines = [*proposal.notes, f"wrote {proposal.path}", f"next: headrace run {proposal.path}"]
    output.report(proposal.to_record(), lambda: "\n".join(lines))


def plan(context: typer.Context, spec: Spec, set_: Set = None, as_json: Json = False) -> None:
    """Show what a run would do. Starts nothing, changes nothing."""
    from headrace.cli.plan_report import render_plan
    from headrace.spec import load_spec
    from headrace.steps.plan import plan_run

    output = begin(context, as_json)
    record = plan_run(load_spec(spec, set_ or ()))
    output.report(record, lambda: render_plan(record))


def split(context: typer.Context, spec: Spec, set_: Set = None, as_json: Json = False) -> None:
    """Split the data of SPEC and show the classes by split."""
    from dataclasses import asdict

    from headrace.cli.split_report import render_split
    from headrace.data import classes_table, fingerprint_source, split_data
    from headrace.spec import load_spec
    from headrace.spec.parts import split_part
    from headrace.store import Store

    output = begin(context, as_json)
    part = split_part(load_spec(spec, set_ or ()).to_record())
    result = split_data(part, store=Store(), source_fingerprint=fingerprint_source(part), tell=output.tell)
    rows = classes_table(result.summary)
    record = {
        "fingerprint": result.fingerprint,
        "uri": result.uri,
        "classes": rows,
        "summary": result.summary,
        "findings": [asdict(finding) for finding in result.findings] or None,
    }
    output.report(record, lambda: render_split(result.summary, rows, result.findings))


def lr_find(
    context: typer.Context,
    spec: Spec,
    low: Annotated[float, typer.Option("--from", help="Where the learning rate starts.")] = 1e-6,
    high: Annotated[float, typer.Option("--to", help="Where it ends, unless the loss explodes before.")] = 10.0,
    steps: Annotated[int, typer.Option("--steps", min=20, help="Batches on the way.")] = 100,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Find a learning rate for SPEC: where the loss falls fastest.

    Some batches are trained with a learning rate that rises from one to the next (Smith 2017). Nothing of it is kept
    but the curve, in MLflow.
    """
    from headrace.cli.lr_report import render_lr
    from headrace.spec import load_spec
    from headrace.steps.lr_find import find_lr

    output = begin(context, as_json)
    record = find_lr(load_spec(spec, set_ or ()), low, high, steps, output.tell)
    output.report(record, lambda: render_lr(record, spec))


def models(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this model's arguments and a spec for it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models there are, or show one."""
    from headrace.cli.model_report import model_record, models_record, render_model, render_models

    output = begin(context, as_json)
    if name is None:
        every = models_record()
        output.report({"models": every}, lambda: render_models(every))
    else:
        one = model_record(name)
        output.report(one, lambda: render_model(one))


def schema() -> None:
    """Print the spec's JSON Schema, for editors to complete with."""
    import json

    from headrace.spec.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def compile_(
    context: typer.Context,
    output_file: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")],
    as_json: Json = False,
) -> None:
    """Write the pipeline as Kubeflow's IR, the same for every spec."""
    from headrace_pipelines.compiler import compile_pipeline

    output = begin(context, as_json)
    compile_pipeline(output_file)
    output.report({"path": str(output_file)}, lambda: f"wrote {output_file}")
