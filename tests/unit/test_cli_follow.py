"""Following a run: what events become, for a table and for a pipe, and what Ctrl-C does."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from rich.console import Console
from rich.spinner import Spinner

from headrace.cli.follow import follow
from headrace.cli.live import render
from headrace.cli.output import Output
from headrace.cli.progress import RunView, chief
from headrace.cli.run_report import render_end, render_status, run_row

EVENTS: list[dict[str, Any]] = [
    {"type": "attempt", "attempt": "1.1", "time": 100.0},
    {"type": "step", "step": "split", "state": "running", "time": 100.0},
    {"type": "message", "step": "split", "text": "dealing out 60 samples", "time": 100.5},
    {"type": "step", "step": "split", "state": "cached", "seconds": 0.7, "why": "split before", "time": 101.0},
    {"type": "step", "step": "train", "state": "running", "time": 101.0},
    {"type": "waiting", "step": "train", "text": "waiting for run other-aaaaaaaa", "time": 101.0},
    {"type": "progress", "step": "train", "phase": "starting workers", "time": 102.0},
    {"type": "progress", "step": "train", "phase": "train", "epoch": 1, "epochs": 4, "batch": 5, "batches": 10},
    {"type": "metrics", "step": "train", "epoch": 1, "metrics": {"train.loss": 0.51234567, "validation.accuracy": 0.9}},
    {"type": "progress", "step": "train", "phase": "train", "epoch": 2, "epochs": 4, "batch": 5, "batches": 10},
    {"type": "unheard-of", "time": 103.0},
]
RECORD: dict[str, Any] = {
    "schema_version": 1,
    "run_id": "digits-aaaaaaaa",
    "state": "succeeded",
    "steps": [
        {"name": "split", "state": "cached", "seconds": 0.7},
        {"name": "train", "state": "succeeded", "seconds": 12.0},
        {"name": "register", "state": "succeeded", "seconds": 1.0},
        {"name": "deploy", "state": "succeeded", "seconds": 3.0},
    ],
    "mlflow": {"tracking_uri": "sqlite:///x", "experiment_id": "1", "run_id": "abc"},
    "model": {"name": "digits", "version": "3", "alias": "champion", "uri": "models:/m-1"},
    "metrics": {"accuracy": 0.98765},
    "gate": {
        "passed": True,
        "checks": [
            {"check": "accuracy >= 0.97", "value": 0.98765, "passed": True},
            {"check": "accuracy >= champion", "value": 0.98765, "passed": True, "note": "there is no champion yet"},
        ],
    },
    "endpoint": {"url": "http://127.0.0.1:8000/digits", "model": "digits", "version": "3"},
    "error": None,
    "findings": None,
}


def view_after(count: int) -> RunView:
    view = RunView()
    for event in EVENTS[:count]:
        view.take(event)
    return view


def test_a_pipe_gets_a_line_for_what_is_worth_one() -> None:
    view = RunView()
    lines = [line for event in EVENTS if (line := view.take(event)) is not None]
    assert lines == [
        "split: running",
        "split: dealing out 60 samples",
        "split: cached  0.7 s  split before",
        "train: running",
        "train: waiting for run other-aaaaaaaa",
        "train: starting workers",
        "train: epoch 1/4  train.loss 0.5123  validation.accuracy 0.9",
    ]


def test_progress_is_a_share_of_all_epochs() -> None:
    assert view_after(8).share == 0.125
    assert view_after(10).share == 0.375


def test_time_runs_for_the_step_that_runs_and_stands_for_the_others() -> None:
    steps = view_after(6).steps
    assert steps["split"].elapsed(200.0) == 0.7
    assert steps["train"].elapsed(104.5) == 3.5
    assert steps["deploy"].elapsed(200.0) is None
    assert steps["train"].waiting
    assert not view_after(7).steps["train"].waiting


def test_a_new_attempt_begins_anew() -> None:
    view = view_after(len(EVENTS))
    assert view.take({"type": "attempt", "attempt": "2.1"}) == "attempt 2.1"
    assert {step.state for step in view.steps.values()} == {"pending"}


def test_a_word_of_no_step_makes_no_step() -> None:
    view = view_after(3)
    assert view.take({"type": "message", "text": "starting the Ray head"}) == "starting the Ray head"
    assert "starting the Ray head" in drawn(view)
    assert list(view.steps) == ["split", "train", "register", "deploy"]
    view.take(EVENTS[3])
    assert "starting the Ray head" not in drawn(view)


def test_only_the_chief_metrics_of_an_epoch_are_shown() -> None:
    every = {
        "train.loss": 1.0,
        "train.learning_rate": 0.1,
        "validation.loss": 2.0,
        "validation.a.accuracy": 0.5,
        "validation.a.f1": 0.4,
        "validation.b.rmse": 3.0,
    }
    assert list(chief(every)) == ["train.loss", "validation.loss", "validation.a.accuracy", "validation.b.rmse"]
    assert chief({"odd": 1.0}) == {"odd": 1.0}


def drawn(view: RunView) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(render(view, "digits-aaaaaaaa", 104.5, Spinner("dots")))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_steps_times_epochs_and_metrics() -> None:
    shown = drawn(view_after(len(EVENTS)))
    assert "digits-aaaaaaaa" in shown
    assert "= split" in " ".join(shown.split())
    assert "0.7 s" in shown
    assert "3.5 s" in shown
    assert "epoch 2/4" in shown
    assert "validation.accuracy 0.9" in shown
    assert "waiting for run other-aaaaaaaa" in drawn(view_after(6))


class FakeRun:
    """What `follow` needs of a LocalRun; the real one is followed in the local tier."""

    run_id = "digits-aaaaaaaa"

    def __init__(self, record: Mapping[str, Any], code: int | None, interrupted: int = 0) -> None:
        self.record, self.code, self.interrupted = dict(record), code, interrupted
        self.cancelled = 0

    def follow(self) -> Iterator[Mapping[str, Any]]:
        yield from EVENTS
        if self.interrupted:
            raise KeyboardInterrupt

    def cancel(self) -> dict[str, Any]:
        self.cancelled += 1
        if self.interrupted > 1:
            raise KeyboardInterrupt
        self.code = 130
        self.record |= {
            "state": "cancelled",
            "endpoint": None,
            "error": {"code": "cancelled", "message": "cancelled", "action": "`headrace resume` it", "log": "/l"},
        }
        return self.record

    def status(self) -> dict[str, Any]:
        return self.record

    def exit_code(self) -> int | None:
        return self.code


def followed(run: FakeRun, capture: pytest.CaptureFixture[str], *, as_json: bool = False) -> tuple[int, str, str]:
    stdout, stream = os.dup(1), sys.stdout
    try:
        output = Output()
        if as_json:
            output.begin_json()
        code = follow(run, output)  # type: ignore[arg-type]
    finally:
        os.dup2(stdout, 1)
        sys.stdout = stream
        os.close(stdout)
    out, err = capture.readouterr()
    return code, out, err


def test_a_run_that_succeeds_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = followed(FakeRun(RECORD, 0), capfd)
    assert code == 0
    assert "train: starting workers" in out
    assert "next           headrace predict digits FILE..." in out
    assert err == ""


def test_json_is_the_record_alone_and_the_lines_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = followed(FakeRun(RECORD, 0), capfd, as_json=True)
    assert (code, json.loads(out)) == (0, RECORD)
    assert "train: starting workers" in err


def test_a_refused_run_ends_with_3_and_says_why_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    error = {"code": "gate-refused", "message": "refused", "action": "train longer", "log": "/l", "step": "register"}
    code, out, err = followed(FakeRun({**RECORD, "state": "refused", "error": error}, 3), capfd)
    assert code == 3
    assert "run refused" in out
    assert err.splitlines() == ["error: refused", "  do: train longer", "  log: /l"]


def test_ctrl_c_cancels_the_run_and_says_how_to_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    run = FakeRun(RECORD, None, interrupted=1)
    code, out, err = followed(run, capfd)
    assert (code, run.cancelled) == (130, 1)
    assert "run cancelled" in out
    assert "headrace resume" in err


def test_a_second_ctrl_c_leaves_the_run_to_end_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = followed(FakeRun(RECORD, None, interrupted=2), capfd)
    assert code == 130
    assert "headrace status digits-aaaaaaaa" in err


def test_a_run_without_an_exit_code_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert followed(FakeRun({**RECORD, "state": "running"}, None), capfd)[0] == 1


def test_the_end_is_told_in_a_few_lines() -> None:
    assert render_end(RECORD).splitlines() == [
        "run succeeded  digits-aaaaaaaa  16.7 s",
        "test metrics   accuracy 0.9877",
        "gate           passed  accuracy >= 0.97  0.9877",
        "               passed  accuracy >= champion  0.9877  (there is no champion yet)",
        "model          digits version 3, alias champion",
        "endpoint       http://127.0.0.1:8000/digits  (version 3)",
        "next           headrace predict digits FILE...",
    ]
    bare = dict.fromkeys(RECORD) | {"run_id": "x-aaaaaaaa", "state": "queued"}
    assert render_end(bare) == "run queued  x-aaaaaaaa"


def test_a_status_shows_the_steps() -> None:
    shown = render_status(RECORD)
    assert "split     cached         0.7" in shown
    assert "mlflow  sqlite:///x  run abc" in shown


def test_a_list_of_runs_has_one_line_each() -> None:
    assert run_row(RECORD, "local", "2026-11-24T19:00:00.123+00:00") == (
        "digits-aaaaaaaa",
        "local",
        "succeeded",
        "2026-11-24 19:00:00",
        "accuracy 0.9877",
        "digits/3",
        "http://127.0.0.1:8000/digits",
    )


def test_a_finding_is_a_line_and_stays_until_the_next_attempt() -> None:
    view = RunView()
    line = view.take({"type": "finding", "step": "split", "text": "a.png: truncated — left out"})
    assert line == "split: a.png: truncated — left out"
    view.take({"type": "step", "step": "split", "state": "succeeded", "seconds": 1.0})
    assert view.findings == ["a.png: truncated — left out"]
    view.take({"type": "attempt", "attempt": "2"})
    assert view.findings == []
