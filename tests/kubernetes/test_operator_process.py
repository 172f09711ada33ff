"""`headrace operator` as a pod would run it: from the extra alone, by environment, with the shipped rights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_operators.rbac import NAME
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.objects import training_run
from headrace_testbed.ours import install_rbac
from headrace_testbed.replica import Replica, wait_for_lease
from headrace_testbed.waiting import eventually
from headrace_testbed.wire import Wire

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "ray", "mlflow", "kfp", "numpy", "pandas", "pyarrow", "kubernetes")
IDLE_MIB = 90  # 63 measured
INSTALLED_MB = 150  # 96 measured

Start = Callable[..., Replica]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel, its `operator` extra at the locked versions, nothing else."""
    folder = tmp_path_factory.mktemp("operator")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "-q", "--wheel", "--out-dir", folder / "dist", ROOT], check=True)
    (wheel,) = (folder / "dist").glob("headrace-*.whl")
    venv.create(folder / "env")
    pins = re.findall(r"^([a-z0-9._-]+==[^ ]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    (folder / "constraints.txt").write_text("\n".join(pins))
    install = [uv, "pip", "install", "-q", "--python", folder / "env/bin/python", "--compile-bytecode"]
    subprocess.run([*install, "-c", folder / "constraints.txt", f"headrace[operator] @ file://{wheel}"], check=True)
    return folder / "env" / "bin"


@pytest.fixture
def start(control_plane: ControlPlane, crds: None, installed: Path, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Starts the operator as a pod of its own ServiceAccount would; every setting by its environment variable."""
    install_rbac(control_plane, namespace)
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "ca.crt").write_bytes(control_plane.pki.ca_file.read_bytes())
    (account / "namespace").write_text(namespace)
    (account / "token").write_text(control_plane.service_account_token(namespace, NAME))
    host, port = control_plane.url.removeprefix("https://").split(":")
    started: list[Replica] = []

    def run(**settings: str) -> Replica:
        names = {
            "SERVICE_ACCOUNT_FOLDER": str(account),
            "METRICS_ADDRESS": "127.0.0.1:0",
            "HEALTH_ADDRESS": "127.0.0.1:0",
            "NAMESPACE": namespace,
            **{name: value for name, value in settings.items() if not name.startswith("KUBERNETES")},
        }
        env = {f"HEADRACE_OPERATOR_{name}": value for name, value in names.items()}
        env |= {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        env |= {name: value for name, value in settings.items() if name.startswith("KUBERNETES")}
        replica = Replica("operator", [installed / "headrace", "operator"], tmp_path / f"{len(started)}.log", env)
        started.append(replica)
        replica.start()
        return replica

    yield run
    for replica in started:
        replica.kill()


def test_the_extra_brings_nothing_heavy_and_is_small(installed: Path) -> None:
    code = f"import importlib.util as u; print([m for m in {HEAVY!r} if u.find_spec(m)])"
    shown = subprocess.run([installed / "python", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    library = installed.parent / "lib"
    size = sum(file.stat().st_size for file in library.rglob("*") if file.is_file()) / 1e6
    print(f"installed: {size:.0f} MB")
    assert size < INSTALLED_MB


def test_it_starts_acts_is_small_and_stops_in_peace(control_plane: ControlPlane, start: Start, namespace: str) -> None:
    replica = start()
    wait_for_lease(control_plane.api, namespace, "headrace-operator", replica.identity)
    assert replica.page("/readyz").text == "ok\n"
    print(f"idle: {replica.resident_mib:.0f} MiB")
    assert replica.resident_mib < IDLE_MIB
    control_plane.api.apply(training_run("digits"), namespace=namespace)

    def conditions() -> dict[str, str]:
        path = f"/apis/headrace.dev/v1alpha1/namespaces/{namespace}/trainingruns/digits"
        found = control_plane.api.get(path).get("status", {}).get("conditions", ())
        return {condition["type"]: condition["status"] for condition in found}

    eventually(lambda: "Accepted" in conditions())
    problems = [line for line in replica.lines() if line["level"] in ("warning", "error")]
    assert problems == []
    replica.terminate()
    assert replica.exit_code() == 0


def test_an_api_server_that_is_away_is_waited_for(control_plane: ControlPlane, start: Start) -> None:
    with Wire(int(control_plane.url.rsplit(":", 1)[1])) as wire:
        wire.cut()
        replica = start(KUBERNETES_SERVICE_PORT=str(wire.port))
        replica.wait_until_it_said("cannot watch")
        assert replica.page("/healthz").status_code == 200
        assert replica.page("/readyz").status_code == 503
        wire.mend()
        replica.wait_until_it_said("holding the lease")
        assert replica.page("/readyz").status_code == 200


def outcome(installed: Path, *flags: str, **env: str) -> tuple[int, dict[str, Any] | str]:
    done = subprocess.run(
        [installed / "headrace", "operator", *flags],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stderr


def test_without_an_api_server_in_sight_it_ends_and_says_what_to_do(installed: Path, tmp_path: Path) -> None:
    code, said = outcome(installed, HEADRACE_HOME=str(tmp_path))
    assert code == 4
    assert "--kubeconfig" in said


def test_an_address_that_is_none_is_told_before_anything_is_done(installed: Path, tmp_path: Path) -> None:
    code, said = outcome(installed, "--metrics-address", "8080", HEADRACE_HOME=str(tmp_path))
    assert code == 2
    assert "127.0.0.1:8080" in said


def test_an_address_that_is_taken_is_told_with_what_to_do(start: Start) -> None:
    first = start(HEALTH_ADDRESS="")
    port = first.wait_until_it_said("listening")["port"]
    second = start(HEALTH_ADDRESS="", METRICS_ADDRESS=f"127.0.0.1:{port}")
    assert second.exit_code() == 2
    assert "address already in use" in second.log_end().lower()
    assert "--metrics-address" in second.log_end()


def test_its_log_lines_name_controller_and_object(start: Start, namespace: str, control_plane: ControlPlane) -> None:
    replica = start(LOG_LEVEL="debug")
    replica.wait_until_it_said("holding the lease")
    control_plane.api.apply(training_run("digits"), namespace=namespace)
    about = {"controller": "trainingrun", "namespace": namespace, "name": "digits"}
    eventually(lambda: any(about.items() <= line.items() for line in replica.lines()))
    replica.terminate()
    assert replica.exit_code() == 0
    for line in replica.log.read_text().splitlines():
        assert {"time", "level", "message"} <= json.loads(line).keys()
