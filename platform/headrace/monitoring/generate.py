"""Writes what is generated for monitoring: the chart's dashboards and rules, the runbooks' index; `--check` compares.

Run in a checkout by `make generate` and `make check`, as `python -m headrace.monitoring.generate`. It needs
grafana-foundation-sdk, which is a tool of ours and comes with no extra.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.base.generated import write_or_check
from headrace.monitoring import rules, runbooks
from headrace.monitoring.dashboards import draw, operators, serving, training
from headrace.monitoring.dashboards.parts import Board

ROOT = Path(__file__).resolve().parents[3]
DASHBOARDS = Path("charts/headrace/files/dashboards")
BOARDS: tuple[Board, ...] = (operators.BOARD, training.BOARD, serving.BOARD)


def files() -> dict[str, str]:
    """All files by path."""
    drawn = {str(DASHBOARDS / f"{board.uid}.json"): draw.text(board) for board in BOARDS}
    return drawn | rules.files() | {str(runbooks.INDEX): runbooks.index()}


def main(arguments: list[str]) -> int:
    """Write them, or with --check compare them; 1 where one has drifted."""
    return write_or_check(ROOT, files(), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
