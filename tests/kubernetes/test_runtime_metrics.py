"""A real Prometheus scrapes a running operator: each metric of the runtime has the value that the test forced."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from headrace_operators.runtime import metrics
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.prometheus import Prometheus
from headrace_testbed.replica import Replica
from headrace_testbed.waiting import eventually
from headrace_testbed.wire import Wire

PUPPET = Path(__file__).parent / "testbed" / "puppet_operator.py"
SPACE = "measured"
OF_PUPPET = '{controller="puppet"}'
QUEUE = '{name="puppet"}'


@pytest.fixture(scope="module")
def wire(control_plane: ControlPlane) -> Iterator[Wire]:
    with Wire(int(control_plane.url.rsplit(":", 1)[1])) as made:
        yield made


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    control_plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    folder = tmp_path_factory.mktemp("puppet")
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = SPACE
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{wire.port}"
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    env = {"KUBECONFIG": str(folder / "kubeconfig"), "NAMESPACE": SPACE}
    replica = Replica("puppet", [sys.executable, PUPPET], folder / "operator.log", env)
    replica.start()
    replica.wait_until_it_said("holding the lease")
    yield replica
    replica.kill()


@pytest.fixture(scope="module")
def prometheus(operator: Replica, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    port = operator.wait_until_it_said("listening")["port"]
    job = {"job_name": "operator", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    config = {"global": {"scrape_interval": "500ms"}, "scrape_configs": [job]}
    with Prometheus(config, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


class Scraped:
    """What Prometheus knows of the operator."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus

    def value(self, expression: str) -> float:
        """The sum of an instant query; 0 where there is nothing."""
        return sum(float(sample["value"][1]) for sample in self._prometheus.query(expression))

    def becomes(self, expression: str, wanted: float) -> None:
        """Wait until it is so."""

        def look() -> bool:
            assert (found := self.value(expression)) == wanted, f"{expression} is {found}, not {wanted}"
            return True

        eventually(look)

    def reaches(self, expression: str, least: float) -> None:
        """Wait until it is at least so much."""

        def look() -> bool:
            assert (found := self.value(expression)) >= least, f"{expression} is {found}, not {least} or more"
            return True

        eventually(look)


@pytest.fixture
def scraped(prometheus: Prometheus) -> Scraped:
    return Scraped(prometheus)


def puppet(plane: ControlPlane, do: str, name: str) -> None:
    metadata = {"name": name, "namespace": SPACE, "labels": {"puppet": "yes"}}
    plane.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"do": do}})


def test_every_documented_metric_of_the_runtime_has_the_value_that_was_forced(
    control_plane: ControlPlane, wire: Wire, scraped: Scraped, prometheus: Prometheus
) -> None:
    plane = control_plane
    for number in range(3):
        puppet(plane, "succeed", f"fine-{number}")
    scraped.becomes('controller_runtime_reconcile_total{controller="puppet",result="success"}', 3)
    scraped.becomes(f"workqueue_adds_total{QUEUE}", 3)
    scraped.becomes(f"workqueue_queue_duration_seconds_count{QUEUE}", 3)
    scraped.becomes(f"workqueue_work_duration_seconds_count{QUEUE}", 3)
    scraped.becomes(f"controller_runtime_reconcile_time_seconds_count{OF_PUPPET}", 3)
    scraped.becomes('headrace_cache_objects{controller="puppet",kind="ConfigMap"}', 3)
    assert 300 < scraped.value("headrace_cache_bytes") < 3000

    puppet(plane, "wait", "waiting")
    scraped.becomes('controller_runtime_reconcile_total{result="requeue_after"}', 1)
    assert scraped.value("workqueue_retries_total") == 0
    assert scraped.value("controller_runtime_reconcile_errors_total") == 0

    puppet(plane, "storm", "stormy")
    scraped.becomes('headrace_events_total{result="written"}', 25)
    scraped.becomes('headrace_events_total{result="dropped"}', 5)
    scraped.becomes('rest_client_requests_total{code="201",method="POST"}', 25 + 1)  # and the Lease

    puppet(plane, "conflict", "conflicting")
    scraped.reaches('controller_runtime_reconcile_total{result="requeue"}', 3)
    scraped.reaches("workqueue_retries_total", 3)
    assert scraped.value("controller_runtime_reconcile_errors_total") == 0

    puppet(plane, "fail", "failing")
    scraped.reaches("controller_runtime_reconcile_errors_total", 3)
    puppet(plane, "create what is refused", "refused")
    scraped.reaches('rest_client_requests_total{code="422",method="POST"}', 1)
    scraped.reaches('headrace_events_total{result="counted"}', 1)
    for name in ("conflicting", "failing", "refused"):
        plane.api.delete(f"/api/v1/namespaces/{SPACE}/configmaps/{name}")
    scraped.becomes("headrace_cache_objects", 5)

    for number in range(2):
        puppet(plane, "hang", f"hanging-{number}")
    scraped.becomes(f"controller_runtime_active_workers{OF_PUPPET}", 2)
    assert scraped.value(f"controller_runtime_max_concurrent_reconciles{OF_PUPPET}") == 2
    longest = f"workqueue_longest_running_processor_seconds{QUEUE}"
    scraped.reaches(longest, 1.0)
    # The younger of the two comes after the older one, and catches up.
    scraped.reaches(f"count(workqueue_unfinished_work_seconds{QUEUE} > 1.2 * {longest})", 1)
    for number in range(4):
        puppet(plane, "succeed", f"late-{number}")
    scraped.becomes(f"workqueue_depth{QUEUE}", 4)

    wire.cut()
    wire.mend()  # what was open is broken; a leader that is cut off for longer ends itself
    scraped.reaches('headrace_watch_ends_total{kind="ConfigMap",why="error"}', 1)
    scraped.reaches('rest_client_requests_total{code="<error>"}', 1)
    assert scraped.value('leader_election_master_status{name="puppet"}') == 1

    theirs = ("headrace_training_", "headrace_deployment", "headrace_monitor_", "headrace_mlflow_", "headrace_backup_")
    for metric in metrics.TABLE.values():
        if not metric.name.startswith(theirs):
            series = metric.name + ("_count" if metric.type == "histogram" else "")
            found = prometheus.query(series)
            assert found, f"{series} has no data"
            labels = set(found[0]["metric"]) - {"__name__", "job", "instance"}
            assert labels == set(metric.labels), series


def test_what_it_says_of_its_process_is_so(scraped: Scraped, operator: Replica) -> None:
    scraped.reaches("process_resident_memory_bytes", 30e6)
    assert 0.8 < scraped.value("process_resident_memory_bytes") / 2**20 / operator.resident_mib < 1.25
    assert scraped.value("process_cpu_seconds_total") > 0
    assert 5 < scraped.value("process_open_fds") < scraped.value("process_max_fds")
    assert scraped.value("time() - process_start_time_seconds") < 600
