"""The trials of a `tune` part: which there are, what each changes, and whether each would be a valid spec.

Trials are drawn here and not by Ray Tune, so that they are known before anything runs: they can be judged with the rest
of the spec, and a resumed run knows which of them are done. Each draw has a seed of its own, so one trial more changes
none of the others.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from pydantic import ValidationError

from headrace.base.errors import Finding
from headrace.spec.findings import report_errors, shown
from headrace.spec.fold import Folded
from headrace.spec.judge import judge, judge_metric
from headrace.spec.model import RunSpec

Overrides = dict[str, Any]  # by the place in the canonical record, as "train.optimizer.args.lr"

LARGEST_GRID = 1000
TUNABLE = ("train.", "model.args.")
FIXED = ("train.workers", "train.resources", "train.gpus_per_worker", "train.parallel", "train.max_failures")


def trials(tune: Mapping[str, Any]) -> list[Overrides]:
    """What each trial of the canonical TUNE record changes, in the order in which they are run; no two are the same."""
    space: Mapping[str, Mapping[str, Any]] = tune["space"]
    places = sorted(space)
    if tune["search"] == "grid":
        drawn = [dict(zip(places, row, strict=True)) for row in product(*(space[place]["values"] for place in places))]
    else:
        drawn = [
            {place: _drawn(space[place], random.Random(f"{tune['seed']}/{index}/{place}")) for place in places}
            for index in range(tune["samples"])
        ]
    return list({json.dumps(overrides, sort_keys=True): overrides for overrides in drawn}.values())


def _drawn(domain: Mapping[str, Any], rng: random.Random) -> Any:
    draw, values = domain["draw"], domain["values"]
    if draw == "choice":
        return rng.choice(values)
    low, high = values
    if draw == "integers":
        return rng.randint(low, high)
    value = rng.uniform(low, high) if draw == "uniform" else math.exp(rng.uniform(math.log(low), math.log(high)))
    return min(max(float(f"{value:.6g}"), low), high)  # digits that a person can read, and type


def with_overrides(record: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of RECORD with OVERRIDES in their places."""
    changed: dict[str, Any] = json.loads(json.dumps(record))
    for place, value in overrides.items():
        at: Any = changed
        *parents, last = place.split(".")
        for part in parents:
            inside = at[int(part)] if isinstance(at, list) else at.get(part)
            if not isinstance(inside, (dict, list)):
                inside = at[part] = {}
            at = inside
        at[int(last) if isinstance(at, list) else last] = value
    return changed


def told(overrides: Mapping[str, Any]) -> str:
    """OVERRIDES in a line, by the last part of each place."""
    return ", ".join(f"{place.rsplit('.', 1)[-1]}={shown(value)}" for place, value in overrides.items())


def judge_tune(folded: Folded, target: str) -> None:
    """Add what is wrong with the `tune` part as it stands, wherever the spec is to run (TARGET)."""
    tune = folded.record.get("tune")
    if not isinstance(tune, dict):
        return
    if target != "local":
        folded.report(("tune",), f"on {target}", "a run on this machine", "run it without `--on`, or remove `tune`")
    if isinstance(tune.get("metric"), str):
        judge_metric(folded, ("tune", "metric"), tune["metric"])
    split = (folded.record.get("data") or {}).get("split") if isinstance(folded.record.get("data"), dict) else None
    if isinstance(split, dict) and split.get("validation") == 0:
        folded.report(("data", "split", "validation"), "0 with `tune`", "a share above 0", "trials are judged by it")
    space = tune.get("space")
    for place, domain in space.items() if isinstance(space, dict) else ():
        _place(folded, place)
        if isinstance(domain, dict):
            _domain(folded, place, domain, tune.get("search"))


def _place(folded: Folded, place: str) -> None:
    allowed = "a place below train or model.args"
    if not place.startswith(TUNABLE):
        folded.report(("tune", "space", place), f"{place} is not part of the training", allowed, "tune something else")
    elif place.startswith(FIXED):
        folded.report(("tune", "space", place), f"{place} changes no result", allowed, "set it once, in `train`")


def _domain(folded: Folded, place: str, domain: Mapping[str, Any], search: Any) -> None:
    draw, values = domain.get("draw"), domain.get("values")
    if draw not in ("uniform", "loguniform", "integers") or not isinstance(values, list):
        return
    path = ("tune", "space", place, "values")
    if search == "grid":
        folded.report(path, f"{draw} in a grid", "a list of values", "list the values, or take `search: random`")
        return
    kinds = int if draw == "integers" else (int, float)
    numbers = [value for value in values if isinstance(value, kinds) and not isinstance(value, bool)]
    if len(values) != 2 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        what = "whole numbers" if draw == "integers" else "numbers"
        folded.report(path, shown(values), f"two {what}, the smaller first", f"write {{{draw}: [LOW, HIGH]}}")
    elif draw == "loguniform" and numbers[0] <= 0:
        folded.report(path, shown(values), "numbers above 0", "a logarithm begins above 0")


def judge_trials(folded: Folded) -> None:
    """Add what is wrong with the trials of a FOLDED spec that is valid otherwise: each is judged as the spec it is."""
    if folded.record.get("tune") is None:
        return
    record = RunSpec.model_validate_json(json.dumps(folded.record)).to_record()
    tune, record["tune"] = record["tune"], None
    if tune["search"] == "grid":
        size = math.prod(len(domain["values"]) for domain in tune["space"].values())
        if size > LARGEST_GRID:
            action = "list fewer values, or take `search: random`"
            folded.report(("tune", "space"), f"{size:,} trials", f"at most {LARGEST_GRID:,}", action)
            return
    seen: set[tuple[str, str]] = set()
    for overrides in (*_ends(tune["space"]), *trials(tune)):
        for finding in _findings(with_overrides(record, overrides)):
            place = next((place for place in overrides if _within(finding.where, place)), "")
            if (place, finding.where) not in seen:
                seen.add((place, finding.where))
                path = ("tune", "space", place) if place else ("tune", "space")
                given = finding.given if place else f"{told(overrides)}: {finding.where} is {finding.given}"
                folded.report(path, given, finding.allowed, finding.action)


def _within(where: str, place: str) -> bool:
    """Whether one of the two holds the other (an unknown key is found at the topmost unknown part)."""
    return f"{where}.".startswith(f"{place}.") or place.startswith(f"{where}.") or where.startswith(f"{place}[")


def _ends(space: Mapping[str, Mapping[str, Any]]) -> Iterator[Overrides]:
    """Each value that is listed, and both ends of each range, alone."""
    for place, domain in space.items():
        for value in domain["values"]:
            yield {place: value}


def _findings(record: dict[str, Any]) -> list[Finding]:
    folded = Folded(record)
    try:
        RunSpec.model_validate_json(json.dumps(record))
    except ValidationError as error:
        report_errors(folded, error, RunSpec)
    judge(folded)
    return folded.findings
