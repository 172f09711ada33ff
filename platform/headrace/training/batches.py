"""From a worker's shard to batches: which samples, in which order, decoded once.

The order is a pure function of (seed, epoch, rank) and the augmentation of a sample one of (seed, epoch, sample id), so
a resumed epoch sees exactly what it would have seen. Decoding happens in the worker itself and is kept in memory as
long as it fits: forking loader processes out of a Ray worker is unsafe, and for data that fits they only cost time.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from headrace.base.errors import DataInvalid, InvalidInput
from headrace.data.manifest import Shard
from headrace_models.tasks.base import BadInput, Batch, Example, Sample, Task

# Bytes of decoded examples (small arrays, mostly uint8) that one worker keeps: 170,000 CIFAR pictures or 3,500 of
# 224 x 224. What does not fit is decoded again each epoch, in a thread that runs ahead of the training.
CACHE_BYTES = 512 << 20
AHEAD = 2  # batches that such a thread prepares before they are asked for

T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """How the workers go through an epoch together.

    Args:
        counts: training samples of each worker.
        sizes: samples of each worker in one batch; their sum is the global batch.
        batches: batches of an epoch, the same number on every worker.
    """

    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    batches: int

    @property
    def global_size(self) -> int:
        """Samples of all workers in one batch."""
        return sum(self.sizes)

    def weight(self, rank: int) -> float:
        """What a worker's mean loss is multiplied by, so that the mean gradient over workers is over samples."""
        return self.sizes[rank] * len(self.sizes) / self.global_size


def share_out(batch_size: int, counts: Sequence[int]) -> Schedule:
    """Divide a global BATCH_SIZE over workers that hold COUNTS samples.

    Sizes differ by one at most; none is larger than what its worker holds. The worker that needs the most batches sets
    their number, and the others begin their samples anew (`padded`).

    Raises:
        InvalidInput: there are fewer samples in a batch, or in the split, than workers.
    """
    world = len(counts)
    if batch_size < world:
        raise InvalidInput(
            f"train.batch_size is {batch_size}, but there are {world} workers and each needs one sample a step",
            action=f"set train.batch_size to {world} or more, or train.workers to {batch_size} or fewer",
        )
    if min(counts) == 0:
        raise InvalidInput(
            f"the training split has {sum(counts)} samples, too few for {world} workers",
            action="lower train.workers, or give more data",
        )
    sizes = tuple(min(batch_size // world + (rank < batch_size % world), count) for rank, count in enumerate(counts))
    return Schedule(tuple(counts), sizes, max(-(-count // size) for count, size in zip(counts, sizes, strict=True)))


def epoch_order(count: int, seed: int, epoch: int, rank: int) -> list[int]:
    """A shuffle of COUNT samples."""
    order: list[int] = np.random.default_rng([abs(seed), epoch, rank]).permutation(count).tolist()
    return order


def padded(order: Sequence[int], length: int) -> list[int]:
    """ORDER, begun anew until it has LENGTH entries."""
    return [order[index % len(order)] for index in range(length)]


def chunks(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """ORDER in pieces of SIZE, the last one maybe shorter."""
    for start in range(0, len(order), size):
        yield order[start : start + size]


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on all PARTS and on nothing else."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)


def size_of(example: Any) -> int:
    """Bytes that an example takes, near enough."""
    if isinstance(example, dict):
        return sum(size_of(value) for value in example.values()) + 232
    if isinstance(example, (list, tuple)):
        return sum(size_of(value) for value in example) + 56
    return int(getattr(example, "nbytes", 0) or (len(example) if isinstance(example, (bytes, str)) else 0)) + 56


class Examples:
    """A shard's decoded examples, kept up to a number of bytes."""

    def __init__(self, samples: Sequence[Sample], task: Task, cache_bytes: int = CACHE_BYTES) -> None:
        self._samples = samples
        self._task = task
        self._left = cache_bytes
        self._kept: list[tuple[str, Example] | None] = [None] * len(samples)
        self._missing = len(samples)
        self._full = False

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def complete(self) -> bool:
        """Whether every example is in memory."""
        return self._missing == 0

    def __getitem__(self, index: int) -> tuple[str, Example]:
        """(sample id, decoded example). Raises DataInvalid for a sample that cannot be decoded."""
        return self._kept[index] or self._decoded(index, self._samples[index])

    def many(self, indices: Sequence[int]) -> Iterator[tuple[str, Example]]:
        """`self[index]` for each of INDICES; samples that are far away are on their way before they are needed."""
        kept = [self._kept[index] for index in indices]
        missing = [index for index, item in zip(indices, kept, strict=True) if item is None]
        samples = _samples(self._samples, missing)
        for index, item in zip(indices, kept, strict=True):
            yield item or self._decoded(index, next(samples))

    def _decoded(self, index: int, sample: Sample) -> tuple[str, Example]:
        try:
            item = sample.sample_id, self._task.decode(sample)
        except BadInput as error:
            raise DataInvalid(
                f"sample {sample.sample_id} cannot be decoded: {error}",
                action="mend or remove the file and run again: the data has changed since it was split",
            ) from error
        if not self._full and self._kept[index] is None:
            size = size_of(item[1])
            if size <= self._left:
                self._left -= size
                self._kept[index] = item
                self._missing -= 1
            else:
                self._full = True
        return item


def _samples(samples: Sequence[Sample], indices: Sequence[int]) -> Iterator[Sample]:
    """SAMPLES at INDICES: read ahead by a shard, which knows where its data is."""
    if isinstance(samples, Shard):
        return samples.samples(indices)
    return (samples[index] for index in indices)


def training_batches(
    examples: Examples, task: Task, *, schedule: Schedule, rank: int, seed: int, epoch: int
) -> Iterator[Batch]:
    """The shuffled, augmented and padded batches of one epoch on one worker."""
    size = schedule.sizes[rank]
    order = padded(epoch_order(len(examples), seed, epoch, rank), schedule.batches * size)
    return _augmented(examples, task, order, size, seed, epoch)


def whole_batches(examples: Examples, task: Task, *, size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Every training example of one epoch once, augmented, in the shard's order."""
    return _augmented(examples, task, range(len(examples)), size, seed, epoch)


def _augmented(
    examples: Examples, task: Task, order: Sequence[int], size: int, seed: int, epoch: int
) -> Iterator[Batch]:
    varies = type(task).augment is not Task.augment

    def prepared(sample_id: str, example: Example) -> Example:
        return task.augment(example, random.Random(f"{seed}/{epoch}/{sample_id}")) if varies else example

    def batches() -> Iterator[Batch]:
        items = examples.many(order)
        for chunk in chunks(order, size):
            yield task.collate([prepared(*item) for item in islice(items, len(chunk))])

    return batches() if examples.complete else ahead(batches)


def evaluation_batches(examples: Examples, task: Task, size: int) -> Iterator[Batch]:
    """Every example once, in the shard's order."""

    def batches() -> Iterator[Batch]:
        items = examples.many(range(len(examples)))
        for chunk in chunks(range(len(examples)), size):
            yield task.collate([example for _, example in islice(items, len(chunk))])

    return batches() if examples.complete else ahead(batches)


def ahead(make: Callable[[], Iterable[T]], depth: int = AHEAD) -> Iterator[T]:
    """What MAKE gives, made in a thread that is up to DEPTH items ahead. Its exceptions are raised here."""
    items: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                items.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in make():
                if not put(item, None):
                    return
            put(None, StopIteration())
        except BaseException as error:  # raised where the items are taken
            put(None, error)

    thread = threading.Thread(target=work, name="batches-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
