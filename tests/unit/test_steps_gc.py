"""gc removes what nothing refers to, and nothing else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.spec import load_spec
from headrace.steps import gc
from headrace.store import Store

OLD = time.time() - 10 * 86_400
SPEC = {"name": "x", "task": "image-classification", "data": {"source": "builtin:digits"}, "model": "resnet8"}


def sha(letter: str) -> str:
    return letter * 64


class Home:
    """A home with a store, whose files are as old as they are said to be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Path(Store().url)

    def put(self, path: Path, value: Any = "x", *, at: float = OLD) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
        os.utime(path, (at, at))
        for parent in path.parents:
            if parent.is_relative_to(self.folder):
                os.utime(parent, (at, at))
        return path

    def package(self, letter: str, *, at: float = OLD, names: str = "") -> Path:
        return self.put(self.store / "packages" / sha(letter) / "headrace.json", {"split": names}, at=at).parent

    def run(self, run_id: str, named: list[str], *, code: int | None = 0, at: float = OLD) -> Path:
        folder = self.folder / "runs" / run_id
        created = "2026-11-01T00:00:00.000+00:00"
        request = {"run_id": run_id, "name": "x", "created": created, "store": str(self.store)}
        self.put(folder / "run.json", {**request, "spec": load_spec(SPEC).to_record()})
        if code is not None:
            self.put(folder / "result.json", {"state": "succeeded", "exit_code": code}, at=at)
        self.put(self.store / "runs" / run_id / "steps" / "train" / "1.1" / "result.json", {"named": named})
        return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEADRACE_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home(tmp_path / "home")


def found(**options: Any) -> set[tuple[str, str]]:
    return {(item.kind, item.path.name) for item in gc.find(**options).garbage}


def test_an_empty_home_has_nothing_to_remove(home: Home) -> None:
    assert gc.find() == gc.Findings(())


def test_what_a_run_names_stays_and_the_rest_can_go(home: Home) -> None:
    home.run("x-aaaaaaaa", [f"/store/packages/{sha('a')}", sha("b")])
    home.package("a", names=sha("c"))
    home.put(home.store / "splits" / sha("b") / "split.json")
    home.put(home.store / "splits" / sha("c") / "split.json")  # named by the package that stays
    home.put(home.store / "specs" / f"{sha('d')}.json", {"code": sha("e")})
    home.put(home.store / "code" / f"{sha('e')}.tar")
    home.package("f")
    home.put(home.store / "evaluations" / sha("f") / f"{sha('b')}.json")
    home.put(home.store / "index" / "train" / f"{sha('1')}.json", {"package": sha("f")})
    home.put(home.store / "index" / "train" / f"{sha('2')}.json", {"package": sha("a")})
    assert found() == {
        ("specs", f"{sha('d')}.json"),
        ("code", f"{sha('e')}.tar"),
        ("packages", sha("f")),
        ("evaluations", sha("f")),
        ("cache entry", f"{sha('1')}.json"),
    }


def test_what_a_spec_that_stays_names_stays(home: Home) -> None:
    home.run("x-aaaaaaaa", [sha("d")])
    home.put(home.store / "specs" / f"{sha('d')}.json", {"code": sha("e")})
    home.put(home.store / "code" / f"{sha('e')}.tar")
    assert found() == set()


def test_packages_of_versions_and_endpoints_stay(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "_registered", lambda: {sha("a")})
    for letter in "abc":
        home.package(letter)
    stable = {"version": "1", "package_uri": f"/s/packages/{sha('b')}", "sha256": sha("b")}
    wish = {"model": "m", "stable": stable, "replicas": 1, "resources": {}, "config_id": "1-a"}
    home.put(home.folder / "serve" / "applications.json", {"format": 1, "applications": {"m": wish}})
    monkeypatch.setattr(
        gc.desired_state, "read_desired", lambda: {"m": gc.desired_state.Deployment.from_record("m", wish)}
    )
    assert found() == {("packages", sha("c"))}


def test_what_is_young_stays_whatever_names_it(home: Home) -> None:
    home.package("a", at=time.time() - 60)
    assert found() == set()
    assert found(now=time.time() + 7200) == {("packages", sha("a"))}


def test_while_a_run_goes_on_nothing_younger_than_it_is_touched(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.run("x-aaaaaaaa", [], code=None)
    monkeypatch.setattr(gc.LocalRun, "exit_code", lambda self: None)
    home.package("a")
    home.put(home.folder / "runs" / "x-aaaaaaaa" / "tmp" / "busy")
    assert found() == set()


def test_a_run_that_succeeded_needs_no_checkpoints_and_one_that_did_not_keeps_them(home: Home) -> None:
    for run_id, code in (("x-aaaaaaaa", 0), ("x-bbbbbbbb", 1)):
        home.run(run_id, [], code=code)
        home.put(home.store / "runs" / run_id / "checkpoints" / "checkpoint_1" / "state.pt")
        home.put(home.folder / "runs" / run_id / "tmp" / "left")
    items = {(item.kind, str(item.path.relative_to(home.folder))) for item in gc.find().garbage}
    assert items == {
        ("temporary files", "runs/x-aaaaaaaa/tmp"),
        ("temporary files", "runs/x-bbbbbbbb/tmp"),
        ("checkpoints", "store/runs/x-aaaaaaaa/checkpoints"),
    }


def test_files_of_runs_that_are_gone_can_go(home: Home) -> None:
    home.put(home.store / "runs" / "x-cccccccc" / "attempt.json")
    assert found() == {("run files", "x-cccccccc")}


def test_old_runs_are_forgotten_only_when_told(home: Home) -> None:
    home.run("x-aaaaaaaa", [sha("a")])
    home.run("x-bbbbbbbb", [sha("b")], at=time.time() - 86_400)
    for letter in "ab":
        home.package(letter)
    assert found() == set()
    assert found(forget_days=5) == {("run", "x-aaaaaaaa"), ("run files", "x-aaaaaaaa"), ("packages", sha("a"))}


def test_half_written_files_of_dead_writers_can_go(home: Home) -> None:
    home.put(home.store / "specs" / f"{sha('d')}.json.1234.tmp")
    assert ("temporary file", f"{sha('d')}.json.1234.tmp") in found()


def test_a_store_that_others_may_use_is_left_alone(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_STORE", str(tmp_path / "shared"))
    home.put(tmp_path / "shared" / "packages" / sha("a") / "headrace.json")
    result = gc.find()
    assert result.garbage == ()
    assert "others may use it" in result.left_out[0]


def test_removing_gives_the_bytes_back(home: Home) -> None:
    folder = home.package("a")
    spec = home.put(home.store / "specs" / f"{sha('d')}.json", "12345678")
    result = gc.find()
    assert gc.remove(result.garbage) == result.bytes > 10
    assert not folder.exists()
    assert not spec.exists()
    assert gc.find().garbage == ()
