"""What a backup says of itself, which files and objects it keeps, and what becomes of them elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.base.errors import HeadraceError, InvalidInput, RunFailed
from headrace.cluster.kinds import TRAINING_RUN, Kind
from headrace.steps import backup_files, backup_keeper, backup_lock, backup_manifest
from headrace.steps.backup import backup
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_files import Entry, Needs, Root, folder_of
from headrace.steps.backup_keeper import Keeper
from headrace.steps.backup_manifest import Artifacts, Existing, Manifest, Part, PartFile
from headrace.steps.backup_moves import Moves, parse_pairs
from headrace.steps.backup_place import Place
from headrace.steps.backup_prune import prune
from headrace.steps.backup_resources import kept, make, restored
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
        Manifest.from_record({**record, "tracking_uri": "http://other"}, "here")


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
    assert "OLD=NEW" in refused.value.action


# -- files


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


def indexed(archive: Archive, root: Root, needs: Needs, before: Iterable[Entry] = ()) -> tuple[Keeper, list[Entry]]:
    keeper = Keeper(archive, [root], iter(before), lambda: None)
    return keeper, list(keeper.entries(needs, lambda _: None))


def test_registered_keeps_what_versions_need_and_records_of_runs(archive: Archive, root: Root) -> None:
    needs = Needs(Artifacts.registered, frozenset({"store/packages/aaa"}), frozenset({"aaa"}))
    _, found = indexed(archive, root, needs)
    assert [entry.path for entry in found if entry.kept] == [
        "evaluations/aaa/split.json",
        "packages/aaa/headrace.json",
        "runs/r/steps/train/1/result.json",
    ]
    assert [entry.path for entry in found if entry.sha256 is None] == ["runs/r/checkpoints/1/model"]
    assert "stray.txt" not in [entry.path for entry in found]  # no part of the store
    assert found == sorted(found, key=lambda entry: entry.order)


def test_all_keeps_all_and_none_keeps_only_records(archive: Archive, root: Root) -> None:
    _, everything = indexed(archive, root, Needs(Artifacts.all))
    assert all(entry.kept and entry.sha256 for entry in everything)
    _, nothing = indexed(archive, root, Needs(Artifacts.none))
    assert [entry.path for entry in nothing if entry.kept] == ["runs/r/steps/train/1/result.json"]


def test_what_has_not_changed_is_not_read_again(archive: Archive, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = indexed(archive, root, Needs(Artifacts.all))
    changed = Path(root.path) / "splits" / "s" / "part.parquet"
    changed.write_text("other rows")
    read: list[str] = []
    real = backup_keeper.streams.hash_of

    def noted(filesystem: Any, path: str, beat: Any) -> Any:
        read.append(path)
        return real(filesystem, path, beat)

    monkeypatch.setattr(backup_keeper.streams, "hash_of", noted)
    keeper, second = indexed(archive, root, Needs(Artifacts.all), first)
    assert read == [str(changed)]
    assert keeper.new_bytes == len("other rows")
    assert {e.path: e.sha256 for e in first if e.path != "splits/s/part.parquet"} == {
        e.path: e.sha256 for e in second if e.path != "splits/s/part.parquet"
    }


def test_half_an_object_that_was_left_behind_is_written_anew(archive: Archive, root: Root) -> None:
    _, first = indexed(archive, root, Needs(Artifacts.all))
    sha256 = next(entry.sha256 for entry in first if entry.path == "splits/s/part.parquet")
    half = Path(archive.object_path(str(sha256)))
    half.write_text("ro")
    indexed(archive, root, Needs(Artifacts.all))
    assert half.read_text() == "rows"


def test_a_file_that_changes_while_it_is_copied_is_kept_as_it_is_in_the_end(
    archive: Archive, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Path(root.path) / "runs" / "r" / "steps" / "train" / "1" / "result.json"
    log.write_text("first")
    real = backup_keeper.streams.copy
    grown: list[int] = []

    def growing(source: Any, path: str, *rest: Any, **more: Any) -> bool:
        if path == str(log) and not grown:
            grown.append(1)
            log.write_text("{} and more")
        return real(source, path, *rest, **more)

    monkeypatch.setattr(backup_keeper.streams, "copy", growing)
    keeper, found = indexed(archive, root, Needs(Artifacts.all))
    entry = next(entry for entry in found if entry.path.endswith("result.json"))
    assert (entry.kept, entry.size, keeper.notes) == (True, len("{} and more"), [])


def test_a_folder_is_found_below_its_root_only(root: Root) -> None:
    assert folder_of(f"{root.path}/packages/aaa/", [root]) == "store/packages/aaa"
    assert folder_of(f"{root.path}2/packages/aaa", [root]) is None
    assert folder_of("memory://packages/aaa", [root]) is None


# -- the archive


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


def test_of_two_writers_one_waits_and_a_dead_one_does_not_count(archive: Archive) -> None:
    with archive.lock("one"), pytest.raises(RunFailed, match="one is writing") as refused, archive.lock("two"):
        pass
    assert refused.value.code == "backup-locked"
    with archive.lock("two"):
        pass
    path = Path(archive.path("lock.json"))
    for record in (
        {"holder": "gone", "time": time.time() - backup_lock.STALE_SECONDS - 1, "draw": "x"},
        {"holder": "half a word"},
    ):
        path.write_text(json.dumps(record))
        with archive.lock("three"):
            pass
        assert not path.exists()


def test_a_writer_that_was_taken_for_dead_makes_nothing_whole(archive: Archive) -> None:
    with archive.lock("slow") as lock:
        Path(archive.path("lock.json")).write_text(json.dumps({"holder": "other", "time": time.time(), "draw": "y"}))
        with pytest.raises(RunFailed, match="took over"):
            lock.check()
    assert Path(archive.path("lock.json")).exists()  # the other's


# -- custom resources


def object_(kind: str = "TrainingRun", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": "digits",
            "namespace": "team",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 3,
            "ownerReferences": [{"name": "o"}],
            "managedFields": [{}],
            "labels": {"a": "b"},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "headrace.dev/held-until": "2026-11-26T04:40:00Z",  # by a step that is not in the other cluster
                "mine": "yes",
            },
        },
        "spec": {"store": {"uri": "s3://old/store"}, "manifestURI": "s3://old/store/splits/1"},
        **({"status": status} if status else {}),
    }


def test_nothing_of_what_the_api_server_made_is_kept() -> None:
    record = kept(TRAINING_RUN, object_(phase="Running"))
    assert record["metadata"] == {
        "name": "digits",
        "namespace": "team",
        "labels": {"a": "b"},
        "annotations": {"mine": "yes"},
    }
    assert record["status"] == {"phase": "Running"}


class Cluster:
    """A namespace that remembers what was asked, in order; made of the operator's point of view at each step."""

    namespace = "team"

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.seen: list[tuple[bool, bool]] = []  # after each write: suspended, ended

    def list(self, kind: Kind) -> list[dict[str, Any]]:
        return [value for value in self.objects.values() if value["kind"] == kind.kind]

    def get(self, kind: Kind, name: str) -> Any:
        return self.objects.get(name)

    def create(self, kind: Kind, manifest: Any) -> Any:
        if manifest["metadata"]["name"] in self.objects:
            return None
        return self.apply(kind, manifest, force=True)

    def apply(self, kind: Kind, manifest: Any, *, force: bool) -> Any:
        name = manifest["metadata"]["name"]
        self.objects[name] = {**self.objects.get(name, {}), **json.loads(json.dumps(manifest)), "kind": kind.kind}
        return self._noted(name)

    def patch(self, kind: Kind, name: str, changes: Any) -> Any:
        self.objects[name]["spec"] |= changes["spec"]
        return self._noted(name)

    def patch_status(self, kind: Kind, name: str, status: Any) -> Any:
        self.objects[name]["status"] = {**self.objects[name].get("status", {}), **status}
        return self._noted(name)

    def _noted(self, name: str) -> Any:
        found = self.objects[name]
        ended = found.get("status", {}).get("completionTime") is not None
        self.seen.append((found["spec"].get("suspend") is True, ended))
        return found


def ended() -> dict[str, Any]:
    return kept(TRAINING_RUN, object_(phase="Succeeded", completionTime="t", attempt=2, rayJobName="digits-2"))


def under_way() -> dict[str, Any]:
    return kept(TRAINING_RUN, object_(phase="Running", attempt=2, rayJobName="digits-2", rayJobUID="u"))


MOVED = Moves.of([("s3://old", "s3://new")])


def test_a_run_that_had_ended_is_history_and_at_no_moment_one_that_may_begin() -> None:
    cluster = Cluster()
    assert make(restored(ended(), MOVED, NAME), cluster, Existing.refuse)
    assert all(suspended or over for suspended, over in cluster.seen)
    made = cluster.objects["digits"]
    assert made["spec"]["suspend"] is False
    assert made["spec"]["manifestURI"] == "s3://new/store/splits/1"
    assert made["status"] == {"phase": "Succeeded", "completionTime": "t", "attempt": 2}
    assert made["metadata"]["annotations"]["headrace.dev/restored-from"] == NAME


def test_a_run_that_was_under_way_stays_suspended_and_its_attempts_are_counted_on() -> None:
    cluster = Cluster()
    wanted = restored(under_way(), MOVED, NAME)
    assert make(wanted, cluster, Existing.refuse)
    assert wanted.waits
    assert all(suspended for suspended, _ in cluster.seen)
    assert cluster.objects["digits"]["status"] == {"phase": "Running", "attempt": 2}  # no RayJob of another cluster


def test_a_restore_that_was_killed_between_two_writes_is_finished_by_the_next() -> None:
    for done in range(1, 4):
        cluster = Cluster()
        wanted = restored(ended(), MOVED, NAME)
        cluster.create(TRAINING_RUN, wanted.manifest)
        if done > 1:
            cluster.patch_status(TRAINING_RUN, "digits", wanted.status or {})
        if done > 2:
            cluster.patch(TRAINING_RUN, "digits", {"spec": {"suspend": False}})
        make(wanted, cluster, Existing.keep)
        assert cluster.objects["digits"]["status"]["completionTime"] == "t"
        assert cluster.objects["digits"]["spec"]["suspend"] is False


def test_an_object_that_is_there_stays_as_it_is_unless_told() -> None:
    cluster = Cluster()
    cluster.apply(TRAINING_RUN, {"metadata": {"name": "digits"}, "spec": {"mine": True}}, force=True)
    assert not make(restored(ended(), MOVED, NAME), cluster, Existing.keep)
    assert cluster.objects["digits"]["spec"] == {"mine": True}
    assert make(restored(ended(), MOVED, NAME), cluster, Existing.overwrite)
    assert "manifestURI" in cluster.objects["digits"]["spec"]


def test_deployments_are_wishes_without_a_status() -> None:
    record = {**object_("ModelDeployment", servingVersion="1")}
    del record["status"]
    wanted = restored(record, MOVED, NAME)
    assert (wanted.status, wanted.waits) == (None, False)
    assert "suspend" not in wanted.manifest["spec"]


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
