"""How a step ends: with its result as its last word, or with an error and the exit code that belongs to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from headrace.base.errors import Cancelled, GateRefused, RunFailed, Superseded, Unavailable
from headrace.steps import patience
from headrace.steps.split import split_once
from headrace.steps.step import LOST_EXIT_CODE, Outcome, Step, as_error, describe, run_step, uninterrupted
from headrace.store import Store
from headrace.store.run_events import EventReader
from headrace.store.step_files import read_error, read_result, write_note

RUN = "digits-aaaaaaaa"

SUMMARY = {
    "left_out": {"count": 1, "files": [{"uri": "disc/truncated.png", "reason": "image file is truncated"}]},
    "dropped_classes": ["nothing"],
    "duplicates": {"samples": 0},
    "ignored": {"count": 0},
    "notes": [],
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HEADRACE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HEADRACE_EVENTS", str(tmp_path / "events.jsonl"))
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def events(place: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (place / "events.jsonl").read_text().splitlines()]


def test_the_result_is_written_under_the_attempt_that_made_it(place: Path) -> None:
    run_step("split", RUN, "2", lambda step: Outcome({"fingerprint": "f"}, "cached", "known"))
    result = read_result(Store(), RUN, "split", "2.1")
    assert result is not None
    assert (result["fingerprint"], result["state"], result["attempt"]) == ("f", "cached", "2.1")
    assert read_result(Store(), RUN, "split", "1.1") is None
    assert [event["state"] for event in events(place)] == ["running", "cached"]


def test_an_error_is_left_behind_with_its_exit_code(place: Path) -> None:
    def refuse(step: Step) -> Outcome:
        raise GateRefused("no", action="train more")

    with pytest.raises(SystemExit) as left:
        run_step("register", RUN, "1", refuse)
    assert left.value.code == 3
    error = read_error(Store(), RUN, "register", "1.1")
    assert error is not None
    assert (error["type"], error["message"], error["action"]) == ("GateRefused", "no", "train more")
    assert events(place)[-1]["state"] == "failed"


@pytest.mark.parametrize(("site", "tries"), [("{}", 3), ("", 1)], ids=["on a cluster", "on a laptop"])
def test_a_service_that_is_away_in_the_middle_of_a_step_is_waited_for_on_a_cluster_only(
    place: Path, monkeypatch: pytest.MonkeyPatch, site: str, tries: int
) -> None:
    monkeypatch.setenv("HEADRACE_SITE", site)
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.0)
    tried: list[str] = []

    def body(step: Step) -> Outcome:
        tried.append(step.attempt)
        if len(tried) < 3:
            raise Unavailable("the store cannot be reached")
        return Outcome({"package": "p"})

    if site:
        assert run_step("train", RUN, "2", body)["package"] == "p"
        assert [event for event in events(place) if "trying again" in str(event.get("text"))]
    else:
        with pytest.raises(SystemExit) as left:
            run_step("train", RUN, "2", body)
        assert left.value.code == 4
    assert len(tried) == tries


def test_a_store_that_is_down_takes_the_error_but_not_its_exit_code(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    down = Unavailable("s3://bucket/x cannot be reached: nobody answers at http://s3:7070")

    def refuse(*_: object) -> str:
        raise down

    def lose(step: Step) -> Outcome:
        monkeypatch.setattr(Store, "write_json", refuse)
        raise down

    with pytest.raises(SystemExit) as left:
        run_step("train", RUN, "1", lose)
    assert left.value.code == 4
    assert events(place)[-1]["why"] == down.message
    assert "error.json is not written" in capsys.readouterr().err


def test_an_end_with_exit_code_0_and_no_result_is_a_failure(place: Path) -> None:
    with pytest.raises(SystemExit) as left:
        run_step("train", RUN, "1", lambda step: sys.exit(0))
    assert left.value.code == 1
    error = read_error(Store(), RUN, "train", "1.1")
    assert error is not None
    assert error["code"] == "step-lost"


def test_a_process_that_leaves_behind_the_steps_back_does_not_leave_with_0() -> None:
    code = "from headrace.steps import step; step._refuse_silence(); raise SystemExit(0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == LOST_EXIT_CODE


def test_a_superseded_attempt_does_not_even_begin(place: Path) -> None:
    Store().claim_attempt(RUN, "3.1")
    with pytest.raises(SystemExit):
        run_step("split", RUN, "2", lambda step: pytest.fail("it began"))
    error = read_error(Store(), RUN, "split", "2.1")
    assert error is not None
    assert error["type"] == "Superseded"


def test_what_was_not_raised_on_purpose_is_told_in_one_line() -> None:
    step = Step("train", RUN, "1.1")
    failure = as_error(step, ZeroDivisionError("division by zero"))
    assert failure.message == "step train failed: ZeroDivisionError: division by zero"
    assert isinstance(as_error(step, KeyboardInterrupt()), Cancelled)
    raised = Superseded("newer")
    assert as_error(step, raised) is raised


def test_a_signal_waits_for_writes_that_belong_together() -> None:
    done = []

    def write_both() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("both")

    with pytest.raises(KeyboardInterrupt):
        write_both()
    assert done == ["both"]


def test_an_artifact_says_where_the_store_has_the_real_thing(tmp_path: Path) -> None:
    artifact = SimpleNamespace(path=str(tmp_path / "dataset"), metadata={})
    describe(artifact, "/store/splits/f", fingerprint="f", nothing=None)
    assert artifact.metadata == {"uri": "/store/splits/f", "fingerprint": "f"}
    assert (tmp_path / "dataset").read_text() == '{"uri":"/store/splits/f"}'


# split


@pytest.fixture
def splitting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in of splitting: names what was asked for."""
    import headrace.data

    asked: list[str] = []

    def split_data(part: object, *, store: Store, source_fingerprint: str, tell: object) -> object:
        asked.append(source_fingerprint)
        uri = store.uri("splits", source_fingerprint)
        store.write_json(f"{uri}/split.json", {})
        return SimpleNamespace(fingerprint=source_fingerprint, uri=uri, summary=SUMMARY)

    monkeypatch.setitem(headrace.data.__dict__, "split_data", split_data)
    monkeypatch.setitem(headrace.data.__dict__, "fingerprint_source", lambda part: "listed")
    return asked


def split(source_fingerprint: str, part: object = None) -> Outcome:
    step = Step("split", RUN, "1.1")
    return split_once(step, step.store.put_spec(part or {"source": "x"}), source_fingerprint)


def test_the_same_data_is_split_once(splitting: list[str]) -> None:
    assert split("a").state == "succeeded"
    assert split("a").state == "cached"
    assert splitting == ["a"]


def test_what_was_left_out_is_named_when_it_is_split_and_when_it_is_cached(
    splitting: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        split("a")
        told = capsys.readouterr().out
        assert "disc/truncated.png: image file is truncated" in told
        assert "class nothing" in told


def test_changed_data_or_another_request_is_split_anew(splitting: list[str]) -> None:
    split("a")
    assert split("b").state == "succeeded"
    assert split("a", {"source": "y"}).state == "succeeded"


def test_a_split_whose_manifest_is_gone_is_made_again(splitting: list[str]) -> None:
    uri = split("a").values["uri"]
    Path(uri, "split.json").unlink()
    assert split("a").state == "succeeded"


def test_a_scheduled_run_lists_its_source_itself(splitting: list[str]) -> None:
    split("at-run")
    assert splitting == ["listed"]


def test_no_cache_looks_nothing_up(splitting: list[str]) -> None:
    split("a")
    write_note(Store(), "digits-bbbbbbbb", "options", {"cache": False})
    step = Step("split", "digits-bbbbbbbb", "1.1")
    assert split_once(step, step.store.put_spec({"source": "x"}), "a").state == "succeeded"


def test_a_part_that_is_gone_from_the_store_is_named() -> None:
    with pytest.raises(RunFailed, match="is not in the store"):
        Step("split", RUN, "1.1").part("/nowhere/x.json")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SITE", '{"store": {"uri": "s3://b"}, "mlflow": {"trackingURI": "http://m:5000"}}')
    monkeypatch.delenv("HEADRACE_EVENTS")


@pytest.mark.usefixtures("cluster")
def test_a_step_on_a_cluster_takes_the_run_over_and_acts_for_all_attempts_of_its_training(place: Path) -> None:
    Store().claim_attempt(RUN, "1.4")

    def train(step: Step) -> Outcome:
        Store().claim_attempt(RUN, "2.3")
        step.check()
        return Outcome({})

    assert run_step("train", RUN, "2", train)["attempt"] == "2"
    assert read_result(Store(), RUN, "train", "2") is not None
    assert [event["state"] for event in EventReader(Store(), RUN, "2").new()] == ["running", "succeeded"]
    with pytest.raises(SystemExit):
        run_step("register", RUN, "1", lambda step: pytest.fail("it is old"))


@pytest.mark.usefixtures("cluster")
def test_a_pod_that_goes_on_for_another_takes_its_error_back(place: Path) -> None:
    with pytest.raises(SystemExit):
        run_step("train", RUN, "1", lambda step: sys.exit(0))
    assert read_error(Store(), RUN, "train", "1") is not None
    run_step("train", RUN, "1", lambda step: Outcome({}))
    assert read_error(Store(), RUN, "train", "1") is None
