"""The base layer: errors that cross processes, files that are whole, locks and process references."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.base import errors, events, home, ids, jsonfile
from headrace.base.locks import LockHeld, file_lock, lock_holder
from headrace.base.processes import ProcessRef, end_session, session_members


def all_errors() -> list[type[errors.HeadraceError]]:
    kinds = errors._tree(errors.HeadraceError).values()
    return [kind for kind in kinds if kind.__module__ == errors.__name__ and kind is not errors.MissingExtra]


@pytest.mark.parametrize("kind", all_errors())
def test_an_error_survives_the_way_through_a_record(kind: type[errors.HeadraceError]) -> None:
    finding = errors.Finding("train.lr", "x", "a number", "write a number")
    sent = kind("what happened", action="do this", log="/l", findings=[finding])
    got = errors.error_from_record(json.loads(json.dumps(sent.to_record())))
    assert (type(got), got.message, got.action, got.code, got.log, got.findings, got.exit_code) == (
        kind,
        "what happened",
        "do this",
        sent.code,
        "/l",
        (finding,),
        kind.exit_code,
    )


def test_a_record_of_an_unknown_error_keeps_its_words() -> None:
    got = errors.error_from_record({"type": "FromTheFuture", "message": "m", "action": "a", "code": "future"})
    assert (type(got), got.message, got.action, got.code) == (errors.HeadraceError, "m", "a", "future")


def test_a_missing_extra_names_the_pip_command() -> None:
    assert errors.MissingExtra("train", "headrace run").action == "pip install 'headrace[train]'"


def test_exit_codes_are_those_of_the_design() -> None:
    kinds = (errors.RunFailed, errors.SpecInvalid, errors.GateRefused, errors.Unavailable, errors.Cancelled)
    assert [kind("x").exit_code for kind in kinds] == [1, 2, 3, 4, 130]


def test_home_is_private_and_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "h"))
    monkeypatch.delenv("HEADRACE_STORE", raising=False)
    assert home.home() == tmp_path / "h"
    assert (tmp_path / "h").stat().st_mode & 0o777 == 0o700
    assert home.store_url() == str(tmp_path / "h" / "store")
    assert home.folder("a", "b").is_dir()
    monkeypatch.setenv("HEADRACE_STORE", "memory://s")
    assert home.store_url() == "memory://s"


@given(st.text(max_size=60))
def test_every_name_gives_a_run_id_that_is_safe_as_label_and_folder(name: str) -> None:
    run_id = ids.new_run_id(name)
    assert ids.is_run_id(run_id)
    assert len(run_id) <= 33
    assert "--" not in run_id


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "A-aaaaaaaa", "digits", "digits-short", "digits-aaaaaaaa\n"])
def test_what_is_no_run_id_is_known_as_such(bad: str) -> None:
    assert not ids.is_run_id(bad)


def test_equal_values_have_one_canonical_text() -> None:
    assert jsonfile.canonical({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    assert jsonfile.sha256_of({"a": 1, "b": 2}) == jsonfile.sha256_of({"b": 2, "a": 1})
    with pytest.raises(ValueError):
        jsonfile.canonical(float("nan"))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    jsonfile.write_json(path, {"a": 1})

    def broken(*_: object) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError):
        jsonfile.write_json(path, {"a": 2})
    assert jsonfile.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    assert jsonfile.read_json(tmp_path / "absent.json") is None


def test_a_lock_excludes_another_holder_and_names_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, slept = tmp_path / "lock", [0.0]
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)  # else a pause could use up the timeout
    monkeypatch.setattr("headrace.base.locks.time", clock)
    with file_lock(path, holder="run a-1"):
        assert lock_holder(path) == "run a-1"
        waited: list[str] = []
        with (
            pytest.raises(LockHeld) as caught,
            file_lock(path, holder="run b", timeout_seconds=0.25, on_wait=waited.append),
        ):
            pass
        assert caught.value.holder == "run a-1"
        assert waited == ["run a-1"]
        assert 0.25 <= sum(slept) < 0.5
    with file_lock(path, holder="run b", timeout_seconds=0):
        assert lock_holder(path) == "run b"
    assert lock_holder(path) is None


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time\nfrom headrace.base.locks import file_lock\n"
        f"with file_lock({str(path)!r}, holder='doomed'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.kill()
        child.wait()
    with file_lock(path, holder="next", timeout_seconds=0):
        pass


def test_a_process_is_recognised_only_while_it_lives() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        reference = ProcessRef.of(child.pid)
        assert reference is not None
        assert reference.alive()
        assert ProcessRef.from_record(json.loads(json.dumps(reference.to_record()))) == reference
        assert not ProcessRef(child.pid, reference.started - 1, reference.boot).alive()
        assert not ProcessRef(child.pid, reference.started, "another boot").send(9)
        assert [m.pid for m in session_members(child.pid)] == [child.pid]
        end_session(reference, grace_seconds=2)
        child.wait()
    assert not reference.alive()
    assert ProcessRef.from_record(None) is None
    assert ProcessRef.from_record({"pid": "x"}) is None


def test_ending_a_session_kills_what_ignores_the_polite_signal() -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", stubborn], start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        reference = ProcessRef.of(child.pid)
        assert reference is not None
        end_session(reference, grace_seconds=0.1)
        assert child.wait() == -9


def test_events_are_appended_whole_and_foreign_lines_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(events.VARIABLE, str(path))
    events.emit("metrics", step="train", epoch=1, metrics={"accuracy": 0.5})
    events.emit("message", step="train", text="two\nlines")
    lines = path.read_text().splitlines()
    parsed = [events.parse(line) for line in lines]
    assert [p and p["type"] for p in parsed] == ["metrics", "message"]
    assert events.parse('{"half') is None
    assert events.parse("[1]") is None


def test_telling_an_event_never_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(events.VARIABLE, str(tmp_path / "no" / "such" / "folder"))
    events.emit("message", text="x")


def test_without_a_file_events_go_to_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(events.VARIABLE, raising=False)
    events.emit("message", text="x")
    assert json.loads(capsys.readouterr().err)["text"] == "x"
