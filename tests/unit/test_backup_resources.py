"""What becomes of custom resources: kept without what the API server made, restored without running again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.api.kinds import MODEL_DEPLOYMENT, TRAINING_RUN, Kind
from headrace.base.errors import InvalidInput
from headrace.steps.backup_manifest import Existing
from headrace.steps.backup_moves import Moves
from headrace.steps.backup_resources import kept, make, needed_to_go_on, require_idle, restored

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


def merged(there: Any, patch: Any) -> Any:
    """RFC 7386, as the API server does it."""
    if not isinstance(patch, dict):
        return patch
    found = dict(there) if isinstance(there, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


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
        name = manifest["metadata"]["name"]
        if name in self.objects:
            return None
        self.objects[name] = {**json.loads(json.dumps(manifest)), "kind": kind.kind}
        return self._noted(name)

    def patch(self, kind: Kind, name: str, changes: Any) -> Any:
        self.objects[name] = merged(self.objects[name], changes)
        return self._noted(name)

    def patch_status(self, kind: Kind, name: str, status: Any) -> Any:
        return self.patch(kind, name, {"status": status})

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


def test_what_an_operator_says_of_it_meanwhile_is_not_mixed_with_what_it_was() -> None:
    class Watched(Cluster):
        def create(self, kind: Kind, manifest: Any) -> Any:
            made = super().create(kind, manifest)
            if made is not None:
                self.patch_status(kind, "digits", {"phase": "Suspended", "conditions": [{"type": "Suspended"}]})
            return made

    cluster = Watched()
    wanted = restored(ended(), MOVED, NAME)
    assert make(wanted, cluster, Existing.refuse)
    assert cluster.objects["digits"]["status"] == wanted.status


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
    cluster, wanted = Cluster(), restored(object_("ModelDeployment"), MOVED, NAME)
    there = {"metadata": {"name": "digits", "labels": {"mine": "yes"}}, "spec": {"alias": "x", "store": {"old": 1}}}
    cluster.create(MODEL_DEPLOYMENT, there)
    assert not make(wanted, cluster, Existing.keep)
    assert cluster.objects["digits"]["spec"] == there["spec"]
    assert make(wanted, cluster, Existing.overwrite)
    assert cluster.objects["digits"]["spec"] == wanted.manifest["spec"]  # and nothing of the other beside it
    assert cluster.objects["digits"]["metadata"]["labels"] == {"mine": "yes", "a": "b"}


@pytest.mark.parametrize("existing", [Existing.keep, Existing.overwrite])
def test_a_training_that_is_there_is_never_taken_back(existing: Existing) -> None:
    for status in ({"phase": "Running", "attempt": 5}, {"phase": "Failed", "completionTime": "t", "attempt": 5}):
        cluster = Cluster()
        cluster.create(TRAINING_RUN, {"metadata": {"name": "digits"}, "spec": {"mine": True}})
        cluster.patch_status(TRAINING_RUN, "digits", status)
        before = json.dumps(cluster.objects)
        for record in (ended(), under_way()):
            assert not make(restored(record, MOVED, NAME), cluster, existing)
        assert json.dumps(cluster.objects) == before


def test_a_restored_training_that_went_on_and_was_suspended_is_not_half_made() -> None:
    cluster, wanted = Cluster(), restored(under_way(), MOVED, NAME)
    cluster.create(TRAINING_RUN, wanted.manifest)
    assert make(wanted, cluster, Existing.keep)  # killed before its status was there
    cluster.patch_status(TRAINING_RUN, "digits", {"attempt": 3})
    assert not make(wanted, cluster, Existing.keep)
    assert cluster.objects["digits"]["status"]["attempt"] == 3


def test_nothing_is_written_over_while_a_training_goes_on() -> None:
    cluster = Cluster()
    wanted = restored(under_way(), MOVED, NAME)
    make(wanted, cluster, Existing.refuse)
    require_idle([cluster])  # it is suspended
    cluster.patch(TRAINING_RUN, "digits", {"spec": {"suspend": False}})
    with pytest.raises(InvalidInput, match="team/digits") as refused:
        require_idle([cluster])
    assert "kubectl patch trainingrun digits -n team" in refused.value.action
    cluster.patch_status(TRAINING_RUN, "digits", {"completionTime": "t"})
    require_idle([cluster])


def test_what_a_training_under_way_needs_is_named_and_of_one_that_ended_nothing() -> None:
    assert needed_to_go_on(ended()) == {}
    own = under_way()
    own["spec"]["model"] = {"code": {"uri": "s3://old/store/code/c.tar", "sha256": "c"}}
    assert list(needed_to_go_on(own)) == ["s3://old/store/splits/1", "s3://old/store/code/c.tar"]
    assert needed_to_go_on(object_("ModelDeployment")) == {}


def test_deployments_are_wishes_without_a_status() -> None:
    record = {**object_("ModelDeployment", servingVersion="1")}
    del record["status"]
    wanted = restored(record, MOVED, NAME)
    assert (wanted.status, wanted.waits) == (None, False)
    assert "suspend" not in wanted.manifest["spec"]
