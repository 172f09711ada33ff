"""Runs that Kubeflow starts by its clock find out who they are, every step the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import RunFailed
from headrace.base.ids import is_run_id
from headrace.spec import load_spec
from headrace.steps.scheduled import run_of, run_uri
from headrace.store import Store
from headrace.store.step_files import read_note

SPEC = {"name": "digits", "task": "image-classification", "data": {"source": "builtin:digits"}, "model": "resnet8"}
JOB = "6f9b0f1e-52e1-4c7c-9a39-0d2d6d4a3c11"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HEADRACE_STORE", str(tmp_path / "store"))
    return Store()


def request(store: Store) -> str:
    asked: dict[str, Any] = {
        "name": "digits",
        "target": "prod",
        "spec": load_spec(SPEC).to_record(),
        "git": None,
        "no_cache": False,
        "arguments": {"split_spec": "s"},
    }
    return store.put_spec(asked)


def test_a_run_that_was_given_an_id_keeps_it(store: Store) -> None:
    assert run_of("digits-aaaaaaaa", "", JOB) == "digits-aaaaaaaa"
    assert not store.names(store.uri("runs"))


def test_every_step_of_a_scheduled_run_derives_the_same_id_and_another_run_another(store: Store) -> None:
    uri = request(store)
    first = run_of("", uri, JOB)
    assert is_run_id(first)
    assert first.startswith("digits-")
    assert run_of("", uri, JOB) == first
    assert run_of("", uri, JOB.replace("6", "7")) != first


def test_the_first_step_writes_the_run_down(store: Store) -> None:
    run_id = run_of("", request(store), JOB)
    record = store.read_json(run_uri(store, run_id))
    assert (record["run_id"], record["kubeflow_run_id"], record["target"]) == (run_id, JOB, "prod")
    assert record["arguments"] == {"split_spec": "s"}
    assert store.current_attempt(run_id) == "1"
    assert (read_note(store, run_id, "origin") or {})["spec"]["name"] == "digits"
    run_of("", request(store), JOB)
    assert store.read_json(run_uri(store, run_id)) == record


def test_a_request_that_is_gone_says_so(store: Store) -> None:
    with pytest.raises(RunFailed, match="is not in the store"):
        run_of("", store.uri("specs", "gone.json"), JOB)
