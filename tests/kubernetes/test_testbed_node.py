"""What the node's test bed decides without a node: which machine can run one, and what its store of images keeps."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from headrace_testbed import cgroups, node_tier
from headrace_testbed.cache import cache_root
from headrace_testbed.image_store import ImageStore, take_store
from headrace_testbed.oci import Layer

_CONTENT = "io.containerd.content.v1.content/blobs/sha256"
_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs"
_META = "io.containerd.metadata.v1.bolt"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TEST_CACHE", str(tmp_path / "cache"))


def _filled(number: int, layers: list[Layer]) -> ImageStore:
    """The store NUMBER with what containerd would have written for LAYERS, put aside."""
    store = ImageStore(cache_root() / f"containerd-{number}")
    for folder in (_CONTENT, f"{_SNAPSHOTS}/snapshots/1", _META):
        (store.root / folder).mkdir(parents=True)
    for database in (f"{_META}/meta.db", f"{_SNAPSHOTS}/metadata.db"):
        (store.root / database).write_text("of the images")
    for layer in layers:
        (store.root / _CONTENT / layer.digest.removeprefix("sha256:")).write_bytes(layer.file.read_bytes())
    store.put_aside({"image:1": "mark"})
    return store


def _layer(folder: Path, name: str, size: int) -> Layer:
    (folder / name).write_bytes(b"x" * size)
    return Layer(folder / name, f"sha256:{name}", size)


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in node_tier.why_not()


def test_a_machine_without_a_tool_is_told_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(node_tier.shutil, "which", lambda name: None if name == "ip" else f"/usr/bin/{name}")
    monkeypatch.setattr(node_tier.toolchain, "why_not", lambda: "")
    assert "apt-get install iproute2" in node_tier.why_not()


def test_a_node_begins_with_the_images_and_nothing_else_of_the_last_one(tmp_path: Path):
    store = _filled(0, [_layer(tmp_path, "aa", 10)])
    (store.root / _META / "meta.db").write_text("of containers as well")
    for left in (f"{_SNAPSHOTS}/snapshots/2", "io.containerd.runtime.v2.task"):
        (store.root / left).mkdir()
    (store.root / _CONTENT / "bb").touch()
    store.close()
    store.begin()
    assert (store.root / _META / "meta.db").read_text() == "of the images"
    assert [each.name for each in (store.root / _SNAPSHOTS / "snapshots").iterdir()] == ["1"]
    assert not (store.root / "io.containerd.runtime.v2.task").exists()
    assert store.blobs == {"sha256:aa"}
    assert store.images == {"image:1": "mark"}


def test_a_node_takes_the_free_store_that_lacks_least(tmp_path: Path):
    small, big = _layer(tmp_path, "aa", 10), _layer(tmp_path, "bb", 1000)
    for number, layers in enumerate(([small], [big], [])):
        _filled(number, layers).close()
    with contextlib.ExitStack() as taken:
        stores = [taken.enter_context(contextlib.closing(take_store([small, big]))) for _ in range(4)]
        assert [each.folder.name[-1] for each in stores] == ["1", "0", "2", "3"]
        stores[0].close()
        with contextlib.closing(take_store([small])) as again:
            assert again.folder.name == "containerd-1"


def test_a_layer_lies_once_on_the_disk(tmp_path: Path):
    layer = _layer(tmp_path, "aa", 10)
    store = _filled(0, [layer])
    blob = store.root / _CONTENT / "aa"
    assert not blob.samefile(layer.file)
    store.close()
    store.share([layer])
    assert blob.samefile(layer.file)


def test_a_machine_without_cgroups_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_CGROUPS", tmp_path / "nowhere")
    assert node_tier._no_cgroup() == "a node needs cgroups below /sys/fs/cgroup"
    cgroups.remove_cgroups("headrace-node-1-node")


def test_a_machine_whose_cgroups_cannot_be_written_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / f"headrace-trial-{os.getpid()}").touch()  # nobody can make a folder of that name
    monkeypatch.setattr(cgroups, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cgroups, "_END_SECONDS", 0)
    assert node_tier._no_cgroup().startswith("a node needs writable cgroups: ")
