"""What Headrace makes of Kubeflow's answers: functions of values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import Cancelled, GateRefused, InvalidInput, RunFailed, Unavailable
from headrace.cluster.pods import Pod
from headrace.spec.targets import Target
from headrace.store import Store, s3
from headrace.store.step_files import ask_to_cancel, result_uri, step_uri
from headrace_pipelines.kubeflow import cluster, reasons
from headrace_pipelines.kubeflow.absence import LOST_SECONDS, UNKNOWN_TOKEN_SECONDS, Absence
from headrace_pipelines.kubeflow.answers import refusal, words
from headrace_pipelines.kubeflow.beats import beats
from headrace_pipelines.kubeflow.ir import Ir, check_arguments, ir_for
from headrace_pipelines.kubeflow.schedule import cron_of
from headrace_pipelines.kubeflow.tasks import Seen, moment, read_run
from headrace_pipelines.kubeflow.verdict import Words, judge, judge_unknown
from headrace_pipelines.kubeflow.watch import Watch
from headrace_pipelines.kubeflow.words import words_of

RUN = "digits-aaaaaaaa"
STEPS = ("split", "train", "register", "deploy")
NEVER = "0001-01-01T00:00:00+00:00"


def at(second: int) -> str:
    return f"2026-11-26T10:00:{second:02d}+00:00"


def task(name: str | None, state: str | None, began: int, ended: int | None = None) -> dict[str, Any]:
    found = {
        "display_name": name,
        "state": state,
        "create_time": at(began),
        "start_time": at(began),
        "end_time": NEVER if ended is None else at(ended),
    }
    return {key: value for key, value in found.items() if value is not None}


def kubeflow(state: str, *tasks: dict[str, Any], history: tuple[str, ...] = (), ended: int | None = None) -> Seen:
    return read_run(
        {
            "run_id": "k",
            "state": state,
            "created_at": at(0),
            "finished_at": NEVER if ended is None else at(ended),
            "state_history": [{"state": one, "update_time": at(second)} for second, one in enumerate(history)],
            "run_details": {"task_details": list(tasks)},
        }
    )


# tasks


def test_of_the_tasks_only_steps_and_their_drivers_are_taken() -> None:
    seen = kubeflow(
        "RUNNING",
        task("digits-aaaaaaaa-1-wf", "RUNNING", 0),
        task("root", "RUNNING", 0),
        task("root-driver", "SUCCEEDED", 0, 3),
        task("condition-1", "RUNNING", 4),
        task("split-driver", "SUCCEEDED", 4, 7),
        task("split", "SUCCEEDED", 8, 15),
        task("executor", "SUCCEEDED", 8, 15),
        task("executor(0)", "SUCCEEDED", 8, 15),
        task("train", "RUNNING", 20),
        task(None, None, 3),
        task("train", None, 20),
    )
    assert set(seen.steps) == {"split", "train"}
    assert set(seen.drivers) == {"split"}
    assert (seen.steps["split"].seconds, seen.drivers["split"].seconds) == (7.0, 3.0)
    assert (seen.steps["train"].ended, seen.steps["train"].seconds) == (None, 0.0)


def test_a_step_that_was_tried_again_is_one_span() -> None:
    seen = kubeflow("RUNNING", task("train(0)", "FAILED", 5, 10), task("train(1)", "RUNNING", 20))
    assert (seen.steps["train"].state, seen.steps["train"].began, seen.steps["train"].ended) == (
        "RUNNING",
        moment(at(5)),
        None,
    )


@pytest.mark.parametrize("value", [None, "", NEVER, "0001-01-01T00:00:00Z", "soon"])
def test_what_never_was_is_no_time(value: str | None) -> None:
    assert moment(value) is None


@pytest.mark.parametrize(
    ("state", "over"),
    [
        ("PENDING", False),
        ("RUNNING", False),
        ("CANCELING", False),
        ("PAUSED", False),
        ("SUCCEEDED", True),
        ("FAILED", True),
        ("CANCELED", True),
        ("SKIPPED", True),
        ("ERROR", True),
    ],
)
def test_a_run_is_over_in_every_state_that_is_not_known_to_go_on(state: str, over: bool) -> None:
    assert kubeflow(state).over is over


def test_kubeflows_own_time_is_what_the_steps_do_not_account_for() -> None:
    seen = kubeflow("SUCCEEDED", task("split-driver", "SUCCEEDED", 5, 9), task("split", "SUCCEEDED", 10, 20), ended=50)
    assert beats(seen, {"split": 4.0}) == {
        "seconds": 50.0,
        "steps_seconds": 4.0,
        "own_seconds": 46.0,
        "drivers_seconds": 4.0,
        "pods_seconds": 6.0,
    }
    assert beats(kubeflow("RUNNING"), {})["own_seconds"] is None


# verdicts


def said(*ended: str, **errors: dict[str, Any]) -> Words:
    return Words(STEPS, {step: {"state": "succeeded"} for step in ended}, errors)


def test_a_run_goes_on_while_kubeflow_says_so() -> None:
    assert judge(RUN, kubeflow("PENDING"), said()).state == "queued"
    assert judge(RUN, kubeflow("RUNNING"), said()).state == "running"
    assert judge(RUN, kubeflow("CANCELING", history=("CANCELING",)), said()).exit_code is None


def test_cancelled_is_failed_with_canceling_in_its_history() -> None:
    verdict = judge(RUN, kubeflow("FAILED", history=("PENDING", "RUNNING", "CANCELING", "FAILED")), said("split"))
    assert (verdict.state, verdict.step, verdict.exit_code) == ("cancelled", "train", 130)
    assert judge(RUN, kubeflow("CANCELED"), said()).state == "cancelled"


def test_a_run_whose_every_step_has_ended_well_succeeded_though_it_was_told_to_end() -> None:
    history = ("RUNNING", "CANCELING", "FAILED")
    assert judge(RUN, kubeflow("FAILED", history=history), said(*STEPS)).state == "succeeded"
    assert judge(RUN, kubeflow("SUCCEEDED", history=("CANCELING", "SUCCEEDED")), said(*STEPS)).state == "succeeded"
    verdict = judge(RUN, kubeflow("SUCCEEDED", history=("CANCELING", "SUCCEEDED")), said("split"))
    assert verdict.error is not None
    assert verdict.error.code == "result-missing"


def test_a_step_that_was_told_to_end_was_cancelled_only_where_somebody_wanted_that(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = Cancelled("step train was told to end").to_record()
    store.write_json(step_uri(store, RUN, "train", "1", "error.json"), record)
    moved = words_of(store, RUN, ("train",), "1")
    assert judge(RUN, kubeflow("FAILED"), moved).unexplained
    assert judge_unknown(RUN, "https://x", moved).state == "failed"
    ask_to_cancel(store, RUN, "1")
    assert judge(RUN, kubeflow("FAILED"), words_of(store, RUN, ("train",), "1")).state == "cancelled"


def test_what_the_tries_of_a_training_say_is_not_the_steps_word(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_json(step_uri(store, RUN, "train", "1.1", "error.json"), RunFailed("lost").to_record())
    store.write_json(result_uri(store, RUN, "train", "1.2"), {"state": "succeeded"})
    told = words_of(store, RUN, STEPS, "1")
    assert (told.results, told.errors) == ({}, {})


def test_of_a_runs_pods_only_those_since_the_step_began_tell_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Pod("split", {}, "Failed", failure="OOMKilled", created=100.0)
    killed = Pod("train", {}, "Failed", failure="was killed", created=160.0)
    monkeypatch.setattr(reasons, "pods_of", lambda *_: [lost, killed])
    site = Target.model_validate({"kubeflow": {"host": "https://x"}, "image": "i", "store": "/x"})
    there, otherwise = cluster.Cluster("x", site), RunFailed("silent", code="step-lost")
    assert "was killed" in reasons.explained(there, "k", "train", otherwise, since=150.5).message
    monkeypatch.setattr(reasons, "pods_of", lambda *_: [lost])
    assert reasons.explained(there, "k", "train", otherwise, since=150.5) is otherwise
    assert reasons.explained(there, "k", "split", otherwise, since=100.9).code == "out-of-memory"


def test_a_step_begins_with_its_driver() -> None:
    seen = kubeflow("FAILED", task("train-driver", "SUCCEEDED", 20, 23), task("train", "FAILED", 25, 30))
    assert seen.began("train") == moment(at(20))
    assert seen.began("deploy") is None


@pytest.mark.parametrize("root", ["gs://bucket/kfp", "minio://mlpipeline/v2", "s3://bucket/kfp"])
def test_a_log_that_cannot_be_read_from_here_leaves_what_is_known(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REPEATS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    host = {"host": "https://x", "pipeline_root": root}
    site = Target.model_validate({"kubeflow": host, "image": "i", "store": "/x"})
    there, otherwise = cluster.Cluster("x", site), RunFailed("silent", code="step-lost")
    assert reasons.explained(there, "k", "train", otherwise, since=None) is otherwise
    told: list[str] = []
    assert list(reasons.logs(there, "k", told.append)) == []
    assert len(told) == 1


def test_a_steps_own_word_is_why_it_failed() -> None:
    record = GateRefused("no", action="train more").to_record()
    verdict = judge(RUN, kubeflow("FAILED"), said("split", "train", register=record))
    assert (verdict.state, verdict.step, verdict.exit_code) == ("refused", "register", 3)


def test_a_step_without_a_word_asks_for_its_pod() -> None:
    verdict = judge(RUN, kubeflow("FAILED"), said("split"))
    assert verdict.unexplained
    assert (verdict.step, verdict.exit_code) == ("train", 1)


def test_a_success_is_one_when_every_step_left_its_result() -> None:
    assert judge(RUN, kubeflow("SUCCEEDED"), said(*STEPS)).exit_code == 0
    verdict = judge(RUN, kubeflow("SUCCEEDED"), said("split"))
    assert verdict.error is not None
    assert verdict.error.code == "result-missing"


def test_a_run_that_kubeflow_has_forgotten_is_judged_by_its_words() -> None:
    assert judge_unknown(RUN, "https://x", said(*STEPS)).state == "succeeded"
    verdict = judge_unknown(RUN, "https://x", said("split"))
    assert verdict.error is not None
    assert "https://x" in verdict.error.message


# watching


def test_kubeflow_is_told_of_only_between_steps_and_once() -> None:
    watch = Watch(STEPS, 100.0)
    assert watch.kubeflow(kubeflow("PENDING")) == [
        {"type": "message", "step": "split", "text": "Kubeflow has not begun yet"}
    ]
    assert watch.kubeflow(kubeflow("PENDING")) == []
    (told,) = watch.kubeflow(kubeflow("RUNNING", task("split-driver", "RUNNING", 1)))
    assert told["text"] == "Kubeflow prepares split"
    (told,) = watch.kubeflow(kubeflow("RUNNING", task("split-driver", "SUCCEEDED", 1, 4)))
    assert told["text"] == "the pod of split starts"
    watch.take({"type": "step", "step": "split", "state": "running", "time": 110.0})
    assert watch.kubeflow(kubeflow("RUNNING", task("split", "RUNNING", 5))) == []
    watch.take({"type": "step", "step": "split", "state": "succeeded", "time": 120.0})
    assert watch.next_step == "train"


def test_quiet_is_counted_from_the_last_word_and_only_while_a_step_is_awaited() -> None:
    watch = Watch(STEPS, 100.0)
    assert watch.awaited_seconds(130.0) == 30.0
    watch.take({"type": "step", "step": "split", "state": "running", "time": 110.0})
    assert (watch.awaited_seconds(1000.0), watch.quiet_seconds(1000.0)) == (0.0, 890.0)
    watch.take({"type": "step", "step": "split", "state": "cached", "time": 120.0})
    assert watch.awaited_seconds(125.0) == 5.0


@pytest.mark.parametrize("state", ["PENDING", "PAUSED"])
def test_no_pod_is_late_while_kubeflow_makes_none(state: str) -> None:
    began = moment(at(0)) or 0.0
    watch = Watch(STEPS, began)
    watch.take_kubeflow(kubeflow(state))
    assert watch.awaited_seconds(began + 5000.0) == 0.0
    running = kubeflow("RUNNING", history=(state, "RUNNING"))
    watch.take_kubeflow(running)
    assert running.since == moment(at(1))
    assert watch.awaited_seconds(began + 5000.0) == 4999.0


def test_a_step_whose_events_were_lost_is_not_awaited_once_kubeflow_knows_it_over() -> None:
    watch = Watch(STEPS, moment(at(0)) or 0.0)
    watch.take_kubeflow(kubeflow("RUNNING", task("split", "SUCCEEDED", 5, 10), task("train", "RUNNING", 12)))
    assert watch.next_step == "train"
    assert watch.awaited_seconds((moment(at(0)) or 0.0) + 30.0) == 20.0


def test_an_absence_is_told_once_forgiven_for_a_while_and_then_raised() -> None:
    now = [0.0]
    absence = Absence(lambda: now[0])
    gone = Unavailable("gone")
    assert len(absence.met(gone)) == 1
    assert absence.met(gone) == []
    assert absence.over() == [{"type": "message", "step": None, "text": "all answers again"}]
    assert absence.over() == []
    absence.met(gone)
    now[0] = LOST_SECONDS + 1
    with pytest.raises(Unavailable):
        absence.met(gone)


def test_a_token_that_is_being_renewed_is_forgiven_for_a_shorter_while() -> None:
    now = [0.0]
    absence = Absence(lambda: now[0])
    unknown = refusal(401, "", "https://x", "read the run")
    assert len(absence.met(unknown)) == 1
    now[0] = UNKNOWN_TOKEN_SECONDS + 1
    with pytest.raises(InvalidInput):
        absence.met(unknown)
    with pytest.raises(InvalidInput):
        Absence().met(refusal(403, "", "https://x", "read the run"))


# answers


def test_a_refusal_is_told_in_kubeflows_words_wherever_they_stand() -> None:
    assert words(json.dumps({"error_message": "an upload's"})) == "an upload's"
    assert words(json.dumps({"code": 5, "message": "all others'", "details": []})) == "all others'"
    assert words("<HTML>a proxy's</html>") == ""
    assert len(words("x" * 5000)) == 600


@pytest.mark.parametrize(("status", "code"), [(401, 2), (403, 2), (404, 1), (500, 1), (502, 4), (503, 4), (504, 4)])
def test_every_status_has_its_exit_code(status: int, code: int) -> None:
    assert refusal(status, "{}", "https://x", "read the run").exit_code == code


# what it costs


def test_nothing_heavy_is_imported_until_kubeflow_is_asked() -> None:
    heavy = ("torch", "ray", "mlflow", "kfp", "kfp_server_api", "kubernetes", "pandas", "boto3", "s3fs")
    code = (
        "import sys, headrace_pipelines.sites, headrace_pipelines.kubeflow.run, headrace_pipelines.kubeflow.schedule\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# the environment


def test_a_target_takes_nothing_of_another_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADRACE_STORE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine")
    host = {"host": "https://x"}
    one = {"kubeflow": host, "image": "i", "store": "/one", "mlflow": "http://one", "s3_endpoint": "http://s3"}
    two = {"kubeflow": host, "image": "i", "store": "/two"}
    monkeypatch.setattr(cluster, "find_target", lambda name: Target.model_validate({"one": one, "two": two}[name]))
    cluster.Cluster.named("one")
    assert (os.environ["HEADRACE_STORE"], os.environ["MLFLOW_TRACKING_URI"]) == ("/one", "http://one")
    cluster.Cluster.named("two")
    assert (os.environ["HEADRACE_STORE"], os.environ["MLFLOW_TRACKING_URI"]) == ("/two", "http://mine")
    assert "AWS_ENDPOINT_URL" not in os.environ


# the pipeline and its arguments


def test_the_image_goes_into_every_step_and_makes_another_version() -> None:
    one, other = ir_for("a.example.com/x:1"), ir_for("a.example.com/x:2")
    assert one.text.count('image: "a.example.com/x:1"') == 4
    assert "headrace-python" not in one.text
    assert one.version != other.version
    assert one.version == ir_for("a.example.com/x:1").version


def test_types_and_names_are_checked_before_anything_is_sent() -> None:
    ir = Ir("", "v", {"epochs": {"parameterType": "NUMBER_INTEGER"}, "name": {"parameterType": "STRING"}})
    check_arguments(ir, {"epochs": 2, "name": "x"})
    with pytest.raises(InvalidInput) as raised:
        check_arguments(ir, {"epochs": 2.5, "other": "x"})
    assert {finding.where for finding in raised.value.findings} == {"epochs", "other", "name"}


# cron


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        ("30 2 * * *", "0 30 2 * * *"),
        ("*/15 * * * 1-5", "0 */15 * * * 1-5"),
        ("0 0 9 ? * 2-6", "0 0 9 ? * 2-6"),
        ("0 8,20 1 jan mon", "0 0 8,20 1 jan mon"),
        ("0 8 1 Feb-dec mon-FRI", "0 0 8 1 Feb-dec mon-FRI"),
        ("@daily", "@daily"),
    ],
)
def test_five_fields_become_kubeflows_six(text: str, cron: str) -> None:
    assert cron_of(text) == cron


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * *",
        "60 * * * *",
        "* 24 * * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "@never",
        "* * * * 7",
        "* * * foo *",
        "* * * mon *",
        "* jan * * *",
        "* * * * fri-mon",
    ],
)
def test_what_cannot_be_read_is_refused_before_kubeflow_sees_it(text: str) -> None:
    with pytest.raises(InvalidInput):
        cron_of(text)
