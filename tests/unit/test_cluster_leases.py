"""A Lease as a lock of a name: taken, passed on, waited for, and taken from a holder that is silent for too long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.base.errors import RunFailed, Superseded
from headrace.cluster import LEASE
from headrace.cluster.leases import SKEW_SECONDS, LeaseLock
from headrace_testbed.fake_cluster import FakeCluster

START = datetime(2026, 11, 26, tzinfo=UTC)


class Clock:
    """The time, which only moves when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def lock(cluster: FakeCluster, clock: Clock, holder: str) -> LeaseLock:
    about = {"headrace.dev/alias": "digits@champion"}
    return LeaseLock(cluster, "alias", holder, silent_seconds=100, about=about, now=lambda: clock.now)


def take(lock: LeaseLock) -> list[str]:
    waited: list[str] = []
    lock.take(waited.append)
    return waited


def test_a_free_lock_is_taken_and_says_what_it_is(cluster: FakeCluster, clock: Clock) -> None:
    assert take(lock(cluster, clock, "run a")) == []
    lease = cluster.get(LEASE, "alias")
    assert lease is not None
    assert lease["metadata"]["annotations"] == {"headrace.dev/alias": "digits@champion"}
    assert lease["spec"]["holderIdentity"] == "run a"
    assert lease["spec"]["leaseDurationSeconds"] == 100


def test_another_pod_of_the_holder_has_it_already(cluster: FakeCluster, clock: Clock) -> None:
    take(lock(cluster, clock, "run a"))
    assert take(lock(cluster, clock, "run a")) == []


def test_it_is_waited_for_by_name_until_it_is_given_back(cluster: FakeCluster, clock: Clock) -> None:
    first = lock(cluster, clock, "run a")
    take(first)
    cluster.script = [lambda: None, first.give_back]
    assert take(lock(cluster, clock, "run b")) == ["run a"]
    with pytest.raises(RunFailed, match="run b has it"):
        first.renew()


def test_it_is_taken_from_a_holder_that_is_silent_for_too_long(cluster: FakeCluster, clock: Clock) -> None:
    take(lock(cluster, clock, "run a"))
    cluster.script = [lambda: clock.pass_by(99 + SKEW_SECONDS), lambda: clock.pass_by(2)]
    assert take(lock(cluster, clock, "run b")) == ["run a"]
    lease = cluster.get(LEASE, "alias")
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] == 1


def test_a_holder_that_renews_keeps_it(cluster: FakeCluster, clock: Clock) -> None:
    first = lock(cluster, clock, "run a")
    take(first)

    def later() -> None:
        clock.pass_by(90)
        first.renew()

    cluster.script = [later, later, first.give_back]
    assert take(lock(cluster, clock, "run b")) == ["run a"]
    assert clock.now == START + timedelta(seconds=180)


def test_of_two_that_take_it_at_once_one_waits(cluster: FakeCluster, clock: Clock) -> None:
    first, second = lock(cluster, clock, "run a"), lock(cluster, clock, "run b")
    get, create = cluster.get, cluster.create

    def slower(*arguments: object) -> object:
        cluster.create = create  # type: ignore[method-assign]
        take(first)
        return create(*arguments)  # type: ignore[arg-type]

    cluster.create = slower  # type: ignore[method-assign,assignment]
    cluster.script = [lambda: None, first.give_back]
    assert take(second) == ["run a"]
    assert get(LEASE, "alias")["spec"]["holderIdentity"] == "run b"  # type: ignore[index]


def test_whoever_need_not_wait_any_longer_stops(cluster: FakeCluster, clock: Clock) -> None:
    take(lock(cluster, clock, "run a"))

    def superseded() -> None:
        raise Superseded("a newer attempt goes on")

    with pytest.raises(Superseded):
        lock(cluster, clock, "run b").take(lambda _: None, superseded)


def test_what_is_not_held_is_not_given_back(cluster: FakeCluster, clock: Clock) -> None:
    take(lock(cluster, clock, "run a"))
    lock(cluster, clock, "run b").give_back()
    lock(cluster, clock, "run a").renew()
