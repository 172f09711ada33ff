"""Reads ahead what is far away: the next files are on their way while one is worked on.

A read from an object store waits some 10 to 50 ms and computes nothing, so one at a time is 20 to 100 pictures a
second, whatever the network could do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 16
MOST_WAITING = 64  # results that are held until they are asked for

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """READ of each of ITEMS, in their order, up to MOST_WAITING ahead of what is taken. Its exceptions are raised here,
    each in its turn."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="headrace-ahead")
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) >= MOST_WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
