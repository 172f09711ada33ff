"""What a cluster serves, told as of a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.base.errors import InvalidInput
from headrace.cli.main import execute
from headrace.steps import cluster_endpoints
from headrace.steps.cluster_endpoints import cluster_of, endpoint, endpoints

URL = "http://digits-serve-svc.team-a.svc:8000/digits"


def deployment(*conditions: tuple[str, str, str], serving: str | None = "2", **model: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "digits", "generation": 3, "uid": "u"},
        "spec": {"model": {"name": "digits", **(model or {"version": "2"})}},
        "status": {
            "url": URL,
            "wantedVersion": "2",
            "servingVersion": serving,
            "replicas": 1,
            "answeringReplicas": 1,
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": f"it is {reason}",
                    "observedGeneration": 3,
                    "lastTransitionTime": "2026-11-26T00:00:00Z",
                }
                for kind, status, reason in conditions
            ],
        },
    }


class Served:
    """A cluster with these ModelDeployments."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = list(objects)

    def get(self, kind: Any, name: str) -> Any:
        return next((obj for obj in self.objects if obj["metadata"]["name"] == name), None)

    def list(self, kind: Any, *, labels: str = "", fields: str = "") -> Any:
        return self.objects

    def delete(self, kind: Any, name: str, *, uid: str | None = None) -> bool:
        assert uid == "u", "a delete that is sent again must not meet what was made meanwhile"
        self.objects.clear()
        return True


READY = ("Available", "True", "Ready")


def test_an_endpoint_is_ready_when_every_replica_answers_with_the_wanted_version() -> None:
    assert endpoint(deployment(READY)) == {
        "name": "digits",
        "url": URL,
        "model": "digits",
        "version": "2",
        "replicas": 1,
        "state": "ready",
        "error": None,
    }
    assert endpoint(deployment(READY, serving="1"))["state"] == "updating"
    assert endpoint(deployment())["state"] == "updating"


def test_a_version_that_cannot_be_loaded_is_told_with_its_reason() -> None:
    record = endpoint(deployment(("Progressing", "False", "LoadFailed"), serving="1"))
    assert (record["state"], record["version"], record["error"]) == ("failed", "1", "it is LoadFailed")


def test_one_that_the_operator_has_not_seen_yet_is_what_is_wished_for() -> None:
    new = {**deployment(alias="champion"), "status": {}}
    assert (endpoint(new)["version"], endpoint(new)["state"]) == ("@champion", "updating")


def test_a_target_without_a_kubeconfig_says_what_to_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    target = {"kubeflow": {"host": "https://x"}, "store": "s3://x", "image": "i"}
    (tmp_path / "targets.yaml").write_text(yaml.safe_dump({"prod": target}))
    with pytest.raises(InvalidInput) as raised:
        cluster_of("prod")
    assert "add `kubeconfig`" in raised.value.action


def test_commands_list_and_end_what_a_cluster_serves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = Served(deployment(READY))
    monkeypatch.setattr(cluster_endpoints, "cluster_of", lambda target: served)
    assert execute(["deployments", "--on", "prod"]) == 0
    assert URL in capsys.readouterr().out
    assert execute(["undeploy", "other", "--on", "prod", "--yes"]) == 2
    assert "`headrace deployments --on prod` lists what is" in capsys.readouterr().err
    assert execute(["undeploy", "digits", "--on", "prod", "--yes"]) == 0
    assert endpoints(served) == []
