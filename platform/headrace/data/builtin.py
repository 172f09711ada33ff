"""Data that comes with the installation, as a filesystem: `builtin://digits/3/00012.png`.

An example that needs no download must still take the same way as a folder of one's own, so each set is shown as files:
scikit-learn's digits as PNG in class folders, generated scenes in the layout that annotation tools write. The bytes are
made here, the same on every machine, and depend on no image library's version.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast

from fsspec.spec import AbstractFileSystem

SETS: Mapping[str, str] = {
    "digits": "headrace.data.builtin_digits",
    "digit-scenes": "headrace.data.builtin_digit_scenes",
    "digit-scenes-low": "headrace.data.builtin_digit_halves:LOW",
    "digit-scenes-high": "headrace.data.builtin_digit_halves:HIGH",
    "shapes": "headrace.data.builtin_shapes",
    "shape-tracks": "headrace.data.builtin_shape_tracks",
}


class BuiltinSet(Protocol):
    """A module that makes a set, or something in one."""

    def version(self) -> str:
        """What changes when the set's bytes do. Raises MissingExtra where what it is made from is not installed."""

    def contents(self) -> Mapping[str, bytes]:
        """The bytes of every file by its path in the set."""


class BuiltinFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Read-only, one folder a set; the sets' modules say what they hold."""

    protocol = "builtin"
    root_marker = ""

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a folder, or a file's own."""
        path = self._strip_protocol(path)
        if path == "":
            entries = [_folder(name) for name in SETS]
        elif path in _files(path):
            entries = [_files(path)[path]]
        elif path in _folders(path):
            entries = _folders(path)[path]
        else:
            raise FileNotFoundError(f"builtin:{path} (there are: {', '.join(f'builtin:{name}' for name in SETS)})")
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, type, size and stamp of a file or folder."""
        path = self._strip_protocol(path)
        if path in ("", *SETS) or path in _folders(path):
            return _folder(path)
        found: dict[str, Any] = self.ls(path)[0]
        return found

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A file's bytes."""
        name, _separator, inner = str(self._strip_protocol(path)).partition("/")
        content = _contents(name).get(inner)
        if content is None:
            raise FileNotFoundError(path)
        return content[start:end]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if mode != "rb":
            raise PermissionError(f"builtin:{path} is read-only")
        return io.BytesIO(self.cat_file(path))


def version(path: str) -> str:
    """What the set that PATH lies in depends on; nothing for one that does not exist."""
    name = path.partition("/")[0]
    return _set(name).version() if name in SETS else ""


def _set(name: str) -> BuiltinSet:
    module, _, attribute = SETS[name].partition(":")
    made = import_module(module)
    return cast(BuiltinSet, getattr(made, attribute) if attribute else made)


@cache
def _contents(name: str) -> Mapping[str, bytes]:
    return _set(name).contents() if name in SETS else {}


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "type": "directory", "size": 0}


def _files(path: str) -> dict[str, dict[str, Any]]:
    """Every file of the set that PATH lies in."""
    return _tree(path.partition("/")[0])[0]


def _folders(path: str) -> dict[str, list[dict[str, Any]]]:
    """Every folder of the set that PATH lies in, with its entries."""
    return _tree(path.partition("/")[0])[1]


@cache
def _tree(name: str) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    if name not in SETS:
        return {}, {}
    stamp = version(name)
    files = {}
    folders: dict[str, list[dict[str, Any]]] = {name: []}
    for inner, content in _contents(name).items():
        path = f"{name}/{inner}"
        files[path] = {"name": path, "type": "file", "size": len(content), "etag": stamp}
        above = path.rpartition("/")[0]
        _make_folder(above, folders)
        folders[above].append(files[path])
    return files, folders


def _make_folder(path: str, folders: dict[str, list[dict[str, Any]]]) -> None:
    """Add PATH to FOLDERS, and what it lies in."""
    if path not in folders:
        above = path.rpartition("/")[0]
        _make_folder(above, folders)
        folders[path] = []
        folders[above].append(_folder(path))
