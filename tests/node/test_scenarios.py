"""The table that KubeRay's double is held to, played by the real KubeRay with real pods that run Ray.

Three scenarios run at a time: most of their time is waiting, but a head of Ray takes a gigabyte and ten seconds of a
core. Those of `IN_EVERY_RUN` show each kind of thing once; the others are marked `long`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_testbed.images import reference
from headrace_testbed.node import Node
from headrace_testbed.operators import KubeRayOperator
from kuberay_double.on_node import application_of_the_scenarios, as_on_node
from kuberay_double.scenarios import WITH_PODS
from kuberay_double.world import Player, Plays, Scenario, play_all

pytestmark = [pytest.mark.images("ray"), pytest.mark.timeout(1500)]

_AT_ONCE = 3
_SECONDS = 600  # 17 to 60 on a quiet machine, twice that beside the other tiers
_NAMESPACE = "scenarios"
IN_EVERY_RUN = (
    "a lost head makes KubeRay run the job silently again, under the same job id",
    "a job that succeeds is Complete in one write, and its cluster goes",
    "a service becomes Ready with Services of its own name",
    "a job whose entrypoint fails tells the end of its log",
    "a job whose image is missing waits without a reason of its own",
)
_SCENARIOS = sorted(WITH_PODS, key=lambda each: (*IN_EVERY_RUN, each.name).index(each.name))


def _parameter(scenario: Scenario) -> object:
    marks = [] if scenario.name in IN_EVERY_RUN else [pytest.mark.long]
    return pytest.param(scenario, id=scenario.name, marks=marks)


@pytest.fixture(scope="module")
def plays(node: Node, kuberay: KubeRayOperator, request: pytest.FixtureRequest) -> Iterator[Plays]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    node.api.post("/api/v1/namespaces", {"metadata": {"name": _NAMESPACE, "labels": labels}})
    node.wait_for(f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts/default")
    node.api.apply(application_of_the_scenarios(), namespace=_NAMESPACE)
    chosen = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    scenarios = [as_on_node(each, reference("ray")) for each in _SCENARIOS if each.name in chosen]
    with play_all(Player(node.kubeconfig, _NAMESPACE, _SECONDS), scenarios, _AT_ONCE) as playing:
        yield playing
    node.api.delete(f"/api/v1/namespaces/{_NAMESPACE}")


@pytest.mark.parametrize("scenario", [_parameter(each) for each in _SCENARIOS])
def test_the_real_kuberay_with_real_pods(scenario: Scenario, plays: Plays):
    plays[scenario.name].result()
