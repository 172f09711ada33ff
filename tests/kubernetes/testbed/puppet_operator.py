"""An operator that does what its objects say, so that a test can force every metric: ConfigMaps labelled `puppet`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import datetime

from headrace_operators.process import ProcessOptions, run
from headrace_operators.runtime.actions import Apply, Create, Plan, Tell
from headrace_operators.runtime.cache import Caches, Watch
from headrace_operators.runtime.controller import Wait
from headrace_operators.runtime.errors import Conflict
from headrace_operators.runtime.kinds import Key, Kind, Object, key_of, owner_reference
from headrace_operators.runtime.leader import LeaseTimes

CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
LABEL = "puppet"
WRITTEN = "written"


def concerns(obj: Object) -> tuple[Key, ...]:
    """Each is for itself, but what a writer writes."""
    key = key_of(obj)
    return (Key(key.namespace, "writer"),) if key.name == WRITTEN else (key,)


class Puppets:
    """Does what `data.do` says."""

    name = "puppet"
    kind = CONFIG_MAP
    watches = (Watch(CONFIG_MAP, concerns, label_selector=LABEL),)

    async def plan(self, obj: Object, caches: Caches, now: datetime) -> Plan:
        """The plan that was asked for."""
        match obj["data"]["do"]:
            case "fail":
                raise RuntimeError("as asked")
            case "wait":
                raise Wait("as asked", 3600)
            case "conflict":
                raise Conflict(409, "Conflict", "as asked")
            case "write all the time":
                metadata = {"name": WRITTEN, "namespace": obj["metadata"]["namespace"], "labels": {LABEL: "no"}}
                data = {"now": str(time.time_ns())}
                manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
                return Plan((Apply(CONFIG_MAP, manifest, force=True),), again_after_seconds=0.02)
            case "hang":
                await asyncio.sleep(3600)
            case "storm":
                return Plan(tuple(Tell("Storm", f"number {number}") for number in range(30)))
            case "create what is refused":
                metadata = {"name": "Not A Name", "namespace": obj["metadata"]["namespace"]}
                return Plan(
                    (Create(CONFIG_MAP, {"metadata": {**metadata, "ownerReferences": [owner_reference(obj)]}}),)
                )
        return Plan()


if __name__ == "__main__":
    address = "127.0.0.1:0"
    options = ProcessOptions(
        namespace=os.environ["NAMESPACE"],
        workers=2,
        lease_name=LABEL,
        lease_times=LeaseTimes(4, 2.0, 0.4) if "SHORT_LEASE" in os.environ else LeaseTimes(),
        metrics_address=address,
        health_address=address,
    )
    sys.exit(run(options, lambda _settings: [Puppets()]))
