"""What a restore plans, writes and refuses, and what a backup tells of where it was made."""

from __future__ import annotations

import itertools
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.api.kinds import TRAINING_RUN, Kind
from headrace.base.errors import HeadraceError, InvalidInput
from headrace.cli.backup_report import render_restore
from headrace.steps import restore_plan
from headrace.steps.backup import backup
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_manifest import Artifacts, Existing, Manifest, Part, new_name
from headrace.steps.backup_moves import Moves
from headrace.steps.backup_place import Place, find_place
from headrace.steps.restore import carry_out, plan
from headrace.store import Store

FILES = frozenset({Part.files})
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    for name in ("HEADRACE_STORE", "MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def a_second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every backup is called after a later second than the one before, which need not pass."""
    passed = itertools.count()

    def later(now: datetime) -> str:
        return new_name(now + timedelta(seconds=next(passed)))

    monkeypatch.setattr("headrace.steps.backup.new_name", later)


@pytest.fixture
def old(tmp_path: Path) -> Place:
    """A cluster's store with a package and a run whose second attempt is the newest."""
    store = Store(str(tmp_path / "old"))
    store.write_json(store.uri("packages", "p", "headrace.json"), {"a": 1})
    store.write_json(store.uri("runs", "r", "steps", "train", "2", "result.json"), {"package": store.uri("packages")})
    store.claim_attempt("r", "2.1")
    return Place(store.url, None, None)


@pytest.fixture
def archive(old: Place, tmp_path: Path) -> Archive:
    """A backup of it."""
    place = Archive(str(tmp_path / "backups"))
    made(old, place)
    return place


@pytest.fixture
def new(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "new"), None, None)


def made(place: Place, archive: Archive, **more: Any) -> dict[str, Any]:
    return backup(place, archive.url, parts=FILES, artifacts=Artifacts.all, tell=print, **more)


def damage(archive: Archive, word: bytes) -> Path:
    """Change a byte of the kept file that has WORD in it."""
    victim = next(
        each for each in Path(archive.root, "objects").rglob("*") if each.is_file() and word in each.read_bytes()
    )
    victim.write_bytes(victim.read_bytes().replace(word, word[:-1] + b"#"))
    return victim


@pytest.mark.parametrize(
    "uri",
    [
        f"https://user:{SECRET}@mlflow.a/path?password={SECRET}",
        f"postgresql+psycopg2://user:{SECRET}@db/mlflow?password={SECRET}",
        f"postgresql://db/mlflow?user=u&password={SECRET}",
    ],
)
def test_no_password_of_mlflow_is_in_a_backup_or_told_by_a_restore(
    uri: str, old: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = Archive(str(tmp_path / "backups"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("HEADRACE_STORE", old.store)
    made(find_place("local", []), archive)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("user:", "other:").replace("mlflow.a", "mlflow.b"))
    monkeypatch.setenv("HEADRACE_STORE", str(tmp_path / "new"))
    found = plan(find_place("local", []), archive.url)
    told = json.dumps([*found.lines(), found.to_record()]) + capsys.readouterr().out
    held = b"".join(each.read_bytes() for each in Path(archive.root).rglob("*") if each.is_file())
    assert SECRET not in told
    assert SECRET.encode() not in held
    if uri.startswith("https"):
        assert "https://mlflow.a/path -> https://mlflow.b/path" in found.lines()


def test_the_store_is_named_as_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("store", f"file://{tmp_path}/store", f"{tmp_path}/store/"):
        monkeypatch.setenv("HEADRACE_STORE", url)
        assert find_place("local", []).store == str(tmp_path / "store")


def test_what_is_damaged_is_named_set_aside_and_kept_anew_by_the_next_backup(old: Place, archive: Archive) -> None:
    victim = damage(archive, b'"a"')
    with pytest.raises(InvalidInput, match=r"packages/p/headrace\.json") as refused:
        made(old, archive, verify=True, keep=1)
    assert (refused.value.code, "--verify" in refused.value.action) == ("backup-damaged", True)
    assert len(archive.names()) == 2  # none went for one that is not good
    assert not victim.exists()
    assert Path(archive.path("damaged", victim.name)).exists()
    after = made(old, archive, verify=True, keep=1)
    assert victim.exists()
    assert after["verified"]["files"] > 1
    assert archive.names() == [after["name"]]


class Team:
    """A namespace with TrainingRuns that have not ended, of these splits."""

    namespace = "team"

    def __init__(self, *splits: str) -> None:
        self.splits = splits

    def list(self, kind: Kind) -> list[dict[str, Any]]:
        named = [(f"t{number}", uri) for number, uri in enumerate(self.splits) if kind is TRAINING_RUN]
        return [{"metadata": {"name": name, "namespace": "team"}, "spec": {"manifestURI": uri}} for name, uri in named]


@pytest.mark.parametrize("artifacts", Artifacts)
def test_whatever_trainings_name_the_backup_is_made_and_older_ones_go(
    artifacts: Artifacts, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.steps.backup._ask_database", lambda place, found: None)  # no version needs anything
    store = Store(str(tmp_path / "young"))
    outside = ["gs://b/splits/1", "foo://b/splits/1", "hdfs://h/splits/1", "reference://x"]
    team: Any = Team(*outside, store.uri("splits", "typo"), store.uri("splits", "there"))
    place, parts = Place(store.url, None, None, namespaces=(team,)), frozenset({Part.resources, Part.files})

    def again() -> dict[str, Any]:
        return backup(place, archive.url, parts=parts, artifacts=artifacts, keep=1, tell=print)

    before = archive.names()
    empty = again()  # a store that nothing was written to yet
    assert empty["removed"] == before
    store.write_json(store.uri("splits", "there", "split.json"), {})
    full, told = again(), artifacts is not Artifacts.none
    assert full["removed"] == [empty["name"]]
    assert full["counts"]["kept"] == told
    notes = [
        f"the split of t{number} lies outside of the store and was left out: {uri}"
        for number, uri in enumerate(outside)
    ]
    gone = f"the split of t4 ({store.uri('splits', 'typo')}) is gone, and is not in this backup"
    assert full["notes"] == ([*notes, gone] if told else [])


@pytest.mark.parametrize("word", [b'"a"', b'"package"'])
def test_damaged_and_lost_files_are_written_nowhere_whether_addresses_in_them_move_or_not(
    word: bytes, archive: Archive, new: Place
) -> None:
    victim = damage(archive, word)
    with pytest.raises(InvalidInput, match="is damaged") as refused:
        carry_out(plan(new, archive.url), print)
    assert refused.value.code == "backup-damaged"
    name = "packages/p/headrace.json" if word == b'"a"' else "runs/r/steps/train/2/result.json"
    assert not Path(new.store, name).exists()
    victim.unlink()
    with pytest.raises(InvalidInput, match=name):
        carry_out(plan(new, archive.url), print)


def test_a_runs_newest_attempt_is_never_taken_back(archive: Archive, new: Place) -> None:
    store = Store(new.store)
    for present, after in (("3.1", "3.1"), ("1.1", "3.1")):
        Path(store.path(store.attempt_uri("r"))).unlink(missing_ok=True)
        store.claim_attempt("r", present)
        carry_out(plan(new, archive.url, existing=Existing.overwrite), print)
        assert store.current_attempt("r") == (after if present == "3.1" else "2.1")


def test_overwriting_mends_a_package_of_the_right_size(archive: Archive, new: Place) -> None:
    carry_out(plan(new, archive.url), print)
    package = Path(new.store, "packages", "p", "headrace.json")
    whole = package.read_bytes()
    package.write_bytes(b"#" * len(whole))
    carry_out(plan(new, archive.url, existing=Existing.keep), print)
    assert package.read_bytes() != whole
    carry_out(plan(new, archive.url, existing=Existing.overwrite), print)
    assert package.read_bytes() == whole


def test_mlflows_files_go_nowhere_while_it_is_not_known_where(
    archive: Archive, new: Place, old: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest("n", "0", Artifacts.all, {"store": old.store, "mlflow": "s3://old/mlflow"})
    moved = Moves.of([(old.store, new.store)])
    with pytest.raises(InvalidInput, match="s3://old/mlflow") as refused:
        restore_plan._require_artifact_root(manifest, moved, known=False)
    assert "--map-store s3://old/mlflow=NEW" in refused.value.action
    for fine in (Moves.of([]), Moves.of([*moved.pairs, ("s3://old/mlflow", "s3://new/mlflow")])):
        restore_plan._require_artifact_root(manifest, fine, known=False)


def test_a_run_that_goes_on_here_ends_a_restore_before_anything_is_written(
    archive: Archive, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.steps import restore_home

    def busy() -> None:
        raise InvalidInput("runs go on here: x", code="target-busy")

    here = Place(str(home / "store"), None, None, home=str(home))
    agreed = plan(here, archive.url)
    monkeypatch.setattr(restore_home, "require_idle", busy)
    for act in (lambda: plan(here, archive.url), lambda: carry_out(agreed, print)):
        with pytest.raises(HeadraceError, match="go on"):
            act()
    assert not (home / "store").exists()


def test_what_is_not_restored_is_told(archive: Archive, new: Place) -> None:
    assert plan(new, archive.url).to_record()["left_out"] == []
    name = archive.names()[0]
    record = {"kind": "ModelDeployment", "metadata": {"name": "d", "namespace": "team-b"}, "spec": {}}
    part = archive.write_lines(name, "resources.jsonl.gz", [record])
    before = archive.manifest(name)
    parts = {**before.parts, "resources.jsonl.gz": part}
    archive.write_manifest(
        Manifest(name, "0", before.artifacts, before.roots, counts={"ModelDeployment": 1}, parts=parts)
    )
    found = plan(new, archive.url)
    assert "1 ModelDeployment" in found.to_record()["left_out"][0]
    assert any(line.startswith("not restored: 0 TrainingRun, 1 ModelDeployment") for line in found.lines())
    said = render_restore(carry_out(found, print), local=False)
    assert "not restored: 0 TrainingRun, 1 ModelDeployment, 0 ModelMonitor (--namespace NAME)" in said
