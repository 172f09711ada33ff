"""How long configurations take to come into force, and for how long each has been there: what no object says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from headrace_operators.model_deployment import metrics, progress
from headrace_operators.model_deployment.observed import Observed
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Key, Object, key_of

Which = tuple[Key, str]  # a deployment, and which one of that name


def which(obj: Object) -> Which:
    """The very deployment that OBJ is."""
    return key_of(obj), str(obj["metadata"]["uid"])


@dataclass
class _Swap:
    """Since when a configuration is known to be in the RayService, and whether it has been seen in force."""

    config_id: str
    since: float
    proven: bool


class Swaps:
    """Of all deployments, by a clock of seconds that only go forward."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[Which, _Swap] = {}

    def live_seconds(self, observed: Observed) -> float:
        """For how long the RayService has been seen with its present configuration."""
        key, live = which(observed.obj), observed.live
        if live is None:
            self._known.pop(key, None)
            return 0.0
        config_id, known = live.config.config_id, self._known.get(key)
        if known is None or known.config_id != config_id:
            before = observed.before("Progressing")
            same = observed.status.get("configID") == config_id
            proven = same and before is not None and before["reason"] == progress.COMPLETE
            known = self._known[key] = _Swap(config_id, self._clock(), proven)
        return self._clock() - known.since

    def note(self, observed: Observed, status: Mapping[str, Any] | None) -> None:
        """Count the swap that STATUS is the first to call complete."""
        known = self._known.get(which(observed.obj))
        if known is None or known.proven or status is None:
            return
        told = find(status["conditions"], "Progressing")
        if told is not None and told["reason"] == progress.COMPLETE and status["configID"] == known.config_id:
            known.proven = True
            metrics.SWAP_SECONDS.observe(self._clock() - known.since)

    def forget_all_but(self, known: Set[Which]) -> None:
        """Let go of deployments that are gone."""
        for gone in self._known.keys() - known:
            del self._known[gone]
