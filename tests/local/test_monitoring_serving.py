"""A real front on a real Ray, scraped by a real Prometheus with the rules that the chart ships.

Every question of the dashboards and every recorded series that concerns pods has an answer; a model that is slow, then
one that fails, burns the budget that it should and the other not. What the operator tells is
`tests/kubernetes/test_monitoring_operators.py`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from headrace.base.jsonfile import sha256_of
from headrace.local.deployments import deploy, undeploy
from headrace.local.desired_state import Deployment
from headrace.local.ray_head import Head
from headrace.monitoring import names, rules, runbooks
from headrace.monitoring.parameters import Parameters
from headrace.serving.contract import StableVersion
from headrace.serving.v2_client import infer
from headrace_testbed.monitoring import (
    NEEDS_A_GPU,
    Watch,
    asks_pods,
    has_data,
    questions,
    recordings,
    with_everything_chosen,
)
from headrace_testbed.waiting import eventually

pytestmark = pytest.mark.timeout(900)  # a head on a busy machine takes a minute
NAME = "moody"
GOOD, RAISES, SLOW = 128, 255, 0  # what all pixels of a picture are
SLOW_SECONDS = 0.6
PARAMETERS = Parameters()
OURS = f'{names.REQUESTS}{{deployment="{NAME}"}}'
FAILED = f'sum({names.REQUESTS}{{deployment="{NAME}",code="500"}})'
NET = f"""
import time
import torch

class Moody(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = torch.nn.Linear(1, num_classes)

    def forward(self, x):
        mean = x.mean()
        if mean > 0.9:
            raise RuntimeError("too bright")
        if mean < 0.1:
            time.sleep({SLOW_SECONDS})
        return self.head(x.flatten(1).mean(1, keepdim=True))
"""


def package(folder: Path) -> StableVersion:
    """A package of a network that raises on white pictures and takes its time with black ones."""
    from headrace_models.package import build_model, write_package
    from headrace_models.tasks import Sample, Schema, build_task

    code = folder / "code"
    code.mkdir()
    (code / "net.py").write_text(NET)
    task = build_task({"name": "image-classification", "args": {}}, Schema("label", tuple("ab")))
    task.preprocessing = {"image_size": [8, 8], "channels": 1, "mean": [0.0], "std": [1.0]}
    record = {"name": "net:Moody", "args": {}}
    samples = [Sample("1", _png(GOOD), {"label": "a"}), Sample("2", _png(GOOD), {"label": "b"})]
    target = folder / sha256_of(["moody"])
    sha256 = write_package(
        target,
        task=task,
        model=build_model(record, task, code),
        model_record=record,
        code_folder=code,
        provenance={"version": "1"},
        example=task.request(samples),
    )
    return StableVersion("1", str(target), sha256)


def _png(value: int) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def url(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    served = deploy(Deployment(NAME, "moods", package(tmp_path_factory.mktemp("moody"))), tell=print)
    yield served["url"]
    undeploy(NAME)


@pytest.fixture(scope="module")
def watch(head: Head, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """It reads Ray's agent, and gives the labels that the chart's PodMonitors give."""
    labels = {"namespace": "team", "pod": "head", names.DEPLOYMENT_LABEL: NAME, names.RUN_LABEL: "digits"}
    target = {"targets": [f"127.0.0.1:{head.port_block + 4}"], "labels": labels}
    ask(url, GOOD, 5)  # before the first reading: what is asked about needs two of each series
    # An answer that takes longer than the interval is none, and Ray's agent is slow on a busy machine.
    scrape = {"job_name": "headrace-serving", "scrape_interval": "10s", "static_configs": [target]}
    with Watch(tmp_path_factory.mktemp("watch"), [scrape], PARAMETERS) as made:
        eventually(lambda: has_data(made, OURS), 180)
        yield made


asked_for: Counter[int] = Counter()  # requests by what was sent


def ask(url: str, picture: int, times: int, at_once: int = 1) -> None:
    """So many requests, AT_ONCE of them side by side."""
    pixels = np.full((1, 8, 8, 1), picture, np.uint8)

    def once(_: int) -> None:
        try:
            infer(url, {"image": pixels})
        except Exception:
            assert picture == RAISES, "only white pictures fail"

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(once, range(times)))
    asked_for[picture] += times


def counted(watch: Watch, expression: str) -> float:
    """The one value."""
    found = watch.query(expression)
    return float(found[0]["value"][1]) if found else 0.0


def test_while_it_answers_every_question_has_an_answer_and_nothing_fires(url: str, watch: Watch) -> None:
    asked = {panel: query for panel, query in questions().items() if asks_pods(query)}
    asked = {panel: query for panel, query in asked.items() if not any(name in query for name in NEEDS_A_GPU)}
    assert len(asked) > 20

    def all_answered() -> bool:
        ask(url, GOOD, 5)
        assert [panel for panel, query in asked.items() if not has_data(watch, query)] == []
        assert counted(watch, f"sum(increase({OURS}[1h]))") >= int(PARAMETERS.minRequests), "none is judged"
        return True

    eventually(all_answered, 180, pause_seconds=2)
    burning = {alert["labels"]["alertname"] for alert in watch.ask("alerts")["alerts"]} & set(BURNS)
    seconds, most = names.REQUEST_SECONDS, PARAMETERS.latencyThresholdSeconds
    in_time = f'sum({seconds}_bucket{{deployment="{NAME}",le="{most}"}})'
    if counted(watch, f'sum({seconds}_count{{deployment="{NAME}"}}) - {in_time}'):  # as where the machine is busy
        burning -= {"HeadraceLatencyBudgetBurns"}
    assert burning == set()


BURNS = [name for name in runbooks.pages() if name.endswith("BudgetBurns")]


def test_every_recorded_series_has_data(url: str, watch: Watch) -> None:
    recorded = [name for name, made_of in recordings().items() if asks_pods(made_of)]
    assert len(recorded) > 14
    for name in recorded:
        eventually(lambda name=name: has_data(watch, with_everything_chosen(name)), 90)


def test_every_question_is_asked_here_or_of_the_operator() -> None:
    for name in (*names.FROM_FRONTS, *names.FROM_RAY):
        assert asks_pods(f"sum(rate({name}[5m]))")
    gpu = [panel for panel, query in questions().items() if any(name in query for name in NEEDS_A_GPU)]
    assert gpu == ["headrace-training: GPUs in use (0)", "headrace-training: GPU memory in use (0)"]


def test_the_names_of_what_needs_a_gpu_are_ray_s_own() -> None:
    import ray.dashboard.modules.reporter.reporter_agent as agent

    exported = {f"{names.RAY_PREFIX}{name}" for name in agent.METRICS_GAUGES}
    assert set(names.FROM_RAY) - {names.SERVE_REPLICA_HEALTHY} <= exported


def test_a_model_that_is_slow_burns_the_latency_budget_and_no_other(url: str, watch: Watch) -> None:
    burns = {"window": "1h", "deployment": NAME}
    ask(url, SLOW, asked_for[GOOD], at_once=32)  # a half, however many good ones a busy machine was asked before

    def slow_ones_are_too_many() -> bool:
        ask(url, SLOW, 1)
        return bool(watch.firing("HeadraceLatencyBudgetBurns", **burns))

    eventually(slow_ones_are_too_many, 300)
    alert = watch.wait_until_it_fires("HeadraceLatencyBudgetBurns", 180, **burns)
    assert alert["labels"] | {"severity": "critical", "namespace": "team"} == alert["labels"]
    assert "took longer than 0.5 s in the last 1h" in alert["annotations"]["description"]
    watch.wait_until_it_fires("HeadraceLatencyBudgetBurns", 180, window="3d", deployment=NAME, severity="warning")
    assert not watch.firing("HeadraceAvailabilityBudgetBurns")


def test_a_model_that_fails_burns_the_availability_budget_at_every_rate(url: str, watch: Watch) -> None:
    ask(url, RAISES, 10)
    eventually(lambda: counted(watch, FAILED) > 0, 180)
    ask(url, RAISES, 40)  # over two readings: of a counter whose first value is read as 50, no increase is known
    for alert in rules.alerts():
        if alert.name == "HeadraceAvailabilityBudgetBurns":
            fired = watch.wait_until_it_fires(alert.name, 180, deployment=NAME, window=alert.labels["window"])
            assert fired["labels"]["severity"] == alert.severity


def test_what_prometheus_counts_is_what_the_front_counted(url: str, watch: Watch, head: Head) -> None:
    """The front writes once a second, Ray's agent passes it on, Prometheus reads it every ten."""

    def equal() -> bool:
        text = httpx.get(f"http://127.0.0.1:{head.port_block + 4}/metrics", timeout=30, trust_env=False).text
        lines = [line for line in text.splitlines() if line.startswith(f"{names.REQUESTS}{{")]
        whole = sum(float(line.rpartition(" ")[2]) for line in lines if f'deployment="{NAME}"' in line)
        assert counted(watch, f"sum({OURS})") == whole
        assert counted(watch, FAILED) == 50
        return True

    eventually(equal, 180, pause_seconds=1)


def test_why_a_request_failed_stands_in_the_log_that_the_runbook_reads(url: str, head: Head) -> None:
    (log,) = (head.log_dir / "serve").glob(f"replica_{NAME}_*.log")
    before = log.read_text().count("too bright")
    ask(url, RAISES, 1)
    eventually(lambda: log.read_text().count("too bright") > before, 60)
    told = log.read_text()
    ask(url, GOOD, 20)
    assert log.read_text() == told, "a request that is answered writes no line"
