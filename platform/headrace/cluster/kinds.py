"""The kinds of API objects that steps and commands read and write, each named once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.api import model_deployment, model_monitor, training_run
from headrace.api.parts import GROUP, VERSION

Object = Mapping[str, Any]  # an API object as JSON values


@dataclass(frozen=True)
class Kind:
    """One kind of API object in a namespace. `group` is "" for the core group."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """As it stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, *parts: str) -> str:
        """URL path of the collection in NAMESPACE; of an object, or a subresource, where PARTS name it."""
        group = f"/apis/{self.group}" if self.group else "/api"
        return "/".join((group, self.version, "namespaces", namespace, self.plural, *parts))


TRAINING_RUN = Kind(GROUP, VERSION, training_run.KIND, "trainingruns")
MODEL_DEPLOYMENT = Kind(GROUP, VERSION, model_deployment.KIND, "modeldeployments")
MODEL_MONITOR = Kind(GROUP, VERSION, model_monitor.KIND, "modelmonitors")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
POD = Kind("", "v1", "Pod", "pods")
