"""Register and deploy on a cluster: who may move the alias, when it moves, and what a failure leaves as it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from interrupts import killed_while_the_store_is_away

from headrace.api.site import Site
from headrace.base.errors import (
    Cancelled,
    ChampionChanged,
    InvalidInput,
    RunFailed,
    SpecInvalid,
    Superseded,
    Unavailable,
)
from headrace.base.ids import LONGEST_NAME
from headrace.cluster import LEASE, MODEL_DEPLOYMENT
from headrace.spec import load_spec
from headrace.steps import cluster_deployment
from headrace.steps.cluster_alias import AliasRights, lease_name
from headrace.steps.cluster_deploy import cluster_tools
from headrace.steps.cluster_wish import wish
from headrace.steps.deploy import deploy_once
from headrace.steps.step import Outcome, Step
from headrace.store import Store
from headrace.store.step_files import ask_to_cancel
from headrace_operators.model_deployment.accept import problems
from headrace_testbed.fake_cluster import FakeCluster

RUN = "digits-aaaaaaaa"
LEASE_NAME = lease_name("digits@champion")
URL = "http://digits-serve-svc.runs.svc:8000/digits"
PART = {"name": "digits", "replicas": 1, "resources": {"cpus": None, "gpus": None, "memory_bytes": None}}
REGISTRATION = {
    "model": {"name": "digits", "version": "2", "alias": None},
    "package": {"uri": "s3://b/packages/a", "sha256": "a"},
    "judged_against": {"version": "1"},
}
SITE = Site.model_validate({"store": {"uri": "s3://b"}, "mlflow": {"trackingURI": "http://mlflow:5000"}})
OLD_SPEC = {
    "model": {"name": "digits", "version": "1"},
    "replicas": 3,
    "pods": {"nodeSelector": {"disk": "ssd"}},
    "store": {"uri": "s3://old"},
    "mlflow": {"trackingURI": "http://mlflow:5000"},
}


class Registry:
    """A stand-in of the registry's aliases."""

    def __init__(self, champion: str | None = "1") -> None:
        self.champion = champion

    def resolve(self, reference: str) -> Any:
        return None if self.champion is None else SimpleNamespace(name="digits", version=self.champion)

    def set_alias(self, name: str, alias: str, version: str, *, check: Callable[[], None]) -> None:
        check()
        self.champion = version


@pytest.fixture
def step(store: Store) -> Step:
    return Step("deploy", RUN, "1", store)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def deploy(cluster: FakeCluster, step: Step, registry: Registry) -> Outcome:
    rights = AliasRights(step, cluster)
    tools = cluster_tools(step, cluster, rights, SITE, registry.resolve, registry.set_alias)
    with rights.kept_only_for_the_next_step(wanted=False):
        return deploy_once(step, tools, PART, REGISTRATION, "champion")


def holder(cluster: FakeCluster) -> str | None:
    lease = cluster.get(LEASE, LEASE_NAME)
    assert lease is not None
    found: str | None = lease["spec"].get("holderIdentity")
    return found


def says(cluster: FakeCluster, version: str, progressing: tuple[str, str, str], available: str) -> Callable[[], None]:
    conditions = {"Progressing": progressing, "Available": (available, "Said", "")}
    return lambda: cluster.say(
        MODEL_DEPLOYMENT, "digits", servingVersion=version, url=URL, message=progressing[2], conditions=conditions
    )


def answers(cluster: FakeCluster, version: str = "2") -> Callable[[], None]:
    return says(cluster, version, ("False", "Complete", ""), "True")


def fails_to_load(cluster: FakeCluster) -> Callable[[], None]:
    return says(cluster, "1", ("False", "LoadFailed", "version 2 could not be loaded: it is damaged"), "False")


def old(cluster: FakeCluster, **spec: Any) -> None:
    """An endpoint that answers with version 1."""
    cluster.apply(MODEL_DEPLOYMENT, {"metadata": {"name": "digits"}, "spec": {**OLD_SPEC, **spec}})
    answers(cluster, "1")()


def spec_of(cluster: FakeCluster) -> Any:
    obj = cluster.get(MODEL_DEPLOYMENT, "digits")
    return None if obj is None else obj["spec"]


def test_the_alias_moves_when_every_replica_answers_with_the_version(cluster: FakeCluster, step: Step) -> None:
    registry = Registry()
    starting = says(cluster, "1", ("True", "LoadingVersion", "version 2 is being loaded"), "False")

    def not_yet() -> None:
        starting()
        assert registry.champion == "1"
        assert holder(cluster) == f"run {RUN}"

    cluster.script = [not_yet, answers(cluster)]
    outcome = deploy(cluster, step, registry)
    assert registry.champion == "2"
    assert outcome.values["endpoint"] == {"url": URL, "model": "digits", "version": "2"}
    assert outcome.values["model"]["alias"] == "champion"
    assert holder(cluster) is None


def test_the_deployment_says_a_version_and_whose_run_it_is_of(cluster: FakeCluster, step: Step) -> None:
    cluster.script = [answers(cluster)]
    deploy(cluster, step, Registry())
    obj = cluster.get(MODEL_DEPLOYMENT, "digits")
    assert obj is not None
    assert obj["metadata"]["annotations"] == {"headrace.dev/run-id": RUN, "headrace.dev/run-attempt": "1"}
    assert obj["spec"]["model"] == {"name": "digits", "version": "2"}


def test_workers_have_room_for_a_replica(cluster: FakeCluster, step: Step) -> None:
    """A replica that would not fit is refused by the operator, after all the training."""

    def worker(cpu: str = "1", **resources: Any) -> tuple[str, str, int]:
        pods = {"worker": {"cpu": cpu, "memory": "4Gi"}, "sharedMemory": "1Gi"}
        site = Site.model_validate({**SITE.to_record(), "pods": pods})
        made = wish({**PART, "resources": {**PART["resources"], **resources}}, REGISTRATION, site)
        assert problems("digits", made, "image") == []
        return made.pods.worker.cpu, made.pods.worker.memory, made.pods.worker.gpu

    assert worker() == ("1", "4Gi", 0)
    assert worker(cpus=2.5, gpus=0.5) == ("3", "4Gi", 1)
    assert worker(cpu="2k", cpus=8.0) == ("2k", "4Gi", 0)
    assert worker(memory_bytes=3 * 2**30) == ("1", "4Gi", 0)
    assert worker(memory_bytes=8 * 2**30) == ("1", "9216Mi", 0)


def test_an_endpoint_that_a_cluster_would_not_take_is_refused_with_the_spec() -> None:
    spec = {"name": "digits", "task": "image-classification", "data": {"source": "builtin:digits"}}
    spec |= {"model": {"name": "resnet8"}, "register": {}}
    longest = "d" * LONGEST_NAME
    deployed = load_spec({**spec, "deploy": {"name": longest}}).deploy
    assert deployed is not None
    assert problems(deployed.name, wish(PART, REGISTRATION, SITE), "image") == []
    assert problems(f"{longest}d", wish(PART, REGISTRATION, SITE), "image")
    with pytest.raises(SpecInvalid) as raised:
        load_spec({**spec, "deploy": {"name": f"{longest}d"}})
    (finding,) = raised.value.findings
    assert (finding.where, "at most 40" in finding.allowed) == ("deploy.name", True)


def test_the_word_of_an_older_spec_is_not_believed(cluster: FakeCluster, step: Step) -> None:
    """KubeRay's and the operator's status lag behind: what answers so far is the version before."""
    old(cluster)
    registry = Registry()
    cluster.script = [lambda: None, answers(cluster)]
    deploy(cluster, step, registry)
    assert cluster.script == []


def test_what_answers_already_is_not_deployed_again(cluster: FakeCluster, step: Step) -> None:
    cluster.script = [answers(cluster)]
    deploy(cluster, step, Registry())
    cluster.written.clear()
    outcome = deploy(cluster, Step("deploy", RUN, "2", step.store), Registry("2"))
    assert outcome.state == "cached"
    assert not [kind for _, kind, _ in cluster.written if kind == "ModelDeployment"]


def test_a_version_that_cannot_be_loaded_leaves_endpoint_and_alias_as_they_were(
    cluster: FakeCluster, step: Step
) -> None:
    old(cluster)
    registry = Registry()
    cluster.script = [fails_to_load(cluster)]
    with pytest.raises(RunFailed, match="version 2 could not be loaded: it is damaged") as raised:
        deploy(cluster, step, registry)
    assert raised.value.code == "deploy-failed"
    assert spec_of(cluster) == OLD_SPEC
    assert registry.champion == "1"
    assert holder(cluster) is None


def test_a_first_version_that_cannot_be_loaded_leaves_no_endpoint(cluster: FakeCluster, step: Step) -> None:
    cluster.script = [fails_to_load(cluster)]
    with pytest.raises(RunFailed):
        deploy(cluster, step, Registry())
    assert spec_of(cluster) is None


def test_a_pod_that_comes_after_a_killed_one_waits_on_and_can_still_put_back(cluster: FakeCluster, step: Step) -> None:
    old(cluster)

    def killed() -> None:
        raise KeyboardInterrupt

    cluster.script = [killed, fails_to_load(cluster)]
    with pytest.raises(KeyboardInterrupt):
        deploy(cluster, step, Registry())
    assert spec_of(cluster)["model"]["version"] == "2"
    assert holder(cluster) == f"run {RUN}"
    with pytest.raises(RunFailed):
        deploy(cluster, step, Registry())
    assert spec_of(cluster) == OLD_SPEC


def test_a_resumed_run_puts_back_what_was_before_its_first_attempt(cluster: FakeCluster, step: Step) -> None:
    old(cluster)

    def killed() -> None:
        raise KeyboardInterrupt

    cluster.script = [killed, fails_to_load(cluster)]
    with pytest.raises(KeyboardInterrupt):
        deploy(cluster, step, Registry())
    with pytest.raises(RunFailed):
        deploy(cluster, Step("deploy", RUN, "2", step.store), Registry())
    assert spec_of(cluster) == OLD_SPEC


def test_a_cancelled_deployment_is_put_back(cluster: FakeCluster, step: Step) -> None:
    old(cluster)
    cluster.script = [lambda: ask_to_cancel(step.store, RUN, "1")]
    with pytest.raises(Cancelled):
        deploy(cluster, step, Registry())
    assert spec_of(cluster) == OLD_SPEC
    assert holder(cluster) is None


def test_somebody_elses_later_wish_is_not_put_back(cluster: FakeCluster, step: Step) -> None:
    old(cluster)
    cluster.script = [
        lambda: cluster.patch(MODEL_DEPLOYMENT, "digits", {"spec": {"model": {"name": "digits", "version": "9"}}})
    ]
    with pytest.raises(RunFailed, match="somebody changed what it is to serve"):
        deploy(cluster, step, Registry())
    assert spec_of(cluster)["model"]["version"] == "9"


def test_an_endpoint_that_followed_an_alias_serves_a_version_and_follows_again_if_that_fails(
    cluster: FakeCluster, step: Step
) -> None:
    old(cluster, model={"name": "digits", "alias": "champion"})
    cluster.script = [fails_to_load(cluster)]
    with pytest.raises(RunFailed):
        deploy(cluster, step, Registry())
    assert spec_of(cluster)["model"] == {"name": "digits", "alias": "champion"}


def test_a_version_that_never_answers_is_given_up_with_what_it_waited_for(
    cluster: FakeCluster, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(cluster)
    now = [0.0]
    monkeypatch.setattr(cluster_deployment, "time", SimpleNamespace(monotonic=lambda: now[0]))
    waits = says(cluster, "1", ("True", "WaitingForPods", "the image cannot be pulled"), "False")
    cluster.script = [waits, lambda: now.append(now.pop() + 1799), lambda: now.append(now.pop() + 2)]
    with pytest.raises(RunFailed, match=r"did not answer within 1800 s: the image cannot be pulled"):
        deploy(cluster, step, Registry())
    assert cluster.script == []
    assert spec_of(cluster) == OLD_SPEC


# what another attempt, or another person, does meanwhile


def test_a_superseded_attempt_neither_puts_back_nor_gives_back(cluster: FakeCluster, step: Step) -> None:
    old(cluster)

    def newer() -> None:
        fails_to_load(cluster)()
        step.store.claim_attempt(RUN, "2")

    cluster.script = [newer]
    with pytest.raises(Superseded):
        deploy(cluster, step, Registry())
    assert spec_of(cluster)["model"]["version"] == "2"
    assert holder(cluster) == f"run {RUN}"


def test_an_attempt_that_is_superseded_while_it_puts_back_is_refused(
    cluster: FakeCluster, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer attempt comes between the older one's last look at whose run it is and its write."""
    old(cluster)
    check, failed = step.store.check_attempt, False

    def newer_comes(run_id: str, attempt: str) -> None:
        check(run_id, attempt)
        if failed and attempt == "1":
            step.store.claim_attempt(RUN, "2")
            annotations = {"headrace.dev/run-attempt": "2"}
            cluster.patch(MODEL_DEPLOYMENT, "digits", {"metadata": {"annotations": annotations}})

    def fails() -> None:
        nonlocal failed
        fails_to_load(cluster)()
        failed = True

    monkeypatch.setattr(step.store, "check_attempt", newer_comes)
    monkeypatch.setattr(Step, "check_wanted", lambda _: None)
    cluster.script = [fails]
    with pytest.raises(Superseded):
        deploy(cluster, step, Registry())
    assert spec_of(cluster)["model"]["version"] == "2"


def test_a_lock_that_a_newer_attempt_has_taken_over_is_not_given_back(cluster: FakeCluster, step: Step) -> None:
    rights, newer = AliasRights(step, cluster), AliasRights(Step("deploy", RUN, "2", step.store), cluster)
    rights.take("digits", "champion", holder=f"run {RUN}")
    step.store.claim_attempt(RUN, "2")
    newer.take("digits", "champion", holder=f"run {RUN}")
    rights.give_back()
    assert holder(cluster) == f"run {RUN}"
    newer.give_back()
    assert holder(cluster) is None


def test_an_alias_that_moved_while_the_version_was_deployed_is_left_and_the_endpoint_put_back(
    cluster: FakeCluster, step: Step
) -> None:
    old(cluster)
    registry = Registry()

    def a_person_moves_it() -> None:
        registry.champion = "7"
        answers(cluster)()

    cluster.script = [a_person_moves_it]
    with pytest.raises(ChampionChanged, match="moved to version 7"):
        deploy(cluster, step, registry)
    assert registry.champion == "7"
    assert spec_of(cluster) == OLD_SPEC


def test_a_right_that_was_lost_before_the_move_leaves_the_endpoint_as_it_was(cluster: FakeCluster, step: Step) -> None:
    old(cluster)

    def taken() -> None:
        cluster.patch(LEASE, LEASE_NAME, {"spec": {"holderIdentity": "run digits-bbbbbbbb"}})
        answers(cluster)()

    cluster.script = [taken]
    with pytest.raises(RunFailed) as raised:
        deploy(cluster, step, registry := Registry())
    assert (raised.value.code, registry.champion) == ("alias-lock-lost", "1")
    assert spec_of(cluster) == OLD_SPEC
    assert holder(cluster) == "run digits-bbbbbbbb"


def test_a_wish_that_the_api_server_refuses_half_way_is_put_back(
    cluster: FakeCluster, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that followed an alias is told a version in a patch, and the rest in an apply."""
    old(cluster, model={"name": "digits", "alias": "champion"})

    def refused(*_: Any, **__: Any) -> None:
        assert spec_of(cluster)["model"]["version"] == "2"
        raise InvalidInput("Kubernetes refused to apply ModelDeployment digits: too long")

    monkeypatch.setattr(cluster, "apply", refused)
    with pytest.raises(InvalidInput, match="too long"):
        deploy(cluster, step, Registry())
    assert spec_of(cluster)["model"] == {"name": "digits", "alias": "champion"}
    assert holder(cluster) is None


def test_a_service_that_is_away_leaves_the_wish_and_the_right_for_the_next_try(
    cluster: FakeCluster, step: Step
) -> None:
    old(cluster)

    def away() -> None:
        raise Unavailable("the store cannot be reached")

    cluster.script = [away, fails_to_load(cluster)]
    with pytest.raises(Unavailable):
        deploy(cluster, step, Registry())
    assert (spec_of(cluster)["model"]["version"], holder(cluster)) == ("2", f"run {RUN}")
    with pytest.raises(RunFailed, match="could not be loaded"):
        deploy(cluster, step, Registry())
    assert spec_of(cluster) == OLD_SPEC


def test_an_interrupt_stays_one_where_the_store_is_away(
    cluster: FakeCluster, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.script = [killed_while_the_store_is_away(step, monkeypatch)]
    with pytest.raises(KeyboardInterrupt):
        deploy(cluster, step, Registry())
    assert spec_of(cluster)["model"]["version"] == "2"


def test_another_model_with_a_version_of_the_same_number_is_another_version(cluster: FakeCluster, step: Step) -> None:
    old(cluster, model={"name": "letters", "version": "2"})
    answers(cluster)()
    cluster.script = [fails_to_load(cluster)]
    with pytest.raises(RunFailed, match="digits version 2 was not deployed"):
        deploy(cluster, step, Registry())
    assert spec_of(cluster)["model"] == {"name": "letters", "version": "2"}
    other = {"model": {"name": "letters", "version": "2"}}
    cluster.script = [lambda: cluster.patch(MODEL_DEPLOYMENT, "digits", {"spec": other})]
    with pytest.raises(RunFailed, match="somebody changed what it is to serve"):
        deploy(cluster, Step("deploy", RUN, "2", step.store), Registry())
    assert spec_of(cluster)["model"] == {"name": "letters", "version": "2"}


@pytest.mark.parametrize("first", [False, True], ids=["a version before", "none before"])
def test_a_status_that_is_written_while_an_endpoint_is_put_back_does_not_keep_it(
    cluster: FakeCluster, step: Step, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    if not first:
        old(cluster)
    write, late = ("delete" if first else "patch"), [fails_to_load(cluster)]
    original = getattr(cluster, write)

    def operator_is_faster(kind: Any, *arguments: Any, **options: Any) -> Any:
        if kind == MODEL_DEPLOYMENT and late:
            late.pop()()
        return original(kind, *arguments, **options)

    monkeypatch.setattr(cluster, write, operator_is_faster)
    cluster.script = [fails_to_load(cluster)]
    with pytest.raises(RunFailed, match="could not be loaded"):
        deploy(cluster, step, Registry())
    assert late == []
    assert spec_of(cluster) == (None if first else OLD_SPEC)


def test_what_to_do_about_a_failure_is_said_by_case(cluster: FakeCluster, step: Step) -> None:
    cluster.script = [fails_to_load(cluster)]
    with pytest.raises(RunFailed) as first:
        deploy(cluster, step, Registry())
    old(cluster)
    cluster.script = [fails_to_load(cluster)]
    with pytest.raises(RunFailed) as later:
        deploy(cluster, step, Registry())
    cluster.script = [lambda: cluster.delete(MODEL_DEPLOYMENT, "digits")]
    with pytest.raises(RunFailed, match="somebody deleted") as deleted:
        deploy(cluster, step, Registry())
    assert "the endpoint, a first one, is deleted" in first.value.action
    assert "what was served before is served still" in later.value.action
    assert "kubectl -n runs events --for modeldeployment/digits" in later.value.action
    assert f"headrace resume {RUN}" in deleted.value.action


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("first", [False, True], ids=["a version before", "none before"])
@pytest.mark.parametrize("answered", [False, True], ids=["rolling out", "answers"])
def test_an_alias_that_moved_while_the_pod_was_lost_puts_the_endpoint_back(
    cluster: FakeCluster, step: Step, first: bool, answered: bool
) -> None:
    if not first:
        old(cluster)
    cluster.script = [killed]
    with pytest.raises(KeyboardInterrupt):
        deploy(cluster, step, Registry())
    if answered:
        answers(cluster)()
    with pytest.raises(ChampionChanged, match="moved to version 7"):
        deploy(cluster, step, Registry("7"))
    assert spec_of(cluster) == (None if first else OLD_SPEC)


def test_an_alias_that_moved_while_mlflow_was_away_puts_the_endpoint_back(cluster: FakeCluster, step: Step) -> None:
    old(cluster)
    registry = Registry()

    def away(*_: Any, **__: Any) -> None:
        raise Unavailable("MLflow cannot be reached")

    registry.set_alias = away
    cluster.script = [answers(cluster)]
    with pytest.raises(Unavailable):
        deploy(cluster, step, registry)
    assert spec_of(cluster)["model"]["version"] == "2"
    with pytest.raises(ChampionChanged):
        deploy(cluster, step, Registry("7"))
    assert spec_of(cluster) == OLD_SPEC


def test_a_right_that_was_lost_to_what_answers_already_puts_the_endpoint_back(
    cluster: FakeCluster, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.script = [killed]
    with pytest.raises(KeyboardInterrupt):
        deploy(cluster, step, Registry())
    answers(cluster)()

    def lost(*_: Any) -> None:
        raise RunFailed("lost", code="alias-lock-lost")

    monkeypatch.setattr(AliasRights, "require", lost)
    with pytest.raises(RunFailed, match="lost"):
        deploy(cluster, step, Registry())
    assert spec_of(cluster) is None


@pytest.mark.parametrize("there", ["a version", "an alias", "none"])
def test_an_apply_that_comes_late_is_refused(
    cluster: FakeCluster, step: Step, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    """The pod is cut off between its look and its write; a newer attempt deploys, fails and puts back meanwhile."""
    if there != "none":
        old(cluster, **({"model": {"name": "digits", "alias": "champion"}} if there == "an alias" else {}))
    check, before = step.store.check_attempt, spec_of(cluster)
    looks = 0

    def newer_comes(run_id: str, attempt: str) -> None:
        nonlocal looks
        check(run_id, attempt)
        looks += 1
        if looks == 3:  # the step's, the note's, and the write's
            step.store.claim_attempt(RUN, "2")
            with monkeypatch.context() as patch:
                patch.setattr(step.store, "check_attempt", check)
                cluster.script = [fails_to_load(cluster)]
                with pytest.raises(RunFailed, match="could not be loaded"):
                    deploy(cluster, Step("deploy", RUN, "2", step.store), Registry())

    monkeypatch.setattr(step.store, "check_attempt", newer_comes)
    with pytest.raises(Superseded):
        deploy(cluster, step, Registry())
    assert looks >= 3
    assert spec_of(cluster) == before


def test_what_was_made_counts_as_applied_so_that_an_apply_takes_fields_away(cluster: FakeCluster, step: Step) -> None:
    old(cluster)
    theirs = {"manager": "headrace-steps", "operation": "Update", "subresource": "status"}
    made = {"manager": "headrace-steps", "operation": "Update"}
    person = {"manager": "kubectl", "operation": "Update"}
    cluster.patch(MODEL_DEPLOYMENT, "digits", {"metadata": {"managedFields": [person, made, theirs]}})
    cluster.script = [answers(cluster)]
    deploy(cluster, step, Registry())
    found = cluster.get(MODEL_DEPLOYMENT, "digits")
    assert found is not None
    assert found["metadata"]["managedFields"] == [person, {**made, "operation": "Apply"}, theirs]


def test_an_alias_that_moved_since_the_gate_deploys_nothing(cluster: FakeCluster, step: Step) -> None:
    registry = Registry("7")
    with pytest.raises(ChampionChanged, match="moved to version 7"):
        deploy(cluster, step, registry)
    assert spec_of(cluster) is None
    assert registry.champion == "7"
    assert holder(cluster) is None


def test_two_runs_that_want_the_alias_come_one_after_the_other(cluster: FakeCluster, step: Step) -> None:
    other = AliasRights(Step("register", "digits-bbbbbbbb", "1", step.store), cluster)
    other.take("digits", "champion", holder="run digits-bbbbbbbb")
    waited: list[Any] = []

    def free() -> None:
        other.require("digits", "champion")
        other.give_back()

    cluster.script = [free]
    mine = AliasRights(step, cluster)
    mine.take("digits", "champion", holder=f"run {RUN}", on_wait=waited.extend)
    assert waited == ["run digits-bbbbbbbb"]
    mine.require("digits", "champion")


def test_the_register_step_keeps_the_right_for_the_deploy_step_only(cluster: FakeCluster, step: Step) -> None:
    for wanted, left in ((True, f"run {RUN}"), (False, None)):
        rights = AliasRights(step, cluster)
        with rights.kept_only_for_the_next_step(wanted=wanted):
            rights.take("digits", "champion", holder=f"run {RUN}")
        assert holder(cluster) == left
    rights = AliasRights(step, cluster)

    def refused() -> None:
        with rights.kept_only_for_the_next_step(wanted=True):
            rights.take("digits", "champion", holder=f"run {RUN}")
            raise RunFailed("the gate refused")

    with pytest.raises(RunFailed):
        refused()
    assert holder(cluster) is None


def test_a_right_that_nobody_came_for_ends_by_itself_and_is_missed(cluster: FakeCluster, step: Step) -> None:
    mine = AliasRights(step, cluster)
    mine.take("digits", "champion", holder=f"run {RUN}")
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    cluster.patch(LEASE, LEASE_NAME, {"spec": {"renewTime": long_ago}})
    AliasRights(step, cluster).take("digits", "champion", holder="run digits-bbbbbbbb")
    with pytest.raises(RunFailed, match="was lost") as raised:
        mine.require("digits", "champion")
    assert raised.value.code == "alias-lock-lost"
