"""What tests of dashboards and alerts share: the questions that are shipped, and a Prometheus with the rules that are.

The rules' own waits are left out, as a test has seconds where a night has hours; what they compare with is set by their
parameters, as the chart sets it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from headrace.monitoring import names, rules
from headrace.monitoring.generate import BOARDS
from headrace.monitoring.parameters import Parameters
from headrace.monitoring.rule import Record
from headrace_testbed.prometheus import Prometheus
from headrace_testbed.waiting import eventually

INTERVAL = "1s"
_GRAFANA = {"$__rate_interval": "2m", "$__range": "15m"}
NEEDS_A_GPU = (names.RAY_NODE_GPU, names.RAY_NODE_GPU_MEMORY_USED)
OF_PODS = (*names.FROM_FRONTS, *names.FROM_RAY)


def questions() -> dict[str, str]:
    """Every query of every dashboard, with everything chosen, by the panel that asks it."""
    asked = {}
    for board in BOARDS:
        for panel in board.panels:
            for number, query in enumerate(panel.queries):
                asked[f"{board.uid}: {panel.title} ({number})"] = with_everything_chosen(query.expression)
    return asked


def recordings() -> dict[str, str]:
    """Every recorded series and what it is made of."""
    every = [rule for in_file in rules.FILES.values() for group in in_file for rule in group.rules]
    return {rule.name: rule.expression for rule in every if isinstance(rule, Record)}


def asks_pods(expression: str) -> bool:
    """Whether it asks, also by way of a recorded series, for what pods of Ray serve; the rest is the operator's."""
    text = expression
    for name, made_of in recordings().items():
        if name in expression:
            text += made_of
    return "headrace_requests" in text or any(name in text for name in OF_PODS)


def with_everything_chosen(expression: str) -> str:
    """EXPRESSION as Grafana asks it when every variable is `All`."""
    for name, value in _GRAFANA.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\w+", ".*", expression)


def has_data(prometheus: Prometheus, expression: str) -> bool:
    """Whether the answer is a number: no series, and 0 divided by 0, are none."""
    return any(sample["value"][1] != "NaN" for sample in prometheus.query(expression))


class Watch(Prometheus):
    """A Prometheus with our rules as PARAMETERS fill them, which reads each of JOBS once a second."""

    def __init__(
        self,
        folder: Path,
        jobs: list[dict[str, Any]],
        parameters: Parameters,
        more_rules: list[Mapping[str, Any]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rules.yaml").write_text(rules.text(parameters, hold="0s", interval=INTERVAL))
        given = {"groups": [{"name": "test", "interval": INTERVAL, "rules": list(more_rules or ())}]}
        (folder / "test.yaml").write_text(yaml.safe_dump(given))
        files = [str(folder / name) for name in ("rules.yaml", "test.yaml")]
        times = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
        super().__init__({"global": times, "rule_files": files, "scrape_configs": jobs}, folder)

    def firing(self, name: str, /, **labels: str) -> list[dict[str, Any]]:
        """The alerts of this name and these labels that fire now."""
        return [
            alert
            for alert in self.ask("alerts")["alerts"]
            if alert["state"] == "firing"
            and alert["labels"]["alertname"] == name
            and labels.items() <= alert["labels"].items()
        ]

    def wait_until_it_fires(self, name: str, seconds: float = 120, /, **labels: str) -> dict[str, Any]:
        """That alert, once it fires; its texts must be whole."""
        alert = eventually(lambda: self.firing(name, **labels), seconds)[0]
        text = " ".join(alert["annotations"].values())
        assert "<no value>" not in text, text
        assert "error expanding" not in text, text
        assert not re.search(r"  | : | \.", text), f"a label is empty in: {text}"
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        print(f"{name}: {alert['annotations']['description']}")
        return alert

    def wait_until_it_is_over(self, name: str, seconds: float = 120, /, **labels: str) -> None:
        """Wait until it fires no more."""
        eventually(lambda: not self.firing(name, **labels), seconds)
