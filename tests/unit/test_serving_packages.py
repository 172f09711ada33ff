"""Where a replica gets a package from: read in place from a local store, copied once and whole from a remote one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from headrace.base.errors import Unavailable
from headrace.serving.contract import StableVersion
from headrace.serving.packages import fetch_package

FILES = {"headrace.json": b"{}", "model.safetensors": b"weights", "code/net.py": b"x = 1"}


@pytest.fixture
def remote() -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    for name, data in FILES.items():
        filesystem.pipe_file(f"/store/packages/abc/{name}", data)
    yield filesystem
    filesystem.rm("/store", recursive=True)


def version(uri: str) -> StableVersion:
    return StableVersion("1", uri, "abc")


def test_a_local_package_is_read_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "headrace.json").write_text("{}")
    assert fetch_package(version(str(tmp_path)), tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()


def test_a_remote_package_is_copied_whole_and_once(remote: Any, tmp_path: Path) -> None:
    folder = fetch_package(version("memory://store/packages/abc"), tmp_path)
    assert folder == tmp_path / "abc"
    copied = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert copied == FILES
    remote.pipe_file("/store/packages/abc/model.safetensors", b"other")
    assert fetch_package(version("memory://store/packages/abc"), tmp_path) == folder
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_copy_that_fails_leaves_nothing_behind_and_is_made_anew(
    remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = type(remote).get_file

    def broken(self: Any, source: str, target: str, **rest: Any) -> None:
        if source.endswith("safetensors"):
            raise OSError("the network is gone")
        whole(self, source, target, **rest)

    monkeypatch.setattr(type(remote), "get_file", broken)
    with pytest.raises(Unavailable, match="network"):
        fetch_package(version("memory://store/packages/abc"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["abc.lock"]
    monkeypatch.setattr(type(remote), "get_file", whole)
    assert (fetch_package(version("memory://store/packages/abc"), tmp_path) / "headrace.json").is_file()


def test_a_copied_package_needs_its_store_no_more(remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch_package(version("memory://store/packages/abc"), tmp_path)

    def down(*_: Any, **__: Any) -> None:
        raise TimeoutError("the store is down")

    for name in ("info", "find", "get_file", "exists", "ls"):
        monkeypatch.setattr(type(remote), name, down)
    assert fetch_package(version("memory://store/packages/abc"), tmp_path) == folder


def test_a_package_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no package at /no/such"):
        fetch_package(version("/no/such"), tmp_path)
