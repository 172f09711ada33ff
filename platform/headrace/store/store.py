"""Where every run's files lie, on any filesystem that fsspec knows. The store is also the only cache.

    specs/<sha256>.json                          the canonical JSON a step reads
    code/<sha256>.tar                            a user's own model code
    splits/<fingerprint>/                        split.json and the manifest's Parquet files
    packages/<sha256>/                           models on disk, content-addressed
    evaluations/<package sha256>/<split fp>.json test metrics; plots in a folder of the same stem
    runs/<run id>/                               attempt.json, checkpoints/, events/, steps/<step>/{result,error}.json
    index/<step>/<key>.json                      cache: a step's key to its result

Writers make a thing whole and then name it: JSON files go through a temporary name where the filesystem can rename and
are whole objects where it cannot, content-addressed folders are complete once their marker file (`headrace.json`,
`split.json`) is there. Nothing rests on times or on an order in which files appear. A store that refuses or does not
answer raises Unavailable (exit 4) with its endpoint.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from headrace.base.errors import Superseded, Unavailable
from headrace.base.home import store_url
from headrace.base.jsonfile import canonical, sha256_of
from headrace.store import conditional
from headrace.store.filesystems import files_below, is_there, open_filesystem, reached, read_whole

_CLAIM_TRIES = 20  # each lost to another writer of the same run's attempt; two are many


class Store:
    """The artifact store at URL (default: HEADRACE_STORE or the one below home). Making one asks nothing of it.

    Raises:
        MissingExtra: it is on S3, and s3fs is not installed.
        InvalidInput: no filesystem is known for URL.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = (url or store_url()).rstrip("/")
        self.filesystem, self._root = open_filesystem(self.url)
        self.local = isinstance(self.filesystem, LocalFileSystem)
        if self.local:
            self.url = self._root

    def uri(self, *parts: str) -> str:
        """The URI of a place in the store: an absolute path for a local store, else a URL."""
        return "/".join((self.url, *parts))

    def path(self, uri: str) -> str:
        """URI without its protocol, as the store's filesystem wants it."""
        return str(self.filesystem._strip_protocol(uri))

    @contextmanager
    def _at(self, uri: str) -> Iterator[str]:
        """The path of URI, for a block whose failures are the store's."""
        with reached(uri, self.filesystem):
            yield self.path(uri)

    # values

    def write_json(self, uri: str, value: Any) -> str:
        """Write VALUE at URI as a whole; returns URI."""
        return self.write_bytes(uri, canonical(value).encode())

    def write_bytes(self, uri: str, data: bytes) -> str:
        """Write DATA at URI as a whole; returns URI."""
        with self._at(uri) as path:
            if not self.local:  # object stores write whole objects, and have no folders to make
                self.filesystem.pipe_file(path, data)
                return uri
            with _whole(Path(path)) as temporary:
                temporary.write_bytes(data)
        return uri

    def create_json(self, uri: str, value: Any) -> bool:
        """Write VALUE at URI unless something is there; whether it was written. Of several writers one succeeds."""
        with self._at(uri) as path:
            return conditional.create(self.filesystem, path, canonical(value).encode())

    def read_json(self, uri: str) -> Any:
        """The value at URI, or None where there is nothing."""
        data = self.read_bytes(uri)
        return None if data is None else json.loads(data)

    def read_bytes(self, uri: str) -> bytes | None:
        """What is at URI, or None."""
        try:
            with self._at(uri) as path:
                return read_whole(self.filesystem, path)
        except FileNotFoundError:
            return None

    def exists(self, uri: str) -> bool:
        """Whether there is a file or folder at URI."""
        with self._at(uri) as path:
            return is_there(self.filesystem, path)

    def put_spec(self, value: Any) -> str:
        """Store a canonical JSON under its own hash; returns its URI."""
        return self.write_json(self.uri("specs", f"{sha256_of(value)}.json"), value)

    def remove(self, uri: str) -> None:
        """Remove the file at URI, if it is there."""
        try:
            with self._at(uri) as path:
                self.filesystem.rm_file(path)
        except FileNotFoundError:
            return

    # the cache

    def remember(self, step: str, key: str, result: dict[str, Any]) -> None:
        """Record what STEP gave for KEY."""
        self.write_json(self.uri("index", step, f"{key}.json"), result)

    def recall(self, step: str, key: str) -> dict[str, Any] | None:
        """What STEP gave for KEY, or None."""
        found = self.read_json(self.uri("index", step, f"{key}.json"))
        return found if isinstance(found, dict) else None

    # folders

    def put_folder(self, folder: Path, uri: str, *, marker: str) -> str:
        """Copy a local FOLDER to URI, MARKER last, unless it is there already; returns URI."""
        if self.exists(f"{uri}/{marker}"):
            return uri
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        with self._at(uri) as root:
            for batch in ([name for name in names if name != marker], [name for name in names if name == marker]):
                self._put([folder / name for name in batch], [f"{root}/{name}" for name in batch])
        return uri

    def _put(self, files: list[Path], paths: list[str]) -> None:
        """Copy local FILES to PATHS, each as a whole; on an object store at once, large ones in parts."""
        if self.local:
            for file, path in zip(files, paths, strict=True):
                with _whole(Path(path)) as temporary:
                    shutil.copyfile(file, temporary)
        elif files:
            self.filesystem.put([str(file) for file in files], paths)

    def get_folder(self, uri: str, into: Path) -> Path:
        """Copy every file below URI to the local folder INTO; returns INTO. Raises FileNotFoundError where none is."""
        with self._at(uri) as root:
            names = sorted(files_below(self.filesystem, root))
            if not names:
                raise FileNotFoundError(f"there is nothing at {uri}")
            for name in names:
                (into / name).parent.mkdir(parents=True, exist_ok=True)
            self.filesystem.get([f"{root}/{name}" for name in names], [str(into / name) for name in names])
        return into

    def names(self, uri: str) -> list[str]:
        """The names of what lies directly in the folder URI; none where there is no such folder."""
        try:
            with self._at(uri) as path:
                found = self.filesystem.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        root = path.rstrip("/")
        names = {str(name).rstrip("/").rsplit("/", 1)[-1] for name in found if str(name).rstrip("/") != root}
        return sorted(names)

    def remove_folder(self, uri: str) -> None:
        """Remove everything below URI, if there is anything."""
        try:
            with self._at(uri) as path:
                self.filesystem.rm(path, recursive=True)
        except FileNotFoundError:
            return

    # attempts

    def attempt_uri(self, run_id: str) -> str:
        """Where a run's newest attempt is written."""
        return self.uri("runs", run_id, "attempt.json")

    def claim_attempt(self, run_id: str, attempt: str) -> None:
        """Make ATTEMPT ("2.1": the run's and the training's own) the owner of the run's files.

        Raises:
            Superseded: a newer attempt owns them; whichever of two claims comes first, the newer one stands at the end.
        """
        uri = self.attempt_uri(run_id)
        data = canonical({"attempt": attempt}).encode()
        with self._at(uri) as path:
            for _ in range(_CLAIM_TRIES):
                found = conditional.read(self.filesystem, path)
                current = None if found is None else str(json.loads(found[0])["attempt"])
                _require_order(run_id, attempt, current)
                if current is not None and attempt_order(current) >= attempt_order(attempt):
                    return
                if conditional.replace(self.filesystem, path, data, found):
                    return
        raise Unavailable(
            f"attempt {attempt} of run {run_id} could not be claimed: {uri} changes all the time",
            action="end what else drives this run, then resume it",
            code="store-contended",
        )

    def current_attempt(self, run_id: str) -> str | None:
        """The attempt that owns the run's files."""
        found = self.read_json(self.attempt_uri(run_id))
        return None if found is None else str(found["attempt"])

    def check_attempt(self, run_id: str, attempt: str) -> None:
        """Raise Superseded if a newer attempt owns RUN_ID. To be called before every write on behalf of a run.

        An attempt of the run alone ("2", a step on a cluster) is not superseded by its own training's ("2.1").
        """
        _require_order(run_id, attempt, self.current_attempt(run_id))


def _require_order(run_id: str, attempt: str, current: str | None) -> None:
    own = attempt_order(attempt)
    if current is not None and attempt_order(current)[: len(own)] > own:
        raise Superseded(
            f"attempt {attempt} of run {run_id} was superseded by attempt {current}",
            action="nothing: the newer attempt goes on",
        )


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name beside PATH to write to; PATH is replaced when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def attempt_order(attempt: str) -> tuple[int, ...]:
    """Attempts in order: "2.1" is after "1.3"."""
    return tuple(int(part) for part in attempt.split("."))
