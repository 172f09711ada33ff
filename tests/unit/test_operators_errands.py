"""What the leader sees to beside its reconcilers: the age of the last backup, and whether MLflow is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from headrace_operators import mlflow_up
from headrace_operators.errands import follow_backup, follow_mlflow
from headrace_operators.mlflow import MLflow, NotThere, Unreachable
from headrace_operators.runtime import metrics
from headrace_operators.runtime.errors import Forbidden, NotFound
from headrace_operators.runtime.kinds import Key, Kind

Virtual = Callable[..., Any]
SERVER = "http://mlflow.test:5000"


class Leases:
    """A client that reads one Lease; what it answers is a list, the last of which stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), []

    async def get(self, kind: Kind, key: Key) -> Any:
        self.asked.append(key)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"spec": answer}


def backup() -> float | None:
    return metrics.REGISTRY.get_sample_value(
        "headrace_backup_last_success_timestamp_seconds", {"lease": "system/headrace-backup"}
    )


def followed(seconds: float, errand: Any) -> Callable[[], Any]:
    async def work() -> None:
        task = asyncio.create_task(errand)
        await asyncio.sleep(seconds)
        task.cancel()

    return work


def test_the_lease_is_read_once_a_minute_and_its_time_is_told(in_virtual_time: Virtual) -> None:
    leases = Leases({"renewTime": "2026-11-26T12:00:00.000000Z"})
    in_virtual_time(followed(125, follow_backup(leases, "system"))())  # type: ignore[arg-type]
    assert backup() == 1795694400.0
    assert leases.asked == [Key("system", "headrace-backup")] * 3


@pytest.mark.parametrize("lease", [NotFound(404, "NotFound", "none"), {}, {"renewTime": None}])
def test_where_there_has_been_no_backup_the_time_is_0(in_virtual_time: Virtual, lease: Any) -> None:
    in_virtual_time(followed(1, follow_backup(Leases(lease), "system"))())  # type: ignore[arg-type]
    assert backup() == 0


def test_a_lease_that_cannot_be_read_leaves_what_was_known(in_virtual_time: Virtual) -> None:
    leases = Leases({"renewTime": "2026-11-26T12:00:00Z"}, Forbidden(403, "Forbidden", "no"))
    in_virtual_time(followed(125, follow_backup(leases, "system"))())  # type: ignore[arg-type]
    assert backup() == 1795694400.0
    assert len(leases.asked) == 3


OWN = {"MLFLOW_TRACKING_URI": f"{SERVER}/"}


def mlflow(answer: Callable[[httpx.Request], httpx.Response], **environment: str) -> MLflow:
    return MLflow(environment, transport=httpx.MockTransport(answer))


def up(own: bool = True) -> float | None:
    metrics.exposition()  # counted when asked
    return metrics.REGISTRY.get_sample_value("headrace_mlflow_up", {"server": SERVER, "own": str(own).lower()})


def refuse(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _: httpx.Response(200, json={"experiments": []}), 1),
        (lambda _: httpx.Response(500), 0),
        (lambda _: httpx.Response(401), 0),
        (refuse, 0),
    ],
)
def test_the_server_of_the_environment_is_asked_though_nothing_runs(
    in_virtual_time: Virtual, answer: Callable[[httpx.Request], httpx.Response], told: int
) -> None:
    asking = follow_mlflow(mlflow(answer, **OWN), 30, OWN)
    in_virtual_time(followed(1, asking)())
    assert up() == told


def test_a_server_that_does_not_have_something_is_up() -> None:
    gone = httpx.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST"})
    with pytest.raises(NotThere):
        asyncio.run(mlflow(lambda _: gone, **OWN).resolve(SERVER, "digits", version="1"))
    assert up() == 1


def test_a_server_that_only_an_object_names_is_told_apart_from_the_operator_s_own() -> None:
    with pytest.raises(Unreachable):
        asyncio.run(mlflow(refuse, MLFLOW_TRACKING_URI="http://own.test:5000").look(SERVER))
    assert up(own=False) == 0


def test_without_a_server_in_the_environment_nobody_is_asked(in_virtual_time: Virtual) -> None:
    asked = []
    asking = follow_mlflow(mlflow(lambda request: asked.append(request) or refuse(request)), 30, {})
    in_virtual_time(followed(100, asking)())
    assert asked == []


def test_few_servers_are_remembered_though_nobody_scrapes() -> None:
    for number in range(100):
        mlflow_up.failed(mlflow_up.Server(f"http://{number}.test", own=False))
    mlflow_up.answered(mlflow_up.Server("http://80.test", own=False))
    kept = [server.address for server in mlflow_up._newest]
    assert kept == [f"http://{number}.test" for number in (*range(81, 100), 80)]
