"""Layers and archives: equal contents are equal layers, an archive is whole, a change costs what follows it alone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from headrace_testbed.containerfile import Stage
from headrace_testbed.oci import Layer, image, pack, packed, write_archive
from headrace_testbed.rootfs import Build

CONTAINERFILE = """FROM debian:bookworm-slim AS tools
COPY tools /
FROM tools AS dependencies
COPY lock /
RUN sh /install.sh /out
FROM tools AS code
COPY --from=dependencies /parts/ /parts/
COPY sources /src/
RUN sh /build.sh /out
FROM scratch
COPY --from=dependencies /out/ /
COPY --from=code /out/ /
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "usr" / "bin").mkdir(parents=True)
    (folder / "usr" / "bin" / "program").write_text("it")
    (folder / "usr" / "bin" / "program").chmod(0o755)
    (folder / "bin").symlink_to("usr/bin")
    return folder


def test_equal_contents_are_an_equal_layer_whenever_they_were_written(files: Path, tmp_path: Path) -> None:
    first = pack(files, tmp_path / "first")
    os.utime(files / "usr" / "bin" / "program", (1, 1))
    assert pack(files, tmp_path / "second").digest == first.digest
    (files / "usr" / "bin" / "program").chmod(0o700)
    assert pack(files, tmp_path / "third").digest != first.digest


def test_a_layer_is_found_again_as_it_was_packed(files: Path, tmp_path: Path) -> None:
    layer = pack(files, tmp_path / "layer")
    assert packed(tmp_path / "layer") == layer
    data = layer.file.read_bytes()
    assert (layer.digest, layer.size) == (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
    with tarfile.open(layer.file) as tar:
        assert tar.getnames() == ["bin", "usr", "usr/bin", "usr/bin/program"]
        assert tar.getmember("bin").linkname == "usr/bin"
        assert tar.getmember("usr/bin/program").mode == 0o755


def test_files_go_as_they_are_packed_where_there_is_no_room_for_both(files: Path, tmp_path: Path) -> None:
    kept = pack(files, tmp_path / "kept")
    assert pack(files, tmp_path / "gone", done=Path.unlink).digest == kept.digest
    assert not (files / "usr" / "bin" / "program").exists()


def archive_of(layers: list[Layer], known: tuple[str, ...] = ()) -> dict[str, bytes]:
    stage = Stage("scratch", configuration=[("USER", "1:1"), ("ENTRYPOINT", '["program"]')])
    buffer = io.BytesIO()
    write_archive([image("localhost/it:1", stage, layers)], buffer, known)
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def blob(archive: dict[str, bytes], entry: dict[str, Any]) -> Any:
    """What ENTRY points to, whose digest and size are checked."""
    data = archive["blobs/" + entry["digest"].replace(":", "/")]
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["digest"].partition(":")[2], entry["size"])
    return data


def test_an_archive_leads_from_its_index_to_every_layer(files: Path, tmp_path: Path) -> None:
    layer = pack(files, tmp_path / "layer")
    archive = archive_of([layer])
    assert json.loads(archive["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    entry = json.loads(archive["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/it:1"
    manifest = json.loads(blob(archive, entry))
    config = json.loads(blob(archive, manifest["config"]))
    assert config["config"] == {"User": "1:1", "Entrypoint": ["program"]}
    assert config["rootfs"]["diff_ids"] == [layer.digest]
    assert [blob(archive, each) for each in manifest["layers"]] == [layer.file.read_bytes()]


def test_an_archive_leaves_out_the_layers_that_its_reader_has(files: Path, tmp_path: Path) -> None:
    layer = pack(files, tmp_path / "layer")
    left_out = set(archive_of([layer])) - set(archive_of([layer], (layer.digest,)))
    assert left_out == {"blobs/" + layer.digest.replace(":", "/")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "Containerfile").write_text(CONTAINERFILE)
    for name in ("tools", "lock", "sources/a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        ("sources/a.py", {"code"}),
        ("sources/b.py", {"code"}),
        ("lock", {"dependencies", "code"}),
        ("tools", {"tools", "dependencies", "code"}),
        ("sources/__pycache__/a.pyc", set()),
        ("elsewhere.md", set()),
    ],
)
def test_a_change_rebuilds_what_follows_from_it_and_nothing_else(
    checkout: Path, changed: str, rebuilt: set[str]
) -> None:
    def keys() -> dict[str, str]:
        build = Build(checkout / "Containerfile", checkout, {})
        return {name: build.key(name) for name in ("tools", "dependencies", "code")}

    before = keys()
    (checkout / changed).parent.mkdir(exist_ok=True)
    (checkout / changed).write_text("changed")
    after = keys()
    assert {name for name in before if before[name] != after[name]} == rebuilt
