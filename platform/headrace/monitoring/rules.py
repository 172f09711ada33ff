"""All rules: the files that the chart ships, and the same with every placeholder filled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from headrace.monitoring import alerts_operators, alerts_serving, alerts_training, slo
from headrace.monitoring.parameters import Parameters, filled
from headrace.monitoring.rule import Alert, Group, Source

DEFAULTS = Parameters()
EVERYTHING: frozenset[Source] = frozenset(("operator", "ray", "backup"))
FOLDER = Path("charts/headrace/files/rules")
MADE = "# Made by `make generate` from platform/headrace/monitoring. Do not edit. The chart fills in what is in $( ).\n"
FILES = {
    "operators": alerts_operators.groups(),
    "training": alerts_training.groups(),
    "serving": (*slo.groups(), *alerts_serving.groups()),
}


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def alerts() -> list[Alert]:
    """All alerts, in the files' order; those of several burn rates share a name."""
    return [rule for group in groups() for rule in group.rules if isinstance(rule, Alert)]


def groups(there: Iterable[Source] = EVERYTHING) -> list[Group]:
    """Those that an installation gets where this is THERE, in the files' order."""
    return [group for in_file in FILES.values() for group in in_file if group.needs <= set(there)]


def files() -> dict[str, str]:
    """The files of the chart by path."""
    return {str(FOLDER / f"{name}.yaml"): MADE + _dumped(_record(of)) for name, of in FILES.items()}


def text(
    parameters: Parameters = DEFAULTS, there: Iterable[Source] = EVERYTHING, *, hold: str = "", interval: str = ""
) -> str:
    """One file that a Prometheus reads, of all rules.

    Args:
        parameters: what the placeholders stand for.
        there: what this Prometheus knows of.
        hold, interval: in place of each alert's `for` and each group's interval, for tests that cannot wait.
    """
    record = filled(_record(groups(there)), parameters)
    for group in record["groups"]:
        group["interval"] = interval or group["interval"]
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = hold or rule["for"]
    return _dumped(record)


def _record(of: Iterable[Group]) -> dict[str, Any]:
    return {"groups": [group.to_record() for group in of]}


def _dumped(record: dict[str, Any]) -> str:
    return yaml.dump(record, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
