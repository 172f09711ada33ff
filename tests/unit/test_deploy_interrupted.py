"""A deployment that does not come to its end leaves what was served before. Ray Serve is a stand-in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base.errors import RunFailed, Unavailable
from headrace.local import deployments
from headrace.local.desired_state import Deployment
from headrace.serving.contract import StableVersion


def deploy(monkeypatch: pytest.MonkeyPatch, ends_with: BaseException) -> list[str]:
    done: list[str] = []
    head = SimpleNamespace(serve_url="http://127.0.0.1:1")

    def wait(*_: Any) -> None:
        raise ends_with

    monkeypatch.setattr(deployments, "ensure_head", lambda tell: head)
    monkeypatch.setattr(deployments, "_write_wish", lambda *_: (done.append("wish"), None, head))
    monkeypatch.setattr(deployments, "_wait_until_proven", wait)
    monkeypatch.setattr(deployments, "_put_back", lambda *_: done.append("put back"))
    with pytest.raises(type(ends_with)):
        deployments.deploy(Deployment("digits", "digits", StableVersion("2", "/p", "a" * 64)), tell=lambda _: None)
    return done


@pytest.mark.parametrize("ends_with", [RunFailed("it does not load"), KeyboardInterrupt()], ids=["failed", "Ctrl-C"])
def test_a_deployment_that_fails_or_is_interrupted_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, ends_with: BaseException
) -> None:
    assert deploy(monkeypatch, ends_with) == ["wish", "put back"]


def test_a_deployment_whose_head_died_stands_and_is_carried_out_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert deploy(monkeypatch, Unavailable("the head died")) == ["wish"]
