"""What several unit tests need: a spec's split part, a store, and an event loop in which waiting takes no time."""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from headrace.store import Store

Part = Callable[..., dict[str, Any]]
sys.path.insert(0, str(Path(__file__).parent))  # for `import annotated`

# A busy machine makes any example slow: how long one takes, or its drawing, is no verdict.
settings.register_profile("whatever-the-load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("whatever-the-load")


@pytest.fixture(scope="session", autouse=True)
def _nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the home of whoever runs it, also where it has none of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def split_part() -> Part:
    """A maker of canonical split parts: `split_part(source, format="csv", strategy="hash", label="y")`."""

    def make(source: object, *, task: str | None = None, **given: Any) -> dict[str, Any]:
        split = {"strategy": "stratified", "train": 0.7, "validation": 0.15, "test": 0.15, "seed": 0}
        split |= {key: given.pop(key) for key in tuple(split) if key in given}
        part: dict[str, Any] = {"source": str(source), "format": "image-folder", "max_corrupt": 0.01, "split": split}
        part |= dict.fromkeys(("label", "features", "id", "group", "time")) | given
        default = "image-classification" if part["format"] == "image-folder" else "tabular-classification"
        return {**part, "tasks": [{"name": task or default, "args": {}}]}

    return make


@pytest.fixture
def annotated_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splitting knows the tasks of `annotated.CARDS` and no other."""
    import annotated

    monkeypatch.setattr("headrace.data.formats.tasks", lambda: annotated.CARDS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of this test's own."""
    return Store(str(tmp_path / "store"))


class _NoWaiting(selectors.DefaultSelector):  # type: ignore[name-defined,misc,valid-type]
    """Instead of waiting for a timer, moves the loop's clock to it."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("everybody waits, and there is no timer that could wake anybody")
        if not found:
            self.loop.now += timeout or 0.0
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while everybody waits, and then at once."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _NoWaiting()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


@pytest.fixture
def in_virtual_time() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end; `asyncio.get_running_loop().time()` tells the seconds that would have passed."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(work)

    return run
