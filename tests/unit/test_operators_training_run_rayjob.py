"""The RayJob of an attempt: what KubeRay, Pod Security, Kueue and the driver each need of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.training_run import TrainingRunSpec
from headrace_operators.training_run.rayjob import Attempt, job_name, ray_job

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "training_run_rayjob.json"
CRD = HERE.parent / "kubernetes" / "testbed" / "crds" / "kuberay-1.7" / "ray.io_rayjobs.yaml.gz"
RUN = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "TrainingRun",
    "metadata": {"name": "digits", "namespace": "team", "uid": "0f0e"},
}
SPEC: dict[str, Any] = {
    "tasks": [{"name": "image-classification"}],
    "model": {"name": "convnet"},
    "manifestURI": "s3://bucket/splits/abc",
    "store": {"uri": "s3://bucket/prefix", "secretName": "bucket-keys"},
    "mlflow": {"trackingURI": "http://mlflow:5000", "secretName": "mlflow-token"},
}
EVERYTHING: dict[str, Any] = SPEC | {
    "runID": "digits-abcd1234",
    "runAttempt": 2,
    "train": {"workers": {"min": 2, "max": 4}, "gpusPerWorker": 2, "resources": {"cpusPerWorker": 7}},
    "pods": {
        "image": "registry.example/headrace:1",
        "imagePullPolicy": "Always",
        "imagePullSecrets": ["registry"],
        "serviceAccountName": "trainer",
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "high",
        "sharedMemory": "8Gi",
        "environment": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "HEADRACE_RUN_ID", "value": "mine"}],
        "worker": {"cpu": "8", "memory": "64Gi", "gpu": 2},
    },
    "authentication": {"secretName": "ray-token"},
    "queue": "gpus",
    "preRunningDeadlineSeconds": 600,
}


def made(spec: dict[str, Any], number: int = 1, **left: str) -> dict[str, Any]:
    return ray_job(RUN, TrainingRunSpec.model_validate(spec), Attempt(number, "headrace:latest", **left))


def templates(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = manifest["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


def environment(template: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in template["spec"]["containers"][0]["env"]}


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI schema of a CRD as a JSON Schema that refuses unknown fields, as strict validation does."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {name: value for name, value in schema.items() if name in ("type", "enum", "required", "pattern")}
    kept |= {name: schema[name] for name in ("minimum", "maximum", "maxLength", "maxItems") if name in schema}
    if "properties" in schema:
        kept["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        kept["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = strict(schema["items"])
    return kept


@pytest.fixture(scope="module")
def crd() -> jsonschema.Draft202012Validator:
    """KubeRay 1.7's schema of a RayJob's spec."""
    document = yaml.load(gzip.decompress(CRD.read_bytes()), yaml.CSafeLoader)
    (version,) = (version for version in document["spec"]["versions"] if version["name"] == "v1")
    return jsonschema.Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"]))


def test_the_manifest_is_the_one_that_was_agreed() -> None:
    made_now = json.dumps(made(EVERYTHING, 3, checkpoint_uri="s3://b/c/7", mlflow_run_id="m1"), indent=2) + "\n"
    if not GOLDEN.exists():
        GOLDEN.write_text(made_now)
        pytest.fail(f"{GOLDEN.name} was missing and is written: read it")
    assert made_now == GOLDEN.read_text(), f"if this change is meant, delete {GOLDEN.name} and run the test twice"


def test_one_ray_job_is_one_attempt_and_kuberay_makes_no_other() -> None:
    spec = made(SPEC)["spec"]
    assert (spec["submissionMode"], spec["backoffLimit"]) == ("HTTPMode", 0)
    assert (spec["shutdownAfterJobFinishes"], spec["preRunningDeadlineSeconds"]) == (True, 900)
    assert made(SPEC)["metadata"]["annotations"]["ray.io/disable-provisioned-head-restart"] == "true"


def test_the_longest_name_and_a_long_number_fit_into_kuberays_47_characters() -> None:
    assert len(job_name("a" * 40, 999_999)) == 47


def test_only_a_run_with_a_queue_begins_suspended() -> None:
    assert "suspend" not in made(SPEC)["spec"]
    queued = made(EVERYTHING)
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_every_template_has_our_labels_and_every_container_its_resources() -> None:
    labels = {
        "headrace.dev/training-run": "digits",
        "headrace.dev/attempt": "3",
        "headrace.dev/run-id": "digits-abcd1234",
    }
    for template in templates(made(EVERYTHING, 3)):
        assert template["metadata"]["labels"] == labels
        resources = template["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"] != {}


def test_every_pod_passes_the_strictest_pod_security_and_can_write_nothing_but_its_own() -> None:
    for template in templates(made(SPEC)):
        pod, (container,) = template["spec"], template["spec"]["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
        assert volumes[mounts["/dev/shm"]] == {"medium": "Memory", "sizeLimit": "1Gi"}
        assert volumes[mounts["/tmp"]] == {}


def test_no_training_worker_runs_in_the_head_and_one_in_each_worker() -> None:
    cluster = made(EVERYTHING)["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["rayStartParams"]["num-cpus"], workers["rayStartParams"]["num-gpus"]) == ("7", "2")
    assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (2, 4, 4)
    assert workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_a_head_that_dies_is_not_started_again_in_place() -> None:
    head, worker = templates(made(SPEC))
    assert (head["spec"]["restartPolicy"], worker["spec"]["restartPolicy"]) == ("Never", "Always")


def test_the_token_is_on_unless_it_was_switched_off() -> None:
    assert made(SPEC)["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert made(EVERYTHING)["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    off = made(SPEC | {"authentication": {"mode": "none"}})
    assert off["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "disabled"}


def test_the_driver_is_told_its_attempt_and_where_to_go_on() -> None:
    head, _ = templates(made(EVERYTHING, 3, checkpoint_uri="s3://b/c/7", mlflow_run_id="m1"))
    told = environment(head)
    assert (told["HEADRACE_ATTEMPT"], told["HEADRACE_RUN_ID"]) == ("2.3", "digits-abcd1234")
    assert (told["HEADRACE_CHECKPOINT_URI"], told["HEADRACE_MLFLOW_RUN_ID"]) == ("s3://b/c/7", "m1")
    assert json.loads(told["HEADRACE_TRAINING_RUN"]) == TrainingRunSpec.model_validate(EVERYTHING).to_record()


def test_a_first_attempt_is_told_of_no_checkpoint() -> None:
    told = environment(templates(made(SPEC))[0])
    assert "HEADRACE_CHECKPOINT_URI" not in told
    assert "HEADRACE_MLFLOW_RUN_ID" not in told


def test_nothing_in_the_spec_is_expanded_by_the_kubelet() -> None:
    head, _ = templates(made(SPEC | {"experiment": "$(HOME)"}))
    assert "$$(HOME)" in environment(head)["HEADRACE_TRAINING_RUN"]


def test_secrets_come_by_reference_and_mlflows_only_to_the_driver() -> None:
    head, worker = (template["spec"]["containers"][0]["envFrom"] for template in templates(made(SPEC)))
    assert head == [{"secretRef": {"name": "bucket-keys"}}, {"secretRef": {"name": "mlflow-token"}}]
    assert worker == [{"secretRef": {"name": "bucket-keys"}}]


def test_what_people_ask_of_pods_is_asked_of_all_of_them() -> None:
    for template in templates(made(EVERYTHING)):
        pod = template["spec"]
        assert (pod["nodeSelector"], pod["priorityClassName"]) == ({"disk": "ssd"}, "high")
        assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
        assert (pod["serviceAccountName"], pod["imagePullSecrets"]) == ("trainer", [{"name": "registry"}])
        assert environment(template)["NCCL_DEBUG"] == "INFO"


def test_a_run_without_a_run_id_gets_one_that_the_next_object_of_its_name_does_not() -> None:
    first = made(SPEC)["metadata"]["labels"]["headrace.dev/run-id"]
    other = {**RUN, "metadata": {**RUN["metadata"], "uid": "another"}}
    second = ray_job(other, TrainingRunSpec.model_validate(SPEC), Attempt(1, "i"))
    assert second["metadata"]["labels"]["headrace.dev/run-id"] != first


QUANTITIES = st.sampled_from(["500m", "1", "2", "1.5", "16"])
SIZES = st.sampled_from(["80M", "1Gi", "1.5Gi", "512Mi", "4000M"])
SPECS = st.fixed_dictionaries(
    {
        "train": st.builds(
            lambda low, more, gpus: {"workers": {"min": low, "max": low + more}, "gpusPerWorker": gpus},
            st.integers(1, 64),
            st.integers(0, 64),
            st.integers(0, 8),
        ),
        "pods": st.fixed_dictionaries(
            {
                "head": st.fixed_dictionaries({"cpu": QUANTITIES, "memory": SIZES}),
                "worker": st.fixed_dictionaries({"cpu": QUANTITIES, "memory": SIZES, "gpu": st.integers(0, 8)}),
                "sharedMemory": SIZES,
                "nodeSelector": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", ""])),
                "tolerations": st.lists(st.just({"operator": "Exists", "tolerationSeconds": 3}), max_size=2),
            }
        ),
        "authentication": st.sampled_from([{}, {"mode": "none"}, {"secretName": "s"}]),
        "runAttempt": st.integers(1, 10**6),
    },
    optional={"queue": st.just("gpus"), "experiment": st.text("aé$(){}\"'\\\n", min_size=1)},
)


@given(spec=SPECS, number=st.integers(1, 999_999))
def test_every_ray_job_is_valid_under_kuberay_1_7(
    crd: jsonschema.Draft202012Validator, spec: dict[str, Any], number: int
) -> None:
    manifest = made(SPEC | spec, number)
    crd.validate(json.loads(json.dumps(manifest["spec"])))
    for template in templates(manifest):
        pod, (container,) = template["spec"], template["spec"]["containers"]
        for named in (pod["volumes"], container["volumeMounts"], container["env"], container["ports"]):
            names = [entry["name"] for entry in named]
            assert len(names) == len(set(names))


def test_the_check_against_kuberay_1_7_sees_a_field_that_is_not_there(crd: jsonschema.Draft202012Validator) -> None:
    spec = made(SPEC)["spec"] | {"submissionMood": "cheerful"}
    assert not crd.is_valid(spec)
