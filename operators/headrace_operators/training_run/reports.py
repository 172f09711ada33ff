"""What MLflow says of runs that are under way, asked beside the reconcile: a slow MLflow delays no plan.

A running object is asked about at most once in an interval; sooner only at the end of an attempt, whose last report
names the checkpoint that the next one goes on from.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from headrace_operators.background import SOON_SECONDS, Background
from headrace_operators.mlflow import MLflow, RunReport, Unreachable
from headrace_operators.training_run.endings import is_fresh, report_awaited
from headrace_operators.training_run.observe import Observed, Reading
from headrace_operators.training_run.rayjob import run_id_of

_AWAITED_SECONDS = 2.0  # between two looks for a report that is waited for


class _Look(NamedTuple):
    began: datetime
    report: RunReport | None
    error: str


class Reports:
    """The newest readings of all runs under way.

    Args:
        mlflow: reads it.
        interval_seconds: between two looks at one run.
        clock: seconds that only go forward.
    """

    def __init__(self, mlflow: MLflow, interval_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._mlflow = mlflow
        self._interval = interval_seconds
        self._looks: Background[str, _Look] = Background(clock)

    def reading(self, uid: str) -> Reading | None:
        """The newest reading of the run of this UID: one made anew under a name inherits nothing."""
        look = self._looks.newest(uid)
        if look is None:
            return None
        # When it began: what was written before that is in it.
        return Reading(look.value.began, look.value.report, look.value.error)

    def keep_fresh(self, uid: str, seen: Observed) -> float | None:
        """Look again if it is time; in how many seconds a plan should look here, None if nothing is to come."""
        if not _under_way(seen):
            return None
        ended = report_awaited(seen)
        if ended is not None and is_fresh(seen, ended):
            return None if seen.status.ray_job_name is None else self._interval
        every = self._interval if ended is None else _AWAITED_SECONDS
        left = self._looks.keep_fresh(uid, lambda: self._look(seen), every)
        if left > SOON_SECONDS or ended is not None or seen.reading is None:
            return left
        return self._interval  # under way, and nobody waits for it

    async def close(self) -> None:
        """End what is under way, and give the connections back."""
        await self._looks.close()
        await self._mlflow.close()

    async def settle(self) -> None:
        """Wait until nothing is under way: for tests."""
        await self._looks.settle()

    async def _look(self, seen: Observed) -> _Look:
        began = datetime.now(UTC)
        known = seen.status.mlflow.run_id if seen.status.mlflow is not None else None
        try:
            report = await self._mlflow.find_run(
                seen.spec.mlflow.tracking_uri, run_id_of(seen.run, seen.spec), mlflow_run_id=known
            )
        except Unreachable as error:
            return _Look(began, None, error.message)
        return _Look(began, report, "")


def _under_way(seen: Observed) -> bool:
    """Whether a driver runs, or ran and was not heard out."""
    status, job = seen.status, seen.job
    if status.completion_time is not None or status.attempt == 0:
        return False
    return status.ray_job_name is None or (job is not None and job.deployment in ("Running", "Complete", "Failed"))
