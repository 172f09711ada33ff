"""The runbooks: one page for each alert, written by hand, and their index, which is made of the alerts."""

from __future__ import annotations

from pathlib import Path

from headrace.monitoring import rules

FOLDER = Path("docs/runbooks")
INDEX = FOLDER / "README.md"
SECTIONS = ("## What it means", "## How to look", "## What to do")


def pages() -> list[str]:
    """Names of the pages: one for each name of an alert, in the rules' order."""
    return list(dict.fromkeys(alert.name for alert in rules.alerts()))


def index() -> str:
    """The page that lists them."""
    told = [
        "<!-- Made by `make generate` from platform/headrace/monitoring. Do not edit. -->",
        "",
        "# Runbooks",
        "",
        "One page for each alert: what it means, how to look, what to do. `critical` wakes somebody, `warning` waits",
        "for the morning, `info` is there to be read. How all this hangs together: [monitoring](../monitoring.md).",
        "",
        "| alert | severity | what is so | for |",
        "|---|---|---|---|",
    ]
    for alert in rules.alerts():
        window = f" ({alert.labels['window']})" if "window" in alert.labels else ""
        told.append(f"| [{alert.name}]({alert.name}.md){window} | {alert.severity} | {alert.summary} | {alert.hold} |")
    return "\n".join(told) + "\n"
