"""Data that comes with the installation, as a filesystem: `builtin://digits/3/00012.png`.

An example that needs no download must still take the same way as a folder of one's own, so scikit-learn's digits are
shown as PNG files in class folders. The bytes are made here, uncompressed, and depend on no image library's version.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractFileSystem

from headrace.base.errors import MissingExtra

if TYPE_CHECKING:
    import numpy as np

SETS = ("digits",)


class BuiltinFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Read-only. `digits`: 1,797 grey images of 8 x 8 in folders 0 to 9 (UCI: optical recognition of digits)."""

    protocol = "builtin"
    root_marker = ""

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """The entries of a folder, or a file's own."""
        path = self._strip_protocol(path)
        tree = _tree()
        if path in tree["files"]:
            entries = [tree["files"][path]]
        elif path in tree["folders"]:
            entries = tree["folders"][path]
        else:
            raise FileNotFoundError(f"builtin:{path} (there are: {', '.join(f'builtin:{name}' for name in SETS)})")
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, type, size and stamp of a file or folder."""
        path = self._strip_protocol(path)
        if path in _tree()["folders"]:
            return {"name": path, "type": "directory", "size": 0}
        found: dict[str, Any] = self.ls(path)[0]
        return found

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """A file's bytes."""
        pixels = _pixels_by_path().get(self._strip_protocol(path))
        if pixels is None:
            raise FileNotFoundError(path)
        return png_of(pixels)[start:end]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if mode != "rb":
            raise PermissionError(f"builtin:{path} is read-only")
        return io.BytesIO(self.cat_file(path))


def version() -> str:
    """What the built-in data depends on."""
    try:
        return f"scikit-learn {metadata.version('scikit-learn')}"
    except metadata.PackageNotFoundError:
        raise MissingExtra("train", "builtin data") from None


def png_of(pixels: np.ndarray) -> bytes:
    """A grey image uint8 [height, width] as PNG, stored without compression: the same bytes everywhere."""
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


@cache
def _pixels_by_path() -> dict[str, np.ndarray]:
    """uint8 [8, 8] by path; the set's 17 grey levels are spread over 0 to 255."""
    import numpy as np

    values = _digits()
    images = np.rint(values[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return {
        f"digits/{int(row[64])}/{i:05d}.png": image for i, (row, image) in enumerate(zip(values, images, strict=True))
    }


def _digits() -> np.ndarray:
    """float64 [1797, 65], the class last. Read from scikit-learn's file: importing its datasets takes seconds."""
    import numpy as np

    version()
    found = util.find_spec("sklearn")
    file = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else Path()
    if file.is_file():
        return np.array(
            gzip.decompress(file.read_bytes()).replace(b"\n", b",").rstrip(b",").split(b","), float
        ).reshape(-1, 65)
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    return np.column_stack([data, target])


@cache
def _tree() -> dict[str, dict[str, Any]]:
    size = len(png_of(next(iter(_pixels_by_path().values()))))
    stamp = version()
    files = {p: {"name": p, "type": "file", "size": size, "etag": stamp} for p in _pixels_by_path()}
    folders: dict[str, list[dict[str, Any]]] = {"": [{"name": "digits", "type": "directory", "size": 0}], "digits": []}
    for path, entry in files.items():
        folder = path.rsplit("/", 1)[0]
        if folder not in folders:
            folders[folder] = []
            folders["digits"].append({"name": folder, "type": "directory", "size": 0})
        folders[folder].append(entry)
    return {"files": files, "folders": folders}
