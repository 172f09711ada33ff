"""Our kinds as the API server knows them, and as people see them in kubectl."""

from __future__ import annotations

import pytest

from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.objects import model_deployment, model_monitor, training_run
from headrace_testbed.ours import definitions

pytestmark = pytest.mark.usefixtures("crds")
KINDS = ("trainingruns", "modeldeployments", "modelmonitors")


@pytest.mark.parametrize("plural", KINDS)
def test_the_definition_is_established_and_structural(control_plane: ControlPlane, plural: str) -> None:
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.headrace.dev"
    conditions = {each["type"]: each["status"] for each in control_plane.api.get(path)["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"


def test_the_api_server_changes_nothing_of_a_definition_but_what_it_fills_in(control_plane: ControlPlane) -> None:
    for definition in definitions():
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}"
        stored = control_plane.api.get(path)["spec"]
        assert stored["versions"][0]["schema"] == definition["spec"]["versions"][0]["schema"]
        assert stored["names"] == definition["spec"]["names"]


EXPLAINED = [
    ("trainingrun", ["One training of one model", "spec\t<Object> -required-", "status\t<Object>"]),
    (
        "trainingrun.spec",
        ["tasks\t<[]Object> -required-", "suspend\t<boolean>", "keeps the checkpoint", "Default 900."],
    ),
    ("tr.spec.train", ["epochs\t<integer>", "Passes over the training split. Default 10.", "bfloat16"]),
    ("tr.spec.model.args", ["args <Object>", "the catalog's card says"]),
    ("tr.spec.pods.worker.cpu", ["cpu <string>", "CPU cores of the pod: `2`, `500m`. Default 1."]),
    ("tr.status.conditions", ["reason\t<string> -required-", "lastTransitionTime\t<string> -required-"]),
    ("modeldeployment.spec.model", ["alias\t<string>", "again when it moves"]),
    ("md.status.servingVersion", ["Version that truly answers"]),
    ("modelmonitor.spec.objectives", ["maxErrorRatio\t<number>", "answered 5xx, 0..1"]),
]


@pytest.mark.parametrize(("place", "words"), EXPLAINED)
def test_kubectl_explains_it(control_plane: ControlPlane, place: str, words: list[str]) -> None:
    text = control_plane.kubectl("explain", place)
    flat = " ".join(text.split())
    for word in words:
        assert word in text or " ".join(word.split()) in flat


def test_every_field_of_ours_is_explained(control_plane: ControlPlane) -> None:
    for kind in ("trainingrun", "modeldeployment", "modelmonitor"):
        tree = control_plane.kubectl("explain", f"{kind}.spec", "--recursive")
        assert "<Object>" in tree
        assert "<no description>" not in control_plane.kubectl("explain", f"{kind}.spec")


def test_kubectl_lists_each_kind_with_its_columns(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.api
    api.apply(training_run(queue="team-a"), namespace=namespace)
    api.apply(model_deployment(), namespace=namespace)
    api.apply(model_monitor(), namespace=namespace)
    api.patch(
        f"/apis/headrace.dev/v1alpha1/namespaces/{namespace}/trainingruns/digits/status",
        {
            "status": {
                "phase": "Running",
                "attempt": 2,
                "message": "epoch 3",
                "checkpoint": {"uri": "s3://c", "epoch": 3},
            }
        },
    )
    api.patch(
        f"/apis/headrace.dev/v1alpha1/namespaces/{namespace}/modeldeployments/digits/status",
        {"status": {"wantedVersion": "4", "servingVersion": "3", "conditions": [_condition("Available", "False")]}},
    )
    rows = control_plane.kubectl("get", "tr", "-n", namespace, "-o", "wide").splitlines()
    assert rows[0].split() == ["NAME", "PHASE", "ATTEMPT", "EPOCH", "EPOCHS", "WORKERS", "QUEUE", "MESSAGE", "AGE"]
    assert rows[1].split()[:-1] == ["digits", "Running", "2", "3", "10", "1", "team-a", "epoch", "3"]
    rows = control_plane.kubectl("get", "md", "-n", namespace).splitlines()
    assert rows[1].split()[:-1] == ["digits", "digits", "4", "3", "False"]
    assert "HEALTHY" in control_plane.kubectl("get", "mm", "-n", namespace)


def _condition(type_: str, status: str) -> dict[str, str]:
    time = "2026-11-26T02:00:00Z"
    return {"type": type_, "status": status, "reason": "Because", "message": "", "lastTransitionTime": time}


def test_the_category_lists_all_of_ours_and_all_lists_none(control_plane: ControlPlane, namespace: str) -> None:
    for manifest in (training_run(), model_deployment(), model_monitor()):
        control_plane.api.apply(manifest, namespace=namespace)
    listed = control_plane.kubectl("get", "headrace", "-n", namespace, "-o", "name").split()
    assert sorted(name.partition(".")[0] for name in listed) == ["modeldeployment", "modelmonitor", "trainingrun"]
    assert "headrace.dev" not in control_plane.kubectl("get", "all", "-n", namespace, "-o", "name")


def test_kubectl_scales_a_deployment(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.api.apply(model_deployment(), namespace=namespace)
    control_plane.kubectl("scale", "md/digits", "--replicas=3", "-n", namespace)
    path = f"/apis/headrace.dev/v1alpha1/namespaces/{namespace}/modeldeployments/digits"
    assert control_plane.api.get(path)["spec"]["replicas"] == 3
