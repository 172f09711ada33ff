"""Batches: who sees which samples, in which order, decoded how often."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.base.errors import DataInvalid, InvalidInput
from headrace.training.batches import (
    Examples,
    ahead,
    chunks,
    epoch_order,
    evaluation_batches,
    padded,
    seed_of,
    share_out,
    training_batches,
    whole_batches,
)
from headrace_models.tasks.base import BadInput, Sample, Task


class Pairs(Task):
    """Decodes a number; counts how often; varies it by the random generator it is given."""

    def __init__(self) -> None:
        self.decoded: list[str] = []

    def decode(self, sample: Sample) -> dict[str, Any]:
        self.decoded.append(sample.sample_id)
        if sample.payload == b"bad":
            raise BadInput("not a picture")
        return {"value": np.zeros(100, np.uint8), "id": sample.sample_id}

    def augment(self, example: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        return {**example, "shift": rng.random()}

    def collate(self, examples: Sequence[dict[str, Any]]) -> Any:
        return [(example["id"], example.get("shift")) for example in examples]

    summarise = learn = model_facts = inputs = loss = new_metrics = None  # type: ignore[assignment]
    signature = preprocess = postprocess = request = None  # type: ignore[assignment]


Pairs.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


def samples(count: int) -> list[Sample]:
    return [Sample(f"s{index}", b"") for index in range(count)]


@given(batch=st.integers(1, 300), world=st.integers(1, 9), total=st.integers(1, 2000))
@settings(max_examples=200, deadline=None)
def test_every_worker_takes_the_same_number_of_batches_and_together_they_weigh_one_per_sample(
    batch: int, world: int, total: int
) -> None:
    counts = [len(range(rank, total, world)) for rank in range(world)]
    if batch < world or total < world:
        with pytest.raises(InvalidInput):
            share_out(batch, counts)
        return
    schedule = share_out(batch, counts)
    assert schedule.global_size <= batch
    assert max(schedule.sizes) - min(schedule.sizes) <= 1
    # The mean over workers of weight * (sum of the worker's samples / its size) is the mean over all samples.
    assert sum(schedule.weight(rank) / size for rank, size in enumerate(schedule.sizes)) == pytest.approx(
        world * world / schedule.global_size
    )
    for rank, count in enumerate(counts):
        assert schedule.batches * schedule.sizes[rank] >= count


def test_a_batch_smaller_than_the_number_of_workers_is_refused_with_the_numbers() -> None:
    with pytest.raises(InvalidInput) as raised:
        share_out(1, [5, 5])
    assert "2 workers" in raised.value.message


def test_the_order_depends_on_seed_epoch_and_rank_and_on_nothing_else() -> None:
    random.seed(1)
    np.random.seed(1)
    first = epoch_order(50, seed=3, epoch=2, rank=1)
    random.seed(2)
    np.random.seed(2)
    assert epoch_order(50, 3, 2, 1) == first
    assert sorted(first) == list(range(50))
    assert epoch_order(50, 3, 3, 1) != first != epoch_order(50, 3, 2, 0) != epoch_order(50, 4, 2, 1)


def test_padding_begins_anew_and_chunks_leave_nothing_out() -> None:
    assert padded([3, 1, 2], 7) == [3, 1, 2, 3, 1, 2, 3]
    assert [list(chunk) for chunk in chunks(range(5), 2)] == [[0, 1], [2, 3], [4]]


def test_seeds_differ_by_every_part() -> None:
    assert seed_of(1, "worker", 0) != seed_of(1, "worker", 1) != seed_of(2, "worker", 0)
    assert 0 <= seed_of("x") < 1 << 63


def test_an_example_is_decoded_once_while_it_fits_and_each_time_when_it_does_not() -> None:
    task = Pairs()
    everything = Examples(samples(4), task)
    for _ in range(3):
        [everything[index] for index in range(4)]
    assert len(task.decoded) == 4
    assert everything.complete

    task = Pairs()
    one = Examples(samples(4), task, cache_bytes=600)
    for _ in range(3):
        [one[index] for index in range(4)]
    assert len(task.decoded) == 1 + 3 * 3
    assert not one.complete


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_an_epoch_is_the_same_again_with_a_cache_and_without(cache_bytes: int) -> None:
    schedule = share_out(8, [10, 10])

    def epoch(number: int, cache: int) -> list[Any]:
        examples = Examples(samples(10), Pairs(), cache)
        return list(training_batches(examples, Pairs(), schedule=schedule, rank=1, seed=7, epoch=number))

    first = epoch(2, 1 << 20)
    assert epoch(2, cache_bytes) == first
    assert epoch(3, cache_bytes) != first
    assert [len(batch) for batch in first] == [4, 4, 4]
    assert {name for batch in first for name, _ in batch} == {f"s{index}" for index in range(10)}


def test_evaluation_sees_every_sample_once_in_order_and_unvaried() -> None:
    examples = Examples(samples(5), Pairs(), cache_bytes=0)
    seen = [item for batch in evaluation_batches(examples, Pairs(), 2) for item in batch]
    assert seen == [(f"s{index}", None) for index in range(5)]


def test_counting_sees_every_sample_once_in_order_and_varied_as_gradients_see_it() -> None:
    task, schedule = Pairs(), share_out(8, [7, 30])  # the first worker has fewer: gradients see its samples again
    examples = Examples(samples(7), task)
    by_gradients = training_batches(examples, task, schedule=schedule, rank=0, seed=3, epoch=2)
    shifts = {sample: shift for batch in by_gradients for sample, shift in batch}
    counted = [pair for batch in whole_batches(examples, task, size=4, seed=3, epoch=2) for pair in batch]
    assert counted == [(f"s{index}", shifts[f"s{index}"]) for index in range(7)]
    assert len(set(shifts.values())) == 7
    again = [pair for batch in whole_batches(examples, task, size=2, seed=3, epoch=3) for pair in batch]
    assert [sample for sample, _ in again] == [sample for sample, _ in counted]
    assert again != counted


def test_a_sample_that_cannot_be_decoded_is_named() -> None:
    examples = Examples([Sample("cats/3.png", b"bad")], Pairs())
    with pytest.raises(DataInvalid) as raised:
        examples[0]
    assert "cats/3.png" in raised.value.message
    assert "not a picture" in raised.value.message


def test_what_fails_ahead_is_raised_where_the_items_are_taken() -> None:
    def make() -> Any:
        yield 1
        raise SystemError("no more")

    items = ahead(make)
    assert next(items) == 1
    with pytest.raises(SystemError, match="no more"):
        next(items)


def test_items_ahead_are_given_up_when_their_taker_stops() -> None:
    made = SimpleNamespace(count=0)

    def make() -> Any:
        while True:
            made.count += 1
            yield made.count

    items = ahead(make, depth=2)
    assert next(items) == 1
    items.close()  # type: ignore[attr-defined]
    assert made.count <= 5
