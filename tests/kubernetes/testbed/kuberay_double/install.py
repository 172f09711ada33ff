"""What a control plane needs before the double can play there: KubeRay's kinds, from KubeRay 1.6's own manifests."""

from __future__ import annotations

from headrace_testbed.builds import manifests
from headrace_testbed.control_plane import START_SECONDS, ControlPlane
from headrace_testbed.ours import wait_until_served
from headrace_testbed.waiting import eventually


def install_kuberay_kinds(plane: ControlPlane) -> None:
    """Make RayJob, RayService, RayCluster and RayCronJob known, and wait until the API server serves them."""
    for manifest in manifests("kuberay"):
        if manifest["kind"] == "CustomResourceDefinition":
            plane.api.apply(manifest, "testbed", force=True)
            wait_until_served(plane, manifest)


def collect_new_kinds(plane: ControlPlane) -> None:
    """Start the controller manager anew: its garbage collector looks for new kinds only every 30 seconds, and until
    then leaves what their objects own."""
    plane.controller_manager.kill()
    before = _collecting(plane)
    plane.controller_manager.start()
    eventually(lambda: _collecting(plane) > before, START_SECONDS)


def _collecting(plane: ControlPlane) -> int:
    """How often the garbage collector has begun to work."""
    return plane.controller_manager.log.read_text(errors="replace").count("Proceeding to collect garbage")
