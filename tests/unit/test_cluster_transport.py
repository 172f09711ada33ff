"""What is sent again to an API server, for how long, and what its refusals are in our tree of errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3

from headrace.base.errors import InvalidInput, RunFailed, Unavailable
from headrace.cluster.transport import Transport

URL = "https://10.0.0.1:6443"
AWAY = urllib3.exceptions.NewConnectionError(None, "refused")  # type: ignore[arg-type]


def answer(status: int, reason: str = "", message: str = "", **headers: str) -> Any:
    body = {"ok": True} if status < 300 else {"reason": reason, "message": message}
    kept = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return SimpleNamespace(status=status, data=json.dumps(body).encode(), headers=kept)


class Server:
    """Gives the ANSWERS in turn; exceptions are raised. Time is what was slept."""

    def __init__(self, *answers: Any) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self.asked: list[tuple[str, str]] = []
        self.slept: list[float] = []
        self.told: list[str] = []
        client = SimpleNamespace(
            rest_client=SimpleNamespace(pool_manager=self),
            configuration=SimpleNamespace(host=URL),
            update_params_for_auth=lambda headers, query, names: headers.update(Authorization="Bearer t"),
        )
        self.transport = Transport(client, on_trouble=self.told.append, patience_seconds=60.0, sleep=self.slept.append)

    def request(self, method: str, url: str, **options: Any) -> Any:
        assert options["headers"]["Authorization"] == "Bearer t"
        self.asked.append((method, url))
        given = next(self._answers)
        if isinstance(given, Exception):
            raise given
        return given

    def ask(self) -> Any:
        return self.transport.request("GET", "/api", "read it", query={"limit": "1"})


@pytest.mark.parametrize("trouble", [AWAY, answer(503), answer(500, message="etcdserver: leader changed"), answer(429)])
def test_what_may_pass_is_asked_again_and_told_once(trouble: Any) -> None:
    server = Server(trouble, trouble, answer(200))
    assert server.ask() == {"ok": True}
    assert server.asked == [("GET", f"{URL}/api?limit=1")] * 3
    assert server.slept == [0.5, 1.0]
    assert [URL in told for told in server.told] == [True, False]


def test_a_server_that_asks_for_patience_gets_as_much_as_it_asks_for() -> None:
    server = Server(answer(429, retry_after="7"), answer(200))
    server.ask()
    assert server.slept == [7.0]


def test_a_server_that_stays_away_is_named_after_the_time_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(*(AWAY for _ in range(100)))
    monkeypatch.setattr("headrace.cluster.transport.time.monotonic", lambda: sum(server.slept))
    with pytest.raises(Unavailable, match=f"{URL} could not be reached for 60 s") as raised:
        server.ask()
    assert (raised.value.exit_code, raised.value.code) == (4, "kubernetes-unavailable")
    assert raised.value.waited_for
    assert 40 < sum(server.slept) <= 60


@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [
        (answer(403, "Forbidden", "cannot get"), RunFailed, "kubernetes-forbidden"),
        (answer(404, "NotFound", "no such thing"), RunFailed, "kubernetes-not-found"),
        (answer(409, "Conflict", "it changed"), RunFailed, "kubernetes-conflict"),
        (answer(422, "Invalid", "must be a number"), InvalidInput, "kubernetes-refused"),
        (answer(500, message="failed to create typed patch object: .spec.x"), InvalidInput, "kubernetes-refused"),
    ],
)
def test_a_refusal_is_told_at_once_in_the_server_s_words(refusal: Any, kind: type[Exception], code: str) -> None:
    server = Server(refusal)
    with pytest.raises(kind, match="Kubernetes refused to read it") as raised:
        server.ask()
    assert getattr(raised.value, "code", None) == code
    assert server.slept == []


def test_a_server_that_knew_us_before_may_forget_us_for_a_moment() -> None:
    """A restarted API server knows nobody's rights until it has read them."""
    server = Server(answer(200), answer(403, "Forbidden", "not yet"), answer(200))
    server.ask()
    assert server.ask() == {"ok": True}


def test_an_answer_that_is_no_json_is_told_as_it_is() -> None:
    html = SimpleNamespace(status=400, data=b"<html>wrong port</html>", headers={})
    with pytest.raises(InvalidInput, match="wrong port"):
        Server(html).ask()
