"""A stand-in of `headrace.cluster.Cluster` for unit tests, in memory; test_cluster.py holds it to the real one.

What happens in the cluster meanwhile is a script: each look of `follow` after the first carries out the next of its
entries. A script that is over while somebody still waits fails the test.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from headrace.base.errors import RunFailed
from headrace.cluster import Kind, Object, Seen

Happening = Callable[[], Any]


class FakeCluster:
    """One namespace. `script` holds what is to happen; `written` what was asked for: (verb, kind, name)."""

    namespace = "runs"

    def __init__(self) -> None:
        self.script: list[Happening] = []
        self.written: list[tuple[str, str, str]] = []
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._versions = itertools.count(1)

    # as the cluster

    def get(self, kind: Kind, name: str) -> Object | None:
        """See `Cluster.get`."""
        return copy.deepcopy(self._objects.get((kind.kind, name)))

    def list(self, kind: Kind, *, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """See `Cluster.list`. FIELDS may only be of metadata.name."""
        wanted = [pair.split("=") for pair in labels.split(",") if pair]
        name = fields.removeprefix("metadata.name=")
        return [
            copy.deepcopy(obj)
            for (of, called), obj in sorted(self._objects.items())
            if of == kind.kind
            and name in ("", called)
            and all((obj["metadata"].get("labels") or {}).get(key) == value for key, value in wanted)
        ]

    def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool = False) -> Object:
        """See `Cluster.apply`: as if nobody else owned a field."""
        name = manifest["metadata"]["name"]
        self.written.append(("apply", kind.kind, name))
        before = self._objects.get((kind.kind, name)) or self._new(name)
        for key in ("uid", "resourceVersion"):
            if manifest["metadata"].get(key) not in (None, before["metadata"].get(key)):
                raise RunFailed(f"Kubernetes refused to apply {kind.kind} {name}", code="kubernetes-conflict")
        return self._store(kind, _merged(before, {"apiVersion": kind.api_version, "kind": kind.kind, **manifest}))

    def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Object | None:
        """See `Cluster.create`."""
        name = manifest["metadata"]["name"]
        if (kind.kind, name) in self._objects:
            return None
        self.written.append(("create", kind.kind, name))
        return self._store(
            kind, _merged(self._new(name), {"apiVersion": kind.api_version, "kind": kind.kind, **manifest})
        )

    def patch(self, kind: Kind, name: str, changes: Mapping[str, Any]) -> Object | None:
        """See `Cluster.patch`."""
        before = self._objects.get((kind.kind, name))
        version = (changes.get("metadata") or {}).get("resourceVersion")
        if before is None or version not in (None, before["metadata"]["resourceVersion"]):
            return None
        self.written.append(("patch", kind.kind, name))
        return self._store(kind, _merged(before, changes))

    def delete(self, kind: Kind, name: str, *, uid: str | None = None, version: str | None = None) -> bool:
        """See `Cluster.delete`."""
        before = self._objects.get((kind.kind, name))
        if before is None or uid not in (None, before["metadata"]["uid"]):
            return False
        if version not in (None, before["metadata"]["resourceVersion"]):
            return False
        self.written.append(("delete", kind.kind, name))
        del self._objects[kind.kind, name]
        return True

    def follow(self, kind: Kind, name: str, *, tick_seconds: float) -> Iterator[Seen]:
        """See `Cluster.follow`; a tick takes no time."""
        known = self.get(kind, name)
        yield Seen(known, True)
        while True:
            assert self.script, "the script is over, and somebody still waits"
            self.script.pop(0)()
            now = self.get(kind, name)
            yield Seen(now, now != known)
            known = now

    # as what happens in it

    def say(self, kind: Kind, name: str, **status: Any) -> None:
        """Set fields of the object's status; conditions are {type: (status, reason, message)}."""
        obj = self._objects[kind.kind, name]
        if "conditions" in status:
            generation = obj["metadata"]["generation"]
            status["conditions"] = [
                {
                    "type": type_,
                    "status": told[0],
                    "reason": told[1],
                    "message": told[2],
                    "lastTransitionTime": "2026-11-26T00:00:00Z",
                    "observedGeneration": generation,
                }
                for type_, told in status["conditions"].items()
            ]
        self._store(kind, {**obj, "status": {**obj.get("status", {}), **status}})

    def _new(self, name: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": self.namespace, "uid": f"uid-{next(self._versions)}"}}

    def _store(self, kind: Kind, obj: Mapping[str, Any]) -> dict[str, Any]:
        whole = copy.deepcopy(dict(obj))
        metadata = whole["metadata"]
        before = self._objects.get((kind.kind, metadata["name"]))
        changed = before is None or before.get("spec") != whole.get("spec")
        metadata["generation"] = metadata.get("generation", 0) + changed
        metadata["resourceVersion"] = str(next(self._versions))
        self._objects[kind.kind, metadata["name"]] = whole
        return copy.deepcopy(whole)


def _merged(value: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """VALUE with CHANGES merged in (RFC 7386)."""
    merged = dict(value)
    for key, new in changes.items():
        if new is None:
            merged.pop(key, None)
        elif isinstance(new, Mapping):
            old = merged.get(key)
            merged[key] = _merged(old if isinstance(old, Mapping) else {}, new)
        else:
            merged[key] = new
    return merged
