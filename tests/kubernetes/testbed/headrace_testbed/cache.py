"""Where the test bed's programs lie: outside the repository, one folder a recipe, shared by every checkout of a user.

A folder's name carries a hash of everything that decides its contents, so a folder that exists is right and nothing is
ever updated in place. Two sessions that want the same folder wait for each other instead of building it twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_root() -> Path:
    """The cache's folder: HEADRACE_TEST_CACHE, or one below the user's own cache."""
    root = os.environ.get("HEADRACE_TEST_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME", "~/.cache"), "headrace-testbed"
    )
    return Path(root).expanduser().absolute()


def digest_of(*parts: bytes | str) -> str:
    """Twelve hexadecimal digits for PARTS, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    cache_root().mkdir(parents=True, exist_ok=True)
    with open(cache_root() / f".{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go by the kernel when its holder dies
        yield


def cached(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder NAME of the cache. If it is missing, FILL fills a fresh one, which takes the name only when whole."""
    folder = cache_root() / name
    if folder.exists():
        return folder
    with _locked(name):
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache_root()))
            try:
                fill(unfinished)
                unfinished.chmod(0o755)
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return folder
