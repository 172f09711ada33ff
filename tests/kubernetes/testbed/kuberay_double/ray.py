"""What runs inside the double's Ray clusters: jobs and Serve applications, kept by the uid of their head's pod.

A head that is lost takes all of it along, as Ray without GCS fault tolerance does. Nothing here ticks: every state is
worked out from the time at which it is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from kuberay_double.script import Behaviour

PENDING_SECONDS = 0.05
RERUN_SECONDS = 0.1
CLAIMED = "another head holds the claim of this attempt"  # as the driver of headrace.steps.training_job ends
_WORDS = {
    "PENDING": "Job has not started yet.",
    "RUNNING": "Job is currently running.",
    "SUCCEEDED": "Job finished successfully.",
}


@dataclass(frozen=True)
class Job:
    """An entrypoint that was submitted: when it starts and ends, in seconds since the epoch, and how."""

    started: float
    ended: float | None
    succeeds: bool
    message: str = ""

    def status(self, now: float) -> str:
        """PENDING, RUNNING, SUCCEEDED or FAILED."""
        if now < self.started:
            return "PENDING"
        if self.ended is None or now < self.ended:
            return "RUNNING"
        return "SUCCEEDED" if self.succeeds else "FAILED"

    def words(self, now: float) -> str:
        """What Ray says of it: the end of its log if it failed."""
        failed = "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):"
        return _WORDS.get(self.status(now), f"{failed}\n{self.message}")

    def next_change(self, now: float) -> float | None:
        """When its status changes next."""
        return next((at for at in (self.started, self.ended) if at is not None and at > now), None)


@dataclass(frozen=True)
class Application:
    """A Serve application as it was last deployed."""

    record: Mapping[str, Any]
    deployed: float  # when it is RUNNING or DEPLOY_FAILED
    succeeds: bool

    def status(self, now: float) -> dict[str, Any]:
        """As it stands in a RayService's `applicationStatuses`."""
        state = "DEPLOYING" if now < self.deployed else "RUNNING" if self.succeeds else "DEPLOY_FAILED"
        deployment = {"DEPLOYING": "UPDATING", "RUNNING": "HEALTHY", "DEPLOY_FAILED": "DEPLOY_FAILED"}[state]
        message = "" if state != "DEPLOY_FAILED" else "Deploying app failed: the double's script says so"
        names = [each["name"] for each in self.record.get("deployments") or ()]
        return {
            "status": state,
            "message": message,
            "serveDeploymentStatuses": {name: {"status": deployment, "message": message} for name in names},
        }


def _code(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of an application makes it a new one when it changes: all but its deployments' user_config and replicas."""
    deployments = record.get("deployments") or ()
    kept = [{k: v for k, v in each.items() if k not in ("user_config", "num_replicas")} for each in deployments]
    return {**record, "deployments": kept}


@dataclass
class Ray:
    """The jobs and applications of all clusters."""

    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)  # by head uid and job id
    applications: dict[str, dict[str, Application]] = field(default_factory=dict)  # by head uid

    def submit(self, head_uid: str, job_id: str, behaviour: Behaviour) -> Job:
        """Run the entrypoint on this head. Under the job id of a head that was lost it is a second run, which starts
        in a later second than the first: the status tells times in whole seconds."""
        before = [job for (_, other), job in self.jobs.items() if other == job_id]
        started = time.time() + PENDING_SECONDS
        if before:
            started = max(started, *(job.started + 1.0 for job in before))
            succeeds, message, seconds = behaviour.rerun == "succeeds", CLAIMED, RERUN_SECONDS
        else:
            succeeds, message, seconds = behaviour.ending != "fails", behaviour.message, behaviour.run_seconds
        endless = behaviour.ending == "runs-on" or (behaviour.ending == "loses-head" and not before)
        self.jobs[head_uid, job_id] = job = Job(started, None if endless else started + seconds, succeeds, message)
        return job

    def end(self, job_id: str) -> None:
        """The entrypoint ends now, on whichever heads it runs."""
        found = {at: job for at, job in self.jobs.items() if at[1] == job_id}
        assert found, f"no job {job_id} was submitted"
        self.jobs |= {at: replace(job, ended=time.time()) for at, job in found.items()}

    def serve(self, head_uid: str, config_text: str, behaviour: Behaviour) -> Mapping[str, Any]:
        """Make CONFIG_TEXT all that is served on this head. Raises ValueError if nobody can read it."""
        config = yaml.safe_load(config_text)
        if not isinstance(config, Mapping) or not isinstance(config.get("applications"), list):
            raise ValueError(f"not a Serve configuration: {config_text[:80]!r}")
        before, now = self.applications.get(head_uid, {}), time.time()
        self.applications[head_uid] = {
            record["name"]: Application(record, before[record["name"]].deployed, before[record["name"]].succeeds)
            if record["name"] in before and _code(before[record["name"]].record) == _code(record)
            else Application(record, now + behaviour.deploy_seconds, behaviour.deploys == "succeeds")
            for record in config["applications"]
        }
        return config

    def statuses(self, head_uid: str) -> dict[str, Any]:
        """`applicationStatuses` of what is served on this head."""
        now = time.time()
        return {name: each.status(now) for name, each in self.applications.get(head_uid, {}).items()}

    def lose(self, head_uid: str) -> None:
        """The head has gone, with its applications. Its jobs are remembered, to tell a second run from a first."""
        self.applications.pop(head_uid, None)
