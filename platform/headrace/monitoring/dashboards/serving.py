"""Are endpoints keeping their promises, since which version not, and is there room in the replicas?"""

from __future__ import annotations

from headrace.monitoring import names
from headrace.monitoring.dashboards.parts import (
    GREEN,
    ORANGE,
    RED,
    Board,
    Panel,
    Query,
    Row,
    Steps,
    Variable,
    number,
)
from headrace.monitoring.dashboards.serving_room import FRONT, OPERATOR, ROOM, quantile, rate
from headrace.monitoring.slo import AVAILABILITY, BURNS, LATENCY, REQUESTS_RATE, Objective

ALERTS = "Headrace(Availability|Latency|Deployment|Monitor).*"
_OF = "{{namespace}} {{deployment}}"
_LOADS = f"{names.VERSION_LOADS}{{{FRONT}}}"
_BUDGET = Steps(RED, ((0.0, ORANGE), (0.25, GREEN)))


def _burn(objective: Objective) -> Panel:
    budget = f"(1 - {objective.objective}{{{FRONT}}})"
    fast = BURNS[0]
    return Panel(
        f"How fast the {objective.name} budget burns",
        f"1 spends the budget of 30 days in 30 days. Above {fast.factor:g} over {fast.long} and {fast.short} somebody "
        f"is woken, above {BURNS[1].factor:g} over {BURNS[1].long} and {BURNS[1].short} too.",
        tuple(
            Query(f"{objective.ratio(window)}{{{FRONT}}} / {budget}", f"{_OF} {window}")
            for window in ("1h", "6h", "3d")
        ),
        steps=Steps(GREEN, ((1, ORANGE), (fast.factor, RED))),
        alert=f"Headrace{objective.name.capitalize()}BudgetBurns",
    )


PROMISES = Row(
    "Are promises kept?",
    (
        number(
            "Available",
            "Share of requests of the last 5 minutes that were not answered 5xx.",
            f"1 - sum({AVAILABILITY.bad_rate}{{{FRONT}}}) / (sum({REQUESTS_RATE}{{{FRONT}}}) > 0)",
            "percentunit",
            steps=Steps(RED, ((0.99, ORANGE), (0.999, GREEN))),
            empty="nobody asks",
            alert="HeadraceAvailabilityBudgetBurns",
        ),
        number(
            "Availability budget left",
            "Of 30 days. Below 0 the promise is broken: no more risks until it has grown again.",
            AVAILABILITY.budget_left(FRONT),
            "percentunit",
            steps=_BUDGET,
            alert="HeadraceAvailabilityBudgetBurns",
        ),
        number(
            "Latency budget left",
            "Of 30 days: requests that took longer than was promised spend it.",
            LATENCY.budget_left(FRONT),
            "percentunit",
            steps=_BUDGET,
            alert="HeadraceLatencyBudgetBurns",
        ),
        number(
            "99 % take less than",
            "From the body being whole to the answer being ready, in a front.",
            quantile(0.99, names.REQUEST_SECONDS),
            "s",
            empty="nobody asks",
            alert="HeadraceLatencyBudgetBurns",
        ),
        number(
            "Requests a second",
            "All endpoints chosen.",
            f"sum(rate({names.REQUESTS}{{{FRONT}}}[$__rate_interval]))",
            "reqps",
        ),
        number(
            "Replicas that answer",
            "Share of those that are wanted, as the operator sees it by asking each.",
            f"sum({names.DEPLOYMENT_ANSWERING}{{{OPERATOR}}}) / (sum({names.DEPLOYMENT_REPLICAS}{{{OPERATOR}}}) > 0)",
            "percentunit",
            steps=Steps(RED, ((0.5, ORANGE), (1, GREEN))),
            alert="HeadraceDeploymentDown",
        ),
    ),
)
REQUESTS = Row(
    "What do clients see?",
    (
        Panel(
            "Requests by answer",
            "4xx are the clients' mistakes; 503 is a front with too much to do, which says when to try again; 500 is "
            "ours.",
            (Query(rate(names.REQUESTS, "code"), "{{code}}"),),
            "reqps",
            "stacked",
            alert="HeadraceAvailabilityBudgetBurns",
        ),
        Panel(
            "Latency",
            "In a front. The way through the ingress adds about a millisecond.",
            tuple(
                Query(quantile(share, names.REQUEST_SECONDS), f"{share:.0%} less than") for share in (0.5, 0.9, 0.99)
            ),
            "s",
            alert="HeadraceLatencyBudgetBurns",
        ),
        _burn(AVAILABILITY),
        _burn(LATENCY),
    ),
)
VERSIONS = Row(
    "Since which version?",
    (
        Panel(
            "Requests by version",
            "Which version gives the answers. A change here and one above at the same time: see the runbook.",
            (Query(rate(names.REQUESTS, "deployment, version"), "{{deployment}} version {{version}}"),),
            "reqps",
            "stacked",
            alert="HeadraceDeploymentFailed",
        ),
        Panel(
            "Latency by version (99 % less than)",
            "A version that is slower than the one before shows it here.",
            (
                Query(
                    quantile(0.99, names.REQUEST_SECONDS, ", deployment, version"),
                    "{{deployment}} version {{version}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Deployments by state",
            "As the operator judges them: available, progressing, degraded, failed, refused, pending.",
            (Query(f"max by (namespace, name, state) ({names.DEPLOYMENT_STATE}{{{OPERATOR}}})"),),
            look="table",
            alert="HeadraceDeploymentStuck",
        ),
        Panel(
            "Versions that were loaded, or not",
            "In an hour, by the pods that are there. One that failed leaves the version before in place.",
            (
                # Not increase(): a series begins at 1, with the first load that it counts.
                Query(
                    f"sum by (deployment, version, result) ({_LOADS} - ({_LOADS} offset 1h or 0 * {_LOADS}))",
                    "{{deployment}} version {{version}} {{result}}",
                ),
            ),
            alert="HeadraceDeploymentFailed",
        ),
    ),
)
BOARD = Board(
    "headrace-serving",
    "Headrace / Serving",
    "ModelDeployments: whether endpoints keep their promises, since which version not, and whether there is room.",
    (
        Variable("namespace", names.DEPLOYMENT_STATE, "namespace", "Namespace"),
        Variable("deployment", f'{names.DEPLOYMENT_STATE}{{namespace=~"$namespace"}}', "name", "Deployment"),
    ),
    (PROMISES, REQUESTS, VERSIONS, ROOM),
    ALERTS,
)
