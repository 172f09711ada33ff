"""After a restore into an empty home an endpoint answers as the one before did: the same request, the same numbers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.base.processes import end_session
from headrace.local.head_record import read_head
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
    try:
        said(home, "up")
        since = time.monotonic()
        while (served := the_endpoint(home))["state"] == "updating":  # a busy machine
            assert time.monotonic() - since < 300, served
            time.sleep(1)
        assert (served["version"], served["state"]) == ("1", "ready")
        yield served["url"]
    finally:
        end_head(home)
        stop_service(home)


def the_endpoint(home: Path) -> dict[str, Any]:
    (served,) = headrace(home, "deployments")["deployments"]
    return dict(served)


def end_head(home: Path) -> None:
    """What `headrace down` does in order and in more time: nobody needs this head or its files again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(home))
        head = read_head()
    if head is not None:
        end_session(head.leader, grace_seconds=0.0)


def said(home: Path, *words: str) -> None:
    """Run a command in a process of its own: this one belongs to the tier's own head."""
    command = [sys.executable, "-m", "headrace.cli.main", *words]
    subprocess.run(command, env=in_home(home), check=True, timeout=600)


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
