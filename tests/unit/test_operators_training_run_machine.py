"""Whatever KubeRay, people and kills do, in whatever order: at most one RayJob an attempt, each failure counted once,
and in the end the right end.

The cluster here is a few dictionaries; the reconciler is the real one, with real caches that lag behind. A kill ends a
plan between any two of its actions, and the restart lists everything anew.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace_operators.kinds import POD, RAY_CLUSTER, RAY_JOB, TRAINING_RUN, WORKLOAD
from headrace_operators.mlflow import MLflow, RunReport
from headrace_operators.runtime.actions import Create, Delete, Plan
from headrace_operators.runtime.cache import Caches, Store, Watch, by_name
from headrace_operators.runtime.conditions import rfc3339
from headrace_operators.runtime.kinds import Key, key_of
from headrace_operators.training_run.observe import Observed, Reading
from headrace_operators.training_run.reconciler import TrainingRunReconciler

Object = dict[str, Any]
KEY = Key("team", "digits")
MAX_RETRIES = 3
KINDS = (TRAINING_RUN, RAY_JOB, RAY_CLUSTER, POD, WORKLOAD)
FAILED = 'HEADRACE_FAILURE {"code": "step-lost", "message": "gone", "permanent": false}'
BROKEN = 'HEADRACE_FAILURE {"code": "spec-invalid", "message": "wrong", "permanent": true}'


class Reports:
    """MLflow, which always answers at once."""

    def __init__(self, machine: TrainingRunMachine) -> None:
        self._machine = machine

    def reading(self, _key: Key) -> Reading:
        return Reading(self._machine.now + timedelta(seconds=2), RunReport("m1", "1", checkpoint_uri="s3://c/1"))

    def keep_fresh(self, _key: Key, _seen: Observed) -> None:
        return None


class TrainingRunMachine(RuleBasedStateMachine):
    """One TrainingRun, with and without a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 11, 26, 12, tzinfo=UTC)
        self.version = 0
        self.objects: dict[tuple[Any, str], Object] = {}
        self.created: Counter[str] = Counter()
        self.counted: list[int] = []  # the attempt of each failure that was counted
        self.incidents: set[int] = set()  # attempts that something happened to which counts
        self.broken = False
        self.uids = 0

    @initialize(queued=st.booleans())
    def begin(self, queued: bool) -> None:
        spec = {
            "tasks": [{"name": "image-classification"}],
            "model": {"name": "mlp"},
            "manifestURI": "s3://bucket/splits/abc",
            "store": {"uri": "s3://bucket/prefix"},
            "mlflow": {"trackingURI": "http://mlflow:5000"},
            "maxRetries": MAX_RETRIES,
            **({"queue": "gpus"} if queued else {}),
        }
        self.put(TRAINING_RUN, {"metadata": {"name": "digits", "generation": 1}, "spec": spec, "status": {}})
        self.restart()

    # The cluster

    def put(self, kind: Any, obj: Object) -> Object:
        """Store an object, as a new version."""
        self.version += 1
        metadata = obj["metadata"]
        metadata.setdefault("namespace", "team")
        if "uid" not in metadata:
            self.uids += 1
            metadata["uid"] = f"uid-{self.uids}"
        metadata["resourceVersion"] = str(self.version)
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
        self.objects[kind, metadata["name"]] = obj
        return obj

    def all(self, kind: Any) -> list[Object]:
        return [obj for (of, _), obj in sorted(self.objects.items(), key=lambda item: item[0][1]) if of == kind]

    def restart(self) -> None:
        """A new operator, whose caches are what the API server has now."""
        self.reconciler = TrainingRunReconciler("image", MLflow({}), 30)
        self.reconciler.reports = Reports(self)  # type: ignore[assignment]
        watches = (Watch(TRAINING_RUN, by_name), *self.reconciler.watches)
        self.caches = Caches(TRAINING_RUN, [Store(watch) for watch in watches])
        for kind in KINDS:
            self.deliver(kind)

    @rule(kind=st.sampled_from(KINDS))
    def deliver(self, kind: Any) -> None:
        """A watch brings what has happened to a kind of objects."""
        store = self.caches.stores[kind]
        there = {key_of(obj): obj for obj in self.all(kind)}
        for key in [key for key in store if key not in there]:
            store.drop(key)
        for obj in there.values():
            store.put(copy.deepcopy(obj))

    # The operator

    @rule(kill_after=st.none() | st.integers(0, 3))
    def reconcile(self, kill_after: int | None = None) -> None:
        """One round of the operator; it may be killed after so many actions."""
        run = self.caches.get(TRAINING_RUN, KEY)
        assert run is not None
        plan = asyncio.run(self.reconciler.plan(run, self.caches, self.now))
        for number, action in enumerate(plan.actions):
            if kill_after is not None and number >= kill_after:
                self.restart()
                return
            self.carry_out(action)
        if kill_after is not None and kill_after >= len(plan.actions):
            self.restart()
            return
        self.write_status(run, plan)

    def carry_out(self, action: object) -> None:
        if isinstance(action, Create):
            name = action.manifest["metadata"]["name"]
            if (RAY_JOB, name) not in self.objects:
                self.created[name] += 1
                manifest = copy.deepcopy(dict(action.manifest))
                manifest["metadata"]["generation"] = 1
                self.put(RAY_JOB, manifest)
            self.deliver(RAY_JOB)  # no plan is made before the caches have seen what we wrote
        if isinstance(action, Delete) and (there := self.objects.get((action.kind, action.name))):
            if there["metadata"]["uid"] == action.uid:
                self.remove_job(there)
            self.deliver(RAY_JOB)

    def write_status(self, planned_from: Object, plan: Plan) -> None:
        run = self.run()
        if plan.status is None or planned_from["metadata"]["resourceVersion"] != run["metadata"]["resourceVersion"]:
            return  # 409: planned from an older object
        before, after = run["status"], copy.deepcopy(dict(plan.status))
        if before != after:
            self.check(before, after)
            self.put(TRAINING_RUN, {**run, "status": after})
            self.deliver(TRAINING_RUN)

    def check(self, before: Object, after: Object) -> None:
        """What every change of the status must keep."""
        assert "completionTime" not in before or before["phase"] == after["phase"], "a finished run went on"
        assert after.get("attempt", 0) - before.get("attempt", 0) in (0, 1)
        more = after.get("failures", 0) - before.get("failures", 0)
        assert more in (0, 1)
        if more:
            assert after["attempt"] in self.incidents, "a failure was counted that was none"
            self.counted.append(after["attempt"])

    # KubeRay, Kueue and people

    def run(self) -> Object:
        return self.objects[TRAINING_RUN, "digits"]

    def living(self) -> list[Object]:
        """RayJobs that have not ended."""
        return [job for job in self.all(RAY_JOB) if deployment(job) not in ("Complete", "Failed")]

    def attempt(self) -> Object | None:
        """The RayJob that KubeRay works on."""
        return next(iter(self.living()), None)

    def say(self, job: Object, **status: Any) -> None:
        self.put(RAY_JOB, {**job, "status": {**job.get("status", {}), **status}})

    def pods(self, job: Object) -> list[Object]:
        number = job["metadata"]["labels"]["headrace.dev/attempt"]
        return [pod for pod in self.all(POD) if pod["metadata"]["labels"]["headrace.dev/attempt"] == number]

    def remove_job(self, job: Object) -> None:
        """Delete a RayJob; its pods go with it."""
        del self.objects[RAY_JOB, job["metadata"]["name"]]
        self.remove_pods(job)

    def remove_pods(self, job: Object) -> None:
        for pod in self.pods(job):
            del self.objects[POD, pod["metadata"]["name"]]

    def make_head(self, job: Object) -> None:
        labels = {**job["metadata"]["labels"], "ray.io/node-type": "head"}
        self.put(POD, {"metadata": {"name": f"head-{self.uids}", "labels": labels}, "status": {"phase": "Running"}})

    def start_driver(self, job: Object) -> None:
        self.say(
            job,
            jobDeploymentStatus="Running",
            jobStatus="RUNNING",
            rayJobInfo={"startTime": rfc3339(self.now)},
        )

    @rule()
    def kuberay_goes_on(self) -> None:
        """One step on the way to a driver that runs."""
        job = self.attempt()
        if job is None or job["spec"].get("suspend"):
            return
        if not deployment(job):
            self.say(job, jobDeploymentStatus="Initializing", startTime=rfc3339(self.now))
        elif deployment(job) == "Initializing" and not self.pods(job):
            self.make_head(job)
        elif deployment(job) == "Initializing":
            self.start_driver(job)

    @rule()
    def kuberay_brings_it_to_run(self) -> None:
        """All the way, before anybody looks."""
        self.the_queue_lets_it_go()
        for _ in range(3):
            self.kuberay_goes_on()

    @rule()
    def the_queue_lets_it_go(self) -> None:
        job = self.attempt()
        if job is not None and job["spec"].get("suspend"):
            self.set_suspend(job, False)

    @precondition(lambda self: self.attempt() is not None and self.attempt()["spec"].get("suspend") is False)
    @rule()
    def the_queue_takes_it_back(self) -> None:
        job = self.attempt()
        assert job is not None
        self.remove_pods(job)
        self.set_suspend(job, True)

    def set_suspend(self, job: Object, suspend: bool) -> None:
        metadata = {**job["metadata"], "generation": job["metadata"]["generation"] + 1}
        status = {"jobDeploymentStatus": "Suspended"} if suspend else {}
        spec = {**job["spec"], "suspend": suspend}
        self.put(RAY_JOB, {**job, "metadata": metadata, "spec": spec, "status": status})

    @rule(message=st.sampled_from([FAILED, FAILED, BROKEN, "Killed"]))
    def the_driver_fails(self, message: str) -> None:
        if (job := self.running()) is not None:
            self.incident(job)
            self.broken |= message == BROKEN
            self.say(
                job, jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message=f"log\n{message}",
                endTime=rfc3339(self.now),
            )  # fmt: skip

    @rule(again=st.booleans())
    def the_head_is_lost(self, again: bool) -> None:
        """It is gone; or KubeRay makes another one and runs the entrypoint again."""
        if (job := self.running()) is not None:
            self.incident(job)
            self.remove_pods(job)
            if again:
                self.now += timedelta(seconds=1)
                self.make_head(job)
                self.start_driver(job)

    @rule()
    def somebody_deletes_the_ray_job(self) -> None:
        if (job := self.attempt()) is not None:
            self.incident(job)
            self.remove_job(job)
            if job["metadata"]["uid"] != self.run()["status"].get("rayJobUID"):
                # Made and deleted before anybody could write down that it was there: nothing ran, so the attempt is
                # made again. (Had its driver run after all, the second one's claim would fail.)
                del self.created[job["metadata"]["name"]]

    @rule(suspend=st.booleans())
    def the_user_suspends(self, suspend: bool) -> None:
        run = self.run()
        metadata = {**run["metadata"], "generation": run["metadata"]["generation"] + 1}
        self.put(TRAINING_RUN, {**run, "metadata": metadata, "spec": {**run["spec"], "suspend": suspend}})

    @rule(seconds=st.sampled_from([1, 6, 20, 400]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def running(self) -> Object | None:
        job = self.attempt()
        return job if job is not None and deployment(job) == "Running" else None

    def incident(self, job: Object) -> None:
        self.incidents.add(int(job["metadata"]["labels"]["headrace.dev/attempt"]))

    # What always holds

    @invariant()
    def one_ray_job_an_attempt(self) -> None:
        assert all(count == 1 for count in self.created.values()), self.created
        assert len(self.living()) <= 1

    @invariant()
    def a_failure_is_counted_once(self) -> None:
        assert len(self.counted) == len(set(self.counted))

    def teardown(self) -> None:
        """Left alone, it ends, and as it should."""
        if not self.objects:
            return
        self.the_user_suspends(suspend=False)
        for _ in range(200):
            for kind in KINDS:
                self.deliver(kind)
            self.reconcile()
            self.the_queue_lets_it_go()
            self.kuberay_goes_on()
            if (job := self.running()) is not None and self.settled(job):
                self.say(job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", endTime=rfc3339(self.now))
            self.now += timedelta(seconds=10)
            if "completionTime" in self.run()["status"] and not self.living():
                break
        status = self.run()["status"]
        failed = status.get("failures", 0) > MAX_RETRIES or (self.broken and status["phase"] == "Failed")
        assert status["phase"] == ("Failed" if failed else "Succeeded"), status["message"]
        assert not self.living()

    def settled(self, job: Object) -> bool:
        """The operator has nothing against this attempt: its head is there, and it is the one that is known."""
        heads = [pod["metadata"]["uid"] for pod in self.pods(job)]
        status = self.run()["status"]
        return heads == [status.get("headPodUID")] and status.get("rayJobName") == job["metadata"]["name"]


def deployment(job: Object) -> str:
    return str(job.get("status", {}).get("jobDeploymentStatus", ""))


TestTrainingRun = TrainingRunMachine.TestCase
# No shrinking: it takes minutes, and forty steps can be read.
TestTrainingRun.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
