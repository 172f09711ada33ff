"""How a run on a cluster ends where something goes wrong on the way: whose word counts, and that nothing is left going.

Kubeflow is its stand-in, and steps are played.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace.base.errors import RunFailed, Unavailable
from headrace.store.step_files import is_cancelled
from headrace_pipelines.kubeflow import absence, api, connection, following, run
from headrace_pipelines.kubeflow.cluster import Cluster
from kfp_stand_in import Beats, Failed
from kfp_stand_in.bed import IMAGE, run_of_task
from kfp_stand_in.commands import Bed
from kfp_stand_in.script import Lost

pytestmark = pytest.mark.timeout(120)
LOST = {"type": "RunFailed", "code": "worker-lost", "message": "worker 2 was lost", "action": "again"}
CANCELLED = {"type": "Cancelled", "code": "cancelled", "message": "step train was told to end", "action": ""}
PAGE = (200, "text/html", "<html>sign in</html>")


class Clock:
    """The follower's, which can be put forward."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        self.asked = 0

    def time(self) -> float:
        self.asked += 1
        return time.time() + self.ahead_seconds

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def history(bed: Bed) -> list[str]:
    return [entry["state"] for entry in bed.stand_in.runs()[0]["state_history"]]


# the operator has a training done again


def test_a_training_that_is_tried_again_is_no_step_that_failed_and_may_wait_long_for_its_turn(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(following, "time", clock)
    stood: list[dict[str, Any]] = []

    def wait() -> None:
        (found,) = run.list_runs(Cluster.named("kubeflow"))
        clock.ahead_seconds = 2.5 * found.start_deadline_seconds  # as for Kueue: longer than a pod may take to start
        asked = clock.asked
        bed.until(lambda: clock.asked > asked + 3)  # whoever follows has looked
        stood.append(found.status())
        clock.ahead_seconds = 0.0  # the next steps do not wait

    bed.play(train=bed.steps.trying(failing=1, quiet=wait, **LOST))
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    assert (stood[0]["state"], stood[0]["error"], stood[0]["findings"]) == ("running", None, None)
    assert next(step["state"] for step in stood[0]["steps"] if step["name"] == "train") == "running"


def test_a_step_that_dies_after_a_tried_training_has_said_nothing(bed: Bed) -> None:
    def die() -> None:
        raise Failed(137)

    bed.play(train=bed.steps.trying(failing=2, quiet=die, **LOST))
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    assert bed.json()["error"]["code"] == "step-lost"


def test_a_pod_that_was_told_to_end_was_lost_unless_somebody_cancelled_the_run(bed: Bed) -> None:
    bed.play(train=bed.steps.fails("train", **CANCELLED))
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    assert (bed.json()["state"], bed.json()["error"]["code"]) == ("failed", "step-lost")


def test_a_run_that_is_cancelled_when_all_is_done_succeeded(bed: Bed) -> None:
    well = bed.steps.well("deploy")

    def slow(task: Any) -> Any:
        bed.steps.tell(task, {"type": "step", "step": "deploy", "state": "running"})
        task.stop.wait()
        task.stop.clear()
        return well(task)

    bed.play(deploy=slow)
    found = bed.begin()
    bed.running(found, "deploy")
    assert bed("cancel", found.run_id, "--json") == 0
    assert bed.json()["state"] == "succeeded"
    assert history(bed)[-2:] == ["CANCELING", "FAILED"]


# Kubeflow answers otherwise than it should


def meanwhile(bed: Bed, do: Callable[[], None]) -> None:
    """Do it when a run is there, while it is followed."""

    def wait() -> None:
        bed.until(lambda: bool(bed.stand_in.runs()))
        do()

    threading.Thread(target=wait, daemon=True).start()


def reading(answer: tuple[int, str, str]) -> Callable[[str, str], tuple[int, str, str] | None]:
    return lambda method, path: answer if method == "GET" and path.startswith("/runs/") else None


def test_a_login_page_in_mid_run_is_called_one_and_the_run_goes_on(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "UNKNOWN_TOKEN_SECONDS", 0.5)
    bed.play(train=bed.steps.waits("train"))
    meanwhile(bed, lambda: setattr(bed.stand_in, "intercept", reading(PAGE)))
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 2
    assert bed.json()["error"]["code"] == "kubeflow-unauthorized"
    assert "is it a login?" in bed.err
    assert bed.stand_in.runs()[0]["state"] in {"PENDING", "RUNNING"}


def test_an_error_of_the_server_in_mid_run_passes(bed: Bed) -> None:
    over = threading.Event()
    bed.play(train=bed.steps.waits_for(over, "train"))
    locked = reading((500, "application/json", '{"code": 13, "message": "database is locked"}'))
    failed: list[str] = []

    def fail(method: str, path: str) -> tuple[int, str, str] | None:
        answer = locked(method, path)
        failed.extend([path] if answer else [])
        return answer

    def trouble() -> None:
        bed.stand_in.intercept = fail
        bed.until(lambda: len(failed) > 3)
        bed.stand_in.intercept = lambda method, path: None
        over.set()

    meanwhile(bed, trouble)
    assert bed("run", bed.spec, "--on", "kubeflow") == 0
    assert bed.out.count("cannot be reached: HTTP 500") == 1


def test_a_known_end_and_the_logs_of_it_need_no_kubeflow(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    ended = bed.json()
    bed.stand_in.go_away()
    monkeypatch.setattr(connection.Connection.__init__, "__kwdefaults__", {"patience_seconds": 0.2})
    assert bed("resume", ended["run_id"], "--json") == 0  # which follows it
    assert bed.json() == ended
    assert bed("logs", ended["run_id"]) == 0
    assert "deploy: succeeded" in bed.out


def test_why_logs_cannot_be_had_is_told_before_what_the_steps_told(bed: Bed) -> None:
    bed.target(pipeline_root="minio://mlpipeline/v2/artifacts")
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    assert bed("logs", bed.json()["run_id"]) == 0
    assert "the store inside Kubeflow (minio://mlpipeline/v2/artifacts)" in bed.err
    assert "split: running" in bed.out


def test_lists_are_read_to_their_last_page(bed: Bed) -> None:
    bed.stand_in.world.largest_page = 1
    for name in ("a", "b", "c"):
        assert bed("schedule", bed.spec, "--cron", "@daily", "--on", "kubeflow", "--name", name) == 0
    assert bed("schedules", "--on", "kubeflow", "--json") == 0
    assert [one["name"] for one in bed.json()["schedules"]] == ["a", "b", "c"]


# ended


def test_a_run_that_is_given_up_is_ended_in_kubeflow_before_it_is_said_to_have_ended(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.target(start_deadline_seconds=1)
    bed.stand_in.world.missing_images = {IMAGE}
    terminate, asked = api.Kubeflow.terminate, []

    def lost_once(self: api.Kubeflow, run_id: str) -> None:
        asked.append(run_id)
        if len(asked) == 1:
            raise Unavailable("gone")
        terminate(self, run_id)

    monkeypatch.setattr(api.Kubeflow, "terminate", lost_once)
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    assert bed.json()["error"]["code"] == "step-not-started"
    bed.until(lambda: history(bed)[-1] == "FAILED")
    assert "CANCELING" in history(bed)


def test_a_run_that_could_not_be_given_up_goes_on_when_its_pod_starts_after_all(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.target(start_deadline_seconds=1)
    asked, well = threading.Event(), bed.steps.well("split")

    def lost(self: api.Kubeflow, run_id: str) -> None:
        asked.set()
        raise Unavailable("gone")

    def late(task: Any) -> Any:
        assert asked.wait(60)
        return well(task)

    def train(task: Any) -> Any:  # as a real one, which looks whether it is wanted
        wished = is_cancelled(bed.steps.store, run_of_task(task), "1")
        return (bed.steps.fails("train", **CANCELLED) if wished else bed.steps.well("train"))(task)

    monkeypatch.setattr(api.Kubeflow, "terminate", lost)
    bed.play(split=late, train=train)
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0


def test_a_run_that_was_given_up_is_not_cancelled_though_its_end_could_not_be_written(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.stand_in.world.missing_images = {IMAGE}
    terminate = api.Kubeflow.terminate

    def answer_lost(self: api.Kubeflow, run_id: str) -> None:
        terminate(self, run_id)
        raise Unavailable("gone")

    monkeypatch.setattr(api.Kubeflow, "terminate", answer_lost)
    found = bed.begin()
    assert found.seen() is not None
    with pytest.raises(Unavailable):
        found.give_up(RunFailed("step split has not started", code="step-not-started"), "split")
    bed.until(lambda: found.exit_code() is not None)
    assert (found.exit_code(), found.status()["error"]["code"]) == (1, "step-not-started")


def test_a_run_that_could_not_be_given_up_and_is_cancelled_then_is_cancelled(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.stand_in.world.missing_images = {IMAGE}

    def lost(self: api.Kubeflow, run_id: str) -> None:
        raise Unavailable("gone")

    found = bed.begin()
    assert found.seen() is not None
    with monkeypatch.context() as patched:
        patched.setattr(api.Kubeflow, "terminate", lost)
        with pytest.raises(Unavailable):
            found.give_up(RunFailed("step split has not started", code="step-not-started"), "split")
    assert bed("cancel", found.run_id, "--json") == 0
    assert bed.json()["state"] == "cancelled"


def test_a_cancel_reaches_the_steps_also_while_kubeflow_is_away(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def until_cancelled(task: Any) -> Any:
        bed.steps.tell(task, {"type": "step", "step": "train", "state": "running"})
        bed.until(lambda: is_cancelled(bed.steps.store, run_of_task(task), "1"))
        return bed.steps.fails("train", **CANCELLED)(task)

    bed.play(train=until_cancelled)
    found = bed.begin()
    bed.running(found, "train")
    bed.stand_in.go_away()
    monkeypatch.setattr(connection.Connection.__init__, "__kwdefaults__", {"patience_seconds": 0.2})
    assert bed("cancel", found.run_id, "--json") == 4
    assert f"Kubeflow was not told to end run {found.run_id}" in bed.json()["error"]["message"]
    assert bed.stand_in.life(bed.stand_in.runs()[0]["run_id"]).wait(60)
    bed.stand_in.come_back()
    assert bed("status", found.run_id, "--json") == 0
    assert bed.json()["state"] == "cancelled"


def test_the_pods_are_looked_at_when_a_step_that_ran_falls_silent(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(following, "PODS_SECONDS", 0.1)
    monkeypatch.setattr(run.ClusterRun, "why_waiting", lambda _: "train-pod: no node takes it")
    told: list[str] = []

    def silent() -> None:
        bed.until(lambda: "train-pod: no node takes it" in told)
        raise Lost

    bed.play(train=bed.steps.trying(failing=0, quiet=silent))
    bed.stand_in.world.retry_policy = "OnFailure"
    found = bed.begin()
    bed.running(found, "train")
    for event in found.follow():
        if event["type"] == "waiting":
            told.append(event["text"])
            break
    assert told == ["train-pod: no node takes it"]


def test_a_run_that_is_cancelled_while_it_is_being_sent_is_not_left_going(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = api.Kubeflow.create_run
    bed.play(train=bed.steps.waits("train"))

    def cancelled_first(self: api.Kubeflow, name: str, **given: Any) -> Any:
        assert bed("cancel", name.rsplit("-", 1)[0], "--json") == 0
        assert bed.json()["state"] == "cancelled"
        return create(self, name, **given)

    monkeypatch.setattr(api.Kubeflow, "create_run", cancelled_first)
    found = bed.begin()
    bed.until(lambda: history(bed)[-1] == "FAILED")
    assert "CANCELING" in history(bed)
    assert found.status()["state"] == "cancelled"


def test_ctrl_c_while_a_run_is_being_sent_cancels_it_as_later(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    create = api.Kubeflow.create_run
    bed.play(train=bed.steps.waits("train"))

    def interrupted(self: api.Kubeflow, name: str, **given: Any) -> Any:
        create(self, name, **given)
        raise KeyboardInterrupt

    monkeypatch.setattr(api.Kubeflow, "create_run", interrupted)
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 130
    assert bed.json()["state"] == "cancelled"
    assert history(bed)[-2:] == ["CANCELING", "FAILED"]


def test_a_cancel_that_kubeflow_does_not_carry_out_is_no_success(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CANCEL_SECONDS", 0.3)
    bed.play(train=bed.steps.waits("train"))
    found = bed.begin()
    bed.running(found, "train")
    bed.stand_in.world.beats = Beats(scale=1.0, terminate=600.0)
    assert bed("cancel", found.run_id, "--json") == 4
    assert bed.json()["error"]["code"] == "not-ended-yet"
