"""Where this user's Headrace lives on this machine.

One folder holds all local state, so that it can be looked at, backed up or thrown away as one; it is private (0700)
because tokens lie in it. Nothing else in the code base spells these paths.

    $HEADRACE_HOME (~/.headrace)
    ├── store/                the artifact store, unless HEADRACE_STORE names another (any fsspec URL)
    ├── runs/<run id>/        a local run's process side: run.json, runner.json, lock, events.jsonl, log, result.json
    ├── mlflow/               MLflow's SQLite file and artifacts, unless MLFLOW_TRACKING_URI is set
    ├── ray/                  head.json, token, logs of the Ray head
    ├── serve/                applications.json: the desired state of everything served here
    ├── locks/                named locks (aliases, start of the head, creation of the MLflow store)
    └── targets.yaml          the sites that `--on` knows
"""

from __future__ import annotations

import os
from pathlib import Path

SITE_VARIABLE = "HEADRACE_SITE"  # set on a cluster: what a step there knows of where it is (`headrace.api.site`)


def home() -> Path:
    """This user's Headrace folder, created private if need be."""
    path = Path(os.environ.get("HEADRACE_HOME") or "~/.headrace").expanduser().absolute()
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def folder(*parts: str) -> Path:
    """A folder below home, created private if need be."""
    path = home().joinpath(*parts)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def run_folder(run_id: str) -> Path:
    """The process side of a local run (not created)."""
    return home() / "runs" / run_id


def store_url() -> str:
    """The artifact store's fsspec URL: HEADRACE_STORE, or the store below home."""
    return os.environ.get("HEADRACE_STORE") or str(home() / "store")
