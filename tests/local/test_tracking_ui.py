"""MLflow's pages on this machine's store, and an MLflow server as the tracking store."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from headrace.base.errors import Unavailable
from headrace.base.jsonfile import read_json, write_json
from headrace.base.processes import ProcessRef
from headrace.tracking import Reporter, TrackedRun, registry, service, ui
from headrace_testbed.processes import free_port


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of this module's own, with a port that is not the one people use."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(place))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_json(place / "mlflow" / "ui.json", {"port": free_port()})
        yield place
        ui.stop()
        service.stop()


@pytest.fixture(scope="module")
def pages(home: Path) -> ui.Ui:
    return ui.start()


def test_the_pages_show_this_machines_runs_and_listen_on_loopback_only(pages: ui.Ui) -> None:
    TrackedRun.open("shown-aaaaaaaa", "shown").finish()
    assert httpx.get(pages.url, timeout=60).status_code == 200
    search = f"{pages.address}/api/2.0/mlflow/experiments/search"
    found = httpx.post(search, json={"max_results": 10}, timeout=60).json()
    assert "shown" in {experiment["name"] for experiment in found["experiments"]}
    assert pages.process is not None
    parent = psutil.Process(pages.process.pid)
    family = [parent, *parent.children(recursive=True)]
    assert len(family) <= 3  # the command, one worker
    listeners = [c.laddr.ip for process in family for c in process.net_connections("tcp") if c.status == "LISTEN"]
    assert set(listeners) == {"127.0.0.1"}


def test_a_second_start_finds_the_first(pages: ui.Ui) -> None:
    assert ui.start() == pages == ui.running()


def test_a_server_that_is_slow_for_a_moment_is_not_started_anew(pages: ui.Ui) -> None:
    assert pages.process is not None
    server = psutil.Process(pages.process.pid)
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.suspend()
    threading.Timer(2.5, lambda: [process.resume() for process in family]).start()
    assert ui.start() == pages


def test_a_server_serves_as_tracking_store_and_registry(
    pages: ui.Ui, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", pages.address)
    (tmp_path / "curve.png").write_bytes(b"png")
    run = TrackedRun.open("remote-aaaaaaaa", "remote")
    run.log_params({"train": {"epochs": 2}})
    run.log_pictures(tmp_path)
    reporter = Reporter(run.tracking_uri, run.mlflow_run_id)
    for epoch in (0, 1, 1):
        reporter.log_epoch(epoch, {"train.loss": 1.0 / (epoch + 1)})
    reporter.close()
    assert TrackedRun.open("remote-aaaaaaaa", "remote").mlflow_run_id == run.mlflow_run_id
    version = registry.register(
        "remote", package_uri="s3://b/p", package_sha256="ab" * 32, mlflow_run_id=run.mlflow_run_id
    )
    registry.set_alias("remote", "champion", version.version)
    assert registry.resolve("remote@champion") == registry.resolve("remote/1")
    run.finish()
    assert run.to_record()["tracking_uri"] == pages.address
    assert ui.start() == ui.Ui(pages.address, None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    history = httpx.get(
        f"{pages.address}/api/2.0/mlflow/metrics/get-history",
        params={"run_id": run.mlflow_run_id, "metric_key": "train.loss"},
        timeout=60,
    ).json()
    assert [(point["step"], point["value"]) for point in history["metrics"]] == [(0, 1.0), (1, 0.5)]


def test_stopping_ends_the_server_with_all_its_processes_and_the_port_is_remembered(pages: ui.Ui, home: Path) -> None:
    assert pages.process is not None
    children = psutil.Process(pages.process.pid).children(recursive=True)
    family = [found for child in children if (found := ProcessRef.of(child.pid)) is not None]
    assert family
    assert ui.stop()
    assert not pages.process.alive()
    assert not [process for process in family if process.alive()]
    assert ui.running() is None
    assert not ui.stop()
    port = read_json(home / "mlflow" / "ui.json")["port"]
    assert pages.address.endswith(f":{port}")
    assert ui.free_port(port) == port


def test_a_strangers_program_on_the_remembered_port_is_left_alone(home: Path) -> None:
    port = read_json(home / "mlflow" / "ui.json")["port"]
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        assert ui.free_port(port) != port


def test_a_strangers_server_is_never_taken_for_ours(home: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        write_json(
            home / "mlflow" / "ui.json",
            {"port": 1, "process": {"pid": stranger.pid, "started": 1, "boot": "another"}, "tracking_uri": "x"},
        )
        assert ui.running() is None
        assert not ui.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_that_went_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="cannot be reached"):
        ui.start()
