"""The chart's backups: what every value of `backup` comes to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from headrace.cli.main import app
from headrace_testbed.helm import NAMESPACE, HelmError, Objects, Render, container, variables

NAME = "headrace-backup"


def pod(objects: Objects) -> Any:
    return objects.one("CronJob", "headrace-backup")["spec"]["jobTemplate"]["spec"]["template"]


def arguments(objects: Objects) -> list[str]:
    found: list[str] = container(pod(objects), "backup")["args"]
    return found


def test_there_is_none_unless_it_is_asked_for(render: Render) -> None:
    assert not [each for each in render() if "backup" in each["metadata"]["name"]]


def test_it_saves_every_workspace_into_the_bucket_of_the_runs(render: Render) -> None:
    objects = render(backup={"enabled": True}, workspaces=["a", "b"], s3={"prefix": "team"})
    destination, *options = arguments(objects)
    assert destination == "s3://headrace/team/backups"
    assert options == [
        *("--artifacts=registered", "--keep=14", "--verify", "--namespace=a", "--namespace=b"),
        f"--lease-namespace={NAMESPACE}",
    ]
    assert {each["metadata"]["namespace"] for each in objects.of("Role") if each["metadata"]["name"] == NAME} == {
        "a",
        "b",
    }


def test_the_command_has_every_option_that_the_chart_gives(render: Render) -> None:
    command: Any = typer.main.get_command(app)
    known = {option for parameter in command.commands["backup"].params for option in parameter.opts}
    given = {each.partition("=")[0] for each in arguments(render(backup={"enabled": True}))[1:]}
    assert given <= known


def test_other_namespaces_and_times_may_be_named(render: Render) -> None:
    values = {"enabled": True, "namespaces": ["c"], "schedule": "0 * * * *", "timeZone": "Europe/Zurich", "keep": 3}
    objects = render(backup={**values, "artifacts": "all", "verify": False}, workspaces=["a"])
    assert arguments(objects)[1:4] == ["--artifacts=all", "--keep=3", "--namespace=c"]
    spec = objects.one("CronJob", NAME)["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 * * * *", "Europe/Zurich", "Forbid")
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 43200


def test_one_that_hangs_is_ended_so_that_the_next_one_begins(render: Render) -> None:
    objects = render(backup={"enabled": True, "deadlineSeconds": 600})
    assert objects.one("CronJob", NAME)["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 600


def test_another_s3_store_has_its_own_address_and_keys(render: Render) -> None:
    other = {"endpoint": "https://s3.example.com", "region": "eu", "existingSecret": "vault"}
    objects = render(backup={"enabled": True, "destination": "s3://vault/x", "s3": other})
    found = variables(container(pod(objects), "backup"))
    assert arguments(objects)[0] == "s3://vault/x"
    assert found["HEADRACE_BACKUP_AWS_ENDPOINT_URL"] == "https://s3.example.com"
    assert found["HEADRACE_BACKUP_AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "vault", "key": "AWS_ACCESS_KEY_ID"}}
    assert found["AWS_ENDPOINT_URL"].startswith("http://headrace-s3.")  # of the runs


def test_a_volume_is_mounted_where_it_writes(render: Render) -> None:
    objects = render(backup={"enabled": True, "destination": "/backups/headrace", "existingClaim": "disk"})
    assert {"name": "backups", "mountPath": "/backups"} in container(pod(objects), "backup")["volumeMounts"]
    assert {"name": "backups", "persistentVolumeClaim": {"claimName": "disk"}} in pod(objects)["spec"]["volumes"]


def test_it_reads_objects_and_writes_its_lease_and_nothing_else(render: Render) -> None:
    objects = render(backup={"enabled": True}, workspaces=["a"])
    held = {
        each["roleRef"]["name"]
        for each in objects.of("RoleBinding")
        if {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE} in each["subjects"]
    }
    assert held == {"headrace-backup", "headrace-backup-lease"}
    (rule,) = objects.one("Role", "headrace-backup", "a")["rules"]
    assert (rule["resources"], rule["verbs"]) == (["trainingruns", "modeldeployments", "modelmonitors"], ["list"])
    restore = {"trainingruns", "modeldeployments", "modelmonitors", "trainingruns/status"}
    rules = objects.one("Role", "headrace-restore", "a")["rules"]  # bound by a person, for the time of a restore
    assert {resource for each in rules for resource in each["resources"]} == restore
    assert not [each for each in objects.of("ClusterRoleBinding") if NAME in str(each["subjects"])]


REFUSED = [
    ({"destination": "/backups"}, "backup.existingClaim names no volume"),
    ({"existingClaim": "disk"}, "backup.destination is no folder of it"),
    ({"keep": 0}, "'/backup/keep': minimum: got 0, want 1"),
    ({"destination": "vault"}, "/backup/destination"),
    ({"destination": "/backupsX", "existingClaim": "disk"}, "/backup/destination"),
    ({"artifacts": "some"}, "'/backup/artifacts': value must be one of"),
    ({"retention": 3}, "additional properties 'retention' not allowed"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_a_wrong_value_is_refused_with_its_path(render: Render, values: dict[str, Any], words: str) -> None:
    with pytest.raises(HelmError) as refused:
        render(backup={"enabled": True, **values})
    assert words in str(refused.value)


def test_without_the_charts_mlflow_somebody_must_say_where_the_database_is(render: Render) -> None:
    mlflow = {"enabled": False, "external": {"trackingURI": "https://mlflow.example.com"}}
    with pytest.raises(HelmError) as refused:
        render(backup={"enabled": True}, mlflow=mlflow)
    assert "postgresql.existingSecret" in str(refused.value)
    objects = render(backup={"enabled": True}, mlflow=mlflow, postgresql={"existingSecret": "mlflow-database"})
    found = variables(container(pod(objects), "backup"))
    assert found["MLFLOW_BACKEND_STORE_URI"] == {"secretKeyRef": {"name": "mlflow-database", "key": "uri"}}
