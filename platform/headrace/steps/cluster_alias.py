"""The right to move an alias on a cluster: a Lease that a run holds from the gate's check to the move.

The check and the move happen in two pods, with Kubeflow's own time between them, so the right belongs to the run. It is
given back when a step ends the run's wish for it, but never by an attempt that a newer one has followed, and ends by
itself when no pod of the run has come for it in SILENT_SECONDS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from headrace.api.parts import GROUP
from headrace.base.errors import HeadraceError, RunFailed, Unavailable
from headrace.cluster.leases import LeaseLock, Leases
from headrace.steps.step import Step

SILENT_SECONDS = 900.0  # from one step's end to the next one's first word: Kubeflow's beats, a pod's image, a full node
ALIAS_ANNOTATION = f"{GROUP}/alias"


class AliasRights:
    """The rights that STEP's run holds in CLUSTER."""

    def __init__(self, step: Step, cluster: Leases) -> None:
        self._step = step
        self._cluster = cluster
        self._held: dict[str, LeaseLock] = {}

    def take(
        self, name: str, alias: str, *, holder: str, on_wait: Callable[[Sequence[str]], None] | None = None
    ) -> None:
        """Wait for the right to move ALIAS of model NAME; HOLDER, the run, then has it."""
        reference = f"{name}@{alias}"
        lock = LeaseLock(
            self._cluster,
            lease_name(reference),
            holder,
            silent_seconds=SILENT_SECONDS,
            about={ALIAS_ANNOTATION: reference},
        )
        lock.take(lambda other: on_wait([other]) if on_wait is not None else None, self._step.check_wanted)
        self._held[reference] = lock

    def require(self, name: str, alias: str) -> None:
        """Raise RunFailed unless the run has the right still: to be called right before the move."""
        try:
            self._held[f"{name}@{alias}"].renew()
        except RunFailed as lost:
            raise RunFailed(
                f"the right to move {name}@{alias} was lost: {lost.message}",
                action="resume the run; nothing was changed",
                code="alias-lock-lost",
            ) from lost

    def renew(self) -> None:
        """Say that what is held is still needed."""
        for lock in self._held.values():
            lock.renew()

    def give_back(self) -> None:
        """Let others have what is held."""
        for lock in self._held.values():
            with suppress(HeadraceError):  # it ends by itself, or is a newer attempt's
                lock.give_back(self._step.check)
        self._held.clear()

    @contextmanager
    def kept_only_for_the_next_step(self, *, wanted: bool) -> Iterator[None]:
        """Give back what the block took, unless it ends well and the next step WANTED it, its pod is moved, or a
        service is away and the block is tried again."""
        try:
            yield
        except Unavailable:
            raise
        except KeyboardInterrupt:
            if self._step.ends_by_wish():
                self.give_back()
            raise
        except BaseException:
            self.give_back()
            raise
        if not wanted:
            self.give_back()


def lease_name(reference: str) -> str:
    """The Lease for the alias REFERENCE ("digits@champion"), which may hold what no object's name can."""
    return f"headrace-alias-{hashlib.sha256(reference.encode()).hexdigest()[:16]}"
