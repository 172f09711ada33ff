"""A deployment that does not come to its end leaves what was served before. Ray Serve is a stand-in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from headrace.base.errors import ChampionChanged, HeadraceError, InvalidInput, RunFailed, Unavailable
from headrace.local import deployments
from headrace.local.desired_state import Deployment
from headrace.serving.contract import StableVersion


def deploy(
    monkeypatch: pytest.MonkeyPatch, ends_with: BaseException | None = None, concludes_with: BaseException | None = None
) -> list[str]:
    done: list[str] = []
    head = SimpleNamespace(serve_url="http://127.0.0.1:1")

    def raises(error: BaseException | None) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(deployments, "ensure_head", lambda tell: head)
    monkeypatch.setattr(deployments, "_write_wish", lambda *_: (done.append("wish"), None, head))
    monkeypatch.setattr(deployments, "_wait_until_proven", lambda *_: raises(ends_with))
    monkeypatch.setattr(deployments, "_put_back", lambda *_: done.append("put back"))
    wish = Deployment("digits", "digits", StableVersion("2", "/p", "a" * 64))
    with pytest.raises(type(ends_with or concludes_with)):
        deployments.deploy(wish, tell=lambda _: None, conclude=lambda: raises(concludes_with))
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


@pytest.mark.parametrize("error", [ChampionChanged("moved to version 7"), InvalidInput("MLflow refused the alias")])
def test_a_deployment_whose_alias_may_not_move_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, error: HeadraceError
) -> None:
    assert deploy(monkeypatch, concludes_with=error) == ["wish", "put back"]


def test_a_deployment_whose_alias_cannot_be_moved_now_stands_for_the_resumed_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert deploy(monkeypatch, concludes_with=Unavailable("MLflow is away")) == ["wish"]


def test_a_deployment_that_is_interrupted_when_its_alias_may_have_moved_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert deploy(monkeypatch, concludes_with=KeyboardInterrupt()) == ["wish"]
