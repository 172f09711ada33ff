"""Monitors: what is asked of Prometheus, and what is told of its answers. No data is never health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from headrace_operators.background import SOON_SECONDS
from headrace_operators.kinds import MODEL_DEPLOYMENT, MODEL_MONITOR
from headrace_operators.model_monitor.plan import Observed, plan, rounded
from headrace_operators.model_monitor.prometheus import TOKEN_VARIABLE, URL_VARIABLE, Measurement, Prometheus
from headrace_operators.model_monitor.queries import queries
from headrace_operators.model_monitor.reconciler import ModelMonitorReconciler
from headrace_operators.runtime.actions import Plan, Tell
from headrace_operators.runtime.cache import Caches, Store, Watch, by_name
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Key
from headrace_operators.runtime.metrics import exposition

NOW = datetime(2026, 11, 26, 2, 0, tzinfo=UTC)
OBJECTIVES = {"maxErrorRatio": 0.05, "maxP99Seconds": 0.5}
GOOD = Measurement(NOW, 1000.0, 0.01, 0.012, 0.2)


def monitor(status: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    whole = {"deploymentName": "digits", "prometheus": {"url": "http://prometheus:9090"}, "objectives": OBJECTIVES}
    made = {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "ModelMonitor",
        "metadata": {"name": "digits", "namespace": "ml", "uid": "m1", "generation": 1},
        "spec": whole | spec,
    }
    return made | ({"status": dict(status)} if status is not None else {})


def told(
    measurement: Measurement | None, status: Mapping[str, Any] | None = None, there: bool = True, **spec: Any
) -> Plan:
    return plan(Observed(monitor(status, **spec), there, measurement), NOW)


def said(made: Plan, type_: str) -> tuple[str, str]:
    assert made.status is not None
    found = find(made.status["conditions"], type_)
    assert found is not None
    return found["status"], found["reason"]


def status_of(made: Plan) -> Mapping[str, Any]:
    assert made.status is not None
    return made.status


# what is told


def test_objectives_that_are_kept_are_health() -> None:
    made = told(GOOD)
    assert said(made, "Accepted") == ("True", "Accepted")
    assert said(made, "Measured") == ("True", "Measured")
    assert said(made, "Healthy") == ("True", "ObjectivesKept")
    assert status_of(made)["message"] == ""
    assert made.actions == (Tell("ObjectivesKept", "every objective is kept"),)


@pytest.mark.parametrize(
    ("measurement", "words"),
    [
        (Measurement(NOW, 1000.0, 0.25, 0.012, 0.2), "error ratio 0.25 is above 0.05"),
        (Measurement(NOW, 1000.0, 0.01, 0.012, 0.75), "p99 0.75 s is above 0.5 s"),
        (Measurement(NOW, 1000.0, 1.0, 0.012, 2.0), "error ratio 1 is above 0.05; p99 2 s is above 0.5 s"),
    ],
)
def test_an_objective_that_is_broken_is_named_with_its_number(measurement: Measurement, words: str) -> None:
    made = told(measurement)
    assert said(made, "Healthy") == ("False", "ObjectivesBroken")
    assert status_of(made)["message"] == words
    assert made.actions == (Tell("ObjectivesBroken", words, "Warning"),)


@pytest.mark.parametrize(
    ("measurement", "reason"),
    [
        (Measurement(NOW), "NoData"),
        (Measurement(NOW, problem=("PrometheusUnreachable", "refused")), "PrometheusUnreachable"),
        (Measurement(NOW, problem=("QueryFailed", "status 400")), "QueryFailed"),
    ],
)
def test_what_could_not_be_measured_is_neither_healthy_nor_ill(measurement: Measurement, reason: str) -> None:
    made = told(measurement, status_of(told(GOOD)))
    assert said(made, "Measured") == ("False", reason)
    assert said(made, "Healthy") == ("Unknown", "NoData")
    assert "errorRatio" not in status_of(made), "an old number is not the newest measurement"
    assert [action.type for action in made.actions if isinstance(action, Tell)] == ["Warning"]


def test_too_few_requests_are_not_judged() -> None:
    made = told(Measurement(NOW, 9.0, 1.0, 9.0, 9.0))
    assert said(made, "Healthy") == ("Unknown", "TooFewRequests")
    assert status_of(made)["message"] == "9 requests are fewer than 10"
    assert said(told(Measurement(NOW, 9.0, 1.0, 9.0, 9.0), minRequests=9), "Healthy")[0] == "False"


def test_an_objective_without_its_number_is_unknown_unless_another_is_broken() -> None:
    assert said(told(Measurement(NOW, 100.0, 0.01, None, None)), "Healthy") == ("Unknown", "NoData")
    assert said(told(Measurement(NOW, 100.0, 0.9, None, None)), "Healthy") == ("False", "ObjectivesBroken")


def test_without_objectives_it_is_measured_and_not_judged() -> None:
    made = told(GOOD, objectives={})
    assert said(made, "Measured")[0] == "True"
    assert said(made, "Healthy") == ("Unknown", "NoObjectives")
    assert status_of(made)["errorRatio"] == 0.01


def test_a_missing_deployment_is_told_and_nothing_is_judged() -> None:
    made = told(GOOD, there=False)
    assert said(made, "Accepted") == ("False", "DeploymentNotFound")
    assert said(made, "Healthy") == ("Unknown", "NotAccepted")
    assert "there is no ModelDeployment digits" in status_of(made)["message"]


def test_a_spec_that_is_none_is_refused_with_where() -> None:
    made = told(None, intervalSeconds=1)
    assert said(made, "Accepted") == ("False", "InvalidSpec")
    assert status_of(made)["message"].startswith("spec.intervalSeconds: Input should be greater than or equal to 5")


def test_before_the_first_measurement_nothing_is_known() -> None:
    made = told(None)
    assert said(made, "Healthy") == ("Unknown", "NotMeasuredYet")
    assert "measuredTime" not in status_of(made)


def test_a_restarted_operator_says_what_was_measured_last() -> None:
    before = status_of(told(GOOD))
    assert status_of(told(None, before)) == before
    refused = status_of(told(None, there=False))
    assert said(told(None, refused), "Healthy") == ("Unknown", "NotMeasuredYet")


def test_numbers_have_four_significant_digits_so_that_noise_is_not_told() -> None:
    made = told(Measurement(NOW, 1234.5678, 0.0123456, 0.00123456, 0.2000001))
    status = status_of(made)
    assert (status["requests"], status["errorRatio"]) == (1235.0, 0.01235)
    assert (status["p50Seconds"], status["p99Seconds"]) == (0.001235, 0.2)
    assert rounded(None) is None


def test_a_turn_is_an_event_and_a_new_number_is_none() -> None:
    first = told(Measurement(NOW, 1000.0, 0.25, 0.1, 0.2))
    again = told(Measurement(NOW + timedelta(seconds=60), 1000.0, 0.26, 0.1, 0.2), status_of(first))
    assert again.actions == ()
    assert status_of(again)["message"] == "error ratio 0.26 is above 0.05"
    better = told(GOOD, status_of(again))
    assert better.actions == (Tell("ObjectivesKept", "every objective is kept"),)


# what is asked


def test_questions_are_about_all_replicas_and_versions_of_one_deployment_in_its_namespace() -> None:
    asked = queries("ml", "digits", 300)
    series = 'deployment="digits",namespace=~"ml|"'
    assert asked.requests == f"sum(increase(ray_headrace_requests_total{{{series}}}[300s]))"
    assert asked.errors == f'sum(increase(ray_headrace_requests_total{{{series},code=~"5.."}}[300s]))'
    buckets = f"sum by (le) (rate(ray_headrace_request_seconds_bucket{{{series}}}[300s]))"
    assert asked.p50 == f"histogram_quantile(0.5, {buckets})"
    assert asked.p99 == f"histogram_quantile(0.99, {buckets})"


def vector(*values: str) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "vector", "result": [{"value": [1, v]} for v in values]}}


def measured(
    answer: Callable[[httpx.Request], httpx.Response],
    environment: Mapping[str, str] | None = None,
    url: str = "http://prometheus:9090",
) -> Measurement:
    async def run() -> Measurement:
        prometheus = Prometheus(environment or {}, transport=httpx.MockTransport(answer))
        try:
            return await prometheus.measure(url, queries("ml", "digits", 300), NOW)
        finally:
            await prometheus.close()

    return asyncio.run(run())


def answers(requests: str | None, errors: str | None, p50: str | None, p99: str | None) -> Any:
    asked = queries("ml", "digits", 300)
    known = {asked.requests: requests, asked.errors: errors, asked.p50: p50, asked.p99: p99}

    def answer(request: httpx.Request) -> httpx.Response:
        form = parse_qs(request.content.decode())
        assert request.url.path == "/api/v1/query"
        assert form["time"] == [f"{NOW.timestamp():.3f}"], "all numbers are of one moment"
        value = known[form["query"][0]]
        return httpx.Response(200, json=vector() if value is None else vector(value))

    return answer


def test_four_answers_are_one_measurement() -> None:
    assert measured(answers("200", "10", "0.01", "0.2")) == Measurement(NOW, 200.0, 0.05, 0.01, 0.2)


def test_no_errors_are_a_ratio_of_none_and_no_requests_have_no_ratio() -> None:
    assert measured(answers("200", None, "0.01", "0.2")).error_ratio == 0.0
    assert measured(answers("0", None, "NaN", "NaN")) == Measurement(NOW, 0.0, None, None, None)
    assert measured(answers(None, None, None, None)) == Measurement(NOW)


@pytest.mark.parametrize(
    ("response", "reason", "says"),
    [
        (
            httpx.Response(400, json={"status": "error", "error": "parse error"}),
            "QueryFailed",
            "status 400: parse error",
        ),
        (httpx.Response(401, text="who are you"), "QueryFailed", "status 401: who are you"),
        (httpx.Response(200, text="<html>"), "QueryFailed", "did not answer as one"),
        (httpx.Response(200, json={"status": "success"}), "QueryFailed", "did not answer as one"),
    ],
)
def test_a_server_that_is_no_prometheus_is_told(response: httpx.Response, reason: str, says: str) -> None:
    problem = measured(lambda request: response).problem
    assert problem is not None
    assert problem[0] == reason
    assert says in problem[1]


def test_a_prometheus_that_is_down_is_told() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    problem = measured(refuse).problem
    assert problem == (
        "PrometheusUnreachable",
        "Prometheus at http://prometheus:9090 does not answer: connection refused",
    )


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://prometheus:9090", True),
        ("http://prometheus:9090/prefix", True),
        ("http://prometheus:9091", False),
        ("http://evil:9090", False),
        ("https://prometheus:9090", False),
    ],
)
def test_the_token_goes_to_the_server_that_the_operator_was_told_and_to_no_other(url: str, sent: bool) -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json=vector())

    measured(answer, {TOKEN_VARIABLE: "secret", URL_VARIABLE: "http://prometheus:9090"}, url)
    assert set(seen) == {"Bearer secret" if sent else None}


def test_a_token_without_a_server_goes_nowhere() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        return httpx.Response(200, json=vector())

    measured(answer, {TOKEN_VARIABLE: "secret"})


# all of it together, with the network at a seam


def test_a_monitor_measures_once_an_interval_and_a_deployment_that_appears_wakes_it() -> None:
    clock, asked = 1000.0, 0
    inner = answers("200", "50", "0.01", "0.2")

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return inner(request)

    async def run() -> None:
        nonlocal clock
        prometheus = Prometheus({}, transport=httpx.MockTransport(answer))
        reconciler = ModelMonitorReconciler(prometheus, clock=lambda: clock, now=lambda: NOW)
        caches = Caches(MODEL_MONITOR, [Store(w) for w in (Watch(MODEL_MONITOR, by_name), *reconciler.watches)])

        async def step(seconds: float) -> float | None:
            nonlocal clock
            clock += seconds
            obj = caches.get(MODEL_MONITOR, Key("ml", "digits"))
            assert obj is not None
            made = await reconciler.plan(obj, caches, NOW)
            metadata = dict(obj["metadata"]) | {"resourceVersion": "2"}
            caches.stores[MODEL_MONITOR].put(dict(obj) | {"metadata": metadata, "status": made.status})
            await reconciler.settle()
            return made.again_after_seconds

        first = monitor()
        caches.stores[MODEL_MONITOR].put(first | {"metadata": first["metadata"] | {"resourceVersion": "1"}})
        assert await step(0) is None, "there is nothing to measure"
        deployment = {"metadata": {"name": "digits", "namespace": "ml", "uid": "d", "resourceVersion": "1"}}
        assert caches.stores[MODEL_DEPLOYMENT].put(deployment) == {Key("ml", "digits")}
        assert await step(0) == SOON_SECONDS
        assert asked == 4
        assert await step(SOON_SECONDS) == 60 - SOON_SECONDS
        assert await step(30) == 30 - SOON_SECONDS
        assert asked == 4
        assert await step(31) == SOON_SECONDS
        assert asked == 8
        await reconciler.close()

    asyncio.run(run())
    text = exposition().decode()
    of = 'deployment="digits",name="digits",namespace="ml"'
    assert f"headrace_monitor_error_ratio{{{of}}} 0.25" in text
    assert f"headrace_monitor_healthy{{{of}}} 0.0" in text
    assert f'headrace_monitor_latency_seconds{{{of},quantile="0.99"}} 0.2' in text
    assert f"headrace_monitor_requests{{{of}}} 200.0" in text
