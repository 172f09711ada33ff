"""The real operator process, under the rights that it ships: none is missing, and none is idle.

No KubeRay runs: the test says what KubeRay would.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_operators import kinds, rbac
from headrace_operators.rbac import LEASE_USES, NAME, NAMESPACE, USES
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.connection import connect
from headrace_operators.runtime.kinds import Key
from headrace_operators.runtime.transport import Transport
from headrace_testbed.api import ApiError, Object
from headrace_testbed.builds import manifests
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.objects import model_deployment, model_monitor, training_run
from headrace_testbed.ours import install_rbac
from headrace_testbed.replica import Replica
from headrace_testbed.training_runs import MLflowStandIn, condition, finish
from headrace_testbed.waiting import eventually

USER = f"system:serviceaccount:{NAMESPACE}:{NAME}"
SPACE = "rights"
RAY_JOBS = f"/apis/ray.io/v1/namespaces/{SPACE}/rayjobs"
RAY_SERVICES = f"/apis/ray.io/v1/namespaces/{SPACE}/rayservices"
OPERATOR: list[str | Path] = [
    *(sys.executable, "-m", "headrace.cli.main", "operator", "--mlflow-interval-seconds", "1"),
    *("--metrics-address", "127.0.0.1:0", "--health-address", ""),
]
OURS = f"/apis/headrace.dev/v1alpha1/namespaces/{SPACE}"
# The API server asks for it itself, without a request that an audit log could show.
ENFORCED = {("headrace.dev", f"{plural}/finalizers", "update") for plural in ("trainingruns", "modeldeployments")}


class Registry(MLflowStandIn):
    """A stand-in that knows one version of one model besides."""

    def answer(self, path: str, asked: Object) -> Object:
        """What MLflow would answer."""
        if path.startswith(("registered-models/alias", "model-versions/get")):
            tags = {"headrace.package_uri": "s3://bucket/packages/a", "headrace.package_sha256": "a" * 64}
            listed = [{"key": key, "value": value} for key, value in tags.items()]
            return {"model_version": {"name": "digits", "version": "3", "tags": listed}}
        return super().answer(path, asked)


@pytest.fixture(scope="module")
def plane(played_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With Kueue's Workloads known, the operator's rights, and a namespace to work in."""
    for name in (NAMESPACE, SPACE):
        with contextlib.suppress(ApiError):
            played_plane.api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    for manifest in manifests("kueue"):
        if manifest["metadata"]["name"] == "workloads.kueue.x-k8s.io":
            unconverted = {**manifest["spec"], "conversion": {"strategy": "None"}}
            played_plane.api.apply({**manifest, "spec": unconverted}, "testbed", force=True)
    install_rbac(played_plane, NAMESPACE)
    yield played_plane
    played_plane.api.delete(f"/api/v1/namespaces/{SPACE}")


@pytest.fixture(scope="module")
def kubeconfig(plane: ControlPlane) -> Path:
    return plane.kubeconfig_for_service_account(NAMESPACE, NAME)


@pytest.fixture
def operator(plane: ControlPlane, kubeconfig: Path) -> Iterator[Replica]:
    flags = ["--lease-namespace", NAMESPACE, "--kubeconfig", str(kubeconfig)]
    replica = Replica("headrace-operator", [*OPERATOR, *flags], plane.folder / "operator.log")
    replica.start()
    try:
        replica.wait_until_it_said("holding the lease")
        yield replica
    finally:
        replica.stop()


@pytest.fixture(scope="module")
def mlflow() -> Iterator[Registry]:
    with Registry() as server:
        yield server


def names(plane: ControlPlane, path: str) -> list[str]:
    """Of all objects of a collection."""
    return [each["metadata"]["name"] for each in plane.api.list(path)]


def trains_to_the_end_and_is_deleted(plane: ControlPlane, mlflow: Registry) -> None:
    run = training_run("digits", mlflow={"trackingURI": mlflow.url}, ttlSecondsAfterFinished=0, runID="digits")
    mlflow.report("digits", attempt="1.1", package_uri="s3://bucket/packages/a")
    plane.api.apply(run, namespace=SPACE)
    plane.wait_for(f"{RAY_JOBS}/digits-1")
    finish(plane, SPACE, "digits-1")
    eventually(lambda: "digits" not in names(plane, f"{OURS}/trainingruns"))


def is_suspended(plane: ControlPlane, mlflow: Registry) -> None:
    plane.api.apply(training_run("paused", mlflow={"trackingURI": mlflow.url}), namespace=SPACE)
    plane.wait_for(f"{RAY_JOBS}/paused-1")
    plane.api.patch(f"{OURS}/trainingruns/paused", {"spec": {"suspend": True}})
    eventually(lambda: "paused-1" not in names(plane, RAY_JOBS))


def is_served_and_given_up_twice(plane: ControlPlane, mlflow: Registry) -> None:
    plane.api.apply(model_deployment(mlflow={"trackingURI": mlflow.url}), namespace=SPACE)
    uids = set()
    for _ in range(3):
        uids.add(eventually(lambda: _another(plane, uids)))
        ready = {"type": "Ready", "status": "False", "reason": "InitializingTimeout", "message": ""}
        ready["lastTransitionTime"] = "2026-11-26T02:00:00Z"
        plane.api.patch(f"{RAY_SERVICES}/digits/status", {"status": {"conditions": [ready]}})


def _another(plane: ControlPlane, uids: set[str]) -> str:
    """The uid of a RayService that is none of UIDS."""
    found = [service["metadata"]["uid"] for service in plane.api.list(RAY_SERVICES)]
    return next((uid for uid in found if uid not in uids), "")


def is_monitored(plane: ControlPlane) -> None:
    plane.api.apply(model_monitor(prometheus={"url": "http://127.0.0.1:9"}), namespace=SPACE)
    eventually(lambda: condition(plane.api.get(f"{OURS}/modelmonitors/digits"), "Measured")[0] == "False")


def looks_whose_a_taken_name_is(kubeconfig: Path) -> None:
    """What the runtime does when another was faster than its caches: no test can time that from outside."""

    async def look() -> Any:
        transport = Transport(await connect(str(kubeconfig), Path("/nowhere")), "headrace-operator/test")
        try:
            return await Client(transport).get(kinds.RAY_JOB, Key(SPACE, "waiting-1"))
        finally:
            await transport.close()

    assert asyncio.run(look())["metadata"]["name"] == "waiting-1"


def asked(plane: ControlPlane) -> tuple[set[tuple[str, str, str]], set[str]]:
    """What was asked with the operator's account, and what of it was forbidden."""
    done, forbidden = set(), set()
    for event in plane.audited(USER):
        where = event.get("objectRef")
        if where is None:
            continue
        resource = where["resource"] + (f"/{where['subresource']}" if "subresource" in where else "")
        done.add((where.get("apiGroup", ""), resource, event["verb"]))
        created = event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == 201
        if created:  # an apply that creates needs both rights
            done.add((where.get("apiGroup", ""), resource, "create"))
        if event.get("responseStatus", {}).get("code") == 403:
            forbidden.add(f"{event['verb']} {event['requestURI']}")
    return done, forbidden


def test_it_uses_every_right_that_it_has_and_misses_none(
    plane: ControlPlane, operator: Replica, kubeconfig: Path, mlflow: Registry
) -> None:
    plane.api.apply(training_run("waiting", mlflow={"trackingURI": mlflow.url}), namespace=SPACE)
    plane.wait_for(f"{RAY_JOBS}/waiting-1")
    trains_to_the_end_and_is_deleted(plane, mlflow)
    is_suspended(plane, mlflow)
    is_served_and_given_up_twice(plane, mlflow)
    is_monitored(plane)
    looks_whose_a_taken_name_is(kubeconfig)
    granted = {(use.kind.group, use.resource, verb) for use in (*USES, *LEASE_USES) for verb in use.verbs} - ENFORCED

    def unused() -> bool:
        done, forbidden = asked(plane)
        assert forbidden == set()
        assert done <= granted
        assert granted - done == set()
        return True

    eventually(unused)
    assert operator.page("/metrics").is_success
    assert operator.metric("controller_runtime_reconcile_errors_total") in (None, 0)


def test_an_operator_of_one_namespace_needs_no_right_beyond_it(
    plane: ControlPlane, mlflow: Registry, tmp_path: Path
) -> None:
    at_home, watched = "one-operator", "one-watched"
    for name in (at_home, watched):
        plane.api.post("/api/v1/namespaces", {"metadata": {"name": name}})
    for manifest in rbac.manifests(at_home, watched):
        plane.api.apply(manifest, "testbed")
    kubeconfig = plane.kubeconfig_for_service_account(at_home, NAME)
    flags = ["--namespace", watched, "--lease-namespace", at_home, "--kubeconfig", str(kubeconfig)]
    replica = Replica("one-operator", [*OPERATOR, *flags], tmp_path / "operator.log")
    replica.start()
    try:
        plane.api.apply(training_run(mlflow={"trackingURI": mlflow.url}), namespace=watched)
        plane.wait_for(f"/apis/ray.io/v1/namespaces/{watched}/rayjobs/digits-1")
    finally:
        replica.stop()
    user = f"system:serviceaccount:{at_home}:{NAME}"
    codes = {event["responseStatus"]["code"] for event in plane.audited(user) if "responseStatus" in event}
    assert 201 in codes
    assert 403 not in codes


@pytest.mark.parametrize(("kind", "plural"), [("TrainingRun", "trainingruns"), ("ModelDeployment", "modeldeployments")])
def test_without_the_right_to_finalizers_it_could_own_nothing_here(plane: ControlPlane, kind: str, plural: str) -> None:
    name = f"only-{plural}"
    plane.kubectl("create", "serviceaccount", name, "-n", SPACE)
    plane.kubectl("create", "role", name, "--verb=create", "--resource=configmaps", "-n", SPACE)
    plane.kubectl("create", "rolebinding", name, f"--role={name}", f"--serviceaccount={SPACE}:{name}", "-n", SPACE)
    owner = {"apiVersion": "headrace.dev/v1alpha1", "kind": kind, "name": "digits", "uid": "1", "controller": True}
    manifest = {"metadata": {"name": name, "ownerReferences": [{**owner, "blockOwnerDeletion": True}]}}
    api = plane.api_for_service_account(SPACE, name)

    def is_refused_for_that() -> bool:
        """An API server that has not read the new role yet refuses it for another reason."""
        with pytest.raises(ApiError) as refused:
            api.post(f"/api/v1/namespaces/{SPACE}/configmaps", manifest)
        assert "cannot set blockOwnerDeletion" in refused.value.message
        return True

    eventually(is_refused_for_that)
