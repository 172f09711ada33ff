"""Which files of a store a backup lists, reads and keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from headrace.base.errors import Unavailable
from headrace.steps import backup_keeper
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_files import Entry, Needs, Root, folder_of
from headrace.steps.backup_keeper import Keeper
from headrace.steps.backup_manifest import Artifacts
from headrace.steps.backup_progress import Progress
from headrace.store.streams import ChangedMeanwhile


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
    keeper = Keeper(archive, [root], iter(before), lambda: None, lambda _: None)
    return keeper, list(keeper.entries(needs))


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
    real = Root.pieces

    def noted(root: Root, entry: Entry) -> Any:
        read.append(entry.path)
        return real(root, entry)

    monkeypatch.setattr(Root, "pieces", noted)
    keeper, second = indexed(archive, root, Needs(Artifacts.all), first)
    assert set(read) == {"splits/s/part.parquet"}
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

    def growing(source: Any, *rest: Any, **more: Any) -> bool:
        if not grown and log.read_text() == "first":
            grown.append(1)
            log.write_text("{} and more")
        return real(source, *rest, **more)

    monkeypatch.setattr(backup_keeper.streams, "copy", growing)
    keeper, found = indexed(archive, root, Needs(Artifacts.all))
    entry = next(entry for entry in found if entry.path.endswith("result.json"))
    assert (entry.kept, entry.size, keeper.notes) == (True, len("{} and more"), [])


def test_a_file_that_is_written_anew_while_it_is_read_is_read_again(
    archive: Archive, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = Root.pieces, [2]

    def expired(root: Root, entry: Entry) -> Iterator[bytes]:
        if entry.path.endswith("result.json") and broken[0]:
            broken[0] -= 1
            raise ChangedMeanwhile(entry.path)
        yield from real(root, entry)

    monkeypatch.setattr(Root, "pieces", expired)
    keeper, found = indexed(archive, root, Needs(Artifacts.all))
    assert (broken, keeper.notes, all(entry.kept for entry in found)) == ([0], [], True)


@pytest.mark.parametrize("side", ["runs", "archive"])
def test_a_store_that_fails_is_the_one_that_is_named(
    archive: Archive, root: Root, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are remote here: what a disk says is left alone."""
    runs = Root("store", "memory://runs", fsspec.filesystem("memory"), "/runs")
    runs.filesystem.pipe_file("/runs/packages/a/headrace.json", b"{}")
    vault = Archive("memory://vault")

    def cut(*_: Any, **__: Any) -> Any:
        raise OSError("the connection was cut")

    needs = Needs(Artifacts.all)
    keeper = Keeper(vault, [runs], iter(()), lambda: None, lambda _: None)
    if side == "runs":
        monkeypatch.setattr(runs.filesystem, "cat_file", cut)
    else:
        monkeypatch.setattr(runs.filesystem, "open", cut)
    with pytest.raises(Unavailable, match=f"memory://{'runs' if side == 'runs' else 'vault'} cannot be reached"):
        list(keeper.entries(needs))


def test_of_roots_in_each_other_the_inner_one_has_the_folder(root: Root) -> None:
    inner = Root.at("mlflow", f"{root.path}/mlflow")
    assert folder_of(f"{root.path}/mlflow/1/models/m", [root, inner]) == "mlflow/1/models/m"
    assert folder_of(f"{root.path}/packages/aaa", [root, inner]) == "store/packages/aaa"


def test_a_folder_is_found_below_its_root_only(root: Root) -> None:
    assert folder_of(f"{root.path}/packages/aaa/", [root]) == "store/packages/aaa"
    assert folder_of(f"{root.path}2/packages/aaa", [root]) is None
    assert folder_of("memory://packages/aaa", [root]) is None


@pytest.mark.parametrize(
    "url",
    [
        "gs://b/splits/1",
        "foo://b/splits/1",
        "hdfs://h/splits/1",
        "github://h/x",
        "zip::file:///nope",
        "ftp://127.0.0.1:1/x",
    ],
)
def test_an_address_that_nobody_can_open_lies_outside(url: str, root: Root) -> None:
    s3 = Root.at("mlflow", "s3://bucket/mlflow")
    assert folder_of(url, [root, s3]) is None
    assert folder_of("s3a://bucket/mlflow/1", [root, s3]) == "mlflow/1"
    assert folder_of(f"file://{root.path}/packages/aaa", [root, s3]) == "store/packages/aaa"


def test_people_hear_of_it_every_few_seconds_however_large_a_file_is() -> None:
    now, told = [0.0], list[str]()
    progress = Progress(told.append, lambda: now[0])
    for second in range(10):
        now[0] = float(second)
        progress(lambda second=second: f"at {second}")
    assert told == ["at 3", "at 6", "at 9"]
