"""Around the plan: the RayService's manifest, the questions to fronts and registry, what is kept in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.model_deployment import ModelDeploymentSpec, ModelReference
from headrace.serving.contract import Candidate, FrontConfig, Shadow, StableVersion
from headrace_operators.background import SOON_SECONDS, Background
from headrace_operators.kinds import ENDPOINT_SLICE, MODEL_DEPLOYMENT, RAY_SERVICE
from headrace_operators.mlflow import MLflow
from headrace_operators.model_deployment.front import FrontAnswers, ask_fronts, endpoints, http_client
from headrace_operators.model_deployment.keep import keep_service
from headrace_operators.model_deployment.rayservice import (
    Traffic,
    differs,
    front_config,
    live_of,
    manifest,
    same_wish,
)
from headrace_operators.model_deployment.reconciler import BUSY_SECONDS, ModelDeploymentReconciler, served_by
from headrace_operators.model_deployment.resolve import Resolution, reference, resolve
from headrace_operators.model_deployment.sizing import worker_count
from headrace_operators.runtime.actions import Apply
from headrace_operators.runtime.cache import Caches, Store, Watch, by_name
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Key
from headrace_operators.settings import OperatorSettings

GOLDEN = Path(__file__).parent / "golden" / "rayservice.json"
SEVEN = StableVersion("7", "s3://models/packages/7", "7" * 64)
NOW = datetime(2026, 11, 26, 2, 0, tzinfo=UTC)


def spec(**changed: Any) -> ModelDeploymentSpec:
    whole = {
        "model": {"name": "digits", "alias": "champion"},
        "store": {"uri": "s3://models", "secretName": "store"},
        "mlflow": {"trackingURI": "http://mlflow:5000"},
    }
    return ModelDeploymentSpec.model_validate(whole | changed)


def owner(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "digits", "namespace": "ml", "uid": "u1"} | metadata,
    }


def made(changed: ModelDeploymentSpec | None = None, stable: StableVersion = SEVEN, **rest: Any) -> dict[str, Any]:
    given = {"image": "headrace:1", "model": "digits@champion at http://mlflow:5000"} | rest
    return manifest(given.pop("owner", owner()), changed or spec(), stable, **given)


# the manifest


def test_the_rayservice_is_the_one_that_was_looked_at() -> None:
    full = spec(
        replicas=2,
        resources={"cpus": 0.5, "memoryBytes": 2**30},
        pods={
            "environment": [{"name": "HEADRACE_SERVE_MAX_REQUESTS", "value": "64"}],
            "nodeSelector": {"disk": "fast"},
        },
        authentication={"secretName": "ray-token"},
        gcsFaultTolerance={"redisAddress": "redis:6379", "passwordSecretName": "redis"},
    )
    text = json.dumps(made(full), indent=2, sort_keys=True) + "\n"
    assert text == GOLDEN.read_text(), "look at the difference; if it is meant, write the golden file anew"


def test_equal_wishes_are_equal_texts() -> None:
    assert json.dumps(made()) == json.dumps(made())
    assert made()["spec"]["serveConfigV2"] == made(spec())["spec"]["serveConfigV2"]


def test_another_version_changes_the_serve_config_only() -> None:
    one, other = made(), made(stable=StableVersion("8", "s3://models/packages/8", "8" * 64))
    assert one["spec"]["rayClusterConfig"] == other["spec"]["rayClusterConfig"]
    assert one["spec"]["serveConfigV2"] != other["spec"]["serveConfigV2"]


@pytest.mark.parametrize(
    "other",
    [
        made(stable=StableVersion("8", SEVEN.package_uri, SEVEN.sha256)),
        made(stable=StableVersion("7", "s3://elsewhere", SEVEN.sha256)),
        made(stable=StableVersion("7", SEVEN.package_uri, "0" * 64)),
        made(spec(pods={"head": {"cpu": "2"}})),
        made(image="headrace:2"),
        made(owner=owner(annotations={"headrace.dev/retry": "again"})),
        made(traffic=Traffic(candidates=(Candidate("8", "digits-8", 5.0),))),
        made(traffic=Traffic(shadow=Shadow("8", 10.0))),
    ],
)
def test_what_makes_another_wish_makes_another_configuration_id(other: dict[str, Any]) -> None:
    one, two = live_of(made(), "digits"), live_of(other, "digits")
    assert one is not None
    assert two is not None
    assert not same_wish(one.config.config_id, two.config.config_id)


def test_a_try_and_the_number_of_replicas_are_the_same_wish() -> None:
    one = live_of(made(), "digits")
    assert one is not None
    for other in (made(attempt=3), made(spec(replicas=1, model={"name": "digits", "version": "7"}))):
        two = live_of(other, "digits")
        assert two is not None
        assert same_wish(one.config.config_id, two.config.config_id)
    assert live_of(made(attempt=3), "digits").attempt == 3  # type: ignore[union-attr]


def test_candidates_and_shadow_stand_in_the_fronts_configuration() -> None:
    traffic = Traffic((Candidate("8", "digits-8", 5.0),), Shadow("9", 10.0), ({"name": "digits-8"},))
    live = live_of(made(traffic=traffic), "digits")
    assert live is not None
    assert (live.config.candidates, live.config.shadow) == (traffic.candidates, traffic.shadow)
    applications = json.loads(made(traffic=traffic)["spec"]["serveConfigV2"])["applications"]
    assert [application["name"] for application in applications] == ["digits", "digits-8"]


def test_serve_listens_for_pods_on_every_node_that_has_a_replica() -> None:
    serve = json.loads(made()["spec"]["serveConfigV2"])
    assert serve["http_options"] == {"host": "0.0.0.0", "port": 8000, "keep_alive_timeout_s": 90}
    assert serve["proxy_location"] == "EveryNode"
    assert serve["applications"][0]["route_prefix"] == "/digits"


@pytest.mark.parametrize(
    ("changed", "workers"),
    [
        ({}, 0),
        ({"replicas": 2}, 1),
        ({"replicas": 5}, 4),
        ({"replicas": 2, "pods": {"head": {"cpu": "4"}}}, 1),
        ({"replicas": 5, "pods": {"worker": {"cpu": "4"}}}, 1),
        ({"replicas": 5, "workers": 7}, 7),
        ({"resources": {"cpus": 0}, "replicas": 3}, 1),
        ({"resources": {"gpus": 1}, "replicas": 2, "pods": {"worker": {"gpu": 1}}}, 2),
        ({"autoscaling": {"maxReplicas": 3}}, 2),
    ],
)
def test_there_are_as_many_workers_as_the_replicas_need_and_one_where_there_may_be_more_than_one(
    changed: dict[str, Any], workers: int
) -> None:
    assert worker_count(spec(**changed)) == workers


def test_an_apply_of_what_is_there_already_is_not_made() -> None:
    desired = made()
    live = json.loads(json.dumps(desired))
    live["metadata"]["finalizers"] = ["ray.io/x"]
    live["spec"]["rayClusterConfig"]["headGroupSpec"]["enableIngress"] = False
    assert not differs(desired, live)
    assert differs(desired, None)


def test_a_field_that_we_no_longer_want_is_taken_out() -> None:
    live = made(spec(pods={"nodeSelector": {"disk": "fast"}}))
    assert differs(made(), live), "only the hash of what was applied tells"


def test_what_stays_in_memory_of_a_rayservice_is_enough_to_see_a_change() -> None:
    live = made() | {"status": {"observedGeneration": 2, "numServeEndpoints": 1}}
    kept = {"apiVersion": live["apiVersion"], "kind": live["kind"], **keep_service(live)}
    assert not differs(made(), kept)
    assert kept["status"]["observedGeneration"] == 2
    assert "numServeEndpoints" not in kept["status"]


def test_a_serve_config_that_is_not_ours_is_none() -> None:
    foreign = made()
    for text in ("a: [", "{}", '{"applications": []}', '{"applications": [{"name": "digits", "deployments": []}]}'):
        foreign["spec"]["serveConfigV2"] = text
        assert live_of(foreign, "digits") is None


def test_one_function_makes_the_fronts_configuration() -> None:
    config = front_config("digits", SEVEN, attempt=2, cluster={}, retry="", traffic=Traffic())
    assert config == FrontConfig(config.config_id, "digits", SEVEN)
    assert config.config_id.startswith("7-")
    assert config.config_id.endswith("-2")


# asking fronts


def answering(*replicas: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    """An ingress that gives questions to the replicas in turn."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json=replicas[(len(asked) - 1) % len(replicas)])

    answer.asked = asked  # type: ignore[attr-defined]
    return answer


def replica(name: str, config_id: str = "7-a-1") -> dict[str, Any]:
    return {"replica": name, "config_id": config_id, "stable": "7", "loading": None, "error": None, "wanted": config_id}


def ask(answer: Callable[[httpx.Request], httpx.Response], ingresses: int = 1, **wanted: int) -> FrontAnswers:
    async def run() -> FrontAnswers:
        async with http_client(httpx.MockTransport(answer)) as http:
            addresses = [f"http://10.0.0.{n}:8000" for n in range(ingresses)]
            return await ask_fronts(http, addresses, "digits", **({"least": 1, "most": 1} | wanted))

    return asyncio.run(run())


def test_fronts_are_asked_until_each_replica_has_answered() -> None:
    answer = answering(replica("a"), replica("b"), replica("c"))
    found = ask(answer, least=3, most=3)
    assert [status.replica for status in found.statuses] == ["a", "b", "c"]
    assert answer.asked == ["http://10.0.0.0:8000/digits/headrace/v1/status"] * 3  # type: ignore[attr-defined]


def test_all_ingresses_are_asked_in_turn() -> None:
    answer = answering(replica("a"), replica("b"))
    ask(answer, ingresses=2, least=2, most=2)
    assert {url.split(":")[1] for url in answer.asked} == {"//10.0.0.0", "//10.0.0.1"}  # type: ignore[attr-defined]


def test_a_replica_that_does_not_turn_up_is_not_waited_for_for_ever() -> None:
    answer = answering(replica("a"))
    assert len(ask(answer, least=3, most=3).statuses) == 1
    assert len(answer.asked) == 24  # type: ignore[attr-defined]


def test_where_serve_chooses_it_is_enough_that_nobody_new_turns_up() -> None:
    answer = answering(replica("a"), replica("b"))
    assert len(ask(answer, least=1, most=100).statuses) == 2
    assert len(answer.asked) < 10  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (httpx.Response(404), "http://10.0.0.0:8000/digits/headrace/v1/status answered 404"),
        (httpx.Response(200, text="hello"), "it did not answer as a front does (JSONDecodeError)"),
        (httpx.Response(200, json=["x"]), "it did not answer as a front does (TypeError)"),
        (httpx.Response(200, json={"x": 1}), "it did not answer as a front does (KeyError)"),
        (httpx.Response(200, json={"replica": "a", "stable": 7}), "it did not answer as a front does (ValueError)"),
        (httpx.Response(200, json={"replica": "a" * 300}), "it did not answer as a front does (ValueError)"),
    ],
)
def test_what_is_no_answer_is_told(response: httpx.Response, says: str) -> None:
    found = ask(lambda request: response)
    assert (found.statuses, found.problem) == ((), says)


def test_an_error_of_any_length_fits_into_a_status() -> None:
    found = ask(lambda request: httpx.Response(200, json=replica("a") | {"error": "x" * 10**6}))
    assert len(found.statuses[0].error or "") == 2000


def test_an_ingress_that_does_not_answer_is_told() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert ask(refuse).problem == "http://10.0.0.0:8000/digits/headrace/v1/status did not answer (ConnectError)"


def test_without_ingresses_nobody_is_asked() -> None:
    assert ask(answering(replica("a")), ingresses=0) == FrontAnswers((), 0, "")


def test_addresses_are_those_that_are_ready() -> None:
    slices = [
        {
            "endpoints": [
                {"addresses": ["10.0.0.2"], "conditions": {"ready": True}},
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": False}},
                {"addresses": ["fd00::1"], "conditions": {"ready": None}},
            ]
        },
        {"endpoints": None},
    ]
    assert endpoints(slices) == ["http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://[fd00::1]:8000"]


def test_the_port_is_the_one_that_the_slice_names() -> None:
    ports = [{"name": "metrics", "port": 8080}, {"name": "serve", "port": 9000}]
    assert endpoints([{"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": ports}]) == ["http://10.0.0.1:9000"]


def test_an_endpointslice_concerns_the_deployment_whose_service_it_is() -> None:
    def named(service: str) -> list[Key]:
        labels = {"kubernetes.io/service-name": service}
        return list(served_by({"metadata": {"name": "x", "namespace": "ml", "labels": labels}}))

    assert named("digits-serve-svc") == [Key("ml", "digits")]
    assert named("digits-head-svc") == []
    assert named("-serve-svc") == []


# asking the registry


def resolved(answer: Callable[[httpx.Request], httpx.Response], **model: str) -> Resolution:
    async def run() -> Resolution:
        mlflow = MLflow({}, transport=httpx.MockTransport(answer))
        asked = ModelReference(name="digits", **(model or {"alias": "champion"}))
        try:
            return await resolve(mlflow, "http://mlflow:5000", asked)
        finally:
            await mlflow.close()

    return asyncio.run(run())


def version_seven(request: httpx.Request) -> httpx.Response:
    tags = [
        {"key": "headrace.package_uri", "value": SEVEN.package_uri},
        {"key": "headrace.package_sha256", "value": SEVEN.sha256},
    ]
    return httpx.Response(200, json={"model_version": {"name": "digits", "version": "7", "tags": tags}})


def test_an_alias_and_a_number_come_to_the_same_package() -> None:
    assert resolved(version_seven) == Resolution(SEVEN)
    assert resolved(version_seven, version="7") == Resolution(SEVEN)


def test_a_registry_that_is_down_and_one_that_has_no_such_version_are_two_things() -> None:
    assert resolved(lambda request: httpx.Response(503)).unreachable
    gone = httpx.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"})
    assert resolved(lambda request: gone).missing.startswith("MLflow has no model 'digits', alias 'champion'")


def test_a_question_to_the_registry_reads_as_one() -> None:
    assert reference("http://m", ModelReference(name="digits", version="7")) == "digits/7 at http://m"
    assert reference("http://m", ModelReference(name="digits", alias="champion")) == "digits@champion at http://m"


# beside the reconcile


def test_an_answer_is_fetched_beside_the_reconcile_and_again_when_it_is_old() -> None:
    now = 100.0
    fetched = 0

    async def fetch() -> int:
        nonlocal fetched
        fetched += 1
        return fetched

    async def run() -> None:
        nonlocal now
        answers: Background[str, int] = Background(lambda: now)
        assert answers.keep_fresh("k", fetch, 30) == SOON_SECONDS
        assert answers.keep_fresh("k", fetch, 30) == SOON_SECONDS, "one at a time"
        assert answers.newest("k") is None
        await answers.settle()
        assert answers.newest("k").value == 1  # type: ignore[union-attr]
        assert answers.keep_fresh("k", fetch, 30) == 30
        now += 31
        answers.keep_fresh("k", fetch, 30)
        await answers.settle()
        assert answers.newest("k").value == 2  # type: ignore[union-attr]
        now += 7300
        answers.keep_fresh("other", fetch, 30)
        await answers.settle()
        assert answers.newest("k") is None, "nobody has asked for it in an hour"
        assert answers.newest("other") is not None

    asyncio.run(run())


def test_a_fault_while_fetching_is_logged_and_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    async def fetch() -> int:
        raise RuntimeError("a fault of ours")

    async def run() -> None:
        answers: Background[str, int] = Background(lambda: 5.0)
        answers.keep_fresh("k", fetch, 30)
        await answers.settle()
        assert answers.keep_fresh("k", fetch, 30) == 30
        assert answers.newest("k") is None

    asyncio.run(run())
    assert "fetching k failed" in caplog.text


# all of it together, with the network at a seam


class World:
    """A reconciler over a cache that the test fills; applies land in it."""

    def __init__(self, front: Callable[[httpx.Request], httpx.Response]) -> None:
        self.clock = 1000.0
        self.reconciler = ModelDeploymentReconciler(
            OperatorSettings(runtime_image="headrace:1"),
            MLflow({}, transport=httpx.MockTransport(version_seven)),
            transport=httpx.MockTransport(front),
            clock=lambda: self.clock,
        )
        watches = (Watch(MODEL_DEPLOYMENT, by_name), *self.reconciler.watches)
        self.caches = Caches(MODEL_DEPLOYMENT, [Store(watch) for watch in watches])
        self.version = 0

    def put(self, kind: Any, obj: dict[str, Any]) -> None:
        self.version += 1
        metadata = {"uid": "x"} | obj["metadata"] | {"resourceVersion": str(self.version)}
        self.caches.stores[kind].put(obj | {"metadata": metadata})

    async def round(self, seconds: float) -> float | None:
        self.clock += seconds
        obj = self.caches.get(MODEL_DEPLOYMENT, Key("ml", "digits"))
        assert obj is not None
        done = await self.reconciler.plan(obj, self.caches, NOW)
        for action in done.actions:
            if isinstance(action, Apply):
                self.put(RAY_SERVICE, dict(action.manifest) | {"status": {"observedGeneration": 1}})
        self.put(MODEL_DEPLOYMENT, dict(obj) | {"status": done.status})
        await self.reconciler.settle()
        return done.again_after_seconds

    @property
    def status(self) -> Any:
        obj = self.caches.get(MODEL_DEPLOYMENT, Key("ml", "digits"))
        assert obj is not None
        return obj["status"]


def test_from_an_alias_to_a_version_that_answers_in_a_few_rounds() -> None:
    def front(request: httpx.Request) -> httpx.Response:
        live = live_of(world.caches.get(RAY_SERVICE, Key("ml", "digits")), "digits")
        assert live is not None
        return httpx.Response(200, json=replica("a", live.config.config_id))

    world = World(front)
    raw = {
        "model": {"name": "digits", "alias": "champion"},
        "store": {"uri": "s3://m"},
        "mlflow": {"trackingURI": "http://mlflow:5000"},
    }
    swaps = _observed_swaps()

    async def run() -> None:
        world.put(MODEL_DEPLOYMENT, owner(generation=1) | {"spec": raw})
        assert await world.round(0) == SOON_SECONDS
        assert find(world.status["conditions"], "Resolved")["reason"] == "Asking"  # type: ignore[index]
        await world.round(SOON_SECONDS)
        assert world.status["wantedVersion"] == "7"
        labels = {"kubernetes.io/service-name": "digits-serve-svc"}
        slice_ = {
            "metadata": {"name": "s", "namespace": "ml", "labels": labels},
            "endpoints": [{"addresses": ["10.0.0.1"]}],
        }
        world.put(ENDPOINT_SLICE, slice_)
        await world.round(BUSY_SECONDS)
        await world.round(BUSY_SECONDS)
        assert find(world.status["conditions"], "Available")["status"] == "True"  # type: ignore[index]
        again = await world.round(1)
        assert again is not None
        assert again > 20, "all is quiet"
        await world.reconciler.close()

    asyncio.run(run())
    assert _observed_swaps() == swaps + 1
    text = _exposed()
    assert 'headrace_deployments{state="available"} 1.0' in text
    assert 'headrace_deployment_version_info{name="digits",namespace="ml",version="7"} 1.0' in text


def _observed_swaps() -> float:
    from headrace_operators.runtime.metrics import REGISTRY

    return REGISTRY.get_sample_value("headrace_deployment_swap_seconds_count") or 0.0


def _exposed() -> str:
    from headrace_operators.runtime.metrics import exposition

    return exposition().decode()
