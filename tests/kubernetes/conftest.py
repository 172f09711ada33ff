"""One control plane for the whole tier, one namespace for each test; KubeRay and Kueue for tests that ask for them."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_testbed import builds
from headrace_testbed.control_plane import EVERYTHING, ControlPlane
from headrace_testbed.helm import Helm, Render, rendering
from headrace_testbed.operators import KubeRayOperator, Kueue, install_kuberay_1_7
from headrace_testbed.ours import install_crds
from kuberay_double.install import collect_new_kinds, install_kuberay_kinds

_NUMBERS = itertools.count(1)
_SECONDS = 900  # of a test that says nothing else: a fixture's programs, and each wait, may take a busy machine minutes
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time than others."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """A real control plane, started once, with an audit log; its folder is kept for its logs if a test failed."""
    if missing := builds.missing():
        pytest.fail(f"`make test-kubernetes` builds {', '.join(missing)} first; no test waits that long", pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="headrace-testbed-"))
    with ControlPlane(folder, EVERYTHING) as plane:
        yield plane
    if request.session.testsfailed:
        print(f"the control plane's logs are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def namespace(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace named after the test, which takes pods of the strictest kind only; nobody waits for its end."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    name = f"{words}-{next(_NUMBERS)}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    control_plane.api.post("/api/v1/namespaces", manifest)
    control_plane.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
    yield name
    control_plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def crds(control_plane: ControlPlane) -> None:
    """Our own kinds, from the files that the chart ships."""
    install_crds(control_plane)


@pytest.fixture(scope="session")
def kuberay(control_plane: ControlPlane) -> Iterator[KubeRayOperator]:
    """KubeRay's real operator, installed and running."""
    operator = KubeRayOperator(control_plane)
    try:
        operator.start()
        yield operator
    finally:
        operator.stop()


@pytest.fixture(scope="session")
def kueue(control_plane: ControlPlane, kuberay: KubeRayOperator) -> Iterator[Kueue]:
    """Kueue with its webhooks, after KubeRay: it manages only kinds that it finds."""
    manager = Kueue(control_plane)
    try:
        manager.start()
        yield manager
    finally:
        manager.stop()


@pytest.fixture(scope="session")
def kuberay_1_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A second control plane, which knows KubeRay 1.7's kinds and runs no operator: it judges what we apply."""
    with ControlPlane(tmp_path_factory.mktemp("kuberay-1.7")) as plane:
        install_kuberay_1_7(plane)
        yield plane


@pytest.fixture(scope="session")
def played_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """A control plane of its own for KubeRay's double, which must not meet the real one; with our kinds."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-testbed-played-"))
    with ControlPlane(folder, EVERYTHING) as plane:
        install_kuberay_kinds(plane)
        install_crds(plane)
        collect_new_kinds(plane)
        yield plane
    if request.session.testsfailed:
        print(f"the logs of the control plane of KubeRay's double are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm without a cluster."""
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """What the chart comes to with values, given as keywords."""
    return rendering(helm)
