"""What a backup says of itself, which files and objects it keeps, and what becomes of them elsewhere."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.base.errors import HeadraceError, InvalidInput, RunFailed
from headrace.steps import backup_files, backup_lock, backup_manifest
from headrace.steps.backup import _free_name, backup
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_files import Entry, Root
from headrace.steps.backup_manifest import Artifacts, Manifest, Part, PartFile
from headrace.steps.backup_moves import Moves, parse_pairs
from headrace.steps.backup_place import Place, find_place
from headrace.steps.backup_prune import prune
from headrace.steps.backup_verify import find_backup
from headrace.steps.restore import plan

NAME = "20261126T043000Z"
MANIFEST = Manifest(
    NAME, "0.1.0", Artifacts.registered, {"store": "/a/store"}, parts={"files.jsonl.gz": PartFile(3, "0" * 64, 1)}
)


# -- the manifest


def test_a_manifest_comes_back_as_it_was_written() -> None:
    record = json.loads(json.dumps(MANIFEST.to_record()))
    assert Manifest.from_record(record, "here") == MANIFEST


def test_a_manifest_of_which_a_word_was_changed_is_refused() -> None:
    record = MANIFEST.to_record()
    with pytest.raises(InvalidInput, match="is damaged"):
        Manifest.from_record({**record, "mlflow_server": "http://other"}, "here")


def test_a_manifest_of_a_newer_headrace_says_what_reads_it() -> None:
    with pytest.raises(InvalidInput, match="this Headrace reads 1") as refused:
        Manifest.from_record({**MANIFEST.to_record(), "format": 2}, "here")
    assert "newer one" in refused.value.action


def test_names_are_utc_times_and_sort_by_age() -> None:
    bern = datetime(2026, 11, 26, 5, 30, tzinfo=timezone(timedelta(hours=1)))
    assert backup_manifest.new_name(bern) == NAME
    assert backup_manifest.new_name(bern + timedelta(seconds=1)) > NAME
    assert MANIFEST.created == datetime(2026, 11, 26, 4, 30, tzinfo=UTC)


@given(st.lists(st.integers(0, 99), unique=True), st.integers(1, 20))
def test_the_newest_stay_whatever_their_order(seconds: list[int], keep: int) -> None:
    names = [f"20261126T0430{second:02d}Z" for second in seconds]
    gone = backup_manifest.to_remove(names, keep)
    stay = set(names) - set(gone)
    assert len(stay) == min(keep, len(names))
    assert not gone or max(gone) < min(stay)


# -- addresses


def test_addresses_move_and_words_do_not() -> None:
    moves = Moves.of([("s3://old/store", "s3://new/x"), ("http://mlflow.a:5000", "http://mlflow.b:5000")])
    assert moves.text("s3://old/store/packages/1") == "s3://new/x/packages/1"
    assert moves.text("s3://old/store") == "s3://new/x"
    for other in ("s3://old/store2/packages", "see s3://old/store/packages", "old/store"):
        assert moves.text(other) == other
    value = {"a": ["s3://old/store/1", 7, None], "b": {"uri": "http://mlflow.a:5000"}}
    assert moves.value(value) == {"a": ["s3://new/x/1", 7, None], "b": {"uri": "http://mlflow.b:5000"}}


def test_of_two_places_the_inner_one_moves_by_itself_and_what_a_person_says_counts_first() -> None:
    moves = Moves.of([("/h", "/new"), ("/h/store", "s3://b/store"), ("/h", "/other")])
    assert moves.text("/h/store/packages/1") == "s3://b/store/packages/1"
    assert moves.text("/h/runs/1") == "/new/runs/1"


def test_folders_move_as_file_urls_too() -> None:
    moves = Moves.of([("/old/mlflow", "/new/mlflow")])
    assert moves.text("file:///old/mlflow/artifacts/0") == "file:///new/mlflow/artifacts/0"


def test_only_columns_of_addresses_and_values_of_tags_are_looked_at() -> None:
    moves = Moves.of([("/a", "/b")])
    assert moves.columns("runs", ["run_uuid", "artifact_uri", "name"]) == [1]
    assert moves.columns("model_version_tags", ["key", "value", "name"]) == [1]
    assert moves.columns("params", ["key", "value", "run_uuid"]) == []
    assert Moves.of([("/a", "/a")]).columns("runs", ["artifact_uri"]) == []


def test_a_pair_that_is_none_is_refused_with_an_example() -> None:
    assert parse_pairs(["s3://a=s3://b"]) == [("s3://a", "s3://b")]
    with pytest.raises(InvalidInput, match="no two places") as refused:
        parse_pairs(["s3://a"])
    assert "--map-store OLD=NEW" in refused.value.action


# -- the archive


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "backups"))


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A store with a package, a checkpoint, a record and a file of nobody's."""
    place = tmp_path / "store"
    files = {
        "packages/aaa/headrace.json": "{}",
        "packages/bbb/headrace.json": "{}",
        "evaluations/aaa/split.json": "1",
        "runs/r/checkpoints/1/model": "weights",
        "runs/r/steps/train/1/result.json": "{}",
        "splits/s/part.parquet": "rows",
        "stray.txt": "mine",
    }
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return Root.at("store", str(place))


def whole(archive: Archive, name: str, *paths: str) -> None:
    """A backup NAME that keeps files whose content is their name."""
    lines = []
    for path in paths:
        sha256 = path * 64
        place = Path(archive.object_path(sha256))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path)
        lines.append(Entry("store", f"packages/{path}/x", 1, "", sha256, kept=True).to_line())
    part = archive.write_lines(name, backup_files.FILE, lines)
    archive.write_manifest(Manifest(name, "0", Artifacts.all, {}, parts={backup_files.FILE: part}))


def names_of(archive: Archive) -> list[str]:
    return sorted(sha256[0] for sha256 in archive.objects())


def test_a_folder_without_a_manifest_is_no_backup(archive: Archive) -> None:
    archive.write_lines(NAME, "files.jsonl.gz", [])
    assert (archive.folders(), archive.names()) == ([NAME], [])
    with pytest.raises(InvalidInput, match="no whole backup"):
        find_backup(archive.url)


def test_pruning_removes_old_and_half_backups_and_what_only_they_needed(archive: Archive) -> None:
    whole(archive, "20261124T000000Z", "a", "b")
    whole(archive, "20261125T000000Z", "b", "c")
    archive.write_lines("20261125T120000Z", "files.jsonl.gz", [])
    whole(archive, "20261126T000000Z", "c")
    assert prune(archive, 2, lambda: None, lambda _: None) == ["20261124T000000Z"]
    assert (archive.folders(), names_of(archive)) == (["20261125T000000Z", "20261126T000000Z"], ["b", "c"])
    assert prune(archive, None, lambda: None, lambda _: None) == []
    assert prune(archive, 1, lambda: None, lambda _: None) == ["20261125T000000Z"]
    assert names_of(archive) == ["c"]


def test_a_damaged_older_backup_ends_no_newer_one_and_keeps_its_files(archive: Archive) -> None:
    for name, paths in (("20261124T000000Z", "a"), ("20261125T000000Z", "b"), ("20261126T000000Z", "c")):
        whole(archive, name, *paths)
    index = Path(archive.path("20261125T000000Z", backup_files.FILE))
    for harm in (lambda data: data[:20], lambda data: data[:12] + b"\xff\xff" + data[14:], lambda data: b"no gzip"):
        index.write_bytes(harm(index.read_bytes()))
        with pytest.raises(InvalidInput, match="damaged"):
            list(backup_files.read_index(archive, "20261125T000000Z"))
    told: list[str] = []
    assert prune(archive, 2, lambda: None, told.append) == ["20261124T000000Z"]
    assert names_of(archive) == ["a", "b", "c"]
    assert "no kept file is removed" in told[-1]
    assert prune(archive, 1, lambda: None, told.append) == ["20261125T000000Z"]
    assert names_of(archive) == ["c"]


def test_a_second_that_has_given_its_name_is_waited_out(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.write_lines(NAME, "files.jsonl.gz", [])
    names, slept = [NAME, NAME, "20261126T043001Z"], list[float]()
    monkeypatch.setattr("headrace.steps.backup.new_name", lambda _: names.pop(0))
    monkeypatch.setattr("headrace.steps.backup.time", SimpleNamespace(sleep=slept.append))
    assert _free_name(archive) == "20261126T043001Z"
    assert len(slept) == 2


def test_a_folder_of_backups_is_private(archive: Archive) -> None:
    with archive.lock("one", print):
        pass
    assert Path(archive.root).stat().st_mode & 0o777 == 0o700


def test_of_two_writers_one_waits_and_a_dead_one_does_not_count(archive: Archive) -> None:
    with (
        archive.lock("one", print),
        pytest.raises(RunFailed, match="one is writing") as refused,
        archive.lock("two", print),
    ):
        pass
    assert refused.value.code == "backup-locked"
    with archive.lock("two", print):
        pass
    path = Path(archive.path("lock.json"))
    for record in (
        {"holder": "gone", "time": time.time() - backup_lock.STALE_SECONDS - 1, "draw": "x"},
        {"holder": "half a word"},
    ):
        path.write_text(json.dumps(record))
        with archive.lock("three", print):
            pass
        assert not path.exists()


def test_a_silent_writer_elsewhere_is_waited_for_and_one_that_speaks_is_not(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, told = Path(archive.path("lock.json")), list[str]()

    def says(draw: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"holder": "a pod", "time": time.time(), "draw": draw, "host": "elsewhere"}))

    says("killed")
    monkeypatch.setattr(backup_lock, "STALE_SECONDS", 0.3)
    monkeypatch.setattr(backup_lock, "LOOK_SECONDS", 0.05)
    with archive.lock("the Job's next pod", told.append):
        assert len(told) == 1
        assert "a pod was writing" in told[0]

    says("alive")
    monkeypatch.setattr(backup_lock, "STALE_SECONDS", 300.0)
    monkeypatch.setattr(backup_lock.time, "sleep", lambda _: says("alive, later"))
    with pytest.raises(RunFailed, match="a pod is writing"), archive.lock("another", told.append):
        pass


def test_a_writer_that_was_taken_for_dead_makes_nothing_whole(archive: Archive) -> None:
    with archive.lock("slow", print) as lock:
        Path(archive.path("lock.json")).write_text(json.dumps({"holder": "other", "time": time.time(), "draw": "y"}))
        with pytest.raises(RunFailed, match="took over"):
            lock.check()
    assert Path(archive.path("lock.json")).exists()  # the other's


# -- refusals


def refused_by(work: Any, *arguments: Any, **options: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        work(*arguments, **options)
    return caught.value


def test_a_server_without_its_database_is_refused_with_what_to_set(archive: Archive, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "store"), "http://mlflow", None)
    parts = frozenset({Part.mlflow, Part.files})
    error = refused_by(backup, place, archive.url, parts=parts, tell=print)
    assert "MLFLOW_BACKEND_STORE_URI" in error.action
    assert archive.names() == []
    assert not Path(archive.path("lock.json")).exists()


def test_a_laptop_has_no_custom_resources(archive: Archive, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "store"), None, None, home=str(tmp_path))
    assert "--on TARGET" in refused_by(backup, place, archive.url, parts=frozenset({Part.resources}), tell=print).action


def test_files_alone_come_back_and_what_a_backup_lacks_is_named(
    archive: Archive, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.steps.restore import carry_out

    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    place = Place(root.path, None, None)
    backup(place, archive.url, parts=frozenset({Part.files}), artifacts=Artifacts.all, tell=print)
    new = Place(str(tmp_path / "new"), None, None)
    error = refused_by(plan, new, archive.url, parts=frozenset({Part.mlflow}))
    assert "it has: files" in error.action
    carry_out(plan(new, archive.url), print)
    assert (tmp_path / "new" / "splits" / "s" / "part.parquet").read_text() == "rows"
    assert not (tmp_path / "new" / "stray.txt").exists()


def test_a_target_without_a_kubeconfig_is_refused_with_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    for name in ("KUBECONFIG", "HEADRACE_STORE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "")
    (tmp_path / "targets.yaml").write_text(
        "prod: {kubeflow: {host: https://k.example.com/pipeline}, store: s3://b/store, image: i:1}\n"
    )
    error = refused_by(find_place, "prod", [])
    assert (error.code, "kubeconfig: FILE" in error.action) == ("no-cluster", True)
    assert "there is no target 'other'" in str(refused_by(find_place, "other", []))


def test_this_machine_is_backed_up_unless_a_cluster_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    for name in ("HEADRACE_STORE", "MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI"):
        monkeypatch.delenv(name, raising=False)
    here = find_place("local", [])
    assert (here.home, here.store, here.namespaces) == (str(tmp_path), str(tmp_path / "store"), ())
    assert here.require_database() == f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    assert not (tmp_path / "mlflow").exists()
