"""A ModelDeployment, applied and followed by a deploy step until the version truly answers.

What the endpoint said before is in the store before it is changed, so that it can be put back by whichever pod of the
attempt sees the version fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from headrace.api.model_deployment import ModelDeploymentSpec, ModelDeploymentStatus
from headrace.api.parts import GROUP
from headrace.api.site import Site
from headrace.base.errors import Cancelled, RunFailed
from headrace.cluster import MODEL_DEPLOYMENT, Kind, Object, Seen
from headrace.cluster.leases import Leases
from headrace.steps.cluster_wish import changes_to, wish
from headrace.steps.patience import patiently
from headrace.steps.step import Step
from headrace.store.step_files import is_cancelled, read_note, write_note

RUN_ID_ANNOTATION = f"{GROUP}/run-id"
BEFORE_NOTE = "deployment-before"
TICK_SECONDS = 10.0
DEPLOY_SECONDS = 1800.0  # images of several GB onto new nodes, then the model; a missing image never fails by itself
# Reasons of Accepted, Resolved and Progressing that end a wish; the others are waits.
FAILURES = ("LoadFailed", "DeployFailed", "RayServiceInvalid", "NameTaken", "InvalidSpec", "NotFound")


class Deployments(Leases, Protocol):
    """What a deployment needs of a cluster; see `headrace.cluster.Cluster`."""

    def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool = False) -> Object:
        """See there."""

    def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> bool:
        """See there."""

    def follow(self, kind: Kind, name: str, *, tick_seconds: float) -> Iterator[Seen]:
        """See there."""


class ClusterDeployment:
    """The endpoint that PART asks for, answering with what REGISTRATION, the register step's result, names."""

    def __init__(
        self, step: Step, cluster: Deployments, site: Site, part: Mapping[str, Any], registration: Mapping[str, Any]
    ) -> None:
        self.step = step
        self.name = str(part["name"])
        self.model: str = registration["model"]["name"]
        self.version: str = registration["model"]["version"]
        self._cluster = cluster
        self._wish = wish(part, registration, site)
        self._told = ""

    def serving(self) -> dict[str, Any] | None:
        """The endpoint's record if it is as wished and answers with the version, else None."""
        found = self._cluster.get(MODEL_DEPLOYMENT, self.name)
        if found is None or not self._as_wished(found["spec"]) or not self._answers(found):
            return None
        return self._record(found)

    def deploy(self, renew: Callable[[], None]) -> dict[str, Any]:
        """Make it so; {"url", "model", "version"} once every replica answers with the version.

        Args:
            renew: called now and then while it takes.

        Raises:
            RunFailed: the version could not be loaded, in the front's own words, or did not come up in DEPLOY_SECONDS;
                the endpoint is as it was before.
        """
        before = self._remember()
        self._apply()
        try:
            return self._wait(renew)
        except (RunFailed, Cancelled):
            self._put_back(before)
            raise
        except KeyboardInterrupt:
            if is_cancelled(self.step.store, self.step.run_id, self.step.attempt):
                self._put_back(before)
            raise

    # the wish

    def _apply(self) -> None:
        self.step.check()
        annotations = {RUN_ID_ANNOTATION: self.step.run_id}
        found = self._cluster.get(MODEL_DEPLOYMENT, self.name)
        if found is not None and "alias" in found["spec"]["model"]:  # somebody else's field, which no apply takes away
            model = {"alias": None, "name": self.model, "version": self.version}
            changes = {"metadata": {"annotations": annotations}, "spec": {"model": model}}
            self._cluster.patch(MODEL_DEPLOYMENT, self.name, changes)
        manifest = {"metadata": {"name": self.name, "annotations": annotations}, "spec": self._wish.to_record()}
        self._cluster.apply(MODEL_DEPLOYMENT, manifest, force=True)

    def _as_wished(self, spec: Mapping[str, Any]) -> bool:
        there = ModelDeploymentSpec.model_validate(spec)
        return all(getattr(there, field) == getattr(self._wish, field) for field in self._wish.model_fields_set)

    def _remember(self) -> Mapping[str, Any] | None:
        """The spec that the endpoint had before this run, written down before anything is changed."""
        note = read_note(self.step.store, self.step.run_id, BEFORE_NOTE)
        found = self._cluster.get(MODEL_DEPLOYMENT, self.name)
        if note is None or not self._is_ours(found):
            note = {"spec": None if found is None else dict(found["spec"])}
            write_note(self.step.store, self.step.run_id, BEFORE_NOTE, note)
        before: Mapping[str, Any] | None = note["spec"]
        return before

    def _is_ours(self, obj: Object | None) -> bool:
        """Whether a pod of this run, killed since, has changed OBJ already."""
        if obj is None or obj["spec"]["model"].get("version") != self.version:
            return False
        return (obj["metadata"].get("annotations") or {}).get(RUN_ID_ANNOTATION) == self.step.run_id

    def _put_back(self, before: Mapping[str, Any] | None) -> None:
        """Let the endpoint say what it said BEFORE, unless somebody has wished something else since."""
        found = self._cluster.get(MODEL_DEPLOYMENT, self.name)
        if found is None or found["spec"]["model"].get("version") != self.version:
            return
        if before is None:
            self._cluster.delete(MODEL_DEPLOYMENT, self.name, uid=found["metadata"]["uid"])
            self.step.message(f"{self.name}, which never answered, is deleted")
        elif changes := changes_to(found["spec"], before):
            self._cluster.patch(MODEL_DEPLOYMENT, self.name, {"spec": changes})
            self.step.message(f"{self.name} is put back to {before['model'].get('version') or before['model']}")

    # waiting

    def _wait(self, renew: Callable[[], None]) -> dict[str, Any]:
        deadline = time.monotonic() + DEPLOY_SECONDS
        for seen in self._cluster.follow(MODEL_DEPLOYMENT, self.name, tick_seconds=TICK_SECONDS):
            patiently(partial(self._check, seen.object), self.step.message)
            assert seen.object is not None
            if self._answers(seen.object):
                return self._record(seen.object)
            self._refuse_failure(seen.object)
            status = _status(seen.object)
            if status.message and status.message != self._told:
                self._told = status.message
                self.step.message(f"waiting: {status.message}")
            if time.monotonic() > deadline:
                raise self._failed(f"it did not answer within {DEPLOY_SECONDS:.0f} s: {status.message}")
            renew()
        raise AssertionError("a watch never ends by itself")

    def _check(self, obj: Object | None) -> None:
        self.step.check()
        if is_cancelled(self.step.store, self.step.run_id, self.step.attempt):
            raise Cancelled(
                f"run {self.step.run_id} was cancelled", action=f"`headrace resume {self.step.run_id}` goes on with it"
            )
        if obj is None:
            raise self._failed("somebody deleted the ModelDeployment")
        if obj["spec"]["model"].get("version") != self.version:
            raise self._failed("somebody changed what it is to serve")

    def _answers(self, obj: Object) -> bool:
        """Whether every replica answers with the version, and by the newest spec."""
        status, generation = _status(obj), obj["metadata"]["generation"]
        said = {entry.type: entry for entry in status.conditions if entry.observed_generation == generation}
        available, progressing = said.get("Available"), said.get("Progressing")
        return (
            available is not None
            and available.status == "True"
            and progressing is not None
            and progressing.reason == "Complete"
            and status.serving_version == self.version
        )

    def _refuse_failure(self, obj: Object) -> None:
        generation = obj["metadata"]["generation"]
        for entry in _status(obj).conditions:
            current = entry.observed_generation == generation and entry.status == "False"
            if current and entry.reason in FAILURES:
                raise self._failed(entry.message)

    def _failed(self, why: str) -> RunFailed:
        return RunFailed(
            f"{self.model} version {self.version} was not deployed as {self.name}: {why}",
            action=f"what was served before is served still; `kubectl describe modeldeployment {self.name}` tells more",
            code="deploy-failed",
        )

    def _record(self, obj: Object) -> dict[str, Any]:
        return {"url": _status(obj).url, "model": self.model, "version": self.version}


def _status(obj: Object) -> ModelDeploymentStatus:
    return ModelDeploymentStatus.model_validate(obj.get("status") or {})
