"""From plain values to Grafana's JSON, by Grafana's own types: the one user of grafana-foundation-sdk."""

from __future__ import annotations

import json
from collections.abc import Iterator

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from headrace.monitoring import names
from headrace.monitoring.dashboards.parts import ALL, Board, Panel, Steps, Variable

_SOURCE = DataSourceRef("prometheus", "${datasource}")
_RUNBOOKS = "$(runbooks)"  # the chart puts its value there
_TAG = "headrace"

type_of_panel = timeseries.Panel | stat.Panel | table.Panel


def text(board: Board) -> str:
    """BOARD as JSON."""
    return json.dumps(draw(board).build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def draw(board: Board) -> dashboard.Dashboard:
    """BOARD as Grafana's SDK has it."""
    drawn = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([_TAG])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(_others())
        .annotation(_firing(board))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in board.variables:
        drawn.with_variable(_variable(variable))
    for number, panel in _numbered(board):
        drawn.with_row(panel.id(number)) if isinstance(panel, dashboard.Row) else drawn.with_panel(panel.id(number))
    return drawn


def _numbered(board: Board) -> Iterator[tuple[int, dashboard.Row | type_of_panel]]:
    """Rows and panels in their order, with their ids."""
    number = 0
    for row in board.rows:
        number += 1
        yield number, dashboard.Row(row.title)
        for panel in row.panels:
            number += 1
            yield number, _panel(panel)


def _panel(panel: Panel) -> type_of_panel:
    drawn: type_of_panel
    if panel.look == "number":
        drawn = stat.Panel().graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE)
        drawn.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    elif panel.look == "table":
        hidden = {"Time": True} | ({} if panel.value else {"Value": True})
        options = {"excludeByName": hidden, "renameByName": {"Value": panel.value}}
        drawn = table.Panel().transformations([DataTransformerConfig("organize", options=options)])
    else:
        drawn = _lines(panel)
    drawn.title(panel.title).description(panel.description).unit(panel.unit).datasource(_SOURCE)
    drawn.no_value(panel.empty).thresholds(_thresholds(panel.steps)).height(panel.height).span(panel.width)
    if panel.words:
        results = {value: ValueMappingResult(text=words) for value, words in panel.words}
        drawn.mappings([ValueMap(results)])
    if panel.alert:
        link = dashboard.DashboardLink(f"Runbook: {panel.alert}").type(DashboardLinkType.LINK)
        drawn.links([link.url(f"{_RUNBOOKS}/{panel.alert}.md").target_blank(True)])
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        asked = prometheus.Dataquery().ref_id(letter).expr(query.expression).legend_format(query.legend or "__auto")
        if panel.look == "table":
            asked.instant().format(PromQueryFormat.TABLE)
        elif panel.look == "number":
            asked.instant()  # some look back for 30 days: not at every step of a range
        else:
            asked.range()
        drawn.with_target(asked.datasource(_SOURCE))
    return drawn


def _lines(panel: Panel) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .show_points(VisibilityMode.NEVER)
        .fill_opacity(10)
        .min(0)
    )
    if panel.steps.more:
        drawn.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED))
    if panel.look == "stacked":
        drawn.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    return drawn


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    more = [Threshold(value=value, color=colour) for value, colour in steps.more]
    first = Threshold(value=None, color=steps.base)
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([first, *more])


def _variable(variable: Variable) -> dashboard.QueryVariable:
    asked = f"label_values({variable.metric}, {variable.label})"
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.words)
        .datasource(_SOURCE)
        .query({"query": asked, "refId": variable.name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(ALL)
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Headrace").type(DashboardLinkType.DASHBOARDS).tags([_TAG])
    return link.as_dropdown(True).keep_time(True).include_vars(True)


def _firing(board: Board) -> dashboard.AnnotationQuery:
    expression = f'{names.ALERTS}{{alertstate="firing",alertname=~"{board.alerts}"}}'
    return (
        dashboard.AnnotationQuery().name("Alerts").datasource(_SOURCE).enable(True).icon_color("red").expr(expression)
    )
