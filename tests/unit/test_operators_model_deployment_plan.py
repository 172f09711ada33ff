"""Plans for ModelDeployments: every sentence that the operator's docs say of them, without a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.serving.contract import FrontStatus, StableVersion
from headrace_operators.kinds import RAY_SERVICE
from headrace_operators.model_deployment.front import FrontAnswers
from headrace_operators.model_deployment.metrics import state_of
from headrace_operators.model_deployment.observed import Observed
from headrace_operators.model_deployment.plan import plan
from headrace_operators.model_deployment.rayservice import RETRY_ANNOTATION, live_of
from headrace_operators.model_deployment.resolve import Resolution
from headrace_operators.runtime.actions import Apply, Delete, Plan, Tell
from headrace_operators.runtime.conditions import find

NOW = datetime(2026, 11, 26, 2, 0, tzinfo=UTC)
SEVEN = StableVersion("7", "s3://models/packages/7", "7" * 64)
EIGHT = StableVersion("8", "s3://models/packages/8", "8" * 64)
LOAD_ERROR = "version 8 could not be loaded: model.safetensors is not the file that was packed"


def deployment(spec: Mapping[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """A ModelDeployment as the API server gives it."""
    metadata = {"name": "digits", "namespace": "ml", "uid": "u1", "generation": 1, "resourceVersion": "5"}
    whole = {
        "model": {"name": "digits", "alias": "champion"},
        "replicas": 1,
        "store": {"uri": "s3://models"},
        "mlflow": {"trackingURI": "http://mlflow:5000"},
    }
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": metadata | changed.pop("metadata", {}),
        "spec": whole | dict(spec or {}),
        **changed,
    }


class Cluster:
    """What plans look at and act on, as it would come to be: applies land, KubeRay takes them up, time goes on."""

    def __init__(self, spec: Mapping[str, Any] | None = None) -> None:
        self.seen = Observed(deployment(spec), image="headrace:1", resolution=Resolution(SEVEN))
        self.now = NOW
        self.events: list[Tell] = []
        self.applies = 0
        self.generation = 0

    def step(self, seconds: float = 1.0, **seen: Any) -> Plan:
        """Something is seen, SECONDS later; the plan for it is carried out."""
        self.now += timedelta(seconds=seconds)
        self.seen = replace(self.seen, live_seconds=self.seen.live_seconds + seconds, **seen)
        made = plan(self.seen, self.now)
        for action in made.actions:
            if isinstance(action, Apply):
                self._apply(action.manifest)
            elif isinstance(action, Delete):
                self.seen = replace(self.seen, ray_service=None)
            elif isinstance(action, Tell):
                self.events.append(action)
        self.seen = replace(self.seen, obj=dict(self.seen.obj) | {"status": made.status})
        return made

    def _apply(self, manifest: Mapping[str, Any]) -> None:
        self.applies += 1
        self.generation += 1
        metadata = dict(manifest["metadata"]) | {"uid": f"s{self.applies}", "generation": self.generation}
        status = {"observedGeneration": self.generation}
        self.seen = replace(
            self.seen, ray_service=dict(manifest) | {"metadata": metadata, "status": status}, live_seconds=0.0
        )

    def edit(self, **spec: Any) -> None:
        """A person edits the spec."""
        obj = json.loads(json.dumps(self.seen.obj))
        obj["spec"] |= spec
        obj["metadata"]["generation"] += 1
        self.seen = replace(self.seen, obj=obj)

    def kuberay(self, **status: Any) -> None:
        """KubeRay writes into the RayService's status."""
        service = json.loads(json.dumps(self.seen.ray_service))
        service["status"] |= status
        self.seen = replace(self.seen, ray_service=service)

    def answering(self, version: str, count: int = 1, **rest: Any) -> FrontAnswers:
        """COUNT replicas, with the configuration that the RayService has now."""
        statuses = [self.status(version, f"r{n}", **rest) for n in range(count)]
        return FrontAnswers(tuple(statuses), endpoints=1)

    def status(self, version: str | None, replica: str = "r0", **rest: Any) -> FrontStatus:
        config_id = self.config_id
        given = {"config_id": config_id, "loading": None, "error": None, "wanted": config_id} | rest
        return FrontStatus(replica, stable=version, **given)

    @property
    def config_id(self) -> str:
        live = live_of(self.seen.ray_service, "digits")
        assert live is not None
        return live.config.config_id

    def said(self, condition: str) -> tuple[str, str]:
        found = find(self.seen.status["conditions"], condition)
        assert found is not None
        return found["status"], found["reason"]

    def message(self, condition: str) -> str:
        found = find(self.seen.status["conditions"], condition)
        assert found is not None
        return str(found["message"])

    def reasons(self) -> list[str]:
        return [event.reason for event in self.events]


def serving(spec: Mapping[str, Any] | None = None, replicas: int = 1) -> Cluster:
    """A deployment whose version 7 answers."""
    cluster = Cluster(spec)
    cluster.step()
    cluster.step(answers=cluster.answering("7", replicas))
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")
    return cluster


def loading(version: StableVersion = EIGHT) -> Cluster:
    """The alias has moved on, and the front has been told."""
    cluster = serving()
    cluster.step(resolution=Resolution(version))
    return cluster


# the way to a version that answers


def test_nothing_is_made_before_the_registry_has_answered() -> None:
    cluster = Cluster()
    made = cluster.step(resolution=None)
    assert made.actions == ()
    assert cluster.said("Resolved") == ("Unknown", "Asking")
    assert cluster.said("Progressing") == ("True", "Resolving")
    assert cluster.said("Available") == ("Unknown", "NotAskedYet")
    assert cluster.seen.status["message"] == "the registry is being asked for digits@champion at http://mlflow:5000"


def test_a_resolved_version_becomes_a_rayservice_that_the_deployment_owns() -> None:
    cluster = Cluster()
    made = cluster.step()
    (apply,) = [action for action in made.actions if isinstance(action, Apply)]
    assert apply.kind == RAY_SERVICE
    assert apply.manifest["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert cluster.reasons() == ["Deploying"]
    status = cluster.seen.status
    assert (status["wantedVersion"], status["wantedPackageURI"]) == ("7", SEVEN.package_uri)
    assert status["url"] == "http://digits-serve-svc.ml.svc:8000/digits"
    assert "servingVersion" not in status


def test_a_version_is_proven_by_what_the_front_answers_and_by_nothing_else() -> None:
    cluster = Cluster()
    cluster.step()
    ready = {"type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": ""}
    cluster.kuberay(
        conditions=[ready],
        activeServiceStatus={"applicationStatuses": {"digits": {"status": "RUNNING", "message": ""}}},
    )
    cluster.step(20, answers=FrontAnswers(endpoints=1, problem="http://10.1.1.1 answered 503"))
    assert cluster.said("Available") == ("False", "NothingAnswers")
    assert cluster.said("Progressing") == ("True", "WaitingForReplicas")
    assert "answered 503" in cluster.message("Progressing")
    cluster.step(answers=cluster.answering("7"))
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")
    assert cluster.said("Progressing") == ("False", "Complete")
    assert cluster.seen.status["servingVersion"] == "7"
    assert cluster.seen.status["answeringReplicas"] == 1
    assert cluster.seen.status["message"] == ""
    assert cluster.reasons() == ["Deploying", "Deployed"]


def test_every_replica_must_answer_not_one_of_them_twice() -> None:
    cluster = Cluster({"replicas": 3})
    cluster.step()
    cluster.step(answers=cluster.answering("7", 2))
    assert cluster.said("Available") == ("False", "TooFewReplicas")
    assert cluster.message("Progressing") == "waiting for replicas to answer with version 7 (2 of 3)"
    assert (cluster.seen.status["answeringReplicas"], cluster.seen.status["replicas"]) == (2, 3)
    cluster.step(answers=cluster.answering("7", 3))
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")


def test_a_quiet_deployment_is_never_written_to() -> None:
    cluster = serving()
    before, applies, events = cluster.seen.status, cluster.applies, len(cluster.events)
    for _ in range(60):
        made = cluster.step(30)
        assert made.actions == ()
        assert made.again_after_seconds is None
    assert cluster.seen.status == before
    assert (cluster.applies, len(cluster.events)) == (applies, events)


def test_a_restarted_operator_writes_nothing_before_it_has_asked() -> None:
    cluster = serving()
    before = cluster.seen.status
    made = cluster.step(answers=None, resolution=None)
    assert made.actions == ()
    assert made.status == before


# hot swaps


def test_a_moved_alias_changes_serve_config_and_not_the_cluster() -> None:
    cluster = serving()
    before = cluster.seen.ray_service
    made = cluster.step(resolution=Resolution(EIGHT))
    after = cluster.seen.ray_service
    assert before is not None
    assert after is not None
    assert after["spec"]["rayClusterConfig"] == before["spec"]["rayClusterConfig"]
    assert after["spec"]["serveConfigV2"] != before["spec"]["serveConfigV2"]
    assert Tell("Deploying", "version 8 replaces version 7") in made.actions


def test_while_the_new_version_loads_the_old_one_is_what_serves() -> None:
    cluster = loading()
    old = FrontStatus("r0", "old", "7", "8", None, cluster.config_id)
    cluster.step(answers=FrontAnswers((old,), 1))
    assert cluster.said("Progressing") == ("True", "LoadingVersion")
    assert cluster.said("Available") == ("False", "OtherVersionAnswers")
    assert cluster.seen.status["servingVersion"] == "7"
    assert cluster.seen.status["wantedVersion"] == "8"
    assert cluster.seen.status["answeringReplicas"] == 0
    cluster.step(answers=cluster.answering("8"))
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")
    assert cluster.events[-1] == Tell("Deployed", "version 8 answers from 1 replica")


def test_a_load_that_fails_keeps_the_old_version_and_says_why_in_the_fronts_own_words() -> None:
    cluster = loading()
    failed = cluster.status("7", config_id="old", error=LOAD_ERROR)
    made = cluster.step(answers=FrontAnswers((failed,), 1))
    assert cluster.said("Progressing") == ("False", "LoadFailed")
    assert cluster.message("Progressing") == LOAD_ERROR
    assert cluster.seen.status["servingVersion"] == "7"
    assert cluster.seen.status["message"] == LOAD_ERROR
    assert Tell("LoadFailed", LOAD_ERROR, "Warning") in made.actions
    assert state_of(cluster.seen.status) == "failed"


def test_a_failure_is_told_once() -> None:
    cluster = loading()
    failed = FrontAnswers((cluster.status("7", config_id="old", error=LOAD_ERROR),), 1)
    for _ in range(5):
        cluster.step(answers=failed)
    assert cluster.reasons().count("LoadFailed") == 1


def test_the_error_of_another_configuration_is_not_this_ones() -> None:
    cluster = loading()
    stale = FrontStatus("r0", "old", "7", None, "version 6 could not be loaded: gone", "an older one")
    cluster.step(answers=FrontAnswers((stale,), 1))
    assert cluster.said("Progressing") == ("True", "WaitingForReplicas")


def test_a_failed_load_is_tried_again_with_another_configuration_less_and_less_often() -> None:
    cluster = loading()
    waits, ids = [], [cluster.config_id]
    for _ in range(7):
        cluster.step(1, answers=FrontAnswers((cluster.status("7", config_id="old", error=LOAD_ERROR),), 1))
        waited, before = 1, cluster.config_id
        while cluster.config_id == before:
            waited += 10
            cluster.step(10)
        waits.append(waited)
        ids.append(cluster.config_id)
    assert [round(wait, -1) for wait in waits] == [60, 120, 240, 480, 960, 1800, 1800]
    assert [config_id.rpartition("-")[2] for config_id in ids] == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert len({config_id.rpartition("-")[0] for config_id in ids}) == 1
    assert "Retrying" in cluster.reasons()


def test_a_plan_that_waits_for_a_retry_says_when() -> None:
    cluster = loading()
    made = cluster.step(answers=FrontAnswers((cluster.status("7", config_id="old", error=LOAD_ERROR),), 1))
    assert made.again_after_seconds == 60


def test_a_failure_waits_its_whole_time_also_when_something_else_was_wrong_before() -> None:
    cluster = loading()
    cluster.edit(model={"name": "digits"})  # neither a version nor an alias
    cluster.step()
    assert cluster.said("Progressing") == ("False", "NotAccepted")
    cluster.edit(model={"name": "digits", "alias": "champion"})
    failed = FrontAnswers((cluster.status("7", config_id="old", error=LOAD_ERROR),), 1)
    made = cluster.step(3600, answers=failed)
    assert cluster.said("Progressing") == ("False", "LoadFailed")
    assert made.again_after_seconds == 60
    assert not [action for action in cluster.step(30).actions if isinstance(action, Apply)]
    assert [action for action in cluster.step(31).actions if isinstance(action, Apply)]


def test_a_retry_that_loads_is_a_success() -> None:
    cluster = loading()
    cluster.step(answers=FrontAnswers((cluster.status("7", config_id="old", error=LOAD_ERROR),), 1))
    cluster.step(61)
    assert cluster.said("Progressing")[0] == "True"
    cluster.step(answers=cluster.answering("8"))
    assert cluster.said("Progressing") == ("False", "Complete")
    assert cluster.config_id.endswith("-2")
    assert cluster.step(3600).actions == (), "the try stays what it is"


def test_a_failure_stays_one_while_serve_starts_the_replica_again() -> None:
    cluster = loading()
    cluster.step(answers=FrontAnswers((cluster.status("7", config_id="old", error=LOAD_ERROR),), 1))
    again = FrontStatus("r1", None, None, "8", None, cluster.config_id)
    cluster.step(answers=FrontAnswers((again,), 1))
    assert cluster.said("Progressing") == ("False", "LoadFailed")


def test_a_better_version_ends_a_failure_at_once() -> None:
    cluster = loading()
    cluster.step(answers=FrontAnswers((cluster.status("7", config_id="old", error=LOAD_ERROR),), 1))
    nine = StableVersion("9", "s3://models/packages/9", "9" * 64)
    cluster.step(resolution=Resolution(nine))
    assert cluster.said("Progressing")[0] == "True"
    cluster.step(answers=cluster.answering("9"))
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")


def test_the_retry_annotation_is_another_wish_for_the_same_version() -> None:
    cluster = loading()
    cluster.step(answers=FrontAnswers((cluster.status("7", config_id="old", error=LOAD_ERROR),), 1))
    before = cluster.config_id
    metadata = dict(cluster.seen.obj["metadata"]) | {"annotations": {RETRY_ANNOTATION: "run-2"}}
    cluster.step(1, obj=dict(cluster.seen.obj) | {"metadata": metadata})
    assert cluster.config_id.rpartition("-")[0] != before.rpartition("-")[0]
    assert cluster.said("Progressing")[0] == "True"


# the registry


def test_the_registry_being_down_is_a_condition_and_what_is_served_goes_on() -> None:
    cluster = serving()
    cluster.step(resolution=Resolution(unreachable="MLflow at http://mlflow:5000 does not answer: refused"))
    assert cluster.said("MLflowReachable") == ("False", "Unreachable")
    assert cluster.said("Resolved") == ("True", "Resolved")
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")
    assert cluster.seen.status["wantedVersion"] == "7"
    assert cluster.reasons()[-1] == "Unreachable"
    cluster.step(resolution=Resolution(SEVEN))
    assert cluster.said("MLflowReachable") == ("True", "Answers")


def test_with_the_registry_down_replicas_are_changed_all_the_same() -> None:
    cluster = serving()
    cluster.edit(replicas=2)
    cluster.step(resolution=Resolution(unreachable="refused"))
    assert '"num_replicas":2' in cluster.seen.ray_service["spec"]["serveConfigV2"]  # type: ignore[index]


def test_with_the_registry_down_an_unknown_version_is_waited_for() -> None:
    cluster = Cluster()
    made = cluster.step(resolution=Resolution(unreachable="MLflow does not answer"))
    assert not [action for action in made.actions if isinstance(action, Apply)]
    assert cluster.said("Resolved") == ("Unknown", "MLflowUnreachable")
    assert cluster.said("Progressing") == ("False", "NotResolved")
    assert cluster.seen.status["message"] == "MLflow does not answer"


def test_a_version_that_is_not_there_is_told_and_what_is_served_goes_on() -> None:
    cluster = serving()
    cluster.step(resolution=Resolution(missing="MLflow has no model 'digits', alias 'champion'; register it"))
    assert cluster.said("Resolved") == ("False", "NotFound")
    assert cluster.message("Resolved").endswith("; version 7 is served still")
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")
    assert cluster.applies == 1


def test_another_model_is_never_taken_for_the_one_that_is_served() -> None:
    cluster = serving()
    cluster.edit(model={"name": "cats", "alias": "champion"})
    cluster.step(resolution=None)
    assert cluster.applies == 1
    assert cluster.said("Resolved") == ("Unknown", "Asking")
    cluster.step(resolution=Resolution(EIGHT))
    assert cluster.applies == 2


# specs that cannot be carried out


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"model": {"name": "digits"}}, "both or neither of version and alias: give exactly one"),
        ({"model": {"name": "digits", "version": "1", "alias": "a"}}, "give exactly one"),
        ({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "minReplicas 3 above maxReplicas 2"),
        (
            {"replicas": 3, "workers": 1},
            "3 replicas of 1 CPU do not fit: there is room for 2 in the head (1 CPU, 3Gi) and 1 workers",
        ),
        ({"resources": {"gpus": 0.5}}, "1 replicas of 1 CPU and 0.5 GPU do not fit"),
        ({"resources": {"memoryBytes": 8 * 2**30}}, "1 replicas of 1 CPU and 8 GiB of memory do not fit"),
        ({"autoscaling": {"maxReplicas": 5}, "workers": 2}, "5 replicas of 1 CPU do not fit"),
        ({"pods": {"environment": [{"name": "RAY_AUTH_TOKEN", "value": "x"}]}}, "sets RAY_AUTH_TOKEN"),
        ({"pods": {"sharedMemory": "4Gi"}}, "takes all of spec.pods.head.memory (3Gi)"),
        ({"replicas": 0}, "spec.replicas: Input should be greater than or equal to 1"),
        ({"replica": 2}, "spec.replica: Extra inputs are not permitted"),
    ],
)
def test_a_spec_that_cannot_be_carried_out_is_refused_with_what_to_do(spec: dict[str, Any], says: str) -> None:
    cluster = Cluster(spec)
    made = cluster.step()
    assert not [action for action in made.actions if isinstance(action, Apply)]
    assert cluster.said("Accepted") == ("False", "InvalidSpec")
    assert says in cluster.message("Accepted")
    assert cluster.seen.status["message"] == cluster.message("Accepted")
    assert cluster.reasons() == ["InvalidSpec"]
    assert state_of(cluster.seen.status) == "refused"


def test_without_any_image_it_is_said_where_to_name_one() -> None:
    cluster = Cluster()
    cluster.step(image="")
    assert "set spec.pods.image, or start the operator with --runtime-image" in cluster.message("Accepted")


def test_a_bad_edit_leaves_the_endpoint_alone_and_mending_it_recovers() -> None:
    cluster = serving()
    cluster.edit(replicas=50, workers=1)
    cluster.step()
    assert cluster.said("Accepted") == ("False", "InvalidSpec")
    assert cluster.said("Progressing") == ("False", "NotAccepted")
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")
    assert cluster.applies == 1
    cluster.edit(replicas=1, workers=0)
    cluster.step()
    assert cluster.said("Accepted") == ("True", "Accepted")
    assert cluster.said("Progressing") == ("False", "Complete")
    assert cluster.seen.status["observedGeneration"] == 3


def test_a_name_that_kuberay_would_refuse_is_refused_first() -> None:
    cluster = Cluster()
    cluster.step(obj=deployment(metadata={"name": "9digits"}))
    assert "'9digits' cannot be a RayService's" in cluster.message("Accepted")


# KubeRay


def test_an_application_that_serve_cannot_start_is_a_failure_once_kuberay_has_had_time_to_see_it() -> None:
    cluster = Cluster()
    cluster.step()
    failed = {"status": "DEPLOY_FAILED", "message": "Traceback\nImportError: no module named headrace"}
    cluster.kuberay(pendingServiceStatus={"applicationStatuses": {"digits": failed}})
    cluster.step(2)
    assert cluster.said("Progressing")[0] == "True", "it may be the old configuration's"
    cluster.step(10)
    assert cluster.said("Progressing") == ("False", "DeployFailed")
    assert cluster.message("Progressing") == "ImportError: no module named headrace"


def test_what_kuberay_says_of_a_generation_before_is_not_believed() -> None:
    cluster = loading()
    failed = {"status": "DEPLOY_FAILED", "message": "old"}
    cluster.kuberay(observedGeneration=1, activeServiceStatus={"applicationStatuses": {"digits": failed}})
    cluster.step(15, answers=FrontAnswers((cluster.status("7", config_id="old"),), 1))
    assert cluster.said("Progressing")[0] == "True"


def test_a_configuration_that_kuberay_does_not_take_up_is_told() -> None:
    cluster = loading()
    cluster.kuberay(observedGeneration=1)
    cluster.step(31, answers=FrontAnswers((cluster.status("7", config_id="old"),), 1))
    assert cluster.said("Progressing") == ("True", "WaitingForKubeRay")
    assert cluster.reasons()[-1] == "WaitingForKubeRay"


def test_a_rayservice_that_kuberay_refuses_is_told_in_its_words() -> None:
    cluster = Cluster()
    cluster.step()
    refused = {"type": "Ready", "status": "False", "reason": "ValidationFailed", "message": "bad head"}
    cluster.kuberay(conditions=[refused])
    cluster.step(11)
    assert cluster.message("Progressing") == "KubeRay refuses the RayService: bad head"


def test_a_rayservice_that_kuberay_gave_up_is_made_anew() -> None:
    cluster = serving()
    given_up = {"type": "Ready", "status": "False", "reason": "InitializingTimeout", "message": ""}
    cluster.kuberay(conditions=[given_up])
    made = cluster.step()
    assert Delete(RAY_SERVICE, "ml", "digits", "s1") in made.actions
    cluster.step()
    assert cluster.applies == 2


def test_a_rayservice_that_somebody_deleted_is_made_anew() -> None:
    cluster = serving()
    cluster.step(ray_service=None)
    assert cluster.applies == 2


def test_a_rayservice_that_somebody_edited_is_set_right_and_defaults_are_left_alone() -> None:
    cluster = serving()
    service = json.loads(json.dumps(cluster.seen.ray_service))
    service["spec"]["upgradeStrategy"] = {"type": "NewCluster"}
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["serviceType"] = "ClusterIP"
    assert cluster.step(ray_service=service).actions == (), "others' fields are others'"
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = "64"
    cluster.step(ray_service=service)
    assert cluster.applies == 2


def test_a_rayservice_that_is_anothers_is_never_touched() -> None:
    cluster = serving()
    foreign = json.loads(json.dumps(cluster.seen.ray_service))
    del foreign["metadata"]["ownerReferences"]
    fresh = Cluster()
    made = fresh.step(ray_service=foreign)
    assert [action for action in made.actions if not isinstance(action, Tell)] == []
    assert fresh.said("Progressing") == ("False", "NameTaken")
    assert fresh.message("Progressing") == (
        "RayService digits is there and belongs to nobody: delete it, or use another name"
    )
    assert "rayServiceName" not in fresh.seen.status
    assert fresh.reasons() == ["NameTaken"]


def test_a_deployment_that_was_deleted_and_made_anew_waits_until_the_old_rayservice_is_gone() -> None:
    cluster = serving()
    old = json.loads(json.dumps(cluster.seen.ray_service))
    old["metadata"]["ownerReferences"][0]["uid"] = "u0"
    fresh = Cluster()
    fresh.step(ray_service=old)
    assert (fresh.applies, fresh.said("Progressing")) == (0, ("True", "WaitingForDeletion"))
    fresh.step(ray_service=None)
    assert fresh.applies == 1


def test_without_kuberay_it_says_so_and_makes_nothing() -> None:
    cluster = Cluster()
    cluster.step(kuberay=False)
    assert cluster.applies == 0
    assert cluster.said("Progressing") == ("True", "KubeRayMissing")
    cluster.step(kuberay=True)
    assert cluster.applies == 1


def test_why_pods_do_not_run_is_told_in_words() -> None:
    cluster = Cluster()
    cluster.step()
    pod = {
        "metadata": {"name": "digits-head", "namespace": "ml", "uid": "p", "labels": {"ray.io/node-type": "head"}},
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no cpu"}
            ],
        },
    }
    cluster.step(pods=(pod,))
    assert cluster.said("Progressing") == ("True", "WaitingForPods")
    assert cluster.seen.status["message"] == "the head's pod fits on no node: 0/3 nodes: no cpu"
    assert cluster.reasons()[-1] == "WaitingForPods"


def test_pods_that_are_refused_are_told_in_the_api_servers_words() -> None:
    cluster = Cluster()
    cluster.step()
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": "exceeded quota"}
    cluster.step(ray_clusters=({"metadata": {"name": "c"}, "status": {"conditions": [failure]}},))
    assert cluster.message("Progressing") == "pods cannot be made: exceeded quota"


# replicas, clusters, losses


def test_a_changed_cluster_is_proven_by_answers_of_the_new_one() -> None:
    cluster = serving()
    old = cluster.answering("7")
    cluster.edit(pods={"head": {"cpu": "2"}})
    cluster.step()
    cluster.step(answers=old)
    assert cluster.said("Progressing")[0] == "True", "the old cluster answers still"
    assert cluster.said("Available") == ("True", "AllReplicasAnswer"), "and with the version that is wanted"
    cluster.step(answers=cluster.answering("7"))
    assert cluster.said("Progressing") == ("False", "Complete")


def test_a_lost_replica_is_seen_and_its_return_too() -> None:
    cluster = serving({"replicas": 2}, replicas=2)
    cluster.step(answers=cluster.answering("7", 1))
    assert cluster.said("Available") == ("False", "TooFewReplicas")
    cluster.step(answers=cluster.answering("7", 2))
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")


def test_an_endpoint_that_is_lost_serves_nothing() -> None:
    cluster = serving()
    cluster.step(answers=FrontAnswers())
    assert cluster.said("Available") == ("False", "NoEndpoints")
    assert "servingVersion" not in cluster.seen.status
    assert cluster.seen.status["wantedVersion"] == "7"


def test_of_several_versions_the_one_that_most_replicas_name_is_the_one_that_serves() -> None:
    cluster = serving({"replicas": 3}, replicas=3)
    mixed = [cluster.status(version, f"r{n}") for n, version in enumerate(("7", "8", "8"))]
    cluster.step(answers=FrontAnswers(tuple(mixed), 1))
    assert cluster.seen.status["servingVersion"] == "8"
    assert cluster.message("Available") == "wanted is version 7; 7, 8 answers"


def test_where_serve_chooses_the_number_as_many_as_answer_are_right_within_its_bounds() -> None:
    cluster = Cluster({"autoscaling": {"minReplicas": 1, "maxReplicas": 4}})
    cluster.step()
    cluster.step(answers=cluster.answering("7", 3))
    assert cluster.said("Available") == ("True", "AllReplicasAnswer")
    assert cluster.seen.status["replicas"] == 3
    mixed = FrontAnswers((*cluster.answering("7", 2).statuses, cluster.status("7", "r9", config_id="old")), 1)
    cluster.step(answers=mixed)
    assert cluster.said("Progressing")[0] == "True"


def test_conditions_carry_the_generation_and_the_time_of_their_last_turn() -> None:
    cluster = serving()
    first = find(cluster.seen.status["conditions"], "Available")
    cluster.edit(replicas=1)
    cluster.step(500)
    again = find(cluster.seen.status["conditions"], "Available")
    assert first is not None
    assert again is not None
    assert again["lastTransitionTime"] == first["lastTransitionTime"]
    assert (first["observedGeneration"], again["observedGeneration"]) == (1, 2)


# whatever happens, in whatever order

VERSIONS = [StableVersion(str(n), f"s3://models/packages/{n}", str(n) * 64) for n in (7, 8, 9)]
RESOLUTIONS = st.sampled_from(
    [*map(Resolution, VERSIONS), Resolution(missing="no"), Resolution(unreachable="down"), None]
)
EDITS = st.sampled_from(
    [
        {"replicas": 1},
        {"replicas": 2},
        {"replicas": 0},
        {"pods": {"head": {"cpu": "2"}}},
        {"autoscaling": {"maxReplicas": 3}},
        {"autoscaling": None},
        {"model": {"name": "digits", "version": "8"}},
        {"model": {"name": "digits", "alias": "champion"}},
        {"model": {"name": "digits"}},
    ]
)
REPLICAS = st.builds(
    lambda name, stable, error, current: (name, stable, error, current),
    st.sampled_from("abc"),
    st.sampled_from(["7", "8", "9", None]),
    st.sampled_from([None, None, "it could not be loaded"]),
    st.booleans(),
)
EVENTS = st.one_of(
    st.tuples(st.just("resolution"), RESOLUTIONS),
    st.tuples(st.just("edit"), EDITS),
    st.tuples(st.just("answers"), st.one_of(st.none(), st.lists(REPLICAS, max_size=3))),
    st.tuples(st.just("wait"), st.integers(1, 4000)),
    st.tuples(st.just("lost"), st.none()),
)


def happen(cluster: Cluster, what: str, value: Any) -> Plan:
    if what == "resolution":
        return cluster.step(resolution=value)
    if what == "edit":
        cluster.edit(**value)
        return cluster.step()
    if what == "wait":
        return cluster.step(value)
    if what == "lost":
        return cluster.step(ray_service=None)
    if value is None:
        return cluster.step(answers=None)
    live = live_of(cluster.seen.ray_service, "digits")
    newest = live.config.config_id if live is not None else "none"
    found = {
        name: FrontStatus(name, newest if now else "old", stable, None, error, newest)
        for name, stable, error, now in value
    }
    return cluster.step(answers=FrontAnswers(tuple(found.values()), 1))


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_whatever_happens_nothing_false_is_said_and_nothing_is_written_twice(events: list[tuple[str, Any]]) -> None:
    cluster = Cluster()
    for what, value in events:
        happen(cluster, what, value)
        answers, status = cluster.seen.answers, cluster.seen.status
        if answers is not None and cluster.said("Available")[0] == "True":
            assert answers.statuses
            assert {each.stable for each in answers.statuses} == {status["wantedVersion"]}
        if answers is not None and cluster.said("Progressing")[1] == "Complete":
            assert {each.config_id for each in answers.statuses} == {status["configID"]}
        if answers is not None and status.get("servingVersion"):
            assert status["servingVersion"] in {each.stable for each in answers.statuses}
        again = cluster.step(0)
        assert not [action for action in again.actions if not isinstance(action, Tell)], "applied twice"
        third = cluster.step(0)
        assert third.actions == (), "told twice"
        assert third.status == again.status
