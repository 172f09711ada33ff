"""The verbs of the Kubernetes API on plain JSON values, as a controller needs them.

Every write says who it is (the field manager), is refused if it names a field that is not there, and passes the
leader's guard. A delete names the uid it means; a status names the resource version it was made from.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from headrace_operators.runtime.errors import Unreachable, api_error
from headrace_operators.runtime.kinds import Key, Kind, Object
from headrace_operators.runtime.transport import Guard, Transport

MANAGER = "headrace-operator"
PAGE = 500

_BETWEEN = re.compile(r"[\s,]*")  # two items of a list
_WRITE = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
_APPLY_PATCH = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"


class Page:
    """One page of a list. Its objects are parsed as they are taken: 500 of them as Python values are ten times their
    text, and only what a cache keeps of each is to stay."""

    def __init__(self, raw: bytes) -> None:
        before, opened, after = raw.decode(errors="replace").partition('"items":[')
        self._before = before
        self._after = after if opened else ""
        self._position = 0

    def __iter__(self) -> Iterator[Object]:
        decode, text = json.JSONDecoder().raw_decode, self._after
        while self._position < len(text) and text[self._position] != "]":
            with _garbled_is_unreachable(text[self._position : self._position + 100]):
                item, end = decode(text, self._position)
            self._position = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]
            yield item

    def metadata(self) -> Mapping[str, Any]:
        """The list's own metadata, which may stand behind its items: those not taken yet are passed over."""
        for _ in self:
            pass
        text = f'{self._before}"items":[{self._after[self._position :]}' if self._after else self._before
        with _garbled_is_unreachable(text[-100:]):
            return json.loads(text)["metadata"]  # type: ignore[no-any-return]


class Client:
    """The API server. Writes may have a transport of their own."""

    def __init__(self, transport: Transport, writes: Transport | None = None) -> None:
        self._transport = transport
        self._writes = writes or transport

    def guarded(self, guard: Guard) -> Client:
        """This client with a guard before its writes."""
        return Client(self._transport, self._transport.guarded(guard))

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()
        await self._writes.close()

    async def request(self, method: str, path: str, **options: Any) -> Any:
        """The JSON answer to any request; OPTIONS are those of `Transport.send`. Anything but GET is a write."""
        transport = self._transport if method == "GET" else self._writes
        raw = await transport.send(method, path, **options)
        with _garbled_is_unreachable(raw):
            return json.loads(raw)

    # Reading

    async def get(self, kind: Kind, key: Key) -> Object:
        """The object; NotFound if there is none."""
        return _object(await self.request("GET", kind.path(key.namespace, key.name)))

    async def list(self, kind: Kind, namespace: str | None = None, label_selector: str = "") -> list[Object]:
        """All objects of a kind, of one namespace or of all."""
        found: list[Object] = []
        async for page in self.pages(kind, namespace, label_selector):
            found.extend(page)
        return found

    async def pages(
        self, kind: Kind, namespace: str | None = None, label_selector: str = "", limit: int = PAGE
    ) -> AsyncIterator[Page]:
        """The same, a page at a time; Gone if it took so long that the API server forgot where we were."""
        query = {"limit": str(limit), "labelSelector": label_selector}
        while True:
            page = Page(await self._transport.send("GET", kind.path(namespace), query=query))
            yield page
            further = page.metadata().get("continue")
            if not further:
                return
            query["continue"] = further

    async def watch(
        self, kind: Kind, namespace: str | None, version: str, timeout_seconds: int, label_selector: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        """What happens after VERSION: ("ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK", object).

        Raises:
            Gone: VERSION is too old, list anew.
            ApiError: anything else; a line that cannot be read is Unreachable.
        """
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_seconds),
            "labelSelector": label_selector,
        }
        async with self._transport.stream(kind.path(namespace), query) as lines:
            async for line in lines:
                if line.strip():
                    yield parse_event(line)

    # Writing

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Object:
        """POST it; AlreadyExists if its name is taken."""
        path = kind.path(manifest["metadata"].get("namespace"))
        return _object(await self.request("POST", path, query=_WRITE, body=manifest))

    async def apply(self, kind: Kind, manifest: Mapping[str, Any], *, force: bool = False) -> Object:
        """Server-side apply it; FieldOwned if another manager owns a field of it and FORCE does not take it."""
        metadata = manifest["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        query = {**_WRITE, "force": "true" if force else "false"}
        return _object(await self.request("PATCH", path, query=query, body=manifest, content_type=_APPLY_PATCH))

    async def replace(self, kind: Kind, manifest: Mapping[str, Any]) -> Object:
        """PUT it; Conflict if it is no longer of the manifest's resource version."""
        metadata = manifest["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        return _object(await self.request("PUT", path, query=_WRITE, body=manifest))

    async def merge(self, kind: Kind, key: Key, change: Mapping[str, Any]) -> Object:
        """Merge-patch it."""
        path = kind.path(key.namespace, key.name)
        return _object(await self.request("PATCH", path, query=_WRITE, body=change, content_type=_MERGE_PATCH))

    async def delete(self, kind: Kind, key: Key, uid: str) -> Object:
        """Delete the object of this uid; its dependents go after it. NotFound, or Conflict where the uid is another."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        return _object(await self.request("DELETE", kind.path(key.namespace, key.name), body=body))

    async def patch_status(self, kind: Kind, key: Key, status: Mapping[str, Any], resource_version: str) -> Object:
        """Replace the whole status; Conflict if the object is no longer of RESOURCE_VERSION.

        A JSON patch sends the status alone, and the API server compares a resource version that is in a patch.
        """
        patch = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = kind.path(key.namespace, key.name, "status")
        return _object(await self.request("PATCH", path, query=_WRITE, body=patch, content_type=_JSON_PATCH))


def parse_event(line: bytes) -> tuple[str, Object]:
    """One line of a watch; raises what an ERROR line says."""
    with _garbled_is_unreachable(line):
        event = json.loads(line)
        type_, obj = str(event["type"]), event["object"]
    if type_ == "ERROR":
        raise api_error(int(obj.get("code") or 500), obj)
    return type_, obj


@contextlib.contextmanager
def _garbled_is_unreachable(sent: bytes | str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise Unreachable(0, "Garbled", f"the API server sent what cannot be read: {sent[:100]!r}") from error


def _object(answer: Any) -> Object:
    if not isinstance(answer, dict):
        raise Unreachable(0, "Garbled", f"the API server answered {str(answer)[:100]!r} where an object was due")
    return answer
