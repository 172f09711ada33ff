"""KubeRay's double does what the real KubeRay does: one table of scenarios, played with both.

All scenarios of a player run at once, as most of their time is waiting; each test waits for its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.operators import KubeRayOperator
from headrace_testbed.waiting import eventually
from kuberay_double import JobsDouble, KubeRayDouble
from kuberay_double.install import collect_new_kinds
from kuberay_double.scenarios import SCENARIOS, WITHOUT_PODS, as_played, ray_job
from kuberay_double.world import Player, Plays, Scenario, play_all

_SECONDS = 90  # most take two; real KubeRay polls every three, and the machine may be shared


def _namespace(plane: ControlPlane, name: str) -> str:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    plane.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
    return name


def _chosen(request: pytest.FixtureRequest, test: str, scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Those of SCENARIOS whose test is to run."""
    ids = {item.callspec.id for item in request.session.items if getattr(item, "originalname", "") == test}
    return [each for each in scenarios if each.name in ids]


@pytest.fixture(scope="module")
def with_the_double(played_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Plays]:
    namespace = _namespace(played_plane, "scenarios")
    chosen = _chosen(request, "test_the_double", SCENARIOS)
    player = Player(played_plane.kubeconfig, namespace, _SECONDS)
    scenarios = [as_played(each) for each in chosen]
    with (
        KubeRayDouble(played_plane.kubeconfig, namespace=namespace),
        play_all(player, scenarios, len(scenarios)) as plays,
    ):
        yield plays


@pytest.fixture(scope="module")
def with_the_real_one(
    control_plane: ControlPlane, kuberay: KubeRayOperator, request: pytest.FixtureRequest
) -> Iterator[Plays]:
    namespace = _namespace(control_plane, "real-scenarios")
    chosen = _chosen(request, "test_the_real_kuberay", WITHOUT_PODS)
    collect_new_kinds(control_plane)
    with play_all(Player(control_plane.kubeconfig, namespace, _SECONDS), chosen, len(chosen)) as plays:
        yield plays


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.name) for each in SCENARIOS])
def test_the_double(scenario: Scenario, with_the_double: Plays):
    with_the_double[scenario.name].result()


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.name) for each in WITHOUT_PODS])
def test_the_real_kuberay(scenario: Scenario, with_the_real_one: Plays):
    with_the_real_one[scenario.name].result()


def test_the_double_for_many_jobs_ends_them_and_makes_no_other_object(played_plane: ControlPlane):
    namespace = _namespace(played_plane, "many-jobs")
    jobs, clusters = (f"/apis/ray.io/v1/namespaces/{namespace}/{plural}" for plural in ("rayjobs", "rayclusters"))
    with JobsDouble(played_plane.kubeconfig, namespace=namespace):
        for number in range(40):
            played_plane.api.post(jobs, ray_job() | {"metadata": {"name": f"job-{number}"}})
            assert played_plane.api.list(clusters) == []

        def ended() -> bool:
            states = [each.get("status", {}).get("jobDeploymentStatus") for each in played_plane.api.list(jobs)]
            return states == ["Complete"] * 40

        assert eventually(ended, 60)
