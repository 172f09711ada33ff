"""Dynamic batching: requests that wait at the same moment are computed together.

No timer by default. While a batch is being computed, whatever arrives makes up the next one, so an idle server answers
at once and a loaded one fills its batches by itself. Short batches are computed right on the event loop's thread, long
ones in one thread beside it (`FrontSettings.inline_below_ms`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from headrace.serving.settings import FrontSettings
from headrace_models.tasks.base import Arrays

Predict = Callable[[Arrays], Arrays]
Observe = Callable[[int, float], None]  # rows and seconds of a batch that was computed
Group = tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass
class _Waiting:
    inputs: Arrays
    rows: int
    group: Group
    answer: asyncio.Future[Arrays]
    since: float


def group_of(inputs: Arrays) -> Group:
    """What two requests must share to be put into one batch: names, dtypes and all sizes but the rows."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))


def predict_together(predict: Predict, requests: Sequence[tuple[Arrays, int]]) -> list[Arrays | Exception]:
    """Compute all REQUESTS (inputs and rows) at once; where that fails, each alone, so that each gets its own error."""
    if len(requests) == 1:
        try:
            return [predict(requests[0][0])]
        except Exception as error:
            return [error]
    try:
        together = {name: np.concatenate([inputs[name] for inputs, _ in requests]) for name in requests[0][0]}
        outputs = predict(together)
        rows = [rows for _, rows in requests]
        if any(array.shape[:1] != (sum(rows),) for array in outputs.values()):
            raise ValueError("an output does not have the batch along axis 0")
        ends = np.cumsum(rows).tolist()
        return [
            {name: array[end - count : end] for name, array in outputs.items()}
            for end, count in zip(ends, rows, strict=True)
        ]
    except Exception:
        return [predict_together(predict, [request])[0] for request in requests]


class Batcher:
    """Batches for one model. Used from one event loop only."""

    def __init__(
        self,
        predict: Predict,
        settings: FrontSettings,
        executor: Executor,
        observe: Observe,
        *,
        expected_seconds: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._predict = predict
        self._settings = settings
        self._executor = executor
        self._observe = observe
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._computing = False
        self._timer: asyncio.TimerHandle | None = None
        self._starting = False
        # A moving mean of what a batch takes, to foresee the next one.
        self._seconds = expected_seconds
        self._rows = 1.0

    async def submit(self, inputs: Arrays, rows: int) -> Arrays:
        """The model's outputs for INPUTS, computed together with whatever else waits. Raises what the model raises."""
        loop = asyncio.get_running_loop()
        item = _Waiting(inputs, rows, group_of(inputs), loop.create_future(), self._clock())
        self._waiting.append(item)
        self._plan(loop)
        return await item.answer

    def expected_seconds(self, rows: int) -> float:
        """How long a batch of ROWS is expected to take."""
        return self._seconds * max(1.0, rows / self._rows)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._computing or not self._waiting or self._starting:
            return
        wait = self._longest_wait()
        if self._timer is not None:
            if wait > 0:
                return
            self._timer.cancel()
            self._timer = None
        if wait > 0:
            self._timer = loop.call_later(wait, self._start, loop)
        else:
            self._starting = True
            loop.call_soon(self._start, loop)  # not at once: what this turn of the loop still brings may join

    def _longest_wait(self) -> float:
        """Seconds that the oldest request may still wait for company."""
        delay = self._settings.max_delay_ms / 1000
        if delay <= 0 or sum(item.rows for item in self._waiting) >= self._settings.max_batch_rows:
            return 0.0
        return delay - (self._clock() - self._waiting[0].since)

    def _take(self) -> list[_Waiting]:
        """The oldest request and those behind it that fit into one batch with it."""
        batch: list[_Waiting] = []
        rows = 0
        others: deque[_Waiting] = deque()
        while self._waiting:
            item = self._waiting.popleft()
            if item.answer.done():  # its client went away
                continue
            if batch and (item.group != batch[0].group or rows + item.rows > self._settings.max_batch_rows):
                others.append(item)
                continue
            batch.append(item)
            rows += item.rows
        self._waiting = others
        return batch

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._starting = False
        batch = self._take()
        if not batch:
            return
        requests = [(item.inputs, item.rows) for item in batch]
        rows = sum(item.rows for item in batch)
        started = self._clock()
        if self.expected_seconds(rows) * 1000 < self._settings.inline_below_ms:
            self._finish(loop, batch, predict_together(self._predict, requests), started)
            return
        self._computing = True
        future = loop.run_in_executor(self._executor, predict_together, self._predict, requests)
        future.add_done_callback(lambda done: self._from_thread(loop, batch, done, started))

    def _from_thread(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        done: asyncio.Future[list[Arrays | Exception]],
        started: float,
    ) -> None:
        self._computing = False
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        answers = done.result() if error is None else [RuntimeError(f"the batch was lost: {error!r}")] * len(batch)
        self._finish(loop, batch, answers, started)

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        answers: Sequence[Arrays | Exception],
        started: float,
    ) -> None:
        seconds = self._clock() - started
        rows = sum(item.rows for item in batch)
        self._seconds += 0.2 * (seconds - self._seconds)
        self._rows += 0.2 * (rows - self._rows)
        for item, answer in zip(batch, answers, strict=True):
            if item.answer.done():
                continue
            if isinstance(answer, Exception):
                item.answer.set_exception(answer)
            else:
                item.answer.set_result(answer)
        self._observe(rows, seconds)
        self._plan(loop)
