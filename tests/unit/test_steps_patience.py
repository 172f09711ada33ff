"""What a second try can mend is tried again for some minutes, and no longer."""

from __future__ import annotations

import pytest

from headrace.base.errors import RunFailed, Unavailable
from headrace.steps.patience import HOPELESS, PATIENCE_SECONDS, patiently


class Service:
    """Away until so many seconds have passed."""

    def __init__(self, away_seconds: float, error: Exception | None = None) -> None:
        self.time = 0.0
        self.tries = 0
        self.told: list[str] = []
        self._away_seconds = away_seconds
        self._error = error or Unavailable("MLflow cannot be reached")

    def ask(self) -> str:
        self.tries += 1
        if self.time < self._away_seconds:
            raise self._error
        return "here"

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def wait_for(self) -> str:
        return patiently(self.ask, self.told.append, now=lambda: self.time, sleep=self.sleep)


def test_a_service_that_comes_back_in_time_is_waited_for() -> None:
    service = Service(60)
    assert service.wait_for() == "here"
    assert service.told[0] == "MLflow cannot be reached; trying again in 2 s"
    assert service.tries == 6


def test_one_that_stays_away_is_given_up() -> None:
    service = Service(10 * PATIENCE_SECONDS)
    with pytest.raises(Unavailable, match="MLflow"):
        service.wait_for()
    assert PATIENCE_SECONDS / 2 < service.time <= PATIENCE_SECONDS


def waited_for() -> Unavailable:
    error = Unavailable("no API server")
    error.waited_for = True
    return error


def test_an_outage_long_after_another_is_given_as_much_patience() -> None:
    service = Service(60)
    outages = [60.0, 60.0]

    def ask() -> str:
        service.ask()
        if not outages:
            return "here"
        service.time += 10 * PATIENCE_SECONDS  # it works for long, and then the service is away again
        service._away_seconds = service.time + outages.pop()
        return service.ask()

    assert patiently(ask, service.told.append, now=lambda: service.time, sleep=service.sleep) == "here"


def test_what_fails_after_all_its_work_each_time_is_given_up() -> None:
    """No outage: the services are there whenever the work begins anew."""
    service = Service(20 * PATIENCE_SECONDS)

    def work() -> str:
        service.time += 2 * PATIENCE_SECONDS
        return service.ask()

    with pytest.raises(Unavailable, match="MLflow"):
        patiently(work, service.told.append, now=lambda: service.time, sleep=service.sleep)
    assert service.tries == 3


@pytest.mark.parametrize(
    "error", [RunFailed("it is wrong"), waited_for(), *(Unavailable("no", code=code) for code in HOPELESS)]
)
def test_what_waiting_cannot_mend_or_was_waited_for_is_raised_at_once(error: Exception) -> None:
    service = Service(60, error)
    with pytest.raises(type(error)):
        service.wait_for()
    assert service.tries == 1
