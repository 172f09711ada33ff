"""Claims: who has CPUs or the right to move an alias, who waits, and what becomes of the claims of the dead."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from headrace.base.errors import NotEnoughResources, RunFailed
from headrace.base.jsonfile import write_json
from headrace.base.processes import ProcessRef
from headrace.local import alias_lock, ledger, resources
from headrace.local.ledger import Ledger
from headrace.local.resources import Demand, Machine, check_demand, claim, demand_of

SMALL = Machine(num_cpus=2, num_gpus=0)
BIG = Machine(num_cpus=8, num_gpus=2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(alias_lock.OWNER_VARIABLE, raising=False)
    monkeypatch.setattr(ledger.time, "sleep", lambda seconds: None)
    return tmp_path / "home"


def dead_process() -> ProcessRef:
    process = subprocess.Popen(["sleep", "60"])
    reference = ProcessRef.of(process.pid)
    assert reference is not None
    process.kill()
    process.wait()
    return reference


def train(*, least: int = 2, most: int = 2, gpus: int | str = "auto", cpus: int = 1) -> dict[str, object]:
    return {
        "workers": {"min": least, "max": most},
        "gpus_per_worker": gpus,
        "resources": {"cpus_per_worker": cpus},
    }


# whether there is enough


def test_more_cpus_than_there_are_is_refused_with_the_numbers() -> None:
    with pytest.raises(NotEnoughResources) as refused:
        check_demand(train(least=3, most=3), SMALL)
    assert refused.value.message == "training needs 3 CPUs (3 x 1), and there are 2"
    assert refused.value.action == "set train.workers to 2 or fewer"
    assert refused.value.exit_code == 2


def test_a_worker_that_fits_nowhere_is_told_to_shrink() -> None:
    with pytest.raises(NotEnoughResources) as refused:
        check_demand(train(least=1, most=1, gpus=1), SMALL)
    assert refused.value.action == "lower train.gpus_per_worker"


def test_an_elastic_training_needs_only_its_least_number_of_workers() -> None:
    assert check_demand(train(least=2, most=64), SMALL).most == 64


@pytest.mark.parametrize(("least", "gpus"), [(1, 1.0), (2, 1.0), (3, 0.0)])
def test_auto_is_one_gpu_if_every_worker_can_have_one(least: int, gpus: float) -> None:
    assert demand_of(train(least=least, most=least), BIG).gpus_per_worker == gpus


# whose turn it is


def test_a_claim_gets_as_many_workers_as_are_free_between_least_and_most() -> None:
    with claim(Demand(1, 8, 2.0, 0.0), BIG, holder="run a") as workers:
        assert workers == 4


def test_what_one_run_holds_another_waits_for_and_is_told_whom() -> None:
    path = resources.folder("locks") / "resources.json"
    first = Ledger(path).acquire(
        {}, lambda wants, held: {"cpus": 2, "gpus": 0, "workers": 2}, holder="run a", owner=ProcessRef.current()
    )
    told: list[list[str]] = []

    def on_wait(names: object) -> None:
        told.append(list(names))  # type: ignore[call-overload]
        Ledger(path).release(lambda one: one.token == first.token)

    with claim(Demand(2, 2, 1.0, 0.0), SMALL, holder="run b", on_wait=on_wait) as workers:
        assert workers == 2
    assert told == [["run a"]]
    assert Ledger(path).claims() == []


def test_the_claim_of_a_killed_run_counts_no_more() -> None:
    path = resources.folder("locks") / "resources.json"
    _write_claim_of(path, dead_process())
    with claim(Demand(2, 2, 1.0, 0.0), SMALL, holder="run b", on_wait=pytest.fail) as workers:
        assert workers == 2


def _write_claim_of(path: Path, owner: ProcessRef) -> None:
    has = {"cpus": 2, "gpus": 0, "workers": 2}
    one = ledger.Claim("t", "run a", owner, {}, has)
    write_json(path, [one.to_record()])


def test_those_who_came_first_are_served_first_even_if_a_later_claim_would_fit() -> None:
    book = Ledger(resources.folder("locks") / "book.json")
    me = ProcessRef.current()
    held = book.acquire({"n": 1}, lambda wants, held: wants, holder="a", owner=me)
    with book._edit() as claims:
        claims.append(ledger.Claim("big", "b", me, {"n": 2}, None))
    asked: list[list[str]] = []

    def on_wait(names: object) -> None:
        asked.append(list(names))  # type: ignore[call-overload]
        book.release(lambda one: one.token in {"big", held.token})

    book.acquire({"n": 1}, lambda wants, held: wants, holder="c", owner=me, on_wait=on_wait)
    assert asked == [["a", "b"]]


def test_a_wait_that_is_interrupted_leaves_no_claim_behind() -> None:
    book = Ledger(resources.folder("locks") / "book.json")
    me = ProcessRef.current()
    book.acquire({}, lambda wants, held: wants, holder="a", owner=me)

    def interrupt(names: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        book.acquire({}, lambda wants, held: None, holder="b", owner=me, on_wait=interrupt)
    assert [one.holder for one in book.claims()] == ["a"]


# the right to move an alias


def test_the_right_to_move_an_alias_is_held_until_it_is_given_back() -> None:
    alias_lock.take_alias("digits", "champion", holder="run a")
    assert alias_lock.holds_alias("digits", "champion")
    assert not alias_lock.holds_alias("digits", "shadow")
    alias_lock.give_back_alias("digits", "champion")
    assert not alias_lock.holds_alias("digits", "champion")


def test_taking_it_again_for_the_same_runner_does_not_wait() -> None:
    alias_lock.take_alias("digits", "champion", holder="run a")
    alias_lock.take_alias("digits", "champion", holder="run a", on_wait=pytest.fail)
    assert alias_lock.holds_alias("digits", "champion")


def test_the_right_ends_with_the_runner_and_a_step_that_lives_on_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = subprocess.Popen(["sleep", "60"])
    reference = ProcessRef.of(runner.pid)
    assert reference is not None
    monkeypatch.setenv(alias_lock.OWNER_VARIABLE, alias_lock.owner_text(reference))
    alias_lock.take_alias("digits", "champion", holder="run a")
    alias_lock.require_alias("digits", "champion")
    runner.kill()
    runner.wait()
    with pytest.raises(RunFailed, match="was lost"):
        alias_lock.require_alias("digits", "champion")
    monkeypatch.delenv(alias_lock.OWNER_VARIABLE)
    alias_lock.take_alias("digits", "champion", holder="run b", on_wait=pytest.fail)


def test_another_runner_waits_and_is_told_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = ProcessRef.of(os.getppid())
    assert parent is not None
    monkeypatch.setenv(alias_lock.OWNER_VARIABLE, alias_lock.owner_text(parent))
    alias_lock.take_alias("digits", "champion", holder="run a")
    monkeypatch.delenv(alias_lock.OWNER_VARIABLE)
    told: list[object] = []

    def on_wait(names: object) -> None:
        told.append(names)
        monkeypatch.setenv(alias_lock.OWNER_VARIABLE, alias_lock.owner_text(parent))
        alias_lock.give_back_alias("digits", "champion")
        monkeypatch.delenv(alias_lock.OWNER_VARIABLE)

    with alias_lock.alias_lock("digits", "champion", holder="run b", on_wait=on_wait):
        assert alias_lock.holds_alias("digits", "champion")
    assert told == [["run a"]]
    assert not alias_lock.holds_alias("digits", "champion")


def test_what_an_endpoint_reserves_is_not_there_for_training() -> None:
    from headrace.local import desired_state
    from headrace.serving.contract import StableVersion

    version = StableVersion("1", "/p", "a" * 64)
    endpoint = desired_state.Deployment("digits", "digits", version, 2, {"cpus": 1.5, "gpus": None})
    desired_state.write_desired({"digits": endpoint})
    assert resources.for_training(BIG) == Machine(num_cpus=5, num_gpus=2)
    assert resources.for_training(SMALL) == Machine(num_cpus=0, num_gpus=0)
