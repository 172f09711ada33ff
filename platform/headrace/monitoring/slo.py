"""The two promises of an endpoint, availability and latency, and the alerts on how fast their error budgets burn.

Multi-window, multi-burn-rate, as in the SRE Workbook, chapter 5: a long window says that it matters, a short one that
it still goes on. Spending 2 % of a 30-day budget in an hour, or 5 % in six, wakes somebody; 10 % in a day, or in three,
waits for the morning.

What a front answered is what counts; where no front answers at all there is nothing to count, and
`HeadraceDeploymentDown` speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.monitoring import names
from headrace.monitoring.parameters import WATCHED, placeholder
from headrace.monitoring.rule import Alert, Group, Record, Severity

LEVEL = "namespace_deployment"  # what recorded series are summed by, in Prometheus' way of naming them
BY = "sum by (namespace, deployment)"
REQUESTS_RATE = f"{LEVEL}:headrace_requests:rate5m"
_WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True)
class Objective:
    """One promise.

    Args:
        name: in names of series and of alerts.
        parameter: of its objective.
        bad: requests that broke it, a second, over a window.
        of: requests that could have, a second, over a window.
        words: what a burning budget means, for `N % of requests ...`.
    """

    name: str
    parameter: str
    bad: str
    of: str
    words: str

    @property
    def objective(self) -> str:
        """Name of the recorded objective: of each endpoint, as another release may promise another."""
        return f"{LEVEL}:headrace_{self.name}:objective"

    def ratio(self, window: str) -> str:
        """Name of the recorded share of bad requests."""
        return f"{LEVEL}:headrace_{self.name}_errors:ratio_rate{window}"

    @property
    def bad_rate(self) -> str:
        """Name of the recorded bad requests a second."""
        return f"{LEVEL}:headrace_{self.name}_errors:rate5m"

    def budget_left(self, selector: str) -> str:
        """What is left of 30 days' budget of the endpoints that SELECTOR takes, 1 for all of it."""
        allowed = f"(1 - avg_over_time({self.objective}{{{selector}}}[30d]))"
        bad, whole = (f"sum_over_time({series}{{{selector}}}[30d])" for series in (self.bad_rate, REQUESTS_RATE))
        return f"1 - sum({bad}) / sum({whole} * {allowed})"


_ALL = f"{BY} (rate({names.REQUESTS}{{{WATCHED}}}[WINDOW]))"
_MEASURED = f"{BY} (rate({names.REQUEST_SECONDS}_count{{{WATCHED}}}[WINDOW]))"
_THRESHOLD = placeholder("latencyThresholdSeconds")
AVAILABILITY = Objective(
    "availability",
    "availabilityObjective",
    f'({BY} (rate({names.REQUESTS}{{{WATCHED},code=~"5.."}}[WINDOW])) or 0 * {_ALL})',
    _ALL,
    "were answered 5xx",
)
LATENCY = Objective(
    "latency",
    "latencyObjective",
    # The bound may be written as 1 or as 1.0.
    f'({_MEASURED} - {BY} (rate({names.REQUEST_SECONDS}_bucket{{{WATCHED},le=~"{_THRESHOLD}(\\\\.0)?"}}[WINDOW])))',
    _MEASURED,
    f"took longer than {_THRESHOLD} s",
)
OBJECTIVES = (AVAILABILITY, LATENCY)


@dataclass(frozen=True)
class Burn:
    """A rate at which a budget burns that somebody should know of: FACTOR times as fast as it may."""

    factor: float
    long: str
    short: str
    severity: Severity
    hold: str


BURNS = (
    Burn(14.4, "1h", "5m", "critical", "2m"),
    Burn(6, "6h", "30m", "critical", "15m"),
    Burn(3, "1d", "2h", "warning", "1h"),
    Burn(1, "3d", "6h", "warning", "3h"),
)


def groups() -> tuple[Group, ...]:
    """What is recorded, and what alerts."""
    return (
        Group("headrace-serving-objectives", frozenset(("ray",)), tuple(_records())),
        Group("headrace-serving-burn-rates", frozenset(("ray",)), tuple(_alerts())),
    )


def _records() -> Iterator[Record]:
    yield Record(REQUESTS_RATE, _ALL.replace("WINDOW", "5m"))
    for objective in OBJECTIVES:
        yield Record(objective.objective, f"{placeholder(objective.parameter)} + 0 * {REQUESTS_RATE}{{{WATCHED}}}")
        for window in _WINDOWS:
            ratio = f"{objective.bad}\n/\n({objective.of} > 0)"
            yield Record(objective.ratio(window), ratio.replace("WINDOW", window))
        yield Record(objective.bad_rate, f"{objective.ratio('5m')}{{{WATCHED}}} * {REQUESTS_RATE}")


def _alerts() -> Iterator[Alert]:
    for objective in OBJECTIVES:
        for burn in BURNS:
            yield _alert(objective, burn)


def _alert(objective: Objective, burn: Burn) -> Alert:
    budget = f"(1 - {placeholder(objective.parameter)})"
    return Alert(
        f"Headrace{objective.name.capitalize()}BudgetBurns",
        burn.severity,
        f"""
        {objective.ratio(burn.long)}{{{WATCHED}}} > {burn.factor:g} * {budget}
        and
        {objective.ratio(burn.short)}{{{WATCHED}}} > {burn.factor:g} * {budget}
        and
        {BY} (increase({names.REQUESTS}{{{WATCHED}}}[{burn.long}])) >= {placeholder("minRequests")}
        """,
        burn.hold,
        f"An endpoint's {objective.name} budget of 30 days will be spent in {30 / burn.factor:.0f} days",
        f"""
        {{{{ $value | humanizePercentage }}}} of the requests to deployment {{{{ $labels.deployment }}}} in namespace
        {{{{ $labels.namespace }}}} {objective.words} in the last {burn.long}, and it goes on. Promised is that
        {placeholder(objective.parameter)} of them do not.
        Look: kubectl -n {{{{ $labels.namespace }}}} describe modeldeployment {{{{ $labels.deployment }}}}
        """,
        {"objective": objective.name, "window": burn.long},
    )
