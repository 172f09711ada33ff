"""Runs on a target whose Kubeflow is the stand-in (kfp_stand_in): sent, followed, lost, cancelled, resumed.

The steps are played: they write into the store what real ones write. `test_kubeflow_whole_way` carries real ones out.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
import yaml

import headrace
from headrace.base.errors import InvalidInput, SpecInvalid, Unavailable
from headrace.cli.output import RUN_RECORD
from headrace.store import Store
from headrace.store.step_files import is_cancelled
from headrace_pipelines import sites
from headrace_pipelines.kubeflow import api
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.run import list_runs
from headrace_pipelines.kubeflow.submission import claim
from kfp_stand_in import Script
from kfp_stand_in.bed import IMAGE, METRICS, write_spec, write_targets
from kfp_stand_in.commands import Bed

pytestmark = pytest.mark.timeout(120)


def states(record: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in record["steps"]}


# sent and followed


def test_a_run_prints_the_same_json_as_on_a_laptop_and_where_its_time_went(bed: Bed) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    record = bed.json()
    assert set(record) == {*RUN_RECORD, "kubeflow"}
    assert (record["state"], record["error"], record["metrics"]) == ("succeeded", None, METRICS)
    assert set(states(record).values()) == {"succeeded"}
    assert record["endpoint"]["url"] == "http://front.invalid/digits"
    assert record["model"]["alias"] == "champion"
    spent = record["kubeflow"]
    assert spent["run_id"] == bed.stand_in.runs()[0]["run_id"]
    assert spent["own_seconds"] == pytest.approx(spent["seconds"] - spent["steps_seconds"])
    assert 0 < spent["drivers_seconds"] < spent["own_seconds"]


def test_what_goes_on_is_told_line_by_line(bed: Bed) -> None:
    begin = bed.steps.well("split")

    def split(task: Any) -> Any:
        asked = ("GET", f"/runs/{task.run_id}")
        bed.until(lambda: bed.stand_in.calls.count(asked) > 2)  # so that what Kubeflow was at before has been told
        return begin(task)

    bed.play(split=split)
    assert bed("run", bed.spec, "--on", "kubeflow") == 0
    lines = [line[10:] for line in bed.out.splitlines()]
    assert "split: running" in lines
    assert any(line.startswith(("split: Kubeflow", "split: the pod")) for line in lines)
    assert lines.index("split: running") < lines.index("train: running") < lines.index("deploy: running")
    assert "were Kubeflow's own" in bed.out


def test_the_pipeline_is_uploaded_once_with_the_targets_image(bed: Bed) -> None:
    for _ in range(2):
        assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    world = bed.stand_in.world
    ours = [one for one in world.versions.values() if one["display_name"].startswith("headrace-")]
    assert (len(world.pipelines), len(ours), len(world.experiments)) == (1, 1, 1)
    assert f'image: "{IMAGE}"' in world.texts[ours[0]["pipeline_version_id"]]
    assert len(world.runs) == 2


def test_kubeflow_shows_a_run_by_its_id_and_attempt(bed: Bed) -> None:
    run = bed.begin()
    shown = bed.stand_in.runs()[0]
    assert shown["display_name"] == f"{run.run_id}-1"
    parameters = shown["runtime_config"]["parameters"]
    assert (parameters["run_id"], parameters["attempt"], parameters["request"]) == (run.run_id, "1", "")
    assert parameters["train_spec"].startswith(f"{bed.folder}/store/specs/")


def test_absent_steps_are_skipped(bed: Bed) -> None:
    bed.spec = write_spec(bed.folder, gate=None, register=None, deploy=None)
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    assert states(bed.json()) == {
        "split": "succeeded",
        "train": "succeeded",
        "register": "skipped",
        "deploy": "skipped",
    }


def test_the_service_account_and_the_pipeline_root_come_from_the_target(bed: Bed) -> None:
    bed.target(service_account="headrace-steps", pipeline_root="s3://bucket/kfp")
    bed.begin()
    shown = bed.stand_in.runs()[0]
    assert shown["service_account"] == "headrace-steps"
    assert shown["runtime_config"]["pipeline_root"] == "s3://bucket/kfp"


def test_a_detached_run_is_left_alone_and_found_by_its_id(bed: Bed) -> None:
    bed.play(train=bed.steps.waits("train"))
    assert bed("run", bed.spec, "--on", "kubeflow", "--detach", "--json") == 0
    run_id = bed.json()["run_id"]
    assert bed("status", run_id, "--json") == 0
    assert bed.json()["state"] in {"queued", "running"}


def test_a_killed_command_leaves_the_run_going(bed: Bed) -> None:
    bed.steps.seconds = 0.3
    bed.play()
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", "run", str(bed.spec), "--on", "kubeflow"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        bed.until(lambda: bool(bed.stand_in.runs()), seconds=60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    run_id = bed.stand_in.runs()[0]["display_name"].rsplit("-", 1)[0]
    assert bed.stand_in.life(bed.stand_in.runs()[0]["run_id"]).wait(60)
    assert bed("status", run_id, "--json") == 0
    assert bed.json()["state"] == "succeeded"


# how it ends


def test_a_failed_step_is_told_in_its_own_words(bed: Bed) -> None:
    said = {"type": "RunFailed", "code": "out-of-memory", "message": "worker 1 was killed", "action": "smaller batches"}
    bed.play(train=bed.steps.fails("train", **said))
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    record = bed.json()
    assert (record["state"], states(record)["train"]) == ("failed", "failed")
    error = record["error"]
    assert (error["code"], error["step"], error["message"]) == ("out-of-memory", "train", "worker 1 was killed")
    assert error["log"] == f"headrace logs {record['run_id']}"


def test_a_refused_model_ends_with_3_and_the_gates_verdict(bed: Bed) -> None:
    bed.play(register=bed.steps.refuses())
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 3
    record = bed.json()
    assert record["state"] == "refused"
    assert record["gate"]["passed"] is False
    assert states(record)["deploy"] == "skipped"


def test_a_step_that_left_no_word_is_a_failure_that_says_so(bed: Bed) -> None:
    from kfp_stand_in import Failed

    def killed(_: Any) -> None:
        raise Failed(137)

    bed.play(train=killed)
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    error = bed.json()["error"]
    assert (error["code"], error["step"]) == ("step-lost", "train")
    assert "without a word" in error["message"]


def test_the_log_artifact_tells_what_the_step_could_not(bed: Bed, bucket: str) -> None:
    from kfp_stand_in import Failed

    bed.target(pipeline_root=f"{bucket}/kfp")

    def killed(task: Any) -> None:
        store = Store(f"{bucket}/kfp")
        log = store.uri("headrace", task.run_id, "train", "execution", "executor-logs")
        store.write_bytes(log, b"Traceback (most recent call last):\n  ...\nImportError: libcudart.so\n")
        raise Failed(1)

    bed.play(train=killed)
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    record = bed.json()
    assert record["error"]["message"] == "step train failed: ImportError: libcudart.so"
    assert bed("logs", record["run_id"]) == 0
    assert "ImportError: libcudart.so" in bed.out


def test_a_success_without_results_means_another_store(bed: Bed) -> None:
    bed.stand_in.world.work = Script()
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    error = bed.json()["error"]
    assert error["code"] == "result-missing"
    assert "headrace-site" in error["action"]


def test_the_end_is_still_known_when_kubeflow_has_forgotten_the_run(bed: Bed) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    before = bed.json()
    bed.stand_in.world.runs.clear()
    bed.stand_in.go_away()
    assert bed("status", before["run_id"], "--json") == 0
    assert bed.json() == before


def test_a_pod_that_is_lost_comes_back_and_the_run_succeeds(bed: Bed) -> None:
    from kfp_stand_in.script import Lost

    well = bed.steps.well("train")

    def once(task: Any) -> Any:
        if task.retry == 0:
            raise Lost
        return well(task)

    bed.play(train=once)
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    done = bed.stand_in.world.work
    assert isinstance(done, Script)
    assert [task.retry for task in done.done if task.name == "train"] == [0, 1]


# an image that is not there


def test_a_missing_image_is_found_by_our_own_deadline_and_the_run_is_ended(bed: Bed) -> None:
    bed.target(start_deadline_seconds=1)
    bed.stand_in.world.missing_images = {IMAGE}
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    record = bed.json()
    assert record["error"]["code"] == "step-not-started"
    assert record["error"]["step"] == "split"
    assert IMAGE in record["error"]["action"]
    shown = bed.stand_in.runs()[0]
    bed.until(lambda: shown["state"] == "FAILED")
    assert [entry["state"] for entry in shown["state_history"]][-2:] == ["CANCELING", "FAILED"]
    assert bed("status", record["run_id"], "--json") == 0
    assert bed.json()["error"] == record["error"]


def test_a_status_says_that_a_step_is_overdue_without_ending_anything(bed: Bed) -> None:
    bed.target(start_deadline_seconds=1)
    bed.stand_in.world.missing_images = {IMAGE}
    run = bed.begin()
    bed.until(lambda: bool(run.status()["findings"]))
    record = run.status()
    assert record["state"] == "running"
    assert "step split has not started for" in record["findings"][0]["given"]
    assert bed.stand_in.runs()[0]["state"] == "RUNNING"
    assert bed("status", run.run_id) == 0
    assert "note  step split has not started for" in bed.out


# cancelled and resumed


def test_a_cancelled_run_is_shown_as_cancelled_and_its_steps_know_it(bed: Bed) -> None:
    bed.play(train=bed.steps.waits("train"))
    run = bed.begin()
    bed.running(run, "train")
    assert bed("cancel", run.run_id, "--json") == 0
    record = bed.json()
    assert (record["state"], record["error"]["code"]) == ("cancelled", "cancelled")
    assert bed.stand_in.runs()[0]["state"] == "FAILED"
    assert is_cancelled(run.cluster.store, run.run_id, "1")
    assert run.exit_code() == 130
    assert bed("cancel", run.run_id, "--json") == 0
    assert bed.json() == record


def test_a_run_that_somebody_ended_in_kubeflow_is_cancelled_too(bed: Bed) -> None:
    bed.play(train=bed.steps.waits("train"))
    run = bed.begin()
    bed.running(run, "train")
    run.cluster.kubeflow.terminate(bed.stand_in.runs()[0]["run_id"])
    bed.until(lambda: run.exit_code() is not None)
    assert run.status()["state"] == "cancelled"


def test_a_resumed_run_is_a_new_one_of_kubeflow_and_the_same_of_headrace(bed: Bed) -> None:
    bed.play(train=bed.steps.fails("train", type="RunFailed", code="worker-lost", message="lost", action="again"))
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 1
    run_id = bed.json()["run_id"]
    bed.play()
    assert bed("resume", run_id, "--json") == 0
    record = bed.json()
    assert (record["run_id"], record["state"], record["kubeflow"]["attempt"]) == (run_id, "succeeded", 2)
    assert [one["display_name"] for one in bed.stand_in.runs()] == [f"{run_id}-1", f"{run_id}-2"]
    first, second = (one["runtime_config"]["parameters"] for one in bed.stand_in.runs())
    assert second == {**first, "attempt": "2"}
    assert Cluster.named("kubeflow").store.current_attempt(run_id) == "2"
    assert bed("resume", run_id, "--json") == 0  # it succeeded: nothing is sent
    assert len(bed.stand_in.runs()) == 2


def test_a_run_that_was_claimed_and_never_sent_can_be_resumed(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any, **__: Any) -> Any:
        raise Unavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(api.Kubeflow, "create_run", die)
        with pytest.raises(Unavailable) as raised:
            bed.begin()
    (found,) = list_runs(Cluster.named("kubeflow"))
    assert f"headrace status {found.run_id}" in raised.value.action
    assert found.status()["state"] == "queued"
    monkeypatch.setattr("headrace_pipelines.kubeflow.run.SENDING_SECONDS", 0.0)
    assert found.status()["error"]["code"] == "run-lost"
    assert bed("resume", found.run_id, "--json") == 0
    assert (bed.json()["state"], bed.json()["kubeflow"]["attempt"]) == ("succeeded", 2)
    assert [one["display_name"] for one in bed.stand_in.runs()] == [f"{found.run_id}-2"]


def test_of_two_that_resume_one_sends(bed: Bed) -> None:
    bed.play(train=bed.steps.fails("train", type="RunFailed", code="worker-lost", message="lost", action="again"))
    run = bed.begin()
    bed.until(lambda: run.exit_code() is not None)
    assert claim(run.cluster, run.run_id, 2)
    assert run.resume() is False
    assert len(bed.stand_in.runs()) == 1


# seen from elsewhere


def test_a_second_home_that_has_the_target_sees_ends_and_lists_the_run(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.play(train=bed.steps.waits("train"))
    run = bed.begin()
    bed.running(run, "train")
    monkeypatch.setenv("HEADRACE_HOME", str(bed.folder / "other"))
    write_targets(bed.folder / "other", bed.stand_in, bed.folder / "store")
    assert bed("status", run.run_id, "--json") == 0
    assert states(bed.json())["train"] == "running"
    assert bed("runs", "--on", "kubeflow", "--json") == 0
    assert [one["run_id"] for one in bed.json()["runs"]] == [run.run_id]
    assert bed("cancel", run.run_id, "--json") == 0
    assert run.status()["state"] == "cancelled"


def test_the_list_of_a_machine_has_the_runs_that_it_sent_with_their_target(bed: Bed) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    run_id = bed.json()["run_id"]
    assert bed("runs") == 0
    line = next(line for line in bed.out.splitlines() if run_id in line)
    assert "kubeflow" in line
    assert "succeeded" in line


def test_a_run_whose_target_is_no_longer_known_says_what_to_do(bed: Bed) -> None:
    run = bed.begin()
    (bed.folder / "home" / "targets.yaml").unlink()
    with pytest.raises(InvalidInput) as raised:
        sites.find_run(run.run_id)
    assert "there is no target 'kubeflow'" in raised.value.message


def test_logs_that_cannot_be_had_from_here_are_what_the_steps_told(bed: Bed) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    run_id = bed.json()["run_id"]
    assert bed("logs", run_id) == 0
    assert "no pod and no log artifact can be read from here" in bed.err
    assert [line[10:] for line in bed.out.splitlines()][:2] == ["split: running", "split: succeeded  0.0 s"]


def test_python_runs_on_a_target_as_the_command_does(bed: Bed) -> None:
    told: list[Any] = []
    record = headrace.run(headrace.load_spec(bed.spec), on="kubeflow", tell=told.append)
    assert (record["state"], record["kubeflow"]["target"]) == ("succeeded", "kubeflow")
    assert told[0]["type"] == "attempt"
    data = bed.folder / "data"
    data.mkdir()
    here = {**yaml.safe_load(bed.spec.read_text()), "data": {"source": str(data)}}
    with pytest.raises(SpecInvalid) as raised:
        headrace.run(headrace.load_spec(here), on="kubeflow")
    assert "where kubeflow cannot read it" in raised.value.findings[0].given


# by the clock


def test_a_schedule_is_made_listed_paused_and_ended(bed: Bed) -> None:
    assert bed("schedule", bed.spec, "--cron", "30 2 * * *", "--on", "kubeflow", "--json") == 0
    assert bed.json()["cron"] == "0 30 2 * * *"
    recurring = next(iter(bed.stand_in.world.recurring.values()))
    assert (int(recurring["max_concurrency"]), recurring["no_catchup"]) == (1, True)
    parameters = recurring["runtime_config"]["parameters"]
    assert "run_id" not in parameters
    assert (parameters["source_fingerprint"], parameters["champion"]) == ("at-run", "")
    assert bed("schedule", bed.spec, "--cron", "@daily", "--on", "kubeflow") == 2
    assert "there is a schedule digits on kubeflow" in bed.err
    assert bed("pause", "digits", "--on", "kubeflow") == 0
    assert bed.stand_in.fire("digits") is None
    assert bed("schedules", "--on", "kubeflow", "--json") == 0
    assert bed.json()["schedules"][0]["state"] == "paused"
    assert bed("unpause", "digits", "--on", "kubeflow") == 0
    assert bed("unschedule", "digits", "--on", "kubeflow") == 2  # nobody can be asked
    assert bed("unschedule", "digits", "--on", "kubeflow", "--yes") == 0
    assert not bed.stand_in.world.recurring
    assert bed("unschedule", "digits", "--on", "kubeflow", "--yes") == 2
    assert "there is no schedule 'digits'" in bed.err


def test_a_run_of_a_schedule_has_an_id_of_its_own_and_is_resumed_as_any_other(bed: Bed) -> None:
    bed.play(train=bed.steps.fails("train", type="RunFailed", code="worker-lost", message="lost", action="again"))
    assert bed("schedule", bed.spec, "--cron", "@hourly", "--on", "kubeflow", "--name", "hourly") == 0
    for _ in range(2):
        made = bed.stand_in.fire("hourly")
        assert made is not None
        assert bed.stand_in.life(made["run_id"]).wait(60)
    assert bed("runs", "--on", "kubeflow", "--json") == 0
    newest, oldest = bed.json()["runs"]
    assert newest["run_id"] != oldest["run_id"]
    assert (newest["state"], newest["kubeflow"]["run_id"]) == ("failed", made["run_id"])
    bed.play()
    assert bed("resume", newest["run_id"], "--on", "kubeflow", "--json") == 0
    assert (bed.json()["state"], bed.json()["kubeflow"]["attempt"]) == ("succeeded", 2)
    parameters = bed.stand_in.runs()[-1]["runtime_config"]["parameters"]
    assert (parameters["run_id"], parameters["request"], parameters["source_fingerprint"]) == (
        newest["run_id"],
        "",
        "at-run",
    )
