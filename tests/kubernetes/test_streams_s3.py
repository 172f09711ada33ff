"""Large files to and from a real S3 store: in parts, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.store import streams
from headrace.store.filesystems import open_filesystem
from headrace_testbed.backup_sites import environment
from headrace_testbed.s3 import S3Store

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with S3Store(tmp_path_factory.mktemp("s3")) as store:
        store.make_bucket("large")
        with environment(dict(store.environment)):
            yield store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(20 * MEBIBYTE + 1))
    return path


def pieces(url: str) -> Iterator[bytes]:
    filesystem, path = open_filesystem(url)
    return streams.pieces(filesystem, path, filesystem.size(path))


def copied(file: Path, name: str, sha256: str | None = None) -> bool:
    target, _ = open_filesystem("s3://large")
    found, size = streams.hash_of(pieces(str(file)), lambda: None)
    source = pieces(str(file))
    return streams.copy(source, target, f"large/{name}", sha256=sha256 or found, size=size, beat=lambda: None)


def test_a_large_file_goes_in_parts_and_comes_back_with_its_hash(s3: S3Store, file: Path) -> None:
    beats: list[int] = []
    assert copied(file, "x")
    found = streams.hash_of(pieces("s3://large/x"), lambda: beats.append(1))
    assert found == streams.hash_of(pieces(str(file)), lambda: None)
    assert len(beats) == 3  # pieces of 8 MiB: never the whole in memory
    assert s3.client().head_object(Bucket="large", Key="x")["ETag"].strip('"').endswith("-3")


def test_parts_grow_with_the_file_as_a_store_takes_only_so_many(
    s3: S3Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PIECE_BYTES", 5 * MEBIBYTE)
    monkeypatch.setattr(streams, "MOST_PARTS", 2)
    assert copied(file, "y")
    assert s3.client().head_object(Bucket="large", Key="y")["ETag"].strip('"').endswith("-2")


def test_a_file_with_other_bytes_leaves_neither_an_object_nor_parts(s3: S3Store, file: Path) -> None:
    assert not copied(file, "z", "0" * 64)
    listed = s3.client().list_objects_v2(Bucket="large").get("Contents", [])
    assert "z" not in {each["Key"] for each in listed}
    assert not s3.client().list_multipart_uploads(Bucket="large").get("Uploads")
