"""The options that several commands share, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The run spec, a YAML file.", show_default=False)]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, as `headrace runs` lists them.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Use VALUE (YAML) for KEY, as train.epochs=2. May be repeated.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking. Required where nobody can be asked.")]
On = Annotated[str, typer.Option("--on", metavar="TARGET", help="Where to run: `local`, or a cluster of targets.yaml.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="TARGET",
        help="Where it is; needed only if this machine has not seen it.",
        show_default=False,
    ),
]
Site = Annotated[
    str, typer.Option("--on", metavar="TARGET", help="Where: `local`, or a cluster whose target has a kubeconfig.")
]
Cluster = Annotated[str, typer.Option("--on", metavar="TARGET", help="A cluster of targets.yaml.", show_default=False)]
Detach = Annotated[bool, typer.Option("--detach", help="Return as soon as it has started.")]
