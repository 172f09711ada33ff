"""A third operator, whole: a GpuBudget says how many GPUs the pods of its namespace may ask for at a time.

It keeps a ResourceQuota, reports how much of it is used, and mends it when somebody edits or deletes it. Its CRD lies
beside it. Run it by `KUBECONFIG=... python docs/operators/third_operator.py`.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any

from headrace_operators.process import ProcessOptions, run
from headrace_operators.runtime.actions import Action, Apply, Plan, Tell
from headrace_operators.runtime.cache import Caches, Watch, by_controller
from headrace_operators.runtime.conditions import condition
from headrace_operators.runtime.kinds import Kind, Object, key_of, owner_reference

GPU_BUDGET = Kind("example.headrace.dev", "v1", "GpuBudget", "gpubudgets")
RESOURCE_QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas")
GPUS = "requests.nvidia.com/gpu"


def quota_of(budget: Object) -> dict[str, Any]:
    """The ResourceQuota that BUDGET asks for."""
    metadata = {
        "name": budget["metadata"]["name"],
        "namespace": budget["metadata"]["namespace"],
        "ownerReferences": [owner_reference(budget)],
    }
    spec = {"hard": {GPUS: str(budget["spec"]["gpus"])}}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec}


class GpuBudgets:
    """Keeps one ResourceQuota for each GpuBudget."""

    name = "gpubudget"
    kind = GPU_BUDGET
    watches = (Watch(RESOURCE_QUOTA, by_controller(GPU_BUDGET)),)

    async def plan(self, obj: Object, caches: Caches, now: datetime) -> Plan:
        """Apply the quota where it is not as it should be; tell what is used of it."""
        wanted, quotas = quota_of(obj), caches.of(RESOURCE_QUOTA, key_of(obj))
        spec, status = (quotas[0]["spec"], quotas[0].get("status", {})) if quotas else ({}, {})
        actions: tuple[Action, ...] = ()
        if spec != wanted["spec"]:
            words = f"at most {obj['spec']['gpus']} GPUs from now on"
            actions = (Apply(RESOURCE_QUOTA, wanted, force=True), Tell("QuotaSet", words))
        enforced = status.get("hard") == wanted["spec"]["hard"]
        ready = condition(
            obj.get("status", {}).get("conditions", ()),
            "Ready",
            "True" if enforced else "False",
            "Enforced" if enforced else "NotYetEnforced",
            "the API server counts by it" if enforced else "the quota was not counted yet",
            generation=obj["metadata"]["generation"],
            now=now,
        )
        return Plan(actions, {"used": int(status.get("used", {}).get(GPUS, "0")), "conditions": [ready]})


if __name__ == "__main__":
    address = os.environ.get("ADDRESS", "127.0.0.1:8080")
    options = ProcessOptions(
        namespace=os.environ.get("NAMESPACE"),  # None: all
        lease_name="gpu-budgets",
        metrics_address=address,
        health_address=address,
    )
    sys.exit(run(options, lambda _settings: [GpuBudgets()]))
