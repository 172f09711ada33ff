"""Kinds of API objects: how one is named and addressed, and those that the platform and the operators both use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api import model_deployment, model_monitor, training_run
from headrace.api.parts import GROUP, VERSION

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


TRAINING_RUN = Kind(GROUP, VERSION, training_run.KIND, "trainingruns")
MODEL_DEPLOYMENT = Kind(GROUP, VERSION, model_deployment.KIND, "modeldeployments")
MODEL_MONITOR = Kind(GROUP, VERSION, model_monitor.KIND, "modelmonitors")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
POD = Kind("", "v1", "Pod", "pods")
