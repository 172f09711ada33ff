"""The calls of the API by method and path, each a few lines on the stand-in's world."""

from __future__ import annotations

from kfp_stand_in import documents
from kfp_stand_in.answers import Problem, page
from kfp_stand_in.api import Api, Request, route
from kfp_stand_in.world import Record, new_id, now


@route("GET", "/healthz")
def healthz(api: Api, _: Request) -> Record:
    """Whether it is well."""
    return {"multi_user": api.world.multi_user, "pipeline_store": "database"}


# pipelines


@route("POST", "/pipelines/upload")
def upload_pipeline(api: Api, request: Request) -> Record:
    """A new pipeline with its first version."""
    namespace, name = request.query.get("namespace", ""), request.query.get("name", "")
    request.may(namespace)
    known = api.world.pipelines.values()
    if any(one["display_name"] == name and one["namespace"] == namespace for one in known):
        raise Problem(409, f"Already exist error: pipeline with name {name}", upload=True)
    _judge_upload(request.upload)
    record = {"pipeline_id": new_id(), "display_name": name, "name": name, "namespace": namespace, "created_at": now()}
    api.world.pipelines[record["pipeline_id"]] = record
    _add_version(api, record["pipeline_id"], name, request.upload)
    return record


@route("POST", "/pipelines/upload_version")
def upload_version(api: Api, request: Request) -> Record:
    """A new version of a pipeline."""
    pipeline = api.found(api.world.pipelines, request.query["pipelineid"], "Pipeline")
    request.may(pipeline["namespace"])
    name = request.query.get("name", "")
    if any(
        one["display_name"] == name and one["pipeline_id"] == pipeline["pipeline_id"]
        for one in api.world.versions.values()
    ):
        raise Problem(409, f"Already exist error: pipeline version with name {name}", upload=True)
    _judge_upload(request.upload)
    return _add_version(api, pipeline["pipeline_id"], name, request.upload)


def _judge_upload(text: str) -> None:
    try:
        documents.read(text)
    except documents.Unreadable as error:
        raise Problem(400, f"Failed to create a pipeline: {error}", upload=True) from error


def _add_version(api: Api, pipeline: str, name: str, text: str) -> Record:
    record = {
        "pipeline_id": pipeline,
        "pipeline_version_id": new_id(),
        "display_name": name,
        "name": name,
        "created_at": now(),
    }
    api.world.versions[record["pipeline_version_id"]] = record
    api.world.texts[record["pipeline_version_id"]] = text
    return record


@route("GET", "/pipelines")
def list_pipelines(api: Api, request: Request) -> Record:
    """The pipelines of a namespace."""
    namespace = request.query.get("namespace", "")
    request.may(namespace)
    found = [one for one in api.world.pipelines.values() if one["namespace"] == namespace]
    return page(found, "pipelines", request.query, api.world.largest_page)


@route("GET", "/pipelines/names/{name}")
def pipeline_by_name(api: Api, request: Request) -> Record:
    """A pipeline by its name."""
    for one in api.world.pipelines.values():
        if one["display_name"] == request.path["name"]:
            return one
    raise Problem(404, f"Pipeline {request.path['name']} not found")


@route("GET", "/pipelines/{pipeline}/versions")
def list_versions(api: Api, request: Request) -> Record:
    """The versions of a pipeline."""
    pipeline = api.found(api.world.pipelines, request.path["pipeline"], "Pipeline")
    request.may(pipeline["namespace"])
    found = [one for one in api.world.versions.values() if one["pipeline_id"] == request.path["pipeline"]]
    return page(found, "pipeline_versions", request.query, api.world.largest_page)


# experiments


@route("POST", "/experiments")
def create_experiment(api: Api, request: Request) -> Record:
    """A new experiment."""
    namespace = str(request.body.get("namespace") or "")
    request.may(namespace)
    record = {**request.body, "experiment_id": new_id(), "namespace": namespace, "created_at": now()}
    api.world.experiments[record["experiment_id"]] = record
    return record


@route("GET", "/experiments")
def list_experiments(api: Api, request: Request) -> Record:
    """The experiments of a namespace."""
    namespace = request.query.get("namespace", "")
    request.may(namespace)
    found = [one for one in api.world.experiments.values() if one["namespace"] == namespace]
    return page(found, "experiments", request.query, api.world.largest_page)


# runs


@route("POST", "/runs")
def create_run(api: Api, request: Request) -> Record:
    """A new run."""
    request.may(api.namespace_of(request.body))
    return api.new_run(request.body)


@route("GET", "/runs")
def list_runs(api: Api, request: Request) -> Record:
    """The runs of an experiment or a namespace."""
    experiment, namespace = request.query.get("experiment_id"), request.query.get("namespace", "")
    request.may(api.world.namespace_of_experiment(experiment) if experiment else namespace)
    found = [
        one
        for one in api.world.runs.values()
        if (one["experiment_id"] == experiment if experiment else api.namespace_of(one) == namespace)
    ]
    return page(found, "runs", request.query, api.world.largest_page)


@route("GET", "/runs/{run}")
def get_run(api: Api, request: Request) -> Record:
    """One run."""
    record = api.found(api.world.runs, request.path["run"], "Run")
    request.may(api.namespace_of(record))
    return record


@route("DELETE", "/runs/{run}")
def delete_run(api: Api, request: Request) -> Record:
    """No such run any more."""
    record = api.found(api.world.runs, request.path["run"], "Run")
    request.may(api.namespace_of(record))
    del api.world.runs[request.path["run"]]
    return {}


@route("POST", "/runs/{run}:terminate")
def terminate_run(api: Api, request: Request) -> Record:
    """End it; a second time is an error."""
    record = api.found(api.world.runs, request.path["run"], "Run")
    request.may(api.namespace_of(record))
    if not api.lives[request.path["run"]].terminate():
        raise Problem(400, f"Failed to terminate run {record['run_id']}. The run is not in a terminable state")
    return {}


# recurring runs


@route("POST", "/recurringruns")
def create_recurring_run(api: Api, request: Request) -> Record:
    """A new schedule; what it makes is judged when it makes it."""
    request.may(api.namespace_of(request.body))
    if len(str(request.body["trigger"].get("cron_schedule", {}).get("cron", "")).split()) not in {1, 6}:
        raise Problem(400, "Schedule cron is not supported")
    enabled = request.body.get("mode") == "ENABLE"
    record = {
        **request.body,
        "recurring_run_id": new_id(),
        "created_at": now(),
        "updated_at": now(),
        "status": "ENABLED" if enabled else "DISABLED",
    }
    api.world.recurring[record["recurring_run_id"]] = record
    return record


@route("GET", "/recurringruns")
def list_recurring_runs(api: Api, request: Request) -> Record:
    """The schedules of a namespace."""
    namespace = request.query.get("namespace", "")
    request.may(namespace)
    found = [one for one in api.world.recurring.values() if api.namespace_of(one) == namespace]
    return page(found, "recurringRuns", request.query, api.world.largest_page)


def _recurring(api: Api, request: Request) -> Record:
    record = api.found(api.world.recurring, request.path["recurring"], "RecurringRun")
    request.may(api.namespace_of(record))
    return record


@route("GET", "/recurringruns/{recurring}")
def get_recurring_run(api: Api, request: Request) -> Record:
    """One schedule."""
    return _recurring(api, request)


@route("DELETE", "/recurringruns/{recurring}")
def delete_recurring_run(api: Api, request: Request) -> Record:
    """No such schedule any more."""
    del api.world.recurring[_recurring(api, request)["recurring_run_id"]]
    return {}


@route("POST", "/recurringruns/{recurring}:disable")
def disable_recurring_run(api: Api, request: Request) -> Record:
    """It makes no runs for now."""
    _recurring(api, request).update(mode="DISABLE", status="DISABLED")
    return {}


@route("POST", "/recurringruns/{recurring}:enable")
def enable_recurring_run(api: Api, request: Request) -> Record:
    """It makes runs again."""
    _recurring(api, request).update(mode="ENABLE", status="ENABLED")
    return {}
