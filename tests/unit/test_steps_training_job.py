"""The driver of a TrainingRun before it touches anything: what it must be told, whose attempt it is, how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.api.reports import FAILURE_LINE
from headrace.base.errors import Cancelled, HeadraceError, InvalidInput, NotEnoughResources, RunFailed, Superseded
from headrace.base.errors import Unavailable as Lost
from headrace.steps.training_job import Job, claim, failure_line, permanent

SPEC = {
    "tasks": [{"name": "image-classification"}],
    "model": {"name": "mlp"},
    "manifestURI": "s3://b/splits/f1",
    "store": {"uri": "s3://b"},
    "mlflow": {"trackingURI": "http://m"},
}


def environment(folder: Path, **changes: str) -> dict[str, str]:
    return {
        "HEADRACE_TRAINING_RUN": json.dumps(SPEC),
        "HEADRACE_RUN_ID": "digits-abcdefgh",
        "HEADRACE_ATTEMPT": "2.1",
        "HEADRACE_RAY_CLUSTER": "digits-1-xyz",
        "HEADRACE_POD_UID": "u1",
        "HEADRACE_STORE": str(folder),
        "MLFLOW_TRACKING_URI": "http://m",
        "RAY_ADDRESS": "10.0.0.1:6379",
        **changes,
    }


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    told = environment(tmp_path, HEADRACE_POD_UID="", RAY_ADDRESS="")
    with pytest.raises(InvalidInput, match="HEADRACE_POD_UID, RAY_ADDRESS"):
        Job.from_environment(told)


def test_the_experiment_is_the_specs_or_the_run_ids_stem(tmp_path: Path) -> None:
    assert Job.from_environment(environment(tmp_path)).experiment == "digits"
    named = environment(tmp_path, HEADRACE_TRAINING_RUN=json.dumps({**SPEC, "experiment": "mine"}))
    assert Job.from_environment(named).experiment == "mine"


def test_an_attempt_belongs_to_the_head_that_claimed_it_first(tmp_path: Path) -> None:
    claim(Job.from_environment(environment(tmp_path)))
    claim(Job.from_environment(environment(tmp_path)))  # the same head may come again
    for other in ({"HEADRACE_POD_UID": "u2"}, {"HEADRACE_RAY_CLUSTER": "digits-1-abc"}):
        with pytest.raises(Superseded, match="u1"):
            claim(Job.from_environment(environment(tmp_path, **other)))


@pytest.mark.parametrize("late", ["2.1", "1.9"])
def test_an_older_attempt_claims_nothing(tmp_path: Path, late: str) -> None:
    claim(Job.from_environment(environment(tmp_path, HEADRACE_ATTEMPT="2.2")))
    with pytest.raises(Superseded):
        claim(Job.from_environment(environment(tmp_path, HEADRACE_ATTEMPT=late)))
    assert Job.from_environment(environment(tmp_path)).store.current_attempt("digits-abcdefgh") == "2.2"


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (InvalidInput("bad"), True),
        (RunFailed("the network raised"), True),
        (RunFailed("oom", code="out-of-memory"), True),
        (NotEnoughResources("no room"), False),
        (Lost("MLflow"), False),
        (Superseded("other head"), False),
        (Cancelled("told to end"), False),
        (RunFailed("killed", code="workers-died"), False),
        (HeadraceError("?"), False),
    ],
)
def test_only_what_would_come_again_is_permanent(error: HeadraceError, lasting: bool) -> None:
    assert permanent(error) is lasting
    word, _, text = failure_line(error).partition(" ")
    assert word == FAILURE_LINE
    told: dict[str, Any] = json.loads(text)
    assert told == {"code": error.code, "message": error.message, "permanent": lasting}
    assert "\n" not in failure_line(RunFailed("two\nlines"))
