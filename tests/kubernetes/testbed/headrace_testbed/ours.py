"""What the product itself puts into a cluster, from the files that its chart ships."""

from __future__ import annotations

from pathlib import Path

import yaml

from headrace_testbed.api import ApiError, Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.waiting import eventually

FILES = Path(__file__).resolve().parents[4] / "charts" / "headrace" / "files"


def definitions() -> list[Object]:
    """The CustomResourceDefinitions."""
    return [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted((FILES / "crds").glob("*.yaml"))]


def install_crds(plane: ControlPlane) -> None:
    """Make our kinds known, and wait until the API server serves them."""
    install(plane, definitions())


def install(plane: ControlPlane, kinds: list[Object]) -> None:
    """The same with any kinds, by their definitions."""
    for definition in kinds:
        plane.api.apply(definition, "testbed", force=True)
    for definition in kinds:
        wait_until_served(plane, definition)


def wait_until_served(plane: ControlPlane, definition: Object) -> None:
    """Wait until the API server serves the kind of DEFINITION: it says that it is established some time before."""
    group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
    for version in definition["spec"]["versions"]:
        if version["served"]:
            path = f"/apis/{group}/{version['name']}/{plural}"
            eventually(lambda path=path: _serves(plane, path))


def install_rbac(plane: ControlPlane, namespace: str) -> None:
    """The operator's ServiceAccount and rights, as the chart ships them, with NAMESPACE in place of the shipped one."""
    shipped = (FILES / "operator-rbac.yaml").read_text(encoding="utf-8").replace("headrace-system", namespace)
    for manifest in yaml.safe_load_all(shipped):
        plane.api.apply(manifest, "testbed", force=True)


def _serves(plane: ControlPlane, path: str) -> bool:
    """Whether there is such a collection, and its storage is set up (429 until then)."""
    try:
        return bool(plane.api.get(path))
    except ApiError as error:
        if error.status not in (404, 429):
            raise
        return False
