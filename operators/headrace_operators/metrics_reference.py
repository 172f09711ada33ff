"""Writes docs/operators/metrics.md from the metrics that the code declares; `--check` says whether it has drifted.

Run in a checkout by `make generate` and `make check`, as `python -m headrace_operators.metrics_reference`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from headrace.base.generated import write_or_check
from headrace_operators import errands, mlflow_up, model_deployment, model_monitor, training_run
from headrace_operators.runtime import metrics

DECLARING = (errands, mlflow_up, model_deployment, model_monitor, training_run)  # importing them declares theirs
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operators" / "metrics.md"
MADE = "<!-- Made by `make generate` from the code. Do not edit. -->"
SECTIONS = (
    ("What only Headrace knows", ("headrace_",)),
    ("The controller runtime", ("controller_runtime_", "workqueue_", "rest_client_", "leader_election_")),
    ("The process", ("process_",)),
)


def page() -> str:
    """The whole page."""
    told = [
        MADE,
        "",
        "# Metrics of the operator",
        "",
        "Served at `/metrics` on `--metrics-address`. The runtime's names and labels are controller-runtime's and",
        "client-go's, so dashboards and rules made for those work. A histogram `x` is served as `x_bucket{le}`,",
        "`x_sum` and `x_count`. Replicas that wait for the lease serve them too: sum over replicas, or select the one",
        "whose `leader_election_master_status` is 1.",
        "",
    ]
    for title, prefixes in SECTIONS:
        told += [f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|", *_rows(prefixes), ""]
    return "\n".join(told).rstrip() + "\n"


def _rows(prefixes: tuple[str, ...]) -> Iterator[str]:
    for _, metric in sorted(metrics.TABLE.items()):  # not in the order of imports, which tests do in any
        if metric.name.startswith(prefixes):
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"| `{metric.name}` | {metric.type} | {labels} | {metric.meaning} |"


def main(arguments: list[str]) -> int:
    """Write the page, or with --check compare it; 1 where it has drifted."""
    return write_or_check(ROOT, {PAGE.relative_to(ROOT): page()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
