"""The store: the same behaviour on a local folder and on an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.base.errors import Superseded
from headrace.store import Store, attempt_order


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}")


def test_what_is_written_is_read_back_and_absence_is_none(store: Store) -> None:
    uri = store.write_json(store.uri("runs", "r", "x.json"), {"a": [1, "ü"]})
    assert store.read_json(uri) == {"a": [1, "ü"]}
    assert store.read_json(store.uri("nothing.json")) is None
    assert store.exists(uri)
    assert not store.exists(store.uri("nothing.json"))


def test_what_is_removed_is_gone_and_may_have_been_before(store: Store) -> None:
    uri = store.write_json(store.uri("x.json"), 1)
    store.remove(uri)
    assert not store.exists(uri)
    store.remove(uri)


def test_a_spec_lies_under_its_own_hash(store: Store) -> None:
    first, second = store.put_spec({"b": 1, "a": 2}), store.put_spec({"a": 2, "b": 1})
    assert first == second
    assert store.read_json(first) == {"a": 2, "b": 1}


def test_the_cache_recalls_only_the_same_step_and_key(store: Store) -> None:
    store.remember("split", "k1", {"fingerprint": "f"})
    assert store.recall("split", "k1") == {"fingerprint": "f"}
    assert store.recall("split", "k2") is None
    assert store.recall("train", "k1") is None


def test_a_folder_is_copied_with_its_marker_last_and_only_once(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "package"
    (source / "code").mkdir(parents=True)
    (source / "headrace.json").write_text("{}")
    (source / "code" / "net.py").write_text("x = 1")
    written: list[list[str]] = []
    original = store._put

    def spy(files: list[Path], paths: list[str]) -> None:
        written.append([file.name for file in files])
        original(files, paths)

    store._put = spy  # type: ignore[method-assign]
    uri = store.uri("packages", "abc")
    store.put_folder(source, uri, marker="headrace.json")
    assert written == [["net.py"], ["headrace.json"]]
    store.put_folder(source, uri, marker="headrace.json")
    assert len(written) == 2
    copied = store.get_folder(uri, tmp_path / "copy")
    assert (copied / "code" / "net.py").read_text() == "x = 1"


def test_an_older_attempt_may_not_write(store: Store) -> None:
    store.check_attempt("r", "1.1")
    store.claim_attempt("r", "2.1")
    store.check_attempt("r", "2.1")
    store.check_attempt("r", "2.2")
    with pytest.raises(Superseded, match=r"attempt 1\.9 of run r was superseded by attempt 2\.1"):
        store.check_attempt("r", "1.9")


def test_attempts_are_ordered_as_numbers() -> None:
    assert attempt_order("10.1") > attempt_order("9.12")
    assert attempt_order("2.1") > attempt_order("2")


def test_the_default_store_lies_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.delenv("HEADRACE_STORE", raising=False)
    assert Store().url == str(tmp_path / "store")
