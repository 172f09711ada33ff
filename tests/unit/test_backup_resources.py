"""What becomes of custom resources: kept without what the API server made, restored without running again."""

from __future__ import annotations

import json
from typing import Any

from headrace.api.kinds import TRAINING_RUN, Kind
from headrace.steps.backup_manifest import Existing
from headrace.steps.backup_moves import Moves
from headrace.steps.backup_resources import kept, make, restored

NAME = "20261126T043000Z"


def object_(kind: str = "TrainingRun", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": "digits",
            "namespace": "team",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 3,
            "ownerReferences": [{"name": "o"}],
            "managedFields": [{}],
            "labels": {"a": "b"},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "headrace.dev/held-until": "2026-11-26T04:40:00Z",  # by a step that is not in the other cluster
                "mine": "yes",
            },
        },
        "spec": {"store": {"uri": "s3://old/store"}, "manifestURI": "s3://old/store/splits/1"},
        **({"status": status} if status else {}),
    }


def test_nothing_of_what_the_api_server_made_is_kept() -> None:
    record = kept(TRAINING_RUN, object_(phase="Running"))
    assert record["metadata"] == {
        "name": "digits",
        "namespace": "team",
        "labels": {"a": "b"},
        "annotations": {"mine": "yes"},
    }
    assert record["status"] == {"phase": "Running"}


class Cluster:
    """A namespace that remembers what was asked, in order; made of the operator's point of view at each step."""

    namespace = "team"

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.seen: list[tuple[bool, bool]] = []  # after each write: suspended, ended

    def list(self, kind: Kind) -> list[dict[str, Any]]:
        return [value for value in self.objects.values() if value["kind"] == kind.kind]

    def get(self, kind: Kind, name: str) -> Any:
        return self.objects.get(name)

    def create(self, kind: Kind, manifest: Any) -> Any:
        if manifest["metadata"]["name"] in self.objects:
            return None
        return self.apply(kind, manifest, force=True)

    def apply(self, kind: Kind, manifest: Any, *, force: bool) -> Any:
        name = manifest["metadata"]["name"]
        self.objects[name] = {**self.objects.get(name, {}), **json.loads(json.dumps(manifest)), "kind": kind.kind}
        return self._noted(name)

    def patch(self, kind: Kind, name: str, changes: Any) -> Any:
        self.objects[name]["spec"] |= changes["spec"]
        return self._noted(name)

    def patch_status(self, kind: Kind, name: str, status: Any) -> Any:
        self.objects[name]["status"] = {**self.objects[name].get("status", {}), **status}
        return self._noted(name)

    def _noted(self, name: str) -> Any:
        found = self.objects[name]
        ended = found.get("status", {}).get("completionTime") is not None
        self.seen.append((found["spec"].get("suspend") is True, ended))
        return found


def ended() -> dict[str, Any]:
    return kept(TRAINING_RUN, object_(phase="Succeeded", completionTime="t", attempt=2, rayJobName="digits-2"))


def under_way() -> dict[str, Any]:
    return kept(TRAINING_RUN, object_(phase="Running", attempt=2, rayJobName="digits-2", rayJobUID="u"))


MOVED = Moves.of([("s3://old", "s3://new")])


def test_a_run_that_had_ended_is_history_and_at_no_moment_one_that_may_begin() -> None:
    cluster = Cluster()
    assert make(restored(ended(), MOVED, NAME), cluster, Existing.refuse)
    assert all(suspended or over for suspended, over in cluster.seen)
    made = cluster.objects["digits"]
    assert made["spec"]["suspend"] is False
    assert made["spec"]["manifestURI"] == "s3://new/store/splits/1"
    assert made["status"] == {"phase": "Succeeded", "completionTime": "t", "attempt": 2}
    assert made["metadata"]["annotations"]["headrace.dev/restored-from"] == NAME


def test_a_run_that_was_under_way_stays_suspended_and_its_attempts_are_counted_on() -> None:
    cluster = Cluster()
    wanted = restored(under_way(), MOVED, NAME)
    assert make(wanted, cluster, Existing.refuse)
    assert wanted.waits
    assert all(suspended for suspended, _ in cluster.seen)
    assert cluster.objects["digits"]["status"] == {"phase": "Running", "attempt": 2}  # no RayJob of another cluster


def test_a_restore_that_was_killed_between_two_writes_is_finished_by_the_next() -> None:
    for done in range(1, 4):
        cluster = Cluster()
        wanted = restored(ended(), MOVED, NAME)
        cluster.create(TRAINING_RUN, wanted.manifest)
        if done > 1:
            cluster.patch_status(TRAINING_RUN, "digits", wanted.status or {})
        if done > 2:
            cluster.patch(TRAINING_RUN, "digits", {"spec": {"suspend": False}})
        make(wanted, cluster, Existing.keep)
        assert cluster.objects["digits"]["status"]["completionTime"] == "t"
        assert cluster.objects["digits"]["spec"]["suspend"] is False


def test_an_object_that_is_there_stays_as_it_is_unless_told() -> None:
    cluster = Cluster()
    cluster.apply(TRAINING_RUN, {"metadata": {"name": "digits"}, "spec": {"mine": True}}, force=True)
    assert not make(restored(ended(), MOVED, NAME), cluster, Existing.keep)
    assert cluster.objects["digits"]["spec"] == {"mine": True}
    assert make(restored(ended(), MOVED, NAME), cluster, Existing.overwrite)
    assert "manifestURI" in cluster.objects["digits"]["spec"]


def test_deployments_are_wishes_without_a_status() -> None:
    record = {**object_("ModelDeployment", servingVersion="1")}
    del record["status"]
    wanted = restored(record, MOVED, NAME)
    assert (wanted.status, wanted.waits) == (None, False)
    assert "suspend" not in wanted.manifest["spec"]
