"""What the operators read of MLflow, and who gets to see their credentials."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from headrace_operators import mlflow_rest
from headrace_operators.mlflow import MLflow, NotThere, RunReport, Unreachable
from headrace_operators.mlflow_rest import MOST_BYTES

SERVER = "http://mlflow:5000"
RUN = {
    "info": {"run_id": "m1", "experiment_id": "7", "lifecycle_stage": "active"},
    "data": {
        "metrics": [
            {"key": "loss", "value": 0.25},
            {"key": "system/cpu_utilization_percentage", "value": 90.0},
            {"key": "grad_norm", "value": "NaN"},
        ],
        "tags": [
            {"key": "headrace.run_id", "value": "digits-abcd1234"},
            {"key": "headrace.attempt", "value": "1.2"},
            {"key": "headrace.checkpoint_uri", "value": "s3://bucket/checkpoints/4"},
            {"key": "headrace.checkpoint_epoch", "value": "4"},
            {"key": "headrace.cpu_seconds", "value": "12.5"},
            {"key": "headrace.gpu_seconds", "value": "half an hour"},
        ],
    },
}
REPORT = RunReport(
    "m1",
    "7",
    attempt="1.2",
    checkpoint_uri="s3://bucket/checkpoints/4",
    checkpoint_epoch=4,
    cpu_seconds=12.5,
    metrics={"loss": 0.25},
)
VERSION = {
    "name": "digits",
    "version": "3",
    "tags": [
        {"key": "headrace.package_uri", "value": "s3://bucket/packages/p"},
        {"key": "headrace.package_sha256", "value": "abc"},
    ],
}


class Server:
    """Answers by path, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self._answers = {name.replace("__", "/").replace("_", "-"): answer for name, answer in answers.items()}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers[request.url.path.removeprefix("/api/2.0/mlflow/")]
        if callable(answer):
            answer = answer(request)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def ask(server: Callable[[httpx.Request], httpx.Response], call: Callable[[MLflow], Any], **environment: str) -> Any:
    async def run() -> Any:
        mlflow = MLflow(environment, transport=httpx.MockTransport(server))
        try:
            return await call(mlflow)
        finally:
            await mlflow.close()

    return asyncio.run(run())


def find(mlflow: MLflow) -> Any:
    return mlflow.find_run(SERVER, "digits-abcd1234")


def missing(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(404, json={"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"})


def test_a_run_is_found_by_its_tag_in_whatever_experiment_it_is() -> None:
    def experiments(request: httpx.Request) -> Any:
        more = json.loads(request.content)["page_token"]
        page = [{"experiment_id": "7" if more else "0"}]
        return {"experiments": page} if more else {"experiments": page, "next_page_token": "more"}

    def runs(request: httpx.Request) -> Any:
        asked = json.loads(request.content)
        assert asked["filter"] == "tags.`headrace.run_id` = 'digits-abcd1234'"
        return {"runs": [RUN]} if asked["experiment_ids"] == ["7"] else {}

    assert ask(Server(experiments__search=experiments, runs__search=runs), find) == REPORT


def test_a_run_that_is_known_takes_one_request() -> None:
    server = Server(runs__get={"run": RUN})
    assert ask(server, lambda mlflow: mlflow.find_run(SERVER, "digits-abcd1234", mlflow_run_id="m1")) == REPORT
    assert [request.url.params["run_id"] for request in server.requests] == ["m1"]


@pytest.mark.parametrize("deleted", [missing, {"run": {**RUN, "info": {"lifecycle_stage": "deleted"}}}])
def test_a_known_run_that_was_deleted_is_looked_for_anew(deleted: Any) -> None:
    server = Server(runs__get=deleted, experiments__search={"experiments": []})
    assert ask(server, lambda mlflow: mlflow.find_run(SERVER, "digits-abcd1234", mlflow_run_id="m1")) is None


def test_a_run_that_is_not_there_yet_is_none() -> None:
    assert ask(Server(experiments__search={"experiments": [{"experiment_id": "0"}]}, runs__search={}), find) is None


def test_a_version_is_found_by_its_number_and_by_its_alias() -> None:
    server = Server(model_versions__get={"model_version": VERSION}, registered_models__alias={"model_version": VERSION})
    by_number = ask(server, lambda mlflow: mlflow.resolve(SERVER, "digits", version="3"))
    assert by_number == ask(server, lambda mlflow: mlflow.resolve(SERVER, "digits", alias="champion"))
    assert (by_number.version, by_number.package_uri, by_number.package_sha256) == (
        "3",
        "s3://bucket/packages/p",
        "abc",
    )


def test_an_alias_that_is_not_there_is_named() -> None:
    unknown = httpx.Response(400, json={"error_code": "INVALID_PARAMETER_VALUE", "message": "alias not found"})
    with pytest.raises(NotThere, match="MLflow has no model 'digits', alias 'champion'"):
        ask(Server(registered_models__alias=unknown), lambda mlflow: mlflow.resolve(SERVER, "digits", alias="champion"))


def test_a_version_without_a_package_is_not_there() -> None:
    bare = {"model_version": {"version": "3", "tags": []}}
    with pytest.raises(NotThere, match=r"headrace\.package_uri"):
        ask(Server(model_versions__get=bare), lambda mlflow: mlflow.resolve(SERVER, "digits", version="3"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(503, text="later"), "answers HTTP 503"),
        (httpx.Response(401), "refuses the operator"),
        (httpx.Response(403), "refuses the operator"),
        (httpx.Response(200, text="<html>"), "is it an MLflow server"),
        (httpx.Response(302, headers={"location": "http://elsewhere"}), "answers HTTP 302"),
    ],
)
def test_every_other_answer_is_an_mlflow_that_cannot_be_read_now(answer: httpx.Response, words: str) -> None:
    with pytest.raises(Unreachable, match=words):
        ask(Server(experiments__search=lambda _: answer), find)


def test_a_server_that_is_down_is_named_without_credentials() -> None:
    def down(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(Unreachable, match=r"^MLflow at http://mlflow:5000 does not answer: connection refused$"):
        ask(down, lambda mlflow: mlflow.find_run("http://me:secret@mlflow:5000", "r"))


def test_an_answer_without_end_is_cut_off() -> None:
    endless = httpx.Response(200, content=b"x" * (MOST_BYTES + 1))
    with pytest.raises(Unreachable, match="answers with more than"):
        ask(Server(experiments__search=lambda _: endless), find)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, _request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    async def run() -> None:
        await MLflow({}, transport=Silent()).find_run(SERVER, "r")

    monkeypatch.setattr(mlflow_rest, "TIMEOUT_SECONDS", 0.01)
    with pytest.raises(Unreachable, match="does not answer within"):
        asyncio.run(run())


@pytest.mark.parametrize("address", ["sqlite:///mlflow.db", "databricks", "http://", ""])
def test_what_is_no_address_of_a_server_is_told(address: str) -> None:
    with pytest.raises(Unreachable, match="no address of an MLflow server"):
        ask(Server(), lambda mlflow: mlflow.find_run(address, "r"))


def test_the_token_goes_to_the_operators_own_server() -> None:
    server = Server(experiments__search={})
    ask(server, find, MLFLOW_TRACKING_URI=f"{SERVER}/", MLFLOW_TRACKING_TOKEN="secret")
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_name_and_password_go_to_the_operators_own_server() -> None:
    server = Server(experiments__search={})
    login = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"}
    ask(server, find, MLFLOW_TRACKING_URI=SERVER, **login)
    assert server.requests[0].headers["authorization"] == f"Basic {base64.b64encode(b'me:secret').decode()}"


@pytest.mark.parametrize("own", ["http://mlflow:5001", "https://mlflow:5000", "http://mlflow.evil:5000", ""])
def test_no_credentials_go_to_a_server_that_only_an_object_names(own: str) -> None:
    server = Server(experiments__search={})
    ask(server, find, MLFLOW_TRACKING_URI=own, MLFLOW_TRACKING_TOKEN="secret", MLFLOW_TRACKING_USERNAME="me")
    assert "authorization" not in server.requests[0].headers
