"""Replicas by the requests inside them: what Serve's own count does not see."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from headrace.serving.autoscaling import POLICY, REQUESTS_INSIDE, MeanInside, ReplicaRange, by_requests_inside
from headrace.serving.client import application_record
from headrace.serving.contract import FrontConfig, FrontStatus, StableVersion
from headrace.serving.verdict import judge_answers, serve_reason


def context(reported: dict[str, float] | None, target: float = 2.0) -> SimpleNamespace:
    metrics = None if reported is None else {REQUESTS_INSIDE: reported}
    return SimpleNamespace(
        aggregated_metrics=metrics, config=SimpleNamespace(get_target_ongoing_requests=lambda: target)
    )


@pytest.mark.parametrize(
    ("reported", "wanted"), [({"a": 8.0}, 4.0), ({"a": 3.0, "b": 5.0}, 4.0), ({}, 0.0), (None, 0.0), ({"a": 0.0}, 0.0)]
)
def test_there_are_as_many_replicas_as_take_the_requests_inside_each_its_target(
    reported: dict[str, float] | None, wanted: float
) -> None:
    assert by_requests_inside(context(reported)) == (wanted, {})


def test_the_mean_of_requests_inside_is_seconds_spent_inside_per_second() -> None:
    now = 100.0
    mean = MeanInside(lambda: now)
    for _ in range(20):
        mean.add(0.5)
    now = 102.0
    assert mean.take() == 5.0
    now = 104.0
    assert mean.take() == 0.0
    assert mean.take() == 0.0, "asked twice in one moment"


def test_an_autoscaled_application_names_the_policy_and_no_number() -> None:
    config = FrontConfig("1", "digits", StableVersion("1", "s3://b/p", "0" * 64))
    (front,) = application_record("digits", config, ReplicaRange(1, 3, 4.0))["deployments"]
    assert "num_replicas" not in front
    scaling = front["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"], scaling["target_ongoing_requests"]) == (1, 3, 4.0)
    assert scaling["policy"] == {"policy_function": POLICY}


def status(replica: str, config: str | None, *, error: str | None = None, wanted: str = "new") -> FrontStatus:
    return FrontStatus(replica, config, "1", None, error, wanted)


def test_a_configuration_is_proven_by_distinct_replicas_only() -> None:
    assert judge_answers("new", "2", 2, [status("a", "new"), status("b", "new")]).proven
    twice = judge_answers("new", "2", 2, [status("a", "new"), status("a", "new")])
    assert (twice.proven, twice.waiting_for) == (False, "replicas to answer with version 2 (1 of 2)")


def test_the_error_of_another_configuration_is_not_this_ones() -> None:
    old = status("a", "old", error="version 1 could not be loaded: x", wanted="old")
    assert judge_answers("new", "2", 1, [old]).error is None
    failed = status("a", "old", error="version 2 could not be loaded: y")
    assert judge_answers("new", "2", 1, [failed]).error == "version 2 could not be loaded: y"


def test_of_a_traceback_the_last_line_is_told() -> None:
    assert serve_reason("Traceback\n  File x\nImportError: no module\n") == "ImportError: no module"
    assert serve_reason("") == "Ray Serve could not start it"
