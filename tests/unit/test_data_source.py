"""Sources: listings that notice change, the same for local folders and URLs, and errors that say what to do."""

from __future__ import annotations

import io
import os
import pickle

import fsspec
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from headrace import data as headrace_data
from headrace.base import late
from headrace.base.errors import DataInvalid, MissingExtra, Unavailable
from headrace.data import builtin_digits, fingerprint_source
from headrace.data.source import Source, explained, read_uri


def folder(tmp_path, *names):
    for name in names:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "data"


def fingerprint(path):
    return fingerprint_source({"source": str(path)})


def test_files_are_listed_in_order_without_hidden_ones(tmp_path):
    data = folder(tmp_path, "b/2.png", "a/1.png", ".hidden/x.png", "a/.DS_Store", "__MACOSX/a/1.png", "c.csv")
    assert [file.path for file in Source(str(data)).files()] == ["a/1.png", "b/2.png", "c.csv"]


def test_a_link_that_points_upwards_ends(tmp_path):
    data = folder(tmp_path, "a/1.png")
    (data / "a" / "up").symlink_to(data)
    assert [file.path for file in Source(str(data)).files()] == ["a/1.png"]


def test_a_linked_class_folder_is_followed(tmp_path):
    data = folder(tmp_path, "a/1.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "2.png").write_bytes(b"2")
    (data / "b").symlink_to(elsewhere)
    assert [file.path for file in Source(str(data)).files()] == ["a/1.png", "b/2.png"]


def test_the_fingerprint_changes_with_size_time_name_and_number_of_files(tmp_path):
    data = folder(tmp_path, "a/1.png", "b/2.png")
    seen = [fingerprint(data)]
    assert fingerprint(data) == seen[0]
    (data / "a/1.png").write_bytes(b"longer than before")
    seen.append(fingerprint(data))
    os.utime(data / "b/2.png", ns=(1, 1))
    seen.append(fingerprint(data))
    (data / "b/2.png").rename(data / "b/3.png")
    seen.append(fingerprint(data))
    folder(tmp_path, "b/4.png")
    seen.append(fingerprint(data))
    assert len(set(seen)) == 5


def test_a_single_file_is_a_source(tmp_path):
    file = folder(tmp_path, "table.csv") / "table.csv"
    source = Source(str(file))
    assert source.is_file()
    assert [source.uri(f.path) for f in source.files()] == [str(file)]
    assert source.read("") == b"table.csv"


def test_a_url_is_listed_and_read_like_a_folder():
    memory = fsspec.filesystem("memory")
    memory.pipe({"/source-test/a/1.png": b"one", "/source-test/b/2.png": b"two"})
    source = Source("memory://source-test")
    assert [source.uri(file.path) for file in source.files()] == [
        "memory://source-test/a/1.png",
        "memory://source-test/b/2.png",
    ]
    assert source.folders() == ["a", "b"]
    assert source.read("a/1.png") == b"one"
    before = source.fingerprint()
    memory.pipe("/source-test/a/1.png", b"changed")
    assert source.fingerprint() != before
    single = Source("memory://source-test/a/1.png")
    assert single.is_file()
    assert [single.uri(f.path) for f in single.files()] == ["memory://source-test/a/1.png"]
    memory.rm("/source-test", recursive=True)


@pytest.mark.parametrize("address", ["/nowhere/at/all", "memory://nowhere-at-all", "builtin:nothing"])
def test_nothing_at_the_address_is_said(address):
    with pytest.raises(DataInvalid, match="nothing at") as error:
        Source(address).files()
    assert error.value.action == "check the path that was given, or data.source"


def test_an_unknown_protocol_says_what_is_allowed():
    with pytest.raises(DataInvalid, match="no address") as error:
        Source("ftpx://host/folder")
    assert "s3://" in error.value.action


def test_a_filesystem_that_is_not_installed_is_named_with_its_package(monkeypatch):
    def missing(_url, **_options):
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(DataInvalid) as error:
        Source("gs://bucket/data")
    assert error.value.action == "pip install gcsfs"
    with pytest.raises(MissingExtra) as extra:
        Source("s3://bucket/data")
    assert extra.value.action == "pip install 'headrace[cluster]'"


def test_a_filesystem_that_does_not_answer_is_unavailable():
    with pytest.raises(Unavailable, match="cannot be reached"), explained("s3://bucket", None):
        raise TimeoutError("no route")


def test_a_file_without_permission_says_so():
    with pytest.raises(DataInvalid, match="cannot be read"), explained("/secret", None):
        raise PermissionError("denied")


def test_builtin_digits_are_the_set_of_scikit_learn():
    data, target = load_digits(return_X_y=True)
    source = Source("builtin:digits")
    files = source.files()
    assert len(files) == len(data) == 1797
    for file in files[::97]:
        index = int(file.path.rsplit("/", 1)[-1].removesuffix(".png"))
        image = np.asarray(Image.open(io.BytesIO(source.read(file.path))))
        assert file.path.startswith(f"{target[index]}/")
        assert np.array_equal(image, np.rint(data[index] * 255 / 16).reshape(8, 8))


def test_the_halves_of_the_digit_scenes_are_its_files_by_digit():
    filesystem = fsspec.filesystem("builtin")
    names = {
        set_: [p.split("/", 1)[1] for p in filesystem.find(set_)] for set_ in ("digit-scenes-low", "digit-scenes-high")
    }
    whole = [path.split("/", 1)[1] for path in filesystem.find("digit-scenes")]
    assert sorted(names["digit-scenes-low"] + names["digit-scenes-high"]) == whole
    target = load_digits(return_X_y=True)[1]
    for half, digits in (("digit-scenes-low", range(5)), ("digit-scenes-high", range(5, 10))):
        assert {int(target[int(name.rsplit("/", 1)[1][:5])]) for name in names[half]} == set(digits)
    some = names["digit-scenes-high"][7]
    assert filesystem.cat_file(f"digit-scenes-high/{some}") == filesystem.cat_file(f"digit-scenes/{some}")


def test_builtin_files_behave_like_files():
    filesystem = fsspec.filesystem("builtin")
    assert {"digits", "digit-scenes", "shapes"} <= set(filesystem.ls("", detail=False))
    assert filesystem.info("digits")["type"] == "directory"
    with filesystem.open("builtin://digits/0/00000.png") as file:
        content = file.read()
    assert content == read_uri("builtin://digits/0/00000.png")
    assert len(content) == filesystem.info("digits/0/00000.png")["size"]
    assert pickle.loads(pickle.dumps(filesystem)).exists("digits/0/00000.png")
    with pytest.raises(PermissionError):
        filesystem.open("digits/0/00000.png", "wb")
    with pytest.raises(DataInvalid):
        read_uri("builtin://digits/0/99999.png")


def test_a_builtin_source_needs_no_listing_and_names_the_extra_it_lacks(monkeypatch):
    assert fingerprint("builtin:digits") == fingerprint("builtin:digits")

    def absent(_name):
        raise builtin_digits.metadata.PackageNotFoundError

    monkeypatch.setattr(builtin_digits.metadata, "version", absent)
    with pytest.raises(MissingExtra, match="train"):
        fingerprint("builtin:digits")


def test_builtin_digits_come_from_scikit_learn_itself_if_its_file_has_moved(monkeypatch):
    monkeypatch.setattr(builtin_digits.util, "find_spec", lambda _name: None)
    assert builtin_digits.digits().shape == (1797, 65)


def test_splitting_on_the_base_install_names_the_extra(monkeypatch):
    def missing(_name):
        raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")

    monkeypatch.setattr(late, "import_module", missing)
    with pytest.raises(MissingExtra, match="train"):
        headrace_data.__getattr__("split_data")
    with pytest.raises(AttributeError):
        headrace_data.__getattr__("no_such_name")
