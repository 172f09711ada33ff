"""`headrace deploy`: what would change is said first, and an alias moves last."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base.errors import InvalidInput, RunFailed
from headrace.steps import serve_version


def version(number: str = "4", **changes: Any) -> SimpleNamespace:
    facts = {
        "name": "digits",
        "version": number,
        "ref": f"digits/{number}",
        "package_uri": "/p",
        "package_sha256": "a" * 64,
        "gate": "passed",
    }
    return SimpleNamespace(**{**facts, **changes})


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> SimpleNamespace:
    """A registry and a machine that remember what was done to them."""
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    here = SimpleNamespace(found=version(), champion=None, served=[], wished={}, done=[], fails=False)

    def deploy(deployment: Any, *, tell: Any) -> dict[str, str]:
        if here.fails:
            raise RunFailed("it did not load", action="look")
        here.done.append(deployment)
        return {"url": f"http://h/{deployment.name}", "model": deployment.model, "version": deployment.stable.version}

    monkeypatch.setattr("headrace.tracking.registry.resolve", lambda ref: here.found)
    monkeypatch.setattr("headrace.tracking.registry.champion", lambda name, alias: here.champion)
    monkeypatch.setattr("headrace.tracking.registry.set_alias", lambda *moved: here.done.append(moved))
    monkeypatch.setattr("headrace.local.deployments.deployments", lambda: here.served)
    monkeypatch.setattr("headrace.local.deployments.deploy", deploy)
    monkeypatch.setattr("headrace.local.desired_state.read_desired", lambda: here.wished)
    return here


def test_a_new_endpoint_is_called_after_the_model(world: SimpleNamespace) -> None:
    change = serve_version.prepare("digits@champion")
    assert change.lines() == ["digits: nothing -> version 4 of digits, 1 replica"]
    assert serve_version.carry_out(change, print) == {
        "endpoint": {"url": "http://h/digits", "model": "digits", "version": "4"},
        "alias": None,
    }


def test_what_is_not_said_stays_as_it_is(world: SimpleNamespace) -> None:
    world.served = [{"name": "front", "version": "3", "model": "digits"}]
    world.wished = {"front": SimpleNamespace(replicas=2, resources={"cpus": 1})}
    change = serve_version.prepare("digits", name="front")
    assert change.lines() == ["front: version 3 of digits -> version 4 of digits, 2 replicas"]
    serve_version.carry_out(change, print)
    assert (world.done[0].replicas, world.done[0].resources) == (2, {"cpus": 1})


def test_the_alias_moves_once_the_version_answers(world: SimpleNamespace) -> None:
    world.champion = version("3")
    change = serve_version.prepare("digits/4", alias="champion", replicas=3)
    assert change.lines()[1] == "alias champion of digits: version 3 -> version 4"
    serve_version.carry_out(change, print)
    assert world.done[1] == ("digits", "champion", "4")


def test_a_deployment_that_fails_moves_no_alias(world: SimpleNamespace) -> None:
    world.fails = True
    with pytest.raises(RunFailed):
        serve_version.carry_out(serve_version.prepare("digits/4", alias="champion"), print)
    assert world.done == []


def test_a_refused_version_is_served_only_knowingly(world: SimpleNamespace) -> None:
    world.found = version(gate="refused")
    assert "the gate refused version 4" in serve_version.prepare("digits/4").lines()[-1]


@pytest.mark.parametrize("found", [None, version(package_uri=None)])
def test_a_version_that_cannot_be_served_is_named(world: SimpleNamespace, found: Any) -> None:
    world.found = found
    with pytest.raises(InvalidInput, match="digits/4"):
        serve_version.prepare("digits/4")
