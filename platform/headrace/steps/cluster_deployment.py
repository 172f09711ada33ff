"""A ModelDeployment, applied and followed by a deploy step until the version truly answers.

What the endpoint said before is in the store before it is changed, so that it can be put back by whichever pod of the
attempt sees the version fail. Each write carries the attempt, in an annotation, so that what a newer attempt writes is
always a change, and each is of the version that was looked at, so an older one that would write on top of it is
refused; what an older one makes where nothing is, it takes away again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from headrace.api.model_deployment import ModelDeploymentSpec, ModelDeploymentStatus
from headrace.api.parts import GROUP, RUN_ID_LABEL
from headrace.api.site import Site
from headrace.base.errors import HeadraceError, RunFailed, Superseded, Unavailable
from headrace.cluster import MODEL_DEPLOYMENT, Kind, Object, Seen
from headrace.cluster.cluster import MANAGER
from headrace.cluster.leases import Leases
from headrace.steps.cluster_wish import changes_to, wish
from headrace.steps.step import Step
from headrace.store.step_files import read_note, write_note

ATTEMPT_ANNOTATION = f"{GROUP}/run-attempt"
BEFORE_NOTE = "deployment-before"
TICK_SECONDS = 10.0
DEPLOY_SECONDS = 1800.0  # images of several GB onto new nodes, then the model; a missing image never fails by itself
_TRIES = 10  # of a write, each refused as somebody else has written: the operator does so on every change
# Reasons of Accepted, Resolved and Progressing that end a wish; the others are waits.
FAILURES = ("LoadFailed", "DeployFailed", "RayServiceInvalid", "NameTaken", "InvalidSpec", "NotFound")


class Deployments(Leases, Protocol):
    """What a deployment needs of a cluster; see `headrace.cluster.Cluster`."""

    namespace: str

    def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool = False) -> Object:
        """See there."""

    def delete(self, kind: Kind, name: str, *, uid: str | None = None, version: str | None = None) -> bool:
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
        self._before: Mapping[str, Any] | None = None
        self._told = ""

    def serving(self) -> dict[str, Any] | None:
        """The endpoint's record if it is as wished and answers with the version, else None."""
        found = self._cluster.get(MODEL_DEPLOYMENT, self.name)
        if found is None or not self._as_wished(found["spec"]) or not self._answers(found):
            return None
        return self._record(found)

    def deploy(self, renew: Callable[[], None], conclude: Callable[[], None]) -> dict[str, Any]:
        """Make it so; {"url", "model", "version"} once every replica answers with the version.

        Args:
            renew: called now and then while it takes.
            conclude: called when every replica answers; where it raises, the deployment has failed.

        Raises:
            RunFailed: the version could not be loaded, in the front's own words, or did not come up in DEPLOY_SECONDS.
            HeadraceError: what the API server or CONCLUDE refused. Then, too, the endpoint is as it was before.
            Superseded, Unavailable: it stays as it is, for the attempt or the try that comes next.
        """
        self._before = self._remember()
        try:
            endpoint = self._make(renew)
            conclude()  # what is interrupted there may be concluded
            return endpoint
        except (Superseded, Unavailable):
            raise
        except HeadraceError:
            self._write(self._put_back)
            raise

    def put_back(self) -> None:
        """Let it be as it was before the run, where an earlier pod or try of the run has changed it."""
        note = read_note(self.step.store, self.step.run_id, BEFORE_NOTE)
        if note is not None and self._is_of_the_run(self._cluster.get(MODEL_DEPLOYMENT, self.name)):
            self._before = note["spec"]
            self._write(self._put_back)

    def _make(self, renew: Callable[[], None]) -> dict[str, Any]:
        try:
            self._write(self._apply)
            return self._wait(renew)
        except KeyboardInterrupt:
            if self.step.ends_by_wish():
                with suppress(HeadraceError):  # there is no time to wait; a next attempt knows what was before
                    self._write(self._put_back)
            raise

    # the wish

    def _write(self, write: Callable[[Object | None], bool]) -> None:
        """WRITE, given the endpoint as it is, until it is not refused for a change in between."""
        for _ in range(_TRIES):
            found = self._cluster.get(MODEL_DEPLOYMENT, self.name)
            self.step.check()  # after the look: what a newer attempt writes from now on refuses what is written of it
            if write(found):
                return
        raise self._failed("it changes all the time", "look at who changes it, then resume the run")

    def _apply(self, found: Object | None) -> bool:
        annotations = {RUN_ID_LABEL: self.step.run_id, ATTEMPT_ANNOTATION: self.step.attempt}
        metadata: dict[str, Any] = {"name": self.name, "annotations": annotations}
        wished = self._wish.to_record()
        if found is None:
            made = self._cluster.create(MODEL_DEPLOYMENT, {"metadata": metadata, "spec": wished})
            if made is not None:
                self._take_away_if_late(made)
            return made is not None
        if "alias" in found["spec"]["model"]:  # somebody else's field, which no apply takes away
            self._patch(found, {"model": {"alias": None, "name": self.model, "version": self.version}}, annotations)
            return False
        if owners := _as_applied(found["metadata"].get("managedFields") or []):
            metadata = {"resourceVersion": found["metadata"]["resourceVersion"], "managedFields": owners}
            self._cluster.patch(MODEL_DEPLOYMENT, self.name, {"metadata": metadata})
            return False
        metadata |= {key: found["metadata"][key] for key in ("uid", "resourceVersion")}
        try:
            self._cluster.apply(MODEL_DEPLOYMENT, {"metadata": metadata, "spec": wished}, force=True)
        except RunFailed as refused:
            if refused.code != "kubernetes-conflict":
                raise
            return False
        return True

    def _take_away_if_late(self, made: Object) -> None:
        """Delete MADE if a newer attempt came before it, which may have deleted its own and looks no more."""
        try:
            self.step.check()
        except Superseded:
            for _ in range(_TRIES):
                found = self._cluster.get(MODEL_DEPLOYMENT, self.name)
                if found is None or found["metadata"]["uid"] != made["metadata"]["uid"]:
                    break
                if found["metadata"]["annotations"].get(ATTEMPT_ANNOTATION) != self.step.attempt:
                    break
                version = found["metadata"]["resourceVersion"]
                if self._cluster.delete(MODEL_DEPLOYMENT, self.name, uid=made["metadata"]["uid"], version=version):
                    break
            raise

    def _patch(self, found: Object, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> bool:
        metadata = {"resourceVersion": found["metadata"]["resourceVersion"], "annotations": annotations}
        return self._cluster.patch(MODEL_DEPLOYMENT, self.name, {"metadata": metadata, "spec": spec}) is not None

    def _as_wished(self, spec: Mapping[str, Any]) -> bool:
        there = ModelDeploymentSpec.model_validate(spec)
        return all(getattr(there, field) == getattr(self._wish, field) for field in self._wish.model_fields_set)

    def _remember(self) -> Mapping[str, Any] | None:
        """The spec that the endpoint had before this run, written down before anything is changed."""
        note = read_note(self.step.store, self.step.run_id, BEFORE_NOTE)
        found = self._cluster.get(MODEL_DEPLOYMENT, self.name)
        if note is None or not self._is_of_the_run(found):
            note = {"spec": None if found is None else dict(found["spec"])}
            self.step.check()
            write_note(self.step.store, self.step.run_id, BEFORE_NOTE, note)
        before: Mapping[str, Any] | None = note["spec"]
        return before

    def _is_of_the_run(self, obj: Object | None) -> bool:
        """Whether a pod of this run, killed since, has changed OBJ already."""
        if obj is None or not self._names_the_version(obj):
            return False
        return (obj["metadata"].get("annotations") or {}).get(RUN_ID_LABEL) == self.step.run_id

    def _names_the_version(self, obj: Object) -> bool:
        model = obj["spec"]["model"]
        return (model["name"], model.get("version")) == (self.model, self.version)

    def _put_back(self, found: Object | None) -> bool:
        """Let the endpoint say what it said before, unless somebody has wished something else since."""
        if found is None or not self._names_the_version(found):
            return True
        if self._before is None:
            metadata = found["metadata"]
            if not self._cluster.delete(
                MODEL_DEPLOYMENT, self.name, uid=metadata["uid"], version=metadata["resourceVersion"]
            ):
                return False
            self.step.message(f"{self.name}, which was not there before, is deleted")
        elif changes := changes_to(found["spec"], self._before):
            if not self._patch(found, changes, {}):
                return False
            model = self._before["model"]
            self.step.message(
                f"{self.name} is put back to {model['name']} {model.get('version') or model.get('alias')}"
            )
        return True

    # waiting

    def _wait(self, renew: Callable[[], None]) -> dict[str, Any]:
        deadline = time.monotonic() + DEPLOY_SECONDS
        for seen in self._cluster.follow(MODEL_DEPLOYMENT, self.name, tick_seconds=TICK_SECONDS):
            obj = self._still_wished(seen.object)
            if self._answers(obj):
                return self._record(obj)
            self._refuse_failure(obj)
            status = _status(obj)
            if status.message and status.message != self._told:
                self._told = status.message
                self.step.message(f"waiting: {status.message}")
            if time.monotonic() > deadline:
                raise self._failed(f"it did not answer within {DEPLOY_SECONDS:.0f} s: {status.message}")
            renew()
        raise AssertionError("a watch never ends by itself")

    def _still_wished(self, obj: Object | None) -> Object:
        self.step.check_wanted()
        again = f"find out who; `headrace resume {self.step.run_id}` deploys it again"
        if obj is None:
            raise self._failed("somebody deleted the ModelDeployment", again)
        if not self._names_the_version(obj):
            raise self._failed("somebody changed what it is to serve", again)
        return obj

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

    def _failed(self, why: str, action: str = "") -> RunFailed:
        events = f"`kubectl -n {self._cluster.namespace} events --for modeldeployment/{self.name}` tells more"
        left = "what was served before is served still" if self._before else "the endpoint, a first one, is deleted"
        return RunFailed(
            f"{self.model} version {self.version} was not deployed as {self.name}: {why}",
            action=action or f"{left}; {events}",
            code="deploy-failed",
        )

    def _record(self, obj: Object) -> dict[str, Any]:
        return {"url": _status(obj).url, "model": self.model, "version": self.version}


def _as_applied(owners: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """OWNERS of an object's fields, where we made it and have not applied it: as if we had, so that an apply takes away
    what it no longer says. [] where there is nothing to change."""
    ours = [each for each in owners if each["manager"] == MANAGER and not each.get("subresource")]
    if [each["operation"] for each in ours] != ["Update"]:
        return []
    return [{**each, "operation": "Apply"} if each is ours[0] else each for each in owners]


def _status(obj: Object) -> ModelDeploymentStatus:
    return ModelDeploymentStatus.model_validate(obj.get("status") or {})
