"""Every alert, judged by promtool: it fires when it should, with the labels that people need, and not otherwise."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.monitoring import names, rules, slo
from headrace.monitoring.dashboards import serving
from headrace.monitoring.dashboards import training as dashboards_training
from headrace.monitoring.dashboards.parts import Board
from headrace.monitoring.parameters import Parameters
from headrace_testbed.debian import debian_program
from headrace_testbed.monitoring import with_everything_chosen

OPERATOR = 'job="headrace-operator",namespace="headrace-system",pod="headrace-operator-1"'
RUN = 'namespace="team",name="digits",pod="headrace-operator-1"'
ENDPOINT = 'namespace="team",deployment="digits",version="7",pod="digits-1"'
HOUR = 3600
DAY = 24 * HOUR


def training(metric: str, **labels: str) -> str:
    """A series that the operator tells of the run."""
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{RUN}{more}}}"


def requests(good: float, bad: float, slow: float = 0.0) -> dict[str, str]:
    """An endpoint's series: GOOD and BAD requests a minute, of which SLOW take longer than half a second."""
    whole = good + bad
    return {
        f'{names.REQUESTS}{{{ENDPOINT},code="200"}}': f"0+{good}xN",
        f'{names.REQUESTS}{{{ENDPOINT},code="503"}}': f"0+{bad}xN",
        f"{names.REQUEST_SECONDS}_count{{{ENDPOINT}}}": f"0+{whole}xN",
        f'{names.REQUEST_SECONDS}_bucket{{{ENDPOINT},le="0.5"}}': f"0+{whole - slow}xN",
        f'{names.REQUEST_SECONDS}_bucket{{{ENDPOINT},le="1.0"}}': f"0+{whole}xN",
    }


@dataclass(frozen=True)
class Case:
    """What is so, and what it comes to.

    Args:
        alert: which is asked about.
        why: what the case is, for its name.
        series: their values; `N` stands for the number of them until the question.
        fires: the labels that it fires with, if it does.
        minutes: when it is asked.
        step: minutes between two evaluations, and between two values unless `seconds` says else.
        seconds: between two values; a window then does not begin and end with one.
    """

    alert: str
    why: str
    series: Mapping[str, str]
    fires: Mapping[str, str] = field(default_factory=dict)
    minutes: int = 60
    step: int = 1
    seconds: int = 0

    def __str__(self) -> str:
        return f"{self.alert}-{self.why}".replace(" ", "-")


LEADER = f'{names.LEADING}{{{OPERATOR},name="headrace-operator"}}'
ERRORS = f'{names.RECONCILE_ERRORS}{{{OPERATOR},controller="trainingrun"}}'
DEPTH = f'{names.QUEUE_DEPTH}{{{OPERATOR},name="trainingrun"}}'
MLFLOW = f'{names.MLFLOW_UP}{{{OPERATOR},server="http://mlflow:5000",own="true"}}'
OTHER_MLFLOW = MLFLOW.replace('own="true"', 'own="false"')
BACKUP = f'{names.BACKUP_SUCCESS}{{{OPERATOR},lease="headrace-system/headrace-backup"}}'
WAITING = training(names.TRAINING_WAITING_SINCE, reason="Unschedulable")
IN_QUEUE = training(names.TRAINING_WAITING_SINCE, reason="WaitsForQuota")
MISTAKE = training(names.TRAINING_WAITING_SINCE, reason="SpecInvalid")
PROGRESS = training(names.TRAINING_PROGRESS)
FAILED_ATTEMPTS = f'{names.TRAINING_ATTEMPTS}{{namespace="team",result="failed"}}'
GOOD_ATTEMPTS = f'{names.TRAINING_ATTEMPTS}{{namespace="team",result="succeeded"}}'
REPLICAS, ANSWERING = training(names.DEPLOYMENT_REPLICAS), training(names.DEPLOYMENT_ANSWERING)
VERSION = training(names.DEPLOYMENT_VERSION, version="7")
OTHER_VERSION = training(names.DEPLOYMENT_VERSION, version="8")
SEEN = f'{names.REQUESTS_WAITING}{{namespace="team",deployment="digits",pod="digits-1"}}'
HEALTHY = training(names.MONITOR_HEALTHY, deployment="digits")
MONITOR = training(names.MONITOR_PROMETHEUS_UP, deployment="digits")


def state(name: str) -> str:
    return training(names.DEPLOYMENT_STATE, state=name)


THE_RUN = {"namespace": "team", "name": "digits"}
THE_ENDPOINT = {"namespace": "team", "deployment": "digits"}
MONITORED = THE_RUN | THE_ENDPOINT
FAST = {"severity": "critical", "window": "1h"}
SLOW = {"severity": "critical", "window": "6h"}
TICKET = {"severity": "warning", "window": "1d"}
LONG_TICKET = {"severity": "warning", "window": "3d"}
TRACES = {"lease": "headrace-system/headrace-backup", "severity": "warning"}

CASES = [
    Case(
        "HeadraceOperatorWithoutLeader",
        "nobody leads",
        {LEADER: "0xN"},
        {"severity": "critical", "namespace": "headrace-system"},
        5,
    ),
    Case("HeadraceOperatorWithoutLeader", "the operator is gone", {LEADER: "1x10 _xN"}, {"severity": "critical"}),
    Case("HeadraceOperatorWithoutLeader", "one leads", {LEADER: "1xN"}, {}, 5),
    Case("HeadraceOperatorWithoutLeader", "the lease changed hands", {LEADER: "1x6 0 1xN"}, {}, 8),
    Case(
        "HeadraceOperatorWithoutLeader",
        "another operator's leader is none of ours",
        {LEADER.replace("headrace-system", "elsewhere"): "1xN"},
        {"severity": "critical"},
        5,
    ),
    Case(
        "HeadraceReconcileErrors",
        "one object fails for ever",
        {ERRORS: "0+0.25xN"},
        {"controller": "trainingrun", "severity": "warning"},
    ),
    Case("HeadraceReconcileErrors", "two failed and no more", {ERRORS: "0x10 2xN"}, {}, 15, seconds=37),
    Case(
        "HeadraceReconcileErrors", "three failed", {ERRORS: "0x10 3xN"}, {"controller": "trainingrun"}, 15, seconds=37
    ),
    Case("HeadraceWorkQueueGrowing", "it grows", {DEPTH: "0+20xN"}, {"name": "trainingrun", "severity": "warning"}),
    Case("HeadraceWorkQueueGrowing", "it stands", {DEPTH: "500xN"}, {"name": "trainingrun"}),
    Case("HeadraceWorkQueueGrowing", "a cold start drains", {DEPTH: "10000-200xN"}, {}, 30),
    Case("HeadraceWorkQueueGrowing", "it is short", {DEPTH: "0+1xN"}),
    Case(
        "HeadraceMLflowDown",
        "it does not answer",
        {MLFLOW: "1x10 0xN"},
        {"server": "http://mlflow:5000", "severity": "critical"},
        20,
    ),
    Case("HeadraceMLflowDown", "it answers now and then", {MLFLOW: "0 0 0 1 0 0 0 1 0 0 0 1 0 0 0 1 0"}, {}, 16),
    Case("HeadraceMLflowDown", "it is none of ours", {OTHER_MLFLOW: "0xN"}, {}, 60),
    Case(
        "HeadraceMLflowOfObjectsDown",
        "runs wait for it",
        {OTHER_MLFLOW: "0xN"},
        {"server": "http://mlflow:5000", "severity": "warning"},
    ),
    # The operator remembers an answer for 15 minutes.
    Case("HeadraceMLflowOfObjectsDown", "it was asked once", {OTHER_MLFLOW: "_x10 0x15 _xN"}, {}, 27),
    Case("HeadraceMLflowOfObjectsDown", "it is our own", {MLFLOW: "0xN"}),
    Case("HeadraceBackupTooOld", "two days ago", {BACKUP: "1xN"}, TRACES, 48 * 60, 10),
    Case("HeadraceBackupTooOld", "made every day", {BACKUP: "1xN"}, {}, 24 * 60, 10),
    Case("HeadraceBackupTooOld", "never made", {BACKUP: "0xN"}, {}, 48 * 60, 10),
    Case("HeadraceBackupMissing", "never made", {BACKUP: "0xN"}, TRACES, 48 * 60, 10),
    Case(
        "HeadraceBackupMissing",
        "never made, and the operator was away for some hours",
        {BACKUP: "0x50 _x18 0xN"},
        TRACES,
        30 * 60,
        10,
    ),
    Case(
        "HeadraceBackupMissing",
        "the last one was removed",
        {BACKUP: "60000x100 0xN"},
        TRACES,
        48 * 60,
        10,
    ),
    Case("HeadraceBackupMissing", "removed an hour ago", {BACKUP: "60000x276 0xN"}, {}, 47 * 60, 10),
    Case("HeadraceBackupMissing", "a fresh installation", {BACKUP: "0xN"}, {}, 24 * 60, 10),
    Case("HeadraceBackupMissing", "made", {BACKUP: "0x100 60000xN"}, {}, 48 * 60, 10),
    Case(
        "HeadraceTrainingRunWaiting",
        "no node fits",
        {WAITING: "0xN"},
        {**THE_RUN, "reason": "Unschedulable", "severity": "warning"},
    ),
    Case("HeadraceTrainingRunWaiting", "a slow start", {WAITING: "0x15 _xN"}, {}, 15),
    Case("HeadraceTrainingRunWaiting", "a queue is for waiting", {IN_QUEUE: "0xN", MISTAKE: "0xN"}),
    Case(
        "HeadraceTrainingRunQueued",
        "for a day",
        {IN_QUEUE: "0xN"},
        {**THE_RUN, "reason": "WaitsForQuota", "severity": "info"},
        24 * 60,
        5,
    ),
    Case("HeadraceTrainingRunQueued", "for an hour", {IN_QUEUE: "0xN"}),
    Case("HeadraceTrainingRunQueued", "not in a queue", {WAITING: "0xN"}, {}, 24 * 60, 5),
    Case("HeadraceTrainingRunNoProgress", "silent", {PROGRESS: "0xN"}, {**THE_RUN, "severity": "warning"}, 70),
    Case("HeadraceTrainingRunNoProgress", "an epoch every 50 minutes", {PROGRESS: "0x50 3000x50 6000xN"}, {}, 140),
    Case("HeadraceTrainingRunNoProgress", "ended", {PROGRESS: "0x40 _xN"}, {}, 120),
    Case(
        "HeadraceTrainingRunsFailing",
        "all fail",
        {FAILED_ATTEMPTS: "0+0.1xN", GOOD_ATTEMPTS: "0xN"},
        {"namespace": "team", "severity": "warning"},
    ),
    Case("HeadraceTrainingRunsFailing", "few of many fail", {FAILED_ATTEMPTS: "0+0.1xN", GOOD_ATTEMPTS: "0+0.5xN"}),
    Case("HeadraceTrainingRunsFailing", "one failed", {FAILED_ATTEMPTS: "0x10 1xN", GOOD_ATTEMPTS: "0xN"}),
    Case("HeadraceAvailabilityBudgetBurns", "2 % fail", requests(98, 2), THE_ENDPOINT | FAST),
    Case("HeadraceAvailabilityBudgetBurns", "one in a thousand fails", requests(99.95, 0.05)),
    Case("HeadraceAvailabilityBudgetBurns", "three requests, one failed", requests(0.05, 0.01)),
    Case("HeadraceAvailabilityBudgetBurns", "nobody asks", requests(0, 0)),
    Case(
        "HeadraceAvailabilityBudgetBurns",
        "it was bad and is well again",
        {
            f'{names.REQUESTS}{{{ENDPOINT},code="200"}}': "0+98x10 980+100xN",
            f'{names.REQUESTS}{{{ENDPOINT},code="503"}}': "0+2x10 20xN",
        },
        {},
        50,
    ),
    Case("HeadraceAvailabilityBudgetBurns", "0.7 % fail for hours", requests(993, 7), THE_ENDPOINT | SLOW, 400, 5),
    Case("HeadraceAvailabilityBudgetBurns", "0.4 % fail for a day", requests(996, 4), THE_ENDPOINT | TICKET, 1600, 10),
    Case(
        "HeadraceAvailabilityBudgetBurns",
        "0.15 % fail for days",
        requests(998.5, 1.5),
        THE_ENDPOINT | LONG_TICKET,
        5000,
        10,
    ),
    Case("HeadraceLatencyBudgetBurns", "a third is slow", requests(100, 0, 33), THE_ENDPOINT | FAST),
    Case("HeadraceLatencyBudgetBurns", "1 % is slow", requests(100, 0, 0.9)),
    Case("HeadraceLatencyBudgetBurns", "7 % are slow for hours", requests(1000, 0, 70), THE_ENDPOINT | SLOW, 400, 5),
    Case("HeadraceLatencyBudgetBurns", "4 % are slow for a day", requests(960, 0, 40), THE_ENDPOINT | TICKET, 1600, 10),
    Case("HeadraceLatencyBudgetBurns", "1.5 % for days", requests(1000, 0, 15), THE_ENDPOINT | LONG_TICKET, 5000, 10),
    Case(
        "HeadraceDeploymentDown",
        "it answered and does no more",
        {REPLICAS: "2xN", VERSION: "1x10 _xN"},
        {**THE_RUN, "severity": "critical"},
        20,
    ),
    Case(
        "HeadraceDeploymentDown",
        "it answered last two days ago",
        {REPLICAS: "2xN", VERSION: "1x3 _xN"},
        {**THE_RUN, "severity": "critical"},
        48 * 60,
        4,
    ),
    Case(
        "HeadraceDeploymentDown",
        "the operator was away meanwhile",
        {REPLICAS: "2x200 _x100 2xN", VERSION: "1x10 _xN"},
        {**THE_RUN, "severity": "critical"},
        310,
    ),
    Case(
        "HeadraceDeploymentDown",
        "it had rested for a day and starts",
        {REPLICAS: "2x10 0x720 2xN", VERSION: "1x10 _xN"},
        {},
        24 * 60 + 24,
        2,
    ),
    Case(
        "HeadraceDeploymentDown",
        "another version answers",
        {REPLICAS: "2xN", VERSION: "1x9 _xN", OTHER_VERSION: "_x9 1xN"},
    ),
    Case("HeadraceDeploymentDown", "it is new and starts", {REPLICAS: "2xN"}),
    Case("HeadraceDeploymentDown", "it was deleted", {REPLICAS: "2x10 _xN", VERSION: "1x10 _xN"}, {}, 20),
    Case(
        "HeadraceDeploymentDegraded",
        "one of two answers",
        {REPLICAS: "2xN", ANSWERING: "1xN", VERSION: "1xN"},
        {**THE_RUN, "severity": "warning"},
    ),
    Case("HeadraceDeploymentDegraded", "all answer", {REPLICAS: "2xN", ANSWERING: "2xN", VERSION: "1xN"}),
    Case(
        "HeadraceDeploymentDegraded",
        "the version could not be loaded, which is told",
        {REPLICAS: "2xN", ANSWERING: "0xN", VERSION: "1xN", state("failed"): "1xN"},
    ),
    Case(
        "HeadraceDeploymentFailed",
        "it cannot be loaded",
        {state("failed"): "1xN"},
        {**THE_RUN, "state": "failed", "severity": "warning"},
    ),
    Case("HeadraceDeploymentFailed", "all is well", {state("available"): "1xN"}),
    Case("HeadraceDeploymentStuck", "for an hour", {state("progressing"): "1xN"}, {**THE_RUN, "severity": "warning"}),
    Case("HeadraceDeploymentStuck", "it came to an end", {state("progressing"): "1x20 _xN"}),
    Case(
        "HeadraceDeploymentNotScraped",
        "no series of it",
        {ANSWERING: "2xN"},
        {**THE_RUN, "severity": "warning"},
    ),
    Case("HeadraceDeploymentNotScraped", "it is scraped", {ANSWERING: "2xN", SEEN: "0xN"}),
    Case("HeadraceMonitorObjectivesBroken", "one is", {HEALTHY: "0xN"}, {**MONITORED, "severity": "warning"}),
    Case("HeadraceMonitorObjectivesBroken", "all are kept", {HEALTHY: "1xN"}),
    Case("HeadraceMonitorObjectivesBroken", "nobody knows", {MONITOR: "0xN"}),
    Case("HeadraceMonitorBlind", "no answer", {MONITOR: "0xN"}, {**MONITORED, "severity": "warning"}),
    Case("HeadraceMonitorBlind", "it answers", {MONITOR: "1xN"}),
]


@pytest.fixture(scope="session")
def promtool() -> Path:
    return debian_program("prometheus", "promtool")


@pytest.fixture(scope="session")
def rules_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(rules.text())
    return path


@pytest.fixture(scope="session")
def groups(rules_file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(rules_file.read_text())["groups"]
    return found


def needed(alert: str, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """GROUPS with ALERT and the records that it is made of; promtool has much work with all others."""
    asked, found = "", list[dict[str, Any]]()
    for group in reversed(groups):
        kept = list[dict[str, Any]]()
        for rule in reversed(group["rules"]):  # what is recorded stands before what asks for it
            if rule.get("alert") == alert or ("record" in rule and rule["record"] in asked):
                asked += rule["expr"]
                kept.insert(0, rule)
        found = [{**group, "rules": kept}, *found] if kept else found
    return found


def run(promtool: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)


def test_promtool_takes_all_rules(promtool: Path, rules_file: Path) -> None:
    done = run(promtool, "check", "rules", "--lint-fatal", rules_file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    alerts = {alert.name for alert in rules.alerts()}
    assert {case.alert for case in CASES if case.fires} == alerts
    assert {case.alert for case in CASES if not case.fires} == alerts


def test_every_burn_rate_is_seen_to_fire() -> None:
    windows = {(alert.name, alert.labels["window"]) for alert in rules.alerts() if "window" in alert.labels}
    assert {(case.alert, case.fires["window"]) for case in CASES if "window" in case.fires} == windows


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_alert_fires_when_it_should(
    case: Case, promtool: Path, groups: list[dict[str, Any]], tmp_path: Path
) -> None:
    rules_file = tmp_path / "rules.yaml"
    rules_file.write_text(yaml.safe_dump({"groups": needed(case.alert, groups)}, sort_keys=False))
    steps = case.minutes // case.step
    values = case.minutes * 60 // (case.seconds or case.step * 60) + 1
    series = [{"series": name, "values": told.replace("N", str(values))} for name, told in case.series.items()]
    asked = f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}'
    if case.fires:
        asked = f"count by ({', '.join(case.fires)}) ({_of(asked, case.fires)})"
    labels = ",".join(f'{name}="{value}"' for name, value in case.fires.items())
    expected: list[dict[str, Any]] = [{"labels": f"{{{labels}}}", "value": 1}] if case.fires else []
    test = {
        "interval": f"{case.seconds}s" if case.seconds else f"{case.step}m",
        "input_series": series,
        "promql_expr_test": [{"expr": asked, "eval_time": f"{steps * case.step}m", "exp_samples": expected}],
    }
    path = tmp_path / "test.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(rules_file)],
                "evaluation_interval": f"{case.step}m",
                "group_eval_order": _groups(rules_file),
                "tests": [test],
            },
            sort_keys=False,
        )
    )
    done = run(promtool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def asked(promtool: Path, folder: Path, rules_file: Path, series: Mapping[str, str], *tests: Mapping[str, Any]) -> None:
    """Have promtool judge what queries (`promql_expr_test`) give of SERIES, a value each minute."""
    told = [{"series": name, "values": values} for name, values in series.items()]
    path = folder / "test.yaml"
    whole = {"rule_files": [str(rules_file)], "evaluation_interval": "1m", "group_eval_order": _groups(rules_file)}
    whole["tests"] = [{"interval": "1m", "input_series": told, "promql_expr_test": list(tests)}]
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    done = run(promtool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def question(board: Board, title: str) -> str:
    """What the panel of that title asks when everything is chosen."""
    panel = next(panel for panel in board.panels if panel.title == title)
    return with_everything_chosen(panel.queries[0].expression)


def test_a_version_that_was_loaded_for_the_first_time_is_seen_on_the_dashboard_for_an_hour(
    promtool: Path, rules_file: Path, tmp_path: Path
) -> None:
    of = 'namespace="team",deployment="digits",version="7",result="loaded"'
    loads = question(serving.BOARD, "Versions that were loaded, or not")
    labels = '{deployment="digits", version="7", result="loaded"}'
    series = {f'{names.VERSION_LOADS}{{{of},pod="digits-{pod}"}}': "_x10 1x100" for pod in (1, 2)}
    fresh = {"expr": loads, "eval_time": "30m", "exp_samples": [{"labels": labels, "value": 2}]}
    past = {"expr": loads, "eval_time": "90m", "exp_samples": [{"labels": labels, "value": 0}]}
    asked(promtool, tmp_path, rules_file, series, fresh, past)


def test_the_longest_wait_on_the_dashboard_is_of_no_queue(promtool: Path, rules_file: Path, tmp_path: Path) -> None:
    longest = question(dashboards_training.BOARD, "Waiting longest")
    series = {IN_QUEUE: "0x60", MISTAKE: "0x60", WAITING: "2400x60"}
    waited = {"expr": longest, "eval_time": "60m", "exp_samples": [{"labels": "{}", "value": 1200}]}
    asked(promtool, tmp_path, rules_file, series, waited)


def test_what_is_left_of_a_budget_is_judged_by_each_endpoint_s_own_objective(
    promtool: Path, rules_file: Path, tmp_path: Path
) -> None:
    """Two endpoints are asked alike, and one of them answers 0.1 % with 5xx: a half of what both may."""
    left = question(serving.BOARD, "Availability budget left")
    series = {name: values.replace("N", "60") for name, values in requests(999, 1).items()}
    series |= {name.replace("digits", "other"): values.replace("N", "60") for name, values in requests(1000, 0).items()}
    half = {"expr": f"round({left}, 0.001)", "eval_time": "60m", "exp_samples": [{"labels": "{}", "value": 0.5}]}
    asked(promtool, tmp_path, rules_file, series, half)


def test_rules_of_two_releases_in_one_prometheus_judge_each_endpoint_once(promtool: Path, tmp_path: Path) -> None:
    """Each of its own namespace, by its own objective: 2 % that fail are much for one and little for the other."""
    series = {name: values.replace("N", "60") for name, values in requests(98, 2).items()}
    series |= {name.replace('"team"', '"other"'): values for name, values in series.items()}
    both = []
    for watched, objective in (("team", "0.999"), ("other", "0.95")):
        of = yaml.safe_load(rules.text(Parameters(f"{watched}-system", watched, objective), ("ray",)))["groups"]
        both += [group | {"name": f"{watched}-{group['name']}"} for group in of]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": both}, sort_keys=False))
    firing = 'count by (namespace) (ALERTS{alertstate="firing",window="1h"})'
    fires = {"expr": firing, "eval_time": "60m", "exp_samples": [{"labels": '{namespace="team"}', "value": 1}]}
    objectives = [
        {"labels": f'{{namespace="{watched}"}}', "value": value}
        for watched, value in (("other", 0.95), ("team", 0.999))
    ]
    kept = {
        "expr": f"max by (namespace) ({slo.AVAILABILITY.objective})",
        "eval_time": "60m",
        "exp_samples": objectives,
    }
    asked(promtool, tmp_path, path, series, fires, kept)


def _groups(rules_file: Path) -> list[str]:
    """In the order of the file: promtool takes any other, and then a step of ten minutes finds only stale records."""
    return [group["name"] for group in yaml.safe_load(rules_file.read_text())["groups"]]


def _of(asked: str, fires: Mapping[str, str]) -> str:
    """Of an alert with several burn rates, the one that is meant."""
    return asked.replace("}", f',window="{fires["window"]}"}}') if "window" in fires else asked
