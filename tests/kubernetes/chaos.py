"""The long storm (`make chaos`): 200 SIGKILLs of the operator and 20 restarts of the API server, then a verdict.

It takes about twenty minutes. What it says of a seed is the same on every machine but for the moments of the kills.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "testbed"))

from headrace_chaos.storm import field_of, play
from headrace_chaos.story import Storm
from headrace_chaos.verdict import ruling, table
from headrace_testbed.control_plane import EVERYTHING, ControlPlane
from headrace_testbed.mlflow_server import MLflowServer
from headrace_testbed.ours import install_crds
from kuberay_double.install import collect_new_kinds, install_kuberay_kinds


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A storm of kills and restarts over runs and deployments.")
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs of the operator. Default 200.")
    parser.add_argument("--restarts", type=int, default=20, help="Restarts of the API server. Default 20.")
    parser.add_argument("--runs", type=int, default=100, help="TrainingRuns. Default 100.")
    parser.add_argument("--deployments", type=int, default=20, help="ModelDeployments. Default 20.")
    parser.add_argument("--seconds", type=float, default=900, help="How long it blows. Default 900.")
    parser.add_argument("--seed", type=int, default=1, help="Draws the lots. Default 1.")
    return parser.parse_args()


def main() -> int:
    """Play it, print what it was and what is wrong; 1 if anything is."""
    asked = _asked()
    storm = Storm(asked.kills, asked.restarts, asked.runs, asked.deployments, asked.seconds, asked.seed)
    logging.getLogger("headrace.serving").setLevel(logging.CRITICAL)  # versions that cannot be loaded are in the play
    folder = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
    with ControlPlane(folder, EVERYTHING) as plane, MLflowServer(folder / "mlflow") as mlflow:
        install_kuberay_kinds(plane)
        install_crds(plane)
        collect_new_kinds(plane)
        plane.api.post("/api/v1/namespaces", {"metadata": {"name": "chaos"}})
        with field_of(plane, "chaos", mlflow) as field:
            story = play(field, storm)
            ending, wrong = ruling(field, story)
    print(table(field, story, ending))
    print("\n".join([f"\n{len(wrong)} are wrong; logs are in {folder}", *wrong] if wrong else ["\nNothing is wrong."]))
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
