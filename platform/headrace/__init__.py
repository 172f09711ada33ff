"""Headrace: from data to a served model, and a steady flow after that.

The public surface. Nothing is imported until it is used, so `import headrace` costs nothing and works on every install;
a part that is not installed is named when it is asked for.

    spec = headrace.load_spec("digits.yaml", overrides=["train.epochs=2"])
    headrace.plan(spec)                                     what a run would do
    result = headrace.run(spec)                             data → split → training → registry → endpoint
    headrace.predict("digits", ["three.png"])               ask the endpoint
    headrace.load_model("digits@champion").predict({...})   the model in this process
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.spec import RunSpec
    from headrace_models.package import LoadedModel

__all__ = ["load_model", "load_spec", "plan", "predict", "run"]


def load_spec(source: str | PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> RunSpec:
    """The run spec in a YAML file or a mapping, in canonical form.

    Args:
        source: a path, or the spec's values.
        overrides: `train.epochs=2` and the like, applied in order.

    Raises:
        SpecInvalid: with every mistake as a finding.
    """
    from headrace.spec import load_spec as load

    return load(source, overrides)


def plan(spec: RunSpec) -> dict[str, Any]:
    """What a run of SPEC would do and reuse, step by step. Starts nothing."""
    from headrace.steps.plan import plan_run

    return plan_run(spec)


def run(
    spec: RunSpec,
    *,
    on: str = "local",
    no_cache: bool = False,
    tell: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Run SPEC and wait for the end; returns the run's record (DESIGN §5).

    A run that fails, or that its gate refuses, is told by the record's `state` and `error`; it does not raise. Killing
    this process does not end the run.

    Args:
        spec: what `load_spec` gave.
        on: where: this machine, or a cluster of targets.yaml.
        no_cache: do everything anew.
        tell: is given each event.
    """
    from headrace_pipelines.sites import start

    started = start(spec, on, no_cache=no_cache)
    for event in started.follow():
        if tell is not None:
            tell(event)
    return started.status()


def predict(
    target: str, inputs: str | Sequence[str], *, output: str | None = None
) -> list[dict[str, Any]] | dict[str, Any]:
    """Predictions for pictures, tables or JSON files.

    Args:
        target: a deployment's name or URL; with OUTPUT a registered model (`name@alias`, `name/3`) or a package.
        inputs: files or folders.
        output: a Parquet file to write without an endpoint; returns its summary then, instead of the rows.
    """
    from headrace.base.errors import InvalidInput
    from headrace.steps.predict import predict_batch, predict_endpoint

    files = [inputs] if isinstance(inputs, str) else list(inputs)
    if output is None:
        return predict_endpoint(target, files)
    if len(files) != 1:
        raise InvalidInput(f"{len(files)} inputs for one output", action="give one folder or file")
    return predict_batch(target, files[0], output)


def load_model(ref: str, *, device: str = "cpu") -> LoadedModel:
    """The registered model REF (`name`, `name@alias`, `name/3`) or the package in a folder, ready to predict."""
    from headrace.steps.predict import load_model as load

    return load(ref, device=device)
