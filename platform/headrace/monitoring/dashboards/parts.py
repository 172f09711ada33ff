"""What a dashboard is, as plain values: what each panel asks, in which unit, and from where on it is bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Look = Literal["lines", "stacked", "number", "table"]
GREEN, ORANGE, RED = "green", "orange", "red"
ALL = ".*"  # also the value of `All` in variables: it takes series without the label as well


@dataclass(frozen=True)
class Query:
    """One question. LEGEND names a series by its labels."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Steps:
    """Colours by value: BASE at first, and each other from its value on."""

    base: str
    more: tuple[tuple[float, str], ...] = ()


NEUTRAL = Steps("blue")


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: what it shows.
        description: what it means and what is normal; people read it in the middle of the night.
        queries: what it asks.
        unit: Grafana's name of the unit.
        look: how it is drawn.
        steps: colours; lines get a dashed line at each.
        width: of 24.
        words: values, and text in their place.
        empty: text where there is no value.
        alert: whose runbook it links to.
        value: a table's name for the column of values; without one there is none.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    look: Look = "lines"
    steps: Steps = NEUTRAL
    width: int = 12
    words: tuple[tuple[str, str], ...] = ()
    empty: str = "no data"
    alert: str = ""
    value: str = ""

    @property
    def height(self) -> int:
        """In Grafana's units."""
        return 4 if self.look == "number" else 8


@dataclass(frozen=True)
class Row:
    """Panels that answer one question, which is its title."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """What can be chosen above a dashboard: the values of LABEL in the series of METRIC."""

    name: str
    metric: str
    label: str
    words: str


@dataclass(frozen=True)
class Board:
    """One dashboard.

    Args:
        uid: in its address; it never changes.
        title: of it.
        description: what it is for.
        variables: what can be chosen.
        rows: its panels.
        alerts: a pattern of the alerts that are drawn over its panels.
    """

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    alerts: str

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels."""
        return tuple(panel for row in self.rows for panel in row.panels)


def number(
    title: str,
    description: str,
    expression: str,
    unit: str = "short",
    *,
    steps: Steps = NEUTRAL,
    words: tuple[tuple[str, str], ...] = (),
    empty: str = "no data",
    alert: str = "",
) -> Panel:
    """A panel of one number, six of which stand side by side."""
    return Panel(title, description, (Query(expression),), unit, "number", steps, 4, words, empty, alert)
