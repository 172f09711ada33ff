"""The ModelMonitor operator, as a process, against a real Prometheus that scrapes what fronts export.

The exporter is the test's own, so that it can force an error rate; its names are held to the front's by
`tests/local/test_serving_endpoint.py`, which reads them from a real one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.serving.measures import SECONDS
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.model_deployments import events, model_deployment
from headrace_testbed.prometheus import Prometheus
from headrace_testbed.stand_in import Reply, StandIn
from headrace_testbed.training_runs import OperatorProcess, condition
from headrace_testbed.waiting import eventually

Object = dict[str, Any]
MONITORS = "/apis/headrace.dev/v1alpha1/namespaces/{}/modelmonitors"
DEPLOYMENTS = "/apis/headrace.dev/v1alpha1/namespaces/{}/modeldeployments"
PER_SECOND = 40.0
LATENCY = 0.03  # falls into the bucket from 0.025 to 0.05


class FrontExporter(StandIn):
    """Exports what the fronts of one deployment would under PER_SECOND requests, of which `errors` are answered 500."""

    def __init__(self) -> None:
        super().__init__()
        self.errors = 0.0
        self._asked_at = time.monotonic()
        self._counts = {"200": 1.0, "500": 1.0}  # both are there from the start: an increase needs two samples

    def reply(self, path: str, asked: Object) -> Reply:
        """See `StandIn.reply`."""
        return Reply(self.page().encode(), content_type="text/plain; version=0.0.4")

    def page(self) -> str:
        """What Ray's metrics agent would answer."""
        now = time.monotonic()
        new, self._asked_at = (now - self._asked_at) * PER_SECOND, now
        self._counts["200"] += new * (1 - self.errors)
        self._counts["500"] += new * self.errors
        of = 'deployment="digits",version="7"'
        lines = [f'ray_headrace_requests_total{{{of},code="{code}"}} {n}' for code, n in self._counts.items()]
        whole = sum(self._counts.values())
        for bound in SECONDS:
            count = whole if bound > LATENCY else 0.0
            lines.append(f'ray_headrace_request_seconds_bucket{{{of},le="{bound}"}} {count}')
        lines.append(f'ray_headrace_request_seconds_bucket{{{of},le="+Inf"}} {whole}')
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def exporter() -> Iterator[FrontExporter]:
    with FrontExporter() as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(exporter: FrontExporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    scrape = {"job_name": "fronts", "static_configs": [{"targets": [exporter.address]}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
    with Prometheus(config, folder) as server:
        yield server


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, crds: None) -> Iterator[OperatorProcess]:
    with OperatorProcess(control_plane, "model_monitor") as process:
        yield process


def monitor(url: str, **spec: Any) -> Object:
    whole = {
        "deploymentName": "digits",
        "prometheus": {"url": url},
        "intervalSeconds": 5,
        "windowSeconds": 15,
        "objectives": {"maxErrorRatio": 0.05, "maxP99Seconds": 0.5},
    }
    metadata = {"name": "watch"}
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "ModelMonitor",
        "metadata": metadata,
        "spec": whole | spec,
    }


def watched(plane: ControlPlane, namespace: str, url: str, **spec: Any) -> str:
    """A deployment and a monitor of it; the monitor's path."""
    plane.api.post(DEPLOYMENTS.format(namespace), model_deployment("digits", "http://127.0.0.1:9"))
    plane.api.post(MONITORS.format(namespace), monitor(url, **spec))
    return f"{MONITORS.format(namespace)}/watch"


def test_a_forced_error_rate_appears_in_status_conditions_events_and_metrics_and_goes_again(
    control_plane: ControlPlane,
    operator: OperatorProcess,
    prometheus: Prometheus,
    exporter: FrontExporter,
    namespace: str,
) -> None:
    path = watched(control_plane, namespace, prometheus.url)
    eventually(lambda: condition(control_plane.api.get(path), "Healthy") == ("True", "ObjectivesKept"))
    status = control_plane.api.get(path)["status"]
    assert (status["errorRatio"], status["message"]) == (0.0, "")
    assert status["p50Seconds"] == pytest.approx(0.0375)
    assert status["p99Seconds"] == pytest.approx(0.04975)

    exporter.errors = 0.25
    started = time.monotonic()
    eventually(lambda: condition(control_plane.api.get(path), "Healthy") == ("False", "ObjectivesBroken"))
    print(f"broken objectives are told after {time.monotonic() - started:.1f} s (measured every 5 s)")

    def quarter() -> Object:
        """Of a window that Prometheus has read whole: on a busy machine some of its readings come late."""
        seen = control_plane.api.get(path)["status"]
        assert seen["errorRatio"] == pytest.approx(0.25, abs=0.01)
        assert seen["requests"] == pytest.approx(15 * PER_SECOND, rel=0.2)
        return seen

    status = eventually(quarter)
    assert status["message"].startswith("error ratio 0.2")
    assert status["message"].endswith(" is above 0.05")
    told = events(control_plane, namespace, "watch", "ModelMonitor")
    assert "is above 0.05" in told["ObjectivesBroken"]
    of = f'{{deployment="digits",name="watch",namespace="{namespace}"}}'

    def exported() -> bool:
        text = httpx.get(f"http://{operator.metrics_address}/metrics", timeout=60, trust_env=False).text
        assert f"headrace_monitor_healthy{of} 0.0" in text
        ratio = next(line for line in text.splitlines() if line.startswith(f"headrace_monitor_error_ratio{of}"))
        assert float(ratio.rpartition(" ")[2]) == pytest.approx(0.25, abs=0.01)
        return True

    eventually(exported)

    exporter.errors = 0.0
    eventually(lambda: condition(control_plane.api.get(path), "Healthy") == ("True", "ObjectivesKept"))


def test_it_is_written_once_an_interval_and_no_more(
    control_plane: ControlPlane, operator: OperatorProcess, prometheus: Prometheus, namespace: str
) -> None:
    path = watched(control_plane, namespace, prometheus.url)
    eventually(lambda: condition(control_plane.api.get(path), "Healthy")[0] == "True")

    def measured() -> datetime:
        return datetime.fromisoformat(control_plane.api.get(path)["status"]["measuredTime"])

    def written(resource: str) -> int:
        return sum(event["objectRef"]["resource"] == resource for event in operator.writes(namespace))

    first = measured()
    time.sleep(1)  # until the audit log has told of it, too
    before, told = written("modelmonitors"), written("events")
    eventually(lambda: written("modelmonitors") - before >= 4, 60)  # 20 s of a machine that is not busy
    writes = written("modelmonitors") - before
    seconds = (measured() - first).total_seconds()
    assert writes <= seconds / 5 + 1, f"{writes} writes in {seconds:.0f} s"  # times are cut to whole seconds
    assert written("events") - told < 3, "an event each time, though nothing has changed"


def test_without_data_nothing_is_called_healthy(
    control_plane: ControlPlane, operator: OperatorProcess, prometheus: Prometheus, namespace: str
) -> None:
    control_plane.api.post(DEPLOYMENTS.format(namespace), model_deployment("idle", "http://127.0.0.1:9"))
    control_plane.api.post(MONITORS.format(namespace), monitor(prometheus.url, deploymentName="idle"))
    path = f"{MONITORS.format(namespace)}/watch"
    eventually(lambda: condition(control_plane.api.get(path), "Measured") == ("False", "NoData"))
    assert condition(control_plane.api.get(path), "Healthy") == ("Unknown", "NoData")
    assert "Prometheus has no requests of idle" in control_plane.api.get(path)["status"]["message"]


def test_a_prometheus_that_is_not_there_is_told(
    control_plane: ControlPlane, operator: OperatorProcess, namespace: str
) -> None:
    path = watched(control_plane, namespace, "http://127.0.0.1:9")
    eventually(lambda: condition(control_plane.api.get(path), "Measured") == ("False", "PrometheusUnreachable"))
    assert condition(control_plane.api.get(path), "Healthy")[0] == "Unknown"


def test_a_deployment_that_is_made_later_wakes_its_monitor(
    control_plane: ControlPlane, operator: OperatorProcess, prometheus: Prometheus, namespace: str
) -> None:
    control_plane.api.post(
        MONITORS.format(namespace), monitor(prometheus.url, intervalSeconds=3600, windowSeconds=3600)
    )
    path = f"{MONITORS.format(namespace)}/watch"
    eventually(lambda: condition(control_plane.api.get(path), "Accepted") == ("False", "DeploymentNotFound"))
    control_plane.api.post(DEPLOYMENTS.format(namespace), model_deployment("digits", "http://127.0.0.1:9"))
    eventually(lambda: condition(control_plane.api.get(path), "Accepted")[0] == "True")
