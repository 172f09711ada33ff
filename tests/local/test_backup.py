"""A home is backed up and comes back elsewhere: runs, versions, aliases, endpoints, and the very same predictions."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headrace.tracking import registry
from headrace.tracking.connection import client, own_uri
from headrace_testbed.backup_homes import ROWS, RUN_ID, headrace, in_home, live_in, stop_service


def predictions(place: Path, into: Path) -> list[dict[str, Any]]:
    """What `houses@champion` of the home PLACE says of ROWS."""
    table = into / "rows.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    output = into / f"{place.name}.parquet"
    headrace(place, "predict", "houses@champion", "--input", str(table), "--output", str(output))
    return list(pq.read_table(output).to_pylist())


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a run, its curves, a registered package, an alias and an endpoint."""
    place = tmp_path_factory.mktemp("before") / "home"
    live_in(place)
    yield place
    stop_service(place)


@pytest.fixture(scope="module")
def copy_of(lived_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the home; who changes it takes a copy."""
    return Path(headrace(lived_in, "backup", str(tmp_path_factory.mktemp("backups")), "--verify")["uri"])


def test_a_home_comes_back_elsewhere_and_predicts_as_before(lived_in: Path, copy_of: Path, tmp_path: Path) -> None:
    before = predictions(lived_in, tmp_path)
    new = tmp_path / "after" / "home"

    headrace(new, "restore", str(copy_of), "--yes")
    aside = lived_in.with_name("aside")
    lived_in.rename(aside)  # nothing may be read where it was
    try:
        assert predictions(new, tmp_path) == before
        known = _what_mlflow_knows(new)
        assert (known["version"], known["run"]) == ("1", RUN_ID)
        assert known["curve"] == [[1, 1.0], [2, 1 / 2], [3, 1 / 3]]
        assert known["model"].startswith(str(new))  # MLflow's own copy of the model is back, where it looks for it
        assert headrace(new, "status", RUN_ID)["model"]["uri"] == str(new / "store" / "packages" / ("a" * 64))
        (served,) = headrace(new, "deployments")["deployments"]
        assert (served["name"], served["version"], served["state"]) == ("houses", "1", "stopped")
        assert str(new) in (new / "serve" / "applications.json").read_text()
    finally:
        aside.rename(lived_in)
        stop_service(new)


def _what_mlflow_knows(place: Path) -> dict[str, Any]:
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(place))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", own_uri())  # mlflow.set_tracking_uri would outlive this test
        version = registry.resolve("houses@champion")
        assert version is not None
        history = client(own_uri()).get_metric_history(str(version.mlflow_run_id), "train.loss")
        model = mlflow.artifacts.download_artifacts("models:/houses@champion")
    curve = [[point.step, point.value] for point in history]
    return {"version": version.version, "run": version.run_id, "curve": curve, "model": model}


def test_checkpoints_are_listed_and_not_kept_unless_all_is_asked_for(lived_in: Path, tmp_path: Path) -> None:
    registered = headrace(lived_in, "backup", str(tmp_path / "some"))
    everything = headrace(lived_in, "backup", str(tmp_path / "all"), "--artifacts", "all")
    nothing = headrace(lived_in, "backup", str(tmp_path / "none"), "--artifacts", "none")
    assert registered["counts"]["files"] == everything["counts"]["files"] == everything["counts"]["kept"]
    assert nothing["counts"]["kept"] < registered["counts"]["kept"] < everything["counts"]["kept"]


def test_what_was_kept_once_costs_nothing_again_and_goes_with_the_last_backup_that_needs_it(
    lived_in: Path, tmp_path: Path
) -> None:
    place = tmp_path / "backups"
    first = headrace(lived_in, "backup", str(place), "--artifacts", "all")
    second = headrace(lived_in, "backup", str(place), "--artifacts", "none", "--keep", "1")
    assert first["new_bytes"] > 0
    assert second["new_bytes"] == 0
    assert second["removed"] == [first["name"]]
    assert [entry.name for entry in place.iterdir() if entry.is_dir() and entry.name != "objects"] == [second["name"]]
    assert not [path for path in (place / "objects").rglob("*") if path.is_file() and path.stat().st_size > 900]


def test_a_store_that_is_away_is_no_empty_one_and_what_is_gone_costs_no_older_backup(
    lived_in: Path, tmp_path: Path
) -> None:
    place, store = tmp_path / "backups", lived_in / "store"
    good = headrace(lived_in, "backup", str(place))
    with moved_away(store):  # a folder that is not mounted
        refused = headrace(lived_in, "backup", str(place), "--keep", "1", code=4)
        assert refused["error"]["code"] == "store-empty"
        assert f"{store} is empty" in refused["error"]["message"]
        assert "houses" in refused["error"]["message"]
        assert headrace(lived_in, "backup", str(tmp_path / "without"), "--artifacts", "none")["counts"]["versions"] == 1
    with moved_away(store / "packages" / ("a" * 64)):
        without = headrace(lived_in, "backup", str(place), "--keep", "1")
        assert without["removed"] == []
        assert "the package that houses serves" in " ".join(without["notes"])
        assert "no older backup was removed" in " ".join(without["notes"])
    again = headrace(lived_in, "backup", str(place), "--keep", "1")
    assert again["removed"] == [good["name"], without["name"]]


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    aside = folder.parent.parent / "away"
    folder.rename(aside)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


# A command that stands still at a point, so that whoever kills it there is never too late.
STANDING_STILL = """
import sys, time
from pathlib import Path
from {module} import {owner}

before = {owner}.{name}

def stand_still(*arguments):
    while {there}:
        time.sleep(60)
    return before(*arguments)

{owner}.{name} = stand_still
from headrace.cli.main import main
main(sys.argv[1:])
"""


def kill(code: str, *words: str, home: Path, when: Callable[[], bool]) -> None:
    """Run CODE with the arguments WORDS in HOME and kill it as soon as WHEN says so."""
    command = [sys.executable, "-c", code, *words]
    writer = subprocess.Popen(command, env=in_home(home), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not when():
            assert writer.poll() is None
            time.sleep(0.01)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()


def test_a_backup_that_is_killed_leaves_none_and_the_next_one_is_whole(lived_in: Path, tmp_path: Path) -> None:
    source, place = tmp_path / "home", tmp_path / "backups"
    shutil.copytree(lived_in, source, ignore=shutil.ignore_patterns("service.sock"))
    whole, half = "objects/*/[!.]*", "objects/*/.*.tmp"  # a file is kept, and another one is being copied
    there = " and ".join(f"[*Path({str(place)!r}).glob({pattern!r})]" for pattern in (whole, half))
    code = STANDING_STILL.format(module="headrace.steps.backup_keeper", owner="Keeper", name="_beat", there=there)

    def in_the_midst() -> bool:
        return any(place.glob(whole)) and any(place.glob(half))

    kill(code, "backup", str(place), "--artifacts", "all", home=source, when=in_the_midst)

    assert list(place.glob("*/files.jsonl.gz")) + list(place.glob("*/manifest.json")) == []
    refused = headrace(tmp_path / "new", "restore", str(place), "--yes", code=2)
    assert refused["error"]["code"] == "backup-absent"
    after = headrace(source, "backup", str(place), "--artifacts", "all", "--verify")
    assert [path.parent.name for path in place.glob("2*/mlflow")] == [after["name"]]  # the half one is gone


def test_a_damaged_file_is_found_and_named_before_anything_is_restored(copy_of: Path, tmp_path: Path) -> None:
    copy_of = shutil.copytree(copy_of.parent, tmp_path / "backups") / copy_of.name
    victim = max((copy_of.parent / "objects").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    refused = headrace(tmp_path / "new", "restore", str(copy_of), "--dry-run", code=2)
    assert refused["error"]["code"] == "backup-damaged"
    named = refused["error"]["message"] + json.dumps(refused["findings"])
    assert "model.safetensors" in named
    assert not (tmp_path / "new" / "mlflow").exists()


def test_a_home_in_use_is_refused_and_kept_and_overwritten_as_told(copy_of: Path, tmp_path: Path) -> None:
    new = tmp_path / "used" / "home"
    headrace(new, "restore", str(copy_of), "--yes")
    result = new / "runs" / RUN_ID / "result.json"
    shutil.rmtree(new / "serve")
    result.write_text(json.dumps({"state": "mine", "exit_code": 0}))

    refused = headrace(new, "restore", str(copy_of), "--yes", code=2)
    assert refused["error"]["code"] == "target-not-empty"
    assert "1 runs" in refused["error"]["message"]
    kept = headrace(new, "restore", str(copy_of), "--yes", "--existing", "keep")
    assert "runs" not in kept["restored"]
    assert (new / "serve" / "applications.json").exists()
    assert json.loads(result.read_text())["state"] == "mine"
    written = headrace(new, "restore", str(copy_of), "--yes", "--existing", "overwrite")
    assert written["restored"]["runs"] == 1
    assert json.loads(result.read_text())["state"] == "succeeded"
    stop_service(new)


def test_a_restore_that_is_killed_leaves_the_database_that_was_there(copy_of: Path, tmp_path: Path) -> None:
    new = tmp_path / "killed" / "home"
    code = STANDING_STILL.format(module="headrace.tracking", owner="database_load", name="_complete", there="True")
    kill(code, "restore", str(copy_of), "--yes", home=new, when=lambda: any(new.glob("mlflow/mlflow.restoring*")))
    assert not (new / "mlflow" / "mlflow.db").exists()
    assert headrace(new, "restore", str(copy_of), "--yes", "--existing", "keep")["restored"]["runs"] == 1
