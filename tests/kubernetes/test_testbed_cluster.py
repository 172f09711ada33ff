"""The cluster for people, `make cluster-up`: what it decides before anything is started."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from headrace_testbed.waiting import eventually


@pytest.fixture(scope="module")
def cluster() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cluster_for_people", Path(__file__).with_name("cluster.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["keep", "keep-node"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The action of a process that looks like the keeper of a cluster in the test's folder."""
    command = [sys.executable, "-c", "import time; time.sleep(600)", request.param, str(tmp_path)]
    with subprocess.Popen(command) as keeper:
        try:
            words = Path(f"/proc/{keeper.pid}/cmdline")
            eventually(lambda: str(tmp_path) in words.read_text())  # for a moment after exec they are not there yet
            (tmp_path / "keeper.pid").write_text(str(keeper.pid))
            (tmp_path / "kubeconfig").touch()
            yield request.param
        finally:
            keeper.kill()


def test_a_cluster_that_is_up_is_not_started_again(cluster: ModuleType, kept: str, tmp_path: Path) -> None:
    keeper = (tmp_path / "keeper.pid").read_text()
    cluster._start_keeper(tmp_path, kept)
    assert (tmp_path / "keeper.pid").read_text() == keeper
    assert not (tmp_path / "keeper.log").exists()  # of another one


def test_a_cluster_of_the_other_kind_is_not_taken_for_the_one_that_was_asked_for(
    cluster: ModuleType, kept: str, tmp_path: Path
) -> None:
    other = {"keep": ("keep-node", "without a node"), "keep-node": ("keep", "with a node")}
    action, words = other[kept]
    with pytest.raises(SystemExit, match=f"A cluster {words} is up in .*make cluster-down"):
        cluster._start_keeper(tmp_path, action)
