"""What is done about a TrainingRun in every situation: a plan is a function of what was seen and of the time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.api.training_run import TrainingRunSpec, TrainingRunStatus
from headrace_operators.mlflow import RunReport
from headrace_operators.pods import Pod
from headrace_operators.runtime.actions import Create, Delete, Plan, Tell
from headrace_operators.runtime.conditions import find, rfc3339
from headrace_operators.training_run.observe import HeadGone, Job, Observed, Place, Reading
from headrace_operators.training_run.plan import plan

NOTHING = Plan()
NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
SPEC = {
    "tasks": [{"name": "image-classification"}],
    "model": {"name": "convnet"},
    "manifestURI": "s3://bucket/splits/abc",
    "store": {"uri": "s3://bucket/prefix"},
    "mlflow": {"trackingURI": "http://mlflow:5000"},
    "maxRetries": 2,
}
REPORT = RunReport("m1", "7", checkpoint_uri="s3://bucket/checkpoints/4", checkpoint_epoch=4, metrics={"loss": 0.5})


def at(seconds: float) -> datetime:
    """So many seconds after the beginning."""
    return NOW + timedelta(seconds=seconds)


@dataclass(frozen=True)
class Scene:
    """One TrainingRun, and what plans have made of it so far."""

    seen: Observed
    plan: Plan = NOTHING

    @property
    def status(self) -> TrainingRunStatus:
        return self.seen.status

    def look(self, seconds: float = 0, **changes: Any) -> Scene:
        """Plan with CHANGES to what is seen, and store the status."""
        seen = replace(self.seen, **changes)
        made = plan(seen, at(seconds))
        if made.status is None:
            return Scene(seen, made)
        status = TrainingRunStatus.model_validate(made.status)
        return Scene(replace(seen, status=status, run={**seen.run, "status": made.status}), made)

    def condition(self, type_: str) -> tuple[str, str]:
        found = find(self.seen.run["status"]["conditions"], type_)
        assert found is not None
        return found["status"], found["reason"]

    def actions(self, kind: type) -> list[Any]:
        return [action for action in self.plan.actions if isinstance(action, kind)]

    def told(self) -> list[str]:
        return [action.reason for action in self.actions(Tell)]


def run(**changes: Any) -> Scene:
    """A TrainingRun that nobody has looked at."""
    metadata = {"name": "digits", "namespace": "team", "uid": "run-uid", "generation": 1}
    obj = {"apiVersion": "headrace.dev/v1alpha1", "kind": "TrainingRun", "metadata": metadata, "status": {}}
    spec = TrainingRunSpec.model_validate({**SPEC, **changes})
    return Scene(Observed(run=obj, spec=spec, status=TrainingRunStatus(), image="image"))


def job(scene: Scene, **changes: Any) -> Job:
    """The RayJob of the current attempt."""
    status = scene.status
    return replace(Job(f"digits-{status.attempt}", f"job-{status.attempt}", status.attempt), **changes)


def head(uid: str = "head-1", **changes: Any) -> Pod:
    return replace(Pod(f"pod-{uid}", uid, "head", "Running", ready=True), **changes)


def waiting(**spec: Any) -> Scene:
    """The first attempt's RayJob is there, nothing runs."""
    scene = run(**spec).look().look()
    return scene.look(jobs=(job(scene, suspended="queue" in spec),))


def running(**spec: Any) -> Scene:
    """The first attempt runs."""
    scene = waiting(**spec)
    there = job(scene, deployment="Running", status="RUNNING", driver_start_time="2026-11-26T12:00:00Z", generation=2)
    return scene.look(jobs=(there,), pods=(head(),))


def ended(scene: Scene, message: str = "", seconds: float = 0, **changes: Any) -> Job:
    """The current attempt's RayJob, failed."""
    failed = {"deployment": "Failed", "status": "FAILED", "reason": "AppFailed", "end_time": at(seconds)}
    return job(scene, **{**failed, "message": message, **changes})


def told(code: str, *, permanent: bool) -> str:
    """The end of a driver's log."""
    flag = "true" if permanent else "false"
    return (
        f'Job failed:\nTraceback\nHEADRACE_FAILURE {{"code": "{code}", "message": "so it is", "permanent": {flag}}}\n'
    )


def gone(seconds: float, **changes: Any) -> HeadGone:
    return HeadGone(at(seconds), **changes)


# Beginning


def test_the_attempt_is_stored_before_its_ray_job_is_created() -> None:
    scene = run().look()
    assert not scene.actions(Create)
    assert (scene.status.attempt, scene.status.ray_job_name, scene.status.ray_job_uid) == (1, "digits-1", None)


def test_the_ray_job_of_the_stored_attempt_is_created() -> None:
    scene = run().look().look()
    (create,) = scene.actions(Create)
    assert create.manifest["metadata"]["name"] == "digits-1"
    assert scene.told() == ["AttemptCreated"]


def test_the_same_plan_after_a_kill_creates_the_same_ray_job() -> None:
    opened = run().look()
    assert opened.look().actions(Create) == opened.look(seconds=60).actions(Create)


def test_the_ray_jobs_uid_is_stored_when_it_is_seen() -> None:
    scene = waiting()
    assert scene.status.ray_job_uid == "job-1"
    assert not scene.actions(Create)


def test_a_refused_spec_makes_no_attempt_and_says_why() -> None:
    scene = run().look(errors=("spec.model.name: no such model",))
    assert scene.condition("Accepted") == ("False", "SpecInvalid")
    assert (scene.status.phase, scene.status.attempt) == ("Pending", 0)
    assert "no such model" in scene.status.message


def test_a_mended_spec_makes_its_attempt() -> None:
    scene = run().look(errors=("wrong",)).look(errors=())
    assert scene.condition("Accepted") == ("True", "Valid")
    assert scene.status.attempt == 1


def test_a_spec_that_is_spoilt_during_an_attempt_leaves_the_attempt_alone() -> None:
    scene = running().look(errors=("wrong",))
    assert scene.status.phase == "Running"
    assert not scene.actions(Delete)


def test_without_kuberay_it_waits_and_looks_again() -> None:
    scene = run().look(kuberay=False)
    assert scene.condition("Running") == ("False", "KubeRayMissing")
    assert scene.plan.again_after_seconds == 10
    assert scene.look(kuberay=True).status.attempt == 1


def test_a_ray_job_of_that_name_that_is_not_ours_is_left_alone() -> None:
    scene = run().look(jobs=(Job("digits-1", "other", 1, owned=False),))
    assert scene.condition("Running") == ("False", "NameTaken")
    assert (scene.plan.actions, scene.status.attempt) == ((), 0)


def test_what_may_be_wrong_is_told_and_does_no_harm() -> None:
    scene = run().look(warnings=("pods.worker.gpu: 2 stand idle",))
    accepted = find(scene.seen.run["status"]["conditions"], "Accepted")
    assert accepted is not None
    assert accepted["status"] == "True"
    assert "stand idle" in accepted["message"]


# Waiting


@pytest.mark.parametrize(
    ("reason", "words", "changes"),
    [
        ("NotTakenUp", "KubeRay has not taken up", {}),
        ("PodsRefused", "exceeded quota", {"deployment": "Initializing", "refused": "exceeded quota: pods"}),
        ("ImagePullFailed", "registry/none:1", {"deployment": "Initializing", "trouble": ("image", "registry/none:1")}),
        ("PodMisconfigured", 'secret "s3"', {"deployment": "Initializing", "trouble": ("config", 'secret "s3" not')}),
        ("Unschedulable", "1 of 1 pods", {"deployment": "Initializing", "trouble": ("unschedulable", "0/3 nodes")}),
        ("HeadCrashes", "OOMKilled", {"deployment": "Initializing", "trouble": ("crash", "OOMKilled, exit code 137")}),
        ("HeadNotReady", "starts", {"deployment": "Initializing", "trouble": None}),
        ("DriverStarts", "Ray starts the driver", {"deployment": "Running"}),
    ],
)
def test_why_it_waits_stands_in_words(reason: str, words: str, changes: dict[str, Any]) -> None:
    scene = waiting()
    pods = (head(ready=False, trouble=changes["trouble"]),) if "trouble" in changes else ()
    there = job(scene, deployment=changes.get("deployment", ""))
    scene = scene.look(jobs=(there,), pods=pods, refused=changes.get("refused", ""))
    assert (scene.status.phase, scene.condition("Running")) == ("Waiting", ("False", reason))
    assert words in scene.status.message


def test_workers_that_are_missing_are_counted() -> None:
    scene = waiting(train={"workers": {"min": 1, "max": 3}})
    workers = (head(), Pod("w1", "w1", "worker", "Running", ready=True), Pod("w2", "w2", "worker"))
    scene = scene.look(jobs=(job(scene, deployment="Initializing"),), pods=workers)
    assert "1 of 3 workers ready" in scene.status.message


def test_the_queues_own_words_say_why_it_waits() -> None:
    scene = waiting(queue="gpus").look(place=Place(waits="insufficient unused quota for cpu"))
    assert scene.condition("Running") == ("False", "WaitsForQuota")
    assert scene.status.message == "queue gpus: insufficient unused quota for cpu"
    assert scene.told() == ["Waiting"]


def test_until_kueue_says_why_it_is_only_queued() -> None:
    scene = waiting(queue="gpus")
    assert scene.condition("Running") == ("False", "NotQueued")
    scene = scene.look(place=Place())
    assert (scene.condition("Running"), scene.told()) == (("False", "Queued"), [])


def test_the_wait_in_the_queue_has_no_deadline_before_it_runs() -> None:
    scene = waiting(queue="gpus", preRunningDeadlineSeconds=10).look(seconds=86400)
    assert scene.status.phase == "Waiting"


def test_it_says_when_the_attempt_will_have_failed() -> None:
    scene = waiting(preRunningDeadlineSeconds=60)
    scene = scene.look(jobs=(job(scene, deployment="Initializing", start_time=NOW),))
    assert f"fails at {rfc3339(at(60))}" in scene.status.message


def test_a_trouble_is_told_once() -> None:
    scene = waiting()
    there = job(scene, deployment="Initializing")
    troubled = head(ready=False, trouble=("image", "none:1"))
    first = scene.look(jobs=(there,), pods=(troubled,))
    assert first.told() == ["Waiting"]
    assert first.look().told() == []


def test_an_attempt_that_kuberay_forgot_ends_a_minute_after_its_time() -> None:
    scene = waiting(preRunningDeadlineSeconds=60)
    stuck = job(scene, deployment="Initializing", start_time=NOW)
    assert scene.look(jobs=(stuck,)).plan.again_after_seconds == 120
    assert scene.look(119, jobs=(stuck,)).status.failures == 0
    assert scene.look(120, jobs=(stuck,)).condition("Running") == ("False", "PreRunningDeadlineExceeded")


# Running


def test_it_runs_when_ray_says_that_its_driver_runs() -> None:
    scene = running()
    assert (scene.status.phase, scene.condition("Running")) == ("Running", ("True", "DriverRuns"))
    assert (scene.status.head_pod_uid, scene.status.job_start_time) == ("head-1", "2026-11-26T12:00:00Z")
    assert scene.told() == ["Running"]


def test_a_quiet_minute_writes_nothing() -> None:
    scene = running().look(reading=Reading(NOW, REPORT))
    for seconds in range(60):
        later = scene.look(seconds, reading=Reading(at(seconds), REPORT))
        assert later.plan.status == scene.seen.run["status"]
        assert later.plan.actions == ()


def test_what_the_run_reports_stands_in_the_status() -> None:
    status = running().look(reading=Reading(NOW, REPORT)).status
    assert status.mlflow is not None
    assert status.checkpoint is not None
    assert (status.mlflow.run_id, status.checkpoint.epoch, status.metrics) == ("m1", 4, {"loss": 0.5})


def test_mlflow_down_is_a_condition_and_no_failure() -> None:
    scene = running().look(reading=Reading(NOW, REPORT)).look(reading=Reading(NOW, None, "no answer"))
    assert scene.condition("MLflowReachable") == ("False", "Unreachable")
    assert (scene.status.phase, scene.status.failures) == ("Running", 0)
    assert scene.status.checkpoint is not None


def test_a_restarted_operator_that_has_not_read_mlflow_yet_changes_nothing() -> None:
    scene = running().look(reading=Reading(NOW, REPORT))
    assert scene.look(reading=None).plan.status == scene.seen.run["status"]


def test_reserved_seconds_never_go_back() -> None:
    scene = running().look(reading=Reading(NOW, replace(REPORT, gpu_seconds=50.0)))
    assert scene.look(reading=Reading(NOW, replace(REPORT, gpu_seconds=20.0))).status.gpu_seconds == 50.0


def test_the_generation_that_was_seen_stands_everywhere() -> None:
    scene = running()
    edited = {**scene.seen.run, "metadata": {**scene.seen.run["metadata"], "generation": 5}}
    status = scene.look(run=edited).seen.run["status"]
    assert status["observedGeneration"] == 5
    assert {entry["observedGeneration"] for entry in status["conditions"]} == {5}


# Succeeding


def test_it_has_succeeded_when_its_last_report_is_read() -> None:
    scene = running()
    done = job(scene, deployment="Complete", status="SUCCEEDED", end_time=at(100))
    pending = scene.look(101, jobs=(done,), reading=Reading(at(90), REPORT))
    assert pending.status.completion_time is None
    scene = pending.look(103, reading=Reading(at(102), replace(REPORT, package_uri="s3://bucket/packages/p")))
    assert scene.condition("Succeeded") == ("True", "Trained")
    assert (scene.status.phase, scene.status.package_uri) == ("Succeeded", "s3://bucket/packages/p")
    assert scene.told() == ["Succeeded"]


def test_an_mlflow_that_is_down_does_not_keep_it_from_succeeding() -> None:
    scene = running()
    done = job(scene, deployment="Complete", status="SUCCEEDED", end_time=NOW)
    scene = scene.look(jobs=(done,), reading=Reading(NOW, None, "down"))
    assert scene.plan.again_after_seconds == 15
    assert scene.look(15).status.phase == "Succeeded"


def test_a_run_that_ended_before_it_was_suspended_has_succeeded() -> None:
    scene = running()
    done = job(scene, deployment="Complete", status="SUCCEEDED", end_time=NOW)
    spec = scene.seen.spec.model_copy(update={"suspend": True})
    assert scene.look(20, spec=spec, jobs=(done,)).status.phase == "Succeeded"


# Failing


def test_a_temporary_failure_is_counted_once_and_tried_again_after_a_while() -> None:
    scene = running()
    failed = ended(scene, told("step-lost", permanent=False))
    scene = scene.look(jobs=(failed,))
    assert (scene.status.phase, scene.status.failures) == ("Retrying", 1)
    assert scene.status.next_attempt_time == rfc3339(at(10))
    assert scene.told() == ["AttemptFailed"]
    again = scene.look(5)
    assert (again.status.failures, again.status.attempt) == (1, 1)


def test_the_wait_before_the_next_attempt_doubles() -> None:
    scene = running(maxRetries=9)
    for number, seconds in ((1, 10), (2, 20), (3, 40)):
        scene = scene.look(jobs=(ended(scene, told("step-lost", permanent=False)),))
        assert scene.status.next_attempt_time == rfc3339(at(seconds)), number
        scene = scene.look(seconds + 20, jobs=()).look()


def test_a_permanent_failure_is_the_end_at_once() -> None:
    scene = running()
    scene = scene.look(20, jobs=(ended(scene, told("spec-invalid", permanent=True)),))
    assert (scene.status.phase, scene.condition("Succeeded")) == ("Failed", ("False", "SpecInvalid"))
    assert "so it is" in scene.status.message
    assert scene.told() == ["AttemptFailed", "Failed"]


def test_a_driver_that_was_killed_without_a_word_is_a_temporary_failure() -> None:
    scene = running()
    scene = scene.look(jobs=(ended(scene, "Job supervisor died\nexit code 137"),))
    assert scene.status.phase == "Retrying"
    assert "exit code 137" in scene.status.message


def test_too_many_failures_are_the_end() -> None:
    scene = running(maxRetries=0)
    scene = scene.look(20, jobs=(ended(scene, told("step-lost", permanent=False)),))
    assert scene.condition("Succeeded") == ("False", "RetriesExhausted")
    assert scene.status.failures == 1


@pytest.mark.parametrize("reason", ["PreRunningDeadlineExceeded", "SubmissionFailed", "JobStatusCheckTimeoutExceeded"])
def test_what_kuberay_gave_up_on_is_tried_again(reason: str) -> None:
    scene = waiting()
    scene = scene.look(jobs=(ended(scene, reason=reason, status=""),))
    assert (scene.status.failures, scene.condition("Running")) == (1, ("False", reason))


def test_a_ray_job_that_kuberay_refuses_is_not_tried_again() -> None:
    scene = waiting()
    scene = scene.look(20, jobs=(job(scene, deployment="ValidationFailed", message="name too long"),))
    assert scene.condition("Succeeded") == ("False", "RayJobInvalid")


def test_a_driver_that_somebody_stopped_is_a_failure() -> None:
    scene = running()
    scene = scene.look(jobs=(job(scene, deployment="Complete", status="STOPPED", end_time=NOW),))
    assert scene.condition("Running") == ("False", "Stopped")


def test_a_ray_job_that_somebody_deleted_is_one_failure_and_the_next_attempt_follows() -> None:
    scene = running().look(jobs=(), pods=())
    assert (scene.status.failures, scene.condition("Running")) == (1, ("False", "RayJobDeleted"))
    assert scene.look(30).status.ray_job_name == "digits-2"


def test_a_failed_attempts_ray_job_stays_to_be_looked_at() -> None:
    scene = running()
    failed = ended(scene, told("step-lost", permanent=False))
    scene = scene.look(jobs=(failed,)).look(30)
    assert scene.status.attempt == 2
    assert not scene.actions(Delete)


# Losing the head


def test_a_lost_head_is_counted_once_and_its_ray_job_goes() -> None:
    scene = running()
    scene = scene.look(pods=(head("head-2"),))
    assert (scene.status.failures, scene.condition("Running")) == (1, ("False", "HeadLost"))
    assert not scene.actions(Delete)  # counted first
    assert scene.told() == ["HeadLost", "AttemptFailed"]
    scene = scene.look()
    assert [action.uid for action in scene.actions(Delete)] == ["job-1"]
    assert scene.status.failures == 1


def test_the_next_attempt_waits_until_the_lost_ones_ray_job_is_gone() -> None:
    scene = running().look(pods=(head("head-2"),)).look(60)
    assert scene.status.attempt == 1
    assert scene.look(60, jobs=()).status.attempt == 2


def test_a_head_that_is_gone_is_lost_after_a_moment() -> None:
    scene = running()
    scene = scene.look(10, pods=(), head_gone=gone(10))
    assert (scene.status.failures, scene.plan.again_after_seconds) == (0, 5)
    assert scene.look(15).condition("Running") == ("False", "HeadLost")


def test_a_head_that_was_lost_while_nobody_looked_is_lost_all_the_same() -> None:
    scene = waiting()
    there = job(scene, deployment="Running", status="RUNNING", driver_start_time="2026-11-26T12:00:00Z")
    scene = scene.look(10, jobs=(there,), pods=(), head_gone=gone(10))
    assert (scene.status.failures, scene.status.head_pod_uid) == (0, None)
    scene = scene.look(15)
    assert (scene.status.failures, scene.condition("Running")) == (1, ("False", "HeadLost"))


def test_a_head_that_goes_because_the_run_has_ended_is_not_lost() -> None:
    scene = running().look(10, pods=(), head_gone=gone(10))
    done = job(scene, deployment="Complete", status="SUCCEEDED", end_time=at(9))
    assert scene.look(30, jobs=(done,)).status.phase == "Succeeded"


def test_a_driver_that_begins_again_means_that_its_head_was_lost() -> None:
    scene = running()
    again = job(scene, deployment="Running", status="RUNNING", driver_start_time="2026-11-26T12:01:00Z")
    assert scene.look(jobs=(again,)).condition("Running") == ("False", "HeadLost")


def test_a_head_that_is_replaced_before_the_driver_runs_is_no_failure() -> None:
    scene = waiting()
    there = job(scene, deployment="Initializing")
    scene = scene.look(jobs=(there,), pods=(head("a"),)).look(pods=(head("b"),))
    assert (scene.status.failures, scene.status.head_pod_uid) == (0, None)


def test_a_head_that_ends_before_the_driver_runs_is_a_failure_in_its_own_words() -> None:
    scene = waiting()
    dead = head(phase="Failed", ended="OOMKilled, exit code 137")
    scene = scene.look(jobs=(job(scene, deployment="Initializing"),), pods=(dead,))
    assert scene.status.failures == 1
    assert "OOMKilled" in scene.status.message


@pytest.mark.parametrize("who", ["PreemptionByScheduler", "EvictionByEvictionAPI"])
def test_a_head_that_was_taken_away_counts_as_no_failure(who: str) -> None:
    scene = running().look(10, pods=(), head_gone=gone(0, disruption=who))
    assert (scene.status.failures, scene.status.phase) == (0, "Retrying")
    assert scene.told() == ["Interrupted"]
    assert scene.look(40, jobs=()).status.attempt == 2


def test_the_next_attempt_has_the_newest_checkpoint_its_own_number_and_the_same_mlflow_run() -> None:
    scene = running().look(pods=(head("head-2"),), reading=Reading(at(-20), REPORT)).look(30, jobs=(), pods=())
    newer = replace(REPORT, checkpoint_uri="s3://bucket/checkpoints/9", checkpoint_epoch=9)
    scene = scene.look(31, reading=Reading(at(31), newer))
    (create,) = scene.look(32).actions(Create)
    container = create.manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env["HEADRACE_CHECKPOINT_URI"] == "s3://bucket/checkpoints/9"
    assert (env["HEADRACE_MLFLOW_RUN_ID"], env["HEADRACE_ATTEMPT"]) == ("m1", "1.2")


def test_the_next_attempt_waits_for_mlflows_last_word_but_not_for_ever() -> None:
    scene = running().look(pods=(head("head-2"),)).look(10, jobs=(), pods=())
    assert (scene.status.attempt, scene.plan.again_after_seconds) == (1, 5)
    assert scene.look(15).status.attempt == 2


# Suspending


def test_suspending_ends_the_attempt_keeps_the_checkpoint_and_counts_no_failure() -> None:
    scene = running().look(reading=Reading(NOW, REPORT))
    spec = scene.seen.spec.model_copy(update={"suspend": True})
    scene = scene.look(spec=spec)
    assert (scene.status.phase, scene.condition("Suspended")) == ("Suspended", ("True", "Asked"))
    assert scene.told() == ["Suspended"]
    scene = scene.look()
    assert [action.name for action in scene.actions(Delete)] == ["digits-1"]
    assert scene.status.failures == 0
    assert scene.status.checkpoint is not None


def test_going_on_makes_the_next_attempt() -> None:
    scene = running()
    on, off = (scene.seen.spec.model_copy(update={"suspend": flag}) for flag in (True, False))
    scene = scene.look(spec=on).look(jobs=(), pods=()).look(60, spec=off)
    assert (scene.status.attempt, scene.condition("Suspended")) == (2, ("False", "NotAsked"))
    assert scene.told() == ["Resumed"]


def test_a_run_that_is_made_suspended_makes_no_attempt() -> None:
    scene = run(suspend=True).look().look()
    assert (scene.status.phase, scene.status.attempt) == ("Suspended", 0)
    assert not scene.actions(Create)


def test_suspending_before_the_ray_job_was_seen_deletes_it_when_it_is() -> None:
    scene = run().look().look()
    late = job(scene)
    spec = scene.seen.spec.model_copy(update={"suspend": True})
    scene = scene.look(spec=spec).look(jobs=(late,))
    assert [action.uid for action in scene.actions(Delete)] == ["job-1"]


def held(scene: Scene, until: str) -> dict[str, Any]:
    """The object of SCENE, waited for UNTIL then."""
    annotations = {"headrace.dev/held-until": until}
    return {**scene.seen.run, "metadata": {**scene.seen.run["metadata"], "annotations": annotations}}


def test_a_run_that_is_waited_for_goes_on_and_is_looked_at_when_that_ends() -> None:
    scene = running()
    scene = scene.look(run=held(scene, rfc3339(at(600))))
    assert scene.status.phase == "Running"
    assert scene.plan.again_after_seconds is not None
    assert scene.plan.again_after_seconds <= 600


def test_a_run_that_nobody_waits_for_any_more_rests_until_somebody_does() -> None:
    scene = running()
    scene = scene.look(601, run=held(scene, rfc3339(at(600))))
    assert (scene.status.phase, scene.condition("Suspended")) == ("Suspended", ("True", "NotWaitedFor"))
    assert "the step that waited for it has ended" in scene.status.message
    scene = scene.look(602)
    assert [action.name for action in scene.actions(Delete)] == ["digits-1"]
    assert scene.status.failures == 0
    scene = scene.look(660, jobs=(), pods=()).look(700, run=held(scene, rfc3339(at(1300))))
    assert (scene.status.attempt, scene.condition("Suspended")) == (2, ("False", "NotAsked"))


@pytest.mark.parametrize("text", ["tomorrow", "", "2026-11-26T00:00:00"])
def test_a_hold_that_is_no_time_holds_nothing(text: str) -> None:
    scene = running()
    assert scene.look(601, run=held(scene, text)).status.phase == "Running"


# The queue


def test_an_attempt_that_the_queue_takes_back_counts_as_no_failure() -> None:
    scene = running(queue="gpus")
    back = replace(scene.seen.jobs[0], suspended=True, generation=3, deployment="Suspending")
    scene = scene.look(jobs=(back,), place=Place(evicted="Preempted: to make room"))
    assert (scene.status.failures, scene.condition("Running")) == (0, ("False", "Evicted"))
    assert "to make room" in scene.status.message


def test_an_attempt_that_is_taken_back_before_its_driver_ran_waits_on_in_the_queue() -> None:
    scene = waiting(queue="gpus")
    back = job(scene, suspended=True, generation=3, deployment="Suspended")
    scene = scene.look(jobs=(back,), place=Place(evicted="PodsReadyTimeout: too slow"))
    assert (scene.status.phase, scene.status.attempt) == ("Waiting", 1)


def test_an_eviction_that_nobody_saw_is_still_none_of_our_failures() -> None:
    scene = running(queue="gpus")
    readmitted = replace(scene.seen.jobs[0], generation=4)
    scene = scene.look(jobs=(readmitted,), pods=(head("head-2"),))
    assert (scene.status.failures, scene.condition("Running")) == (0, ("False", "Evicted"))


# Deadlines, and the time after the end


def test_the_deadline_ends_the_run_and_its_ray_job() -> None:
    scene = running(deadlineSeconds=100)
    assert scene.plan.again_after_seconds == 100
    scene = scene.look(100)
    assert scene.condition("Succeeded") == ("False", "DeadlineExceeded")
    assert [action.name for action in scene.look(101).actions(Delete)] == ["digits-1"]


def test_the_deadline_counts_over_all_attempts() -> None:
    scene = running(deadlineSeconds=100)
    scene = scene.look(50, jobs=(ended(scene, told("step-lost", permanent=False)),))
    assert scene.look(100).condition("Succeeded") == ("False", "DeadlineExceeded")


def test_nothing_is_done_about_a_finished_run() -> None:
    scene = running(maxRetries=0)
    failed = ended(scene, told("step-lost", permanent=False))
    scene = scene.look(20, jobs=(failed,))
    for changes in ({}, {"jobs": ()}, {"pods": (head("x"),)}, {"errors": ("wrong",)}, {"kuberay": False}):
        later = scene.look(500, **changes)
        assert later.plan.actions == ()
        assert later.plan.status == scene.seen.run["status"]


def test_a_finished_run_that_is_edited_is_only_marked_as_seen() -> None:
    scene = running(maxRetries=0)
    scene = scene.look(20, jobs=(ended(scene, told("step-lost", permanent=False)),))
    edited = {**scene.seen.run, "metadata": {**scene.seen.run["metadata"], "generation": 2}}
    assert scene.look(30, run=edited).plan == Plan((), {**scene.seen.run["status"], "observedGeneration": 2})


def test_it_goes_some_time_after_its_end() -> None:
    scene = running(ttlSecondsAfterFinished=60)
    done = job(scene, deployment="Complete", status="SUCCEEDED", end_time=at(-30))
    scene = scene.look(jobs=(done,))
    assert scene.plan.again_after_seconds == 60
    (delete,) = scene.look(60).actions(Delete)
    assert (delete.kind.kind, delete.uid) == ("TrainingRun", "run-uid")
