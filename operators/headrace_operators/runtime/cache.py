"""What the operator knows of the cluster: one store for each watch, read by plans instead of the API server.

Objects are held as compact JSON, a tenth of what they take as Python values, and parsed when a plan asks for them.
Each is indexed by the primaries it concerns, so that a plan finds "its" objects without a search.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace_operators.runtime.kinds import Key, Kind, Object, controller_of, key_of

_UNREAD_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"  # a copy of the whole object
_UNREAD_METADATA = ("managedFields", "resourceVersion", "selfLink")  # the version is kept beside the object


def whole(obj: Object) -> Object:
    """Keep all of an object."""
    return obj


def by_name(obj: Object) -> Iterable[Key]:
    """The object is itself the primary."""
    return (key_of(obj),)


def by_controller(kind: Kind) -> Callable[[Object], Iterable[Key]]:
    """An object concerns its controller, if that is of KIND."""

    def keys(obj: Object) -> Iterable[Key]:
        owner = controller_of(obj)
        if owner and owner["kind"] == kind.kind and owner["apiVersion"].split("/")[0] == kind.group:
            yield Key(key_of(obj).namespace, str(owner["name"]))

    return keys


def by_label(label: str) -> Callable[[Object], Iterable[Key]]:
    """An object concerns the primary of its namespace whose name is the value of LABEL."""

    def keys(obj: Object) -> Iterable[Key]:
        if name := (obj["metadata"].get("labels") or {}).get(label):
            yield Key(key_of(obj).namespace, str(name))

    return keys


@dataclass(frozen=True)
class Watch:
    """A kind of object that a reconciler wants to know of.

    Args:
        kind: what.
        keys: the primaries that an object concerns: they are planned anew when it changes.
        keep: what of an object stays in memory. A change of what does not stay wakes nobody.
        label_selector: only objects with these labels.
        optional: the kind may be missing from the cluster (Kueue's, say); then there are none, and
            `Store.missing` is set.
    """

    kind: Kind
    keys: Callable[[Object], Iterable[Key]]
    keep: Callable[[Object], Object] = whole
    label_selector: str = ""
    optional: bool = False


class Store:
    """The objects of one watch.

    `seen` is the newest resource version that was taken in, by a list, an event or a bookmark: the store knows of every
    change up to it. Versions of one kind may be compared as numbers (KEP-5504).
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.synced = False
        self.missing = False
        self.seen = 0
        self._size = 0
        self._objects: dict[Key, bytes] = {}
        self._versions: dict[Key, int] = {}
        self._concerns: dict[Key, tuple[Key, ...]] = {}
        self._index: dict[Key, set[Key]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._objects)

    def size(self) -> int:
        """Bytes that the objects take."""
        return self._size

    def version(self, key: Key) -> int:
        """The version of the object that is held; 0 for none."""
        return self._versions.get(key, 0)

    def get(self, key: Key) -> dict[str, Any] | None:
        """The object as of its last event, a fresh copy."""
        held = self._objects.get(key)
        if held is None:
            return None
        obj: dict[str, Any] = json.loads(held)
        obj["metadata"]["resourceVersion"] = str(self._versions[key])
        return {"apiVersion": self.watch.kind.api_version, "kind": self.watch.kind.kind, **obj}

    def of(self, primary: Key) -> list[dict[str, Any]]:
        """The objects that concern PRIMARY, by name."""
        found = (self.get(key) for key in sorted(self._index.get(primary, ())))
        return [obj for obj in found if obj is not None]

    def put(self, obj: Object) -> set[Key]:
        """Take in an object; the primaries that are to be planned anew."""
        key = key_of(obj)
        held, compact = self._objects.get(key), _compact(self.watch.keep(obj))
        before, after = self._concerns.get(key, ()), tuple(self.watch.keys(obj))
        self._objects[key] = compact
        self._versions[key] = version_of(obj)
        self._size += len(compact) - len(held or b"")
        if before != after:
            self._reindex(key, before, after)
        return set() if held == compact and before == after else {*before, *after}

    def drop(self, key: Key) -> set[Key]:
        """Forget an object; the primaries that are to be planned anew."""
        held = self._objects.pop(key, None)
        if held is None:
            return set()
        del self._versions[key]
        self._size -= len(held)
        before = self._concerns.get(key, ())
        self._reindex(key, before, ())
        return set(before)

    def _reindex(self, key: Key, before: tuple[Key, ...], after: tuple[Key, ...]) -> None:
        for primary in before:
            self._index[primary].discard(key)
            if not self._index[primary]:
                del self._index[primary]
        for primary in after:
            self._index.setdefault(primary, set()).add(key)
        if after:
            self._concerns[key] = after
        else:
            self._concerns.pop(key, None)


class Caches:
    """All that one reconciler watches. What it returns is the caller's own."""

    def __init__(self, primary: Kind, stores: Iterable[Store]) -> None:
        self.stores: Mapping[Kind, Store] = {store.watch.kind: store for store in stores}
        self._primary = primary

    def get(self, kind: Kind, key: Key) -> Object | None:
        """The object of a watched kind, or None."""
        return self.stores[kind].get(key)

    def of(self, kind: Kind, primary: Key) -> list[Object]:
        """The objects of a watched kind that concern PRIMARY, by name."""
        return list(self.stores[kind].of(primary))

    def primaries(self) -> Iterator[Key]:
        """The keys of all objects that the reconciler is for."""
        return iter(self.stores[self._primary])

    @property
    def synced(self) -> bool:
        """Whether everything has been listed once."""
        return all(store.synced for store in self.stores.values())


def version_of(obj: Object) -> int:
    """The resource version of an object or a list, as the number that it is."""
    return int(obj["metadata"]["resourceVersion"])


def _compact(obj: Object) -> bytes:
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _UNREAD_METADATA}
    if _UNREAD_ANNOTATION in (metadata.get("annotations") or {}):
        annotations = metadata["annotations"].items()
        metadata["annotations"] = {name: value for name, value in annotations if name != _UNREAD_ANNOTATION}
    kept = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}
    return json.dumps({**kept, "metadata": metadata}, separators=(",", ":")).encode()
