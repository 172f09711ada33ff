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

from headrace.serving.packages import ServedModel
from headrace.serving.settings import FrontSettings
from headrace_models.tasks.base import Arrays

Observe = Callable[[int, float], None]  # rows and seconds of a batch that was computed


@dataclass
class _Waiting:
    inputs: Arrays
    rows: int
    answer: asyncio.Future[Arrays]
    since: float


def answer_together(model: ServedModel, requests: Sequence[Arrays]) -> list[Arrays | Exception]:
    """Decode each of REQUESTS and compute all that can be decoded at once; each gets its own answer or error."""
    results: list[Arrays | Exception] = []
    batches = []
    for inputs in requests:
        try:
            batches.append(model.preprocess(inputs))
            results.append({})
        except Exception as error:  # told to the one who asked
            results.append(error)
    places = [place for place, result in enumerate(results) if not isinstance(result, Exception)]
    try:
        answers: Sequence[Arrays | Exception] = model.answer(batches) if batches else []
    except Exception as error:
        # One of them may have spoilt it for all: each alone then.
        alone = len(batches) == 1
        answers = [error] if alone else [answer_together(model, [requests[place]])[0] for place in places]
    for place, answer in zip(places, answers, strict=True):
        results[place] = answer
    return results


class Batcher:
    """Batches for one model. Used from one event loop only."""

    def __init__(
        self,
        model: ServedModel,
        settings: FrontSettings,
        executor: Executor,
        observe: Observe,
        *,
        expected_seconds: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
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
        item = _Waiting(inputs, rows, loop.create_future(), self._clock())
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
        """The oldest requests that fit into one batch; a larger one goes alone."""
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            item = self._waiting[0]
            if item.answer.done():  # its client went away
                self._waiting.popleft()
                continue
            if batch and rows + item.rows > self._settings.max_batch_rows:
                break
            batch.append(self._waiting.popleft())
            rows += item.rows
        return batch

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._starting = False
        batch = self._take()
        if not batch:
            return
        requests = [item.inputs for item in batch]
        rows = sum(item.rows for item in batch)
        started = self._clock()
        if self.expected_seconds(rows) * 1000 < self._settings.inline_below_ms:
            self._finish(loop, batch, answer_together(self._model, requests), started)
            return
        self._computing = True
        future = loop.run_in_executor(self._executor, answer_together, self._model, requests)
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
