"""CPUs and GPUs of this machine's Ray head: whether a run can ever have what it asks for, and whose turn it is.

Ray Train waits for ever for what does not exist, and without a word for what is taken. So a run is refused before
anything starts when it asks for more than there is, and waits for its turn here, where the wait can be explained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.base.errors import NotEnoughResources
from headrace.base.home import folder
from headrace.base.processes import ProcessRef
from headrace.local.ledger import Ledger, Wants


class Capacity(Protocol):
    """What a Ray head has; `local.ray_head.Head` is one."""

    @property
    def num_cpus(self) -> int:
        """CPUs for actors and tasks."""

    @property
    def num_gpus(self) -> int:
        """GPUs for actors and tasks."""


@dataclass(frozen=True)
class Machine:
    """What a head started on this machine would have."""

    num_cpus: int
    num_gpus: int


def machine() -> Machine:
    """What a head started on this machine now would have."""
    from headrace.local.ray_head import available_cpus, available_gpus

    return Machine(available_cpus(), available_gpus())


def for_training(capacity: Capacity) -> Machine:
    """What of CAPACITY no endpoint reserves: what is served stays, so a training never gets that."""
    from headrace.local.desired_state import read_desired

    cpus, gpus = float(capacity.num_cpus), float(capacity.num_gpus)
    for endpoint in read_desired().values():
        cpus -= endpoint.replicas * float(endpoint.resources.get("cpus") or 0)
        gpus -= endpoint.replicas * float(endpoint.resources.get("gpus") or 0)
    return Machine(max(0, int(cpus)), max(0, int(gpus)))


@dataclass(frozen=True)
class Demand:
    """What a training asks for: between `least` and `most` workers of a size."""

    least: int
    most: int
    cpus_per_worker: float
    gpus_per_worker: float

    def workers_in(self, cpus: float, gpus: float) -> int:
        """How many workers fit into what is free; 0 when fewer than `least` do."""
        workers = self.most
        if self.cpus_per_worker > 0:
            workers = min(workers, int(cpus / self.cpus_per_worker + 1e-9))
        if self.gpus_per_worker > 0:
            workers = min(workers, int(gpus / self.gpus_per_worker + 1e-9))
        return workers if workers >= self.least else 0


def demand_of(train: Mapping[str, Any], capacity: Capacity) -> Demand:
    """The demand of a canonical `train` record; `gpus_per_worker: auto` becomes 1 if every worker can have one."""
    workers = train["workers"]
    least, most = int(workers["min"]), int(workers["max"])
    gpus = train["gpus_per_worker"]
    if gpus == "auto":
        gpus = 1 if least <= capacity.num_gpus else 0
    return Demand(least, most, float((train.get("resources") or {}).get("cpus_per_worker") or 1), float(gpus))


def check_resources(record: Mapping[str, Any], capacity: Capacity | None = None) -> Demand:
    """The demand of the canonical spec RECORD.

    Args:
        capacity: the head's, or None for that of a head started on this machine now.

    Raises:
        NotEnoughResources: its least number of workers needs more CPUs or GPUs than there are.
    """
    return check_demand(record["train"], for_training(machine() if capacity is None else capacity))


def check_demand(train: Mapping[str, Any], there: Capacity) -> Demand:
    """The demand of the `train` record, which THERE can be met. Raises NotEnoughResources."""
    demand = demand_of(train, there)
    for name, each, available in (
        ("CPU", demand.cpus_per_worker, there.num_cpus),
        ("GPU", demand.gpus_per_worker, there.num_gpus),
    ):
        if demand.least * each > available + 1e-9:
            raise NotEnoughResources(
                f"training needs {demand.least * each:g} {name}s ({demand.least} x {each:g}), "
                f"and there {'is' if available == 1 else 'are'} {available:g}",
                action=_advice(name, each, available),
            )
    return demand


def _advice(name: str, each: float, available: float) -> str:
    fit = int(available / each + 1e-9)
    key = "train.resources.cpus_per_worker" if name == "CPU" else "train.gpus_per_worker"
    return f"set train.workers to {fit} or fewer" if fit >= 1 else f"lower {key}"


@contextmanager
def claim(
    demand: Demand,
    capacity: Capacity,
    *,
    holder: str,
    on_wait: Callable[[Sequence[str]], None] | None = None,
) -> Iterator[int]:
    """Hold CPUs and GPUs for the length of the block; yields the number of workers they are for.

    First come, first served; a claim whose process ended counts no more. ON_WAIT gets the names of those waited for.
    """

    def decide(_: Wants, held: Sequence[Wants]) -> Wants | None:
        cpus = capacity.num_cpus - sum(float(has["cpus"]) for has in held)
        gpus = capacity.num_gpus - sum(float(has["gpus"]) for has in held)
        workers = demand.workers_in(cpus, gpus)
        if workers == 0:
            return None
        return {
            "workers": workers,
            "cpus": workers * demand.cpus_per_worker,
            "gpus": workers * demand.gpus_per_worker,
        }

    ledger = Ledger(folder("locks") / "resources.json")
    wants = {"least": demand.least, "most": demand.most}
    mine = ledger.acquire(wants, decide, holder=holder, owner=ProcessRef.current(), on_wait=on_wait)
    try:
        assert mine.has is not None
        yield int(mine.has["workers"])
    finally:
        ledger.release(lambda one: one.token == mine.token)
