"""The platform's own client of Kubernetes on a real API server, and its stand-in of the unit tests beside it.

What is asked of both is one list of tests; what only a real server can do (restart, refuse, expire) follows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from headrace.base.errors import InvalidInput, RunFailed, Unavailable
from headrace.cluster import LEASE, POD, TRAINING_RUN, Cluster, Kind, Seen, connect
from headrace.cluster.leases import LeaseLock
from headrace.cluster.pods import pods
from headrace.steps.cluster_deployment import _as_applied
from headrace_testbed.api import Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.fake_cluster import FakeCluster
from headrace_testbed.objects import training_run
from headrace_testbed.wire import Wire

NOTHING = Kind("nobody.example", "v1", "Nothing", "nothings")


class Bench(Protocol):
    """A cluster, and a way to change something in it while somebody follows."""

    cluster: Any

    def meanwhile(self, change: Any) -> None:
        """CHANGE happens while the cluster is followed."""


class Real:
    """On the API server."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def meanwhile(self, change: Any) -> None:
        threading.Timer(0.5, change).start()


class Faked:
    """In the stand-in."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    def meanwhile(self, change: Any) -> None:
        self.cluster.script.append(change)


@pytest.fixture
def real(control_plane: ControlPlane, crds: None, namespace: str) -> Cluster:
    return connect(str(control_plane.kubeconfig), namespace=namespace)


@pytest.fixture(params=["real", "stand-in"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "stand-in":
        return Faked(FakeCluster())
    return Real(request.getfixturevalue("real"))


def changed(seen: Iterator[Seen]) -> Seen:
    """The next look after a change: of a slow cluster there are looks without one before."""
    return next(look for look in seen if look.changed)


def suspended(seen: Iterator[Seen]) -> bool:
    """Whether the object is looked at as suspended; until then it may be looked at as it was before."""
    return next(look.object["spec"]["suspend"] for look in seen if look.object and look.object["spec"].get("suspend"))


def manifest(name: str = "digits", **metadata: Any) -> Object:
    made = training_run(name)
    return {"metadata": {"name": name, **metadata}, "spec": made["spec"]}


def test_what_is_not_there_is_none(bench: Bench) -> None:
    assert bench.cluster.get(TRAINING_RUN, "digits") is None
    assert bench.cluster.patch(TRAINING_RUN, "digits", {"spec": {"suspend": True}}) is None
    assert bench.cluster.delete(TRAINING_RUN, "digits") is False
    assert bench.cluster.list(TRAINING_RUN) == []


def test_an_apply_makes_and_applied_again_changes_nothing(bench: Bench) -> None:
    first = bench.cluster.apply(TRAINING_RUN, manifest())
    again = bench.cluster.apply(TRAINING_RUN, manifest())
    assert first["metadata"]["uid"] == again["metadata"]["uid"]
    assert first["metadata"]["generation"] == again["metadata"]["generation"] == 1
    found = bench.cluster.get(TRAINING_RUN, "digits")
    assert (found["kind"], found["spec"]["model"]["name"]) == ("TrainingRun", "resnet8")


def test_an_annotation_is_written_without_touching_the_spec(bench: Bench) -> None:
    bench.cluster.apply(TRAINING_RUN, manifest())
    change = {"metadata": {"annotations": {"headrace.dev/held-until": "2026-11-26T00:00:00Z"}}}
    patched = bench.cluster.patch(TRAINING_RUN, "digits", change)
    assert patched["metadata"]["annotations"].items() >= change["metadata"]["annotations"].items()
    assert patched["metadata"]["generation"] == 1
    assert bench.cluster.patch(TRAINING_RUN, "digits", {"spec": {"suspend": True}})["metadata"]["generation"] == 2


def test_a_patch_of_an_older_version_is_refused_and_null_removes(bench: Bench) -> None:
    made = bench.cluster.create(LEASE, {"metadata": {"name": "lock"}, "spec": {"holderIdentity": "a"}})
    version = made["metadata"]["resourceVersion"]
    change = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": None}}
    assert "holderIdentity" not in bench.cluster.patch(LEASE, "lock", change)["spec"]
    assert bench.cluster.patch(LEASE, "lock", change) is None
    assert bench.cluster.create(LEASE, {"metadata": {"name": "lock"}, "spec": {}}) is None


def test_a_list_is_of_those_with_the_label(bench: Bench) -> None:
    bench.cluster.apply(TRAINING_RUN, manifest("one", labels={"headrace.dev/run-id": "a"}))
    bench.cluster.apply(TRAINING_RUN, manifest("two", labels={"headrace.dev/run-id": "b"}))
    found = bench.cluster.list(TRAINING_RUN, labels="headrace.dev/run-id=b")
    assert [obj["metadata"]["name"] for obj in found] == ["two"]
    assert len(bench.cluster.list(TRAINING_RUN)) == 2


def test_only_the_object_of_the_uid_is_deleted(bench: Bench) -> None:
    made = bench.cluster.apply(TRAINING_RUN, manifest())
    assert bench.cluster.delete(TRAINING_RUN, "digits", uid="of-another") is False
    assert bench.cluster.delete(TRAINING_RUN, "digits", uid=made["metadata"]["uid"]) is True
    assert bench.cluster.get(TRAINING_RUN, "digits") is None


def test_only_the_object_of_the_version_is_deleted(bench: Bench) -> None:
    made = bench.cluster.apply(TRAINING_RUN, manifest())
    changed = bench.cluster.patch(TRAINING_RUN, "digits", {"metadata": {"annotations": {"note": "changed"}}})
    of = {"uid": made["metadata"]["uid"]}
    assert not bench.cluster.delete(TRAINING_RUN, "digits", **of, version=made["metadata"]["resourceVersion"])
    assert bench.cluster.get(TRAINING_RUN, "digits") is not None
    assert bench.cluster.delete(TRAINING_RUN, "digits", **of, version=changed["metadata"]["resourceVersion"])
    assert bench.cluster.get(TRAINING_RUN, "digits") is None


def test_an_object_is_followed_through_changes_ticks_and_its_end(bench: Bench) -> None:
    cluster = bench.cluster
    cluster.apply(TRAINING_RUN, manifest())
    seen = cluster.follow(TRAINING_RUN, "digits", tick_seconds=1.0)
    assert next(seen).object["spec"].get("suspend", False) is False
    bench.meanwhile(lambda: cluster.patch(TRAINING_RUN, "digits", {"spec": {"suspend": True}}))
    assert changed(seen).object["spec"]["suspend"] is True
    if isinstance(bench, Faked):
        bench.meanwhile(lambda: None)
    look = next(seen)
    assert (look.changed, look.object["spec"]["suspend"]) == (False, True)
    bench.meanwhile(lambda: cluster.delete(TRAINING_RUN, "digits"))
    assert changed(seen).object is None
    seen.close()


def test_what_is_made_later_is_seen(bench: Bench) -> None:
    seen = bench.cluster.follow(TRAINING_RUN, "digits", tick_seconds=5.0)
    assert next(seen).object is None
    bench.meanwhile(lambda: bench.cluster.apply(TRAINING_RUN, manifest()))
    assert next(look.object for look in seen if look.object is not None)["metadata"]["name"] == "digits"
    seen.close()


def test_a_lease_is_a_lock(bench: Bench) -> None:
    def lock(holder: str) -> LeaseLock:
        return LeaseLock(bench.cluster, "alias", holder, silent_seconds=100, about={"headrace.dev/alias": "a@b"})

    waited: list[str] = []
    first, second = lock("run a"), lock("run b")
    first.take(waited.append)
    first.take(waited.append)

    def wait(holder: str) -> None:
        waited.append(holder)
        bench.meanwhile(first.give_back)

    second.take(wait)
    assert waited == ["run a"]
    second.renew()
    with pytest.raises(RunFailed, match="run b has it"):
        first.renew()


# what only a real server does


def test_what_the_server_refuses_is_told_in_its_words(real: Cluster) -> None:
    wrong = manifest()
    wrong["spec"]["manifestURI"] = "nowhere"
    with pytest.raises(InvalidInput, match="begin with where it lies") as raised:
        real.apply(TRAINING_RUN, wrong)
    assert raised.value.code == "kubernetes-refused"
    with pytest.raises(InvalidInput, match="suspnd"):
        real.apply(TRAINING_RUN, {"metadata": {"name": "digits"}, "spec": {**manifest()["spec"], "suspnd": True}})


def test_a_kind_that_is_not_installed_is_no_missing_object(real: Cluster) -> None:
    with pytest.raises(RunFailed, match="read Nothing digits") as raised:
        real.get(NOTHING, "digits")
    assert "CRDs" in raised.value.action


def test_an_account_without_rights_is_told_so(control_plane: ControlPlane, crds: None, namespace: str) -> None:
    kubeconfig = control_plane.kubeconfig_for_service_account(namespace, "default")
    with pytest.raises(RunFailed, match="cannot get resource") as raised:
        connect(str(kubeconfig), namespace=namespace).get(TRAINING_RUN, "digits")
    assert raised.value.code == "kubernetes-forbidden"


def test_fields_of_another_manager_are_not_taken_unless_that_is_asked_for(
    control_plane: ControlPlane, real: Cluster, namespace: str
) -> None:
    real.apply(TRAINING_RUN, manifest())
    theirs = {**training_run("digits"), "spec": {"maxRetries": 9}}
    control_plane.api.apply(theirs, "a-person", namespace=namespace, force=True)
    mine = manifest()
    mine["spec"] = {**mine["spec"], "maxRetries": 1}
    with pytest.raises(RunFailed, match="a-person"):
        real.apply(TRAINING_RUN, mine)
    assert real.apply(TRAINING_RUN, mine, force=True)["spec"]["maxRetries"] == 1


def test_an_apply_of_a_version_makes_nothing_on_top_of_another(bench: Bench) -> None:
    made = bench.cluster.apply(TRAINING_RUN, manifest())["metadata"]
    named = {key: made[key] for key in ("uid", "resourceVersion")}
    bench.cluster.patch(TRAINING_RUN, "digits", {"spec": {"suspend": True}})
    for _ in range(2):
        with pytest.raises(RunFailed) as raised:
            bench.cluster.apply(TRAINING_RUN, manifest(**named), force=True)
        assert raised.value.code == "kubernetes-conflict"
        bench.cluster.delete(TRAINING_RUN, "digits")
    assert bench.cluster.get(TRAINING_RUN, "digits") is None


def test_what_was_made_loses_what_an_apply_leaves_out_once_it_counts_as_applied(real: Cluster) -> None:
    wished = manifest()
    made = real.create(TRAINING_RUN, {**wished, "spec": {**wished["spec"], "maxRetries": 1}})
    assert made is not None
    metadata = {"resourceVersion": made["metadata"]["resourceVersion"]}
    owners = _as_applied(made["metadata"]["managedFields"])
    assert real.patch(TRAINING_RUN, "digits", {"metadata": {**metadata, "managedFields": owners}}) is not None
    wished["spec"].pop("maxRetries", None)
    assert real.apply(TRAINING_RUN, wished)["spec"].get("maxRetries") != 1


@pytest.fixture
def wire(control_plane: ControlPlane) -> Iterator[Wire]:
    with Wire(int(control_plane.url.rsplit(":", 1)[1])) as wire:
        yield wire


def through(wire: Wire, control_plane: ControlPlane, folder: Path) -> str:
    """A kubeconfig whose server is reached over WIRE."""
    text = control_plane.kubeconfig.read_text().replace(control_plane.url, f"https://127.0.0.1:{wire.port}")
    path = folder / "kubeconfig"
    path.write_text(text)
    return str(path)


def test_a_server_that_is_away_is_waited_for_and_people_are_told(
    control_plane: ControlPlane, crds: None, namespace: str, wire: Wire, tmp_path: Path
) -> None:
    told: list[str] = []

    def tell(words: str) -> None:
        told.append(words)
        threading.Timer(1.0, wire.mend).start()

    cluster = connect(through(wire, control_plane, tmp_path), namespace=namespace, on_trouble=tell)
    wire.cut()
    cluster.apply(TRAINING_RUN, manifest())
    assert f"127.0.0.1:{wire.port}" in told[0]
    assert told[-1] == "the Kubernetes API server answers again"
    assert len(told) == 2


def test_a_server_that_stays_away_is_named_with_exit_code_4(
    control_plane: ControlPlane, crds: None, namespace: str, wire: Wire, tmp_path: Path
) -> None:
    cluster = connect(through(wire, control_plane, tmp_path), namespace=namespace, patience_seconds=2.0)
    cluster.apply(TRAINING_RUN, manifest())
    seen = cluster.follow(TRAINING_RUN, "digits", tick_seconds=30.0)
    next(seen)
    wire.cut()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{wire.port}") as raised:
        next(seen)
    assert raised.value.exit_code == 4


def test_a_watch_goes_on_when_its_connection_breaks(
    control_plane: ControlPlane, crds: None, namespace: str, real: Cluster, wire: Wire, tmp_path: Path
) -> None:
    real.apply(TRAINING_RUN, manifest())
    seen = connect(through(wire, control_plane, tmp_path), namespace=namespace).follow(
        TRAINING_RUN, "digits", tick_seconds=1.0
    )
    assert [next(seen).changed for _ in range(2)] == [True, False]  # from the second look on it is watched
    wire.cut()
    real.patch(TRAINING_RUN, "digits", {"spec": {"suspend": True}})
    wire.mend()
    assert suspended(seen)
    seen.close()


def test_a_watch_goes_on_when_the_server_is_restarted(control_plane: ControlPlane, real: Cluster) -> None:
    real.apply(TRAINING_RUN, manifest())
    seen = real.follow(TRAINING_RUN, "digits", tick_seconds=1.0)
    assert [next(seen).changed for _ in range(2)] == [True, False]  # from the second look on it is watched
    control_plane.restart_apiserver()
    real.patch(TRAINING_RUN, "digits", {"spec": {"suspend": True}})
    assert suspended(seen)
    seen.close()


def test_a_version_that_the_server_has_forgotten_is_looked_up_anew(real: Cluster) -> None:
    made = real.apply(TRAINING_RUN, manifest())
    from headrace.cluster.watching import Watcher

    old = {**made, "metadata": {**made["metadata"], "resourceVersion": "1"}}
    with Watcher(real._transport, TRAINING_RUN, real.namespace, "digits", old) as watcher:
        assert watcher.next(120.0)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_why_a_pod_waits_is_said_in_words(control_plane: ControlPlane, real: Cluster, namespace: str) -> None:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    container = {"name": "main", "image": "nobody.example/none", "securityContext": security}
    spec = {"containers": [container], "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}
    pod = {"metadata": {"name": "step", "labels": {"run": "a"}}, "spec": spec}
    control_plane.api.post(f"/api/v1/namespaces/{namespace}/pods", pod)
    state = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    status = {"containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0}]}
    status["containerStatuses"][0]["state"] = state
    control_plane.api.patch(f"/api/v1/namespaces/{namespace}/pods/step/status", {"status": status})
    (found,) = pods(real, "run=a")
    assert found.waits == "the image i cannot be pulled (ErrImagePull): no such image"
    assert real.list(POD, labels="run=b") == []
