"""The table of metrics and what is served are the same."""

from __future__ import annotations

from headrace_operators import metrics_reference
from headrace_operators.runtime import metrics


def test_every_metric_that_is_served_is_documented_and_the_other_way_round() -> None:
    served = {line.split()[2] for line in metrics.exposition().decode().splitlines() if line.startswith("# TYPE ")}
    assert served == set(metrics.TABLE)


def test_the_page_has_a_line_for_each_and_is_up_to_date() -> None:
    page = metrics_reference.page()
    for name in metrics.TABLE:
        assert page.count(f"| `{name}` |") == 1
    assert metrics_reference.PAGE.read_text(encoding="utf-8") == page


def test_every_metric_of_ours_has_our_prefix_or_a_known_one() -> None:
    known = tuple(prefix for _, prefixes in metrics_reference.SECTIONS for prefix in prefixes)
    assert [name for name in metrics.TABLE if not name.startswith(known)] == []
