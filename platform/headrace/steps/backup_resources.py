"""Custom resources in a backup, and back in a cluster, without anything running again that had run.

ModelDeployments and ModelMonitors are wishes: what they say is made anew, and the operator does the rest. A TrainingRun
is also a history. It is made suspended, gets the status that it had, and only then, if it had ended, loses the
suspension: the operator does nothing about a run that has ended. One that was under way stays suspended, since whether
it should go on in this cluster, with these GPUs, is a person's to say. So at every moment, also when the restore is
killed, no attempt is made that nobody asked for (docs/adr/0016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.api.kinds import MODEL_DEPLOYMENT, MODEL_MONITOR, TRAINING_RUN, Kind
from headrace.api.training_run import HELD_UNTIL
from headrace.base.errors import InvalidInput
from headrace.steps.backup_manifest import Existing
from headrace.steps.backup_moves import Moves

FILE = "resources.jsonl.gz"
RESTORED_ANNOTATION = "headrace.dev/restored-from"
KINDS = {kind.kind: kind for kind in (TRAINING_RUN, MODEL_DEPLOYMENT, MODEL_MONITOR)}
# Of an attempt whose RayJob and pods are not in this cluster.
_GONE = ("rayJobName", "rayJobUID", "headPodUID", "jobStartTime", "nextAttemptTime", "observedGeneration")
# What other programs wrote down for themselves; and until when a step of a cluster that is gone waits for a training.
_NOT_KEPT = ("kubectl.kubernetes.io/", "deployment.kubernetes.io/", HELD_UNTIL)

Object = Mapping[str, Any]
Tell = Callable[[str], None]


class Namespace(Protocol):
    """What is asked of one namespace of a cluster; `headrace.cluster.Cluster` is one."""

    namespace: str

    def list(self, kind: Kind) -> list[dict[str, Any]]:
        """All objects of KIND."""

    def get(self, kind: Kind, name: str) -> Object | None:
        """The object, or None."""

    def create(self, kind: Kind, manifest: Object) -> Object | None:
        """Make it; None where its name is taken."""

    def patch(self, kind: Kind, name: str, changes: Object) -> Object | None:
        """Merge CHANGES into it; None where it is gone."""

    def patch_status(self, kind: Kind, name: str, status: Object) -> Object | None:
        """Merge STATUS into its status; None where it is gone."""


@dataclass(frozen=True)
class Restored:
    """What is made of one object of a backup."""

    kind: Kind
    manifest: dict[str, Any]
    status: dict[str, Any] | None = None
    ended: bool = False  # a TrainingRun that will never make an attempt again
    suspended: bool = False  # whether it was, when it was backed up

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.manifest["metadata"]["namespace"])

    @property
    def waits(self) -> bool:
        """Whether a person has to say that it goes on."""
        return self.kind is TRAINING_RUN and not self.ended and not self.suspended


def collect(namespaces: Iterable[Namespace]) -> Iterator[dict[str, Any]]:
    """Every custom resource of NAMESPACES as it is kept: without what the API server made of it."""
    for namespace in namespaces:
        for kind in KINDS.values():
            for found in namespace.list(kind):
                yield kept(kind, found)


def kept(kind: Kind, found: Object) -> dict[str, Any]:
    """FOUND without uid, versions, owners and what other programs wrote down for themselves."""
    metadata = found["metadata"]
    annotations = metadata.get("annotations") or {}
    told: dict[str, Any] = {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "labels": dict(metadata.get("labels") or {}),
        "annotations": {key: value for key, value in annotations.items() if not key.startswith(_NOT_KEPT)},
    }
    record = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": told, "spec": found.get("spec") or {}}
    return {**record, "status": found["status"]} if kind is TRAINING_RUN and found.get("status") else record


def needed_to_go_on(record: Object) -> dict[str, str]:
    """The addresses, and what each is, that the TrainingRun RECORD cannot go on without if it has not ended."""
    if record["kind"] != TRAINING_RUN.kind or (record.get("status") or {}).get("completionTime"):
        return {}
    spec, name = record["spec"], record["metadata"]["name"]
    code = (spec.get("model") or {}).get("code") or {}
    named = {spec.get("manifestURI"): f"the split of {name}", code.get("uri"): f"the own code of {name}"}
    return {uri: what for uri, what in named.items() if uri}


def restored(record: Object, moves: Moves, source: str) -> Restored:
    """What becomes of the object RECORD of the backup SOURCE, its addresses moved."""
    kind = KINDS[record["kind"]]
    moved = moves.value({key: record[key] for key in ("metadata", "spec")})
    metadata = moved["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), RESTORED_ANNOTATION: source}
    manifest = {"metadata": {key: value for key, value in metadata.items() if value}, "spec": moved["spec"]}
    if kind is not TRAINING_RUN:
        return Restored(kind, manifest)
    status = moves.value(dict(record.get("status") or {}))
    suspended = bool(moved["spec"].get("suspend"))
    manifest["spec"] = {**moved["spec"], "suspend": True}
    return Restored(
        kind,
        manifest,
        {key: value for key, value in status.items() if key not in _GONE},
        ended=status.get("completionTime") is not None,
        suspended=suspended,
    )


def make(wanted: Restored, namespace: Namespace, existing: Existing) -> bool:
    """Make WANTED; False where one of its name is there and stays. May be repeated after a kill.

    A TrainingRun that is there stays whatever EXISTING says: it has come further than the backup knows, and attempts
    are never counted back. Only one that an earlier, killed restore left half made (it is suspended and of the same
    backup) is finished.
    """
    if namespace.create(wanted.kind, wanted.manifest) is None:
        if wanted.kind is TRAINING_RUN:
            if not _half_made(wanted, namespace):
                return False
        elif existing is not Existing.overwrite:
            return False
        else:
            _replace(wanted, namespace)
    if wanted.status:
        there = namespace.get(wanted.kind, wanted.name) or {}  # an operator may have written that it is suspended
        status = replacement(there.get("status") or {}, wanted.status)
        namespace.patch_status(wanted.kind, wanted.name, status)
    if wanted.ended and not wanted.suspended:
        namespace.patch(wanted.kind, wanted.name, {"spec": {"suspend": False}})
    return True


def require_idle(namespaces: Iterable[Namespace]) -> None:
    """Raise InvalidInput where a training goes on in NAMESPACES: it writes to what is written over."""
    busy = [
        f"{namespace.namespace}/{found['metadata']['name']}"
        for namespace in namespaces
        for found in namespace.list(TRAINING_RUN)
        if not (found.get("status") or {}).get("completionTime") and not found["spec"].get("suspend")
    ]
    if busy:
        where, _, name = busy[0].partition("/")
        raise InvalidInput(
            f"trainings go on here: {', '.join(busy)}",
            action=f"wait for them, or suspend each: kubectl patch trainingrun {name} -n {where} --type merge "
            '-p \'{"spec":{"suspend":true}}\'',
            code="target-busy",
        )


def _replace(wanted: Restored, namespace: Namespace) -> None:
    """Make the spec of the object that is there the one that is WANTED, and nothing of another beside it."""
    there = namespace.get(wanted.kind, wanted.name) or {}
    spec = replacement(there.get("spec") or {}, wanted.manifest["spec"])
    metadata = {key: value for key, value in wanted.manifest["metadata"].items() if key in ("labels", "annotations")}
    if namespace.patch(wanted.kind, wanted.name, {"metadata": metadata, "spec": spec}) is None:
        namespace.create(wanted.kind, wanted.manifest)  # deleted meanwhile


def replacement(there: Object, wanted: Object) -> dict[str, Any]:
    """The merge patch (RFC 7386) that makes THERE what is WANTED: what only THERE has is removed, at every depth."""
    patch: dict[str, Any] = {key: None for key in there if key not in wanted}
    for key, value in wanted.items():
        before = there.get(key)
        nested = isinstance(before, Mapping) and isinstance(value, Mapping)
        patch[key] = replacement(before, value) if nested else value  # type: ignore[arg-type]
    return patch


def _half_made(wanted: Restored, namespace: Namespace) -> bool:
    there = namespace.get(wanted.kind, wanted.name) or {}
    annotations = (there.get("metadata") or {}).get("annotations") or {}
    source = wanted.manifest["metadata"]["annotations"][RESTORED_ANNOTATION]
    if (there.get("spec") or {}).get("suspend") is not True or annotations.get(RESTORED_ANNOTATION) != source:
        return False
    attempts = [int((status or {}).get("attempt") or 0) for status in (there.get("status"), wanted.status)]
    return wanted.ended or attempts[0] < attempts[1]  # else its status is there; it may have gone on since
