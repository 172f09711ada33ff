"""A Lease as a lock that belongs to a name, not to a process: it passes from one pod of a run to the next.

A holder says how long it may be silent. Whoever wants the lock next watches the Lease, and takes it when it is given
back or the holder has been silent for longer. Times are those of the nodes' clocks, which are allowed to differ by
SKEW_SECONDS. Every write names the version that it was made from, so of two that take the lock one succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from headrace.api.kinds import LEASE, Kind, Object
from headrace.base.errors import RunFailed
from headrace.cluster.cluster import Seen

SKEW_SECONDS = 15.0
TICK_SECONDS = 10.0  # between two looks at whether the holder has been silent for too long
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class Leases(Protocol):
    """What a lock needs of a cluster; see `headrace.cluster.Cluster`."""

    def get(self, kind: Kind, name: str) -> Object | None:
        """See there."""

    def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Object | None:
        """See there."""

    def patch(self, kind: Kind, name: str, changes: Mapping[str, Any]) -> Object | None:
        """See there."""

    def follow(self, kind: Kind, name: str, *, tick_seconds: float) -> Iterator[Seen]:
        """See there."""


class LeaseLock:
    """The lock that the Lease NAME is, for HOLDER.

    Args:
        silent_seconds: how long the holder may do nothing about it.
        about: annotations that tell people what it is.
    """

    def __init__(
        self,
        cluster: Leases,
        name: str,
        holder: str,
        *,
        silent_seconds: float,
        about: Mapping[str, str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self.holder = holder
        self._cluster = cluster
        self._silent = silent_seconds
        self._about = dict(about)
        self._now = now

    def take(self, on_wait: Callable[[str], None], check: Callable[[], None] = lambda: None) -> None:
        """Wait until the lock is the holder's; nothing changes where it is already, but that it is renewed.

        Args:
            on_wait: told the name of each holder that is waited for.
            check: raises where it is no longer worth waiting.
        """
        told = ""
        for seen in self._cluster.follow(LEASE, self.name, tick_seconds=TICK_SECONDS):
            if self._try(seen.object):
                return
            other = self._holder(seen.object)
            if other and other != told:
                told = other
                on_wait(other)
            check()

    def renew(self) -> None:
        """Say that it is still needed. Raises RunFailed where another has it."""
        for _ in range(3):  # somebody may have written to the Lease at the same time, to no effect on us
            lease = self._cluster.get(LEASE, self.name)
            if self._holder(lease) != self.holder:
                break
            if self._try(lease):
                return
        raise RunFailed(
            f"{self.holder} has lost the lock {self.name}: {self._holder(lease) or 'nobody'} has it",
            action="resume the run; nothing was changed",
            code="lock-lost",
        )

    def give_back(self, check: Callable[[], None] = lambda: None) -> None:
        """Let others have it; nothing happens where another has it already.

        Args:
            check: raises where it is no longer ours to give. It is asked after the look: whoever takes the lock over
                from then on has written to the Lease, and the giving back is refused.
        """
        lease = self._cluster.get(LEASE, self.name)
        if lease is not None and self._holder(lease) == self.holder:
            check()
            version = lease["metadata"]["resourceVersion"]
            free = {"holderIdentity": None, "renewTime": self._time()}
            self._cluster.patch(LEASE, self.name, {"metadata": {"resourceVersion": version}, "spec": free})

    def _try(self, lease: Object | None) -> bool:
        """Whether the lock is the holder's now."""
        spec = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": max(1, int(self._silent)),
            "renewTime": self._time(),
        }
        if lease is None:
            metadata = {"name": self.name, "annotations": self._about}
            made = {"metadata": metadata, "spec": {**spec, "acquireTime": spec["renewTime"]}}
            return self._cluster.create(LEASE, made) is not None
        if self._holder(lease) not in ("", self.holder) and not self._silent_too_long(lease):
            return False
        if self._holder(lease) != self.holder:
            transitions = int(lease["spec"].get("leaseTransitions", 0)) + 1
            spec |= {"acquireTime": spec["renewTime"], "leaseTransitions": transitions}
        version = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        return self._cluster.patch(LEASE, self.name, {"metadata": version, "spec": spec}) is not None

    def _holder(self, lease: Object | None) -> str:
        return "" if lease is None else str((lease.get("spec") or {}).get("holderIdentity") or "")

    def _silent_too_long(self, lease: Object) -> bool:
        spec = lease["spec"]
        if not spec.get("renewTime"):
            return True
        allowed = float(spec.get("leaseDurationSeconds", 0)) + SKEW_SECONDS
        return self._now() > datetime.fromisoformat(spec["renewTime"]) + timedelta(seconds=allowed)

    def _time(self) -> str:
        return self._now().strftime(_TIME)
