"""Names of API resources, and of objects: what every other module of the runtime speaks in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.api.kinds import Kind, Object

__all__ = ["Key", "Kind", "Object", "controller_of", "key_of", "owner_reference"]


class Key(NamedTuple):
    """An object's namespace ("" for cluster-wide kinds) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(obj: Object) -> Key:
    """The object's key."""
    return Key(str(obj["metadata"].get("namespace") or ""), str(obj["metadata"]["name"]))


def controller_of(obj: Object) -> Mapping[str, Any] | None:
    """The owner reference of the object's controller, if it has one."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def owner_reference(owner: Object) -> dict[str, Any]:
    """The reference by which an object that OWNER's controller makes is owned: deleted with it, and found by it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
