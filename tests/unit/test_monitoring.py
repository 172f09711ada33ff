"""Dashboards, rules and runbooks as they are shipped: complete, consistent with the code, and drawn without overlap."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import pytest
import typer.main
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from headrace.cli.main import app
from headrace.monitoring import names, rules, runbooks, slo
from headrace.monitoring.dashboards import draw
from headrace.monitoring.dashboards.parts import Board, Panel
from headrace.monitoring.generate import BOARDS, ROOT, files
from headrace.monitoring.parameters import NAMES, Parameters, filled, placeholder
from headrace.monitoring.rule import Alert, Group, Record
from headrace.serving.measures import SECONDS
from headrace_operators.metrics_reference import DECLARING
from headrace_operators.runtime import metrics

VALUES = yaml.safe_load((ROOT / "charts/headrace/values.yaml").read_text())["monitoring"]
UNITS = {"short", "s", "ops", "reqps", "percentunit", "bytes", "decbytes"}
PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
RULES = [rule for in_file in rules.FILES.values() for group in in_file for rule in group.rules]
RECORDED = {rule.name for rule in RULES if isinstance(rule, Record)}
SUFFIX = re.compile(r"_(bucket|sum|count)$")
NO_METRICS = {"by", "on", "and", "or", "unless", "offset", "ignoring", "group_left"}


def metrics_in(expression: str) -> set[str]:
    """Names of series in a PromQL expression: whatever is no function, no keyword and no label."""
    bare = re.sub(r"\$\(\w+\)", "1", re.sub(r"\"[^\"]*\"", '""', expression))
    bare = re.sub(r"\[[^\]]*\]", "", re.sub(r"\{[^}]*\}", "", re.sub(r"\b(by|on)\s*\([^)]*\)", "", bare)))
    return {
        name for name in re.findall(r"[a-zA-Z_][\w:]*(?!\w*\s*\()", bare) if name not in NO_METRICS and len(name) > 1
    }


def known(name: str) -> bool:
    every = {*names.FROM_OPERATOR, *names.FROM_FRONTS, *names.FROM_RAY, *names.FROM_PROMETHEUS, *RECORDED}
    return name in every or SUFFIX.sub("", name) in every


def test_the_operator_declares_the_names_that_we_know_and_no_others() -> None:
    assert DECLARING  # importing them has filled the table
    others = {name for name in metrics.TABLE if name.startswith("process_")}
    assert set(metrics.TABLE) - others == set(names.FROM_OPERATOR) - others
    assert {names.PROCESS_CPU, names.PROCESS_MEMORY} <= others


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rules_ask_for_series_that_somebody_makes(rule: Record | Alert) -> None:
    asked = metrics_in(rule.expression)
    assert asked
    assert [name for name in asked if not known(name)] == []


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda each: getattr(each, "title", ""))
def test_panels_ask_for_series_that_somebody_makes_in_a_unit_and_with_a_word_of_advice(
    board: Board, panel: Panel
) -> None:
    for query in panel.queries:
        assert [name for name in metrics_in(query.expression) if not known(name)] == []
    assert panel.unit in UNITS
    assert len(panel.description) > 15
    assert panel.description.endswith(".")
    assert not panel.alert or panel.alert in runbooks.pages()


@pytest.mark.parametrize("group", rules.groups(), ids=lambda group: group.name)
def test_a_group_needs_what_its_rules_ask_and_nothing_else(group: Group) -> None:
    needs = {"operator": names.FROM_OPERATOR, "ray": names.FROM_FRONTS, "backup": (names.BACKUP_SUCCESS,)}
    asked = {SUFFIX.sub("", name) for rule in group.rules for name in metrics_in(rule.expression)}
    assert group.needs == {source for source, made in needs.items() if asked & {SUFFIX.sub("", each) for each in made}}


def test_a_made_up_series_is_noticed() -> None:
    assert metrics_in('sum by (a) (rate(made_up_total{b="c"}[5m])) / on (x) headrace:y:z > $(minRequests)') == {
        "made_up_total",
        "headrace:y:z",
    }


@cache
def drawn(board: Board) -> dict[str, Any]:
    return json.loads(draw.text(board))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_no_panel_lies_over_another_and_each_row_is_full(board: Board) -> None:
    boxes = [panel["gridPos"] for panel in drawn(board)["panels"]]
    for one, other in combinations(boxes, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 for box in boxes)
    for y in {box["y"] for box in boxes}:
        assert sum(box["w"] for box in boxes if box["y"] == y) == 24
    assert all(before["y"] <= after["y"] for before, after in pairwise(boxes))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_ids_are_unique_and_few_panels_are_on_a_board(board: Board) -> None:
    panels = drawn(board)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert 14 <= len(board.panels) <= 22


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_grafana_s_own_types_read_the_file_and_write_it_again(board: Board) -> None:
    record = drawn(board)
    assert json.loads(json.dumps(Dashboard.from_json(record), cls=JSONEncoder)) == record


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_variable_is_used_and_every_one_that_is_used_is_there(board: Board) -> None:
    asked = " ".join(query.expression for panel in board.panels for query in panel.queries)
    asked += " ".join(variable.metric for variable in board.variables)
    used = set(re.findall(r"\$(\w+)", asked)) - {"__rate_interval", "__range"}
    assert used == {variable.name for variable in board.variables}


def test_boards_are_found_by_addresses_that_never_change() -> None:
    assert [board.uid for board in BOARDS] == ["headrace-operators", "headrace-training", "headrace-serving"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_each_alert_is_drawn_on_one_board(board: Board) -> None:
    drawn_on = [each for each in runbooks.pages() if re.fullmatch(board.alerts, each)]
    others = [pattern.alerts for pattern in BOARDS if pattern is not board]
    assert drawn_on
    assert not [alert for alert in drawn_on for pattern in others if re.fullmatch(pattern, alert)]
    assert all(any(re.fullmatch(each.alerts, alert) for each in BOARDS) for alert in runbooks.pages())


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    there = {path.stem for path in (ROOT / runbooks.FOLDER).glob("*.md")} - {"README"}
    assert there == set(runbooks.pages())


@pytest.mark.parametrize("name", runbooks.pages())
def test_a_runbook_says_what_it_means_how_to_look_and_what_to_do(name: str) -> None:
    page = (ROOT / runbooks.FOLDER / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    places = [page.index(f"\n{section}\n") for section in runbooks.SECTIONS]
    assert places == sorted(places)
    for target in re.findall(r"\]\(([^)]+\.md)\)", page):
        assert (ROOT / runbooks.FOLDER / target).resolve().exists(), target


def commands(page: str) -> list[list[str]]:
    """Every `headrace ...` of a page, in words, without what people put in place of the capitals."""
    return [found.split() for found in re.findall(r"(?:^|[`$] ?)headrace ([a-z][^`\n#|]*)", page, re.MULTILINE)]


def test_what_runbooks_say_to_type_is_typed_so() -> None:
    there = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    pages = [*(ROOT / runbooks.FOLDER).glob("*.md"), *(ROOT / "docs" / name for name in ("operate.md", "backup.md"))]
    found = [words for page in pages for words in commands(page.read_text())]
    assert ["gc"] in found
    for name, *rest in found:
        assert name in there, name
        options = {option for parameter in there[name].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= options, (name, rest)


def test_the_cluster_s_runbooks_name_no_command_that_acts_on_a_laptop_only() -> None:
    text = "".join(path.read_text() for path in (ROOT / runbooks.FOLDER).glob("*.md"))
    assert {words[0] for words in commands(text)} <= {"gc"}  # of which they say that it removes nothing here


def test_how_many_alerts_there_are_is_told_as_it_is() -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    assert f"recorded series and {len(runbooks.pages())} alerts" in page


@pytest.mark.parametrize("alert", rules.alerts(), ids=lambda alert: f"{alert.name}-{alert.labels.get('window', '')}")
def test_an_alert_tells_the_value_whom_it_concerns_and_the_first_command(alert: Alert) -> None:
    record = alert.to_rule()
    words = record["annotations"]["description"]
    absent = alert.expression.startswith("absent(")  # of what is not there nobody tells labels
    assert ("$(namespace)" if absent else "{{ $labels.") in words
    assert not [label for label in alert.labels if f"$labels.{label}" in words], (
        "labels that a rule adds are no $labels"
    )
    assert "{{ $value" in words or "==" in alert.expression  # of a yes or no there is nothing to tell
    assert "Look: kubectl " in words or "dashboard" in words
    assert "{{" not in record["annotations"]["summary"]
    assert record["labels"]["severity"] in ("critical", "warning", "info")


def test_few_alerts_wake_somebody() -> None:
    waking = {alert.name for alert in rules.alerts() if alert.severity == "critical"}
    assert waking == {
        "HeadraceOperatorWithoutLeader",
        "HeadraceMLflowDown",
        "HeadraceDeploymentDown",
        "HeadraceAvailabilityBudgetBurns",
        "HeadraceLatencyBudgetBurns",
    }


def test_every_parameter_is_used_and_the_chart_has_the_same_with_the_same_defaults() -> None:
    text = "".join(rules.files().values())
    assert set(re.findall(r"\$\((\w+)\)", text)) == set(NAMES)
    given = {name: str(value) for name, value in VALUES["rules"]["parameters"].items()}
    defaults = {name: value for name, value in vars(Parameters()).items() if name not in ("namespace", "watched")}
    assert given == defaults


def test_a_parameter_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="no parameter 'waiting'; there are namespace, "):
        placeholder("waiting")
    assert filled(["$(namespace)", {"a": "$(minRequests)"}, 1], Parameters()) == ["headrace-system", {"a": "20"}, 1]


def test_the_chart_knows_every_alert_and_every_bound_of_latency() -> None:
    schema = json.loads((ROOT / "charts/headrace/values.schema.json").read_text())
    of_rules = schema["properties"]["monitoring"]["properties"]["rules"]["properties"]
    assert of_rules["alerts"]["$ref"] == "#/$defs/alerts"
    assert list(schema["$defs"]["alerts"]["properties"]) == runbooks.pages()
    assert of_rules["parameters"]["properties"]["latencyThresholdSeconds"]["enum"] == SECONDS


def test_what_is_kept_of_the_pods_series_is_what_is_asked_for() -> None:
    keep = re.compile(VALUES["ray"]["keep"])
    for name in (*names.FROM_FRONTS, *names.FROM_RAY):
        assert keep.fullmatch(name), name
    assert keep.fullmatch(f"{names.REQUEST_SECONDS}_bucket")
    assert not keep.fullmatch("ray_node_disk_usage")


def test_burn_rates_spend_the_share_of_the_budget_that_the_workbook_says() -> None:
    hours = {"1h": 1, "6h": 6, "1d": 24, "3d": 72}
    spent = [round(burn.factor * hours[burn.long] / (30 * 24), 3) for burn in slo.BURNS]
    assert spent == [0.02, 0.05, 0.1, 0.1]


def test_what_is_generated_is_committed() -> None:
    drifted = [path for path, text in files().items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert drifted == []


def test_the_chart_ships_three_dashboards_three_files_of_rules_and_an_index_of_runbooks() -> None:
    assert set(files()) == {
        *(f"charts/headrace/files/dashboards/{board.uid}.json" for board in BOARDS),
        *(f"charts/headrace/files/rules/{name}.yaml" for name in ("operators", "training", "serving")),
        "docs/runbooks/README.md",
    }
