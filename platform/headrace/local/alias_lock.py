"""The right to move an alias, held by one run from the gate's check to the move.

The check and the move happen in two step processes, so the right belongs to the process above both: the run's runner,
or whoever else deploys. It ends with that process, whatever becomes of the steps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from headrace.base.errors import RunFailed
from headrace.base.home import folder
from headrace.base.processes import ProcessRef
from headrace.local.ledger import Ledger, Wants

OWNER_VARIABLE = "HEADRACE_RUNNER"  # "pid:started:boot" of the runner above a step


def owner() -> ProcessRef:
    """The process on whose behalf this one acts: the runner that HEADRACE_RUNNER names, else itself."""
    parts = os.environ.get(OWNER_VARIABLE, "").split(":")
    if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit():
        return ProcessRef(int(parts[0]), int(parts[1]), parts[2])
    return ProcessRef.current()


def owner_text(reference: ProcessRef) -> str:
    """REFERENCE as HEADRACE_RUNNER carries it."""
    return f"{reference.pid}:{reference.started}:{reference.boot}"


def take_alias(name: str, alias: str, *, holder: str, on_wait: Callable[[Sequence[str]], None] | None = None) -> None:
    """Wait for the right to move ALIAS of model NAME; `owner()` then has it until it ends or gives it back."""
    if holds_alias(name, alias):
        return
    _ledger(name, alias).acquire(
        {"alias": f"{name}@{alias}"}, _if_nobody, holder=holder, owner=owner(), on_wait=on_wait
    )


def holds_alias(name: str, alias: str) -> bool:
    """Whether `owner()` lives and has the right to move ALIAS of model NAME."""
    me = owner()
    return any(claim.owner == me and claim.has is not None for claim in _ledger(name, alias).claims())


def require_alias(name: str, alias: str) -> None:
    """Raise RunFailed unless `owner()` has the right to move the alias: to be called right before moving it."""
    if not holds_alias(name, alias):
        raise RunFailed(
            f"the right to move {name}@{alias} was lost: the process that held it has ended",
            action="run or resume again; nothing was changed",
            code="alias-lock-lost",
        )


def give_back_alias(name: str, alias: str) -> None:
    """Give back what `take_alias` took; nothing happens where `owner()` has it not."""
    me = owner()
    ledger = _ledger(name, alias)
    if any(claim.owner == me for claim in ledger.claims()):
        ledger.release(lambda claim: claim.owner == me)


@contextmanager
def alias_lock(
    name: str, alias: str, *, holder: str, on_wait: Callable[[Sequence[str]], None] | None = None
) -> Iterator[None]:
    """Hold the right to move ALIAS of model NAME for the length of the block (for commands of one process)."""
    take_alias(name, alias, holder=holder, on_wait=on_wait)
    try:
        yield
    finally:
        give_back_alias(name, alias)


def _ledger(name: str, alias: str) -> Ledger:
    stem = hashlib.sha256(f"{name}@{alias}".encode()).hexdigest()[:16]
    return Ledger(folder("locks") / f"alias-{stem}.json")


def _if_nobody(wants: Wants, held: Sequence[Wants]) -> Wants | None:
    return None if held else wants
