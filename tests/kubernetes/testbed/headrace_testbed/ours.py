"""What the product itself puts into a cluster, from the files that its chart ships."""

from __future__ import annotations

from pathlib import Path

import yaml

from headrace_testbed.api import Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.waiting import eventually

FILES = Path(__file__).resolve().parents[4] / "charts" / "headrace" / "files"


def definitions() -> list[Object]:
    """The CustomResourceDefinitions."""
    return [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted((FILES / "crds").glob("*.yaml"))]


def install_crds(plane: ControlPlane) -> None:
    """Make our kinds known, and wait until the API server serves them."""
    for definition in definitions():
        plane.api.apply(definition, "testbed", force=True)
    for definition in definitions():
        name, group = definition["metadata"]["name"], definition["spec"]["group"]
        plane.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")
        plural, _, _ = name.partition(".")
        version = definition["spec"]["versions"][0]["name"]
        eventually(lambda path=f"/apis/{group}/{version}/{plural}": plane.api.get(path))
