"""The test bed itself: what the tests of this tier rest on is true of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_testbed.api import ApiError
from headrace_testbed.control_plane import ControlPlane, KubectlError
from headrace_testbed.ours import install
from headrace_testbed.waiting import eventually

RESTRICTED_CONTAINER = {
    "name": "main",
    "image": "nothing",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


def _pod(container: dict) -> dict:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": {"containers": [container]}}


def _service_account(control_plane: ControlPlane, namespace: str, name: str) -> None:
    control_plane.api.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, namespace=namespace
    )


def test_a_service_account_may_do_nothing_until_a_role_says_so(control_plane: ControlPlane, namespace: str):
    _service_account(control_plane, namespace, "reader")
    api = control_plane.api_for_service_account(namespace, "reader")
    with pytest.raises(ApiError) as refused:
        api.list(f"/api/v1/namespaces/{namespace}/secrets")
    assert refused.value.reason == "Forbidden"

    control_plane.kubectl("create", "role", "reader", "--verb=list", "--resource=secrets", "-n", namespace)
    control_plane.kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader", "-n", namespace
    )
    assert eventually(lambda: _lists(api, namespace))


def _lists(api, namespace: str) -> bool:
    try:
        return api.list(f"/api/v1/namespaces/{namespace}/secrets") == []
    except ApiError:
        return False


def test_a_kubeconfig_makes_kubectl_the_service_account(control_plane: ControlPlane, namespace: str):
    _service_account(control_plane, namespace, "someone")
    kubeconfig = control_plane.kubeconfig_for_service_account(namespace, "someone")
    whoami = control_plane.kubectl(
        "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", kubeconfig=kubeconfig
    )
    assert whoami == f"system:serviceaccount:{namespace}:someone"
    with pytest.raises(KubectlError, match="forbidden"):
        control_plane.kubectl("get", "pods", kubeconfig=kubeconfig)


def test_pod_security_refuses_a_pod_that_is_not_restricted(control_plane: ControlPlane, namespace: str):
    with pytest.raises(ApiError, match='violates PodSecurity "restricted') as refused:
        control_plane.api.apply(_pod({"name": "main", "image": "nothing"}), namespace=namespace)
    assert refused.value.status == 403


def test_a_restricted_pod_is_taken_and_stays_pending(control_plane: ControlPlane, namespace: str):
    control_plane.api.apply(_pod(RESTRICTED_CONTAINER), namespace=namespace)

    def unschedulable() -> str:
        status = control_plane.api.get(f"/api/v1/namespaces/{namespace}/pods/pod")["status"]
        return status["phase"] if status.get("conditions", [{}])[0].get("reason") == "Unschedulable" else ""

    assert eventually(unschedulable) == "Pending"


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "ranges.testbed.example"},
    "spec": {
        "group": "testbed.example",
        "scope": "Namespaced",
        "names": {"plural": "ranges", "singular": "range", "kind": "Range"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
                                "x-kubernetes-validations": [
                                    {"rule": "self.min <= self.max", "message": "min is above max"},
                                    {"rule": "self.max == oldSelf.max", "message": "max is immutable"},
                                ],
                            }
                        },
                    }
                },
            }
        ],
    },
}


def _range(least: int, most: int) -> dict:
    spec = {"min": least, "max": most}
    return {"apiVersion": "testbed.example/v1", "kind": "Range", "metadata": {"name": "range"}, "spec": spec}


def test_the_rules_of_a_custom_resource_hold(control_plane: ControlPlane, namespace: str):
    api = control_plane.api
    install(control_plane, [CRD])
    api.apply(_range(1, 2), namespace=namespace)
    with pytest.raises(ApiError, match="min is above max"):
        api.apply(_range(3, 2), namespace=namespace)
    with pytest.raises(ApiError, match="max is immutable"):
        api.apply(_range(1, 3), namespace=namespace)


def test_a_field_that_another_manager_owns_is_a_conflict(control_plane: ControlPlane, namespace: str):
    def settings(value: str) -> dict:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": value}}

    control_plane.api.apply(settings("one"), "first", namespace=namespace)
    with pytest.raises(ApiError) as refused:
        control_plane.api.apply(settings("two"), "second", namespace=namespace)
    assert refused.value.reason == "Conflict"
    assert control_plane.api.apply(settings("two"), "second", force=True, namespace=namespace)["data"] == {"key": "two"}


def test_objects_outlive_a_crash_of_the_api_server(control_plane: ControlPlane, namespace: str):
    control_plane.kubectl("create", "configmap", "kept", "--from-literal=key=value", "-n", namespace)
    before = control_plane.apiserver.pid
    control_plane.restart_apiserver()
    assert control_plane.apiserver.pid != before
    assert control_plane.api.get(f"/api/v1/namespaces/{namespace}/configmaps/kept")["data"] == {"key": "value"}


def test_a_namespace_goes_with_all_that_is_in_it(control_plane: ControlPlane):
    api = control_plane.api
    api.post("/api/v1/namespaces", {"metadata": {"name": "short-lived"}})
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inside"}}, namespace="short-lived")
    api.delete("/api/v1/namespaces/short-lived")
    eventually(lambda: "short-lived" not in [each["metadata"]["name"] for each in api.list("/api/v1/namespaces")])


def test_what_an_owner_leaves_behind_is_collected(control_plane: ControlPlane, namespace: str):
    configmaps = f"/api/v1/namespaces/{namespace}/configmaps"
    owner = control_plane.api.post(configmaps, {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    control_plane.api.post(configmaps, {"metadata": {"name": "owned", "ownerReferences": [reference]}})
    control_plane.api.delete(f"{configmaps}/owner")
    names = lambda: [each["metadata"]["name"] for each in control_plane.api.list(configmaps)]  # noqa: E731
    eventually(lambda: "owned" not in names())


def test_the_audit_log_tells_who_asked_for_what(control_plane: ControlPlane, namespace: str):
    _service_account(control_plane, namespace, "curious")
    with pytest.raises(ApiError):
        control_plane.api_for_service_account(namespace, "curious").get("/api/v1/nodes")

    def asked() -> list[tuple[str, str, int]]:
        events = control_plane.audited(f"system:serviceaccount:{namespace}:curious")
        return [(event["verb"], event["requestURI"], event["responseStatus"]["code"]) for event in events]

    assert eventually(asked) == [("list", "/api/v1/nodes", 403)]


def test_a_daemon_dies_with_the_process_that_started_it(tmp_path: Path):
    program = (
        "import pathlib, sys, time; from headrace_testbed.processes import Daemon; folder = pathlib.Path(sys.argv[1]);"
        "daemon = Daemon('sleep', ['sleep', '600'], folder / 'log'); daemon.start();"
        "print(daemon.pid, flush=True); time.sleep(600)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], env=env, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        daemon = Path("/proc") / starter.stdout.readline().strip()
        assert daemon.exists()
        starter.kill()
    eventually(lambda: not daemon.exists())
