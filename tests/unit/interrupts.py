"""What may befall a step of a cluster, for the script of a `FakeCluster`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace.base.errors import Unavailable
from headrace.steps.step import Step


def killed_while_the_store_is_away(step: Step, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The store stops answering STEP, and its pod is told to end."""

    def away(*_: Any) -> None:
        raise Unavailable("the store cannot be reached")

    def killed() -> None:
        monkeypatch.setattr(step.store, "read_json", away)
        raise KeyboardInterrupt

    return killed
