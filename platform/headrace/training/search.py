"""A search: several trainings, of which Ray Tune decides who goes on. This side imports neither ray nor torch.

Ray Tune runs in a child process (`search_driver.py`), as each training does. It gets trials that were drawn before
(`headrace.spec.tuning`): those that are done are told to it anew, so that a resumed search stops whom the whole one
would have stopped.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from headrace.base.errors import HeadraceError, error_from_record
from headrace.base.jsonfile import read_json
from headrace.store import Store
from headrace.training.driver import run_child
from headrace.training.request import Connection, TrainingRequest

State = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Search:
    """How trials are compared, and how many run at a time.

    `metric` is a validation metric's bare name, `mode` what is better; `epochs` the most that a trial can have.
    """

    metric: str
    mode: Literal["max", "min"]
    scheduler: Literal["none", "asha"]
    grace_epochs: int
    reduction_factor: int
    epochs: int
    concurrent: int = 1


@dataclass
class TrialOutcome:
    """What became of a trial; `history` has its epochs, `value` its metric at its best epoch."""

    number: int
    state: State
    value: float | None = None
    best_epoch: int = 0
    why: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TrialOutcome:
        """The inverse of `to_record`."""
        return cls(**record)


def run_search(
    requests: Sequence[TrainingRequest],
    search: Search,
    known: Mapping[int, TrialOutcome],
    *,
    connection: Connection,
    on_epoch: Callable[[int, Mapping[str, Any]], None],
    on_end: Callable[[TrialOutcome], None],
) -> None:
    """Run the trials REQUESTS but those that are KNOWN by their number; blocks until all have ended.

    ON_EPOCH hears of each epoch of a trial, ON_END of each trial's end, as soon as they are there. A trial whose loss
    is not a number any more has failed; the others go on.

    Raises:
        HeadraceError: what ended the search as a whole: the head died, the data or the resources are at fault.
    """
    first = requests[0]
    Store(first.store_url).check_attempt(first.run_id, first.attempt)
    if all(number in known for number in range(len(requests))):
        return
    given = {
        "requests": [request.to_record() for request in requests],
        "search": asdict(search),
        "known": {str(number): outcome.to_record() for number, outcome in known.items()},
    }
    with tempfile.TemporaryDirectory(prefix="headrace-search-") as folder:
        lines = _Lines(Path(folder), search, frozenset(known), on_epoch, on_end)
        driver = "headrace.training.search_driver"
        try:
            run_child(driver, given, connection, lines.folder, lines.pass_on, events_path=None)
        except HeadraceError as error:
            raise (lines.trials_error() or error) from None


class _Lines:
    """What the child's process writes, line by line, and the trials that it is about."""

    def __init__(
        self,
        folder: Path,
        search: Search,
        known: frozenset[int],
        on_epoch: Callable[[int, Mapping[str, Any]], None],
        on_end: Callable[[TrialOutcome], None],
    ) -> None:
        self.folder = folder
        self._search = search
        self._known = known
        self._on_epoch, self._on_end = on_epoch, on_end
        self._histories: dict[int, list[dict[str, Any]]] = {}
        self._read = 0

    def pass_on(self) -> None:
        """Tell what was written since the last call."""
        path = self.folder / "reports.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                told = json.loads(line)
                if told["trial"] not in self._known:
                    self._tell(told["trial"], told.get("entry"))

    def _tell(self, number: int, entry: dict[str, Any] | None) -> None:
        history = self._histories.setdefault(number, [])
        if entry is None:
            self._on_end(self._outcome(number, history))
        elif entry["epoch"] > len(history):
            history.append(entry)
            self._on_epoch(number, entry)

    def _outcome(self, number: int, history: list[dict[str, Any]]) -> TrialOutcome:
        said = read_json(self.folder / f"trial-{number}.json") or {}
        if "failed" in said:
            return TrialOutcome(number, "failed", why=said["failed"], history=history)
        values = {entry["epoch"]: entry["metrics"].get(f"validation.{self._search.metric}") for entry in history}
        if "result" in said:
            best = int(said["result"]["best_epoch"])
            return TrialOutcome(number, "finished", values.get(best), best, history=history)
        return TrialOutcome(number, "stopped", values.get(len(history)), len(history), history=history)

    def trials_error(self) -> HeadraceError | None:
        """The error of a trial that ended the search, if it was one's."""
        for path in sorted(self.folder.glob("trial-*.json")):
            said = read_json(path) or {}
            if "error" in said:
                return error_from_record(said["error"])
        return None
