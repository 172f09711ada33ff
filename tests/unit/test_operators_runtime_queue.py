"""The queue's laws, for any order of what may happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace_operators.runtime import metrics
from headrace_operators.runtime.kinds import Key
from headrace_operators.runtime.queue import Queue

A, B, C = (Key("n", name) for name in "abc")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> Queue:
    return Queue("test", clock)


def drain(queue: Queue) -> list[Key]:
    taken = []
    while (key := queue.take()) is not None:
        taken.append(key)
    return taken


def test_keys_come_out_in_the_order_they_came_in_each_once(queue: Queue) -> None:
    for key in (B, A, B, C, A):
        queue.add(key)
    assert len(queue) == 3
    assert drain(queue) == [B, A, C]


def test_a_key_that_is_added_while_a_worker_has_it_is_given_out_again_only_after_it_is_done(queue: Queue) -> None:
    queue.add(A)
    assert queue.take() == A
    queue.add(A)
    queue.add(A)
    assert queue.take() is None
    queue.done(A)
    assert drain(queue) == [A]


def test_a_key_that_nothing_happened_to_is_not_given_out_again(queue: Queue) -> None:
    queue.add(A)
    assert queue.take() == A
    queue.done(A)
    assert queue.take() is None


def test_of_two_times_the_earlier_counts(queue: Queue, clock: Clock) -> None:
    queue.add_after(A, 10)
    queue.add_after(A, 5)
    queue.add_after(A, 20)
    assert queue.due() == 5
    clock.now += 4.9
    assert queue.take() is None
    clock.now += 0.1
    assert queue.take() == A
    queue.done(A)
    clock.now += 100
    assert queue.take() is None


def test_a_key_that_is_taken_up_earlier_forgets_its_time(queue: Queue, clock: Clock) -> None:
    queue.add_after(A, 10)
    queue.add(A)
    assert queue.take() == A
    queue.done(A)
    clock.now += 100
    assert queue.take() is None
    assert queue.due() is None


def test_backoff_doubles_from_5_ms_to_5_minutes_and_starts_small_after_a_success(queue: Queue) -> None:
    seconds = [queue.add_failed(A) for _ in range(40)]
    for expected, found in zip([0.005 * 2**n for n in range(15)], seconds, strict=False):
        assert 0.8 * expected <= found <= 1.2 * expected
    assert all(240 <= found <= 360 for found in seconds[20:])
    queue.forget(A)
    assert queue.add_failed(A) <= 0.006
    assert queue.add_failed(B) <= 0.006


def test_a_waiting_worker_is_woken_by_an_add_and_by_a_time(in_virtual_time: Callable[..., Any]) -> None:
    async def work() -> list[tuple[float, Key]]:
        loop = asyncio.get_running_loop()
        queue, seen = Queue("test", loop.time), []

        async def worker() -> None:
            while (key := await queue.get()) is not None:
                seen.append((loop.time(), key))
                queue.done(key)

        workers = [asyncio.create_task(worker()) for _ in range(3)]
        await asyncio.sleep(1)
        queue.add(A)
        queue.add_after(B, 60)
        queue.add_after(C, 30)
        await asyncio.sleep(100)
        queue.stop()
        await asyncio.gather(*workers)
        return seen

    assert in_virtual_time(work()) == [(1, A), (31, C), (61, B)]


def test_a_stopped_queue_gives_out_nothing_and_takes_nothing(in_virtual_time: Callable[..., Any]) -> None:
    async def work() -> None:
        queue = Queue("test")
        queue.add(A)
        queue.stop()
        queue.add(B)
        queue.add_after(B, 0)
        assert await queue.get() is None
        assert len(queue) == 1

    in_virtual_time(work())


def value(metric: str) -> float:
    return metrics.REGISTRY.get_sample_value(metric, {"name": "measured"}) or 0.0


def test_its_metrics_tell_what_waits_what_runs_and_what_was_tried_again(clock: Clock) -> None:
    queue = Queue("measured", clock)
    queue.add(A)
    queue.add(B)
    queue.add(B)
    assert value("workqueue_depth") == 2
    assert value("workqueue_adds_total") == 2
    clock.now += 3
    queue.take()
    clock.now += 2
    queue.take()
    clock.now += 4
    assert value("workqueue_queue_duration_seconds_sum") == 3 + 5
    assert value("workqueue_unfinished_work_seconds") == 6 + 4
    assert value("workqueue_longest_running_processor_seconds") == 6
    queue.add_failed(A)
    queue.done(A)
    assert value("workqueue_retries_total") == 1
    assert value("workqueue_work_duration_seconds_sum") == 6


class Laws(RuleBasedStateMachine):
    """Whatever is added, delayed, failed, taken and finished in any order: a key is with one worker at most, and no
    key that was added is ever forgotten."""

    keys = st.sampled_from([A, B, C])

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = Queue("laws", self.clock)
        self.wanted: set[Key] = set()  # must be given out
        self.times: dict[Key, float] = {}  # must be given out from then on
        self.working: set[Key] = set()

    @rule(key=keys)
    def add(self, key: Key) -> None:
        self.queue.add(key)
        self.wanted.add(key)

    @rule(key=keys, seconds=st.floats(0, 50))
    def add_after(self, key: Key, seconds: float) -> None:
        self.queue.add_after(key, seconds)
        self.times[key] = min(self.times.get(key, 1e9), self.clock.now + seconds)

    @rule(key=keys)
    def fail(self, key: Key) -> None:
        moment = self.clock.now + self.queue.add_failed(key)
        self.times[key] = min(self.times.get(key, 1e9), moment)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def take(self) -> None:
        key = self.queue.take()
        due = {key for key, moment in self.times.items() if moment <= self.clock.now}
        if key is None:
            assert not (self.wanted | due) - self.working
            self.wanted |= due
        else:
            assert key not in self.working
            assert key in self.wanted | due
            self.wanted = (self.wanted | due) - {key}
            self.working.add(key)
        for each in due | ({key} if key else set()):
            self.times.pop(each, None)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.queue.done(key)
        self.working.discard(key)

    @invariant()
    def the_next_time_is_the_earliest(self) -> None:
        due = self.queue.due()
        if self.times:
            assert due == max(0.0, min(self.times.values()) - self.clock.now)
        else:
            assert due is None


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
