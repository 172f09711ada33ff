"""The process side of one local run: which files it has, and who writes which.

run.json      what was asked for; written once, by whoever made the run
runner.json   the newest runner process; written by whoever starts one
lock          held (flock) by the runner for as long as it lives
events.jsonl  what happens, appended by every process of the run
log           the output of the runner and of its steps
result.json   the final record and exit code: the runner's last act, gone again when the run is resumed
pipeline/     what kfp.local writes; tmp/: temporary files of the steps
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.base import ids
from headrace.base.errors import InvalidInput
from headrace.base.home import home, run_folder
from headrace.base.jsonfile import read_json, write_json
from headrace.base.processes import ProcessRef
from headrace.store import Store


@dataclass(frozen=True)
class RunFiles:
    """The files of the run RUN_ID, which need not exist."""

    run_id: str
    folder: Path

    @classmethod
    def of(cls, run_id: str) -> RunFiles:
        """The files of RUN_ID. Raises InvalidInput for a text that cannot be a run's id (so: for any path)."""
        if not ids.is_run_id(run_id):
            raise InvalidInput(f"{run_id!r} is not a run's id", action="`headrace runs` lists them")
        return cls(run_id, run_folder(run_id))

    @property
    def events(self) -> Path:
        """What happened."""
        return self.folder / "events.jsonl"

    @property
    def log(self) -> Path:
        """The output of all processes."""
        return self.folder / "log"

    @property
    def lock(self) -> Path:
        """Held by the runner."""
        return self.folder / "lock"

    @property
    def pipeline_root(self) -> Path:
        """What kfp.local writes."""
        return self.folder / "pipeline"

    @property
    def temporary(self) -> Path:
        """TMPDIR of the steps."""
        return self.folder / "tmp"

    # run.json

    def read_run(self) -> dict[str, Any]:
        """What was asked for. Raises InvalidInput where there is no such run."""
        found = read_json(self.folder / "run.json")
        if not isinstance(found, dict):
            raise InvalidInput(f"there is no run {self.run_id} in {home()}", action="`headrace runs` lists them")
        return found

    def write_run(self, value: dict[str, Any]) -> None:
        """Say what is asked for."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(self.folder / "run.json", value)

    def store(self) -> Store:
        """The store that the run was made with."""
        return Store(self.read_run()["store"])

    # runner.json

    def read_runner(self) -> ProcessRef | None:
        """The newest runner, dead or alive."""
        return ProcessRef.from_record(read_json(self.folder / "runner.json"))

    def write_runner(self, runner: ProcessRef) -> None:
        """Say who runs it now."""
        write_json(self.folder / "runner.json", runner.to_record())

    # result.json

    def read_result(self) -> tuple[dict[str, Any], int] | None:
        """The record and the exit code of a run that has ended."""
        found = read_json(self.folder / "result.json")
        if not isinstance(found, dict):
            return None
        return found, int(found.pop("exit_code", 1))

    def write_result(self, record: dict[str, Any], exit_code: int) -> None:
        """Say how it ended."""
        write_json(self.folder / "result.json", {**record, "exit_code": exit_code})

    def forget_result(self) -> None:
        """It goes on."""
        (self.folder / "result.json").unlink(missing_ok=True)
