"""The table's scenarios as real pods play them: with an image of Ray, an application to serve, and limits for a node.

What differs from what the double plays stands here and nowhere else: no state and nothing that holds in the end does.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from kuberay_double.wire import Object
from kuberay_double.world import Scenario

_APPLICATION = "scenario"
_FOLDER = "/scenario"
_MODULE = """
from ray import serve

@serve.deployment(name="main")
class Main:
    def reconfigure(self, config):
        self.version = config["version"]

    async def __call__(self, request):
        return self.version

application = Main.bind()
"""


def application_of_the_scenarios() -> Object:
    """The ConfigMap with the application that the table's services serve."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _APPLICATION},
        "data": {"scenario.py": _MODULE},
    }


def as_on_node(scenario: Scenario, image: str) -> Scenario:
    """SCENARIO with IMAGE in its pods, or an image that is nowhere if the double is to play that."""
    manifest = copy.deepcopy(scenario.manifest)
    manifest["spec"] |= scenario.on_node
    cluster = manifest["spec"].get("rayClusterSpec") or manifest["spec"]["rayClusterConfig"]
    missing = scenario.script.otherwise.ending == "never-ready"
    for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())):
        group["rayStartParams"] |= {"num-cpus": "1", "object-store-memory": "80000000"}
        _fit(group["template"]["spec"], "localhost/testbed/nowhere:1" if missing else image)
    return replace(scenario, manifest=manifest)


def _fit(pod: Object, image: str) -> None:
    (container,) = pod["containers"]
    container["image"] = image
    container["env"] = [{"name": "PYTHONPATH", "value": _FOLDER}, {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}]
    container["resources"] = {"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
    container["volumeMounts"] = [{"name": _APPLICATION, "mountPath": _FOLDER}]
    pod["volumes"] = [{"name": _APPLICATION, "configMap": {"name": _APPLICATION}}]
    pod["terminationGracePeriodSeconds"] = 2
