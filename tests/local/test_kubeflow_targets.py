"""Several targets that share a store, and targets that are away: which Kubeflow a run is on, and what a list shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from headrace.store import s3
from headrace.store.step_files import is_cancelled
from headrace_pipelines.kubeflow import connection
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.submission import remembered
from kfp_stand_in import Beats, KubeflowStandIn, World
from kfp_stand_in.commands import Bed

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def other() -> Iterator[KubeflowStandIn]:
    """Another Kubeflow."""
    with KubeflowStandIn(World(beats=Beats(scale=0.005))) as found:
        yield found


def targets(bed: Bed, *, home: str = "home", **hosts: str | dict[str, Any]) -> None:
    """Let HOME know targets by name, in this order, that share BED's store: each a host or changes of a target."""
    path = bed.folder / home / "targets.yaml"
    path.parent.mkdir(exist_ok=True)
    known = yaml.safe_load((bed.folder / "home" / "targets.yaml").read_text())["kubeflow"]
    record = {
        name: {**known, **({"kubeflow": {"host": given}} if isinstance(given, str) else given)}
        for name, given in hosts.items()
    }
    path.write_text(yaml.safe_dump(record, sort_keys=False))


@pytest.fixture
def second(bed: Bed, other: KubeflowStandIn, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run that goes on, and a machine that remembers nothing and has the wrong target first."""
    monkeypatch.setattr("headrace_pipelines.kubeflow.run.SENDING_SECONDS", 0.0)
    bed.play(train=bed.steps.waits("train"))
    run = bed.begin()
    bed.running(run, "train")
    targets(bed, home="second", wrong=other.url, right=bed.stand_in.url)
    monkeypatch.setenv("HEADRACE_HOME", str(bed.folder / "second"))
    return run


def test_of_targets_that_share_a_store_the_one_that_a_run_was_sent_to_is_taken(bed: Bed, second: Any) -> None:
    assert bed("status", second.run_id, "--json") == 0
    assert (bed.json()["state"], bed.json()["kubeflow"]["target"]) == ("running", "right")
    assert remembered(second.run_id) == "right"


@pytest.mark.parametrize("command", ["status", "resume", "cancel", "logs"])
def test_a_run_is_not_lost_because_another_kubeflow_does_not_know_it(
    bed: Bed, second: Any, other: KubeflowStandIn, command: str
) -> None:
    if command == "logs":
        assert bed("logs", second.run_id, "--on", "wrong") == 0
        assert "train: running" in bed.out
        return
    assert bed(command, second.run_id, "--on", "wrong", "--json") == 2
    assert bed.json()["error"]["code"] == "wrong-target"
    assert f"which was sent to {bed.stand_in.url}" in bed.err
    assert not other.runs()
    assert remembered(second.run_id) is None
    store = second.cluster.store
    assert not is_cancelled(store, second.run_id, "1")
    assert store.names(store.uri("runs", second.run_id, "sent")) == ["1.json"]


def test_one_kubeflow_may_have_two_addresses(bed: Bed, second: Any) -> None:
    alias = bed.stand_in.url.replace("127.0.0.1", "localhost")
    targets(bed, home="second", alias=alias)
    assert bed("status", second.run_id, "--json") == 0
    assert (bed.json()["state"], bed.json()["kubeflow"]["target"]) == ("running", "alias")
    assert bed("cancel", second.run_id, "--json") == 0
    assert bed.json()["state"] == "cancelled"


def test_a_run_is_not_said_to_be_nowhere_while_a_target_is_away(
    bed: Bed, second: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "REPEATS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    away = {"store": "s3://bucket/headrace", "s3_endpoint": "http://127.0.0.1:9"}
    targets(bed, home="second", away=away)
    assert bed("status", "digits-aaaaaaaa", "--json") == 4
    assert "127.0.0.1:9" in bed.json()["error"]["message"]
    targets(bed, home="second", away=away, right=bed.stand_in.url)
    assert bed("status", second.run_id, "--json") == 0  # a trouble elsewhere hides no run


# lists


def names(bed: Bed) -> list[str]:
    return [one["run_id"] for one in bed.json()["runs"]]


def test_a_list_leaves_out_what_goes_on_where_kubeflow_is_away_waits_once_and_says_so(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    ended = bed.json()["run_id"]
    bed.play(train=bed.steps.waits("train"))
    for _ in range(3):
        bed.begin()
    bed.stand_in.go_away()
    asked: list[str] = []

    def call(self: Any, doing: str, *_: Any, **__: Any) -> Any:
        asked.append(doing)
        return self._once(doing, lambda client: None)

    monkeypatch.setattr(connection.Connection, "call", call)
    assert bed("runs", "--json") == 0
    assert names(bed) == [ended]
    assert bed.err.count(f"runs that go on there are left out: Kubeflow at {bed.stand_in.url}") == 1
    assert asked == ["read the run"]


def test_a_list_is_not_ended_by_one_target_that_cannot_be_asked(bed: Bed, other: KubeflowStandIn) -> None:
    bed.play(train=bed.steps.waits("train"))
    sent = bed.begin()
    kubeflow = {"host": other.url, "token_env": "NO_SUCH_TOKEN"}
    targets(bed, kubeflow=bed.stand_in.url, closed={"kubeflow": kubeflow, "store": str(bed.folder / "other")})
    lost = bed.begin()
    (bed.folder / "home" / "runs" / lost.run_id / "target.json").write_text('{"target": "closed"}')
    store = bed.folder / "other" / "runs"
    store.mkdir(parents=True)
    (bed.folder / "store" / "runs" / lost.run_id).rename(store / lost.run_id)
    assert bed("runs", "--json") == 0
    assert names(bed) == [sent.run_id]
    assert "NO_SUCH_TOKEN, which holds the token for Kubeflow, is not set" in bed.err


def test_a_run_whose_kubeflow_cannot_be_asked_hides_none_that_has_ended(bed: Bed) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    ended = bed.json()["run_id"]
    bed.play(train=bed.steps.waits("train"))
    bed.begin()
    bed.target(token_env="NO_SUCH_TOKEN")
    for on in ((), ("--on", "kubeflow")):
        assert bed("runs", *on, "--json") == 0
        assert names(bed) == [ended]
        assert "NO_SUCH_TOKEN, which holds the token for Kubeflow, is not set" in bed.err


def test_a_list_says_that_targets_yaml_is_wrong_instead_of_hiding_what_is_there(bed: Bed) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    (bed.folder / "home" / "targets.yaml").write_text("kubeflow: {store: 3}")
    assert bed("runs", "--json") == 0
    assert "runs on kubeflow are left out" in bed.err
    assert "mistakes" in bed.err


def test_a_list_names_a_target_as_it_is_called_here(bed: Bed) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    targets(bed, here=bed.stand_in.url)
    assert bed("runs", "--on", "here", "--json") == 0
    (listed,) = bed.json()["runs"]
    assert listed["target"] == "here"
    assert bed("status", listed["run_id"], "--on", listed["target"], "--json") == 0


def test_a_run_that_is_gone_from_its_store_is_left_out_without_a_word(bed: Bed) -> None:
    assert bed("run", bed.spec, "--on", "kubeflow", "--json") == 0
    Cluster.named("kubeflow").store.remove_folder(str(bed.folder / "store" / "runs"))
    assert bed("runs", "--json") == 0
    assert (names(bed), "left out" in bed.err) == ([], False)
