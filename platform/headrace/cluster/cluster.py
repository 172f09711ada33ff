"""One namespace of a cluster: objects read, applied, patched, deleted and followed, as plain JSON values.

Writes are server-side applies under our own field manager, so that what others own in an object stays theirs; where a
thing may be changed by somebody else meanwhile, the patch names the version that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api.kinds import POD, Kind, Object
from headrace.cluster.errors import ApiError
from headrace.cluster.transport import Transport
from headrace.cluster.watching import Watcher

MANAGER = "headrace-steps"
_PAGE = 500
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Seen:
    """A look at one object.

    Args:
        object: as it is now; None where there is none.
        changed: whether it is another than at the last look.
    """

    object: Object | None
    changed: bool


class Cluster:
    """One namespace of a cluster. Every method waits for an API server that is away, and raises Unavailable after the
    transport's patience; what the server refuses is raised as RunFailed or InvalidInput, with its words."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.namespace = namespace

    @property
    def host(self) -> str:
        """Address of the API server."""
        return self._transport.host

    def get(self, kind: Kind, name: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            found: Object = self._transport.request(
                "GET", kind.path(self.namespace, name), f"read {kind.kind} {name}", accept=(404,)
            )
        except ApiError as error:
            if error.reason != "NotFound" or not _names(error, name):
                raise error.headrace_error(f"read {kind.kind} {name}") from None
            return None
        return found

    def list(self, kind: Kind, *, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """All objects that the label selector LABELS and the field selector FIELDS choose."""
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        query = {key: value for key, value in query.items() if value}
        items: list[dict[str, Any]] = []
        while True:
            page = self._transport.request("GET", kind.path(self.namespace), f"list {kind.plural}", query=query)
            items += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return items
            query["continue"] = more

    def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool = False) -> Object:
        """Make the object as MANIFEST says, whether it is there or not; what MANIFEST leaves out stays as it is.

        With `metadata.uid` and `resourceVersion` only the one of that version: else RunFailed, `kubernetes-conflict`.

        Args:
            force: take over fields of MANIFEST that another manager owns, instead of failing with its name.
        """
        name = manifest["metadata"]["name"]
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, **manifest}
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        return self._transport.request(  # type: ignore[no-any-return]
            "PATCH",
            kind.path(self.namespace, name),
            f"apply {kind.kind} {name}",
            query=query,
            body=whole,
            content_type=_APPLY,
        )

    def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Object | None:
        """Make the object; None where one of its name is there."""
        name = manifest["metadata"]["name"]
        try:
            made: Object = self._transport.request(
                "POST",
                kind.path(self.namespace),
                f"create {kind.kind} {name}",
                query={"fieldManager": MANAGER, "fieldValidation": "Strict"},
                body={"apiVersion": kind.api_version, "kind": kind.kind, **manifest},
                accept=(409,),
            )
        except ApiError:
            return None
        return made

    def patch(self, kind: Kind, name: str, changes: Mapping[str, Any]) -> Object | None:
        """Merge CHANGES into the object (null removes); None where it is gone, or is no longer of the version that
        CHANGES name in `metadata.resourceVersion`."""
        try:
            patched: Object = self._transport.request(
                "PATCH",
                kind.path(self.namespace, name),
                f"change {kind.kind} {name}",
                query={"fieldManager": MANAGER, "fieldValidation": "Strict"},
                body=dict(changes),
                content_type=_MERGE,
                accept=(404, 409),
            )
        except ApiError:
            return None
        return patched

    def patch_status(self, kind: Kind, name: str, status: Mapping[str, Any]) -> Object | None:
        """Merge STATUS into the object's status; None where the object is gone."""
        return self.patch(kind, f"{name}/status", {"status": dict(status)})

    def delete(self, kind: Kind, name: str, *, uid: str | None = None, version: str | None = None) -> bool:
        """Delete the object, only the one of UID and of VERSION where those are given; whether it was there."""
        named = {"uid": uid, "resourceVersion": version}
        preconditions = {key: value for key, value in named.items() if value is not None}
        options = {"propagationPolicy": "Background", "preconditions": preconditions}
        try:
            self._transport.request(
                "DELETE",
                kind.path(self.namespace, name),
                f"delete {kind.kind} {name}",
                body=options,
                accept=(404, 409),
            )
        except ApiError:
            return False
        return True

    def follow(self, kind: Kind, name: str, *, tick_seconds: float) -> Iterator[Seen]:
        """Look at one object: at once, whenever it changes, and after TICK_SECONDS without a change. Never ends."""
        known = self.get(kind, name)
        yield Seen(known, True)
        with Watcher(self._transport, kind, self.namespace, name, known) as watcher:
            while True:
                newer = watcher.next(tick_seconds)
                changed = newer is not known
                known = newer
                yield Seen(known, changed)

    def log(self, pod: str, container: str | None = None, *, lines: int = 200, previous: bool = False) -> str:
        """The last LINES of a container's log, of its run before this one where PREVIOUS; "" where there is none."""
        query = {"tailLines": str(lines), "previous": str(previous).lower()}
        if container:
            query["container"] = container
        try:
            text = self._transport.request(
                "GET", POD.path(self.namespace, pod, "log"), f"read the log of {pod}", query=query, accept=(400, 404)
            )
        except ApiError:
            return ""
        return str(text)


def _names(error: ApiError, name: str) -> bool:
    """Whether a 404 is about the object, not about its kind or its namespace."""
    return f'"{name}" not found' in error.message
