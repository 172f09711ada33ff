"""However often the operator is killed and the API server restarted: one RayJob an attempt, honest counts, right ends.

This is the short storm, always the same one; `make chaos` plays the long one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_chaos.storm import Storm, field_of, play
from headrace_chaos.verdict import judge, table
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.mlflow_server import MLflowServer

SHORT = Storm(kills=12, restarts=2, runs=20, deployments=4, seconds=45, seed=5)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    with MLflowServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.mark.timeout(600)
def test_a_storm_leaves_one_rayjob_an_attempt_honest_counts_and_right_ends(
    played_plane: ControlPlane, mlflow: MLflowServer
):
    played_plane.api.post("/api/v1/namespaces", {"metadata": {"name": "storm"}})
    with field_of(played_plane, "storm", mlflow) as field:
        story = play(field, SHORT)
        ending, wrong = judge(field, story)
        print(table(field, story, ending))
        assert not wrong, "\n".join([f"{len(wrong)} are wrong; the operator's log is {field.operator.log}", *wrong])
