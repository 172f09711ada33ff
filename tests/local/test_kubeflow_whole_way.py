"""The compiled pipeline carried out by its own commands, as Kubeflow's launcher runs them: from a spec to a version.

Kubeflow is the stand-in; the steps are real, with this machine's Ray, MLflow and store, and with no more of an
environment than the compiled pipeline asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.local.ray_head import Head
from headrace.spec import load_spec
from headrace.tracking import registry
from headrace_pipelines.kubeflow import following
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.run import ClusterRun, list_runs, submit
from headrace_pipelines.kubeflow.schedule import schedule
from kfp_stand_in import Beats, KubeflowStandIn, Programs, World
from kfp_stand_in.bed import forget_sites, write_spec, write_targets

pytestmark = pytest.mark.timeout(900)


class Place:
    """A target, and the programs of its pods."""

    def __init__(self, home: Path, folder: Path, stand_in: KubeflowStandIn, programs: Programs) -> None:
        self.folder = folder
        self.stand_in = stand_in
        self.programs = programs
        write_targets(home, stand_in, home / "store")
        self.cluster = Cluster.named("kubeflow")

    def spec(self, **changes: Any) -> Any:
        # Seeds of its own: an equal split or training of another test in the same store would be taken for these.
        train = {"epochs": 1, "batch_size": 128, "workers": 1, "optimizer": {"name": "adam", "lr": 0.003}, "seed": 11}
        data = {"source": "builtin:digits", "split": {"seed": 11}}
        given = {"gate": ["accuracy >= 0.1"], "deploy": None, "data": data, "train": train} | changes
        return load_spec(write_spec(self.folder, **given))

    def logs(self, run: Mapping[str, Any]) -> str:
        return "\n".join(text for (run_id, _), text in self.programs.logs.items() if run_id == run["run_id"])


@pytest.fixture(scope="module")
def place(head: Head, headrace_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("pods")
    base = {"HEADRACE_HOME": str(headrace_home), "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    programs = Programs(folder, base)
    world = World(work=programs, beats=Beats(scale=0.01))
    world.config_maps["headrace-site"] = {"HEADRACE_STORE": str(headrace_home / "store")}
    world.secrets["headrace-store"] = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    with KubeflowStandIn(world) as stand_in, pytest.MonkeyPatch.context() as patch:
        forget_sites(patch)
        # without a site the steps do as on a laptop, and write so
        patch.setattr(following, "POLL_SECONDS", 0.2)
        patch.setattr(ClusterRun, "step_attempt", property(lambda run: f"{run.attempt}.1"))
        yield Place(headrace_home, folder, stand_in, programs)


def states(record: Mapping[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in record["steps"]}


def test_a_submission_ends_with_a_model_in_the_registry_and_a_schedule_reuses_it(place: Place) -> None:
    run = submit(place.cluster, place.spec())
    events = list(run.follow())
    record = run.status()
    assert record["state"] == "succeeded", place.logs(place.stand_in.runs()[0])
    assert states(record) == {"split": "succeeded", "train": "succeeded", "register": "succeeded", "deploy": "skipped"}
    assert any(event["type"] == "metrics" for event in events)
    champion = registry.resolve("digits@champion")
    assert champion is not None
    assert champion.version == record["model"]["version"]
    spent = record["kubeflow"]
    assert spent["seconds"] == pytest.approx(spent["steps_seconds"] + spent["own_seconds"], abs=0.01)

    schedule(place.cluster, place.spec(), "@daily")
    made = place.stand_in.fire("digits")
    assert made is not None
    assert place.stand_in.life(made["run_id"]).wait(600)
    newest = max(list_runs(place.cluster), key=lambda run: str(run.request["created"]))
    assert newest.run_id != run.run_id
    again = newest.status()
    assert again["state"] == "succeeded", place.logs(made)
    assert states(again)["train"] == "cached"
    assert again["model"] == record["model"]
    assert again["kubeflow"]["run_id"] == made["run_id"]


def test_a_failing_step_is_told_in_the_words_of_its_own_process(place: Place) -> None:
    run = submit(place.cluster, place.spec(gate=["accuracy >= 0.9999"]))
    list(run.follow())
    record = run.status()
    assert (record["state"], run.exit_code()) == ("refused", 3)
    assert record["error"]["step"] == "register"
    assert record["gate"]["passed"] is False
