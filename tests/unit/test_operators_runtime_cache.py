"""What a store remembers of objects, whom it wakes, and how its copies are made."""

from __future__ import annotations

from typing import Any

from headrace_operators.runtime.cache import Caches, Store, Watch, by_controller, by_label, by_name
from headrace_operators.runtime.kinds import Key, Kind

RUN = Kind("headrace.dev", "v1alpha1", "TrainingRun", "trainingruns")
JOB = Kind("ray.io", "v1", "RayJob", "rayjobs")


def job(name: str, version: int, *, owner: str | None = "run", **more: Any) -> dict[str, Any]:
    owners = [
        {"apiVersion": "headrace.dev/v1alpha1", "kind": "TrainingRun", "name": owner, "uid": "u", "controller": True}
    ]
    metadata = {
        "name": name,
        "namespace": "n",
        "uid": name,
        "resourceVersion": str(version),
        "managedFields": [{"manager": "x"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{...}", "note": "stays"},
        "ownerReferences": owners if owner else [],
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, **more}


def jobs(**options: Any) -> Store:
    return Store(Watch(JOB, by_controller(RUN), **options))


def test_what_comes_out_is_what_went_in_without_what_nobody_reads() -> None:
    store = jobs()
    store.put(job("a", 7, spec={"x": [1]}))
    found = store.get(Key("n", "a"))
    assert found is not None
    assert (found["apiVersion"], found["kind"], found["spec"]) == ("ray.io/v1", "RayJob", {"x": [1]})
    assert found["metadata"]["resourceVersion"] == "7"
    assert found["metadata"]["annotations"] == {"note": "stays"}
    assert "managedFields" not in found["metadata"]


def test_a_copy_may_be_changed_without_harm() -> None:
    store = jobs()
    store.put(job("a", 7, spec={"x": 1}))
    found = store.get(Key("n", "a"))
    assert found is not None
    found["spec"]["x"] = 2
    assert (store.get(Key("n", "a")) or {})["spec"] == {"x": 1}


def test_objects_are_found_by_their_primary_and_no_longer_once_they_have_another() -> None:
    store = jobs()
    store.put(job("b", 1))
    store.put(job("a", 2))
    assert [obj["metadata"]["name"] for obj in store.of(Key("n", "run"))] == ["a", "b"]
    assert store.put(job("a", 3, owner="other")) == {Key("n", "run"), Key("n", "other")}
    assert [obj["metadata"]["name"] for obj in store.of(Key("n", "run"))] == ["b"]
    assert store.drop(Key("n", "b")) == {Key("n", "run")}
    assert store.of(Key("n", "run")) == []


def test_a_change_of_what_is_not_kept_wakes_nobody_but_its_version_is_known() -> None:
    store = jobs(keep=lambda obj: {"metadata": obj["metadata"], "status": obj.get("status")})
    assert store.put(job("a", 1, spec={"x": 1}, status={"s": 1})) == {Key("n", "run")}
    assert store.put(job("a", 2, spec={"x": 2}, status={"s": 1})) == set()
    assert store.version(Key("n", "a")) == 2
    assert store.put(job("a", 3, spec={"x": 2}, status={"s": 2})) == {Key("n", "run")}


def test_its_size_is_that_of_the_objects_it_holds() -> None:
    store = jobs()
    store.put(job("a", 1, spec={"x": "y" * 1000}))
    assert 1000 < store.size() < 1500
    store.put(job("a", 2, spec={}))
    assert store.size() < 500
    store.drop(Key("n", "a"))
    assert (store.size(), len(store)) == (0, 0)


def test_only_the_controller_of_the_right_kind_counts_as_owner() -> None:
    keys = by_controller(RUN)
    assert list(keys(job("a", 1))) == [Key("n", "run")]
    assert list(keys(job("a", 1, owner=None))) == []
    foreign = job("a", 1)
    foreign["metadata"]["ownerReferences"][0]["apiVersion"] = "other.dev/v1"
    assert list(keys(foreign)) == []
    second = job("a", 1)
    second["metadata"]["ownerReferences"][0]["controller"] = False
    assert list(keys(second)) == []


def test_a_label_names_the_primary_in_the_same_namespace() -> None:
    pod = {"metadata": {"name": "p", "namespace": "n", "labels": {"headrace.dev/training-run": "run"}}}
    assert list(by_label("headrace.dev/training-run")(pod)) == [Key("n", "run")]
    assert list(by_label("headrace.dev/other")(pod)) == []
    assert list(by_label("x")({"metadata": {"name": "p", "namespace": "n"}})) == []


def test_caches_are_synced_when_every_store_is() -> None:
    run, other = Store(Watch(RUN, by_name)), jobs()
    caches = Caches(RUN, [run, other])
    run.synced = True
    assert not caches.synced
    other.synced = True
    assert caches.synced
    run.put({"metadata": {"name": "run", "namespace": "n", "resourceVersion": "1"}, "spec": {}})
    assert list(caches.primaries()) == [Key("n", "run")]
    assert caches.get(JOB, Key("n", "none")) is None
