"""Names of API resources, and of objects: what every other module of the runtime speaks in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Object = Mapping[str, Any]  # an API object as JSON values; nobody changes one


@dataclass(frozen=True)
class Kind:
    """One kind of API object. `group` is "" for the core group."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As it stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection (of all namespaces, or of one), of an object, or of a subresource."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if namespace and self.namespaced:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


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
