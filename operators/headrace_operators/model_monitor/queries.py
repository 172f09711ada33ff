"""The questions to Prometheus, over what fronts export (`headrace.serving.measures`). Pure text."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.monitoring import names


@dataclass(frozen=True)
class Queries:
    """Each gives one number for a whole deployment, over all its replicas and versions."""

    requests: str
    errors: str
    p50: str
    p99: str


def queries(namespace: str, deployment: str, window_seconds: int) -> Queries:
    """The questions about one deployment, looking back for WINDOW_SECONDS.

    Series are those of the namespace, or of none: a Prometheus that scrapes one cluster's pods adds the label, one that
    is set up by hand may not.
    """
    series = f'deployment="{deployment}",namespace=~"{namespace}|"'  # names of objects need no quoting
    window = f"[{window_seconds}s]"

    def quantile(share: float) -> str:
        buckets = f"sum by (le) (rate({names.REQUEST_SECONDS}_bucket{{{series}}}{window}))"
        return f"histogram_quantile({share}, {buckets})"

    return Queries(
        requests=f"sum(increase({names.REQUESTS}{{{series}}}{window}))",
        errors=f'sum(increase({names.REQUESTS}{{{series},code=~"5.."}}{window}))',
        p50=quantile(0.5),
        p99=quantile(0.99),
    )
