"""After a restore into an empty home an endpoint answers as the one before did: the same request, the same numbers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from headrace.serving.v2_client import infer
from headrace_models.package import load_package
from headrace_testbed.backup_homes import headrace, in_home, live_in, stop_service

pytestmark = pytest.mark.timeout(900)  # two Ray heads


@contextmanager
def short_home() -> Iterator[Path]:
    """A folder for a home; Ray's sockets lie below it, so its path is short."""
    folder = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))
    try:
        yield folder / "home"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """Everything that HOME serves, up; the endpoint's address."""
    said(home, "up")
    try:
        (served,) = headrace(home, "deployments")["deployments"]
        assert (served["version"], served["state"]) == ("1", "ready")
        yield served["url"]
    finally:
        said(home, "down", "--yes")
        stop_service(home)


def said(home: Path, *words: str) -> None:
    """Run a command in a process of its own: this one belongs to the tier's own head."""
    command = [sys.executable, "-m", "headrace.cli.main", *words]
    subprocess.run(command, env=in_home(home), check=True, timeout=400)


def test_a_restored_endpoint_answers_as_the_one_before(tmp_path: Path) -> None:
    with short_home() as before, short_home() as after:
        live_in(before)
        package = before / "store" / "packages" / ("a" * 64)
        request = load_package(str(package)).example
        with serving(before) as url:
            answer = infer(url, request)
            headrace(before, "backup", str(tmp_path / "backups"), "--verify")  # while it serves
        shutil.rmtree(before)
        headrace(after, "restore", str(tmp_path / "backups"), "--yes")
        with serving(after) as url:
            again = infer(url, request)
    assert again.version == answer.version
    assert answer.outputs.keys() == again.outputs.keys() != set()
    for name, values in answer.outputs.items():
        assert np.array_equal(values, again.outputs[name]), name
