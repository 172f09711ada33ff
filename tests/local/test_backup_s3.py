"""Backups from and to a real S3 store, while runs write to it, and where the bucket is gone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.base.errors import Unavailable
from headrace.steps.backup import backup
from headrace.steps.backup_manifest import Artifacts, Part
from headrace.steps.backup_place import Place
from headrace.steps.backup_verify import find_backup, verify
from headrace.steps.restore import carry_out, plan
from headrace.store import Store
from headrace.store.streams import PIECE_BYTES
from headrace_testbed.s3 import S3Store
from headrace_testbed.s3_trouble import environment, new_bucket

FILES = frozenset({Part.files})


def made(store: str, destination: str) -> dict[str, Any]:
    return backup(Place(store, None, None), destination, parts=FILES, artifacts=Artifacts.all, tell=print)


@contextmanager
def rewriting(write: Callable[[int], object]) -> Iterator[None]:
    """WRITE, called again and again by another thread for the length of the block."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            write(number := number + 1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_backup_is_made_while_a_run_rewrites_its_events(bucket: str, s3_server: S3Store, tmp_path: Path) -> None:
    """As a run does: its events each second, of any length; here without a pause, and one too large for one request."""
    store, client = Store(f"{bucket}/store"), s3_server.client()
    name = bucket.removeprefix("s3://")
    for number in range(20):
        store.write_json(store.uri("packages", f"{number}", "headrace.json"), {"number": number})

    def write(number: int) -> None:
        body = f"line {number}\n".encode()
        client.put_object(Bucket=name, Key="store/runs/r/events/train-1.jsonl", Body=body * (1 + number % 50))
        size = PIECE_BYTES // len(body) + number % 1000
        client.put_object(Bucket=name, Key="store/runs/r/events/long-1.jsonl", Body=body * size)

    write(0)
    with rewriting(write):
        for _ in range(3):
            record = made(store.url, f"{bucket}/backups")
            lost = [note for note in record["notes"] if "events/" not in note]
            assert (record["counts"]["files"], lost) == (22, [])
            assert record["counts"]["kept"] >= 20
    archive, newest = find_backup(f"{bucket}/backups")
    verify(archive, newest, print)  # whatever state of a file is in it, it is one that there was
    carry_out(plan(Place(str(tmp_path / "new"), None, None), archive.uri(newest)), print)
    assert len(list((tmp_path / "new" / "packages").iterdir())) == 20


def test_a_large_file_that_changes_between_two_pieces_is_read_anew(bucket: str, s3_server: S3Store) -> None:
    from headrace.steps.backup_files import Entry, Root
    from headrace.store.streams import ChangedMeanwhile

    root, size = Root.at("store", f"{bucket}/store"), 3 * PIECE_BYTES
    put = {"Bucket": bucket.removeprefix("s3://"), "Key": "store/files/x"}
    s3_server.client().put_object(**put, Body=os.urandom(size))
    reading = root.pieces(Entry("store", "files/x", size, ""))
    next(reading)
    s3_server.client().put_object(**put, Body=os.urandom(size))
    with pytest.raises(ChangedMeanwhile):
        list(reading)


def test_a_bucket_that_is_not_there_is_no_empty_one(bucket: str, tmp_path: Path) -> None:
    for act in (
        lambda: made(f"{bucket}-gone/store", str(tmp_path / "backups")),
        lambda: made(str(tmp_path / "store"), f"{bucket}-gone/backups"),
        lambda: find_backup(f"{bucket}-gone/backups"),
    ):
        with pytest.raises(Unavailable, match="there is no bucket") as refused:
            act()
        assert refused.value.code == "store-no-bucket"
    assert not list((tmp_path / "backups").glob("*/manifest.json"))


def test_a_damaged_object_is_set_aside_and_kept_anew_on_s3_too(bucket: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.write_json(store.uri("packages", "p", "headrace.json"), {"a": 1})
    made(store.url, f"{bucket}/backups")
    archive, _ = find_backup(f"{bucket}/backups")
    (sha256,) = archive.objects()
    archive.set_aside(sha256)
    assert archive.objects() == {}
    assert archive.filesystem.exists(archive.path("damaged", sha256))
    archive.set_aside(sha256)  # nothing is there, as after a kill
    made(store.url, f"{bucket}/backups")
    assert list(archive.objects()) == [sha256]


def test_the_key_of_backups_may_be_one_of_an_hour(s3_server: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.steps.backup_archive import Archive

    with environment(s3_server.environment):
        for name, value in (("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s"), ("SESSION_TOKEN", "t")):
            monkeypatch.setenv(f"HEADRACE_BACKUP_AWS_{name}", value)
        options = Archive(f"{new_bucket(s3_server)}/backups").filesystem.storage_options
    assert (options["key"], options["secret"], options["token"]) == ("k", "s", "t")
