"""`headrace lr-find`: a learning rate for a spec, found on this machine without a run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.base.errors import InvalidInput, RunFailed
from headrace.base.ids import new_run_id
from headrace.spec import RunSpec
from headrace.spec.parts import split_part, step_parts
from headrace.steps.first_weights import with_stored_weights
from headrace.steps.prepare import store_code
from headrace.store import Store
from headrace_models import catalog

SUGGESTION = "lr_finder.suggestion"


def find_lr(spec: RunSpec, low: float, high: float, steps: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make SPEC's split if need be, run the range test from LOW to HIGH in STEPS batches, and log it in MLflow.

    Returns `suggestion`, `lowest_at`, `stopped_at` (None unless the loss exploded), the curve and the MLflow run.

    Raises:
        InvalidInput: LOW is not below HIGH, or not above 0; or the model learns from statistics.
        RunFailed: the loss never falls.
    """
    if not 0 < low < high:
        raise InvalidInput(f"--from {low:g} --to {high:g}", action="give two learning rates above 0, the smaller first")
    card = catalog.models().get(spec.model.name)
    if card is not None and card.learns == "statistics":
        raise InvalidInput(
            f"{card.name} learns from statistics: it has no learning rate", action="headrace run trains it as it is"
        )
    from headrace.data import fingerprint_source, split_data
    from headrace.tracking.registry import resolve

    store = Store()
    record = with_stored_weights(spec.to_record(), store, resolve)
    part = step_parts(record, *store_code(record["model"]["code"], store))["train"]
    assert part is not None
    data = split_part(record)
    split = split_data(data, store=store, source_fingerprint=fingerprint_source(data), tell=tell)
    tell(f"training {steps} batches at learning rates from {low:g} to {high:g}")
    from headrace.training.lr_finder import range_test, rates_between

    curve = range_test(store, part, split.fingerprint, rates_between(low, high, steps))
    try:
        suggestion = curve.suggestion
    except RunFailed:
        told = _log(spec, record, curve, None)
        tell(f"the curve is in MLflow, run {told['run_id']}")
        raise
    found = {
        "suggestion": suggestion,
        "lowest_at": curve.rates[curve.lowest],
        "stopped_at": curve.rates[-1] if curve.exploded else None,
        "rates": list(curve.rates),
        "losses": list(curve.losses),
    }
    return {**found, "mlflow": _log(spec, record, curve, suggestion)}


def _log(spec: RunSpec, record: dict[str, Any], curve: Any, suggestion: float | None) -> dict[str, str]:
    from headrace.tracking import TrackedRun
    from headrace.training.lr_finder import picture

    run = TrackedRun.open(new_run_id(f"{spec.name}-lr"), spec.name, tags={"headrace.kind": "lr-find"})
    run.log_params(record)
    if suggestion is not None:
        run.log_metrics({SUGGESTION: suggestion})
    rows = "".join(f"{rate:.6g}\t{loss:.6g}\n" for rate, loss in zip(curve.rates, curve.losses, strict=True))
    run.log_text(f"learning_rate\tloss\n{rows}", "lr_finder.tsv")
    with tempfile.TemporaryDirectory(prefix="headrace-lr-") as folder:
        picture(curve, suggestion).savefig(Path(folder) / "lr_finder.png", dpi=100)
        run.log_pictures(folder)
    run.finish("FINISHED")
    return run.to_record()
