"""doctor says what is lacking and the command that mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.cli.machine_report import render_doctor
from headrace.steps import doctor


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"


def one(look: Any) -> doctor.Check:
    (check,) = look()
    assert isinstance(check, doctor.Check)
    return check


def test_every_lack_has_something_that_mends_it() -> None:
    checks = doctor.examine()
    assert {check.name for check in checks} >= {
        "python",
        "processes",
        "home",
        "disk",
        "machine",
        "gpu",
        "ray head",
        "mlflow",
    }
    assert all(check.mend for check in checks if check.state != "ok")
    assert "python" in render_doctor(checks)


def test_a_home_that_others_can_read_is_broken(home: Path) -> None:
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    check = one(doctor._home)
    assert (check.state, check.mend) == ("broken", f"chmod 700 {home}")
    home.chmod(0o700)
    assert one(doctor._home).state == "ok"


def test_an_extra_that_is_not_installed_names_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert [check.mend for check in doctor._extras()] == [
        "pip install 'headrace[train]'",
        "pip install 'headrace[serve]'",
        "pip install 'headrace[pipelines]'",
    ]
    assert list(doctor._haproxy()) == []


def test_bytecode_that_is_missing_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_uncompiled", lambda module: True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    check = one(doctor._bytecode)
    assert "PYTHONDONTWRITEBYTECODE" in check.detail
    assert "compileall" in check.mend


def test_a_full_disk_an_old_python_and_little_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK_BYTES", 1 << 60)
    monkeypatch.setattr(doctor, "LEAST_MEMORY_BYTES", 1 << 60)
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1))
    assert one(doctor._disk).mend == "headrace gc --yes"
    assert one(doctor._cores).state == "note"
    assert one(doctor._python).state == "broken"


def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.local.ray_head.available_gpus", lambda: 2)
    monkeypatch.setattr(doctor, "version", lambda name: "2.15.0+cpu")
    assert "CPUs only" in one(doctor._gpus).detail


def test_a_head_that_died_and_one_that_does_not_answer_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Leader:
        pid = 7

        def __init__(self, alive: bool) -> None:
            self._alive = alive

        def alive(self) -> bool:
            return self._alive

    class Head:
        log_path, num_cpus, num_gpus, address = "/l", 2, 0, "a"

        def __init__(self, alive: bool) -> None:
            self.leader = Leader(alive)

    for alive, answers, mend in ((False, False, "headrace up"), (True, False, "headrace down --yes && headrace up")):
        monkeypatch.setattr("headrace.local.head_record.read_head", lambda alive=alive: Head(alive))
        monkeypatch.setattr("headrace.local.ray_head.answers", lambda head, answers=answers: answers)
        assert one(doctor._head).mend == mend
    monkeypatch.setattr("headrace.local.ray_head.answers", lambda head: True)
    assert one(doctor._head).state == "ok"


def test_a_port_that_somebody_else_took_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.local.ray_head.find_head", lambda: None)
    monkeypatch.setattr("headrace.local.head_record.remembered_serve_port", lambda: 8000)
    monkeypatch.setattr("headrace.local.ports.free_serve_port", lambda remembered: 8001)
    check = one(doctor._ports)
    assert (check.state, check.mend) == ("note", "ss -ltnp 'sport = :8000'")


def test_an_mlflow_server_that_is_down_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.base.errors import Unavailable

    def down(uri: str) -> None:
        raise Unavailable("it is down", action="start it")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000")
    monkeypatch.setattr("headrace.tracking.connection.open_store", down)
    check = one(doctor._mlflow)
    assert (check.state, check.detail) == ("missing", "it is down")
    assert "secret" not in check.detail


def test_a_check_that_fails_itself_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr(doctor, "_disk", fails)
    checks = doctor.examine()
    assert any(check.state == "broken" and "odd" in check.detail for check in checks)
    assert any(check.name == "mlflow" for check in checks)
