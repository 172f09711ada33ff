"""The parts of KubeRay's double that need no API server."""

from __future__ import annotations

import pytest

from headrace.serving.contract import FrontConfig, StableVersion
from kuberay_double import Behaviour, FrontDouble, Script
from kuberay_double.conditions import is_true, set_condition
from kuberay_double.jobs import invalid
from kuberay_double.ray import Ray
from kuberay_double.scenarios import SCENARIOS, ray_job
from kuberay_double.shapes import as_go_writes, replicas_of, spec_hash
from kuberay_double.world import missing


def test_a_script_survives_its_way_through_an_environment_variable():
    script = Script(Behaviour(run_seconds=3), {2: Behaviour("fails", run_seconds=3, message="no")})
    assert Script.from_text(script.to_variable()["value"], Behaviour()) == script


def test_what_a_script_leaves_out_is_the_default():
    default = Behaviour(pods_seconds=9)
    assert Script.from_text("", default).behaviour(1) == default


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (["a", "b", "c"], ""),
        (["a", "c"], ""),
        (["a", "b"], "never saw 'c'"),
        (["b", "c"], "expected 'a', saw 'b'"),
        (["a", "c", "d"], "nobody expected 'd'"),
        (["a", "c", "c"], "nobody expected 'c'"),
    ],
)
def test_states_are_seen_in_their_order_and_short_ones_may_be_missed(seen: list[str], told: str):
    assert missing(("a", "b?", "c"), seen) == told


def test_a_job_runs_and_ends_as_its_script_says():
    job = Ray().submit("head", "job", Behaviour("fails", run_seconds=2, message="no column"))
    assert job.ended is not None
    assert [job.status(at) for at in (job.started - 0.01, job.started, job.ended)] == ["PENDING", "RUNNING", "FAILED"]
    assert "no column" in job.words(job.ended)


def test_a_second_run_of_a_job_id_starts_in_a_later_second_and_ends_as_our_driver_does():
    ray = Ray()
    first = ray.submit("head-1", "job", Behaviour("loses-head"))
    again = ray.submit("head-2", "job", Behaviour("loses-head"))
    assert first.ended is None
    assert again.started >= first.started + 1
    assert again.ended is not None
    assert again.status(again.ended) == "FAILED"


def test_what_go_adds_is_added_once():
    spec = ray_job(workers=1)["spec"]["rayClusterSpec"]
    assert as_go_writes(spec) == spec
    del spec["workerGroupSpecs"][0]["scaleStrategy"]
    assert as_go_writes(spec) != spec


def test_the_number_of_workers_does_not_make_another_cluster():
    one, two = (ray_job(workers=number)["spec"]["rayClusterSpec"] for number in (1, 2))
    assert spec_hash(one) == spec_hash(two)
    assert spec_hash(one) != spec_hash(one | {"rayVersion": "3"})


def test_replicas_stay_within_their_bounds():
    assert replicas_of({"replicas": 5, "minReplicas": 1, "maxReplicas": 3}) == 3
    assert replicas_of({"replicas": 5, "suspend": True}) == 0


def test_a_condition_keeps_its_time_while_its_truth_stays():
    status: dict = {"conditions": [{"type": "Ready", "status": "True", "reason": "Old", "lastTransitionTime": "then"}]}
    set_condition(status, "Ready", "True", "New")
    assert (status["conditions"][0]["reason"], status["conditions"][0]["lastTransitionTime"]) == ("New", "then")
    set_condition(status, "Ready", "False", "Gone")
    assert not is_true(status, "Ready")
    assert status["conditions"][0]["lastTransitionTime"] != "then"


def test_a_name_of_47_letters_is_taken_and_one_of_48_is_not():
    assert not invalid(ray_job() | {"metadata": {"name": "x" * 47}})
    assert "47 characters" in invalid(ray_job() | {"metadata": {"name": "x" * 48}})


def _serve(version: str, replicas: int) -> dict:
    config = FrontConfig(f"config-{version}", "digits", StableVersion(version, "s3://x", "0" * 64))
    deployment = {"name": "front", "num_replicas": replicas, "user_config": config.to_record()}
    return {"applications": [{"name": "digits", "route_prefix": "/digits", "deployments": [deployment]}]}


def test_the_fronts_double_changes_versions_as_the_front_does():
    front = FrontDouble(load_seconds=0, broken={"2": "no such file"})
    front.serve(_serve("1", 2), "head-1")
    replicas = front._fronts["digits"]
    assert all(replica.wait_idle(60) for replica in replicas)
    assert [each.stable for each in front.statuses("digits")] == ["1", "1"]
    front.serve(_serve("2", 2), "head-1")
    assert all(replica.wait_idle(60) for replica in replicas)
    assert {(each.stable, each.error) for each in front.statuses("digits")} == {
        ("1", "version 2 could not be loaded: no such file")
    }
    front.serve(_serve("1", 1), "head-2")
    assert len(front.statuses("digits")) == 1
    assert front.statuses("digits")[0].replica not in {replica.status().replica for replica in replicas}


def test_no_two_scenarios_have_one_name():
    assert len({each.name for each in SCENARIOS}) == len(SCENARIOS)
