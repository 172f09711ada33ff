"""Where every run's files lie, on any filesystem that fsspec knows. The store is also the only cache.

    specs/<sha256>.json                          the canonical JSON a step reads
    code/<sha256>.tar                            a user's own model code
    splits/<fingerprint>/                        split.json and the manifest's Parquet files
    packages/<sha256>/                           models on disk, content-addressed
    evaluations/<package sha256>/<split fp>.json test metrics; plots in a folder of the same stem
    runs/<run id>/                               attempt.json, checkpoints/, steps/<step>/result.json|error.json
    index/<step>/<key>.json                      cache: a step's key to its result

Writers make a thing whole and then name it: JSON files go through a temporary name where the filesystem can rename,
content-addressed folders are complete once their marker file (`headrace.json`, `split.json`) is there.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base.errors import Superseded
from headrace.base.home import store_url
from headrace.base.jsonfile import canonical, sha256_of


class Store:
    """The artifact store at URL (default: HEADRACE_STORE or the one below home)."""

    def __init__(self, url: str | None = None) -> None:
        self.url = (url or store_url()).rstrip("/")
        self.filesystem, self._root = fsspec.core.url_to_fs(self.url)
        self.local = isinstance(self.filesystem, LocalFileSystem)
        if self.local:
            self.url = self._root

    def uri(self, *parts: str) -> str:
        """The URI of a place in the store: an absolute path for a local store, else a URL."""
        return "/".join((self.url, *parts))

    def path(self, uri: str) -> str:
        """URI without its protocol, as the store's filesystem wants it."""
        return str(self.filesystem._strip_protocol(uri))

    # JSON values

    def write_json(self, uri: str, value: Any) -> str:
        """Write VALUE at URI as a whole; returns URI."""
        self.write_bytes(uri, canonical(value).encode())
        return uri

    def write_bytes(self, uri: str, data: bytes) -> str:
        """Write DATA at URI as a whole; returns URI."""
        path = self.path(uri)
        self.filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        if not self.local:  # object stores write whole objects
            self.filesystem.pipe_file(path, data)
            return uri
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        self.filesystem.pipe_file(temporary, data)
        Path(temporary).replace(path)
        return uri

    def create_json(self, uri: str, value: Any) -> bool:
        """Write VALUE at URI unless something is there; whether it was written. Of several writers one succeeds."""
        path = self.path(uri)
        self.filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        try:
            self.filesystem.pipe_file(path, canonical(value).encode(), mode="create")
        except FileExistsError:
            return False
        return True

    def read_json(self, uri: str) -> Any:
        """The value at URI, or None where there is nothing."""
        try:
            return json.loads(self.filesystem.cat_file(self.path(uri)))
        except FileNotFoundError:
            return None

    def exists(self, uri: str) -> bool:
        """Whether there is a file or folder at URI."""
        return bool(self.filesystem.exists(self.path(uri)))

    def put_spec(self, value: Any) -> str:
        """Store a canonical JSON under its own hash; returns its URI."""
        return self.write_json(self.uri("specs", f"{sha256_of(value)}.json"), value)

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
        files = sorted(
            (p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(folder) == Path(marker)
        )
        for file in files:
            self.write_bytes(f"{uri}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return uri

    # attempts

    def attempt_uri(self, run_id: str) -> str:
        """Where a run's newest attempt is written."""
        return self.uri("runs", run_id, "attempt.json")

    def claim_attempt(self, run_id: str, attempt: str) -> None:
        """Make ATTEMPT ("2.1": the run's and the training's own) the owner of the run's files."""
        self.write_json(self.attempt_uri(run_id), {"attempt": attempt})

    def current_attempt(self, run_id: str) -> str | None:
        """The attempt that owns the run's files."""
        found = self.read_json(self.attempt_uri(run_id))
        return None if found is None else str(found["attempt"])

    def check_attempt(self, run_id: str, attempt: str) -> None:
        """Raise Superseded if a newer attempt owns RUN_ID. To be called before every write on behalf of a run."""
        current = self.current_attempt(run_id)
        if current is not None and attempt_order(current) > attempt_order(attempt):
            raise Superseded(
                f"attempt {attempt} of run {run_id} was superseded by attempt {current}",
                action="nothing: the newer attempt goes on",
            )


def attempt_order(attempt: str) -> tuple[int, ...]:
    """Attempts in order: "2.1" is after "1.3"."""
    return tuple(int(part) for part in attempt.split("."))
