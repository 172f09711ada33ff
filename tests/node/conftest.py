"""One node for the whole tier, one namespace for each test; KubeRay's operator for tests that ask for it.

A test module says which images it runs: `pytestmark = pytest.mark.images("ray", "runtime")`. The node has those of all
modules that are run, so that one file alone needs only its own.
"""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_testbed import builds
from headrace_testbed.control_plane import EVERYTHING
from headrace_testbed.images import packed_image
from headrace_testbed.node import Node
from headrace_testbed.node_tier import why_not
from headrace_testbed.operators import KubeRayOperator
from headrace_testbed.release import Release
from kuberay_double.install import collect_new_kinds

_NUMBERS = itertools.count(1)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "images(*names): the images that a module's pods run")
    config.addinivalue_line("markers", "long: not in `make test`; `make test-scenarios` runs it")


def _images(request: pytest.FixtureRequest) -> list[str]:
    marks = (mark for item in request.session.items for mark in item.iter_markers("images"))
    return sorted({name for mark in marks for name in mark.args})


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A real node, started once, with an audit log; its folder is kept for its logs if a test failed."""
    if reason := why_not():
        pytest.skip(reason)
    if missing := builds.missing([*builds.missing(), *builds.NODE]):
        pytest.fail(f"`make test-node` builds {', '.join(missing)} first; no test waits that long", pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="headrace-node-"))
    with Node(folder, EVERYTHING, [packed_image(name) for name in _images(request)]) as started:
        yield started
    if request.session.testsfailed:
        print(f"the node's logs are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def namespace(node: Node, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace named after the test, which takes pods of the strictest kind only; nobody waits for its end."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    name = f"{words}-{next(_NUMBERS)}"
    node.api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": RESTRICTED}})
    node.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
    yield name
    node.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def kuberay(node: Node) -> Iterator[KubeRayOperator]:
    """KubeRay's real operator, installed and running beside the node."""
    operator = KubeRayOperator(node)
    try:
        operator.start()
        collect_new_kinds(node)
        yield operator
    finally:
        operator.stop()


@pytest.fixture(scope="session")
def release(node: Node, kuberay: KubeRayOperator, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Our chart, installed with helm; its pods are ready. A module that asks for it marks `release.IMAGES`."""
    installed = Release(node, tmp_path_factory.mktemp("helm"))
    installed.install()
    return installed
