"""The train step on a cluster: when it makes a TrainingRun, how it waits for it, and what it ends with.

The cluster is a stand-in (`FakeCluster`), which test_cluster.py holds to the real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from interrupts import killed_while_the_store_is_away

from headrace.api.canonical import to_train_part
from headrace.api.site import Site
from headrace.api.training_run import HELD_UNTIL, TrainingRunSpec
from headrace.base.errors import Cancelled, DataInvalid, HeadraceError, RunFailed, SpecInvalid, Superseded, Unavailable
from headrace.cluster import TRAINING_RUN
from headrace.spec import load_spec
from headrace.spec.parts import step_parts
from headrace.steps import keys
from headrace.steps.cluster_train import ClusterTrainStep, settled
from headrace.steps.keys import code_versions, train_key
from headrace.steps.step import Outcome, Step
from headrace.store import Store
from headrace.store.step_files import ask_to_cancel, result_uri, step_uri, write_note
from headrace_models import catalog
from headrace_testbed.fake_cluster import FakeCluster

RUN = "digits-aaaaaaaa"
NAME = f"{RUN}-1"
SPLIT = "f" * 64
METRICS = catalog.tasks()["image-classification"].metrics
PACKAGE = "a" * 64


@pytest.fixture
def site(store: Store) -> Site:
    return Site.model_validate(
        {"store": {"uri": f"file://{store.url}"}, "mlflow": {"trackingURI": "http://mlflow:5000"}, "queue": "gpus"}
    )


@pytest.fixture
def step(store: Store) -> Step:
    return Step("train", RUN, "1", store)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv("HEADRACE_EVENTS", str(path))

    def texts(kind: str) -> list[Any]:
        events = [json.loads(line) for line in path.read_text().splitlines()]
        return [event for event in events if event["type"] == kind]

    return texts


def part(**train: Any) -> dict[str, Any]:
    spec = {"name": "digits", "task": "image-classification", "data": {"source": "builtin:digits"}}
    spec |= {"model": {"name": "resnet8"}, "train": train}
    found = step_parts(load_spec(spec).to_record(), None, None)["train"]
    assert found is not None
    return found


def made(store: Store, attempt: str = "1.1", **values: Any) -> None:
    """Leave behind what a driver leaves that has trained."""
    package = store.uri("packages", PACKAGE)
    store.write_json(f"{package}/headrace.json", {})
    metrics = dict.fromkeys(METRICS, 0.9)
    store.write_json(keys.evaluation_uri(store.uri, PACKAGE, SPLIT), {"metrics": metrics, "samples": 10})
    known = {"package_uri": package, "package_sha256": PACKAGE, "model_uri": "models:/m-1", "model_id": "m-1"}
    result = {**known, "metrics": metrics, "trained_by": RUN, "parts": {"total": 1.0}, **values}
    store.write_json(result_uri(store, RUN, "train", attempt), {**result, "step": "train", "attempt": attempt})


def run(cluster: FakeCluster, step: Step, site: Site, champion: Any = None, given: Any = None) -> Outcome:
    body = ClusterTrainStep(step, cluster, site, given or part(), SPLIT)
    return body.run("digits@champion" if champion else "", lambda _: champion)


def succeed(cluster: FakeCluster, attempt: int = 1) -> Callable[[], None]:
    return lambda: cluster.say(
        TRAINING_RUN, NAME, phase="Succeeded", attempt=attempt, conditions={"Succeeded": ("True", "Trained", "done")}
    )


def fail(cluster: FakeCluster, reason: str, message: str = "it failed", attempt: int = 1) -> Callable[[], None]:
    return lambda: cluster.say(
        TRAINING_RUN, NAME, phase="Failed", attempt=attempt, conditions={"Succeeded": ("False", reason, message)}
    )


def hold_of(cluster: FakeCluster) -> datetime:
    obj = cluster.get(TRAINING_RUN, NAME)
    assert obj is not None
    return datetime.fromisoformat(obj["metadata"]["annotations"][HELD_UNTIL])


def test_a_training_is_a_training_run_whose_result_is_the_step_s(step: Step, site: Site, store: Store) -> None:
    cluster = FakeCluster()
    made(store)
    cluster.script = [succeed(cluster)]
    outcome = run(cluster, step, site)
    assert cluster.written == [("apply", "TrainingRun", NAME)]
    assert (outcome.state, outcome.values["package_sha256"]) == ("succeeded", PACKAGE)
    assert outcome.values["metrics"] == dict.fromkeys(METRICS, 0.9)
    assert not {"step", "attempt"} & outcome.values.keys()
    assert outcome.values["parts"].keys() == {"total", "training_run"}


def test_the_training_run_says_all_that_the_driver_and_the_operator_need(step: Step, site: Site, store: Store) -> None:
    cluster = FakeCluster()
    made(store)
    write_note(store, RUN, "origin", {"spec": {"name": "digits"}})
    cluster.script = [succeed(cluster)]
    run(cluster, step, site)
    obj = cluster.get(TRAINING_RUN, NAME)
    assert obj is not None
    assert obj["metadata"]["labels"] == {"headrace.dev/run-id": RUN}
    spec = obj["spec"]
    assert spec["manifestURI"] == f"file://{store.url}/splits/{SPLIT}"
    assert (spec["runID"], spec["runAttempt"], spec["experiment"], spec["queue"]) == (RUN, 1, "digits", "gpus")
    assert spec["ttlSecondsAfterFinished"] == 7 * 24 * 3600
    assert timedelta(minutes=9) < hold_of(cluster) - datetime.now(UTC) < timedelta(minutes=11)


def test_early_stop_without_a_validation_sample_makes_no_training_run(step: Step, site: Site, store: Store) -> None:
    record = {"counts": {"train": 9, "validation": 0, "test": 2}, "parameters": {"validation": 0.05}}
    store.write_json(store.uri("splits", SPLIT, "split.json"), record)
    cluster = FakeCluster()
    with pytest.raises(DataInvalid, match=r"train\.early_stop goes by the validation split"):
        run(cluster, step, site, given=part(early_stop={"patience": 2}))
    assert cluster.written == []


def test_what_is_in_the_store_makes_no_training_run(step: Step, site: Site, store: Store) -> None:
    made(store)
    known = {"package_uri": store.uri("packages", PACKAGE), "package_sha256": PACKAGE, "model_uri": "m"}
    step.remember(train_key(settled(part(), site), SPLIT, code_versions()), known)
    cluster = FakeCluster()
    outcome = run(cluster, Step("train", "digits-bbbbbbbb", "1", store), site)
    assert (outcome.state, cluster.written) == ("cached", [])
    assert outcome.values["trained_by"] == RUN


def test_the_step_looks_up_what_the_driver_remembers(step: Step, site: Site, store: Store) -> None:
    """`auto`, which only the site can settle, must not make two keys of one training."""
    given = part(gpus_per_worker="auto", optimizer={"name": "adam", "lr": 1.0})
    body = ClusterTrainStep(step, FakeCluster(), site.model_copy(update={"gpus_per_worker": 1}), given, SPLIT)
    stored = json.loads(json.dumps(body.spec(None).to_record()))
    driver = to_train_part(TrainingRunSpec.model_validate(stored))
    assert train_key(driver, SPLIT, code_versions()) == body.trained.key


def test_workers_get_the_gpus_and_cpus_that_the_spec_asks_for(step: Step, site: Site) -> None:
    given = part(gpus_per_worker=2, resources={"cpus_per_worker": 4})
    spec = ClusterTrainStep(step, FakeCluster(), site, given, SPLIT).spec(None)
    assert (spec.pods.worker.gpu, spec.pods.worker.cpu) == (2, "4")
    plain = ClusterTrainStep(step, FakeCluster(), site, part(), SPLIT).spec(None)
    assert (plain.pods.worker.gpu, plain.pods.worker.cpu) == (0, "1")


def test_the_queue_of_the_target_wins(step: Step, site: Site, store: Store) -> None:
    write_note(store, RUN, "options", {"queue": "cpus"})
    assert ClusterTrainStep(step, FakeCluster(), site, part(), SPLIT).spec(None).queue == "cpus"


def test_a_champion_is_measured_beside_it_and_one_that_could_not_be_says_why(
    step: Step, site: Site, store: Store
) -> None:
    uri = store.uri("packages", "c" * 64)
    store.write_json(f"{uri}/headrace.json", {})
    champion = SimpleNamespace(name="digits", version="3", package_uri=uri, package_sha256="c" * 64)
    made(store, champion={"error": "its labels are others"})
    cluster = FakeCluster()
    cluster.script = [succeed(cluster)]
    outcome = run(cluster, step, site, champion)
    obj = cluster.get(TRAINING_RUN, NAME)
    assert obj is not None
    assert obj["spec"]["championPackageURI"] == f"file://{uri}"
    assert outcome.values["champion"]["version"] == "3"
    assert outcome.values["champion"]["error"] == "its labels are others"


def test_a_pod_that_comes_after_a_killed_one_waits_on_for_the_same_training_run(
    step: Step, site: Site, store: Store
) -> None:
    cluster = FakeCluster()
    made(store)

    def killed() -> None:
        raise KeyboardInterrupt

    cluster.script = [killed, succeed(cluster)]
    with pytest.raises(KeyboardInterrupt):
        run(cluster, step, site)
    assert hold_of(cluster) > datetime.now(UTC) + timedelta(minutes=9)
    assert run(cluster, step, site).values["package_sha256"] == PACKAGE
    assert [verb for verb, kind, _ in cluster.written if verb == "apply"] == ["apply"]


def test_an_interrupt_stays_one_where_the_store_is_away(
    step: Step, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster()
    cluster.script = [killed_while_the_store_is_away(step, monkeypatch)]
    with pytest.raises(KeyboardInterrupt):
        run(cluster, step, site)
    assert hold_of(cluster) > datetime.now(UTC)


def test_a_cancelled_step_lets_its_training_go(step: Step, site: Site, store: Store) -> None:
    cluster = FakeCluster()

    def cancelled_and_killed() -> None:
        ask_to_cancel(store, RUN, "1")
        raise KeyboardInterrupt

    cluster.script = [cancelled_and_killed]
    with pytest.raises(KeyboardInterrupt):
        run(cluster, step, site)
    assert hold_of(cluster) <= datetime.now(UTC)


def test_a_step_that_nobody_kills_sees_that_it_was_cancelled(step: Step, site: Site, store: Store) -> None:
    cluster = FakeCluster()
    cluster.script = [lambda: ask_to_cancel(store, RUN, "1")]
    with pytest.raises(Cancelled, match="cancelled"):
        run(cluster, step, site)
    assert hold_of(cluster) <= datetime.now(UTC)


def test_a_newer_attempt_ends_what_the_earlier_one_left_under_way(site: Site, store: Store) -> None:
    cluster = FakeCluster()
    old = {"labels": {"headrace.dev/run-id": RUN}}
    for attempt, status in ((1, {}), (2, {"completionTime": "2026-11-26T00:00:00Z"})):
        name = f"{RUN}-{attempt}"
        cluster.apply(TRAINING_RUN, {"metadata": {"name": name, **old}, "spec": {"runAttempt": attempt}})
        cluster.say(TRAINING_RUN, name, **status)
    made(store, "3.1")
    done = {"phase": "Succeeded", "attempt": 1, "conditions": {"Succeeded": ("True", "Trained", "done")}}
    cluster.script = [lambda: cluster.say(TRAINING_RUN, f"{RUN}-3", **done)]
    run(cluster, Step("train", RUN, "3", store), site)
    assert [name for verb, _, name in cluster.written if verb == "delete"] == [f"{RUN}-1"]


def test_a_step_that_is_superseded_says_so_and_not_that_its_training_is_gone(
    step: Step, site: Site, store: Store
) -> None:
    cluster = FakeCluster()

    def newer() -> None:
        store.claim_attempt(RUN, "2")
        cluster.delete(TRAINING_RUN, NAME)

    cluster.script = [newer]
    with pytest.raises(Superseded):
        run(cluster, step, site)


def test_a_training_run_that_somebody_deletes_ends_the_step(step: Step, site: Site) -> None:
    cluster = FakeCluster()
    cluster.script = [lambda: cluster.delete(TRAINING_RUN, NAME)]
    with pytest.raises(RunFailed, match="somebody deleted") as raised:
        run(cluster, step, site)
    assert raised.value.code == "training-run-deleted"


def test_the_drivers_own_error_is_the_step_s(step: Step, site: Site, store: Store) -> None:
    cluster = FakeCluster()
    record = DataInvalid("3 files cannot be read", action="mend them").to_record()
    store.write_json(step_uri(store, RUN, "train", "1.1", "error.json"), record)
    cluster.script = [fail(cluster, "DataInvalid", "3 files")]
    with pytest.raises(DataInvalid, match="3 files cannot be read") as raised:
        run(cluster, step, site)
    assert (raised.value.exit_code, raised.value.action) == (2, "mend them")


def test_after_the_last_retry_the_last_error_is_told(step: Step, site: Site, store: Store) -> None:
    cluster = FakeCluster()
    record = Unavailable("MLflow cannot be reached").to_record()
    store.write_json(step_uri(store, RUN, "train", "1.4", "error.json"), record)
    cluster.script = [fail(cluster, "RetriesExhausted", attempt=4)]
    with pytest.raises(Unavailable, match=r"MLflow cannot be reached \(attempt 4, the last one\)") as raised:
        run(cluster, step, site)
    assert raised.value.waited_for, "nobody is to wait for it again"


@pytest.mark.parametrize(
    ("reason", "left", "code"),
    [
        ("DeadlineExceeded", Cancelled("told to end"), "deadline-exceeded"),
        ("RetriesExhausted", Cancelled("told to end"), "retries-exhausted"),
        ("RetriesExhausted", None, "retries-exhausted"),
    ],
)
def test_a_driver_that_was_stopped_is_not_why_it_failed(
    step: Step, site: Site, store: Store, reason: str, left: HeadraceError | None, code: str
) -> None:
    cluster = FakeCluster()
    if left is not None:
        store.write_json(step_uri(store, RUN, "train", "1.1", "error.json"), left.to_record())
    cluster.script = [fail(cluster, reason, "the head was lost")]
    with pytest.raises(RunFailed, match="the head was lost") as raised:
        run(cluster, step, site)
    assert raised.value.code == code
    assert f"kubectl -n runs describe trainingrun {NAME}" in raised.value.action


def test_a_spec_that_the_operator_refuses_ends_the_step(step: Step, site: Site) -> None:
    cluster = FakeCluster()
    refused = {"Accepted": ("False", "SpecInvalid", "spec.model: no such argument")}
    cluster.script = [lambda: cluster.say(TRAINING_RUN, NAME, phase="Pending", conditions=refused)]
    with pytest.raises(SpecInvalid, match="no such argument"):
        run(cluster, step, site)


def test_a_training_run_of_somebody_else_is_left_alone(step: Step, site: Site) -> None:
    cluster = FakeCluster()
    cluster.apply(TRAINING_RUN, {"metadata": {"name": NAME}, "spec": {}})
    with pytest.raises(RunFailed, match="no run of ours"):
        run(cluster, step, site)


def test_people_are_told_why_it_waits_once_and_programs_all_that_changes(
    step: Step, site: Site, store: Store, told: Callable[[str], list[Any]]
) -> None:
    cluster = FakeCluster()
    made(store)
    waits = {"phase": "Waiting", "message": "Unschedulable: no node has a GPU", "attempt": 1}
    runs = {"phase": "Running", "message": "attempt 1 runs", "metrics": {"accuracy": 0.5}}
    cluster.script = [
        *(2 * [lambda: cluster.say(TRAINING_RUN, NAME, **waits)]),
        lambda: cluster.say(TRAINING_RUN, NAME, **runs),
        lambda: cluster.say(TRAINING_RUN, NAME, checkpoint={"uri": "s3://c", "epoch": 3}),
        succeed(cluster),
    ]
    run(cluster, step, site)
    texts = [event["text"] for event in told("message")]
    assert texts.count("Waiting: Unschedulable: no node has a GPU") == 1
    assert "Running: attempt 1 runs" in texts
    last = told("training")[-1]
    assert (last["epoch"], last["metrics"], last["phase"]) == (3, {"accuracy": 0.5}, "Succeeded")


def test_a_store_that_is_another_than_the_driver_s_is_said(step: Step, site: Site) -> None:
    cluster = FakeCluster()
    cluster.script = [succeed(cluster)]
    with pytest.raises(RunFailed, match="is not in") as raised:
        run(cluster, step, site)
    assert raised.value.code == "store-incomplete"
