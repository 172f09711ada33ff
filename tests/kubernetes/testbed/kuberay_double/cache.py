"""What the double knows of the API server's objects: a list and a watch for each kind, and its own writes at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

import aiohttp

from kuberay_double.wire import Gone, Key, Object, Refused, Resource, Wire, key_of

_LOG = logging.getLogger("kuberay-double")
_AGAIN_SECONDS = 0.2


def version(obj: Object) -> int:
    """The object's resource version. Newer ones are greater: the API promises it since 1.35."""
    return int(obj["metadata"]["resourceVersion"])


class Cache:
    """The objects of one kind, of one NAMESPACE or of all, that bear LABELS; HEAR is told each key that changed."""

    def __init__(
        self, wire: Wire, resource: Resource, hear: Callable[[Key, Object], None], namespace: str = "", labels: str = ""
    ) -> None:
        self.resource = resource
        self._wire = wire
        self._hear = hear
        self._path = resource.path(namespace)
        self._parameters = {"labelSelector": labels} if labels else {}
        self._objects: dict[Key, Object] = {}
        self._ended: set[str] = set()  # uids: an answer to a write may come after the news of the object's end
        self.listed = asyncio.Event()

    def get(self, key: Key) -> Object | None:
        """The object, if it is there."""
        return self._objects.get(key)

    def __iter__(self) -> Iterator[Object]:
        return iter(tuple(self._objects.values()))

    def put(self, obj: Object) -> Object:
        """Take OBJ in unless a newer one is known: what a write answered is known at once."""
        key, uid = key_of(obj), obj["metadata"]["uid"]
        known = self._objects.get(key)
        if uid not in self._ended and (known is None or version(known) < version(obj)):
            self._objects[key] = obj
            self._hear(key, obj)
        return obj

    def remove(self, obj: Object) -> None:
        """Forget OBJ; another one of its name stays."""
        self._ended.add(obj["metadata"]["uid"])
        known = self._objects.get(key_of(obj))
        if known is not None and known["metadata"]["uid"] == obj["metadata"]["uid"]:
            del self._objects[key_of(obj)]
            self._hear(key_of(obj), obj)

    async def run(self) -> None:
        """List and watch for ever; a server that is away is asked again."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, Gone, Refused, OSError):
                at = await self._list()
                self.listed.set()
                await self._watch(at)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _list(self) -> str:
        items, at = await self._wire.list(self._path, **self._parameters)
        there = {item["metadata"]["uid"] for item in items}
        for item in items:  # items of a list do not say what they are
            self.put(item | {"apiVersion": self.resource.api_version, "kind": self.resource.kind})
        for known in self:
            if known["metadata"]["uid"] not in there and version(known) <= int(at):
                self.remove(known)
        return at

    async def _watch(self, at: str) -> None:
        """Watch until the connection breaks; a watch that the server ended in peace goes on where it stood."""
        while True:
            async for type_, obj in self._wire.watch(self._path, at, **self._parameters):
                at = obj["metadata"]["resourceVersion"]
                if type_ == "DELETED":
                    self.remove(obj)
                elif type_ != "BOOKMARK":
                    self.put(obj)
