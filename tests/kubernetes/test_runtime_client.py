"""The runtime's client and informer against the real API server: what they rest on is true of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace_operators.runtime import connection, metrics
from headrace_operators.runtime.actions import Tell
from headrace_operators.runtime.cache import Store, Watch, by_name
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    FieldOwned,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
)
from headrace_operators.runtime.events import Events
from headrace_operators.runtime.informer import Informer
from headrace_operators.runtime.kinds import Key, Kind
from headrace_operators.runtime.logs import Log
from headrace_operators.runtime.transport import Transport
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.ours import install

CRD = Path(__file__).parents[2] / "docs" / "operators" / "third_operator_crd.yaml"
BUDGET = Kind("example.headrace.dev", "v1", "GpuBudget", "gpubudgets")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
Run = Callable[[Callable[[Client], Awaitable[Any]]], Any]


@pytest.fixture(scope="module")
def budgets(control_plane: ControlPlane) -> None:
    """The CRD of the third operator."""
    install(control_plane, [yaml.safe_load(CRD.read_text())])


@pytest.fixture
def run(control_plane: ControlPlane, budgets: None) -> Run:
    """Runs a function of a client that is the administrator."""

    def start(work: Callable[[Client], Awaitable[Any]]) -> Any:
        async def inner() -> Any:
            transport = Transport(await connection.connect(str(control_plane.kubeconfig)), "test")
            try:
                return await work(Client(transport))
            finally:
                await transport.close()

        return asyncio.run(inner())

    return start


def budget(namespace: str, name: str = "b", gpus: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": BUDGET.api_version,
        "kind": BUDGET.kind,
        "metadata": {"namespace": namespace, "name": name, **metadata},
        "spec": {"gpus": gpus},
    }


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "labels": {"test": namespace}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_a_list_comes_in_pages_and_a_watch_goes_on_where_it_ended(run: Run, namespace: str) -> None:
    async def work(client: Client) -> None:
        for number in range(7):
            await client.create(CONFIG_MAP, config_map(namespace, f"m{number}"))
        pages, names, version = 0, [], ""
        async for page in client.pages(CONFIG_MAP, namespace, f"test={namespace}", limit=3):
            pages += 1
            names += [item["metadata"]["name"] for item in page]
            version = page.metadata()["resourceVersion"]
        assert (pages, names) == (3, [f"m{number}" for number in range(7)])
        made = await client.create(CONFIG_MAP, config_map(namespace, "new"))
        await client.delete(
            CONFIG_MAP, Key(namespace, "m0"), (await client.get(CONFIG_MAP, Key(namespace, "m0")))["metadata"]["uid"]
        )
        seen: list[Any] = []
        async with aclosing(client.watch(CONFIG_MAP, namespace, version, 120, f"test={namespace}")) as watch:
            async for type_, obj in watch:
                seen += [(type_, obj)] if type_ != "BOOKMARK" else []
                if len(seen) == 2:
                    break
        assert [(type_, obj["metadata"].get("name")) for type_, obj in seen] == [
            ("ADDED", "new"),
            ("DELETED", "m0"),
        ]
        assert seen[0][1]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert int(seen[1][1]["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])

    run(work)


def test_a_watch_sends_bookmarks_which_have_a_version_and_nothing_else(run: Run, namespace: str) -> None:
    async def work(client: Client) -> None:
        async def make_one(name: str) -> Any:
            await asyncio.sleep(0.5)
            return await client.create(BUDGET, budget(namespace, name))

        async def bookmark_after(name: str, seconds: int) -> bool:
            page = await anext(client.pages(BUDGET, namespace))
            making = asyncio.create_task(make_one(name))  # while the watch goes on: else there is nothing new to mark
            version = page.metadata()["resourceVersion"]
            events = [event async for event in client.watch(BUDGET, namespace, version, seconds)]
            made = int((await making)["metadata"]["resourceVersion"])
            marks = [obj["metadata"] for type_, obj in events if type_ == "BOOKMARK"]
            assert not [mark for mark in marks if "name" in mark]
            seen = [type_ for type_, obj in events if int(obj["metadata"]["resourceVersion"]) >= made]
            return seen[:2] == ["ADDED", "BOOKMARK"]

        # It is due two seconds before a watch ends; where the API server is late by more, a longer watch has one.
        assert await bookmark_after("b6", 6) or await bookmark_after("b30", 30) or await bookmark_after("b90", 90)

    run(work)


def test_a_version_that_is_too_old_is_gone_and_the_informer_lists_anew(run: Run, namespace: str) -> None:
    async def work(client: Client) -> None:
        await client.create(BUDGET, budget(namespace))
        with pytest.raises(Gone):
            await anext(client.watch(BUDGET, namespace, "1", 5))
        store = Store(Watch(BUDGET, by_name))
        informer = Informer(client, store, namespace, lambda key: None, Log())
        informer._version = "1"
        task = asyncio.create_task(informer.run())
        async with asyncio.timeout(120):
            while not store.synced:
                await asyncio.sleep(0.05)
        assert store.get(Key(namespace, "b")) is not None
        task.cancel()

    run(work)


def test_a_status_is_replaced_whole_and_only_from_the_newest_version(run: Run, namespace: str) -> None:
    async def work(client: Client) -> None:
        key = Key(namespace, "b")
        first = await client.create(BUDGET, budget(namespace))
        second = await client.patch_status(BUDGET, key, {"used": 1}, first["metadata"]["resourceVersion"])
        assert second["status"] == {"used": 1}
        with pytest.raises(Conflict):
            await client.patch_status(BUDGET, key, {"used": 9}, first["metadata"]["resourceVersion"])
        third = await client.patch_status(BUDGET, key, {"conditions": []}, second["metadata"]["resourceVersion"])
        assert third["status"] == {"conditions": []}
        same = await client.patch_status(BUDGET, key, {"conditions": []}, third["metadata"]["resourceVersion"])
        assert same["metadata"]["resourceVersion"] == third["metadata"]["resourceVersion"]
        assert third["metadata"]["generation"] == first["metadata"]["generation"]
        with pytest.raises(Invalid, match=r"unknown field.*nope"):
            await client.patch_status(BUDGET, key, {"nope": 1}, third["metadata"]["resourceVersion"])

    run(work)


def test_fields_that_are_not_there_are_refused_in_every_write(run: Run, namespace: str) -> None:
    async def work(client: Client) -> None:
        wrong = budget(namespace)
        wrong["spec"]["nope"] = 1
        with pytest.raises(Invalid, match="nope"):
            await client.create(BUDGET, wrong)
        with pytest.raises(Invalid, match="nope"):
            await client.apply(BUDGET, wrong)

    run(work)


def test_apply_owns_its_own_fields_and_takes_others_only_when_told_to(run: Run, namespace: str) -> None:
    async def work(client: Client) -> None:
        key = Key(namespace, "m")
        await client.request(
            "PATCH",
            CONFIG_MAP.path(namespace, "m"),
            query={"fieldManager": "somebody", "force": "false"},
            body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"theirs": "1"}},
            content_type="application/apply-patch+yaml",
        )
        ours = await client.apply(CONFIG_MAP, config_map(namespace, "m", ours="1"))
        assert ours["data"] == {"theirs": "1", "ours": "1"}
        again = await client.apply(CONFIG_MAP, config_map(namespace, "m", ours="1"))
        assert again["metadata"]["resourceVersion"] == ours["metadata"]["resourceVersion"]
        with pytest.raises(FieldOwned, match="somebody"):
            await client.apply(CONFIG_MAP, config_map(namespace, "m", ours="1", theirs="2"))
        await client.apply(CONFIG_MAP, config_map(namespace, "m", ours="1", theirs="2"), force=True)
        assert (await client.get(CONFIG_MAP, key))["data"] == {"theirs": "2", "ours": "1"}
        with pytest.raises(AlreadyExists):
            await client.create(CONFIG_MAP, config_map(namespace, "m"))

    run(work)


def test_a_delete_means_one_object_and_not_its_successor(run: Run, namespace: str) -> None:
    async def work(client: Client) -> None:
        key = Key(namespace, "m")
        old = await client.create(CONFIG_MAP, config_map(namespace, "m"))
        await client.delete(CONFIG_MAP, key, old["metadata"]["uid"])
        new = await client.create(CONFIG_MAP, config_map(namespace, "m"))
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAP, key, old["metadata"]["uid"])
        assert (await client.get(CONFIG_MAP, key))["metadata"]["uid"] == new["metadata"]["uid"]
        with pytest.raises(NotFound):
            await client.get(CONFIG_MAP, Key(namespace, "none"))

    run(work)


def test_an_informer_lives_through_a_killed_api_server_and_goes_on_where_it_was(
    control_plane: ControlPlane, run: Run, namespace: str
) -> None:
    async def work(client: Client) -> None:
        store = Store(Watch(CONFIG_MAP, by_name))
        informer = Informer(client, store, namespace, lambda key: None, Log())
        lists, expired = [], []
        list_it, watch_it = informer._list, informer._watch

        async def count() -> str:
            version = await list_it()
            lists.append(1)
            return version

        async def watch(version: str) -> float:
            try:
                return await watch_it(version)
            except ApiError as error:
                if isinstance(error, Gone) or error.status == 504:  # 504: its cache has not reached where we were
                    expired.append(str(error))
                raise

        informer._list, informer._watch = count, watch  # type: ignore[method-assign]
        task = asyncio.create_task(informer.run())
        for number in range(3):
            name = f"m{number}"
            await client.create(CONFIG_MAP, config_map(namespace, name))
            async with asyncio.timeout(120):
                while store.get(Key(namespace, name)) is None:
                    await asyncio.sleep(0.05)
            if number < 2:
                await asyncio.to_thread(control_plane.restart_apiserver)
        # An API server that wrote something of its own before its watch cache began no longer knows where we were.
        assert len(lists) == 1 + len(expired), expired
        assert not task.done()
        task.cancel()

    run(work)


def test_events_are_shown_by_kubectl_describe_with_their_count(
    control_plane: ControlPlane, run: Run, namespace: str
) -> None:
    async def work(client: Client) -> None:
        about = await client.create(BUDGET, budget(namespace))
        events = Events(client, Log())
        for _ in range(3):
            await events.tell(about, Tell("TooMany", "there are 9 GPUs too many", "Warning"))
        await events.tell(about, Tell("Fine", "it is fine now"))

    run(work)
    shown = control_plane.kubectl("describe", "gpubudget", "b", "-n", namespace)
    events = shown[shown.index("Events:") :].splitlines()
    assert any("Warning" in line and "TooMany" in line and "(x3 over" in line for line in events), shown
    assert any("Normal" in line and "headrace-operator" in line and "it is fine now" in line for line in events), shown


def test_a_pod_reads_its_token_again_when_the_kubelet_has_replaced_it(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = control_plane.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(connection, "_TOKEN_SECONDS", 0.0)
    (tmp_path / "ca.crt").write_bytes(control_plane.pki.ca_file.read_bytes())
    (tmp_path / "namespace").write_text(namespace)
    (tmp_path / "token").write_text("expired")

    async def work() -> None:
        at = await connection.connect(None, tmp_path)
        assert at.namespace == namespace
        client = Client(Transport(at, "test"))
        path = f"/api/v1/namespaces/{namespace}"
        try:
            with pytest.raises(Forbidden, match="Unauthorized"):
                await client.request("GET", path)
            (tmp_path / "token").write_text(control_plane.service_account_token(namespace, "default"))
            with pytest.raises(Forbidden, match=f"system:serviceaccount:{namespace}:default"):
                await client.request("GET", path)
        finally:
            await client.close()

    asyncio.run(work())


def test_without_an_api_server_in_sight_it_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path))
    with pytest.raises(connection.NoConnection, match="none"):
        asyncio.run(connection.connect(None, tmp_path))


def test_requests_are_counted_by_their_answers(run: Run, namespace: str) -> None:
    def count(code: str) -> float:
        return metrics.REGISTRY.get_sample_value("rest_client_requests_total", {"code": code, "method": "GET"}) or 0.0

    before = count("200"), count("404")

    async def work(client: Client) -> None:
        await client.list(CONFIG_MAP, namespace)
        with pytest.raises(NotFound):
            await client.get(CONFIG_MAP, Key(namespace, "none"))

    run(work)
    assert (count("200"), count("404")) == (before[0] + 1, before[1] + 1)
