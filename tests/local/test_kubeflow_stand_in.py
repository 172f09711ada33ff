"""The stand-in of Kubeflow's API is held to what was seen of a real one (KUBEFLOW.md), by the real client where it can.

These tests prove nothing of Kubeflow; they prove that whoever is tested against the stand-in meets what Kubeflow did.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import kfp
import pytest
import yaml
from kfp_server_api import ApiException
from urllib3.exceptions import MaxRetryError

from headrace_pipelines import compiler
from headrace_testbed.waiting import eventually
from kfp_stand_in import Beats, Failed, KubeflowStandIn, Script, StepTask, World
from kfp_stand_in.script import Lost

pytestmark = pytest.mark.timeout(120)
QUICK = Beats(scale=0.002)


def small(retries: int = 0, budget: str = "3600s") -> str:
    """A pipeline of one step, as kfp compiles it."""
    task: dict[str, Any] = {
        "cachingOptions": {},
        "componentRef": {"name": "comp-train"},
        "inputs": {"parameters": {"epochs": {"componentInputParameter": "epochs"}}},
        "taskInfo": {"name": "train"},
    }
    if retries:
        task["retryPolicy"] = {
            "maxRetryCount": retries,
            "backoffDuration": "1s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": budget,
        }
    epochs = {"parameters": {"epochs": {"parameterType": "NUMBER_INTEGER"}}}
    component = {
        "executorLabel": "exec-train",
        "inputDefinitions": epochs,
        "outputDefinitions": {"parameters": {"Output": {"parameterType": "STRING"}}},
    }
    parameter = {"parameterType": "NUMBER_INTEGER", "defaultValue": 1.0, "isOptional": True}
    document = {
        "components": {"comp-train": component},
        "deploymentSpec": {"executors": {"exec-train": {"container": {"image": "python:3.11", "command": ["true"]}}}},
        "pipelineInfo": {"name": "small"},
        "root": {"dag": {"tasks": {"train": task}}, "inputDefinitions": {"parameters": {"epochs": parameter}}},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.17.0",
    }
    return yaml.safe_dump(document)


@pytest.fixture
def stand_in() -> Iterator[KubeflowStandIn]:
    with KubeflowStandIn(World(beats=QUICK)) as server:
        yield server


class Api:
    """The real client, and plain HTTP, on the stand-in."""

    def __init__(self, stand_in: KubeflowStandIn, folder: Path, **client: Any) -> None:
        self.stand_in = stand_in
        self.folder = folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.client = kfp.Client(host=stand_in.url, namespace=client.pop("namespace", ""), **client)
        self.http = httpx.Client(base_url=f"{stand_in.url}/apis/v2beta1", trust_env=False)

    def upload(self, text: str, name: str = "small") -> tuple[str, str]:
        (self.folder / "p.yaml").write_text(text)
        with redirect_stdout(io.StringIO()):
            made = self.client.upload_pipeline(str(self.folder / "p.yaml"), name)
        versions = self.client.list_pipeline_versions(made.pipeline_id).pipeline_versions
        return made.pipeline_id, versions[0].pipeline_version_id

    def run(self, text: str, **arguments: Any) -> str:
        pipeline, version = self.upload(text)
        with redirect_stdout(io.StringIO()):
            experiment = self.client.create_experiment("e").experiment_id
            made = self.client.run_pipeline(experiment, "r", pipeline_id=pipeline, version_id=version, params=arguments)
        return str(made.run_id)

    def shown(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/runs/{run_id}").json()
        return found

    def ended(self, run_id: str) -> dict[str, Any]:
        assert self.stand_in.life(run_id).wait(60)
        return self.shown(run_id)


@pytest.fixture
def api(stand_in: KubeflowStandIn, tmp_path: Path) -> Api:
    return Api(stand_in, tmp_path)


until = partial(eventually, seconds=60, pause_seconds=0.01)


def states(run: Mapping[str, Any]) -> list[str]:
    return [entry["state"] for entry in run["state_history"]]


# facts 1 and 2: retries


def failing_once(task: StepTask) -> None:
    if task.retry == 0:
        raise Failed(1)


def test_a_failing_program_is_not_tried_again_with_the_defaults_that_kubeflow_ships(api: Api) -> None:
    api.stand_in.world.work = script = Script(train=failing_once)
    assert api.ended(api.run(small(retries=3)))["state"] == "FAILED"
    assert [task.retry for task in script.done] == [0]


def test_it_is_tried_again_where_that_default_was_taken_out(api: Api) -> None:
    api.stand_in.world.retry_policy = "Always"
    api.stand_in.world.work = script = Script(train=failing_once)
    assert api.ended(api.run(small(retries=3)))["state"] == "SUCCEEDED"
    assert [task.retry for task in script.done] == [0, 1]


def test_a_budget_shorter_than_the_step_means_no_retry(api: Api) -> None:
    def slow(task: StepTask) -> None:
        time.sleep(1.1)
        raise Failed(1)

    api.stand_in.world.retry_policy = "Always"
    api.stand_in.world.work = script = Script(train=slow)
    assert api.ended(api.run(small(retries=3, budget="1s")))["state"] == "FAILED"
    assert len(script.done) == 1


def test_a_lost_pod_is_tried_again_also_with_the_defaults(api: Api) -> None:
    def lost_once(task: StepTask) -> None:
        if task.retry == 0:
            raise Lost

    api.stand_in.world.work = script = Script(train=lost_once)
    assert api.ended(api.run(small(retries=3)))["state"] == "SUCCEEDED"
    assert [task.retry for task in script.done] == [0, 1]


# facts 3, 4, 5, 6 and 12: what a run shows


def waiting(task: StepTask) -> None:
    task.stop.wait()
    raise Lost


def test_a_terminated_run_ends_failed_and_a_second_time_is_an_error(api: Api) -> None:
    api.stand_in.world.work = Script(train=waiting)
    run = api.run(small())
    until(lambda: api.shown(run)["state"] == "RUNNING")
    assert api.http.post(f"/runs/{run}:terminate").status_code == 200
    assert api.http.post(f"/runs/{run}:terminate").status_code == 400
    assert states(api.ended(run)) == ["PENDING", "RUNNING", "CANCELING", "FAILED"]
    assert api.http.post(f"/runs/{run}:terminate").status_code == 400


def test_why_a_run_failed_is_not_in_the_api(api: Api) -> None:
    api.stand_in.world.work = Script(train=failing_once)
    run = api.client.get_run(api.ended(api.run(small()))["run_id"])
    assert run.error is None
    assert all(task.error is None for task in run.run_details.task_details)


def test_a_missing_image_never_fails(api: Api) -> None:
    api.stand_in.world.missing_images = {"python:3.11"}
    run = api.run(small())
    until(lambda: any(t.get("state") == "PENDING" for t in api.shown(run)["run_details"]["task_details"]))
    time.sleep(0.3)
    shown = api.shown(run)
    assert shown["state"] == "RUNNING"
    executors = [t for t in shown["run_details"]["task_details"] if t.get("display_name", "").startswith("executor")]
    assert {task["state"] for task in executors} == {"PENDING"}


def test_the_task_details_are_no_list_of_tasks(api: Api) -> None:
    api.stand_in.world.work = Script(train=waiting)
    run = api.run(small())
    names = {"train", "train(0)", "train-driver", "executor", "executor(0)", "root", None}
    until(lambda: names <= {t.get("display_name") for t in api.shown(run)["run_details"]["task_details"]})
    details = api.shown(run)["run_details"]["task_details"]
    assert next(t for t in details if t.get("display_name") == "train")["end_time"].startswith("0001-")
    assert any("state" not in task for task in details)


# facts 7, 8 and 9: errors


def test_a_server_that_is_down_raises_urllib3s_error_in_the_constructor_and_in_calls(api: Api) -> None:
    run = api.run(small())
    api.stand_in.go_away()
    with pytest.raises(MaxRetryError) as raised:
        api.client.get_run(run)
    assert not isinstance(raised.value, ApiException)
    with pytest.raises(MaxRetryError):
        Api(api.stand_in, api.folder)
    api.stand_in.come_back()
    assert api.client.get_run(run).run_id == run


def test_errors_have_the_bodies_that_were_seen(api: Api) -> None:
    api.upload(small())
    unknown = api.http.get("/runs/nothing")
    assert unknown.status_code == 404
    assert {"code", "message", "details"} <= set(unknown.json())
    with pytest.raises(ApiException) as again:
        api.upload(small())
    assert again.value.status == 409
    assert "error_message" in again.value.body
    with pytest.raises(ValueError, match="No experiment is found"):
        api.client.get_experiment(experiment_name="nothing")
    assert api.client.get_pipeline_id("nothing") is None


def test_tokens_are_asked_for_and_so_are_roles(tmp_path: Path) -> None:
    world = World(beats=QUICK, multi_user=True, tokens={"good": {"team-a"}})
    with KubeflowStandIn(world) as stand_in:
        http = httpx.Client(base_url=f"{stand_in.url}/apis/v2beta1", trust_env=False)
        asked = {"params": {"namespace": "team-a"}}
        assert http.get("/healthz").json()["multi_user"] is True
        assert http.get("/experiments", **asked).status_code == 401
        assert http.get("/experiments", headers={"authorization": "Bearer bad"}, **asked).status_code == 401
        good = {"authorization": "Bearer good"}
        assert http.get("/experiments", headers=good, **asked).status_code == 200
        other = http.get("/experiments", headers=good, params={"namespace": "team-b"})
        assert other.status_code == 403
        assert "pipelines.kubeflow.org" in other.json()["message"]


# facts 10 and 11, and validation without running


def test_arguments_are_judged_as_leniently_as_by_kubeflow(api: Api) -> None:
    pipeline, version = api.upload(small())
    experiment = api.client.create_experiment("e").experiment_id

    def answered(**arguments: Any) -> int:
        body = {
            "experiment_id": experiment,
            "display_name": "r",
            "pipeline_version_reference": {"pipeline_id": pipeline, "pipeline_version_id": version},
            "runtime_config": {"parameters": arguments},
        }
        return api.http.post("/runs", json=body).status_code

    assert answered(epoch=1) == 400
    assert answered(epochs="one") == 400
    assert answered(epochs=2.5) == 200


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], int, int]] = {
    "unknown field": (lambda ir: ir.update(unheard="of"), 400, 500),
    "bad parameter type": (
        lambda ir: ir["root"]["inputDefinitions"]["parameters"]["epochs"].update(parameterType="INTEGRAL"),
        400,
        500,
    ),
    "no pipelineInfo": (lambda ir: ir.pop("pipelineInfo"), 400, 500),
    "no schemaVersion": (lambda ir: ir.pop("schemaVersion"), 400, 500),
    "other schemaVersion": (lambda ir: ir.update(schemaVersion="1.0.0"), 400, 500),
    "bad pipeline name": (lambda ir: ir["pipelineInfo"].update(name="Small_One"), 400, 500),
    "component missing": (lambda ir: ir["components"].pop("comp-train"), 200, 500),
    "executor missing": (lambda ir: ir["deploymentSpec"]["executors"].pop("exec-train"), 200, 500),
    "unknown producer": (
        lambda ir: ir["root"]["dag"]["tasks"]["train"].update(
            inputs={"parameters": {"epochs": {"taskOutputParameter": {"producerTask": "x", "outputParameterKey": "y"}}}}
        ),
        200,
        500,
    ),
    "unknown dependency": (lambda ir: ir["root"]["dag"]["tasks"]["train"].update(dependentTasks=["x"]), 200, 500),
    "cycle": (lambda ir: ir["root"]["dag"]["tasks"]["train"].update(dependentTasks=["train"]), 200, 500),
    "no image": (
        lambda ir: ir["deploymentSpec"]["executors"]["exec-train"]["container"].pop("image"),
        200,
        200,
    ),
    "required input not wired": (lambda ir: ir["root"]["dag"]["tasks"]["train"].pop("inputs"), 200, 200),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_pipelines_are_refused_where_kubeflow_refused_them(api: Api, fault: str) -> None:
    spoil, upload, create = BROKEN[fault]
    ir = yaml.safe_load(small())
    spoil(ir)
    text = yaml.safe_dump(ir)
    file = {"uploadfile": ("p.yaml", text)}
    assert api.http.post("/pipelines/upload", params={"name": "broken"}, files=file).status_code == upload
    version = {"pipeline_version_id": "v", "pipeline_id": "p", "display_name": "v"}
    api.stand_in.world.versions["v"] = version  # past the upload, as one of an older server is
    api.stand_in.world.texts["v"] = text
    experiment = api.client.create_experiment("e").experiment_id
    body = {"experiment_id": experiment, "display_name": "r", "pipeline_version_reference": version}
    assert api.http.post("/runs", json=body).status_code == create


def test_our_own_pipeline_is_taken(api: Api) -> None:
    run = api.run(compiler.compiled(), split_spec="s", train_spec="t", register_spec="r", deploy_spec="d")
    assert api.ended(run)["state"] == "SUCCEEDED"


# lists and schedules


def test_lists_come_in_pages(api: Api) -> None:
    for number in range(5):
        api.http.post("/experiments", json={"display_name": f"e{number}"})
    first = api.http.get("/experiments", params={"page_size": 2}).json()
    second = api.http.get("/experiments", params={"page_size": 2, "page_token": first["next_page_token"]}).json()
    third = api.http.get("/experiments", params={"page_size": 2, "page_token": second["next_page_token"]}).json()
    names = [one["display_name"] for page in (first, second, third) for one in page["experiments"]]
    assert sorted(names) == [f"e{number}" for number in range(5)]
    assert "next_page_token" not in third
    assert first["total_size"] == 5


def test_a_schedule_makes_runs_unless_it_is_disabled(api: Api) -> None:
    pipeline, version = api.upload(small())
    experiment = api.client.create_experiment("e").experiment_id
    made = api.client.create_recurring_run(
        experiment, "nightly", cron_expression="0 0 2 * * *", pipeline_id=pipeline, version_id=version
    )
    run = api.stand_in.fire("nightly")
    assert run is not None
    assert run["recurring_run_id"] == made.recurring_run_id
    api.client.disable_recurring_run(made.recurring_run_id)
    assert api.client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    assert api.stand_in.fire("nightly") is None
    api.client.delete_recurring_run(made.recurring_run_id)
    assert not api.client.list_recurring_runs().recurring_runs
