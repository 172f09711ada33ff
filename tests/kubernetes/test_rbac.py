"""The operator's ServiceAccount may do what the table of uses says, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from headrace_operators.rbac import LEASE_USES, NAME, USES, Use
from headrace_testbed.api import Api, ApiError, Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.objects import training_run
from headrace_testbed.ours import install_rbac
from headrace_testbed.waiting import eventually

pytestmark = pytest.mark.usefixtures("crds")
Right = tuple[str, str, str, str]  # group, resource, name ("" for all), verb


def rights(rules: Iterable[Object]) -> set[Right]:
    return {
        (group, resource, name, verb)
        for rule in rules
        for group in rule.get("apiGroups", [""])
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    }


def needed(uses: Iterable[Use]) -> set[Right]:
    return rights(use.to_rule() for use in uses)


def allowed(api: Api, namespace: str) -> set[Right]:
    """What `kubectl auth can-i --list` shows."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    status = api.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)["status"]
    assert not status["incomplete"]
    return rights(status["resourceRules"])


@pytest.fixture
def operator(control_plane: ControlPlane, namespace: str) -> Api:
    """Who has the operator's ServiceAccount, which lives in the test's namespace."""
    install_rbac(control_plane, namespace)
    api = control_plane.api_for_service_account(namespace, NAME)
    eventually(lambda: needed([*USES, *LEASE_USES]) <= allowed(api, namespace))  # once the API server has read it
    return api


@pytest.fixture
def nobody(control_plane: ControlPlane, namespace: str) -> Api:
    """Any ServiceAccount: what it may do everybody may."""
    return control_plane.api_for_service_account(namespace, "default")


def test_it_may_do_what_the_table_says_and_no_more(operator: Api, nobody: Api, namespace: str) -> None:
    of_all = allowed(nobody, namespace)
    assert allowed(operator, namespace) - of_all == needed([*USES, *LEASE_USES])
    assert allowed(operator, "default") - allowed(nobody, "default") == needed(USES)


def test_kubectl_shows_no_secret_among_its_rights(control_plane: ControlPlane, operator: Api, namespace: str) -> None:
    user = f"--as=system:serviceaccount:{namespace}:{NAME}"
    shown = control_plane.kubectl("auth", "can-i", "--list", user, "-n", namespace)
    assert "rayjobs.ray.io" in shown
    assert "secrets" not in shown
    assert "*" not in {word for line in shown.splitlines() for word in line.split() if "[" not in word}


def test_it_may_not_change_a_spec(control_plane: ControlPlane, operator: Api, namespace: str) -> None:
    control_plane.api.apply(training_run(), namespace=namespace)
    path = f"/apis/headrace.dev/v1alpha1/namespaces/{namespace}/trainingruns/digits"
    with pytest.raises(ApiError, match="cannot patch resource") as refused:
        operator.patch(path, {"spec": {"suspend": True}})
    assert refused.value.status == 403
    assert operator.patch(f"{path}/status", {"status": {"phase": "Running"}})["status"]["phase"] == "Running"


def test_it_may_write_no_lease_but_its_own(operator: Api, namespace: str) -> None:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    for name in (NAME, "another"):
        operator.post(leases, {"metadata": {"name": name}, "spec": {"holderIdentity": "a"}})
    mine = operator.get(f"{leases}/{NAME}")
    assert operator.put(f"{leases}/{NAME}", {**mine, "spec": {"holderIdentity": "b"}})["spec"]["holderIdentity"] == "b"
    with pytest.raises(ApiError, match="cannot get resource"):
        operator.get(f"{leases}/another")
