"""What a plan is made from, as plain values: the RayJobs of a run, its pods, its place in the queue, MLflow's word."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from headrace.api.training_run import TrainingRunSpec, TrainingRunStatus
from headrace_operators.mlflow import RunReport
from headrace_operators.pods import Pod
from headrace_operators.runtime.kinds import Object

ENDED = ("Complete", "Failed", "ValidationFailed")  # jobDeploymentStatus of a RayJob that will never run again


@dataclass(frozen=True)
class Job:
    """A RayJob.

    Args:
        deployment, status, reason, message: KubeRay's jobDeploymentStatus, jobStatus, reason and message.
        owned: it is this very TrainingRun's.
        suspended: what its spec says now; Kueue's to change.
        generation: 1 as created; each admission and each eviction adds one.
        start_time: when KubeRay began this round, anew after each suspension.
        driver_start_time: when Ray says the driver began.
        end_time: when KubeRay saw its end.
    """

    name: str
    uid: str
    attempt: int
    owned: bool = True
    terminating: bool = False
    suspended: bool = False
    generation: int = 1
    deployment: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    driver_start_time: str | None = None
    end_time: datetime | None = None

    @property
    def ended(self) -> bool:
        """It will never run again."""
        return self.deployment in ENDED


@dataclass(frozen=True)
class Place:
    """A Kueue Workload: whether the queue lets the attempt go, and in its words why not.

    Args:
        admitted: it does.
        waits: why it does not.
        evicted: why it no longer does.
    """

    admitted: bool = False
    waits: str = ""
    evicted: str = ""


@dataclass(frozen=True)
class Reading:
    """The last look into MLflow. `report` is the last one that there was, even if this look failed."""

    read_at: datetime
    report: RunReport | None = None
    error: str = ""


@dataclass(frozen=True)
class HeadGone:
    """The head that ran the driver is no longer there.

    Args:
        since: when that was first seen.
        disruption: who took it away, if somebody said so.
        words: how it ended, if that was seen.
    """

    since: datetime
    disruption: str = ""
    words: str = ""


@dataclass(frozen=True)
class Observed:
    """All that a plan for one TrainingRun may depend on.

    Args:
        run: the object.
        spec, status: of it, as types.
        jobs: RayJobs that are its own, or have the name of its next or current attempt.
        pods: of the current attempt.
        refused: why pods are not even made, in the API server's words.
        place: in Kueue's queue.
        reading: what MLflow says.
        errors: what is wrong with the spec: no attempt is made.
        warnings: what may be wrong.
        kuberay: KubeRay's CRDs are there.
        head_gone: see there.
        image: of the next attempt's pods.
    """

    run: Object
    spec: TrainingRunSpec
    status: TrainingRunStatus
    jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    refused: str = ""
    place: Place | None = None
    reading: Reading | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    kuberay: bool = True
    head_gone: HeadGone | None = None
    image: str = ""

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.run["metadata"]["name"])

    @property
    def generation(self) -> int:
        """Of the spec that this is a look at."""
        return int(self.run["metadata"].get("generation", 0))

    @property
    def job(self) -> Job | None:
        """The RayJob of the current attempt."""
        return next((job for job in self.jobs if job.name == self.status.ray_job_name), None)

    @property
    def head(self) -> Pod | None:
        """The head pod that is there; a live one rather than one that goes."""
        heads = sorted((pod for pod in self.pods if pod.role == "head"), key=lambda pod: (not pod.alive, pod.name))
        return heads[0] if heads else None
