"""The register and deploy steps: the verdict, the version, the alias that moves last. The registry is a stand-in."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base.errors import ChampionChanged, GateRefused, RunFailed, Superseded
from headrace.steps import keys
from headrace.steps.deploy import DeployTools, deploy_once
from headrace.steps.register import RegisterStep, RegisterTools
from headrace.steps.step import Step
from headrace.store import Store
from headrace.store.step_files import read_note

RUN, SPLIT, SHA = "digits-aaaaaaaa", "f" * 64, "a" * 64
AGAINST = "accuracy >= champion - 0.01"


@dataclass
class Registry:
    """A stand-in of the registry and of what measures champions: aliases, versions by package, what was done."""

    store: Store
    aliases: list[Any] = field(default_factory=lambda: [None])  # what the alias names at each look, the last one lasts
    versions: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    may_measure: bool = True
    measured_as: float | None = 0.5
    holds: bool = True

    def champion(self, reference: str) -> Any:
        return self.aliases.pop(0) if len(self.aliases) > 1 else self.aliases[0]

    def find(self, name: str, sha256: str) -> Any:
        number = self.versions.get(sha256)
        return None if number is None else SimpleNamespace(version=number)

    def register(self, name: str, *, package_sha256: str, check: Any, **facts: Any) -> Any:
        check()
        self.done.append("register")
        return SimpleNamespace(version=self.versions.setdefault(package_sha256, str(len(self.versions) + 1)))

    def tag_gate(self, name: str, version: str, *, passed: bool, check: Any, **facts: Any) -> None:
        check()
        self.done.append(f"tag {version} {'passed' if passed else 'refused'}")

    def set_alias(self, name: str, alias: str, version: str, *, check: Any) -> None:
        check()
        self.done.append(f"{name}@{alias} = {version}")

    def take_alias(self, name: str, alias: str, *, holder: str, on_wait: Any) -> None:
        self.done.append(f"take {name}@{alias} for {holder}")

    def require_alias(self, name: str, alias: str) -> None:
        if not self.holds:
            raise RunFailed("lost")

    def evaluate(self, step: Step, training: Any, package_uri: str) -> str | None:
        self.done.append("measure")
        if self.measured_as is None:
            return "its labels are other ones"
        evaluate(self.store, package_uri.rsplit("/", 1)[-1], self.measured_as)
        return None

    def tools(self) -> RegisterTools:
        return RegisterTools(
            champion=self.champion,
            find=self.find,
            register=self.register,
            tag_gate=self.tag_gate,
            set_alias=self.set_alias,
            take_alias=self.take_alias,
            require_alias=self.require_alias,
            evaluate=self.evaluate if self.may_measure else None,
        )


def evaluate(store: Store, sha256: str, accuracy: float) -> None:
    store.write_json(keys.evaluation_uri(store.uri, sha256, SPLIT), {"metrics": {"accuracy": accuracy}})


def version(store: Store, number: str, sha256: str) -> Any:
    uri = store.uri("packages", sha256)
    store.write_json(f"{uri}/headrace.json", {})
    return SimpleNamespace(name="digits", version=number, package_uri=uri, package_sha256=sha256)


def seen(champion: Any, error: str | None = None) -> dict[str, Any]:
    return {**vars(champion), "error": error}


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


def run(
    registry: Registry,
    *,
    gate: tuple[str, ...] = ("accuracy >= 0.8",),
    champion: Any = None,
    accuracy: float = 0.9,
    registers: bool = True,
    deploys: bool = False,
) -> Any:
    part = {"gate": list(gate), "register": {"name": "digits", "alias": "champion"} if registers else None}
    training = {
        "package_uri": "/p",
        "package_sha256": SHA,
        "metrics": {"accuracy": accuracy},
        "champion": champion,
        "split_fingerprint": SPLIT,
        "trained_by": RUN,
        "mlflow": {"run_id": "m1"},
        "model_uri": "models:/m-1",
        "model_id": "m-1",
    }
    step = Step("register", RUN, "1.1", registry.store)
    return RegisterStep(step, registry.tools(), part, training, moves_alias=not deploys).run()


def test_a_model_that_passes_is_registered_and_the_alias_moves_last(registry: Registry) -> None:
    outcome = run(registry)
    assert registry.done == [
        f"take digits@champion for run {RUN}",
        "register",
        "tag 1 passed",
        "digits@champion = 1",
    ]
    assert outcome.values["model"] == {
        "name": "digits",
        "version": "1",
        "alias": "champion",
        "uri": "models:/digits/1",
    }


def test_with_a_deploy_step_the_alias_does_not_move_yet(registry: Registry) -> None:
    outcome = run(registry, deploys=True)
    assert registry.done[-1] == "tag 1 passed"
    assert outcome.values["model"]["alias"] is None


def test_a_refused_model_is_registered_with_the_tag_and_no_alias_moves(registry: Registry, store: Store) -> None:
    with pytest.raises(GateRefused) as refused:
        run(registry, accuracy=0.5)
    assert registry.done[1:] == ["register", "tag 1 refused"]
    assert refused.value.exit_code == 3
    assert refused.value.message == "the gate refused the model: accuracy >= 0.8 (it is 0.5)"
    note = read_note(store, RUN, "gate")
    assert note is not None
    assert note["gate"]["passed"] is False
    assert note["model"]["version"] == "1"


def test_a_package_that_has_a_version_makes_no_new_one(registry: Registry) -> None:
    registry.versions[SHA] = "7"
    outcome = run(registry)
    assert outcome.state == "cached"
    assert outcome.values["model"]["version"] == "7"


def test_a_gate_without_a_registry_judges_and_registers_nothing(registry: Registry) -> None:
    assert run(registry, registers=False).values == {
        "gate": {"passed": True, "checks": [{"check": "accuracy >= 0.8", "value": 0.9, "passed": True}]},
        "model": None,
    }
    with pytest.raises(GateRefused):
        run(registry, registers=False, accuracy=0.1)
    assert registry.done == []


def test_a_superseded_attempt_registers_nothing(registry: Registry, store: Store) -> None:
    store.claim_attempt(RUN, "2.1")
    with pytest.raises(Superseded):
        run(registry)
    assert registry.done == [f"take digits@champion for run {RUN}"]


# the champion


def test_without_a_champion_its_check_passes_and_says_so(registry: Registry) -> None:
    gate = run(registry, gate=(AGAINST,)).values["gate"]
    assert gate["checks"][0]["note"] == "there is no champion yet"


def test_a_better_champion_refuses_the_model(registry: Registry, store: Store) -> None:
    champion = version(store, "3", "c" * 64)
    evaluate(store, "c" * 64, 0.99)
    registry.aliases = [champion]
    with pytest.raises(GateRefused, match=r"champion: 0\.99"):
        run(registry, gate=(AGAINST,), champion=seen(champion))


def test_a_champion_that_moved_since_the_training_is_measured_once_more(registry: Registry, store: Store) -> None:
    registry.aliases = [version(store, "4", "d" * 64)]
    outcome = run(registry, gate=(AGAINST,), champion=seen(version(store, "3", "c" * 64)))
    assert "measure" in registry.done
    assert outcome.values["gate"]["checks"][0]["note"] == "champion: 0.5"


def test_a_moved_champion_whose_evaluation_lacks_a_metric_is_measured(registry: Registry, store: Store) -> None:
    registry.aliases = [version(store, "4", "d" * 64)]
    evaluate(store, "d" * 64, 0.6)
    run(registry, gate=(AGAINST,), champion=None)
    assert "measure" not in registry.done
    store.write_json(keys.evaluation_uri(store.uri, "d" * 64, SPLIT), {"metrics": {"log_loss": 0.1}})
    outcome = run(registry, gate=(AGAINST,), champion=None)
    assert "measure" in registry.done
    assert outcome.values["gate"]["checks"][0]["note"] == "champion: 0.5"


def test_a_champion_that_appeared_since_the_training_is_measured(registry: Registry, store: Store) -> None:
    registry.aliases = [version(store, "1", "d" * 64)]
    run(registry, gate=(AGAINST,), champion=None)
    assert "measure" in registry.done


def test_a_champion_that_moves_again_ends_the_run_before_anything_is_registered(
    registry: Registry, store: Store
) -> None:
    registry.aliases = [version(store, "4", "d" * 64), version(store, "5", "e" * 64)]
    with pytest.raises(ChampionChanged) as changed:
        run(registry, gate=(AGAINST,), champion=None)
    assert (changed.value.code, changed.value.exit_code) == ("champion-changed", 1)
    assert "register" not in registry.done


def test_where_a_step_may_not_train_a_moved_champion_ends_the_run(registry: Registry, store: Store) -> None:
    registry.may_measure = False
    registry.aliases = [version(store, "4", "d" * 64)]
    with pytest.raises(ChampionChanged):
        run(registry, gate=(AGAINST,), champion=None)


def test_a_champion_that_cannot_be_measured_fails_its_check_and_says_why(registry: Registry, store: Store) -> None:
    registry.measured_as = None
    registry.aliases = [version(store, "4", "d" * 64)]
    with pytest.raises(GateRefused, match="the champion cannot be measured: its labels are other ones"):
        run(registry, gate=(AGAINST,), champion=None)


def test_a_champion_that_no_check_asks_for_is_not_looked_at(registry: Registry, store: Store) -> None:
    registry.aliases = [version(store, "4", "d" * 64)]
    run(registry)
    assert "measure" not in registry.done


# deploy


def serve(registry: Registry, *, served: bool = False, fails: Exception | None = None, attempt: str = "1.1") -> Any:
    endpoint = {"url": "http://x/digits", "model": "digits", "version": "2"}

    def deploy(part: Any, registration: Any, tell: Any, conclude: Any) -> dict[str, Any]:
        if fails is not None:
            raise fails
        registry.done.append("deploy")
        conclude()
        return endpoint

    tools = DeployTools(
        serving=lambda part, registration: endpoint if served else None,
        deploy=deploy,
        champion=registry.champion,
        set_alias=registry.set_alias,
        take_alias=registry.take_alias,
        require_alias=registry.require_alias,
    )
    step = Step("deploy", RUN, attempt, registry.store)
    model = {"name": "digits", "version": "2", "alias": None, "uri": "models:/digits/2"}
    return deploy_once(step, tools, {"name": "digits"}, {"model": model}, "champion")


def test_the_alias_moves_once_the_endpoint_answers(registry: Registry) -> None:
    outcome = serve(registry)
    assert registry.done[1:] == ["deploy", "digits@champion = 2"]
    assert outcome.values["model"]["alias"] == "champion"
    assert outcome.values["endpoint"]["url"] == "http://x/digits"


def test_a_deploy_that_fails_leaves_the_alias_where_it_was(registry: Registry) -> None:
    with pytest.raises(RunFailed):
        serve(registry, fails=RunFailed("it does not load"))
    assert not any("=" in one for one in registry.done)


def test_an_endpoint_that_answers_already_under_the_alias_costs_nothing(registry: Registry, store: Store) -> None:
    registry.aliases = [version(store, "2", SHA)]
    assert serve(registry, served=True).state == "cached"
    assert registry.done == [f"take digits@champion for run {RUN}"]


def test_an_endpoint_that_answers_already_still_gets_its_alias(registry: Registry) -> None:
    assert serve(registry, served=True).state == "succeeded"
    assert registry.done[1:] == ["digits@champion = 2"]


def test_a_run_that_lost_the_right_to_the_alias_does_not_move_it(registry: Registry) -> None:
    registry.holds = False
    with pytest.raises(RunFailed, match="lost"):
        serve(registry)
    assert not any("=" in one for one in registry.done)


def test_a_superseded_attempt_does_not_deploy(registry: Registry, store: Store) -> None:
    store.claim_attempt(RUN, "2.1")
    with pytest.raises(Superseded):
        serve(registry)
    assert "deploy" not in registry.done
